"""Every combination of some settings' values: on this machine's cores, on Dask or on Ray.

    from pathlib import Path
    from sim.settings import RunSettings
    from sim.sweep import sweep

    rows = sweep(RunSettings(arm="tada"), ["k=1,2,5"], Path("runs/k"))

Finished cells are files of their own until all are there and become one Parquet table, so a
killed sweep loses the cells at work and no others. Only this process writes; workers need no
common disk.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import math
import os
import shlex
import shutil
import socket
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
from joblib import delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from common.errors import MissingDependencyError, ParameterError, require
from common.files import check_writable, digest, nothing_left, read_json, whole_file, write_json
from common.locks import one_writer
from common.parallel import check_jobs, pool
from common.progress import progress, say
from common.provenance import versions
from sim.memory import check_runs
from sim.run import METRICS, check, check_device, simulate
from sim.settings import RunSettings

TABLE = "sweep.parquet"
PLOT = "sweep.png"
CELLS = "cells"

Value = int | float | str | bool | None
Grid = dict[str, tuple[Value, ...]]
Row = dict[str, Any]

ERROR = "_standard_error"
"""Ending of the column with a metric's standard error."""

TYPES: dict[str, tuple[type, ...]] = {
    name: get_args(hint) or (hint,) for name, hint in get_type_hints(RunSettings).items()
}
"""What each setting may be: one type, and perhaps None."""

CONNECT_SECONDS = 10

MOST_CELLS = 100_000
"""Of a grid: its cells are listed before the first is run, and each becomes a file."""


@one_writer
def sweep(
    base: RunSettings,
    axes: Sequence[str],
    out: Path,
    jobs: int | None = None,
    cluster: str | None = None,
    plot: str | None = None,
) -> list[Row]:
    """Simulate the Cartesian product of `axes` ("name=value,value") over `base`, into `out`.

    Returns the rows of out/sweep.parquet, in the grid's order, the first axis slowest: all
    settings, n_training, diverged, and for each of METRICS its mean over seeds and, with the
    ending _standard_error, the standard error of that. They depend on base and axes alone.
    jobs: processes on this machine (default: all cores). cluster: "dask://host:port",
    "ray://host:port" or "ray" instead. plot: the metric that out/sweep.png shows, for one or two
    axes. What `out` holds of these cells is used again.
    Raises ParameterError, before any cell runs: a grid, a cell, jobs or plot that is not allowed, a
    library that is missing, a cluster that does not answer, a damaged file, or a folder with cells
    of another grid or of other versions. While they run: workers that died, with the finished
    cells kept; a Dask cluster that is left without workers is waited for. OSError where the folder
    cannot be written.
    """
    grid = parse(axes)
    count = math.prod(map(len, grid.values()))
    require(count <= MOST_CELLS, "grid", f"{count} cells", f"one of at most {MOST_CELLS} cells")
    cells = {key(cell): cell for cell in product(base, grid)}
    check_jobs(jobs)
    require(jobs is None or cluster is None, "jobs", jobs, "left out with --cluster")
    require(plot is None or plot in METRICS, "plot", plot, f"one of {', '.join(METRICS)}")
    require(plot is None or len(grid) <= 2, "plot", plot, "left out for more than two parameters")
    library("pyarrow", "sweep")
    workers = None if cluster is None else _address(cluster)
    stored = _read_table(out / TABLE)
    rows = {**stored, **_read_cells(out / CELLS)}
    others = len(rows.keys() - cells.keys())
    require(not others, "out", out, f"another folder: {others} of its cells are not in this grid")
    missing = {name: cell for name, cell in cells.items() if name not in rows}
    if missing and workers is None:
        for cell in missing.values():
            check_device(cell)
        jobs = check_runs(list(missing.values()), jobs)
    elif missing and workers is not None:
        _check_cluster(*workers)
    with nothing_left(out):
        check_writable(out / TABLE)
        if missing:
            computed = _computed(list(missing.values()), jobs, workers)
            with progress("cells", len(cells), len(rows)) as advance, closing(computed) as results:
                for result in results:
                    name = key(RunSettings(**result["settings"]))
                    there = result["versions"]
                    allowed = f"workers with the versions here, {versions()}"
                    require(there == versions(), "cluster", cluster, allowed)
                    (out / CELLS).mkdir(exist_ok=True)
                    write_json(out / CELLS / f"{name}.json", result)
                    rows[name] = _row(result)
                    advance()
        else:
            say(f"{out}: all {len(cells)} cells finished before, used again")
    ordered = [rows[name] for name in cells]
    if list(stored) != list(cells):
        words = ["python", "-m", "sim", "sweep", "--grid", *axes, *base.flags, "--out", str(out)]
        _write_table(out / TABLE, ordered, shlex.join(words))
    if (out / CELLS).exists():
        shutil.rmtree(out / CELLS)
    if len(grid) <= 2:
        draw(ordered, list(grid), plot or "test_error_slow", out / PLOT)
    return ordered


