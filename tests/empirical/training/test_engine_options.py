"""What users of timm expect: smoothing, clipping, an average of the weights, a rate of the head."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.errors import ParameterError
from common.seeding import torch_stream
from empirical.config.training import TrainingSettings
from empirical.training.batched import train_together
from empirical.training.batches import Normalisation, TrainingSet
from empirical.training.engine import Job, train
from empirical.training.recipes import Recipe, early_recipe

MEAN, STD = [0.5], [0.25]
PLAIN: dict[str, Any] = {
    "epochs": 2, "batch_size": 10, "lr": 0.1, "schedule": "constant", "augmentation": "none",
    "weight_decay": 0.0, "seed": 3,
}  # fmt: skip

LONG = Recipe(**(PLAIN | {"epochs": 300}), weights_ema=0.9, clip_norm=0.5, head_lr=0.05)


def data(n: int = 20, **more: Any) -> TrainingSet:
    stream = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (n,), generator=stream)
    pixels = torch.randint(256, (n, 1, 4, 4), dtype=torch.uint8, generator=stream)
    return TrainingSet(pixels, labels, torch.arange(n), 3, MEAN, STD, **more)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(own: TrainingSet, recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    """Every batch of a training, as the engine has it."""
    found = []
    for number in range(recipe.epochs):
        order = torch.randperm(
            len(own), generator=torch_stream("engine batches", recipe.seed, number)
        )
        for places in order.tensor_split(recipe.epoch_steps(len(own))):
            x = Normalisation.of(MEAN, STD)(own.pixels[own.rows[places]])
            found.append((x, own.labels[own.rows[places]]))
    return found


def weights(own: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in own.parameters()]


def trained(recipe: Recipe, own: TrainingSet | None = None, **more: Any) -> nn.Module:
    made = network()
    train(made, own or data(), recipe, show="", cpu=True, **more)
    return made


@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 0.2}, {"clip_norm": 0.05}, {"head_lr": 0.02}, {"weights_ema": 0.9}],
)
def test_they_are_what_they_are_called(options: dict[str, float]) -> None:
    """Each written out in plain torch."""
    recipe = Recipe(**PLAIN, **options)
    plain = network()
    head = plain[-1]  # type: ignore[index]
    body = [own for own in plain.parameters() if all(own is not h for h in head.parameters())]
    groups = [{"params": body}, {"params": [*head.parameters()], "lr": recipe.head_lr or 0.1}]
    optimizer = torch.optim.SGD(groups, 0.1, 0.9)
    average = weights(plain)
    for step, (x, y) in enumerate(batches(data(), recipe)):
        optimizer.zero_grad()
        cross_entropy(plain(x), y, label_smoothing=recipe.label_smoothing).backward()
        if recipe.clip_norm:
            norm = torch.cat([own.grad.flatten() for own in plain.parameters()]).norm()  # type: ignore[union-attr]
            assert norm > recipe.clip_norm
            for own in plain.parameters():
                own.grad *= recipe.clip_norm / norm
        optimizer.step()
        keep = min(recipe.weights_ema, (step + 1) / (step + 10))
        average = [keep * a + (1 - keep) * w for a, w in zip(average, weights(plain), strict=True)]
    expected = average if recipe.weights_ema else weights(plain)
    ours = weights(trained(recipe))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    others = weights(trained(Recipe(**PLAIN)))
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(ours, others, strict=True))


def test_the_average_is_what_is_evaluated_and_training_goes_on_from_the_weights() -> None:
    seen: list[list[Tensor]] = []

    def look(own: nn.Module) -> dict[str, float]:
        seen.append(weights(own))
        return {}

    recipe = Recipe(**PLAIN, weights_ema=0.9)
    last = weights(trained(recipe, evaluate=look))
    torch.testing.assert_close(seen[-1], last)
    torch.testing.assert_close(last, weights(trained(recipe)))


def test_a_killed_training_with_an_average_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = weights(trained(LONG))
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.empirical.training import test_engine_options as own\n"
        "folder = Path(sys.argv[1])\n"
        "own.train(own.network(), own.data(), own.LONG, folder, cpu=True, checkpoint_every=0)\n"
    )
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], cwd=root)
    while not list((tmp_path / "run").glob("checkpoint-*/state.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = network()
    train(found, data(), LONG, tmp_path / "run", show="", cpu=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(found), whole, strict=True))


def test_synthetic_images_are_shown_with_their_probability() -> None:
    n = 200
    own = data(n)
    half = replace(own, rows=torch.arange(n) % 100 + 100, sources=torch.arange(n) % 100, shown=0.3)
    recipe = Recipe(**PLAIN)
    from empirical.training.batches import Epoch

    shares = []
    for number in range(20):
        epoch = Epoch(half, half.pixels, recipe, number, torch.device("cpu"))
        assert sorted((epoch.rows % 100).tolist()) == sorted((torch.arange(n) % 100).tolist())
        shares.append(float((epoch.rows >= 100).double().mean()))
    # 4000 throws at .3: six standard deviations
    assert sum(shares) / 20 == pytest.approx(0.3, abs=6 * (0.3 * 0.7 / 4000) ** 0.5)
    assert len(set(shares)) > 5
    always = replace(half, shown=1.0, sources=None)
    rows = Epoch(always, always.pixels, recipe, 0, torch.device("cpu")).rows
    assert sorted(rows.tolist()) == sorted(always.rows.tolist())
    assert half.fingerprint() != replace(half, shown=0.4).fingerprint() != always.fingerprint()


def test_the_early_network_is_trained_plainly() -> None:
    settings = TrainingSettings(label_smoothing=0.1, weights_ema=0.99, clip_norm=1.0)
    found = early_recipe(settings, 3, 0.1, 0)
    assert (found.label_smoothing, found.weights_ema, found.clip_norm) == (0, 0, 1.0)


@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 0.1}, {"clip_norm": 1.0}, {"weights_ema": 0.9}, {"head_lr": 0.1}],
)
def test_networks_that_are_trained_together_have_none_of_it(options: dict[str, float]) -> None:
    job = Job(network(), data(), Recipe(**PLAIN, **options), "training", "")
    with pytest.raises(ParameterError, match="to train networks together"):
        train_together([job])


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.0},
        {"weights_ema": -0.1},
        {"clip_norm": float("nan")},
        {"head_lr": 0.0},
    ],
)
def test_what_is_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        Recipe(**PLAIN, **options)
