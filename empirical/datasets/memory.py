"""Data sets in memory, or as memory-mapped cache files where they would take too much of it.

A cache is one folder that is whole or absent: pixels and labels as .npy files, and `about.json`
with their sizes and SHA-256. One that does not match these is recomputed.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from common.errors import ParameterError, require
from common.files import digest, read_json, whole_folder, write_json
from common.memory import available
from empirical.datasets.base import Contents, Images, ImageSet, Source, channel_statistics

ABOUT = "about.json"
PARTS = ("train", "test")


def hold(source: Source, cache: Path, memory_share: float) -> ImageSet:
    """Load a source: into memory, or mapped from a cache file if it takes more than a share.

    A source whose `keep` is set is read from its cache in either case.

    Raises:
        ParameterError: memory_share is not in (0, 1], or the source cannot be read.
    """
    require(0 < memory_share <= 1, "memory_share", memory_share, "in (0, 1]")
    n_bytes = sum(source.counts) * math.prod(source.shape)
    fits = n_bytes <= memory_share * available()
    if fits and not source.keep:
        train, test = (np.empty((n, *source.shape), dtype=np.uint8) for n in source.counts)
        contents = source.read(train, test)
        return _image_set(source, train, test, contents, *channel_statistics(train))
    folder = cache / f"{source.name}-{digest(source.version)}"
    about = _whole(folder, source)
    if about is None:
        cache.mkdir(parents=True, exist_ok=True)
        # of several processes that want it, one makes it
        with FileLock(cache / f"{folder.name}.lock"):
            about = _whole(folder, source)
            if about is None:
                about = _write(folder, source)
    # Mapped copy-on-write: torch warns of tensors that cannot be written, and nobody may write
    # into the cache.
    mode = None if fits else "c"
    train, test = (np.load(folder / f"{part}.npy", mmap_mode=mode) for part in PARTS)
    train_labels, test_labels = (np.load(folder / f"{part}-labels.npy") for part in PARTS)
    contents = Contents(train_labels, test_labels, tuple(about["classes"]))
    return _image_set(source, train, test, contents, tuple(about["mean"]), tuple(about["std"]))


def _image_set(
    source: Source,
    train: np.ndarray,
    test: np.ndarray,
    contents: Contents,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ImageSet:
    def images(pixels: np.ndarray, labels: np.ndarray) -> Images:
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels), contents.classes)

    return ImageSet(
        name=source.name,
        train=images(train, contents.train_labels),
        test=images(test, contents.test_labels),
        flips=source.flips,
        mean=mean,
        std=std,
        files=source.files,
    )


def _write(folder: Path, source: Source) -> dict[str, Any]:
    """Read the source into the files of its cache folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with whole_folder(folder) as part:
        train, test = (
            np.lib.format.open_memmap(
                part / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(n, *source.shape)
            )
            for name, n in zip(PARTS, source.counts, strict=True)
        )
        contents = source.read(train, test)
        mean, std = channel_statistics(train)
        train.flush()
        test.flush()
        np.save(part / "train-labels.npy", contents.train_labels)
        np.save(part / "test-labels.npy", contents.test_labels)
        about = {
            "version": source.version,
            "classes": list(contents.classes),
            "mean": list(mean),
            "std": list(std),
            "files": {path.name: _fingerprint(path) for path in sorted(part.glob("*.npy"))},
        }
        write_json(part / ABOUT, about)
    return about


def _whole(folder: Path, source: Source) -> dict[str, Any] | None:
    """What `about.json` says, or None where a file of the cache is missing or another one."""
    keys = ("version", "classes", "mean", "std", "files")
    try:
        about = read_json(folder / ABOUT, "cache", keys)
        names = [f"{part}{kind}.npy" for part in PARTS for kind in ("", "-labels")]
        fine = about["version"] == source.version and all(
            about["files"][name] == _fingerprint(folder / name) for name in names
        )
    except (FileNotFoundError, NotADirectoryError, ParameterError, KeyError, TypeError):
        return None
    return about if fine else None


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}
