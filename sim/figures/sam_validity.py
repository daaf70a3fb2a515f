"""Where Theorem 4.1's two claims hold with real logits, and the borders predicted for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import canvas
from sim.backends.span import FEATURES, Span
from sim.data import DataConfig
from sim.figures.base import Figure, Json, Part, band, draw, numbers
from sim.figures.maps import CELLS, heat_map, log_grid
from sim.optim import patch_weights
from sim.train import Point
from theory.sam_validity import (
    corrected_sigma_init_boundary,
    feature_sigma_boundary,
    sigma_init_boundary,
)

_RHO, _STEP = 0.05, 1e-6

# --- noise: NoiseAlign of SAM over GD ------------------------------------------------------------

_SAM = DataConfig(n_examples=200, dim=2000, sigma_noise=0.02)
_FILTERS, _SEEDS = 40, 10
_INITS = log_grid(3e-3, 0.3)
_NOISES = log_grid(0.005, 0.08)
_SIZES = sorted({round(v) for v in np.geomspace(50, 400, CELLS)})


def _noise_row(seed: int, n_examples: int, sigma_noise: float) -> Json:
    """NoiseAlign(SAM) / NoiseAlign(GD) of one step over _INITS, and where it is 1."""
    config = replace(_SAM, n_examples=n_examples, sigma_noise=sigma_noise)
    start = draw(seed, config, _FILTERS, 1.0, _SEEDS, torch.float64)
    cells = Span.of(start.data, start.W).rescaled(
        sigma_init=torch.tensor(_INITS).double().unsqueeze(-1)
    )
    point = Point(cells, cells.initial)
    # filters of one seed share its data: their mean is one sample
    ratio = (point.noise_alignment(_RHO) / point.noise_alignment()).nanmean(-1)
    return {
        "ratio": band(ratio),
        "measured": crossing(_INITS, ratio - 1),
        "at equal h and logits": crossing(_INITS, _noise_slope(cells, equal=True)),
        "at equal h": crossing(_INITS, _noise_slope(cells, equal=False)),
        "predicted": numbers(torch.tensor(sigma_init_boundary(config, _FILTERS))),
        "corrected": numbers(torch.tensor(corrected_sigma_init_boundary(config, _FILTERS))),
    }


def _noise_slope(space: Span, equal: bool) -> Tensor:
    """Slope in h of SAM's alignment, over GD's with logit terms of 1/2, (cells, seeds).

    equal: all logit terms are 1/2 at W, as (B2) has it; else they are the network's own.
    """
    h, _, slope = _ascent(space, equal)
    on = space.noise_part(h) > 0
    change = (space.noise_part(slope) * on).sum(-1)
    half = -space.gram_product(space.coefficients(h, 0.5))
    return (change / (space.noise_part(half) * on).sum(-1)).mean(-1)


def _ascent(space: Span, equal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Projections on all rows: of W, of the descent, and of its derivative in h.

    equal: all logit terms are 1/2 at W, by a shift of each output, and move from there. The ascent
    is h times the gradient, the same h in every draw.
    """
    h = space.project(space.initial)
    start = space.gram_product(space.coefficients(h, 0.5 if equal else None))
    moved = h + _STEP * start
    terms = None
    if equal:
        terms = torch.sigmoid(-space.y * (space.outputs(moved) - space.outputs(h)))
    after = space.gram_product(space.coefficients(moved, terms))
    return h, -start, (start - after) / _STEP


# --- features: slow over fast growth of SAM over GD ----------------------------------------------

# (B6) does not depend on N, d and the noise: a small world allows for many draws
_GROWTH = DataConfig(n_examples=5, dim=60, sigma_noise=0.02)
_GROWTH_SEEDS = 200
_GROWTH_INITS = log_grid(0.05, 0.8)
_COUNTS = sorted({round(v) for v in np.geomspace(4, 100, CELLS + 4)})


def _feature_row(seed: int, filters: int) -> Json:
    """(slow/fast)(SAM) / (slow/fast)(GD) of one step over _GROWTH_INITS, and where it is 1.

    Growth is a feature's expected sum over filters with a positive projection on it.
    """
    start = draw(seed, _GROWTH, _COUNTS[-1], 1.0, _GROWTH_SEEDS, torch.float64)
    cells = Span.of(start.data, start.W[:, :filters]).rescaled(
        sigma_init=torch.tensor(_GROWTH_INITS).double().unsqueeze(-1)
    )
    h, descent, slope = _ascent(cells, equal=True)
    steps = (-cells.gram_product(patch_weights(cells, h, rho)) for rho in (_RHO, 0.0))
    sam, plain, start, change = (_growth(h, along) for along in (*steps, descent, slope))
    gap = torch.tensor([-1.0, 1.0]).double()  # slow less fast
    ratio = ((sam.mean(1) / plain.mean(1)).log() @ gap).exp()
    # what each seed adds to that ratio of means, to first order
    samples = ratio.unsqueeze(-1) * (1 + _share(sam, sam) @ gap - _share(plain, plain) @ gap)
    return {
        "ratio": band(samples),
        "measured": crossing(_GROWTH_INITS, samples - 1),
        "at equal h and logits": crossing(_GROWTH_INITS, _share(change, start) @ gap),
        "predicted": numbers(torch.tensor(feature_sigma_boundary(_GROWTH, filters))),
    }


def _growth(h: Tensor, along: Tensor) -> Tensor:
    """Of both features, from projections of W and of the step, (cells, seeds, 2)."""
    return torch.where(h[..., :FEATURES] > 0, along[..., :FEATURES], 0.0).sum(-2)


