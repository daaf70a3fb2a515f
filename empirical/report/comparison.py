"""The report of a comparison on any data set: one HTML file with its plots inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, STYLE, canvas
from empirical.report.page import embedded, render

COLUMNS = 8
COLOURS = {"original": GREY, "upsample": BLUE, "tada": ORANGE, "syn-rand": GREEN, "syn-all": RED}


@dataclass(frozen=True, eq=False)
class Shown:
    """Images for the gallery, uint8 (n, C, H, W): fast ones, and slow sources with what was made of
    each. confidence: float (n,), the probability that the network without augmentation gives a
    synthetic image's own class."""

    fast: Tensor
    sources: Tensor
    synthetic: Tensor
    classes: tuple[str, ...]
    confidence: np.ndarray


def write_comparison(results: Mapping[str, Any], shown: Shown, out: Path) -> Path:
    """Write out/report.html and out/figures/*.png; returns the page, which needs no other file."""
    order = np.argsort(shown.confidence, kind="stable")
    with mpl.rc_context(STYLE):
        drawn = {
            "errors": errors(results),
            "differences": differences(results),
            "curves": curves(results),
            "fast": gallery([("fast", shown.fast)]),
            "best": of_synthetic(shown, order[::-1][:COLUMNS]),
            "worst": of_synthetic(shown, order[:COLUMNS]),
        }
        figures = embedded(drawn, out / "figures")
    page = render("comparison.html", figures=figures, faithfulness=faithfulness(results), r=results)
    return page(out / "report.html")


def errors(results: Mapping[str, Any]) -> Figure:
    """Test error of each arm, at each budget, with one standard error over seeds."""
    budgets = results["plan"]["budgets"]
    n = len(budgets)
    figure, axes = canvas(3.6 * n + 0.6, 2.8, ncols=n, sharey=True, squeeze=False)
    for ax, budget in zip(axes[0], budgets, strict=True):
        rows = [row for row in results["table"] if row["budget"] in (budget, "both")]
        for x, row in enumerate(rows):
            spread = 100 * (row["test_error_standard_error"] or 0.0)
            colour = COLOURS[row["arm"]]
            ax.errorbar(x, 100 * row["test_error"], yerr=spread, fmt="o", color=colour, capsize=3)
        ax.set_xticks(range(len(rows)), [row["arm"] for row in rows])
        ax.set(xlim=(-0.5, len(rows) - 0.5), title=f"equal {budget}")
    axes[0, 0].set_ylabel("test error (%)")
    return figure


def differences(results: Mapping[str, Any]) -> Figure:
    """TADA's error minus each other arm's, with 95% intervals over test images and seeds."""
    rows = results["differences"]
    figure, ax = canvas(6.4, 0.9 + 0.42 * len(rows))
    for height, row in enumerate(reversed(rows)):
        colour = GREEN if row["high"] < 0 else RED if row["low"] > 0 else GREY
        ax.plot([100 * row["low"], 100 * row["high"]], [height] * 2, color=colour, lw=2)
        ax.plot(100 * row["mean"], height, "o", color=colour)
    labels = [f"TADA − {row['other']}, equal {row['budget']}" for row in reversed(rows)]
    ax.set_yticks(range(len(rows)), labels)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("test error, points (left of 0: TADA is better); 95% interval")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    return figure


def curves(results: Mapping[str, Any]) -> Figure:
    """Training error by epoch, first seed."""
    figure, ax = canvas(6.4, 2.8)
    for name, history in results["history"].items():
        arm, _, budget = name.rpartition("-")
        style = "-" if budget == "epochs" else "--"
        label = arm if arm == "original" else f"{arm}, equal {budget}"
        x = np.arange(1, len(history) + 1)
        ax.plot(x, 100 * np.array(history), style, color=COLOURS[arm], lw=1.2, label=label)
    ax.set(xlabel="epoch", ylabel="training error (%)", ylim=(0, None))
    ax.legend(ncols=2)
    return figure


def of_synthetic(shown: Shown, rows: np.ndarray) -> Figure:
    """Some sources over what was made of them, with the confidence in their class."""
    index = rows.copy()
    titles = [f"{shown.classes[row]}\n{shown.confidence[row]:.2f}" for row in index]
    stacked = [("slow", shown.sources[index]), ("synthetic", shown.synthetic[index])]
    return gallery(stacked, titles)


def gallery(rows: list[tuple[str, Tensor]], titles: Sequence[str] = ()) -> Figure:
    """Images as rows of at most COLUMNS, a title over each of the first."""
    if len(rows) == 1:  # more than fit into one row
        name, pixels = rows[0]
        pieces = list(pixels.split(COLUMNS))
        rows = [(name if number == 0 else "", piece) for number, piece in enumerate(pieces)]
    n = max((len(pixels) for _, pixels in rows), default=1)
    figure, axes = canvas(
        0.9 * n + 0.9, 0.95 * len(rows) + 0.45, nrows=len(rows), ncols=n, squeeze=False
    )
    for (name, pixels), row in zip(rows, axes, strict=True):
        for ax in row:
            ax.set_axis_off()
        for ax, image in zip(row, pixels, strict=False):
            array = image.permute(1, 2, 0).numpy()
            ax.imshow(
                array[..., 0] if array.shape[-1] == 1 else array, cmap="gray", vmin=0, vmax=255
            )
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=7)
    return figure


def faithfulness(results: Mapping[str, Any]) -> list[str]:
    """Fidelity, kept noise, amplitude and labels in words."""
    overall = results["diagnosis"]
    if overall is None:
        return ["There are too few images to say how faithful the synthetic ones are."]
    said = []
    for name, text in (
        ("fidelity", "of the feature that tells the classes apart is kept (fidelity c)"),
        ("kept_noise", "of the original's own noise is kept (τ): 100% are copies, 0% fresh noise"),
        (
            "amplitude",
            "of the original's amount of noise (amplitude a): far more is static, far less smooth",
        ),
        ("relative_consistency", "as many are recognised as their class as of the real images"),
    ):
        estimate = overall[name]
        if estimate is None:
            said.append(f"not known: the share {text}")
            continue
        error = estimate["standard_error"]
        spread = "" if error is None else f" ± {100 * error:.0f}"
        said.append(f"{100 * estimate['value']:.0f}{spread}% {text}")
    return said
