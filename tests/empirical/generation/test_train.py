"""Training a generator: resumed equals undisturbed, any side fits, and it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from common import tensors
from common.errors import ParameterError
from empirical.datasets.base import Images
from empirical.generation import train as module
from empirical.generation.base import Originals
from empirical.generation.pixel import load_pixel
from empirical.generation.recipe import Recipe
from empirical.generation.sampling import Sampling
from empirical.generation.train import Trained, learning_rate, train_generator
from empirical.generation.variants import Variants, generate

RECIPE = Recipe(steps=7, checkpoint_every=2, batch_size=4, widths=(8, 8))


def train(digits: Images, folder: Path, recipe: Recipe = RECIPE, seed: int = 0) -> Trained:
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
    recipe = dataclasses.replace(RECIPE, flips=True)
    undisturbed = train(digits, tmp_path / "one", recipe)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(digits, tmp_path / "two", recipe)
    assert not (tmp_path / "two").exists()
    assert (tmp_path / "two.checkpoint" / "checkpoint.safetensors").exists() == (steps >= 2)
    resumed = train(digits, tmp_path / "two", recipe)
    assert resumed.digest == undisturbed.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("write", range(1, 4))
def test_killed_while_a_file_is_written(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """Half a checkpoint, or half of the finished weights, is as if it had not been written."""
    undisturbed, writes = train(digits, tmp_path / "one"), []

    def half(tensors: object, metadata: object) -> bytes:
        writes.append(1)
        raw = files_save(tensors, metadata)  # type: ignore[operator]
        return raw if len(writes) < write else _Dying(raw)

    class _Dying(bytes):
        pass

    def write_bytes(path: Path, raw: bytes) -> int:
        if isinstance(raw, _Dying):
            original(path, bytes(raw[: len(raw) // 2]))
            raise KeyboardInterrupt
        return original(path, raw)

    files_save, original = tensors.save, Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(tensors, "save", half)
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(KeyboardInterrupt):
            train(digits, tmp_path / "two")
    assert train(digits, tmp_path / "two").digest == undisturbed.digest


def test_how_often_checkpoints_are_written_changes_nothing(digits: Images, tmp_path: Path) -> None:
    one = train(digits, tmp_path / "one", dataclasses.replace(RECIPE, checkpoint_every=1))
    other = train(digits, tmp_path / "two", dataclasses.replace(RECIPE, checkpoint_every=100))
    assert one.digest == other.digest


def test_a_finished_generator_is_not_trained_again(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(digits, tmp_path / "one")
    monkeypatch.delattr(module._Training, "run")
    assert train(digits, tmp_path / "one") == first


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
    with pytest.raises(ParameterError, match="checkpoint"):
        train(digits, tmp_path / "one", seed=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no about"])
def test_damaged_generators_are_refused(digits: Images, tmp_path: Path, damage: str) -> None:
    train(digits, tmp_path / "one")
    weights = tmp_path / "one" / module.WEIGHTS
    raw = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(raw[:-100])
    elif damage == "changed":
        raw[-1] ^= 1
        weights.write_bytes(raw)
    elif damage == "gone":
        weights.unlink()
    else:
        (tmp_path / "one" / module.ABOUT).unlink()
    with pytest.raises(ParameterError, match="generator"):
        train(digits, tmp_path / "one")


def test_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=200, warmup=50, lr=1.0)
    rates = [learning_rate(recipe, step) for step in range(200)]
    assert max(rates) < 1
    assert rates[0] < 0.05 < rates[49]
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize(
    ("channels", "side", "recipe", "inside"),
    [
        (1, 8, {}, (1, 8)),
        (3, 9, {}, (3, 10)),
        (1, 28, {"shuffle": 2, "widths": (8, 8)}, (4, 14)),
        (1, 28, {"widths": (8, 8, 8, 8)}, (1, 32)),
        (3, 32, {"shuffle": 4, "attention": 1}, (48, 8)),
        (3, 64, {"shuffle": 4, "conditional": False}, (48, 16)),
    ],
)
def test_any_side_and_channels(
    tmp_path: Path, channels: int, side: int, recipe: dict[str, object], inside: tuple[int, int]
) -> None:
    """From training to images, through the folder that diffusers loads."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, channels, side, side), generator=stream).to(torch.uint8)
    labels = torch.arange(6) % 3
    chosen = {"steps": 2, "batch_size": 2, "widths": (8, 16)} | recipe
    trained = train_generator(pixels, labels, 3, Recipe(**chosen), 0, tmp_path / "model")  # type: ignore[arg-type]
    pipeline = DDPMPipeline.from_pretrained(trained.folder, low_cpu_mem_usage=False)
    config = pipeline.unet.config
    assert (config["in_channels"], config["sample_size"]) == inside
    assert pipeline.scheduler.config["beta_schedule"] == "squaredcos_cap_v2"
    backend = load_pixel(trained.folder, channels, side, 3, Sampling(steps=2))
    originals = Originals(pixels, labels, torch.arange(6))
    made = generate(backend, originals, Variants(2, (1.0,)), seed=0)
    assert made.shape == (6, 1, channels, side, side)
    assert (backend.null_class == 3) == bool(recipe.get("conditional", True))


