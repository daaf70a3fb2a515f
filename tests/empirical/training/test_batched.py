"""Batches, budgets, and many seeds trained together against each one alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from empirical.config.settings import Settings
from empirical.datasets.base import Images, to_float
from empirical.datasets.splits import partition
from empirical.pipeline import many_seeds, run
from empirical.pipeline.arms import synthetic
from empirical.training import batched, networks
from empirical.training.recipes import Recipe


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 60), epochs=st.integers(1, 3))
def test_an_epoch_shows_every_example_once_in_nearly_equal_batches(
    n: int, batch_size: int, epochs: int
) -> None:
    recipe = Recipe(epochs=epochs, batch_size=batch_size)
    per_epoch = recipe.epoch_steps(n)
    steps = epochs * per_epoch
    members = torch.arange(100, 100 + n)
    plan = batched.make_plan([members], [recipe])
    sizes = (plan.weights > 0).sum(dim=2)[:, 0]
    # no batch has a single example: with 2, the last of an odd number joins another batch
    assert sizes.max() <= batch_size + (batch_size == 2 and n % 2)
    assert batch_size == 1 or n == 1 or sizes.min() > 1
    assert sizes.max() - sizes.min() <= 1
    torch.testing.assert_close(plan.weights.sum(dim=2), torch.ones(steps, 1))
    for epoch in range(epochs):
        part = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = plan.rows[part, 0][plan.weights[part, 0] > 0]
        assert torch.equal(seen.sort().values, members)


def test_learning_rate_falls_at_half_and_three_quarters() -> None:
    plan = batched.make_plan([torch.arange(4)], [Recipe(epochs=8, batch_size=4, lr=1.0)])
    assert plan.lr[:, 0].tolist() == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
@pytest.mark.parametrize("budget", ["epochs", "steps"])
def test_seeds_together_equal_each_alone(
    digits: Images, tiny: Callable[..., Settings], optimizer: str, budget: str
) -> None:
    """Also where their training sets, and so their numbers of steps, differ."""
    chosen = tiny(optimizer=optimizer, budget=budget, epochs=3)
    split = partition(digits, chosen)
    seeds = [0, 1, 2]
    slow = [np.arange(100) < count for count in (10, 40, 60)]
    pairs = [
        many_seeds.arm_pairs(split, chosen, own, seed)
        for seed, own in zip(seeds, slow, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    images = [
        {
            pair: torch.randint(256, (1, 8, 8), generator=generator, dtype=torch.uint8)
            for pair in synthetic(own)
        }
        for own in pairs
    ]
    together = many_seeds.train_arm(digits, split, chosen, seeds, pairs, images, split.test)
    if budget == "epochs":
        assert together.steps == [3 * 5, 3 * 6, 3 * 7]
    else:
        assert together.steps == [3 * 4] * 3
    for seed in seeds:
        alone = many_seeds.train_arm(
            digits, split, chosen, [seed], [pairs[seed]], [images[seed]], split.test
        )
        assert alone.steps == [together.steps[seed]]
        for name, value in alone.parameters.items():
            torch.testing.assert_close(
                value[0], together.parameters[name][seed], rtol=1e-3, atol=1e-4
            )
        assert abs(alone.wrong[0].mean() - together.wrong[seed].mean()) <= 0.003


def test_selection_of_seeds_together_equals_each_alone(
    digits: Images, tiny: Callable[..., Settings]
) -> None:
    split = partition(digits, tiny())
    together = many_seeds.find_slow(digits, split, tiny(), [4, 5])
    alone = many_seeds.find_slow(digits, split, tiny(), [5])[0]
    assert (together[1].train == alone.train).mean() > 0.95
    assert not np.array_equal(together[0].train, together[1].train)
    assert 0 < alone.train.mean() < 1


def test_training_learns(digits: Images, tiny: Callable[..., Settings]) -> None:
    chosen = tiny(arm="original", epochs=15)
    split = partition(digits, chosen)
    pairs = many_seeds.arm_pairs(split, chosen, np.zeros(100, dtype=bool), 0)
    trained = many_seeds.train_arm(digits, split, chosen, [0], [pairs], [{}], split.validation)
    assert trained.wrong.mean() < 0.4


def test_outputs_are_the_networks_own(digits: Images, tiny: Callable[..., Settings]) -> None:
    chosen = tiny(arm="original")
    split = partition(digits, chosen)
    pairs = many_seeds.arm_pairs(split, chosen, np.zeros(100, dtype=bool), 0)
    trained = many_seeds.train_arm(
        digits, split, chosen, [0, 1], [pairs] * 2, [{}] * 2, split.validation
    )
    network = networks.make("small", 1, 8, 10)
    pixels = to_float(digits.pixels[:5])
    both = batched.logits(network, trained.parameters, pixels)
    network.load_state_dict({name: value[1] for name, value in trained.parameters.items()})
    torch.testing.assert_close(both[1], network(pixels).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("arm", "budget"), [("tada", "epochs"), ("upsample", "steps")])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_seeds_together_are_trained_as_the_engine_trains_one(
    digits: Images,
    tiny: Callable[..., Settings],
    tmp_path: Path,
    arm: str,
    budget: str,
    optimizer: str,
) -> None:
    """`compare` and `run` give the same slow examples and the same network."""
    chosen = tiny(arm=arm, optimizer=optimizer, budget=budget, epochs=5, seed=3)
    split = partition(digits, chosen)
    (slow,) = many_seeds.find_slow(digits, split, chosen, [3])
    made = run.generate(chosen, tmp_path) if arm == "tada" else {}
    pairs = many_seeds.arm_pairs(split, chosen, slow.train, 3)
    trained = many_seeds.train_arm(digits, split, chosen, [3], [pairs], [made], split.test)
    result = run.run(chosen, tmp_path)
    assert np.array_equal(run.select(chosen, tmp_path).train, slow.train)
    assert result["steps"] == trained.steps[0]
    alone = load_file(tmp_path / "network.safetensors")
    start = networks.initial("small", 1, 8, 10, ("final network", "digits", 0, 3))
    for name, value in alone.items():
        together = trained.parameters[name][0]
        torch.testing.assert_close(value, together, rtol=1e-3, atol=1e-4)
        assert (value - start[name]).abs().max() > 100 * (value - together).abs().max()
    assert result["test_error"] == pytest.approx(trained.wrong.mean(), abs=0.003)
