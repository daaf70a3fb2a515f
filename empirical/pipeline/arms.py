"""What each arm trains on: pairs (source, copy), copy 0 being the real image itself."""

from __future__ import annotations

import numpy as np

Pair = tuple[int, int]


def training_set(
    arm: str, k: int, sources: np.ndarray, slow: np.ndarray, rng: np.random.Generator
) -> list[Pair]:
    """The training set of an arm.

    sources: the training images' indices in the data set; slow: bool, which of them are slow;
    rng: draws the random examples of syn-rand.

    - original: every real image;
    - upsample: every slow real image k times;
    - tada: k - 1 synthetic images (copies 1 to k - 1) for every slow one;
    - syn-rand: as many as tada, for random examples;
    - syn-all, boomerang: one synthetic image (copy 1) for every example; boomerang's are made at
      low strength (Luzi et al. 2022).

    An image of the same source and copy is the same in all arms.
    """
    real: list[Pair] = [(int(source), 0) for source in sources]
    chosen = {
        "original": sources[:0],
        "upsample": sources[slow],
        "tada": sources[slow],
        "syn-rand": np.sort(rng.choice(sources, size=int(slow.sum()), replace=False)),
        "syn-all": sources,
        "boomerang": sources,
    }[arm]
    copies = [1] if arm in ("syn-all", "boomerang") else range(1, k)
    return real + [
        (int(source), 0 if arm == "upsample" else copy) for source in chosen for copy in copies
    ]


def synthetic(pairs: list[Pair]) -> list[Pair]:
    """The pairs that a generator has to make, sorted, each once."""
    return sorted({(source, copy) for source, copy in pairs if copy > 0})
