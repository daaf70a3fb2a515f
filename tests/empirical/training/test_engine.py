"""The engine against training written out, and killed trainings against undisturbed ones."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.divergence import DivergenceError, Watch
from common.errors import ParameterError
from common.seeding import torch_stream
from empirical.datasets.base import Images
from empirical.training import checkpoints, devices, engine
from empirical.training.batches import Normalisation, TrainingSet, bounds
from empirical.training.checkpoints import State
from empirical.training.engine import Loop, train
from empirical.training.evaluate import evaluate, outputs
from empirical.training.recipes import Recipe

MEAN, STD = [0.5], [0.3]
SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.05}


def make(*, norm: bool = True, dropout: float = 0.2, seed: int = 0) -> nn.Module:
    """A small network on (n, 1, 8, 8) with four classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(6 * 4 * 4, 4),
        )


def smooth() -> nn.Module:
    """One whose outputs do not depend on the rest of a batch, nor on chance."""
    return make(norm=False, dropout=0.0)


def images(n: int = 40) -> TrainingSet:
    stream = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (n,), generator=stream)
    pixels = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=stream)
    pixels[torch.arange(n), 0, labels] = 255  # a bright row tells the class
    return TrainingSet(pixels, labels, torch.arange(n), 4, MEAN, STD)


def run(network: nn.Module, recipe: Recipe, folder: Path | None = None, **more: Any) -> Any:
    return train(network, images(), recipe, folder, **({"show": "", "cpu": True} | more))


def state(network: nn.Module) -> dict[str, bytes]:
    return {
        name: value.detach().contiguous().numpy().tobytes()
        for name, value in network.state_dict().items()
    }


def close(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), **tolerance)


def kept(folder: Path) -> dict[str, Any]:
    """What the checkpoint in a folder holds, but for the time it took."""
    (path,) = folder.iterdir()
    record = json.loads((path / "state.json").read_text(encoding="utf-8"))
    del record["seconds"], record["digest"]
    return record | {"name": path.name, "bytes": (path / "state.safetensors").read_bytes()}


# Training written out


def written_out(network: nn.Module, recipe: Recipe, data: TrainingSet) -> list[float]:
    """The same training in plain torch, without augmentation or accumulation; mean losses."""
    network.train()
    options: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    if recipe.base_optimizer == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), 1.0, recipe.momentum, **options)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), 1.0, **options)
    step, losses = 0, []
    while step < recipe.total_steps(len(data)):
        number, total = step // recipe.epoch_steps(len(data)), 0.0
        order = torch.randperm(
            len(data), generator=torch_stream("engine batches", recipe.seed, number)
        )
        for places in order.tensor_split(recipe.epoch_steps(len(data))):
            rows = data.rows[places]
            x, y = Normalisation.of(data.mean, data.std)(data.pixels[rows]), data.labels[rows]
            optimizer.zero_grad()
            loss = cross_entropy(network(x), y)
            loss.backward()
            total += loss.item() * len(rows)
            if recipe.ascent == "sam":
                old = [own.detach().clone() for own in network.parameters()]
                grads = [own.grad for own in network.parameters() if own.grad is not None]
                norm = torch.cat([own.flatten() for own in grads]).norm()
                with torch.no_grad():
                    for own, grad in zip(network.parameters(), grads, strict=True):
                        own += recipe.rho * grad / norm
                optimizer.zero_grad()
                cross_entropy(network(x), y).backward()
                with torch.no_grad():
                    for own, before in zip(network.parameters(), old, strict=True):
                        own.copy_(before)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate(
                step, recipe.total_steps(len(data))
            )
            optimizer.step()
            step += 1
        losses.append(total / len(data))
    return losses


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "adamw", "sam-adamw"])
def test_the_engine_is_training_written_out(optimizer: str) -> None:
    recipe = Recipe(
        **(SHORT | {"lr": 0.01 if "adamw" in optimizer else 0.1}),
        optimizer=optimizer,
        rho=0.2,
        augmentation="none",
        schedule="cosine",
        warmup_epochs=1,
    )
    ours, plain = smooth(), smooth()
    data = dataclasses.replace(images(), rows=torch.arange(40) // 2)
    trained = train(ours, data, recipe, show="", cpu=True)
    losses = written_out(plain, recipe, data)
    close(ours, plain, rtol=1e-5, atol=1e-6)
    assert [own["loss"] for own in trained.history] == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0]
    with pytest.raises(AssertionError):
        close(ours, smooth(), rtol=1e-3, atol=1e-3)


