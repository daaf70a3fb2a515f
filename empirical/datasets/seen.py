"""Which images a model was trained on, so that none of these is ever scored with its help.

They are told apart by 64 bits of the SHA-256 of their pixels: of 60,000 images and 10,000 others,
two that differ are taken for the same with probability 3e-11. A model's folder, and a store of what
it made, keep them sorted in trained-on.npy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from torch import Tensor

from common.errors import ParameterError, require
from common.files import whole_file
from empirical.datasets.base import ImageSet
from empirical.datasets.splits import Split

SEEN = "trained-on.npy"


def image_digests(pixels: Tensor) -> np.ndarray:
    """The first 64 bits of the SHA-256 of every image of uint8 (n, C, H, W): uint64 (n,)."""
    raw = b"".join(hashlib.sha256(own.contiguous().numpy().data).digest()[:8] for own in pixels)
    return np.frombuffer(raw, dtype=">u8").astype("<u8")


def write_seen(folder: Path, seen: np.ndarray) -> None:
    """Keep the digests of the images that a model has seen, each once."""
    with whole_file(folder / SEEN) as part, part.open("wb") as file:
        np.save(file, np.unique(seen).astype("<u8"), allow_pickle=False)


def read_seen(folder: Path) -> np.ndarray | None:
    """What `write_seen` kept, sorted; None where nothing is known.

    Raises:
        ParameterError: the file is damaged.
    """
    path = folder / SEEN
    if not path.is_file():
        return None
    allowed = "a whole file of this project; make its folder again"
    try:
        seen = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ParameterError("file", path, allowed) from error
    fits = seen.dtype == np.dtype("<u8") and seen.ndim == 1 and bool((np.diff(seen) > 0).all())
    require(fits, "file", path, allowed)
    return seen


def seen_digest(seen: np.ndarray | None) -> str | None:
    """SHA-256, in hex, of what `read_seen` gives."""
    return None if seen is None else hashlib.sha256(seen.tobytes()).hexdigest()


def check_unseen(
    name: str, value: object, seen: np.ndarray | None, data: ImageSet, split: Split
) -> None:
    """Refuse a model, or its images, if it was trained on images that are scored in this split.

    Scored are test and validation images. One that is also among the images to train on (data sets
    hold some images twice) does not count. seen: see `read_seen`; None, nothing known, passes.

    Raises:
        ParameterError: it has seen some; says how many. Names `name` and `value`.
    """
    if seen is None:
        return
    scored = (data.test.pixels[split.test], data.train.pixels[split.validation])
    digests = np.unique(np.concatenate([image_digests(own) for own in scored]))
    known = digests[np.isin(digests, seen)]
    if len(known):
        rows = np.union1d(split.train, split.pool)
        known = np.setdiff1d(known, image_digests(data.train.pixels[rows]))
    allowed = (
        f"made without the images that are scored; its generator was trained on {len(known)} of "
        f"these {len(digests)} of {data.name}: train one that has not seen them"
    )
    require(len(known) == 0, name, value, allowed)
