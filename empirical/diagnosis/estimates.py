"""A number with its standard error, by resampling sources: copies of one source are no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """standard_error: over sources; None where it was not computed."""

    value: float
    standard_error: float | None


def resampled(
    columns: Mapping[str, np.ndarray],
    numbers: Callable[[Mapping[str, float]], Numbers],
    rng: np.random.Generator,
    draws: int = 200,
) -> dict[str, Estimate]:
    """Numbers that are functions of means over sources, with bootstrap standard errors.

    columns: one value for each of n sources, float (n,); numbers: from the columns' means to
    what is wanted. 200 draws give a standard error to 5% of itself. A number that is NaN is left
    out; one that is NaN in some draws has the error of the others.
    """
    names = list(columns)
    table = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    n = len(table)

    def at(means: np.ndarray) -> Numbers:
        return numbers(dict(zip(names, means.tolist(), strict=True)))

    found = at(table.mean(axis=0))
    drawn = []
    for _ in range(draws):
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        drawn.append(at(counts @ table / n))
    estimates = {}
    for name, value in found.items():
        if math.isfinite(value):
            others = np.array([own[name] for own in drawn])
            others = others[np.isfinite(others)]
            # a source alone tells nothing of its spread
            spread = float(others.std(ddof=1)) if n > 1 and len(others) > 1 else None
            estimates[name] = Estimate(value, spread)
    return estimates
