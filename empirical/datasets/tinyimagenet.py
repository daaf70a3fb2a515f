"""TinyImageNet: 200 classes of ImageNet at 64x64 pixels, from the official archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.errors import ParameterError, require
from empirical.datasets.archives import Published, obtain, unpack
from empirical.datasets.base import Contents, Source
from empirical.datasets.decode import decode

NAME = "tinyimagenet"
FOLDER = "tiny-imagenet-200"
ARCHIVE = Published(
    "tiny-imagenet-200.zip",
    ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    "90528d7ca1a48142e341f4ef8d21d0de",
)
COUNTS = (100000, 10000)
SIDE = 64


def source(root: Path, download: bool) -> Source:
    """TinyImageNet in `root`, unpacked or as its archive.

    Its test images have no labels, so the validation images serve as test set. The label of a
    class is its place among the sorted WordNet ids.
    """

    def read(train: np.ndarray, test: np.ndarray) -> Contents:
        folder = root / FOLDER
        if not folder.is_dir():
            unpack(obtain(NAME, ARCHIVE, root, download), folder)
        wnids = sorted(_lines(folder / "wnids.txt"))
        train_paths, train_labels = _train(folder, wnids)
        test_paths, test_labels = _validation(folder, wnids)
        for paths, pixels in ((train_paths, train), (test_paths, test)):
            require(
                len(paths) == len(pixels),
                "folder",
                folder,
                f"the whole data set: {len(pixels)} images where {len(paths)} are; "
                "remove it to unpack it again",
            )
            decode(paths, pixels)
        return Contents(train_labels, test_labels, _names(folder, wnids))

    return Source(
        name=NAME,
        version={"md5": ARCHIVE.md5},
        shape=(3, SIDE, SIDE),
        counts=COUNTS,
        flips=True,
        read=read,
        keep=True,
    )


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _train(folder: Path, wnids: list[str]) -> tuple[list[Path], np.ndarray]:
    """train/WNID/images/WNID_NUMBER.JPEG, by class and number."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        own = (folder / "train" / wnid / "images").glob("*.JPEG")
        found = sorted(own, key=lambda path: (len(path.name), path.name))
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, dtype=np.int64)


def _validation(folder: Path, wnids: list[str]) -> tuple[list[Path], np.ndarray]:
    """Lines of val/val_annotations.txt: file name, class, and a box, between tabs."""
    table = folder / "val" / "val_annotations.txt"
    number = {wnid: label for label, wnid in enumerate(wnids)}
    paths: list[Path] = []
    labels: list[int] = []
    for line in _lines(table):
        name, wnid, *_ = (*line.split("\t"), "")
        if wnid not in number or name != Path(name).name:
            raise ParameterError("file", table, f"of lines of a file and a class, not {line!r}")
        paths.append(folder / "val" / "images" / name)
        labels.append(number[wnid])
    return paths, np.array(labels, dtype=np.int64)


def _names(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    """What words.txt calls the classes."""
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    return tuple(words.get(wnid, wnid) for wnid in wnids)
