"""What a run needs is said before it is taken, and is right within a factor of 2."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common import memory, parallel
from common.errors import ParameterError
from common.memory import TooLargeError, available
from sim.memory import check_runs, run_bytes
from sim.run import simulate
from sim.settings import RunSettings
from sim.sweep import sweep
from tests.messages import says

Command = Callable[..., tuple[int, str, str]]

MEASURE = """
import json, sys, torch
from sim.run import simulate
from sim.settings import RunSettings
torch.set_num_threads(1)
simulate(RunSettings(n_examples=6, dim=40, steps=2, seeds=2, filters=3, test_examples=10))
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])
for values in json.loads(sys.argv[1]):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    simulate(RunSettings(**values), curves=False)
    print(status("VmHWM") - before)
"""

SIZES: tuple[dict[str, object], ...] = (
    {"n_examples": 2000, "dim": 500, "seeds": 2},  # data and augmentation
    {"n_examples": 2500, "dim": 100, "seeds": 2, "backend": "span", "arm": "upsample"},  # Gram
    {"n_examples": 20, "dim": 50, "seeds": 20, "filters": 500},  # moments
    {"n_examples": 200, "dim": 1500, "seeds": 6, "noise": "orthogonal"},  # a frame
)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says the peak")
def test_the_estimate_is_right_within_a_factor_of_two() -> None:
    sizes = [{"steps": 2, "test_examples": 500} | values for values in SIZES]
    words = [sys.executable, "-c", MEASURE, json.dumps(sizes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=root, env=environment)
    assert ended.returncode == 0, ended.stderr
    for values, peak in zip(sizes, map(int, ended.stdout.split()), strict=True):
        estimate = run_bytes(RunSettings(**values))  # type: ignore[arg-type]
        assert peak / 2 <= estimate <= 2 * peak, values


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--n-examples", 10**9), ("--dim", 10**12), ("--k", 10**8), ("--filters", 10**7)),
        *(("--seeds", 10**9), ("--n-patches", 10**8), ("--seeds", 2**63 - 1)),
    ],
)
@pytest.mark.parametrize("stage", ["run", "sweep"])
def test_what_is_too_large_is_refused_before_it_is_begun(
    command: Command, tmp_path: Path, flag: str, value: int, stage: str
) -> None:
    out = tmp_path / "a" / "run"
    grid = ["--grid", "seed=0,1"] if stage == "sweep" else []
    code, printed, said = command(stage, flag, value, *grid, "--out", out)
    assert code == 2
    assert printed == ""
    assert said.startswith(f"error: sim {stage} needs about ")
    assert said.count("\n") == 1
    assert f"{value} " in said or f"= {value}," in said
    assert f"this machine has {memory.gib(available())[:1]}" in said
    assert flag in said.rsplit("lower", 1)[1]
    assert not (tmp_path / "a").exists()


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = RunSettings(n_examples=20, dim=30, filters=4, steps=2, seeds=2, test_examples=50)
    needed = run_bytes(small)
    monkeypatch.setattr(memory, "available", lambda: needed)
    simulate(small)
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    with pytest.raises(TooLargeError, match=r"sim run needs about . MiB for 20 examples") as error:
        simulate(small)
    crossed = pickle.loads(pickle.dumps(error.value))  # as from a process of a sweep
    assert str(crossed) == str(error.value)


def test_a_sweep_does_as_many_cells_at_once_as_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cells = [RunSettings(seed=seed, dim=100 * (1 + seed)) for seed in range(4)]
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert check_runs(cells, None) == 4
    two = run_bytes(cells[3]) + run_bytes(cells[2]) + memory.PROCESS
    monkeypatch.setattr(memory, "available", lambda: two)
    assert check_runs(cells, None) == 2
    assert check_runs(cells, 2) == 2
    with pytest.raises(TooLargeError, match=r"3 cells at once.*lower --jobs, --n-examples"):
        check_runs(cells, 3)
    with pytest.raises(TooLargeError, match="3 cells at once"):
        sweep(RunSettings(dim=400), ["seed=0,1,2"], tmp_path / "sweep", jobs=3)
    assert not (tmp_path / "sweep").exists()


def test_a_limit_of_the_control_group_counts(tmp_path: Path) -> None:
    def group(path: Path, names: tuple[str, str, str], *values: int | str) -> None:
        path.mkdir(parents=True)
        (path / names[0]).write_text(f"{values[0]}\n")
        (path / names[1]).write_text(f"{values[1]}\n")
        (path / "memory.stat").write_text(f"anon 5\n{names[2]} {values[2]}\n")

    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("4:cpu,memory:/box\n0::/slice/unit\n")
    two, one = (
        ("memory.max", "memory.current", "file"),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_cache",
        ),
    )
    group(root / "slice" / "unit", two, "max", 10, 0)
    (root / "slice" / "memory.max").write_text("1000\n")
    (root / "slice" / "memory.current").write_text("400\n")
    (root / "slice" / "memory.stat").write_text("anon 300\nfile 100\n")
    group(root / "memory" / "box", one, 500, 100, 20)
    assert sorted(memory._of_groups(proc, root)) == [420, 700]
    assert list(memory._of_groups(tmp_path / "nowhere", root)) == []
    assert 0 < available() < 2**50


@pytest.mark.parametrize("words", ["verify", "figure arms", "sweep --grid k=1,2"])
@pytest.mark.parametrize(("jobs", "message"), [(0, "at least 1"), (10**8, "at most ")])
def test_jobs_that_cannot_be(
    command: Command, tmp_path: Path, words: str, jobs: int, message: str
) -> None:
    out = tmp_path / "a" / "b"
    flag = "--json" if words == "verify" else "--out"
    code, _, said = command(*words.split(), "--jobs", jobs, flag, out)
    assert code == 2
    assert f"--jobs {jobs}: must be " in said
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_many_processes_are_counted_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10 * memory.PROCESS)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    parallel.check_jobs(20, tasks=10)
    with pytest.raises(TooLargeError, match=r"--jobs needs about .* for 11 processes"):
        parallel.check_jobs(20, tasks=11)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("verify --claims=", "claims = : must be one of gaussian-moments"),
        ("verify --claims nosuch", "claims = nosuch: must be one of"),
        ("sweep --grid k=1,2 --cluster dask://nohost:1", "cluster = dask://nohost:1: must be the"),
        ("sweep --grid k=1,2 --cluster dask://nohost", "cluster = dask://nohost: must be dask://"),
        ("sweep --grid k=1,2 --cluster=", "cluster = : must be dask://HOST:PORT"),
        ("sweep --grid k=1,2 --device cuda", "device = cuda: must be cpu"),
        ("calibrate --seeds 1000000000000", "seeds = 1000000000000: must be at least 2 and"),
        ("run --device cuda", "device = cuda: must be cpu"),
        ("run --noise orthogonal --dim 50", "dim = 50: must be at least "),
        ("run --seed 9223372036854775808", "seed = 9223372036854775808: must be a whole number"),
        ("run --test-examples 10000000000", "test_examples = 10000000000: must be a whole number"),
        ("run --power 100000", "power = 100000: must be a whole number, at least 2 and at most"),
    ],
)
def test_nothing_is_left_behind(command: Command, tmp_path: Path, words: str, message: str) -> None:
    flag = "--json" if words.startswith("verify") else "--out"
    code, printed, said = command(*words.split(), flag, tmp_path / "a" / "b")
    assert (code, printed) == (2, "")
    assert says(said, message)
    assert said.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_a_grid_of_too_many_cells(command: Command, tmp_path: Path) -> None:
    many = ",".join(map(str, range(1, 101)))
    grid = [f"{name}={many}" for name in ("k", "seed", "steps", "filters")]
    code, _, said = command("sweep", "--grid", *grid, "--out", tmp_path / "a")
    assert code == 2
    assert "--grid 100000000 cells: must be one of at most 100000 cells" in said
    assert not (tmp_path / "a").exists()


def test_a_refusal_inside_a_run_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, command: Command, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ParameterError("n_examples", 100, "smaller")

    monkeypatch.setattr("sim.run.simulate", refuse)
    assert command("run", "--out", tmp_path / "a" / "b")[0] == 2
    assert not (tmp_path / "a").exists()


def test_synthetic_examples_that_are_copies_need_no_rows() -> None:
    copies = RunSettings(fidelity=1, kept_noise=1, n_examples=3000, backend="span")
    assert run_bytes(copies) < run_bytes(replace(copies, kept_noise=0.5)) / 2