def _share(growth: Tensor, of: Tensor) -> Tensor:
    """Each seed's growth over the mean over seeds of another."""
    return growth / of.mean(1, keepdim=True)


# --- the borders ---------------------------------------------------------------------------------


def crossing(x: list[float], samples: Tensor) -> Json:
    """Where the mean over seeds (last dimension) first changes sign along x: linear in log x.

    The standard error is the mean's there, over the mean's slope; None where there is no change.
    """
    mean, error = samples.mean(-1), samples.std(-1) / samples.shape[-1] ** 0.5
    change = (mean[:-1].sign() != mean[1:].sign()).nonzero().flatten()
    if not len(change):
        return {"mean": None, "standard_error": None}
    i = int(change[0])
    logs = torch.tensor(x).double().log()
    share = mean[i] / (mean[i] - mean[i + 1])
    at = (logs[i] + share * (logs[i + 1] - logs[i])).exp()
    slope = (mean[i + 1] - mean[i]).abs() / (logs[i + 1] - logs[i])
    between = error[i] + share * (error[i + 1] - error[i])
    return {"mean": numbers(at), "standard_error": numbers(at * between / slope)}


_PLANES = ("sigma_noise x sigma_init", "n_examples x sigma_init", "filters x sigma_init")


def _merge(parts: list[Json]) -> Json:
    ends = (len(_NOISES), len(_NOISES) + len(_SIZES))
    planes = (parts[: ends[0]], parts[ends[0] : ends[1]], parts[ends[1] :])
    return {
        "sigma_init": _INITS,
        "sigma_noise": _NOISES,
        "n_examples": _SIZES,
        "sigma_init for filters": _GROWTH_INITS,
        "filters": _COUNTS,
    } | {name: _plane(rows) for name, rows in zip(_PLANES, planes, strict=True)}


def _plane(rows: list[Json]) -> Json:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return columns | {
        name: {key: [cell[key] for cell in columns[name]] for key in ("mean", "standard_error")}
        for name in ("ratio", "measured", "at equal h and logits", "at equal h")
        if name in columns
    }


def _draw(data: Json) -> Canvas:
    figure, axes = canvas(12.4, 4.2, ncols=3)
    aligned, even = (0.9, 1.05), (0.9, 1.1)
    panels = (
        ("sigma_noise", "sigma_init", f"noise, N = {_SAM.n_examples}", aligned, "RdBu_r"),
        ("n_examples", "sigma_init", f"noise, sigma_noise = {_SAM.sigma_noise}", aligned, "RdBu_r"),
        ("filters", "sigma_init for filters", "features", even, "RdBu"),
    )
    images: list[Any] = []
    legend: list[Any] = []
    seen: set[Any] = set()
    for ax, plane, (name, inits, title, limits, colours) in zip(axes, _PLANES, panels, strict=True):
        x, y, found = data[name], data[inits], data[plane]
        images.append(heat_map(ax, x, y, found["ratio"], 1.0, limits, colours))
        own, given = (
            {part: np.array(found[key][part], dtype=float) for part in found[key]}
            for key in ("measured", "at equal h and logits")
        )
        both = [
            *ax.plot(x, found["corrected"], color="tab:green", lw=1.5, ls="--", label="corrected"),
            *ax.plot(
                x, np.array(found["at equal h"]["mean"], dtype=float), "x", color="tab:green", ms=4,
                mew=0.9, zorder=5, label="measured at equal h",
            ),
        ] if "corrected" in found else []  # fmt: skip
        borders = [
            *ax.plot(x, found["predicted"], color="black", lw=1.5, label="predicted, equal logits"),
            ax.errorbar(
                x, own["mean"], yerr=2 * own["standard_error"], fmt="o", ms=4, mfc="white",
                color="black", mew=0.7, elinewidth=0.7, label="measured, SAM's h, ± 2 s.e.",
            ),
            *ax.plot(x, given["mean"], "k.", ms=3, zorder=4, label="at equal h and logits"),
        ]  # fmt: skip
        legend += [line for line in (*borders, *both) if line.get_label() not in seen]
        seen |= {line.get_label() for line in (*borders, *both)}
        ax.set_ylim(y[0], y[-1])
        ax.set_xlabel(name)
        ax.set_title(title)
    axes[0].set_ylabel("sigma_init")
    axes[2].legend(handles=legend, loc="lower left", frameon=True, title="border", fontsize=7)
    figure.colorbar(
        images[0], ax=axes[:2], extend="both", pad=0.01, label="NoiseAlign(SAM) / NoiseAlign(GD)"
    )
    figure.colorbar(images[2], ax=axes[2], extend="both", label="slow/fast growth, SAM over GD")
    return figure


FIGURES = (
    Figure(
        "sam-map",
        "One step with real logits: SAM aligns less with noise than GD, and learns features more "
        "evenly, in the blue regions, whose borders are (B4)'s and (B6)'s where all draws have the "
        "same h and logits of 1/2 at W; the network's own logits move noise's border from there "
        "(corrected, (B11), right where the correction is small), and SAM's own h, small where the "
        "logits rise most, moves both up (for noise by a factor of about 1 + 16/(9J)).",
        {
            "data": _SAM,
            "filters": _FILTERS,
            "rho": _RHO,
            "seeds": _SEEDS,
            "growth_data": _GROWTH,
            "growth_seeds": _GROWTH_SEEDS,
            "cells": [CELLS, CELLS],
        },
        [Part(_noise_row, (_SAM.n_examples, sigma)) for sigma in _NOISES]
        + [Part(_noise_row, (n, _SAM.sigma_noise)) for n in _SIZES]
        + [Part(_feature_row, (count,)) for count in _COUNTS],
        _merge,
        _draw,
    ),
)
