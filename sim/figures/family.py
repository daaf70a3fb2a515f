"""Between copies and faithful images: what is learned first, the best strength, the best k."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import BLUE, GREY, ORANGE, RED, canvas, line
from common.seeding import torch_stream
from sim.backends.span import Span
from sim.data import DataConfig, generate
from sim.figures.base import LR, Draw, Figure, Json, K, Part, band, draw, numbers
from sim.figures.training import learning_times
from sim.measure import fresh_errors
from sim.train import train
from theory.family import FamilyMember, best_k, best_strength, family_memorisation

# --- whole runs over fidelity and kept noise, and along a curve of strengths ---------------------

_WORLD = DataConfig(n_examples=60, dim=315, beta_slow=0.62)
_SEEDS, _CURVE_SEEDS = 20, 40
_FILTERS, _SIGMA_INIT, _LR, _STEPS, _TEST = 10, 0.1, 0.8, 250, 1000
_CELLS = 24
_SHARES = [float(f"{v:.4g}") for v in np.linspace(0, 1, _CELLS)]
_KS = (2, K, 10)


def _fidelity(strength: float) -> float:
    """A diffusion-like curve: at strength t the noise kept is 1 − t, and most of the feature."""
    return (1 - strength**4) ** 0.5


def _row(seed: int, kept_noise: float) -> Json:
    """Slow test errors at one kept noise over all fidelities."""
    start = draw(seed, _WORLD, _FILTERS, _SIGMA_INIT, _SEEDS)
    return band(_slow_error(start, K, kept_noise, _SHARES))


def _point(seed: int, strength: float) -> Json:
    """Slow test errors at one point of the curve, for each k."""
    start = draw(seed + 1, _WORLD, _FILTERS, _SIGMA_INIT, _CURVE_SEEDS)
    at = 1 - strength, [_fidelity(strength)]
    return band(torch.cat([_slow_error(start, k, *at) for k in _KS]))


def _slow_error(start: Draw, k: int, kept_noise: float, fidelities: list[float]) -> Tensor:
    """Slow test error after a whole run, (fidelities, seeds)."""
    end = train(_space(start, k, kept_noise, fidelities), _LR, _STEPS).end
    test = fresh_errors(end.features, end.covariance, start.config, _TEST, start.test_stream())
    return test["slow"]


def _space(start: Draw, k: int, kept_noise: float, fidelities: list[float]) -> Span:
    """The member's data at each fidelity: one set of draws, one Gram matrix."""
    # the same fresh parts at every kept noise; not copies even at τ = 1, so that they can be scaled
    half = generate(
        start.data, k, torch_stream(start.seed, 6, k), kept_noise=kept_noise, fidelity=0.5
    )
    space = Span.of(half, start.W)
    share = 2 * torch.tensor(fidelities)[:, None, None, None]
    kept = torch.where(space.is_synthetic[:, None], share, 1.0)
    return replace(space, feature=space.feature * kept)


# --- the best k ----------------------------------------------------------------------------------

