"""Test errors over strengths and k, the measurement that a recommendation is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import distributed
from common.errors import require
from common.files import read_json, write_json
from common.locks import one_writer
from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, STYLE, canvas, write_figure
from empirical.config.settings import MOST_SEEDS, Settings, changed
from empirical.datasets.base import fingerprint
from empirical.datasets.splits import make_split, open_set
from empirical.pipeline import memory, run
from empirical.pipeline.synthesis import trained_here
from empirical.recommendation.probe import check_grid
from empirical.recommendation.rule import check_ks
from empirical.runtime import HERE, Machine
from empirical.versions import versions

ERRORS = {"test_error_slow": "slow test error", "test_error": "test error"}
"""What is compared, and how a plot calls it."""
COLOURS = (BLUE, ORANGE, GREEN, RED)


@dataclass(frozen=True)
class Cell:
    """One point of a grid; strength None: k = 1, without synthetic images."""

    k: int
    strength: float | None

    @property
    def name(self) -> str:
        return f"k-{self.k}" if self.strength is None else f"k-{self.k}-strength-{self.strength:g}"


def cells(strengths: Sequence[float], ks: Sequence[int]) -> list[Cell]:
    """k = 1, which needs no strength, and every k with every strength."""
    return [Cell(1, None), *(Cell(k, strength) for k in ks for strength in strengths)]


@one_writer
def grid(
    settings: Settings,
    out: Path,
    ks: Sequence[int],
    seeds: int = 3,
    machine: Machine = HERE,
) -> dict[str, Any]:
    """Run every cell with so many seeds, from `settings.seed` on; returns what OUT/grid.json holds.

    The cells are those of k = 1, and of `ks` with each of `strengths`, if none is given with
    `strength`.

    Each cell is a run in OUT/grid/seed-S/CELL, so a stopped grid resumes. The cells of a seed share
    their slow examples and OUT/grid/seed-S/synthetic, where copy c of a source is the same at every
    k; all cells share the generator in OUT/generator, which `recommend` with this OUT uses too.

    Raises:
        ParameterError: see `check_grid` and `check_ks`; or as `run`.
    """
    strengths = settings.generation.strengths or (settings.generation.strength,)
    check_grid(settings, strengths)
    check_ks(ks)
    require(seeds >= 1, "seeds", seeds, "at least 1")
    require(seeds <= MOST_SEEDS, "seeds", seeds, f"at most {MOST_SEEDS}")
    require(machine.synthetic is None, "synthetic", machine.synthetic, "not given: OUT has its own")
    base = settings
    data = open_set(settings.data, machine.data, machine.download)
    largest = replace(settings, k=max(ks, default=1))
    memory.check_split(largest, data, make_split(data, settings.data), machine)
    if settings.generation.generator == "pixel":
        given = (data, make_split(data, settings.data), settings, out / "generator", machine.device)
        distributed.start(machine.cpu)
        out.mkdir(parents=True, exist_ok=True)
        distributed.run_on_main(lambda: trained_here(*given))
        base = changed(settings, generator=f"pixel:{out / 'generator'}")
    found: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in cells(strengths, ks)}
    for seed in range(settings.seed, settings.seed + seeds):
        folder = out / "grid" / f"seed-{seed}"
        here = replace(machine, synthetic=folder / "synthetic")
        for cell in found:
            strength = settings.generation.strength if cell.strength is None else cell.strength
            own = changed(base, seed=seed, k=cell.k, strength=strength, strengths=None)
            if cell.k > 1:
                run.share_selection(folder / Cell(1, None).name, folder / cell.name, own)
            found[cell].append(run.run(own, folder / cell.name, here))
    recommended = out / "recommendation.json"
    result = {
        **summary(found),
        "seeds": [settings.seed + i for i in range(seeds)],
        "slow_fraction": [own["slow_fraction"] for own in found[Cell(1, None)]],
        "recommended": _recommended(recommended) if recommended.exists() else None,
        "images": fingerprint(data.train),
        "settings": settings.record(),
        "versions": versions(),
        "command": f"{settings.command('grid', out)} --ks {' '.join(map(str, ks))} --seeds {seeds}",
    }
    result["recommended_against_best"] = against_best(result)

    def write() -> None:
        write_json(out / "grid.json", result)
        with rc_context(STYLE):
            write_figure(out / "grid.png", draw(result))

    distributed.run_on_main(write)
    return result


def _recommended(path: Path) -> dict[str, Any]:
    found = read_json(path, "recommendation", ("k", "strength"))
    return {"k": found["k"], "strength": found["strength"]}


def summary(found: dict[Cell, list[dict[str, Any]]]) -> dict[str, Any]:
    """Cells with the errors of every seed, mean and standard error; the best cell by each error.

    Under "best" also the paired differences of every other cell from it: all cells of a seed share
    its slow examples and network.
    """
    rows: list[dict[str, Any]] = []
    for cell, runs in found.items():
        row: dict[str, Any] = {"k": cell.k, "strength": cell.strength}
        row["n_synthetic"] = [own["n_synthetic"] for own in runs]
        for name in ERRORS:
            each = [own[name] for own in runs]
            row[name] = {**mean_error(each), "seeds": each}
        rows.append(row)
    best = {}
    for name in ERRORS:
        known = [row for row in rows if row[name]["mean"] is not None]
        least = min(known or rows, key=lambda row: row[name]["mean"] or 0.0)
        best[name] = {"k": least["k"], "strength": least["strength"], **least[name]}
        for row in rows:
            row[name]["over_best"] = _difference(row[name], least[name])
    return {"cells": rows, "best": best}


def mean_error(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean over seeds and its standard error (None for one seed).

    A seed for which no test image is slow has no error of slow ones, None, at any cell, and is left
    out; with none left the mean is None.
    """
    own = np.array([value for value in values if value is not None], dtype=float)
    error = float(own.std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else None
    return {"mean": float(own.mean()) if len(own) else None, "standard_error": error}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float | None]:
    both = zip(one["seeds"], other["seeds"], strict=True)
    return mean_error([None if a is None or b is None else a - b for a, b in both])


