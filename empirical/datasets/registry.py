"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from common.errors import MissingDependencyError
from empirical.config.data import NAMES, check_name
from empirical.datasets.base import ImageSet, Source
from empirical.datasets.digits import whole
from empirical.datasets.memory import hold
from empirical.datasets.planted import PlantedConfig, with_truth
from empirical.datasets.planted import source as planted_source

__all__ = ["NAMES", "load"]


def load(
    name: str,
    root: Path,
    download: bool = True,
    *,
    memory_share: float = 0.5,
    side: int = 64,
    flips: bool = True,
    planted: PlantedConfig | None = None,
) -> ImageSet:
    """Load a data set by name; "planted" gives a `PlantedSet`.

    Digits come whole, as training and as test images: see `empirical.datasets.splits.cut`.

    root: where published files are, or are downloaded to, and where `root`/cache is;
    memory_share: of the free memory, above which pixels are mapped from a cache file;
    side, flips: of the images of folder:PATH; planted: None is the default configuration.

    Raises:
        ParameterError: no such name; or the data are not there, or damaged (one line says what).
    """
    check_name(name)
    if name == "digits":
        return whole()
    config = planted or PlantedConfig()
    found = _source(name, root, download, side, flips, config)
    images = hold(found, root / "cache", memory_share)
    return with_truth(images, config) if name == "planted" else images


def _source(
    name: str, root: Path, download: bool, side: int, flips: bool, config: PlantedConfig
) -> Source:
    # imported when needed: torchvision alone takes seconds
    if name == "planted":
        return planted_source(config)
    if name.startswith("folder:"):
        from empirical.datasets import folder

        return folder.source(Path(name.removeprefix("folder:")).expanduser(), side, flips)
    if name == "tinyimagenet":
        from empirical.datasets import tinyimagenet

        return tinyimagenet.source(root, download)
    try:
        from empirical.datasets import cifar, fashion
    except ModuleNotFoundError as error:
        install = "pip install 'tada-companion[empirical]'"
        raise MissingDependencyError(f"dataset {name}", error.name, install) from error
    if name == "fashion-mnist":
        return fashion.source(root, download)
    return cifar.source(name, root, download)
