"""A diagnosis as a picture: every number against strength, and where amplification helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, STYLE, canvas
from empirical.generation.ideal import Curve

_TERMS = (
    ("fidelity", "fidelity c", BLUE),
    ("kept_noise", "kept noise τ", ORANGE),
    ("amplitude", "amplitude a", GREEN),
)
_ANSWERS = (
    ("consistency", "predicted class is the label", BLUE),
    ("agreement", "same prediction as the source", ORANGE),
    ("feature_agreement", "features' correlation with the source's", GREEN),
)


def draw(found: Mapping[str, Any], truth: Curve | None = None) -> Figure:
    """Four panels of what `diagnose_store` returns. truth: drawn as lines where it is known."""
    records = found["strengths"]
    with matplotlib.rc_context(STYLE):
        figure, ((terms, plane), (answers, far)) = canvas(9, 6.6, nrows=2, ncols=2)
        _terms(terms, records, truth)
        _plane(plane, records, truth)
        _answers(answers, records)
        _distances(far, records)
        for axes in (terms, answers, far):
            axes.set(xlabel="strength", xlim=(0, 1.04))
        judge = found["judge"]
        figure.suptitle(
            f"{found['dataset']}, generator {found['backend']}, "
            f"{found['overall']['sources']} sources, {found['overall']['copies']} copies, "
            f"judge {judge['network']} "
            f"(error {100 * judge['error']:.0f}%); bars: ± 2 standard errors",
            fontsize=9,
        )
    return figure


def _terms(axes: Axes, records: Sequence[Mapping[str, Any]], truth: Curve | None) -> None:
    for name, label, color in _TERMS:
        _points(axes, records, name, label, color, joined=truth is None)
    _points(axes, records, "kept_layout", "kept noise, not whitened", RED, "x")
    if truth is not None:
        t = np.linspace(0.005, 1, 200)
        both = np.array([truth.at(float(strength)) for strength in t])
        for column, color in ((0, BLUE), (1, ORANGE)):
            axes.plot(t, both[:, column], color=color, lw=1, zorder=0)
        axes.axhline(1, color=GREEN, lw=1, zorder=0)
        axes.plot([], [], color=GREY, lw=1, label="truth")
    axes.set(title="the theory's terms", ylim=(-0.08, None))
    axes.legend(ncols=2, loc="lower left")


def _plane(axes: Axes, records: Sequence[Mapping[str, Any]], truth: Curve | None) -> None:
    """c against a τ: enough copies let the feature gain on its noise above the diagonal, (F9)."""
    axes.fill_between([0, 1.1], [0, 1.1], 1.15, color=BLUE, alpha=0.08, lw=0)
    axes.plot([0, 1.1], [0, 1.1], color=GREY, lw=1, ls="--")
    axes.text(0.04, 1.08, "amplification helps: aτ < c", color=BLUE, fontsize=8, va="center")
    if truth is not None:
        both = np.array([truth.at(float(strength)) for strength in np.linspace(0.005, 1, 200)])
        axes.plot(both[:, 1], both[:, 0], color=GREY, lw=1, zorder=0)
    whole = [own for own in records if own["fidelity"] and own["kept_noise"] and own["amplitude"]]
    for own in whole:
        a, tau, c = (own[name]["value"] for name in ("amplitude", "kept_noise", "fidelity"))
        axes.errorbar(
            a * tau, c, _two(own["fidelity"]), a * _two(own["kept_noise"]), "o", color=BLUE, ms=4
        )
        axes.annotate(
            f"{own['strength']:g}", (a * tau, c), (5, -9), textcoords="offset points", fontsize=8
        )
    axes.set(title="by strength, in the theory's plane", xlabel="aτ", ylabel="c")
    axes.set(xlim=(-0.05, 1.1), ylim=(-0.08, 1.15))


def _answers(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for name, label, color in _ANSWERS:
        _points(axes, records, name, label, color, joined=True)
    t = [own["strength"] for own in records]
    own = [record["source_consistency"]["value"] for record in records]
    axes.plot(t, own, color=BLUE, lw=1, ls=":", label="sources: predicted class is the label")
    if _points(axes, records, "diversity", "diversity among copies", RED):
        pairs = [r for r in records if r["kept_noise"]]
        axes.plot(
            [r["strength"] for r in pairs],
            [1 - r["kept_noise"]["value"] ** 2 for r in pairs],
            color=RED,
            lw=1,
            ls=":",
            label="1 − τ²: diversity in the family",
        )
    axes.set(title="labels and diversity", ylim=(-0.08, 2.0), yticks=np.arange(0, 1.01, 0.25))
    axes.legend(loc="upper left")


def _distances(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    axes.set(title="distance from other real images")
    spaces = sorted({space for own in records for space in own["distances"]})
    if not spaces:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=GREY)
        return
    for space, color in zip(spaces, (GREEN, BLUE), strict=False):
        flat = [
            {"strength": own["strength"], **own["distances"][space]}
            for own in records
            if space in own["distances"]
        ]
        features = "the judge's" if space == "judge" else "Inception's"
        _points(axes, flat, "fid", f"FID, {features} features", color, joined=True)
        t, real = [own["strength"] for own in flat], [own["fid_real"]["value"] for own in flat]
        axes.plot(t, real, color=color, lw=1, ls=":", label="real images")
    axes.set(ylim=(0, None), ylabel="FID")
    axes.legend(loc="upper left")


def _points(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    color: str,
    marker: str = "o",
    joined: bool = False,
) -> bool:
    """A number with ± 2 standard errors; False where no record has it. joined: by a thin line."""
    there = [own for own in records if own[name] is not None]
    if not there:
        return False
    t, y = [own["strength"] for own in there], [own[name]["value"] for own in there]
    axes.errorbar(
        t,
        y,
        [_two(own[name]) for own in there],
        color=color,
        fmt=f"{marker}-" if joined else marker,
        label=label,
        lw=0.8,
        elinewidth=1.2,
        ms=4,
    )
    return True


def _two(estimate: Mapping[str, Any]) -> float:
    return 2 * (estimate["standard_error"] or 0.0)
