"""Slow, fast and synthetic images side by side (the paper's Figure 1), as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from empirical import algorithm
from empirical.arms import Pair
from empirical.compare import generator_folder, make_generator, needed, store_folder
from empirical.data import Images, load, partition
from empirical.settings import Comparison, Settings
from empirical.synthesis import seen_by, stored_images


@dataclass(frozen=True)
class Gallery:
    """Images of one split, uint8 (columns, height, width) or (columns, height, width, 3).

    Column by column of one class each: a fast image, a slow one, and the synthetic image that
    was made from this slow one.
    """

    fast: np.ndarray
    slow: np.ndarray
    synthetic: np.ndarray
    classes: tuple[str, ...]


def gallery(
    images: Images,
    train: np.ndarray,
    slow: np.ndarray,
    synthetic: dict[Pair, Tensor],
    per_class: int = 1,
) -> Gallery:
    """Pick the first `per_class` fast and slow images of each class that has them.

    train: indices of the training images; slow: bool, which of them are slow; synthetic: images
    by (source, copy), of which copy 1 is shown.
    """
    labels = images.labels.numpy()[train]
    fast_sources: list[int] = []
    slow_sources: list[int] = []
    for label in range(len(images.classes)):
        ours = [train[(labels == label) & which] for which in (~slow, slow)]
        ours[1] = np.array([source for source in ours[1] if (int(source), 1) in synthetic])
        count = min(per_class, *map(len, ours))
        fast_sources += ours[0][:count].tolist()
        slow_sources += ours[1][:count].tolist()
    names = tuple(images.classes[int(images.labels[source])] for source in slow_sources)

    def arrays(pixels: list[Tensor]) -> np.ndarray:
        stacked = np.stack([image.permute(1, 2, 0).numpy() for image in pixels])
        return stacked[..., 0] if stacked.shape[-1] == 1 else stacked

    return Gallery(
        fast=arrays([images.pixels[source] for source in fast_sources]),
        slow=arrays([images.pixels[source] for source in slow_sources]),
        synthetic=arrays([synthetic[source, 1] for source in slow_sources]),
        classes=names,
    )


def run_gallery(settings: Settings, out: Path, per_class: int = 1) -> Gallery:
    """The gallery of one run's folder (an arm with synthetic images of slow sources)."""
    from empirical.run import generate, select

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
    slow = algorithm.find_slow(images, parts, cells[0], range(comparison.seeds))[seed].train
    pairs = needed(cells, parts, slow, seed)
    generator = make_generator(cells[0], out)
    folder = store_folder(out, cells[0], seed)
    seen = seen_by(cells[0], generator_folder(out, cells[0]))
    synthetic = stored_images(images, pairs, cells[0], generator, seed, folder, seen=seen)
    return gallery(images, parts.train, slow, synthetic, per_class)
