"""Two processes that share every batch, against one process with the whole of it.

This very file is run as the two processes, which talk through gloo, one case after the other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import ParameterError
from empirical.training import checkpoints
from empirical.training.batches import TrainingSet
from empirical.training.engine import Loop, Trained, train
from empirical.training.recipes import Recipe

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 7, "lr": 0.05}
RECIPES = {
    "sgd": Recipe(**SHORT),
    "sam": Recipe(**SHORT, optimizer="sam", rho=0.2, sam_ranks="synchronised"),
    "local sam": Recipe(**SHORT, optimizer="sam", rho=0.2),
    "asam in parts": Recipe(
        **SHORT, optimizer="asam", rho=0.5, sam_ranks="synchronised", accumulation=3
    ),
    "cutmix": Recipe(**SHORT, mixing="cutmix", augmentation="trivialaugment"),
    "mixup, adamw": Recipe(**(SHORT | {"lr": 0.01}), mixing="mixup", optimizer="adamw"),
    "single": Recipe(**(SHORT | {"batch_size": 1}), accumulation=2, steps=8),
    "single sam": Recipe(
        **(SHORT | {"batch_size": 1}), optimizer="sam", sam_ranks="synchronised", steps=8
    ),
    "bf16": Recipe(**SHORT, precision="bf16"),
}
SAME = [name for name in RECIPES if name != "local sam"]
"""Those that one process can do as well."""


def make(norm: bool = False, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity()]
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))


def images() -> TrainingSet:
    stream = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (30, 1, 8, 8), dtype=torch.uint8, generator=stream)
    labels = torch.randint(3, (30,), generator=stream)
    return TrainingSet(pixels, labels, torch.arange(30), 3, [0.5], [0.3])


def run(network: nn.Module, recipe: Recipe, folder: Path | None = None, **more: Any) -> Trained:
    return train(network, images(), recipe, folder, **({"show": ""} | more))


class StoppedError(Exception):
    """In place of a kill."""


def stopped(network: nn.Module, recipe: Recipe, folder: Path, step: int) -> None:
    """Train until before step number `step`."""
    whole = Loop.step

    def stop(loop: Loop) -> None:
        if loop.state.step == step:
            raise StoppedError
        whole(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", stop)
        with pytest.raises(StoppedError):
            run(network, recipe, folder, checkpoint_every=0.0)


def rank_main(out: Path) -> None:
    """What each process does."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    if rank == 1:

        def refuse(*_: Any) -> None:
            raise AssertionError("rank 1 writes or removes")

        checkpoints.save = checkpoints.clean = refuse
    found: dict[str, Any] = {}
    states: dict[str, Any] = {}

    def note(name: str, trained: Trained) -> None:
        states[name] = dict(trained.network.state_dict())
        found[name] = trained.history

    for name, recipe in RECIPES.items():
        note(name, run(make(), recipe))
    evaluated = [0]

    def evaluate(network: nn.Module) -> dict[str, int]:
        evaluated[0] += 1
        return {"rank": rank}

    recipe = RECIPES["sgd"]
    # ranks that come with different networks start from that of rank 0
    note("norm", run(make(norm=True, seed=rank), recipe, out / "norm", evaluate=evaluate))
    found["evaluated"] = evaluated[0]
    for name in ("sgd", "sam"):
        for step in (3, 8):
            stopped(make(), RECIPES[name], out / f"{name} stopped", step)
        note(f"{name} resumed", run(make(), RECIPES[name], out / f"{name} stopped"))
    stopped(make(), recipe, out / "left", 6)
    if rank == 1:
        checkpoints.restore = lambda *_: None  # as if the folder were on another machine
    with pytest.raises(ParameterError) as error:
        run(make(), recipe, out / "left")
    found["apart"] = str(error.value)
    torch.save(states, out / f"{rank}.pt")
    (out / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


@dataclasses.dataclass
class Ranks:
    """What both processes found, and the folder with their checkpoints."""

    folder: Path
    states: list[dict[str, Any]]
    found: list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, __file__, str(out)],
        env=os.environ
        | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Ranks(
        out,
        [torch.load(out / f"{rank}.pt") for rank in range(2)],
        [json.loads((out / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)],
    )


def close(one: Any, other: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(dict(one), dict(other), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", SAME)
def test_two_ranks_are_one_process(ranks: Ranks, name: str) -> None:
    alone = run(make(), RECIPES[name], cpu=True)
    tolerance = {"rtol": 0.05, "atol": 0.01} if name == "bf16" else {}
    close(ranks.states[0][name], alone.network.state_dict(), **tolerance)
    for rank in (0, 1):
        assert len(ranks.found[rank][name]) == len(alone.history)
        for theirs, ours in zip(ranks.found[rank][name], alone.history, strict=True):
            assert theirs == pytest.approx(ours, rel=0.02 if name == "bf16" else 1e-4)
    with pytest.raises(AssertionError):  # something was learned
        close(make().state_dict(), alone.network.state_dict(), **tolerance)


def test_local_perturbations_are_those_of_micro_batches(ranks: Ranks) -> None:
    recipe = dataclasses.replace(RECIPES["local sam"], accumulation=2, sam_accumulation="m-sam")
    close(ranks.states[0]["local sam"], run(make(), recipe, cpu=True).network.state_dict())
    with pytest.raises(AssertionError):
        close(ranks.states[0]["local sam"], ranks.states[0]["sam"])


def test_all_ranks_end_with_the_same_network_and_history(ranks: Ranks) -> None:
    names = [*RECIPES, "norm", "sgd resumed", "sam resumed"]
    assert list(ranks.states[0]) == list(ranks.states[1]) == names
    for name in names:
        close(ranks.states[0][name], ranks.states[1][name], rtol=0, atol=0)
        assert ranks.found[0][name] == ranks.found[1][name]


def test_rank_0_evaluates_and_writes(ranks: Ranks) -> None:
    assert [found["evaluated"] for found in ranks.found] == [2, 0]
    assert [own["evaluation"] for own in ranks.found[1]["norm"]] == [{"rank": 0}] * 2
    assert [path.name for path in (ranks.folder / "norm").iterdir()] == ["checkpoint-000000010"]
    assert int(ranks.states[1]["norm"]["1.num_batches_tracked"]) == 10


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_stopped_and_resumed_equals_undisturbed(ranks: Ranks, name: str) -> None:
    for rank in (0, 1):
        close(ranks.states[rank][f"{name} resumed"], ranks.states[rank][name], rtol=0, atol=0)
        assert ranks.found[rank][f"{name} resumed"] == ranks.found[rank][name]


def test_one_process_goes_on_from_a_checkpoint_of_two(ranks: Ranks) -> None:
    assert [path.name for path in (ranks.folder / "left").iterdir()] == ["checkpoint-000000006"]
    alone = run(make(), RECIPES["sgd"], ranks.folder / "left", cpu=True)
    close(alone.network.state_dict(), ranks.states[0]["sgd"])
    assert alone.steps == 10


def test_a_folder_that_only_one_rank_sees_is_refused(ranks: Ranks) -> None:
    for found in ranks.found:
        assert found["apart"].startswith("folder = ")
        assert found["apart"].endswith("must be one that all processes see")


def fork_main(out: Path) -> None:
    """Both ranks from one process, so that torch is imported once."""
    child = os.fork()
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(int(child == 0))
    try:
        rank_main(out)
    except BaseException:
        traceback.print_exc()
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(1)
    os._exit(os.waitpid(child, 0)[1] != 0 if child else 0)


if __name__ == "__main__":
    fork_main(Path(sys.argv[1]))
