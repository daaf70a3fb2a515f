"""How much the slow examples depend on the seed, and how true they are: `empirical stability`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import binom

from common import distributed
from common.errors import require
from common.files import write_json
from common.locks import one_writer
from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, STYLE, canvas, line, write_figure
from empirical.config.settings import MOST_SEEDS, Settings
from empirical.datasets.planted import PlantedSet
from empirical.datasets.splits import make_split, open_set
from empirical.pipeline import run
from empirical.runtime import HERE, Machine
from empirical.selection import slow_sets
from empirical.selection.early_training import truth_by_epoch
from empirical.versions import versions

CURVES = {
    "precision": "precision",
    "recall": "recall",
    "error": "training error",
    "error_fast": "error of fast examples",
    "error_slow": "error of slow examples",
}
"""What `truth_by_epoch` measures, and how a plot calls it."""
LEVEL = 0.95
"""The precision and recall that planted images are made for."""


@one_writer
def stability(
    settings: Settings,
    out: Path,
    seeds: int = 5,
    machine: Machine = HERE,
    data_seeds: int = 0,
) -> dict[str, Any]:
    """Select with seeds 0 to `seeds` - 1 into OUT/seed-S; returns what OUT/stability.json holds.

    The training images are the same for all seeds; networks, batches and clusters are not. On
    planted images "truth" holds how true the selections are (`against_truth`).
    data_seeds: further planted data sets to compare with their truth, with their seeds 1, 2, ...
    Raises ParameterError for fewer than two seeds, or data_seeds of a data set that is not planted.
    """
    require(seeds >= 2, "seeds", seeds, "at least 2")
    for name, value in (("seeds", seeds), ("data_seeds", data_seeds)):
        require(value <= MOST_SEEDS, name, value, f"at most {MOST_SEEDS}")
    planted = settings.data.dataset == "planted"
    most = "at least 0" if planted else f"0 for {settings.data.dataset}"
    require(data_seeds == 0 or (planted and data_seeds > 0), "data_seeds", data_seeds, most)
    every = [replace(settings, seed=seed) for seed in range(seeds)]
    slow = [run.select(own, out / f"seed-{own.seed}", machine).train for own in every]
    pairs = [[slow_sets.jaccard(a, b) for b in slow] for a in slow]
    found: dict[str, Any] = {
        **slow_sets.stability(slow),
        "pairs": pairs,
        "seeds": seeds,
        "n": len(slow[0]),
        "times_slow": np.bincount(np.sum(slow, axis=0), minlength=seeds + 1).tolist(),
        "settings": settings.record(),
        "versions": versions(),
        "command": settings.command("stability", out) + f" --seeds {seeds}",
    }
    if planted:
        found["truth"] = against_truth(every, slow, data_seeds, out, machine)
        found["command"] += f" --data-seeds {data_seeds}"

    def write() -> None:
        write_json(out / "stability.json", found)
        write_figure(out / "stability.png", draw(found))
        if planted:
            with rc_context(STYLE):
                write_figure(out / "truth.png", draw_truth(found))

    distributed.run_on_main(write)
    return found


def draw(found: dict[str, Any]) -> Figure:
    """Jaccard index of each pair of seeds, and how many seeds agree on an example."""
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    image = left.imshow(found["pairs"], vmin=0, vmax=1, cmap="viridis")
    left.set(xticks=range(found["seeds"]), yticks=range(found["seeds"]))
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


# --- planted images ------------------------------------------------------------------------------


def against_truth(
    every: list[Settings], slow: list[np.ndarray], data_seeds: int, out: Path, machine: Machine
) -> dict[str, Any]:
    """How true the selections on planted images are, after each epoch of the early network.

    every, slow: settings and selection, bool (n,), of each seed. In the result, selected: precision
    and recall of `slow`; by_epoch: the curves of `truth_by_epoch` as mean and standard error over
    seeds; rule: what the knee's epochs would give; runs, other_data: the curves of every seed, and
    of seed 0 on the data sets of the seeds 1 to `data_seeds`; planted: the configuration.
    """
    data = open_set(every[0].data, machine.data, machine.download)
    assert isinstance(data, PlantedSet)
    split = make_split(data, every[0].data)
    truth = data.train_slow[split.train]
    selected = [slow_sets.against_truth(own, truth) for own in slow]
    runs = [
        truth_by_epoch(data, split, own, out / f"seed-{own.seed}" / "epochs", machine)
        for own in every
    ]
    other = []
    for seed in range(1, data_seeds + 1):
        config = replace(data.config, seed=seed)
        images = open_set(every[0].data, machine.data, machine.download, planted=config)
        assert isinstance(images, PlantedSet)
        folder = out / f"data-{seed}"
        split = make_split(images, every[0].data)
        other.append(truth_by_epoch(images, split, every[0], folder, machine))
    at_rule = [{name: own[name][own["rule"] - 1] for name in selected[0]} for own in runs]
    return {
        "selected": {name: _mean([own[name] for own in selected]) for name in selected[0]},
        "rule": {
            "epochs": [own["rule"] for own in runs],
            **{name: _mean([own[name] for own in at_rule]) for name in selected[0]},
        },
        "by_epoch": {name: _mean([own[name] for own in runs]) for name in CURVES},
        "runs": runs,
        "other_data": other,
        "planted": asdict(data.config),
    }


def _mean(values: list[Any]) -> dict[str, Any]:
    """Mean and its standard error over seeds: numbers or lists of them, as JSON values."""
    array = np.array(values, dtype=float)
    error = array.std(axis=0, ddof=1) / np.sqrt(len(array))
    return {"mean": array.mean(axis=0).tolist(), "standard_error": error.tolist()}


def draw_truth(found: dict[str, Any]) -> Figure:
    """Precision and recall against the epoch, and the errors that explain them."""
    truth, chosen = found["truth"], found["settings"]["separating_epoch"]
    curves = truth["by_epoch"]
    epochs = np.arange(1, len(curves["error"]["mean"]) + 1)
    figure, (left, right) = canvas(8.2, 3.4, ncols=2)
    for ax, named in (
        (left, {"precision": BLUE, "recall": ORANGE}),
        (right, {"error_slow": RED, "error_fast": GREEN, "error": GREY}),
    ):
        for name, colour in named.items():
            line(ax, epochs, curves[name], colour, CURVES[name], marker="o", ms=3)
            for own in truth["other_data"]:
                ax.plot(epochs, own[name], color=colour, lw=0.7, ls=":")
        if chosen:
            ax.axvline(chosen, color="black", lw=0.8, label="chosen epoch")
        ax.set(xlabel="epochs of the early network", ylim=(-0.03, 1.03), xticks=epochs)
    left.axhline(LEVEL, color=GREY, lw=0.8, ls="--", label=f"{LEVEL:g}")
    left.set(ylabel="against the truth", title="The slow examples found")
    knees, counts = np.unique(truth["rule"]["epochs"], return_counts=True)
    heights = np.array(curves["error"]["mean"])[knees - 1]
    right.plot(knees, heights, "v", color="black", ms=7, label="knee of error (seeds)")
    for knee, height, count in zip(knees, heights, counts, strict=True):
        right.annotate(f"{count}", (knee, height), (5, 5), textcoords="offset points", fontsize=8)
    right.set(ylabel="share wrong", title="What the early network has learned")
    if truth["other_data"]:
        right.plot([], [], color=GREY, lw=0.7, ls=":", label="other data sets")
    for ax in (left, right):
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)
    return figure
