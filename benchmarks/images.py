"""Speed of the empirical core as ratios against named baselines: `empirical bench`."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from sklearn.cluster import KMeans

from benchmarks.augmentation import bench_augment
from benchmarks.generation import bench_generation
from benchmarks.simulation import machine
from benchmarks.training import bench_engine
from common.seeding import numpy_stream
from common.threads import one_thread
from empirical.selection.slow_sets import cluster
from empirical.versions import versions

Json = dict[str, Any]


def bench_selection(small: bool = False) -> Json:
    """Selecting slow examples of 100 classes against one k-means of all outputs, 50,000 x 100.

    The baseline is scikit-learn's KMeans with two clusters and as many restarts on the same
    outputs: what a selection costs that does not look at classes. Both on one thread, alternately.
    """
    n, classes, rounds = (2000, 20, 1) if small else (50_000, 100, 3)
    rng = numpy_stream("bench", "selection")
    labels = np.arange(n) % classes
    outputs = rng.standard_normal((n, classes)).astype(np.float32)
    outputs[np.arange(n), labels] += np.where(rng.random(n) < 0.6, 6.0, 1.0)
    losses = -outputs[np.arange(n), labels]
    ratios, seconds = [], []
    with one_thread():
        for _ in range(rounds):
            start = time.perf_counter()
            KMeans(2, n_init=10, random_state=0).fit(outputs.astype(np.float64))  # pyright: ignore[reportArgumentType]
            middle = time.perf_counter()
            cluster(outputs, losses, labels, classes, seed=0)
            end = time.perf_counter()
            ratios.append((middle - start) / (end - middle))
            seconds.append(end - middle)
    return {
        "examples": n,
        "classes": classes,
        "kmeans_over_selection": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
        "seconds": statistics.median(seconds),
    }


def bench(small: bool = False, cpu: bool = False) -> Json:
    """Everything: the training engine, the augmentation, generation, the selection."""
    parts = [bench_engine(small, cpu), bench_augment(small), bench_generation(small, cpu)]
    goals = [goal for part in parts for goal in part.pop("goals")]
    return {
        "goals": goals,
        **{name: value for part in parts for name, value in part.items()},
        "selection": bench_selection(small),
        "machine": machine(),
        "versions": versions(),
        "command": "python -m empirical bench",
    }


def table(record: Json) -> Table:
    """The goals, and the ratios that have none."""
    out = Table(title="Speed ratios", box=SIMPLE_HEAD)
    for column in ("what", "ratio", "goal", ""):
        out.add_column(column, justify="left" if column == "what" else "right")
    for goal in record["goals"]:
        met = "[green]met[/]" if goal["met"] else "[red]missed[/]"
        out.add_row(
            goal["name"], f"{goal['measured']:.3g}", f"{goal['relation']} {goal['goal']}", met
        )
    ratio = record["generation"]["one_by_one_over_batches"]["median"]
    out.add_row("images, one at a time with diffusers / in batches", f"{ratio:.3g}", "", "")
    ratio = record["selection"]["kmeans_over_selection"]["median"]
    size = f"{record['selection']['examples']} x {record['selection']['classes']}"
    out.add_row(f"selection, {size}: KMeans of all / by class", f"{ratio:.3g}", "", "")
    return out