_QUIET = DataConfig(n_examples=10, dim=60, alpha=0.7, beta_slow=0.83, sigma_noise=0.01)
_QUIET_SEEDS, _QUIET_FILTERS, _QUIET_INIT, _QUIET_STEPS = 20, 20, 0.05, 500
_FIDELITIES = (0.5, 0.55, 0.6, 0.64, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
_TRIED = list(range(1, 15))


def _times(seed: int, k: int) -> Json:
    """Steps until both features are learned, (fidelities, seeds)."""
    start = draw(seed, _QUIET, _QUIET_FILTERS, _QUIET_INIT, _QUIET_SEEDS)
    matched = start.W.clone()
    matched[..., 1] = matched[..., 0]
    out = {}
    for name, W in (("matched", matched), ("random", start.W)):
        space = _space(replace(start, W=W), k, 0.0, list(_FIDELITIES))
        beta = torch.tensor([_QUIET.beta_fast, _QUIET.beta_slow])
        out[name] = numbers(learning_times(space, beta, LR, _QUIET_STEPS).amax(-1))
    return out


def _best(parts: list[Json], name: str) -> Json:
    """The k of fewest steps in each seed."""
    steps = torch.tensor(
        [[[float("inf") if t is None else t for t in c] for c in part[name]] for part in parts]
    )
    return band(torch.tensor(_TRIED)[steps.argmin(0)])


# --- both ----------------------------------------------------------------------------------------


def _merge(parts: list[Json]) -> Json:
    rows, points, times = parts[:_CELLS], parts[_CELLS : 2 * _CELLS], parts[2 * _CELLS :]
    return {
        "kept_noise": _SHARES,
        "fidelity": _SHARES,
        "slow test error": {key: [row[key] for row in rows] for key in rows[0]},
        "strength": _SHARES,
        "slow test error along the curve": {
            str(k): {key: [point[key][i] for point in points] for key in points[0]}
            for i, k in enumerate(_KS)
        },
        "best k": {
            "fidelity": list(_FIDELITIES),
            **{name: _best(times, name) for name in ("matched", "random")},
        },
    }


def _draw(data: Json) -> Canvas:
    figure, (left, middle, right) = canvas(11.4, 3.7, ncols=3)
    image = _draw_map(left, data)
    figure.colorbar(image, ax=left, label="dotted: within 3 s.e. of 1/4")
    _draw_curve(middle, data)
    _draw_best(right, data["best k"])
    return figure


def _draw_map(ax: Axes, data: Json) -> Any:
    x, y = data["kept_noise"], data["fidelity"]
    found = data["slow test error"]
    mean, error = (np.array(found[key], dtype=float).T for key in ("mean", "standard_error"))
    norm = TwoSlopeNorm(0.25, 0.0, 0.5)
    image = ax.pcolormesh(x, y, mean, cmap="RdBu_r", norm=norm, shading="nearest")
    undecided = np.where(np.abs(mean - 0.25) < 3 * error, 1.0, np.nan)
    ax.contourf(x, y, undecided, levels=[0.5, 1.5], colors="none", hatches=["...."])
    fine = np.linspace(0, 1, 81)
    ratio = [[family_memorisation(_WORLD, FamilyMember(K, c, tau)) for tau in fine] for c in fine]
    ax.contour(fine, fine, ratio, levels=[1.0], colors="black", linewidths=1.6)
    ax.plot([], [], color="black", lw=1.6, label="(F8) = 1")
    ax.plot(1 - fine, [_fidelity(t) for t in fine], color="black", lw=0.9, ls=":", label="curve")
    ax.set_xlabel("kept noise τ")
    ax.set_ylabel("fidelity c")
    ax.set_title(f"slow test error, k = {K}")
    ax.legend(loc="lower right", frameon=True)
    return image


def _draw_curve(ax: Axes, data: Json) -> None:
    fine = [i / 400 for i in range(401)]
    for row, (k, color) in enumerate(zip(_KS, (ORANGE, BLUE, RED), strict=True)):
        found = data["slow test error along the curve"][str(k)]
        line(ax, data["strength"], found, color, f"k = {k}")
        curve = [FamilyMember(k, _fidelity(t), 1 - t) for t in fine]
        ratio = [family_memorisation(_WORLD, m) for m in curve]
        height = 0.58 - 0.03 * row
        first = [t for t, r in zip(fine, ratio, strict=True) if r < 1]
        if first:
            ax.plot([first[0], first[-1]], [height, height], color=color, lw=2)
        ax.plot(fine[int(np.argmin(ratio))], height, "o", ms=5, color=color)
        best = best_strength(_WORLD, curve, k)
        ax.plot(fine[best.index], height, "|", ms=9, mew=2.5, color=color)
    ax.plot([], [], color=GREY, lw=2, label="(F8) < 1")
    ax.plot([], [], "|", ms=8, mew=2.5, color=GREY, label="soonest of these, (F12)")
    ax.plot([], [], "o", ms=5, color=GREY, label="least (F8)")
    ax.set_ylim(-0.02, 0.8)
    ax.set_yticks([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    ax.set_xlabel("strength t: τ = 1 − t, c = √(1 − t⁴)")
    ax.set_title("slow test error along the curve")
    ax.legend(loc="upper left", ncols=2)


def _draw_best(ax: Axes, data: Json) -> None:
    fine = np.linspace(min(_FIDELITIES) - 0.02, 1.0, 400)
    c = _QUIET
    predicted = np.array([best_k(c.alpha, c.beta_fast, c.beta_slow, v) for v in fine])
    predicted[1:][np.diff(predicted) > 2] = np.nan  # the jump is not drawn
    ax.plot(fine, predicted, color="black", lw=1.2, label="best k, (F11)")
    for name, color, label in (
        ("matched", BLUE, "matched filters"),
        ("random", GREY, "random filters"),
    ):
        ax.errorbar(
            data["fidelity"], data[name]["mean"],
            yerr=[2 * e for e in data[name]["standard_error"]],
            fmt="o", ms=4, lw=1, capsize=2, color=color, label=label,
        )  # fmt: skip
    ax.axvline((1 - c.alpha) ** (1 / 3), color="black", lw=0.6, ls=":")
    ax.set_xlabel("fidelity c (dotted: c³ = 1 − α)")
    ax.set_title("k that learns both features soonest")
    ax.legend(loc="upper right")


FIGURES = (
    Figure(
        "family",
        "Synthetic examples between copies and faithful ones: which are learned before their "
        "noise is memorised, the best strength inside a diffusion-like curve, and the best k.",
        {
            "data": _WORLD,
            "k": list(_KS),
            "cells": [_CELLS, _CELLS],
            "filters": _FILTERS,
            "sigma_init": _SIGMA_INIT,
            "lr": _LR,
            "steps": _STEPS,
            "test_examples": _TEST,
            "seeds": _SEEDS,
            "curve_seeds": _CURVE_SEEDS,
            "best_k_data": _QUIET,
            "best_k_tried": _TRIED,
            "best_k_fidelity": list(_FIDELITIES),
            "best_k_filters": _QUIET_FILTERS,
            "best_k_sigma_init": _QUIET_INIT,
            "best_k_lr": LR,
            "best_k_steps": _QUIET_STEPS,
            "best_k_seeds": _QUIET_SEEDS,
        },
        [Part(_row, (tau,)) for tau in _SHARES]
        + [Part(_point, (t,)) for t in _SHARES]
        + [Part(_times, (k,)) for k in _TRIED],
        _merge,
        _draw,
    ),
)
