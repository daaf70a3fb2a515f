"""How every plot looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from common.files import whole_file

BLUE, ORANGE, GREEN, RED, GREY = "#2f6fb0", "#d9822b", "#3a8f5c", "#c0392b", "#8a8f98"
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
"""matplotlib's settings for all of these; draw and save within `matplotlib.rc_context(STYLE)`."""


def canvas(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def write_figure(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a PNG file whole or not at all; the same figure gives the same bytes."""
    with whole_file(path) as part:
        # no software version in the file
        figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None})


def line(
    axes: Axes, x: Any, band: dict[str, Any], color: str, label: str | None = None, **how: Any
) -> None:
    """A mean with a ribbon of ± 2 standard errors."""
    mean = [float("nan") if v is None else v for v in band["mean"]]
    error = [float("nan") if v is None else v for v in band["standard_error"]]
    axes.plot(x, mean, color=color, label=label, lw=1.4, **how)
    low = [m - 2 * e for m, e in zip(mean, error, strict=True)]
    high = [m + 2 * e for m, e in zip(mean, error, strict=True)]
    axes.fill_between(x, low, high, color=color, alpha=0.18, lw=0)


def plain_log(axis: Axis, ticks: list[float]) -> None:
    """A logarithmic axis that is labelled in plain numbers."""
    scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    scale("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
