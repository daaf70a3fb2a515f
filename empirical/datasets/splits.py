"""Data sets as uint8 tensors, and their partition into pool, validation, training and test.

Every command loads its images by `open_set` and cuts them by `cut`, so that what one of them trains
on is never what another one scores: a generator sees `for_generator`, a classifier `Split.train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import require
from common.seeding import numpy_stream
from empirical.config.settings import Settings
from empirical.datasets import registry
from empirical.datasets.base import Images, ImageSet, stratified_order
from empirical.datasets.digits import digits
from empirical.datasets.planted import PlantedConfig


@dataclass(frozen=True)
class Layout:
    """How a data set is cut: the sizes that stay the same for every split.

    n_train: the least and the most allowed; None: no such limits.
    """

    pool: int = 0
    validation: int = 0
    n_train: tuple[int, int] | None = None


@dataclass(frozen=True)
class Split:
    """Indices, int64, sorted: test into the test images, the others, disjoint, into the training
    images. Of digits both are the same images, and all four are disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    pool: np.ndarray


_LAYOUTS = {
    "digits": Layout(pool=500, validation=197, n_train=(100, 300)),
    "fashion-mnist": Layout(pool=10_000),
}


def load(dataset: str) -> Images:
    """All images of a data set that has no test set of its own."""
    require(dataset == "digits", "dataset", dataset, "digits")
    return digits()


def open_set(
    settings: Settings, root: Path, download: bool = True, planted: PlantedConfig | None = None
) -> ImageSet:
    """The data set of a run; root is where published files are, or are downloaded to.

    Digits come whole, as training and as test images: `cut` says which are which.

    Raises:
        ParameterError: the data are not there, or damaged (one line says what to do).
    """
    return registry.load(settings.dataset, root, download, planted=planted)


def cut(data: ImageSet, settings: Settings) -> Split:
    """Cut a data set for one split.

    Without a limit on n_train there is one split, of all that is not in the pool. With one, the
    images are cut into chunks as `partition` does. The test images are all there are.

    Raises:
        ParameterError: n_train or split does not fit the data set.
    """
    if settings.dataset == "digits":
        return partition(data.train, settings)
    layout, labels = _LAYOUTS.get(settings.dataset, Layout()), data.train.labels.numpy()
    n = len(labels) - layout.pool - layout.validation
    size = n if settings.n_train is None else settings.n_train
    require(size <= n, "n_train", size, f"at most {n} for {settings.dataset}")
    require(
        size >= len(data.classes), "n_train", size, f"at least {len(data.classes)}, the classes"
    )
    require(
        settings.split < n // size,
        "split",
        settings.split,
        f"between 0 and {n // size - 1} with n_train = {size}",
    )
    order = stratified_order(labels, numpy_stream("partition", settings.dataset))
    pool, validation, rest = np.split(order, [layout.pool, layout.pool + layout.validation])
    return Split(
        train=np.sort(rest[settings.split * size : (settings.split + 1) * size]),
        validation=np.sort(validation),
        test=np.arange(len(data.test.labels)),
        pool=np.sort(pool),
    )


def for_generator(split: Split, pool: bool | None = None) -> np.ndarray:
    """Indices of the images that a generator may be trained on: those of no test, sorted.

    pool: the pool, or the training images; None: the pool, for data sets that keep one.
    """
    return split.pool if pool or (pool is None and len(split.pool)) else split.train


def n_splits(dataset: str, n: int, n_train: int) -> int:
    """How many disjoint training chunks of `n_train` a data set of `n` images has."""
    layout = _LAYOUTS[dataset]
    return (n - layout.pool - layout.validation) // n_train


def partition(images: Images, settings: Settings) -> Split:
    """Cut digits for one split.

    Pool and validation are the same for every split. The other images are cut into chunks of
    `n_train`; split s trains on chunk s and tests on all the others. So training chunks of
    different splits are disjoint, and no image of pool or validation is ever trained on (by a
    classifier) or tested.

    Raises:
        ParameterError: n_train or split does not fit the data set.
    """
    layout = _LAYOUTS["digits"]
    least, most = layout.n_train or (1, len(images.labels))
    n, size = len(images.labels), settings.train_images or most
    require(
        least <= size <= most,
        "n_train",
        size,
        f"between {least} and {most} for {settings.dataset}",
    )
    splits = n_splits(settings.dataset, n, size)
    require(
        settings.split < splits,
        "split",
        settings.split,
        f"between 0 and {splits - 1} with n_train = {size}",
    )
    order = stratified_order(images.labels.numpy(), numpy_stream("partition", settings.dataset))
    pool, validation, rest = np.split(order, [layout.pool, layout.pool + layout.validation])
    chunk = slice(settings.split * size, (settings.split + 1) * size)
    return Split(
        train=np.sort(rest[chunk]),
        validation=np.sort(validation),
        test=np.sort(np.delete(rest, chunk)),
        pool=np.sort(pool),
    )
