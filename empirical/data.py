"""Data sets as uint8 tensors, and their partition into pool, validation, training and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from empirical.datasets.base import Images, stratified_order
from empirical.datasets.digits import digits
from empirical.settings import Settings
from empirical.streams import numpy_stream
from theory.parameters import require


@dataclass(frozen=True)
class Layout:
    """How a data set is cut: the sizes that stay the same for every split."""

    pool: int
    validation: int
    n_train: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """Indices into a data set, int64, sorted, pairwise disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    pool: np.ndarray


_LOADERS: dict[str, Callable[[], Images]] = {"digits": digits}
_LAYOUTS = {"digits": Layout(pool=500, validation=197, n_train=(100, 300))}


def load(dataset: str) -> Images:
    """Load a data set by name."""
    return _LOADERS[dataset]()


def n_splits(dataset: str, n: int, n_train: int) -> int:
    """How many disjoint training chunks of `n_train` a data set of `n` images has."""
    layout = _LAYOUTS[dataset]
    return (n - layout.pool - layout.validation) // n_train


def partition(images: Images, settings: Settings) -> Split:
    """Cut a data set for one split.

    Pool and validation are the same for every split. The other images are cut into chunks of
    `n_train`; split s trains on chunk s and tests on all the others. So training chunks of
    different splits are disjoint, and no image of pool or validation is ever trained on (by a
    classifier) or tested.

    Raises:
        ParameterError: n_train or split does not fit the data set.
    """
    layout = _LAYOUTS[settings.dataset]
    least, most = layout.n_train
    n = len(images.labels)
    require(
        least <= settings.n_train <= most,
        "n_train",
        settings.n_train,
        f"between {least} and {most} for {settings.dataset}",
    )
    splits = n_splits(settings.dataset, n, settings.n_train)
    require(
        settings.split < splits,
        "split",
        settings.split,
        f"between 0 and {splits - 1} with n_train = {settings.n_train}",
    )
    order = stratified_order(images.labels.numpy(), numpy_stream("partition", settings.dataset))
    pool, validation, rest = np.split(order, [layout.pool, layout.pool + layout.validation])
    chunk = slice(settings.split * settings.n_train, (settings.split + 1) * settings.n_train)
    return Split(
        train=np.sort(rest[chunk]),
        validation=np.sort(validation),
        test=np.sort(np.delete(rest, chunk)),
        pool=np.sort(pool),
    )


def to_float(pixels: Tensor) -> Tensor:
    """uint8 levels to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_levels(pixels: Tensor) -> Tensor:
    """float32 in [-1, 1] to uint8 levels, clipped and rounded."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
