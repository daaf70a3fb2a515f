"""Loading the images of a run, and cutting them into pool, validation, training and test.

Every command loads its images by `open_set` and cuts them by `make_split`, so that what one of them
trains on is never what another one scores: a generator sees `for_generator`, a classifier
`Split.train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import require
from common.seeding import numpy_stream
from empirical.config.data import DataSettings
from empirical.datasets import registry
from empirical.datasets.base import ImageSet, stratified_order
from empirical.datasets.planted import PlantedConfig


@dataclass(frozen=True)
class Layout:
    """How a data set is cut: the sizes that stay the same for every split.

    n_train: the least and the most allowed; None: no such limits.
    shared: training and test images are the same, and what is not trained on is tested.
    """

    pool: int = 0
    validation: int = 0
    n_train: tuple[int, int] | None = None
    shared: bool = False


@dataclass(frozen=True)
class Split:
    """Indices, int64, sorted: test into the test images, the others, disjoint, into the training
    images. Of digits both are the same images, and all four are disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    pool: np.ndarray


_LAYOUTS = {
    "digits": Layout(pool=500, validation=197, n_train=(100, 300), shared=True),
    "fashion-mnist": Layout(pool=10_000),
}


def open_set(
    settings: DataSettings,
    root: Path,
    download: bool = True,
    planted: PlantedConfig | None = None,
) -> ImageSet:
    """The data set of a run; root is where published files are, or are downloaded to.

    Digits come whole, as training and as test images: `make_split` says which are which.

    Raises:
        ParameterError: the data are not there, or damaged (one line says what to do).
    """
    return registry.load(
        settings.dataset,
        root,
        download,
        side=settings.image_size,
        fit=settings.image_fit,
        flips=settings.turned,
        class_names=settings.class_names,
        skip_unreadable=settings.skip_unreadable,
        columns=(settings.image_column, settings.label_column),
        planted=planted,
    )


def make_split(data: ImageSet, settings: DataSettings) -> Split:
    """Cut a data set for one split.

    Pool and validation are the same for every split. The other training images are cut into chunks
    of `n_train` (all of them, if it is None), and split s trains on chunk s. So training chunks of
    different splits are disjoint, and no image of pool or validation is ever trained on (by a
    classifier) or tested. Tested are all test images; of digits, whose training and test images are
    the same, those of all other chunks.

    Raises:
        ParameterError: n_train or split does not fit the data set.
    """
    name, number = settings.dataset, settings.split
    layout, labels = _LAYOUTS.get(name, Layout()), data.train.labels.numpy()
    n = len(labels) - layout.pool - layout.validation
    size = settings.train_images or n
    least, most = layout.n_train or (len(data.classes), n)
    require(least <= size <= most, "n_train", size, f"between {least} and {most} for {name}")
    splits = n_splits(name, len(labels), size)
    allowed = f"between 0 and {splits - 1} with n_train = {size}"
    require(number < splits, "split", number, allowed)
    order = stratified_order(labels, numpy_stream("partition", name))
    pool, validation, rest = np.split(order, [layout.pool, layout.pool + layout.validation])
    chunk = slice(number * size, (number + 1) * size)
    everything = np.arange(len(data.test.labels))
    return Split(
        train=np.sort(rest[chunk]),
        validation=np.sort(validation),
        test=np.sort(np.delete(rest, chunk)) if layout.shared else everything,
        pool=np.sort(pool),
    )


def for_generator(split: Split, pool: bool | None = None) -> np.ndarray:
    """Indices of the images that a generator may be trained on: those of no test, sorted.

    pool: the pool, or the training images; None: the pool, for data sets that keep one.
    """
    return split.pool if pool or (pool is None and len(split.pool)) else split.train


def n_splits(dataset: str, n: int, n_train: int) -> int:
    """How many disjoint training chunks of `n_train` a data set of `n` training images has."""
    layout = _LAYOUTS.get(dataset, Layout())
    return (n - layout.pool - layout.validation) // n_train
