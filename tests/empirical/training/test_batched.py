"""Batches, budgets, and many seeds trained together against each one alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from common.errors import ParameterError
from empirical.config.settings import Settings
from empirical.datasets.base import Images, take
from empirical.datasets.digits import whole
from empirical.datasets.splits import make_split
from empirical.pipeline import run
from empirical.pipeline.algorithm import arm_pairs, final_job, find_slow_together
from empirical.pipeline.arms import synthetic
from empirical.training import batched, networks
from empirical.training.batched import train_together
from empirical.training.engine import Job
from empirical.training.evaluate import evaluate
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
def test_networks_together_equal_each_alone(
    digits: Images, tiny: Callable[..., Settings], optimizer: str, budget: str
) -> None:
    """Also where their training sets, and so their numbers of steps, differ."""
    each = [tiny(optimizer=optimizer, budget=budget, epochs=3, seed=seed) for seed in range(3)]
    split = make_split(whole(), each[0].data)
    generator = torch.Generator().manual_seed(0)

    def jobs() -> list[Job]:
        generator.manual_seed(0)
        found = []
        for own, count in zip(each, (10, 40, 60), strict=True):
            pairs = arm_pairs(split, own, np.arange(100) < count)
            images = {
                pair: torch.randint(256, (1, 8, 8), generator=generator, dtype=torch.uint8)
                for pair in synthetic(pairs)
            }
            found.append(final_job(whole(), split, own, pairs, images))
        return found

    together = train_together(jobs())
    steps = [3 * 5, 3 * 6, 3 * 7] if budget == "epochs" else [3 * 4] * 3
    assert [own.steps for own in together] == steps
    for job, beside in zip(jobs(), together, strict=True):
        (alone,) = train_together([job])
        assert alone.steps == beside.steps
        assert alone.network is job.network
        torch.testing.assert_close(
            alone.network.state_dict(), beside.network.state_dict(), rtol=1e-3, atol=1e-4
        )
        assert len(alone.history) == len(beside.history)
        for one, other in zip(alone.history, beside.history, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=0.02)


def test_selection_of_seeds_together_equals_each_alone(tiny: Callable[..., Settings]) -> None:
    split = make_split(whole(), tiny().data)
    together = find_slow_together(whole(), split, [tiny(seed=4), tiny(seed=5)])
    (alone,) = find_slow_together(whole(), split, [tiny(seed=5)])
    assert (together[1].train == alone.train).mean() > 0.95
    assert not np.array_equal(together[0].train, together[1].train)
    assert 0 < alone.train.mean() < 1


def test_training_learns(tiny: Callable[..., Settings]) -> None:
    data, chosen = whole(), tiny(arm="original", epochs=15)
    split = make_split(data, chosen.data)
    pairs = arm_pairs(split, chosen, np.zeros(100, dtype=bool))
    (trained,) = train_together([final_job(data, split, chosen, pairs, {})])
    validation = take(data.train, split.validation)
    assert evaluate(trained.network, validation, data.mean, data.std)["error"] < 0.4
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


@pytest.mark.parametrize(
    ("network", "values", "name"),
    [
        ("small", {"augmentation": "crop+flip"}, "optimizer"),
        ("small", {"optimizer": "adamw"}, "optimizer"),
        ("small", {"precision": "bf16"}, "optimizer"),
        ("conv4", {}, "network"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(
    network: str, values: dict[str, Any], name: str, tiny: Callable[..., Settings]
) -> None:
    chosen = tiny(arm="original", network=network, **values)
    split = make_split(whole(), chosen.data)
    pairs = [(int(source), 0) for source in split.train]
    job = final_job(whole(), split, chosen, pairs, {})
    with pytest.raises(ParameterError) as error:
        train_together([job])
    assert error.value.name == name


@pytest.mark.parametrize(("arm", "budget"), [("tada", "epochs"), ("upsample", "steps")])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_seeds_together_are_trained_as_the_engine_trains_one(
    tiny: Callable[..., Settings], tmp_path: Path, arm: str, budget: str, optimizer: str
) -> None:
    """`compare` and `run` give the same slow examples and the same network."""
    data, chosen = whole(), tiny(arm=arm, optimizer=optimizer, budget=budget, epochs=5, seed=3)
    split = make_split(data, chosen.data)
    (slow,) = find_slow_together(data, split, [chosen])
    made = run.generate(chosen, tmp_path) if arm == "tada" else {}
    pairs = arm_pairs(split, chosen, slow.train)
    (trained,) = train_together([final_job(data, split, chosen, pairs, made)])
    result = run.run(chosen, tmp_path)
    assert np.array_equal(run.select(chosen, tmp_path).train, slow.train)
    assert result["steps"] == trained.steps
    for one, other in zip(result["history"], trained.history, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=0.02)
    alone = load_file(tmp_path / "network.safetensors")
    key = ("final network", "digits", 0, 3)
    start = networks.build("small", 1, 8, 10, key).state_dict()
    for name, value in alone.items():
        together = trained.network.state_dict()[name]
        torch.testing.assert_close(value, together, rtol=1e-3, atol=1e-4)
        assert (value - start[name]).abs().max() > 100 * (value - together).abs().max()
    error = evaluate(trained.network, take(data.test, split.test), data.mean, data.std)["error"]
    assert result["test_error"] == pytest.approx(error, abs=0.003)
