"""Differences, standard errors and verdicts against cases worked out by hand or by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.stats import clustered, verdict


def test_known_case() -> None:
    """Split means 1, 2, 3: mean 2, standard error 1 / sqrt(3), t quantile 4.3027 at 2 degrees."""
    estimate = clustered(np.array([[0.0, 2.0], [2.0, 2.0], [5.0, 1.0]]))
    assert estimate.mean == 2
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))
    assert estimate.high - estimate.mean == pytest.approx(4.302653 / math.sqrt(3))
    assert estimate.splits == 3


def test_equals_scipy_on_the_splits_means(rng: np.random.Generator) -> None:
    values = rng.normal(0.3, 1, (8, 6))
    estimate = clustered(values)
    test = stats.ttest_1samp(values.mean(axis=1), 0)
    interval = test.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))


def test_one_split_decides_nothing() -> None:
    estimate = clustered(np.array([[-5.0, -5.0]]))
    assert math.isnan(estimate.standard_error)
    assert verdict(estimate) == "undecided at this scale"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.0, -1.1, -0.9], "agrees"),
        ([1.0, 1.1, 0.9], "disagrees"),
        ([-1.0, 1.0, 0.1], "undecided at this scale"),
        ([0.0, 0.0, 0.0], "undecided at this scale"),
    ],
)
def test_verdicts(values: list[float], expected: str) -> None:
    assert verdict(clustered(np.array(values)[:, None])) == expected


def test_the_level_is_kept_when_there_is_no_difference(rng: np.random.Generator) -> None:
    """Seeds that share a strong effect of their split: 5% wrong verdicts, not more."""
    trials, splits, seeds = 4000, 6, 5
    values = rng.normal(0, 1, (trials, splits, 1)) + rng.normal(0, 0.3, (trials, splits, seeds))
    wrong = sum(verdict(clustered(one)) != "undecided at this scale" for one in values)
    assert wrong / trials == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / trials))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.floats(-5, 5), st.integers(0, 99))
def test_shifting_all_differences_shifts_the_estimate(splits: int, by: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(splits, 3))
    one, other = clustered(values), clustered(values + by)
    assert other.mean == pytest.approx(one.mean + by)
    assert other.standard_error == pytest.approx(one.standard_error)