def parse(axes: Sequence[str]) -> Grid:
    """The values of each axis "name=value,value,...", in the order given.

    Raises ParameterError: no axis, an unknown or repeated name, no value, one that is not of the
    setting's type, or the same one twice.
    """
    require(len(axes) > 0, "grid", "nothing", "at least one NAME=VALUE,VALUE,...")
    grid: Grid = {}
    for axis in axes:
        name, equals, texts = axis.partition("=")
        name = name.strip().replace("-", "_")
        require(bool(equals), "grid", axis, "of the form NAME=VALUE,VALUE,...")
        require(name in TYPES, "grid", axis, f"about one of {', '.join(TYPES)}")
        require(name not in grid, "grid", axis, f"the only axis of {name}")
        values = tuple(_value(name, text.strip(), axis) for text in texts.split(","))
        require(len(set(values)) == len(values), "grid", axis, "a list without repetitions")
        grid[name] = values
    return grid


def _value(name: str, text: str, axis: str) -> Value:
    kind, optional = TYPES[name][0], NoneType in TYPES[name]
    if optional and text.lower() == "none":
        return None
    if kind is bool:
        require(text.lower() in ("true", "false"), "grid", axis, "a list of true and false")
        return text.lower() == "true"
    try:
        if not text:
            raise ValueError
        return kind(text)
    except ValueError:
        what = {int: "whole numbers", float: "numbers"}.get(kind, "words")
        allowed = f"a list of {what}{' or none' if optional else ''}, without {text!r}"
        raise ParameterError("grid", axis, allowed) from None


def product(base: RunSettings, grid: Grid) -> list[RunSettings]:
    """The cells of the grid, the first axis slowest. Raises ParameterError for one not allowed."""
    cells = [
        replace(base, **dict(zip(grid, values, strict=True)))  # type: ignore[arg-type]
        for values in itertools.product(*grid.values())
    ]
    for cell in cells:
        check(cell)
    return cells


def key(cell: RunSettings) -> str:
    """A cell's name: a hash of its settings."""
    # 1 and 1.0 are the same setting: the table gives back the second
    typed = {n: None if v is None else TYPES[n][0](v) for n, v in asdict(cell).items()}
    return digest(typed)


def library(name: str, extra: str) -> Any:
    """Import a library of an extra. Raises MissingDependencyError if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        install = f"pip install 'tada-companion[{extra}]'"
        raise MissingDependencyError("this sweep", name, install) from None


def _address(cluster: str) -> tuple[str, str]:
    """("dask", "host:port"), ("ray", "host:port") or ("ray", "")."""
    if cluster == "ray":
        return "ray", ""
    kind, _, address = cluster.partition("://")
    host, _, port = address.rpartition(":")
    ok = kind in ("dask", "ray") and host and port.isdigit() and int(port) < 2**16
    require(bool(ok), "cluster", cluster, "dask://HOST:PORT, ray://HOST:PORT or ray")
    return kind, address


def _computed(
    cells: list[RunSettings], jobs: int | None, workers: tuple[str, str] | None
) -> Generator[dict[str, Any]]:
    """The cells' results, in the order in which they finish."""
    if workers is None:
        results = _on_processes(cells, jobs or os.cpu_count() or 1)
    elif workers[0] == "dask":
        results = _on_dask(cells, workers[1])
    else:
        results = _on_ray(cells, workers[1])
    with closing(results):
        for result in results:
            if isinstance(result, ParameterError):
                raise result
            yield result


