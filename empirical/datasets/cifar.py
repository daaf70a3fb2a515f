"""CIFAR-10 and CIFAR-100, read by torchvision."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from empirical.datasets.archives import Published, check_md5, obtain, unpack
from empirical.datasets.base import Contents, Source

KINDS: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
COUNTS = (50000, 10000)


def source(name: str, root: Path, download: bool) -> Source:
    """CIFAR-10 or CIFAR-100 in `root`, where torchvision has it: unpacked, or as its archive."""
    kind = KINDS[name]

    def read(train: np.ndarray, test: np.ndarray) -> Contents:
        _unpacked(name, kind, root, download)
        labels: list[np.ndarray] = []
        classes: tuple[str, ...] = ()
        for part, pixels in ((True, train), (False, test)):
            with warnings.catch_warnings():
                # pickles of an old numpy, of which numpy 2.4.0 to 2.4.4 warns
                warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
                images = kind(root, train=part)
            pixels[:] = images.data.transpose(0, 3, 1, 2)
            labels.append(np.array(images.targets, dtype=np.int64))
            classes = tuple(images.classes)
        return Contents(labels[0], labels[1], classes)

    return Source(
        name=name,
        version={"md5": kind.tgz_md5},
        shape=(3, 32, 32),
        counts=COUNTS,
        flips=True,
        read=read,
    )


def _unpacked(name: str, kind: type[CIFAR10], root: Path, download: bool) -> None:
    """Make sure of the files, each by its MD5.

    They are pickles, and to load a pickle is to run it. So none is opened before every one has the
    MD5 that its authors published; torchvision looks at it once more before it loads.
    """
    folder = root / kind.base_folder
    if not folder.is_dir():
        published = Published(kind.filename, (kind.url,), kind.tgz_md5)
        unpack(obtain(name, published, root, download), folder)
    meta = [kind.meta["filename"], kind.meta["md5"]]
    for file, md5 in [*kind.train_list, *kind.test_list, meta]:
        check_md5(folder / file, md5)
