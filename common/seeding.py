"""Random streams keyed by what they are for, never by the order of calls.

So one seed, one split or one image is the same whatever else is computed beside it, before it,
or after a resume.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch


def seed_for(*key: str | int) -> int:
    """A 63-bit seed derived from `key` by SHA-256, as in `seed_for("batches", split, seed)`."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_stream(*key: str | int) -> torch.Generator:
    """A torch generator of its own for `key`."""
    return torch.Generator().manual_seed(seed_for(*key))


def numpy_stream(*key: str | int) -> np.random.Generator:
    """A numpy generator of its own for `key`."""
    return np.random.default_rng(seed_for(*key))
