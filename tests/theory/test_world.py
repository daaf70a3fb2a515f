"""How many examples are fast: one rule for functions, commands and simulated data."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sim.data import DataConfig, sample
from theory.claims import CLAIMS
from theory.world import World, n_fast

COUNTED = [c for c in CLAIMS.values() if {"n_examples", "alpha"} <= set(c.parameters)]


@pytest.mark.parametrize(
    ("n", "alpha", "fast"),
    [(10, 0.8, 8), (10, 0.45, 4), (10, 0.75, 8), (10, 0.649, 6), (7, 0.5, 4)],
)
def test_rounded_to_the_nearest_and_halves_to_even(n: int, alpha: float, fast: int) -> None:
    assert n_fast(n, alpha) == fast
    world = World(n_examples=n, alpha=alpha)
    assert (world.n_fast, world.n_slow) == (fast, n - fast)
    assert world.share_fast == pytest.approx(fast / n)
    assert [share for share, _ in world.features] == pytest.approx([fast / n, 1 - fast / n])


@given(st.integers(2, 40), st.floats(0.01, 0.99))
def test_simulated_data_follow_it(n: int, alpha: float) -> None:
    config = DataConfig(n_examples=n, dim=4, alpha=alpha)
    data = sample(config, torch.Generator().manual_seed(0))
    assert int(data.is_fast.sum()) == n_fast(n, alpha)


@pytest.mark.parametrize("claim", COUNTED, ids=lambda c: c.name)
def test_every_command_follows_it(claim) -> None:
    """At 40 examples a share of .5625 is 22.5 of them, which are 22, as at a share of .55."""
    given = {"n_examples": 40, **({"batch_size": 8} if "batch_size" in claim.parameters else {})}
    between, at = (claim.predict(alpha=alpha, **given) for alpha in (0.5625, 0.55))
    assert between == pytest.approx(at, rel=1e-12)
    assert between != pytest.approx(claim.predict(alpha=0.6, **given), rel=1e-6)
