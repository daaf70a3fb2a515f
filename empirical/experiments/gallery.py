"""The galleries of a run and of a comparison, read from their folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from empirical.config.settings import Settings
from empirical.experiments.compare import (
    generator_folder,
    make_generator,
    needed,
    opened,
    store_folder,
)
from empirical.experiments.settings import Comparison
from empirical.pipeline.algorithm import find_slow_together
from empirical.pipeline.synthesis import seen_by, stored_images
from empirical.report.gallery import Gallery, gallery


def run_gallery(settings: Settings, out: Path, per_class: int = 1) -> Gallery:
    """The gallery of one run's folder (an arm with synthetic images of slow sources)."""
    from empirical.pipeline.run import generate, select

    data, split = opened(settings)
    images = data.train
    synthetic = generate(settings, out)
    train = split.train
    return gallery(images, train, select(settings, out).train, synthetic, per_class)


def comparison_gallery(
    comparison: Comparison, out: Path, split: int = 0, seed: int = 0, per_class: int = 1
) -> Gallery:
    """The gallery of one split and seed of a finished comparison's folder."""
    cells = comparison.cells("pool", split)
    data, parts = opened(cells[0])
    images = data.train
    seeds = [replace(cells[0], seed=own) for own in range(comparison.seeds)]
    slow = find_slow_together(data, parts, seeds)[seed].train
    pairs = needed(cells, parts, slow, seed)
    generator = make_generator(cells[0], out)
    folder = store_folder(out, cells[0], seed)
    seen = seen_by(cells[0], generator_folder(out, cells[0]))
    synthetic = stored_images(images, pairs, cells[0], generator, seed, folder, seen=seen)
    return gallery(images, parts.train, slow, synthetic, per_class)
