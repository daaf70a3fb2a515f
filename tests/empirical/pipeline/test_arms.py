"""What each arm trains on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empirical.config.arms import ARMS
from empirical.pipeline.arms import synthetic, training_set

SOURCES = np.arange(10, 60)


def pairs(arm: str, k: int, slow: np.ndarray) -> list[tuple[int, int]]:
    return training_set(arm, k, SOURCES, slow, np.random.default_rng(0))


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 6), slow=st.lists(st.booleans(), min_size=50, max_size=50))
def test_sizes(k: int, slow: list[bool]) -> None:
    n_slow = sum(slow)
    extra = {
        "original": 0,
        "upsample": (k - 1) * n_slow,
        "tada": (k - 1) * n_slow,
        "syn-rand": (k - 1) * n_slow,
        "syn-all": 50,
    }
    for arm in ARMS:
        found = pairs(arm, k, np.array(slow))
        assert len(found) == 50 + extra[arm]
        assert found[:50] == [(source, 0) for source in range(10, 60)]
        made = synthetic(found)
        assert len(made) == (0 if arm in ("original", "upsample") else extra[arm])


def test_contents() -> None:
    slow = np.arange(50) < 3
    assert pairs("upsample", 3, slow)[50:] == [
        *[(10, 0), (10, 0), (11, 0), (11, 0), (12, 0), (12, 0)]
    ]
    assert pairs("tada", 3, slow)[50:] == [*[(10, 1), (10, 2), (11, 1), (11, 2), (12, 1), (12, 2)]]
    assert pairs("syn-all", 3, slow)[50:] == [(source, 1) for source in range(10, 60)]
    random = Counter(source for source, copy in pairs("syn-rand", 3, slow) if copy)
    assert len(random) == 3
    assert set(random.values()) == {2}


def test_syn_rand_draws_from_everyone() -> None:
    slow = np.arange(50) < 20
    drawn = {
        source
        for seed in range(20)
        for source, copy in training_set("syn-rand", 2, SOURCES, slow, np.random.default_rng(seed))
        if copy
    }
    assert drawn == set(range(10, 60))


@pytest.mark.parametrize("arm", ARMS)
def test_no_slow_example_is_no_problem(arm: str) -> None:
    assert len(pairs(arm, 2, np.zeros(50, dtype=bool))) == (100 if arm == "syn-all" else 50)
