"""Any folder of images: one folder a class, cut into train and test or not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import ParameterError, require
from common.progress import say
from common.seeding import numpy_stream
from empirical.datasets.base import Contents, Source
from empirical.datasets.decode import decode, unreadable

SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp".split()
)
"""Endings of image files. One that Pillow cannot read is refused by name, not left out."""

TEST_SHARE = 0.2

TRAIN = frozenset({"train", "training"})
VALIDATION = frozenset({"val", "valid", "validation"})
TEST = frozenset({"test", "testing"})
OTHER_SPLITS = frozenset(
    "dev eval evaluation holdout testset trainset trainval unlabeled unlabelled".split()
)
"""Words of splits that are not understood."""

SPLITS = TRAIN | VALIDATION | TEST | OTHER_SPLITS

JUNK = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"})
"""Folders that systems put beside people's files, in lower case; so are all hidden ones."""

RIGHT = (
    "one with a folder of images for each class, or with train/ and one or both of val/ (valid/, "
    "validation/) and test/, each with such folders"
)

Found = list[tuple[Path, int]]
"""Files with their labels."""


@dataclass(frozen=True)
class Parts:
    """The classes of a folder, and its image files with their labels."""

    classes: tuple[str, ...]
    train: Found
    test: Found


def source(
    path: Path,
    side: int,
    flips: bool,
    fit: str = "crop",
    shown: Mapping[str, str] | None = None,
    skip_unreadable: bool = False,
) -> Source:
    """A folder of images as a source: see `find` for what is read as what.

    shown: other names of classes, by the names of their folders; skip_unreadable: leave out files
    that are no whole images, and say which.

    Raises:
        ParameterError: the folder, a class or an image is missing, or `find` refuses it.
    """
    require(isinstance(side, int) and side >= 1, "side", side, "a whole number of at least 1")
    parts = find(path)
    if skip_unreadable:
        parts = _readable(path, parts)
    names = shown_names(parts.classes, shown or {})

    def read(train_pixels: np.ndarray, test_pixels: np.ndarray) -> Contents:
        for found, pixels in ((parts.train, train_pixels), (parts.test, test_pixels)):
            decode([file for file, _ in found], pixels, fit=fit)
        return Contents(_labels(parts.train), _labels(parts.test), names)

    return Source(
        name="folder",
        version={
            "side": side,
            **({} if fit == "crop" else {"fit": fit}),
            **({"classes": list(names)} if shown else {}),
            "train": _state(path, parts.train),
            "test": _state(path, parts.test),
            "decoder": 2,  # raised when the same file gives other pixels than before
        },
        shape=(3, side, side),
        counts=(len(parts.train), len(parts.test)),
        flips=flips,
        read=read,
        keep=True,
        files=(_names(path, parts.train), _names(path, parts.test)),
    )


def _names(path: Path, found: Found) -> tuple[str, ...]:
    return tuple(str(file.relative_to(path)) for file, _ in found)


def shown_names(classes: Sequence[str], shown: Mapping[str, str]) -> tuple[str, ...]:
    """The classes by their other names. Raises ParameterError for a name of no class."""
    unknown = sorted(set(shown) - set(classes))
    some = f"{', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}"
    require(not unknown, "class_names", ", ".join(unknown), f"classes of the data: {some}")
    return tuple(shown.get(name, name) for name in classes)


def _readable(path: Path, parts: Parts) -> Parts:
    """The images that can be read; says which cannot.

    Raises:
        ParameterError: a class has no training image left.
    """
    kept: list[Found] = []
    for found in (parts.train, parts.test):
        refused = unreadable([file for file, _ in found])
        for error in refused.values():
            say(f"skipped: {error}")
        kept.append([pair for number, pair in enumerate(found) if number not in refused])
    train, test = kept
    for label, name in enumerate(parts.classes):
        left = any(own == label for _, own in train)
        require(left, "folder", path / name, "one with images that can be read")
    require(bool(test), "folder", path, "one with test images that can be read")
    return Parts(parts.classes, train, test)


def find(path: Path) -> Parts:
    """PATH/train/CLASS/... with PATH/test/CLASS/... or val; or PATH/CLASS/..., cut in each class.

    Names of splits are read in lower or upper case: train or training, val, valid or validation,
    test or testing. Where test has images in folders of classes, test is scored and val is not
    used; else val is scored (the test images of ImageNet have no labels). Neither is trained on.
    Without splits each class is cut 80 to 20.

    Hidden files and folders, and those that systems make (JUNK), are left out; links are followed.

    Raises:
        ParameterError: the folder is missing, has fewer than two classes or one without images,
            looks like splits that are not understood, holds a link that leads nowhere or back to
            where it is, or the same file twice.
    """
    require(path.is_dir(), "dataset", f"folder:{path}", "a folder that is there")
    splits = _splits(path)
    if splits is None:
        classes = _classes(path)
        train, test = _cut(path, _files(path, classes), classes)
    else:
        train_folder, test_folder = splits
        classes = _classes(train_folder)
        train = _files(train_folder, classes)
        unknown = sorted(set(_folder_names(test_folder)) - set(classes))
        require(not unknown, "folder", test_folder, f"of classes of train, unlike {unknown}")
        test = _files(test_folder, classes, may_lack=True)
    _refuse_twice(path, [file for file, _ in (*train, *test)])
    return Parts(tuple(classes), train, test)


