"""The five arms that the paper compares, in the paper's setting."""

from __future__ import annotations

import torch

from common.errors import require
from sim.data import Dataset, generate, upsample

ARMS = ("original", "upsample", "tada", "syn-rand", "syn-all")


def augmented(
    arm: str,
    data: Dataset,
    k: int,
    generator: torch.Generator,
    sigma_synthetic: float | None = None,
    fidelity: float = 1.0,
    kept_noise: float = 0.0,
) -> Dataset:
    """The training set of an arm, from an original data set.

    original: as it is. upsample: U(k). tada: G(k). syn-rand: as many synthetic examples as G(k),
    for random originals (the same in every batch dimension). syn-all: one for every original,
    whatever k. Synthetic ones are those of `sim.data.generate`.
    Raises ParameterError for an unknown arm and as `generate` does.
    """
    require(arm in ARMS, "arm", arm, f"one of {', '.join(ARMS)}")
    require(k >= 1 and k == int(k), "k", k, "a whole number, at least 1")
    if arm == "original":
        return data
    if arm == "upsample":
        return upsample(data, k)
    which = None
    if arm == "syn-rand":
        which = torch.randperm(data.n_original, generator=generator)[: len(data.slow)]
    elif arm == "syn-all":
        which, k = torch.arange(data.n_original), 2
    return generate(data, k, generator, sigma_synthetic, fidelity, kept_noise, which)