def test_the_history() -> None:
    recipe = Recipe(**(SHORT | {"epochs": 4}), augmentation="none")
    network = smooth()
    seen: list[bool] = []

    def look(own: nn.Module) -> dict[str, Any]:
        seen.append(own is network)
        own.eval()
        return {"n": len(seen)}

    trained = run(network, recipe, evaluate=look)
    assert trained.network is network
    assert network.training
    assert trained.steps == 12
    assert [own["steps"] for own in trained.history] == [3, 6, 9, 12]
    assert [own["epoch"] for own in trained.history] == [1, 2, 3, 4]
    assert {own["examples"] for own in trained.history} == {40}
    assert [own["lr"] for own in trained.history] == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    assert [own["evaluation"] for own in trained.history] == [{"n": n} for n in (1, 2, 3, 4)]
    assert all(seen)
    assert trained.history[-1]["error"] < trained.history[0]["error"]
    assert trained.seconds > 0


def test_the_error_of_an_epoch_is_counted_before_each_step() -> None:
    """With a learning rate of next to nothing it is the error of the network itself."""
    data = images()
    whole = Images(data.pixels, data.labels, ("a", "b", "c", "d"))
    for optimizer in ("sgd", "sam"):
        network = smooth()
        expected = evaluate(network, whole, MEAN, STD)
        recipe = Recipe(
            **(SHORT | {"lr": 1e-12, "epochs": 1}),
            augmentation="none",
            optimizer=optimizer,
            rho=1.0,
            accumulation=3,
        )
        (found,) = run(network, recipe).history
        assert found["error"] == pytest.approx(expected["error"])
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert 0 < found["error"] < 1


def test_equal_steps_cut_the_last_epoch_short() -> None:
    trained = run(make(), Recipe(**SHORT, steps=7))
    assert trained.steps == 7
    assert [own["steps"] for own in trained.history] == [3, 6, 7]
    assert [own["examples"] for own in trained.history] == [40, 40, 14]


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "asam"])
def test_accumulation_changes_rounding_only(optimizer: str) -> None:
    whole, parts = smooth(), smooth()
    recipe = Recipe(**SHORT, optimizer=optimizer, mixing="cutmix")
    run(whole, recipe)
    trained = run(parts, dataclasses.replace(recipe, accumulation=5))
    close(whole, parts, rtol=1e-4, atol=1e-6)
    assert trained.history[-1]["loss"] is not None
    other = smooth()
    run(other, dataclasses.replace(recipe, accumulation=5, sam_accumulation="m-sam"))
    if optimizer != "sgd":
        with pytest.raises(AssertionError):
            close(whole, other, rtol=1e-4, atol=1e-6)


def test_more_micro_batches_than_examples() -> None:
    one, other = smooth(), smooth()
    run(one, Recipe(**SHORT))
    run(other, Recipe(**SHORT, accumulation=100))
    close(one, other, rtol=1e-4, atol=1e-6)


def test_bf16_keeps_float32_weights_and_evaluates_in_float32() -> None:
    exact, rough = make(dropout=0.0), make(dropout=0.0)
    pixels = images().pixels
    found: list[Tensor] = []

    def look(network: nn.Module) -> dict[str, float]:
        found.append(outputs(network, pixels, MEAN, STD))
        return {}

    run(exact, Recipe(**SHORT))
    run(rough, Recipe(**SHORT, precision="bf16"), evaluate=look)
    assert {value.dtype for value in rough.parameters()} == {torch.float32}
    close(exact, rough, rtol=0.1, atol=0.02)
    with pytest.raises(AssertionError):
        close(exact, rough, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[-1], outputs(rough, pixels, MEAN, STD))


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_channels_last_and_compile_change_rounding_only(
    monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    whole = nn.Module.compile
    compiled: list[dict[str, Any]] = []

    def traced(network: nn.Module, **options: Any) -> None:
        compiled.append(options)
        whole(network, backend="eager", **options)  # the code generator takes half a minute

    monkeypatch.setattr(nn.Module, "compile", traced)
    plain, other = make(dropout=0.0), make(dropout=0.0)
    recipe = Recipe(**SHORT, optimizer=optimizer)
    run(plain, recipe)
    run(other, dataclasses.replace(recipe, channels_last=True, compile=True))
    close(plain, other, rtol=1e-3, atol=1e-5)
    assert compiled == [{"dynamic": False}]
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)  # pyright: ignore


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_nothing_is_left_on_the_network(precision: str) -> None:
    network = make()
    before = set(network.__dict__)
    trained = run(network, Recipe(**SHORT, precision=precision))
    assert set(network.__dict__) == before
    run(copy.deepcopy(trained.network), Recipe(**SHORT))  # other precision, same process


