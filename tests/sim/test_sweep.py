"""`python -m sim sweep`: its table, resuming and extending, a real Dask cluster, bad input."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from common.errors import ParameterError
from sim import sweep as module
from sim.run import METRICS, simulate
from sim.settings import RunSettings
from sim.sweep import key, parse, product, sweep
from tests.messages import says

SMALL = RunSettings(
    n_examples=20, dim=30, filters=4, steps=30, seeds=3, sigma_init=0.3, test_examples=500
)
SLOW = replace(SMALL, steps=800)
"""A few tenths of a second: long enough to be killed in."""

AXES = ["k=1,2,3", "beta_slow=.3,.45"]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """The cells that were computed in this process."""
    cells = []

    def recorded(settings: RunSettings, **options: Any) -> dict[str, Any]:
        cells.append(settings)
        return simulate(settings, **options)

    monkeypatch.setattr(module, "simulate", recorded)
    return cells


def finished(out: Path) -> int:
    return len(list((out / "cells").glob("*.json")))


def same_tables(a: Path, b: Path) -> bool:
    tables = [pq.read_table(folder / "sweep.parquet") for folder in (a, b)]
    return tables[0].equals(tables[1])


def test_rows_are_the_runs_in_the_grid_s_order(tmp_path: Path) -> None:
    rows = sweep(SMALL, AXES, tmp_path, jobs=1)
    assert [(r["k"], r["beta_slow"]) for r in rows] == [
        (k, beta) for k in (1, 2, 3) for beta in (0.3, 0.45)
    ]
    for row in rows:
        settings = replace(SMALL, k=row["k"], beta_slow=row["beta_slow"])
        expected = simulate(settings)
        assert {name: row[name] for name in asdict(settings)} == asdict(settings)
        assert row["n_training"] == expected["n_training"]
        for name in METRICS:
            assert row[name] == expected["metrics"][name]["mean"]
            error = expected["metrics"][name]["standard_error"]
            assert row[f"{name}_standard_error"] == error
    assert pq.read_table(tmp_path / "sweep.parquet").to_pylist() == rows
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.parquet", "sweep.png"}
    frame = pd.read_parquet(tmp_path / "sweep.parquet")
    assert frame["test_error_slow"].between(0, 1).all()
    metadata = pq.read_schema(tmp_path / "sweep.parquet").metadata
    assert b"python -m sim sweep --grid k=1,2,3" in metadata[b"command"]
    assert "torch" in json.loads(metadata[b"versions"])


def test_the_table_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for jobs in (1, 2):
        (tmp_path / str(jobs)).mkdir()
        monkeypatch.chdir(tmp_path / str(jobs))
        sweep(SMALL, ["arm=tada,upsample", "seed=1,0"], Path("out"), jobs=jobs)
    one, two = (tmp_path / str(jobs) / "out" / "sweep.parquet" for jobs in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_a_diverged_cell_is_empty_and_the_others_stay(tmp_path: Path) -> None:
    rows = sweep(SMALL, ["lr=.4,1e150"], tmp_path, jobs=1)
    assert [row["diverged"] for row in rows] == [0, 3]
    assert [row["loss"] is None for row in rows] == [False, True]


def test_a_finished_sweep_is_used_again_and_extended(
    command: Command, tmp_path: Path, simulated: list[RunSettings]
) -> None:
    words = ["sweep", *SMALL.flags, "--jobs", 1, "--out", tmp_path / "out"]
    assert command(*words, "--grid", "k=1,3")[0] == 0
    assert len(simulated) == 2
    table = (tmp_path / "out" / "sweep.parquet").read_bytes()
    code, out, err = command(*words, "--grid", "k=1,3", "--plot", "loss")
    assert code == 0
    assert "2 cells" in out
    assert "finished before" in err
    assert len(simulated) == 2
    assert (tmp_path / "out" / "sweep.parquet").read_bytes() == table
    # more values of one parameter, and another parameter whose default was used so far
    assert command(*words, "--grid", "k=1,2,3", "beta_slow=.3,.45")[0] == 0
    assert len(simulated) == 6
    sweep(SMALL, AXES, tmp_path / "fresh", jobs=1)
    assert same_tables(tmp_path / "out", tmp_path / "fresh")
    # a smaller grid would throw cells away
    code, _, err = command(*words, "--grid", "k=1,2")
    assert code == 2
    assert "must be another folder: 4 of its cells are not in this grid" in err
    assert same_tables(tmp_path / "out", tmp_path / "fresh")


def test_a_killed_sweep_goes_on(tmp_path: Path, simulated: list[RunSettings]) -> None:
    out, axes = tmp_path / "out", ["k=1,2,3,4", "beta_slow=.3,.45"]
    words = [sys.executable, "-m", "sim", "sweep", "--grid", *axes, *SLOW.flags]
    process = subprocess.Popen(
        [*words, "--jobs", "2", "--out", str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while finished(out) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = finished(out)
    assert 2 <= done < 8
    assert not (out / "sweep.parquet").exists()
    sweep(SLOW, axes, out, jobs=1)
    assert len(simulated) == 8 - done
    sweep(SLOW, axes, tmp_path / "whole", jobs=1)
    assert same_tables(out, tmp_path / "whole")
    assert not (out / "cells").exists()


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and one-thread worker processes: the address, and the workers."""
    file = folder / "scheduler.json"
    program = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    scheduler_flags = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker_flags = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    where = ["--scheduler-file", str(file)]
    with ExitStack() as stack:

        def started(*words: str) -> subprocess.Popen[bytes]:
            process: subprocess.Popen[bytes] = subprocess.Popen([*program, *words], **quiet)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = started("scheduler", *scheduler_flags, *where)
        crew = [started("worker", *worker_flags, *where) for _ in range(workers)]
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.01)
        yield json.loads(file.read_text())["address"].replace("tcp", "dask"), crew


