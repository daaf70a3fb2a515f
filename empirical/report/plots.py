"""The report's plots, from results as JSON holds them. Each function returns a figure."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, canvas
from empirical.config.arms import ARMS
from empirical.report.gallery import Gallery

VERDICT_COLOURS = {"agrees": GREEN, "disagrees": RED, "undecided at this scale": GREY}


def test_errors(compared: dict[str, Any]) -> Figure:
    """Mean test error of each arm, for each optimizer and budget, pool generator."""
    rows = [r for r in compared["summary"] if r["generator"] == "pool"]
    conditions = list(dict.fromkeys((r["optimizer"], r["budget"]) for r in rows))
    figure, axes = canvas(
        8.2, 2.9, ncols=len(conditions), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.05}
    )
    for ax, (optimizer, budget) in zip(axes[0], conditions, strict=True):
        mine = {r["arm"]: r for r in rows if (r["optimizer"], r["budget"]) == (optimizer, budget)}
        for x, arm in enumerate(ARMS):
            error = mine[arm]["test_error_standard_error"] or 0.0
            ax.errorbar(
                x,
                100 * mine[arm]["test_error"],
                yerr=100 * error,
                fmt="o",
                color=ORANGE if arm == "tada" else BLUE,
                capsize=3,
            )
        ax.axhline(100 * mine["original"]["test_error"], color=GREY, lw=0.6, ls=":")
        ax.set_xticks(range(len(ARMS)), ARMS, rotation=40, ha="right")
        ax.set_xlim(-0.5, len(ARMS) - 0.5)
        ax.set_title(f"{optimizer.upper()}, equal {budget}")
    axes[0, 0].set_ylabel("test error (%), ± s.e. over splits")
    return figure


def orderings(compared: dict[str, Any]) -> Figure:
    """The paper's orderings: paired differences with 95% intervals, coloured by verdict."""
    rows = compared["orderings"]
    conditions = list(dict.fromkeys((r["generator"], r["optimizer"], r["budget"]) for r in rows))
    figure, axes = canvas(8.2, 0.9 + 0.78 * len(conditions))
    height, ticks, labels = 0.0, [], []
    for condition in conditions:
        generator, optimizer, budget = condition
        title = f"{optimizer.upper()}, equal {budget}"
        title += "" if generator == "pool" else "; control: generator saw the training set only"
        axes.text(0.01, height + 0.1, title, fontsize=8, transform=axes.get_yaxis_transform())
        for row in rows:
            if (row["generator"], row["optimizer"], row["budget"]) != condition:
                continue
            height -= 1
            low, high = (
                row[k] if row[k] is not None else row["difference"] for k in ("low", "high")
            )
            axes.plot(
                [100 * low, 100 * high], [height] * 2, color=VERDICT_COLOURS[row["verdict"]], lw=2
            )
            axes.plot(100 * row["difference"], height, "o", color=VERDICT_COLOURS[row["verdict"]])
            ticks.append(height)
            labels.append(row["ordering"])
        height -= 1.4
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(height + 0.9, 0.9)
    axes.set_xlabel(
        "difference of test errors (points), 95% interval; left of 0 agrees with the paper"
    )
    for verdict, colour in VERDICT_COLOURS.items():
        axes.plot([], [], "o-", color=colour, label=verdict)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def images(gallery: Gallery) -> Figure:
    """Fast, slow and synthetic images, a column for each class."""
    rows = (
        ("fast", gallery.fast),
        ("slow", gallery.slow),
        ("synthetic,\nfrom the slow", gallery.synthetic),
    )
    columns = len(gallery.classes)
    figure, axes = canvas(0.75 * columns + 1.0, 2.7, nrows=3, ncols=columns, squeeze=False)
    for (name, pixels), row in zip(rows, axes, strict=True):
        for ax, image in zip(row, pixels, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], gallery.classes, strict=True):
        ax.set_title(name, fontsize=9)
    return figure
