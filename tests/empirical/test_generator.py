"""Training of the generator: resumed equals undisturbed, and it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from empirical import generator as module
from empirical.data import Images
from empirical.generator import WEIGHTS, Generator, Recipe, learning_rate, train_generator
from empirical.sdedit import edit
from theory.parameters import ParameterError

RECIPE = Recipe(steps=7, checkpoint_every=2)


def train(digits: Images, folder: Path, recipe: Recipe = RECIPE, seed: int = 0) -> Generator:
    return train_generator(digits.pixels[:40], digits.labels[:40], 10, recipe, seed, folder)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the training die in its step number `steps`, as if it were killed there."""
    whole = module.torch_stream

    def stream(*key: str | int) -> torch.Generator:
        if key[-1] == steps:
            raise KeyboardInterrupt
        return whole(*key)

    monkeypatch.setattr(module, "torch_stream", stream)


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
def test_stopped_and_resumed_equals_undisturbed(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    undisturbed = train(digits, tmp_path / "one")
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(digits, tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert (tmp_path / "two.checkpoint" / "checkpoint.safetensors").exists() == (steps >= 2)
    resumed = train(digits, tmp_path / "two")
    assert resumed.digest == undisturbed.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_how_often_checkpoints_are_written_changes_nothing(digits: Images, tmp_path: Path) -> None:
    one = train(digits, tmp_path / "one", dataclasses.replace(RECIPE, checkpoint_every=1))
    other = train(digits, tmp_path / "two", dataclasses.replace(RECIPE, checkpoint_every=100))
    assert one.digest == other.digest


def test_a_finished_generator_is_loaded_not_trained(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(digits, tmp_path / "one")
    monkeypatch.delattr(module, "_train")
    assert train(digits, tmp_path / "one").digest == first.digest


@pytest.mark.parametrize("change", ["seed", "recipe", "images"])
def test_another_generator_is_refused(digits: Images, tmp_path: Path, change: str) -> None:
    train(digits, tmp_path / "one")
    first = 1 if change == "images" else 0
    pixels, labels = digits.pixels[first : first + 40], digits.labels[first : first + 40]
    recipe = dataclasses.replace(RECIPE, lr=0.5) if change == "recipe" else RECIPE
    seed = 1 if change == "seed" else 0
    with pytest.raises(ParameterError, match=r"generator = .*training\.json"):
        train_generator(pixels, labels, 10, recipe, seed, tmp_path / "one")


def test_another_checkpoint_is_refused(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(digits, tmp_path / "one")
    path = tmp_path / "one.checkpoint" / "checkpoint.safetensors"
    before = path.read_bytes()
    with pytest.raises(ParameterError, match="checkpoint = "):
        train(digits, tmp_path / "one", seed=1)
    assert path.read_bytes() == before


def test_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=200, warmup=50, lr=1.0)
    rates = [learning_rate(recipe, step) for step in range(200)]
    assert max(rates) < 1
    assert rates[0] < 0.05 < rates[49]
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 1e-3


def test_it_learns(
    digits: Images, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    """Sixty steps bring re-noised images nearer to their class than one step does."""
    pixels, labels = digits.pixels[:200], digits.labels[:200]
    means = torch.stack([pixels[labels == label].float().mean(dim=0) for label in range(10)])

    def distance(steps: int) -> float:
        folder = tmp_path / str(steps)
        made_by = train_generator(pixels, labels, 10, Recipe(steps), 0, folder)
        streams = [torch.Generator().manual_seed(seed) for seed in range(50)]
        made = edit(made_by, pixels[:50], labels[:50], 0.9, streams, 5)
        assert set(contents(folder)) == {
            *(WEIGHTS, "config.json", "scheduler_config.json", "training.json")
        }
        return (made.float() - means[labels[:50]]).abs().mean().item()

    assert distance(60) < 0.8 * distance(1)
