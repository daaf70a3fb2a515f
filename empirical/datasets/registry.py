"""Data sets by name."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from common.errors import MissingDependencyError, require
from empirical.config.data import NAMES, OWN, SIDE, check_name
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
    side: int = SIDE,
    fit: str = "crop",
    flips: bool | None = None,
    class_names: str | None = None,
    skip_unreadable: bool = False,
    columns: tuple[str | None, str | None] = (None, None),
    planted: PlantedConfig | None = None,
) -> ImageSet:
    """Load a data set by name; "planted" gives a `PlantedSet`.

    Digits come whole, as training and as test images: see `empirical.datasets.splits.cut`.

    root: where published files are, or are downloaded to, and where `root`/cache is;
    memory_share: of the free memory, above which pixels are mapped from a cache file;
    side, fit, skip_unreadable: as `DataSettings` has them, of the images of folder:PATH and
    hf:NAME; columns: of images and labels in hf:NAME; class_names: a file of other names for
    classes; flips: None is as the data set is; planted: None is the default configuration.

    Raises:
        ParameterError: no such name; or the data are not there, or damaged (one line says what).
    """
    check_name(name)
    if name == "digits":
        return whole()
    config = planted or PlantedConfig()
    if name.startswith(OWN):
        shown = read_class_names(Path(class_names).expanduser()) if class_names else {}
        turned = flips is None or flips
        if name.startswith("folder:"):
            from empirical.datasets import folder

            path = Path(name.removeprefix("folder:")).expanduser()
            found = folder.source(path, side, turned, fit, shown, skip_unreadable)
        else:
            from empirical.datasets import hf

            given = (name.removeprefix("hf:"), root, download, side, turned, fit, shown)
            found = hf.source(*given, *columns)
        return hold(found, root / "cache", memory_share)
    require(class_names is None, "class_names", class_names, "given with folder: or hf: images")
    images = hold(_source(name, root, download, config), root / "cache", memory_share)
    images = images if flips is None else replace(images, flips=flips)
    return with_truth(images, config) if name == "planted" else images


def read_class_names(path: Path) -> dict[str, str]:
    """The lines NAME,SHOWN of a file. Raises ParameterError for another line, or a name twice."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            fine = len(row) == 2 and all(part.strip() for part in row) and row[0] not in found
            said = f"a file of lines NAME,SHOWN, each name once (line {number} is not)"
            require(fine, "class_names", path, said)
            found[row[0].strip()] = row[1].strip()
    return found


def _source(name: str, root: Path, download: bool, config: PlantedConfig) -> Source:
    # imported when needed: torchvision alone takes seconds
    if name == "planted":
        return planted_source(config)
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