def test_a_dask_cluster_that_loses_a_worker(tmp_path: Path) -> None:
    out, axes = tmp_path / "out", ["k=1,2,3,4,5", "beta_slow=.3,.45"]
    at_kill = []

    def kill(worker: subprocess.Popen[bytes]) -> None:
        while finished(out) < 3:
            time.sleep(0.005)
        worker.kill()
        at_kill.append(finished(out))

    with dask_cluster(tmp_path, 2) as (address, (victim, survivor)):
        killer = threading.Thread(target=kill, args=(victim,), daemon=True)
        killer.start()
        sweep(SLOW, axes, out, cluster=address)
        killer.join()
        assert victim.wait() == -signal.SIGKILL
        assert survivor.poll() is None
    assert at_kill[0] < 9
    sweep(SLOW, axes, tmp_path / "local", jobs=1)
    assert same_tables(out, tmp_path / "local")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--grid", "grid = nothing: must be at least one NAME=VALUE,VALUE,..."),
        ("--grid k", "grid = k: must be of the form NAME=VALUE,VALUE,..."),
        ("--grid k=", "grid = k=: must be a list of whole numbers"),
        ("--grid k=1,,2", "grid = k=1,,2: must be a list of whole numbers"),
        ("--grid kk=1", "grid = kk=1: must be about one of arm, k,"),
        ("--grid k=1,two", "grid = k=1,two: must be a list of whole numbers, without 'two'"),
        ("--grid k=1.5", "grid = k=1.5: must be a list of whole numbers"),
        ("--grid lr=.1,x", "grid = lr=.1,x: must be a list of numbers, without 'x'"),
        ("--grid batch_size=5,x", "must be a list of whole numbers or none, without 'x'"),
        ("--grid rectified=yes", "must be a list of true and false"),
        ("--grid k=1,2,1", "grid = k=1,2,1: must be a list without repetitions"),
        ("--grid lr=.3,0.30", "must be a list without repetitions"),
        ("--grid k=1,2 k=3", "grid = k=3: must be the only axis of k"),
        ("--grid k=1,0", "k = 0: must be a whole number, at least 1"),
        ("--grid arm=tada,tadah", "arm = tadah: must be one of"),
        ("--grid beta_slow=.3,1.5", "beta_slow = 1.5: must be below beta_fast = 1.0"),
        ("--grid k=1,5 batch_size=20,100 --n-examples 50", "batch_size = 100: must be a whole"),
        ("--grid k=1,2 --alpha 2", "alpha = 2.0: must be inside (0, 1)"),
        ("--grid k=1,2 --jobs 0", "jobs = 0: must be a whole number of at least 1"),
        ("--grid k=1,2 --jobs 2 --cluster ray", "jobs = 2: must be left out with --cluster"),
        ("--grid k=1,2 --plot speed", "plot = speed: must be one of train_error"),
        ("--grid k=1 seed=0 dim=9 --plot loss", "plot = loss: must be left out for more than two"),
        ("--grid k=1,2 --cluster slurm", "cluster = slurm: must be dask://HOST:PORT"),
        ("--grid k=1,2 --cluster dask://host", "cluster = dask://host: must be dask://HOST:PORT"),
        ("--grid k=1,2 --cluster dask://:80", "cluster = dask://:80: must be dask://HOST:PORT"),
        ("--grid k=1,2 --nonsense", "--nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, tmp_path: Path, simulated: list[RunSettings], words: str, line: str
) -> None:
    code, out, err = command("sweep", *words.split(), "--out", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says(err, line)
    assert not simulated
    assert not (tmp_path / "out").exists()


def test_only_the_cells_must_be_allowed_not_what_they_start_from() -> None:
    base = replace(SMALL, variant="both")
    assert len(product(base, parse(["n_patches=3,4"]))) == 2


def test_values_of_every_type() -> None:
    grid = parse(["batch_size=none,5", "rectified=true,False", "sigma-noise=1e-1", "arm=tada"])
    assert grid == {
        "batch_size": (None, 5),
        "rectified": (True, False),
        "sigma_noise": (0.1,),
        "arm": ("tada",),
    }


def test_a_cell_s_name_is_its_settings() -> None:
    assert key(SMALL) == key(replace(SMALL, beta_fast=1))
    assert key(SMALL) != key(replace(SMALL, k=6))


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_a_cluster_that_does_not_answer(command: Command, tmp_path: Path, host: str) -> None:
    words = ["sweep", "--grid", "k=1", "--out", tmp_path, "--cluster", f"dask://{host}:9"]
    code, out, err = command(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"--cluster dask://{host}:9: must be the address of a running Dask scheduler" in err


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        ("pyarrow", (), "pip install 'tada-companion[sweep]'"),
        ("distributed", ("--cluster", "dask://127.0.0.1:9"), "'tada-companion[cluster]'"),
        ("ray", ("--cluster", "ray"), "'tada-companion[ray]'"),
    ],
)
def test_a_missing_library(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: tuple[str, ...],
    line: str,
) -> None:
    real = importlib.import_module

    def without(module: str, *more: Any) -> Any:
        if module.partition(".")[0] == name:
            raise ModuleNotFoundError(module)
        return real(module, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    code, _, err = command("sweep", "--grid", "k=1,2", "--out", tmp_path, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert name in err
    assert "pip install" in err
    assert says(err, line)


def test_damaged_and_foreign_files_are_refused_and_kept(
    command: Command, tmp_path: Path, simulated: list[RunSettings]
) -> None:
    words = [*SMALL.flags, "--jobs", 1, "--grid", "k=1,2"]
    assert command("sweep", *words, "--out", tmp_path / "made")[0] == 0
    table = (tmp_path / "made" / "sweep.parquet").read_bytes()
    cell = simulate(SMALL, curves=False)
    middle = table[:2000] + bytes(50) + table[2050:]
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    name = key(replace(SMALL, k=1))
    old = {"versions": {"torch": "1.0"}}
    simulated.clear()
    for file, content, line in (
        ("sweep.parquet", table[:-20], "must be a whole table"),
        ("sweep.parquet", middle, "must be a whole table"),
        ("sweep.parquet", b"", "must be a whole table"),
        ("sweep.parquet", (tmp_path / "other.parquet").read_bytes(), "must be a whole table"),
        (f"cells/{name}.json", b"{", "is not a whole JSON file"),
        (f"cells/{name}.json", b"{}", "is not a JSON object with"),
        (f"cells/{name}.json", json.dumps(cell).encode(), "must be a cell of a sweep"),
        (f"cells/{key(SMALL)}.json", json.dumps(cell).encode(), "1 of its cells are not in"),
        (f"cells/{key(SMALL)}.json", json.dumps(cell | old).encode(), "made with the versions"),
    ):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        (out / "cells").mkdir(parents=True)
        (out / file).write_bytes(content)
        code, _, err = command("sweep", *words, "--out", out)
        assert (code, err.count("\n")) == (2, 1), err
        assert says(err, line)
        assert (out / file).read_bytes() == content
    assert not simulated


def test_a_folder_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    code, _, err = command("sweep", "--grid", "k=1,2", "--out", tmp_path / "file" / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_worker_process_that_dies_is_said_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cell", _killed)
    words = [*SMALL.flags, "--jobs", 2, "--grid", "k=1,2"]
    code, _, err = command("sweep", *words, "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1), err
    assert "--jobs 2: must be fewer: a process was killed" in err


def _killed(_: RunSettings) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_cell_s_own_complaint_arrives_from_another_process(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cell", _complaining)
    words = [*SMALL.flags, "--grid", "k=1,2", "--jobs", 2]
    code, _, err = command("sweep", *words, "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1), err
    assert "k = 2: must be what this cell can do" in err


def _complaining(settings: RunSettings) -> None:
    raise ParameterError("k", 2, "what this cell can do")


def test_a_grid_too_large_for_the_machine_is_refused_before_it_begins(
    command: Command, tmp_path: Path
) -> None:
    words = ["--grid", "n_examples=100000000000,200000000000", "--jobs", 2]
    code, _, err = command("sweep", *words, "--out", tmp_path / "grid")
    assert (code, err.count("\n")) == (2, 1), err
    assert re.search(r"needs about \S+ GiB .* this machine has \S+ GiB: lower --jobs", err)
    assert not (tmp_path / "grid").exists()


def test_orders_and_plots_of_any_two_axes(tmp_path: Path) -> None:
    for number, axes in enumerate((["arm=tada,upsample", "k=3,1"], ["arm=tada,original"])):
        rows = sweep(replace(SMALL, seeds=1), axes, tmp_path / str(number), jobs=1, plot="loss")
        assert len(rows) == 4 // (number + 1)
        assert (tmp_path / str(number) / "sweep.png").stat().st_size > 1000


def test_three_axes_give_no_plot(tmp_path: Path) -> None:
    sweep(SMALL, ["k=1", "seed=0", "arm=tada"], tmp_path, jobs=1)
    assert not (tmp_path / "sweep.png").exists()
    with pytest.raises(ParameterError, match=r"^plot = loss: must be left out"):
        sweep(SMALL, ["k=1", "seed=0", "arm=tada"], tmp_path, plot="loss")
