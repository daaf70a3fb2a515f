"""Any folder of images: one folder a class, cut into train and test or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from empirical.datasets.base import Contents, Source
from empirical.datasets.decode import decode
from sim.streams import numpy_stream
from theory.parameters import require

SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
TEST_SHARE = 0.2

Found = list[tuple[Path, int]]
"""Files with their labels."""


def source(path: Path, side: int, flips: bool) -> Source:
    """PATH/train/CLASS/... and PATH/test/CLASS/..., or PATH/CLASS/... cut 80 to 20 in each class.

    Raises:
        ParameterError: the folder, a class or an image is missing.
    """
    require(isinstance(side, int) and side >= 1, "side", side, "a whole number of at least 1")
    require(path.is_dir(), "dataset", f"folder:{path}", "a folder that is there")
    if (path / "train").is_dir() and (path / "test").is_dir():
        classes = _classes(path / "train")
        train = _files(path / "train", classes)
        unknown = sorted(set(_classes(path / "test")) - set(classes))
        require(not unknown, "folder", path / "test", f"of classes of train, unlike {unknown}")
        test = _files(path / "test", classes, may_lack=True)
    else:
        classes = _classes(path)
        train, test = _cut(path, _files(path, classes), classes)

    def read(train_pixels: np.ndarray, test_pixels: np.ndarray) -> Contents:
        for found, pixels in ((train, train_pixels), (test, test_pixels)):
            decode([file for file, _ in found], pixels)
        return Contents(_labels(train), _labels(test), tuple(classes))

    return Source(
        name="folder",
        version={"side": side, "train": _state(path, train), "test": _state(path, test)},
        shape=(3, side, side),
        counts=(len(train), len(test)),
        flips=flips,
        read=read,
        keep=True,
    )


def _labels(found: Found) -> np.ndarray:
    return np.array([label for _, label in found], dtype=np.int64)


def _classes(path: Path) -> list[str]:
    """Names of the folders in a folder, those that start with a dot left out."""
    names = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    require(bool(names), "folder", path, "a folder with one folder of images for each class")
    return names


def _files(path: Path, classes: list[str], may_lack: bool = False) -> Found:
    """The image files of the classes, in sorted order, also in folders below."""
    found: Found = []
    for label, name in enumerate(classes):
        files = sorted(
            file
            for file in (path / name).rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        some = bool(files) or may_lack
        require(some, "folder", path / name, f"one with images ({', '.join(sorted(SUFFIXES))})")
        found += [(file, label) for file in files]
    require(bool(found), "folder", path, "one with images")
    return found


def _cut(path: Path, found: Found, classes: list[str]) -> tuple[Found, Found]:
    """Cut each class, in a random order that its size and name fix, into train and test."""
    train: Found = []
    test: Found = []
    for label, name in enumerate(classes):
        own = [pair for pair in found if pair[1] == label]
        require(len(own) >= 2, "folder", path / name, "one with at least 2 images")
        order = numpy_stream("datasets", "folder", name).permutation(len(own))
        n_test = max(1, round(TEST_SHARE * len(own)))
        test += [own[place] for place in sorted(order[:n_test])]
        train += [own[place] for place in sorted(order[n_test:])]
    return train, test


def _state(path: Path, found: Found) -> list[list[str | int]]:
    """What tells that the files are still the same ones: names, sizes and times."""
    state: list[list[str | int]] = []
    for file, _ in found:
        about = file.stat()
        state.append([str(file.relative_to(path)), about.st_size, about.st_mtime_ns])
    return state
