"""How much the slow examples depend on the seed: `empirical stability`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from empirical import ranks, run, selection
from empirical.machine import HERE, Machine
from empirical.settings import Settings
from empirical.versions import versions
from sim.style import write_figure
from theory.files import write_json
from theory.parameters import require


def stability(
    settings: Settings, out: Path, seeds: int = 5, machine: Machine = HERE
) -> dict[str, Any]:
    """Select with seeds 0 to `seeds` - 1 into OUT/seed-S; returns what OUT/stability.json holds.

    The training images are the same for all seeds; networks, batches and clusters are not.
    Raises ParameterError for fewer than two seeds.
    """
    require(seeds >= 2, "seeds", seeds, "at least 2")
    every = [replace(settings, seed=seed) for seed in range(seeds)]
    slow = [run.select(own, out / f"seed-{own.seed}", machine).train for own in every]
    pairs = [[selection.jaccard(a, b) for b in slow] for a in slow]
    found: dict[str, Any] = {
        **selection.stability(slow),
        "pairs": pairs,
        "seeds": seeds,
        "n": len(slow[0]),
        "times_slow": np.bincount(np.sum(slow, axis=0), minlength=seeds + 1).tolist(),
        "settings": settings.record(),
        "versions": versions(),
        "command": settings.command("stability", out) + f" --seeds {seeds}",
    }

    def write() -> None:
        write_json(out / "stability.json", found)
        write_figure(out / "stability.png", draw(found))

    ranks.first_does(write)
    return found


def draw(found: dict[str, Any]) -> Figure:
    """Jaccard index of each pair of seeds, and how many seeds agree on an example."""
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    image = left.imshow(found["pairs"], vmin=0, vmax=1, cmap="viridis")
    left.set(title="Jaccard index", xlabel="seed", ylabel="seed")
    figure.colorbar(image, ax=left)
    share = np.array(found["times_slow"]) / found["n"]
    right.bar(range(len(share)), share, color="tab:blue", label="measured")
    times = np.arange(found["seeds"] + 1)
    chance = binom.pmf(times, found["seeds"], found["share"])
    right.plot(times, chance, "k_", ms=14, label="independent seeds")
    right.set(xlabel="seeds for which an example is slow", ylabel="share of examples")
    right.legend()
    return figure