def _cell(settings: RunSettings) -> dict[str, Any] | ParameterError:
    # A cell's own complaint is returned: raised, each backend would wrap it in its own way.
    torch.set_num_threads(1)
    try:
        return simulate(settings, curves=False)
    except ParameterError as error:
        return error


def _on_processes(cells: list[RunSettings], jobs: int) -> Generator[Any]:
    results: Any = pool(jobs, len(cells), batch_size=1)(delayed(_cell)(cell) for cell in cells)
    try:
        # not `yield from`, which would close it before `finally`
        for result in results:  # noqa: UP028
            yield result
    except TerminatedWorkerError:
        allowed = "fewer: a process was killed (memory?); run the same command again to resume"
        raise ParameterError("jobs", jobs, allowed) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it stops the other cells
            results.close()


def _check_cluster(kind: str, address: str) -> None:
    """Raise ParameterError unless its library is here and somebody listens there."""
    if kind == "ray":
        library("ray", "ray")
        if address:
            library("grpc", "ray")  # for Ray's client; a plain install of ray is without
    else:
        library("distributed", "cluster")
    try:
        if address:
            _knock(address)
    except OSError:
        what = "Ray cluster" if kind == "ray" else "Dask scheduler"
        raise _no_cluster(f"{kind}://{address}", what) from None


# Dask and Ray are spoken to directly. Under joblib's Dask backend a task that Dask gives up on
# (its workers died, memory most often) is never heard of again, and the sweep waits for ever;
# Ray's returns nothing before everything is done.


def _on_dask(cells: list[RunSettings], address: str) -> Generator[Any]:
    distributed = library("distributed", "cluster")
    # a lost scheduler is our one line, not a traceback of its client
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(f"tcp://{address}", timeout=CONNECT_SECONDS)
    except OSError:
        raise _no_cluster(f"dask://{address}", "Dask scheduler") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise _no_cluster(f"dask://{address}", "Dask scheduler with workers") from None
        futures = client.map(_cell, cells, pure=False)
        try:
            for future in distributed.as_completed(futures):
                yield future.result()
        except (CancelledError, distributed.KilledWorker) as error:
            raise _lost(f"dask://{address}", error) from None


