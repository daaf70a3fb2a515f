"""Paired differences of test errors, their uncertainty, and what they say about an ordering.

Seeds of one split share its training images, so their differences are not independent: the
split is the unit. Its mean over seeds is one observation, and the interval is Student's with
splits - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95

RULE = (
    "A difference is the first arm's test error minus the other's, paired by split and seed; its "
    "standard error is the standard deviation of the splits' means over the square root of their "
    f"number. 'agrees': the {LEVEL:.0%} Student interval (splits - 1 degrees of freedom) lies "
    "below 0; 'disagrees': it lies above 0; else 'undecided at this scale'. An ordering with <= "
    "gets the same rule: equality within a margin is not tested. Intervals are not corrected for "
    "their number, and cover new training chunks and seeds, not a new data set or generator; test "
    "sets of different splits overlap, so chance in the test images is covered in part only."
)


@dataclass(frozen=True)
class Estimate:
    """A mean over splits, its standard error and interval; NaN where one split is all there is."""

    mean: float
    standard_error: float
    low: float
    high: float
    splits: int


def clustered(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of values (splits, seeds), with the split as the independent unit."""
    means = values.mean(axis=1)
    splits = len(means)
    mean = float(means.mean())
    if splits < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, splits)
    error = float(means.std(ddof=1) / math.sqrt(splits))
    reach = float(student.ppf((1 + level) / 2, splits - 1)) * error
    return Estimate(mean, error, mean - reach, mean + reach, splits)


def verdict(difference: Estimate) -> str:
    """What a difference (this arm minus the other) says about "this arm has the lower error"."""
    if difference.high < 0:
        return "agrees"
    if difference.low > 0:
        return "disagrees"
    return "undecided at this scale"
