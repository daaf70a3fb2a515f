"""What a recipe allows, and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Any

import pytest

from common.errors import ParameterError
from empirical.training.recipes import Recipe


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "whole number"),
        ("epochs", 1.5, "whole number"),
        ("steps", 0, "whole number"),
        ("batch_size", True, "whole number"),
        ("seed", -1, "at least 0"),
        ("accumulation", 0, "at least 1"),
        ("optimizer", "lion", "sgd"),
        ("optimizer", "gsam", "sam"),
        ("schedule", "linear", "cosine"),
        ("precision", "fp8", "bf16"),
        ("lr", 0.0, "above 0"),
        ("lr", math.nan, "above 0"),
        ("rho", 0.0, "above 0"),
        ("momentum", 1.0, "[0, 1)"),
        ("weight_decay", -1.0, "at least 0"),
        ("warmup_epochs", 201, "200"),
        ("sam_accumulation", "m", "m-sam"),
        ("sam_ranks", "all", "synchronised"),
        ("mixing_alpha", 0.0, "above 0"),
    ],
)
def test_bad_values(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ParameterError) as error:
        Recipe(**{name: value})
    assert error.value.name == name
    assert str(value) in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize("name", ["augmentation", "mixing"])
def test_unknown_augmentation(name: str) -> None:
    values: dict[str, Any] = {name: "jitter"}
    with pytest.raises(ParameterError, match=r"jitter.*none") as error:
        Recipe(**values)
    assert error.value.name == name


def rates(recipe: Recipe, n: int = 100) -> list[float]:
    total = recipe.total_steps(n)
    return [recipe.learning_rate(step, total) for step in range(total)]


def test_step_schedule_divides_by_ten_at_half_and_three_quarters() -> None:
    found = rates(Recipe(epochs=8, batch_size=100, lr=1.0))
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_goes_down_to_zero() -> None:
    found = rates(Recipe(epochs=4, batch_size=100, lr=2.0, schedule="cosine"))
    assert found == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)])


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warmup_rises_to_the_schedule(schedule: str) -> None:
    recipe = Recipe(epochs=10, batch_size=50, lr=1.0, schedule=schedule, warmup_epochs=2)
    found = rates(recipe)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    if schedule == "constant":
        assert found[4:] == [1.0] * 16
    if schedule == "cosine":
        # 16 steps are left, of which the first was at the top
        assert found[4:] == pytest.approx(
            [0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
        )
    if schedule == "step":
        assert found[9:] == pytest.approx([1.0] + [0.1] * 5 + [0.01] * 5)


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_the_schedule_is_stretched_over_the_steps(schedule: str) -> None:
    short = Recipe(epochs=10, batch_size=50, schedule=schedule, warmup_epochs=1)
    other = Recipe(epochs=10, steps=40, batch_size=50, schedule=schedule, warmup_epochs=1)
    assert len(rates(short)) == 20
    assert len(rates(other)) == 40
    # the same at the same share of the training; the warm-up only climbs in finer stairs
    assert rates(other)[4::2] == pytest.approx(rates(short)[2:])
    assert rates(other)[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_batches_are_nearly_equal_not_ragged() -> None:
    assert Recipe(batch_size=64).epoch_steps(100) == 2
    assert Recipe(batch_size=64, epochs=3).total_steps(65) == 6
    assert Recipe(batch_size=64, epochs=3, steps=5).total_steps(65) == 5