# Determinism


def test_same_seed_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(**SHORT, optimizer="sam", mixing="cutmix")
    first, second, third, fourth = (make(dropout=0.5) for _ in range(4))
    one = run(first, recipe)
    torch.manual_seed(99)  # of no influence

    def draw(network: nn.Module) -> dict[str, float]:
        return {"chance": float(torch.rand(()))}  # neither is this

    two = run(second, recipe, evaluate=draw)
    assert state(first) == state(second)
    assert [own["loss"] for own in one.history] == [own["loss"] for own in two.history]
    run(third, dataclasses.replace(recipe, seed=1))
    assert state(third) != state(first)
    # chance in the network is keyed by the seed too
    monkeypatch.setattr(engine, "seed_for", lambda *key: 0)
    run(fourth, recipe)
    assert state(fourth) != state(first)


def test_torchs_streams_and_threads_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    inside: list[int] = []

    def look(network: nn.Module) -> dict[str, float]:
        inside.append(torch.get_num_threads())
        return {}

    run(make(), Recipe(**SHORT), evaluate=look)
    run(make(), Recipe(**SHORT), evaluate=look, threads=2)
    assert inside == [1] * 3 + [2] * 3
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)


def test_copies_cost_nothing_and_are_the_same_training() -> None:
    data = images(20)
    rows = torch.arange(40) % 20
    pictures = dataclasses.replace(data, rows=rows)
    copied = TrainingSet(
        data.pixels[rows], data.labels[rows], torch.arange(40), 4, MEAN, STD, data.flips
    )
    one, other = make(), make()
    train(one, pictures, Recipe(**SHORT), show="", cpu=True)
    train(other, copied, Recipe(**SHORT), show="", cpu=True)
    assert state(one) == state(other)


def test_memory_mapped_images(tmp_path: Path) -> None:
    data = images()
    data.pixels.numpy().tofile(tmp_path / "bank")
    mapped = torch.from_file(
        str(tmp_path / "bank"), size=data.pixels.numel(), dtype=torch.uint8
    ).view_as(data.pixels)
    one, other = make(), make()
    train(one, data, Recipe(**SHORT), show="", cpu=True)
    train(other, dataclasses.replace(data, pixels=mapped), Recipe(**SHORT), show="", cpu=True)
    assert state(one) == state(other)


# Stopped and resumed

