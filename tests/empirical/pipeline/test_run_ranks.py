"""The whole of Algorithm 1 in two processes against one: shared work, kills, errors said once.

This very file is run as the launcher: it forks the processes of one job after the other, each as
torchrun starts them, and ends the others when one fails.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.errors import ParameterError
from empirical.__main__ import main
from empirical.generation import train as training
from empirical.pipeline import run as module
from empirical.pipeline import synthesis
from empirical.storage import request as requests
from empirical.storage import store
from empirical.training.engine import Loop

Contents = Callable[[Path], dict[str, bytes]]
Patch = Callable[[int], None]

WORDS = (
    "run --dataset digits --arm tada --k 3 --optimizer sam --sam-ranks synchronised --epochs 2 "
    "--separating-epoch 2 --generator-steps 4 --denoising-steps 2 --checkpoint-every 0 --cpu"
).split()
WITH_TIMES = {"result.json", "timings.json", "generator/training.json"}


@dataclass
class Job:
    """How a job ended: exit codes by rank (minus a signal), and all that was said on each."""

    codes: list[int]
    out: list[str]
    err: list[str]

    def errors(self) -> list[str]:
        return [line for said in self.err for line in said.splitlines() if "error" in line]


# as the launcher


def unchanged(rank: int) -> None:
    """Nothing is patched."""


def first_trains(rank: int) -> None:
    """The second process neither trains a generator nor writes what the first does."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("rank 1 does what the first alone should")

    if rank == 1:
        module.trained_here = synthesis.trained_here = refuse
        module.write_tensors = module.write_json = store.write_manifest = refuse


