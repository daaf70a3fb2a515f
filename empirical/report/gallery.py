"""Slow, fast and synthetic images side by side (the paper's Figure 1), as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from empirical.datasets.base import Images
from empirical.pipeline.arms import Pair


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