RECIPES = {
    "sgd": Recipe(**SHORT, augmentation="trivialaugment"),
    "sam": Recipe(**SHORT, optimizer="sam", mixing="mixup"),
    "adamw": Recipe(**SHORT, optimizer="adamw", steps=8, schedule="cosine", warmup_epochs=1),
    "asam bf16": Recipe(
        **SHORT, optimizer="asam", precision="bf16", channels_last=True, accumulation=2
    ),
    "no momentum": Recipe(**SHORT, momentum=0.0),
}


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """The training dies before its step number `step`, from 0."""
    whole = Loop.step

    def stop(loop: Loop) -> None:
        if loop.state.step == step:
            raise KeyboardInterrupt
        whole(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", stop)
        yield


def score(network: nn.Module) -> dict[str, Any]:
    data = images()
    return evaluate(network, Images(data.pixels, data.labels, ("a", "b", "c", "d")), MEAN, STD)


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_and_resumed_equals_undisturbed(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    options: dict[str, Any] = {"checkpoint_every": 0.0, "evaluate": score}
    undisturbed = run(make(), recipe, tmp_path / "one", **options)
    for step in range(1, undisturbed.steps, 3 if name == "sgd" else 1):
        with stopped_at(step), pytest.raises(KeyboardInterrupt):
            run(make(), recipe, tmp_path / "two", **options)
        assert [path.name for path in (tmp_path / "two").iterdir()] == [f"checkpoint-{step:09d}"]
    resumed = run(make(), recipe, tmp_path / "two", **options)
    assert resumed.history == undisturbed.history
    assert state(resumed.network) == state(undisturbed.network)
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert resumed.seconds > 0


def test_how_often_checkpoints_are_written_changes_nothing(tmp_path: Path) -> None:
    one = run(make(), RECIPES["sam"], tmp_path / "one", checkpoint_every=0.0)
    two = run(make(), RECIPES["sam"], tmp_path / "two")
    three = run(make(), RECIPES["sam"])
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert state(one.network) == state(two.network) == state(three.network)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_checkpoint_keeps_the_layout_in_memory(tmp_path: Path, kind: Any) -> None:
    def prepared() -> tuple[nn.Module, Any]:
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return network, kind(network.parameters(), lr=0.1, **options)

    network, optimizer = prepared()
    network(torch.ones(1, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    checkpoints.save(tmp_path, "f", network, optimizer, State(1, 0.0, torch.zeros(2), [], {}))
    other, again = prepared()
    checkpoints.restore(tmp_path, "f", other, again)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert optimizer.state[one].keys() == again.state[two].keys() != set()
        for name, moment in optimizer.state[one].items():
            assert torch.equal(again.state[two][name], moment)
            assert again.state[two][name].stride() == moment.stride()


def test_a_finished_training_is_found_again(tmp_path: Path) -> None:
    first = run(make(), RECIPES["sgd"], tmp_path / "one")
    with stopped_at(9), stopped_at(0):
        again = run(make(), RECIPES["sgd"], tmp_path / "one")
    assert state(again.network) == state(first.network)
    assert (again.history, again.steps) == (first.history, first.steps)
    assert again.seconds == pytest.approx(first.seconds)


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_a_training_that_diverges_ends_there_and_leaves_nothing(
    tmp_path: Path, optimizer: str
) -> None:
    recipe = Recipe(**(SHORT | {"lr": 1e30, "optimizer": optimizer}))
    with pytest.raises(DivergenceError) as error:
        run(make(), recipe, tmp_path / "one", checkpoint_every=0.0)
    said = r"^training diverged at step [12] \((loss nan|loss inf|its weights are not finite)\): "
    assert re.match(said + "lower its learning rate, 1e[+]30$", str(error.value))
    assert list((tmp_path / "one").iterdir()) == []
    better = run(make(), RECIPES["sgd"], tmp_path / "one")
    assert state(better.network) == state(run(make(), RECIPES["sgd"]).network)


def test_the_last_step_may_diverge_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No later loss would show it."""
    recipe = Recipe(**(SHORT | {"steps": 1, "momentum": 0.0}))
    monkeypatch.setattr(Recipe, "learning_rate", lambda *_: 1e38)
    with pytest.raises(DivergenceError, match=r"at step 1 \(its weights are not finite\)"):
        run(scaled_up(make()), recipe)


def scaled_up(network: nn.Module) -> nn.Module:
    """Weights of a size with which the first gradient is large, but the first loss finite."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e3)
    return network


def test_a_gpu_is_asked_now_and_then_and_the_step_is_still_the_first() -> None:
    """Losses noted without a look, as on a device that a look would have to wait for."""
    watch = Watch("it", "do less")
    noted = [torch.tensor(own) for own in (1.0, 2.0, float("inf"), float("nan"))]
    watch._seen += list(enumerate(noted, start=5))
    with pytest.raises(DivergenceError, match=r"^it diverged at step 7 \(loss inf\): do less$"):
        watch.look()
    watch.look()


def test_no_batch_has_a_single_example() -> None:
    for n in range(1, 60):
        for size in range(1, 12):
            pieces = bounds(n, Recipe(batch_size=size).epoch_steps(n))
            sizes = [stop - start for start, stop in pieces]
            assert sum(sizes) == n
            assert max(sizes) <= size + (size == 2)
            assert min(sizes) >= min(2, size, n)


def test_batch_normalisation_of_single_values_is_refused_and_of_others_done() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, 4), nn.BatchNorm1d(4))
    for values in ({"batch_size": 1}, {"batch_size": 4, "accumulation": 3}):
        recipe = Recipe(**(SHORT | {"epochs": 1} | values))  # pyright: ignore[reportArgumentType]
        with pytest.raises(ParameterError, match=r"^batch_size = .: must be at least ., in each"):
            run(network, recipe)
        run(make(), recipe)  # its maps have 64 places
        run(smooth(), recipe)
    odd = replace(images(), rows=torch.arange(7))
    train(network, odd, Recipe(**(SHORT | {"batch_size": 2})), cpu=True, show="")


@contextmanager
def scaled(scale: float) -> Iterator[list[float]]:
    """Every accelerator inside has a loss scale, as on a GPU with fp16, that grows every 3 steps;
    gives the scales after each step."""
    whole, seen = devices.Accelerator, list[float]()

    class Scaled(whole):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)

    step = Loop.step

    def watch(loop: Loop) -> None:
        step(loop)
        seen.append(loop.accelerator.scaler.get_scale())  # pyright: ignore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "Accelerator", Scaled)
        patch.setattr(Loop, "step", watch)
        yield seen


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 122), ("sam", 60)])
def test_the_loss_scale_is_resumed(tmp_path: Path, optimizer: str, power: int) -> None:
    """Both scales are near to where float32 overflows: SAM squares the scaled gradients."""
    recipe = Recipe(**(SHORT | {"lr": 1e-5}), optimizer=optimizer)
    data = dataclasses.replace(images(), std=[0.003])  # large gradients

    def go(folder: Path) -> Any:
        return train(smooth(), data, recipe, folder, checkpoint_every=0.0, show="", cpu=True)

    with scaled(2.0**power) as scales:
        one = go(tmp_path / "one")
        ups = {late / early for early, late in itertools.pairwise([2.0**power, *scales])}
        assert ups == {0.5, 1.0, 2.0}, scales  # steps were skipped, and the scale grew again
        for step in range(1, 9):
            with stopped_at(step), pytest.raises(KeyboardInterrupt):
                go(tmp_path / "two")
        two = go(tmp_path / "two")
        assert scales[len(scales) // 2 :] == scales[: len(scales) // 2]
    assert state(one.network) == state(two.network) != state(smooth())
    assert kept(tmp_path / "one") == kept(tmp_path / "two")
    assert kept(tmp_path / "one")["scaler"]["scale"] == scales[-1]


def kill_main(folder: Path) -> None:
    """Train each recipe undisturbed, then again and again in a process that is killed."""
    torch.set_num_threads(1)
    choice = random.Random(os.getpid())
    report = {}
    for name in ("sgd", "sam"):
        recipe = dataclasses.replace(RECIPES[name], epochs=12)
        began = time.monotonic()
        run(make(), recipe, folder / name / "one", checkpoint_every=0.0)
        took = time.monotonic() - began
        kills: list[tuple[float, list[str]]] = []
        while len(kills) < 300:
            child = os.fork()
            if child == 0:
                run(make(), recipe, folder / name / "two", checkpoint_every=0.0)
                os._exit(0)
            # later kills come later, so that a busy machine gets to the end as well
            delay = choice.uniform(0, took / 4 * (1 + len(kills) / 30))
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break
            left = sorted(path.name for path in (folder / name / "two").glob("*"))
            kills.append((delay, left))
        report[name] = kills
    print(json.dumps(report))


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for name, kills in json.loads(done.stdout).items():
        folder = tmp_path / name
        assert kept(folder / "two") == kept(folder / "one"), kills
        resumed_from = {left[0] for _, left in kills if left and not left[0].endswith(".part")}
        assert len(resumed_from) >= 2, kills
    json_record = kept(tmp_path / "sam" / "two")
    assert json_record["step"] == 36


# What is refused


@pytest.fixture(scope="module")
def _half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "training"
    with stopped_at(5), pytest.raises(KeyboardInterrupt):
        run(make(), RECIPES["sgd"], folder, checkpoint_every=0.0)
    return folder


@pytest.fixture
def half(_half: Path, tmp_path: Path) -> Path:
    """A copy of a training stopped after five steps, to damage at will."""
    return Path(shutil.copytree(_half, tmp_path / "training"))


@pytest.mark.parametrize("change", ["recipe", "pixels", "rows", "network", "kind of network"])
def test_another_training_is_refused(
    half: Path, change: str, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before = contents(half)
    recipe, data, network = RECIPES["sgd"], images(), make()
    if change == "recipe":
        recipe = dataclasses.replace(recipe, lr=0.06)
    elif change == "pixels":
        data.pixels[7, 0, 0, 0] ^= 1
    elif change == "rows":
        data = dataclasses.replace(data, rows=data.rows.flip(0))
    elif change == "network":
        network = make(seed=1)
    else:
        network[2] = nn.GELU()  # pyright: ignore
    with pytest.raises(ParameterError, match=r".*: must be of the same recipe") as no:
        train(network, data, recipe, half, show="", cpu=True)
    assert "\n" not in str(no.value)
    assert contents(half) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_one_line(
    half: Path,
    name: str,
    damage: Callable[[Path], None],
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    damage(half / "checkpoint-000000005" / name)
    before = contents(half)
    with pytest.raises(ParameterError, match=r".*checkpoint-000000005") as error:
        run(make(), RECIPES["sgd"], half)
    assert "\n" not in str(error.value)
    assert contents(half) == before


def test_what_a_kill_can_leave_behind(half: Path) -> None:
    """Killed while writing, and after the renaming while removing the one before."""
    (half / "checkpoint-000000006.part").mkdir()
    (half / "checkpoint-000000006.part" / "state.safetensors").write_bytes(b"half")
    (half / "checkpoint-000000004").mkdir()
    (half / "checkpoint-000000004" / "state.json").write_bytes(b"")
    (half / "mine").write_text("not the engine's", encoding="utf-8")
    trained = run(make(), RECIPES["sgd"], half)
    assert state(trained.network) == state(run(make(), RECIPES["sgd"]).network)
    assert sorted(path.name for path in half.iterdir()) == ["checkpoint-000000009", "mine"]


def test_a_full_disk_leaves_the_last_checkpoint(half: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # no file may be larger
    try:
        with pytest.raises(OSError, match="File too large"):
            run(make(), RECIPES["sgd"], half, checkpoint_every=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in half.iterdir()] == ["checkpoint-000000005"]
    trained = run(make(), RECIPES["sgd"], half)
    assert state(trained.network) == state(run(make(), RECIPES["sgd"]).network)


def test_fp16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="precision = fp16: must be no or bf16 on a CPU"):
        run(make(), Recipe(**SHORT, precision="fp16"), tmp_path / "one")
    assert not (tmp_path / "one").exists()


# Trackers and progress


def test_trackers_are_told_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = Recipe(**SHORT)
    trained = run(
        make(), recipe, tmp_path / "run", trackers=("tensorboard",), evaluate=lambda _: {"a": 0.5}
    )
    found = EventAccumulator(str(tmp_path / "run" / "trackers" / "training" / "tada"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own, of numpy
        found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "error", "lr", "steps", "evaluation/a"}
    for name in ("loss", "error", "lr", "steps"):
        told = [(event.step, event.value) for event in found.Scalars(name)]
        assert told == [(own["epoch"], pytest.approx(own[name])) for own in trained.history]


def test_unknown_trackers() -> None:
    with pytest.raises(ParameterError, match="trackers = paper: must be one that is installed"):
        run(make(), Recipe(**SHORT), trackers=("paper",))
    pytest.importorskip("tensorboard")
    with pytest.raises(ParameterError, match="trackers = tensorboard: must be given with a folder"):
        run(make(), Recipe(**SHORT), trackers=("tensorboard",))


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    run(make(), Recipe(**SHORT), show="")
    assert capsys.readouterr() == ("", "")
    run(make(), Recipe(**SHORT), show="the network")
    assert "the network: 9 of 9" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_on_a_gpu(tmp_path: Path, precision: str, optimizer: str) -> None:
    recipe = Recipe(**SHORT, precision=precision, optimizer=optimizer, channels_last=True)
    gpu, cpu = make(dropout=0.0), make(dropout=0.0)
    with stopped_at(5), pytest.raises(KeyboardInterrupt):
        run(make(dropout=0.0), recipe, tmp_path / "one", checkpoint_every=0.0, cpu=False)
    trained = run(gpu, recipe, tmp_path / "one", cpu=False)
    assert next(gpu.parameters()).is_cuda
    run(cpu, dataclasses.replace(recipe, precision="no"))
    close(gpu.cpu(), cpu, rtol=0.2, atol=0.05)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


if __name__ == "__main__":
    kill_main(Path(sys.argv[1]))