def dies(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(where: Any, name: str, number: int, ranks: tuple[int, ...], act: Patch) -> Patch:
    """At the call with this number (from 1) of a function, some ranks do something else first."""

    def patch(rank: int) -> None:
        whole, calls = getattr(where, name), [0]

        def called(*given: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == number and rank in ranks:
                act(rank)
            return whole(*given, **named)

        setattr(where, name, called)

    return patch


def full(rank: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", f"shard of rank {rank}")


def no_data(rank: int) -> None:
    raise ParameterError("data", rank, "there on every machine")


def start(
    rank: int, world: int, port: int, folder: Path, words: list[str], patch: Patch, whole_exit: bool
) -> int:
    """Fork a process of a job; its number. In the process itself this does not return.

    whole_exit: it ends as Python does, which takes two seconds with all these modules.
    """
    child = os.fork()
    if child:
        return child
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    if world > 1:
        os.environ |= {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)},
            **{"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"},
            "MASTER_PORT": str(port),
        }
    patch(rank)
    whole = store.write_shard

    def noted(path: Path, *given: Any) -> Any:
        with (folder / f"{rank}.shards").open("a") as file:
            print(path.name, file=file)
        return whole(path, *given)

    store.write_shard = noted
    code: Any = 1
    try:
        main(words)
    except SystemExit as stop:
        if whole_exit:
            raise
        code = stop.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def job(
    name: str,
    root: Path,
    words: list[str],
    world: int = 2,
    patch: Patch = unchanged,
    whole_exit: bool = False,
) -> None:
    """Run one job to its end, like torchrun; its codes and what it said go to a folder."""
    folder = root / name
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (port, folder, words, patch, whole_exit)
    left = {start(rank, world, *given): rank for rank in range(world)}
    codes, until = {}, time.monotonic() + 60
    while left:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[left.pop(pid)] = os.waitstatus_to_exitcode(status)
        late = time.monotonic() > until
        if any(codes.values()) or late:
            time.sleep(0.1)
            for other in left:
                os.kill(other, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.01)
    (folder / "codes.json").write_text(json.dumps([codes[rank] for rank in range(world)]))


def jobs(root: Path) -> None:
    """All jobs, one after the other."""
    requests.SHARD_IMAGES = 512  # so that there is work for two
    torch.set_num_threads(1)

    def to(name: str, *more: str) -> list[str]:
        return [*WORDS, *more, "--out", str(root / f"run-{name}")]

    job("alone", root, to("alone"), world=1)
    job("pair", root, to("pair"), patch=first_trains, whole_exit=True)
    job("again", root, to("pair"))
    for name, patch in (
        ("generator", at_call(training._Training, "_loss", 3, (0,), dies)),
        ("second", at_call(store, "encode", 15, (1,), dies)),
        ("first", at_call(store, "encode", 5, (0,), dies)),
        ("training", at_call(Loop, "step", 5, (0, 1), dies)),
    ):
        job(f"killed {name}", root, to("killed"), patch=patch)
    job("resumed", root, to("killed"))
    job("full", root, to("full"), patch=at_call(store, "encode", 9, (1,), full))
    job("not full", root, to("full"))
    job("strength", root, to("new", "--strength", "0"))
    missing = at_call(module, "open_set", 1, (1,), no_data)
    job("data", root, to("data"), patch=missing)
    job("seed", root, to("pair", "--seed", "5"))
    job("model", root, to("model", "--generator", "pixel:/nowhere"))
    shutil.copytree(root / "run-pair", root / "run-damaged")
    (root / "run-damaged" / "result.json").unlink()
    shard = sorted((root / "run-damaged" / "synthetic" / "data").iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    job("damaged", root, to("damaged"))
    job("repaired", root, ["generate", *to("damaged")[1:], "--repair"])


# as the test


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def ended(root: Path) -> Callable[[str], Job]:
    def read(name: str) -> Job:
        codes = json.loads((root / name / "codes.json").read_text())
        said = [
            [(root / name / f"{rank}.{kind}").read_text() for rank in range(len(codes))]
            for kind in ("out", "err")
        ]
        return Job(codes, *said)

    return read


Ended = Callable[[str], Job]


def same(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """The same bytes, up to noted seconds."""
    assert one.keys() == other.keys()
    for name in one:
        if name in WITH_TIMES:
            values = [json.loads(own[name]) for own in (one, other)]
            for own in values:
                for key in ("seconds", "command"):
                    own.pop(key, None)
            if name != "timings.json":
                assert values[0] == values[1]
        else:
            assert one[name] == other[name], name


def test_two_processes_do_what_one_does(root: Path, ended: Ended, contents: Contents) -> None:
    assert (ended("alone").codes, ended("pair").codes) == ([0], [0, 0]), ended("pair").err
    one, two = contents(root / "run-alone"), contents(root / "run-pair")
    assert one.keys() == two.keys()
    for name in one:
        if name not in WITH_TIMES | {"network.safetensors", "slow.csv"}:
            assert one[name] == two[name], name
    tables = [list(csv.DictReader(own["slow.csv"].decode().splitlines())) for own in (one, two)]
    for row, other in zip(*tables, strict=True):
        assert float(row.pop("loss")) == pytest.approx(float(other.pop("loss")), rel=1e-3)
        assert row == other
    networks = [
        load_file(root / name / "network.safetensors") for name in ("run-alone", "run-pair")
    ]
    torch.testing.assert_close(*networks, rtol=1e-3, atol=1e-5)
    results = [json.loads(own["result.json"]) for own in (one, two)]
    for key in ("test_error", "slow_fraction", "n_synthetic", "steps"):
        assert results[0][key] == results[1][key]
    losses = [[epoch["loss"] for epoch in own["history"]] for own in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_both_make_images(root: Path) -> None:
    shards = [set((root / "pair" / f"{rank}.shards").read_text().splitlines()) for rank in range(2)]
    assert all(len(own) > 1 for own in shards)
    assert not shards[0] & shards[1]
    assert len(shards[0] | shards[1]) == len(list((root / "run-pair/synthetic/data").iterdir()))


def test_everything_is_said_once(ended: Ended) -> None:
    pair = ended("pair")
    assert len(pair.out[0].splitlines()) == 1
    assert pair.out[1] == ""
    for what in ("early steps", "generator: training steps", "synthetic images", "training steps"):
        assert sum(line.startswith(f"{what}: ") for line in pair.err[0].splitlines()) == 1
    assert pair.err[1] == ""  # and nothing of a group of processes that was left behind
    assert len(pair.err[0].splitlines()) == 4


def test_a_finished_run_is_used_again(root: Path, ended: Ended) -> None:
    again = ended("again")
    assert (again.codes, again.out) == ([0, 0], ended("pair").out)
    assert (again.err[0], again.err[1]) == (
        f"{root / 'run-pair' / 'result.json'}: finished before, used again\n",
        "",
    )


def test_killed_processes_change_nothing(root: Path, ended: Ended, contents: Contents) -> None:
    for name, by_kill in (("generator", 0), ("second", 1), ("first", 0), ("training", 0)):
        codes = ended(f"killed {name}").codes
        assert codes[by_kill] == -signal.SIGKILL
        assert 0 not in codes
    assert ended("resumed").codes == [0, 0], ended("resumed").err
    same(contents(root / "run-killed"), contents(root / "run-pair"))


def test_a_full_disk_of_one_is_said_by_the_first(
    root: Path, ended: Ended, contents: Contents
) -> None:
    full = ended("full")
    assert full.codes[0] == 2
    assert full.errors() == ["error: shard of rank 1: No space left on device"]
    assert ended("not full").codes == [0, 0]
    same(contents(root / "run-full"), contents(root / "run-pair"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("strength", "strength = 0.0: must be in (0, 1]"),
        ("data", "data = 1: must be there on every machine"),
        ("seed", "seed = 5: must be 0 as in "),
        ("model", "generator = pixel:/nowhere: must be pixel: and the folder of a model"),
        ("damaged", "repair the store to make it again"),
    ],
)
def test_bad_input_is_one_line(ended: Ended, name: str, said: str) -> None:
    bad = ended(name)
    assert bad.codes[0] == 2
    assert bad.codes[1] in (2, -signal.SIGTERM)
    assert len(bad.errors()) == 1, bad.err
    assert bad.errors()[0].startswith("error: ")
    assert said in bad.errors()[0]
    assert "Traceback" not in "".join(bad.err)


def test_repaired_by_both(root: Path, ended: Ended, contents: Contents) -> None:
    assert ended("repaired").codes == [0, 0], ended("repaired").err
    repaired, whole = (contents(root / f"run-{name}/synthetic") for name in ("damaged", "pair"))
    assert repaired == whole


if __name__ == "__main__":
    jobs(Path(sys.argv[1]))