def against_best(result: dict[str, Any]) -> dict[str, Any] | None:
    """The recommended cell's errors minus those of the best cell; None where it was not run."""
    recommended = result["recommended"]
    for row in result["cells"]:
        if recommended and all(row[name] == recommended[name] for name in ("k", "strength")):
            return {name: row[name]["over_best"] for name in ERRORS}
    return None


def draw(result: dict[str, Any]) -> Figure:
    """Both errors against strength, a curve for each k, ± one standard error over seeds."""
    figure, axes = canvas(8.2, 3.3, ncols=2)
    for ax, name in zip(axes, ERRORS, strict=True):
        _draw(ax, result, name)
    drawn = next(ax for ax in axes if ax.has_data())
    drawn.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=3)
    return figure


def _draw(ax: Axes, result: dict[str, Any], name: str) -> None:
    rows = result["cells"]
    plain = next(row for row in rows if row["strength"] is None)[name]
    if plain["mean"] is None:
        ax.set(title="no test image is slow", ylabel=ERRORS[name])
        return
    ax.axhline(100 * plain["mean"], color=GREY, lw=1, ls="--", label="k = 1")
    spread = 100 * (plain["standard_error"] or 0.0)
    ax.axhspan(100 * plain["mean"] - spread, 100 * plain["mean"] + spread, color=GREY, alpha=0.15)
    ks = sorted({row["k"] for row in rows} - {1})
    for number, k in enumerate(ks):
        own = sorted((row for row in rows if row["k"] == k), key=lambda row: row["strength"])
        ax.errorbar(
            [row["strength"] + 0.006 * (number - len(ks) / 2) for row in own],
            [100 * row[name]["mean"] for row in own],
            yerr=[100 * (row[name]["standard_error"] or 0.0) for row in own],
            fmt="o-", ms=3.5, lw=1.2, capsize=2, color=COLOURS[number % len(COLOURS)],
            label=f"k = {k}",
        )  # fmt: skip
    recommended = result["recommended"]
    if recommended and recommended["strength"] is not None:
        label = f"recommended: k = {recommended['k']}, {recommended['strength']:g}"
        ax.axvline(recommended["strength"], color="black", lw=0.8, ls=":", label=label)
    ax.set(xlabel="strength", ylabel=f"{ERRORS[name]} (%), ± s.e. over seeds")
