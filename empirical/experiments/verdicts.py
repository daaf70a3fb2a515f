"""What a difference of two arms' test errors says: its uncertainty, and a verdict in words.

Two arms answer the same test images with several seeds each. An image's difference and a seed's
are both random, and crossed: the variance of the mean is that over images plus that over seeds,
less what both count (Cameron, Gelbach and Miller 2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

LEVEL = 0.95
MOST_MORE = 100
"""More seeds than this are not advised: the test images are then too few."""


@dataclass(frozen=True)
class Difference:
    """One arm's test error minus another's, as shares in [0, 1].

    low, high: Student's 95% interval over test images and seeds, with Satterthwaite's degrees of
    freedom; from_images, from_seeds: the two parts of the standard error; more_seeds: how many
    would decide it if the mean stayed, 0 where it is decided, None where no number would.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    from_images: float
    from_seeds: float | None
    seeds: int
    images: int
    more_seeds: int | None

    @property
    def decided(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def difference(wrong: np.ndarray, others: np.ndarray) -> Difference:
    """Of bool (seeds, test images): which images each seed of the two arms has wrong."""
    each = wrong.astype(float) - others.astype(float)
    seeds, images = each.shape
    mean = float(each.mean())
    of_images = float(each.mean(axis=0).var(ddof=1) / images) if images > 1 else 0.0
    of_seeds = float(each.mean(axis=1).var(ddof=1) / seeds) if seeds > 1 else 0.0
    of_both = float(each.var(ddof=1) / each.size) if each.size > 1 else 0.0
    variance = max(of_images + of_seeds - of_both, of_images, of_seeds)
    error = math.sqrt(variance)
    freedom = of_images**2 / max(images - 1, 1) + of_seeds**2 / max(seeds - 1, 1)
    reach = error * (float(student.ppf((1 + LEVEL) / 2, variance**2 / freedom)) if freedom else 0)
    low, high = mean - reach, mean + reach
    more = 0 if low > 0 or high < 0 else _more(mean, of_images, of_seeds, of_both, seeds)
    return Difference(
        *(mean, error, low, high, math.sqrt(of_images)),
        math.sqrt(of_seeds) if seeds > 1 else None,
        *(seeds, images, more),
    )


def _more(mean: float, of_images: float, of_seeds: float, of_both: float, seeds: int) -> int | None:
    """Seeds to add until the normal interval leaves out 0, all variances staying as they are."""
    stays = max(of_images - of_both, 0.0)  # what other seeds do not average out
    shrinks = max(of_images - stays, of_seeds)
    for more in range(1, MOST_MORE + 1):
        left = stays + shrinks * seeds / (seeds + more)
        if float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(left) < abs(mean):
            return more
    return None


def points(share: float, sign: bool = False) -> str:
    """A share as percentage points, with one digit."""
    return f"{100 * share:{'+' if sign else ''}.1f}"


def sentence(found: Difference, arm: str = "TADA", other: str = "no augmentation") -> str:
    """The verdict on one difference, in a line."""
    said = f"{points(found.mean, sign=True)} ± {points(found.standard_error)} points of test error"
    said += f" against {other}"
    if found.high < 0:
        return f"{arm} helps: {said}"
    if found.low > 0:
        return f"{arm} hurts: {said}"
    if found.more_seeds is None:
        return f"undecided: {said}; more seeds would not decide it, more test images might"
    few = found.more_seeds + found.seeds
    return f"undecided: {said}; about {found.more_seeds} more seeds (--seeds {few}) would decide it"


def verdict(by_budget: dict[str, Difference], unusable: list[str]) -> str:
    """The answer to "does it help me?", of TADA against no augmentation at each budget.

    unusable: what is wrong with the synthetic images, where something is.
    """
    found = by_budget.get("epochs") or next(iter(by_budget.values()))
    at_steps = by_budget.get("steps")
    if found.low > 0:
        return f"do not use these images: {sentence(found)}"
    if unusable:
        return f"do not use these images: {unusable[0]}; {sentence(found)}"
    if found.high < 0 and at_steps is not None and not at_steps.high < 0:
        return f"{sentence(found)} at equal epochs; at equal optimizer steps, {sentence(at_steps)}"
    if found.high < 0 and at_steps is not None:
        more = f"{points(at_steps.mean, sign=True)} ± {points(at_steps.standard_error)}"
        return f"{sentence(found)} at equal epochs, and {more} at equal optimizer steps"
    return sentence(found)
