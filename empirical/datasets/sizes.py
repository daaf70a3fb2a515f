"""How large the named data sets are, without reading them: for plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from empirical.config.data import SIDE
from empirical.datasets.planted import PlantedConfig


@dataclass(frozen=True)
class Size:
    """Training images (those kept apart for a generator not counted), and the shape of one."""

    n_train: int
    n_classes: int
    channels: int
    side: int


_SIZES = {
    "digits": Size(100, 10, 1, 8),
    "fashion-mnist": Size(50_000, 10, 1, 28),
    "cifar10": Size(50_000, 10, 3, 32),
    "cifar100": Size(50_000, 100, 3, 32),
    "tinyimagenet": Size(100_000, 200, 3, 64),
}


def size(name: str, side: int = SIDE) -> Size:
    """Size of a data set; a folder's images are counted, not opened.

    Raises ParameterError for a folder that is refused, and KeyError for another name, as hf:NAME,
    which must be read.
    """
    if name == "planted":
        planted = PlantedConfig()
        return Size(planted.n_train, planted.n_classes, 3, planted.side)
    if name.startswith("folder:"):
        from empirical.datasets import folder

        found = folder.find(Path(name.removeprefix("folder:")).expanduser())
        return Size(len(found.train), len(found.classes), 3, side)
    return _SIZES[name]
