"""Fashion-MNIST, from the four published files where torchvision keeps them, or Debian does."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from common.errors import ParameterError, require
from empirical.datasets.archives import Published, missing, obtain
from empirical.datasets.base import Contents, Source

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files (recompressed)."""
COUNTS = (60000, 10000)
CONTENT_MD5 = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""Of the files in Debian's package after decompression: it does not have the published archives."""


def source(root: Path, download: bool) -> Source:
    """Fashion-MNIST in `root`/FashionMNIST/raw, else as Debian's package, else downloaded."""
    folder = root / "FashionMNIST" / "raw"

    def read(train: np.ndarray, test: np.ndarray) -> Contents:
        labels = []
        for part, pixels in (("train", train), ("t10k", test)):
            pixels[:, 0] = _array(f"{part}-images-idx3-ubyte.gz", folder, download)
            labels.append(_array(f"{part}-labels-idx1-ubyte.gz", folder, download))
        first, second = (found.astype(np.int64) for found in labels)
        return Contents(first, second, tuple(FashionMNIST.classes))

    return Source(
        name=NAME,
        version={"md5": [md5 for _, md5 in FashionMNIST.resources]},
        shape=(1, 28, 28),
        counts=COUNTS,
        flips=True,
        read=read,
    )


def _published() -> list[Published]:
    return [
        Published(name, tuple(f"{mirror}{name}" for mirror in FashionMNIST.mirrors), md5)
        for name, md5 in FashionMNIST.resources
    ]


def _array(name: str, folder: Path, download: bool) -> np.ndarray:
    """One of the four files as a uint8 array."""
    debian = DEBIAN / name
    if debian.is_file() and not (folder / name).exists():
        raw = _decompressed(debian)
        found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        wanted = CONTENT_MD5[name]
        require(found == wanted, "file", debian, f"of the content with md5 {wanted}, not {found}")
        return _parse(raw, debian)
    (file,) = (file for file in _published() if file.name == name)
    if not download and not (folder / name).is_file():
        raise missing(NAME, folder, _published())
    path = obtain(NAME, file, folder, download)
    return _parse(_decompressed(path), path)


def _decompressed(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ParameterError("file", path, f"a whole gzip file ({error})") from error


def _parse(raw: bytes, path: Path) -> np.ndarray:
    """IDX: two zero bytes, type 8 (unsigned byte), the number of sizes, the sizes, the data."""
    n_sizes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    sizes = np.frombuffer(raw[4 : 4 + 4 * n_sizes], dtype=">u4").tolist()
    fits = n_sizes > 0 and len(raw) == 4 + 4 * n_sizes + math.prod(sizes)
    require(fits, "file", path, "an IDX file of unsigned bytes")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * n_sizes).reshape(sizes)