def test_every_recipe_trains_another_generator(digits: Images, tmp_path: Path) -> None:
    changes = [{}, {"conditional": False}, {"flips": True}, {"ema": 0.0}, {"class_dropout": 0.9},
               {"attention": 1}, {"layers": 2}, {"shuffle": 2}]  # fmt: skip
    digests = {
        train(digits, tmp_path / str(i), dataclasses.replace(RECIPE, steps=1, **change)).digest  # type: ignore[arg-type]
        for i, change in enumerate(changes)
    }
    assert len(digests) == len(changes)


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"widths": ()}, {"widths": (12,)}, {"ema": 1.0}, {"class_dropout": 1.0},
     {"attention": 3}, {"shuffle": 0}, {"lr": float("nan")}],
)  # fmt: skip
def test_recipes_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(values))} = "):
        Recipe(**values)  # type: ignore[arg-type]


def test_images_that_cannot_be_trained_on_are_refused(digits: Images, tmp_path: Path) -> None:
    pixels, labels = digits.pixels[:8], digits.labels[:8]
    with pytest.raises(ParameterError, match=r"labels = .*from 0 to 2"):
        train_generator(pixels, labels, 3, RECIPE, 0, tmp_path / "one")
    with pytest.raises(ParameterError, match="pixels = "):
        train_generator(pixels[..., :6], labels, 10, RECIPE, 0, tmp_path / "one")
    with pytest.raises(ParameterError, match="pixels = "):
        train_generator(pixels[:0], labels[:0], 10, RECIPE, 0, tmp_path / "one")


def test_it_learns(
    digits: Images, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    """Forty steps bring re-noised images nearer to their class than one step does."""
    pixels, labels = digits.pixels[:200], digits.labels[:200]
    means = torch.stack([pixels[labels == label].float().mean(dim=0) for label in range(10)])
    originals = Originals(pixels[:30], labels[:30], torch.arange(30))

    def distance(steps: int) -> float:
        folder = tmp_path / str(steps)
        train_generator(pixels, labels, 10, Recipe(steps, batch_size=16), 0, folder)
        backend = load_pixel(folder, 1, 8, 10, Sampling(steps=5, fixed_steps=True))
        made = generate(backend, originals, Variants(2, (0.9,)), seed=0)[:, 0]
        assert set(contents(folder)) == {
            *("model_index.json", "scheduler/scheduler_config.json", "training.json"),
            *("unet/config.json", str(module.WEIGHTS), "trained-on.npy"),
        }
        return (made.float() - means[labels[:30]]).abs().mean().item()

    assert distance(40) < 0.8 * distance(1)