def _on_ray(cells: list[RunSettings], address: str) -> Generator[Any]:
    ray = library("ray", "ray")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nobody answers is our one line
            ray.init(
                f"ray://{address}" if address else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except OSError:
        raise _no_cluster(f"ray://{address}", "Ray cluster") from None
    try:
        task = ray.remote(num_cpus=1)(_cell)
        waiting = [task.remote(cell) for cell in cells]
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield ray.get(done)
    except (OSError, ray.exceptions.RayError) as error:
        raise _lost(f"ray://{address}", error) from None
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once if nobody listens there; the libraries would try for a while."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except UnicodeError as error:  # a name that cannot be one
        raise OSError(str(error)) from None


def _no_cluster(cluster: str, what: str) -> ParameterError:
    return ParameterError("cluster", cluster, f"the address of a running {what}; none answers")


def _lost(cluster: str, error: BaseException) -> ParameterError:
    allowed = (
        f"reachable until the sweep ends ({type(error).__name__}: it or a worker died); "
        "run the same command again to resume"
    )
    return ParameterError("cluster", cluster, allowed)


def _row(result: Mapping[str, Any]) -> Row:
    row = {**result["settings"], **{name: result[name] for name in ("n_training", "diverged")}}
    for name in METRICS:
        row[name] = result["metrics"][name]["mean"]
        row[name + ERROR] = result["metrics"][name]["standard_error"]
    return row


def _read_cells(folder: Path) -> dict[str, Row]:
    """The finished cells in a folder. Raises ParameterError for a damaged or a foreign file."""
    rows = {}
    for path in sorted(folder.glob("*.json")):
        result = read_json(
            path, "cell", ("settings", "metrics", "n_training", "diverged", "versions")
        )
        _require_versions(path, result["versions"])
        try:
            rows[path.stem] = _row(result)
            whole = path.stem == key(RunSettings(**result["settings"]))
        except (KeyError, TypeError):
            whole = False
        require(whole, "file", path, "a cell of a sweep; it is damaged: remove it")
    return rows


def _read_table(path: Path) -> dict[str, Row]:
    """The rows of an earlier table, by cell. Raises ParameterError if it is not one."""
    if not path.exists():
        return {}
    pa, parquet = library("pyarrow", "sweep"), library("pyarrow.parquet", "sweep")
    allowed = "a whole table of this sweep; move it away to start again"
    try:
        table = parquet.read_table(path.absolute(), page_checksum_verification=True)
        found = json.loads(table.schema.metadata[b"versions"])
        rows = table.to_pylist()
        known = {key(RunSettings(**{name: row[name] for name in TYPES})): row for row in rows}
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        raise ParameterError("file", path, allowed) from None
    _require_versions(path, found)
    require(table.schema.equals(_schema()), "file", path, allowed)
    return known


def _require_versions(path: Path, found: object) -> None:
    allowed = f"made with the versions here, {versions()}; it has {found}: use another --out"
    require(found == versions(), "file", path, allowed)


def _schema() -> Any:
    """A column for each setting, n_training, diverged, and two for each metric."""
    pa = library("pyarrow", "sweep")
    arrow = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    columns = [(field.name, arrow[TYPES[field.name][0]]) for field in fields(RunSettings)]
    columns += [("n_training", pa.int64()), ("diverged", pa.int64())]
    columns += [(name + ending, pa.float64()) for name in METRICS for ending in ("", ERROR)]
    return pa.schema(columns)


def _write_table(path: Path, rows: list[Row], command: str) -> None:
    pa, parquet = library("pyarrow", "sweep"), library("pyarrow.parquet", "sweep")
    schema = _schema().with_metadata({"command": command, "versions": json.dumps(versions())})
    with whole_file(path) as part:
        # absolute: NAME:... would be an address to pyarrow
        table = pa.Table.from_pylist(rows, schema)
        parquet.write_table(table, part.absolute(), write_page_checksum=True)


def draw(rows: Sequence[Row], axes: Sequence[str], metric: str, path: Path) -> None:
    """Draw a metric ± 2 standard errors against one axis, a line for each value of another.

    The first of the axes (one or two) that holds numbers is the horizontal one.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    from common.plotting import STYLE, canvas, write_figure

    numeric = [axis for axis in axes if all(_is_number(row[axis]) for row in rows)]
    across = (numeric or list(axes))[0]
    lines = [axis for axis in axes if axis != across]
    labels = list(dict.fromkeys(", ".join(f"{a} = {row[a]}" for a in lines) for row in rows))
    with rc_context(STYLE):
        figure, panel = canvas(5, 3.4)
        for label in labels:
            own = [r for r in rows if ", ".join(f"{a} = {r[a]}" for a in lines) == label]
            own = [row for row in own if row[metric] is not None]
            if across in numeric:
                own.sort(key=lambda row: row[across])
            x = [row[across] if across in numeric else str(row[across]) for row in own]
            y = [row[metric] for row in own]
            error = [2 * (row[metric + ERROR] or 0.0) for row in own]
            panel.errorbar(x, y, error, marker="o", capsize=3, label=label)
        if all(type(row[across]) is int for row in rows):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set(xlabel=across, ylabel=f"{metric} ± 2 standard errors")
        if lines:
            panel.legend()
        write_figure(path, figure)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