def _splits(path: Path) -> tuple[Path, Path] | None:
    """The folders to train on and to score on, or None where the folders are classes.

    A class may be called train (a vehicle). So a folder with a split's name is taken for a split
    where its images lie in folders of classes, where there are no others, or where one to train on
    stands beside one to score on.
    """
    names = _folder_names(path)
    kinds = {
        kind: [path / name for name in names if name.lower() in words]
        for kind, words in (("train", TRAIN), ("test", TEST), ("val", VALIDATION))
    }
    named = [name for name in names if SPLITS & set(re.split(r"[^a-z]+", name.lower()))]
    looks_like = bool(named) and (
        len(named) == len(names)
        or bool(kinds["train"] and (kinds["test"] or kinds["val"]))
        or any(not any(map(_is_image, _entries(path / name))) for name in named)
    )
    if not looks_like:
        return None
    ours = [folder.name for folders in kinds.values() for folder in folders]
    # folders of something else, such as notes, may lie beside splits
    others = [name for name in names if name not in ours and any(_images_below(path / name))]
    scored = [*kinds["test"], *kinds["val"]]
    understood = (
        len(kinds["train"]) == 1
        and bool(scored)
        and max(len(kinds["test"]), len(kinds["val"])) <= 1
        and not others
    )
    has = ", ".join(f"{name}/" for name in names[:8]) + (", ..." if len(names) > 8 else "")
    require(understood, "folder", path, f"{RIGHT}; it has {has}")
    (train,) = kinds["train"]
    classes = set(_folder_names(train))
    labelled = [folder for folder in scored if classes & set(_folder_names(folder))]
    labelled = labelled or [folder for folder in scored if _folder_names(folder)]
    require(bool(labelled), "folder", scored[0], "one with a folder of images for each class")
    if len(scored) > 1:
        say(f"folder:{path}: scored on {labelled[0].name}/; the other of test and val is not used")
    return train, labelled[0]


def _labels(found: Found) -> np.ndarray:
    return np.array([label for _, label in found], dtype=np.int64)


def _entries(path: Path) -> list[Path]:
    """What lies in a folder, in order, junk left out.

    Raises:
        ParameterError: a link that leads nowhere; what it led to may have been images.
    """
    found = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
    found = [p for p in found if p.name.lower() not in JUNK]
    for entry in found:
        require(entry.exists(), "folder", entry, "a link to something that is there")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _folder_names(path: Path) -> list[str]:
    """Names of the folders in a folder, in order."""
    return [entry.name for entry in _entries(path) if entry.is_dir()]


def _classes(path: Path) -> list[str]:
    names = _folder_names(path)
    require(bool(names), "folder", path, "a folder with one folder of images for each class")
    only = f"one with a folder of images for each of two classes or more; it has {names[0]}/ alone"
    require(len(names) > 1, "folder", path, only)
    loose = sum(map(_is_image, _entries(path)))
    if loose:
        say(f"folder:{path}: left out, in no class's folder: {loose} of the images")
    return names


def _images_below(path: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The image files in a folder and in folders below, links followed.

    above: the folders that it lies in, as links lead to them.

    Raises:
        ParameterError: a link leads nowhere, or to a folder that it lies in.
    """
    real = os.path.realpath(path)
    require(real not in above, "folder", path, "a new folder; a link leads back to one above it")
    for entry in _entries(path):
        if entry.is_dir():
            yield from _images_below(entry, (*above, real))
        elif _is_image(entry):
            yield entry


def _files(path: Path, classes: list[str], may_lack: bool = False) -> Found:
    """The image files of the classes, in sorted order, also in folders below."""
    found: Found = []
    for label, name in enumerate(classes):
        files = sorted(_images_below(path / name)) if (path / name).is_dir() else []
        some = bool(files) or may_lack
        require(some, "folder", path / name, f"one with images ({', '.join(sorted(SUFFIXES))})")
        found += [(file, label) for file in files]
    require(bool(found), "folder", path, "one with images")
    return found


def _refuse_twice(path: Path, files: list[Path]) -> None:
    """Raise ParameterError where links make one file two images: it could be trained and scored."""
    first: dict[str, Path] = {}
    folders: dict[Path, str] = {}
    for file in sorted(files):
        if file.parent not in folders:
            folders[file.parent] = os.path.realpath(file.parent)
        linked = file.is_symlink()
        real = os.path.realpath(file) if linked else f"{folders[file.parent]}/{file.name}"
        if real in first:
            both = f"{first[real].relative_to(path)} and {file.relative_to(path)}"
            raise ParameterError("folder", path, f"one with each file once, unlike {both}")
        first[real] = file


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
