"""The galleries of a run and of a comparison, read from their folders."""

from __future__ import annotations

from pathlib import Path

from empirical.config.settings import Comparison, Settings
from empirical.datasets.splits import load, partition
from empirical.experiments.compare import generator_folder, make_generator, needed, store_folder
from empirical.pipeline import many_seeds
from empirical.pipeline.synthesis import seen_by, stored_images
from empirical.report.gallery import Gallery, gallery


def run_gallery(settings: Settings, out: Path, per_class: int = 1) -> Gallery:
    """The gallery of one run's folder (an arm with synthetic images of slow sources)."""
    from empirical.pipeline.run import generate, select

    images = load(settings.dataset)
    synthetic = generate(settings, out)
    train = partition(images, settings).train
    return gallery(images, train, select(settings, out).train, synthetic, per_class)


def comparison_gallery(
    comparison: Comparison, out: Path, split: int = 0, seed: int = 0, per_class: int = 1
) -> Gallery:
    """The gallery of one split and seed of a finished comparison's folder."""
    cells = comparison.cells("pool", split)
    images = load(comparison.dataset)
    parts = partition(images, cells[0])
    slow = many_seeds.find_slow(images, parts, cells[0], range(comparison.seeds))[seed].train
    pairs = needed(cells, parts, slow, seed)
    generator = make_generator(cells[0], out)
    folder = store_folder(out, cells[0], seed)
    seen = seen_by(cells[0], generator_folder(out, cells[0]))
    synthetic = stored_images(images, pairs, cells[0], generator, seed, folder, seen=seen)
    return gallery(images, parts.train, slow, synthetic, per_class)
