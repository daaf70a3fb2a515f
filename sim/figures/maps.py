"""Where "generation beats upsampling" holds, cell by cell.

The cells of a map share their draws (`Span.rescaled`), so that borders are smooth and one Gram
matrix serves all cells of a size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import canvas, plain_log
from sim.backends.span import Span
from sim.data import DataConfig
from sim.figures.base import LR, SIGMA_INIT, WORLD, Figure, Json, K, Part, band, draw
from sim.measure import fresh_errors
from sim.train import Point, train
from theory.amplification import memorisation_ratio, sigma_tolerance

SEEDS = 10
CELLS = 32


def log_grid(low: float, high: float, count: int = CELLS) -> list[float]:
    return [float(f"{v:.4g}") for v in np.geomspace(low, high, count)]


def stacked(parts: list[Json]) -> Json:
    return {key: [row for part in parts for row in part[key]] for key in parts[0]}


def heat_map(
    ax: Axes,
    x: list[float],
    y: list[float],
    measured: Json,
    level: float,
    limits: Any,
    colours: str = "RdBu_r",
) -> Any:
    """Mean over seeds in colour, white at `level`; dotted within 3 standard errors of it."""
    mean, error = (np.array(measured[key], dtype=float) for key in ("mean", "standard_error"))
    image = ax.pcolormesh(
        x, y, mean.T, cmap=colours, norm=TwoSlopeNorm(level, *limits), shading="nearest"
    )
    undecided = np.where(np.abs(mean - level) < 3 * error, 1.0, np.nan)
    ax.contourf(x, y, undecided.T, levels=[0.5, 1.5], colors="none", hatches=["...."])
    plain_log(ax.xaxis, _TICKS)
    plain_log(ax.yaxis, _TICKS)
    return image


_TICKS = [m * 10**e for e in range(-3, 4) for m in (1, 2, 3, 5, 7)]


# --- generation beats upsampling -----------------------------------------------------------------

_MAP_FILTERS, _MAP_STEPS, _MAP_TEST = 10, 500, 1000
_STEP_FILTERS = 8
_MAP_NOISES = log_grid(0.04, 0.25)
_MAP_BETAS = log_grid(0.25, 0.9)
_TOLERANCE = DataConfig(n_examples=100, dim=2000, sigma_noise=0.1)
_FACTORS = list(range(2, 32))
_AMPLITUDES = log_grid(0.7, 4.0)


def _whole_run(seed: int, sigma: float) -> Json:
    """Slow test errors of U(5) and G(5) at one sigma_noise over _MAP_BETAS."""
    start = draw(seed, WORLD, _MAP_FILTERS, seeds=SEEDS)
    betas = torch.tensor(_MAP_BETAS).unsqueeze(-1)
    error: dict[str, Tensor] = {}
    for arm in ("upsample", "tada"):
        noise = sigma / WORLD.sigma_noise
        cells = Span.of(start.arm(arm), start.W).rescaled(
            sigma_noise=noise, sigma_synthetic=noise, beta_slow=betas / WORLD.beta_slow
        )
        end = train(cells, LR, _MAP_STEPS).end
        test = fresh_errors(
            end.features, end.covariance, WORLD, _MAP_TEST, start.test_stream(),
            beta_slow=betas, sigma_noise=sigma,
        )  # fmt: skip
        error[arm] = test["slow"]
    return {
        "U": band(error["upsample"]),
        "G": band(error["tada"]),
        "G - U": band(error["tada"] - error["upsample"]),
    }


def _one_step(seed: int, k: int) -> Json:
    """NoiseAlign(G(k)) / NoiseAlign(U(k)) at the start over _AMPLITUDES, logits 1/2."""
    start = draw(seed, _TOLERANCE, _STEP_FILTERS, SIGMA_INIT, SEEDS, torch.float64)
    up = Span.of(start.arm("upsample", k), start.W)
    made = Span.of(start.arm("tada", k), start.W).rescaled(
        sigma_synthetic=torch.tensor(_AMPLITUDES).double().unsqueeze(-1)
    )
    aligned = [Point(s, s.initial).noise_alignment(0.0, 0.5).mean(-1) for s in (made, up)]
    return band((aligned[0] / aligned[1]).unsqueeze(0))


def _merge_generation(parts: list[Json]) -> Json:
    runs, steps = parts[: len(_MAP_NOISES)], parts[len(_MAP_NOISES) :]
    whole = {arm: {key: [run[arm][key] for run in runs] for key in runs[0][arm]} for arm in runs[0]}
    return {
        "sigma_noise": _MAP_NOISES,
        "beta_slow": _MAP_BETAS,
        "slow test error": whole,
        "k": _FACTORS,
        "sigma_synthetic / sigma_noise": _AMPLITUDES,
        "NoiseAlign(G) / NoiseAlign(U)": stacked(steps),
    }


def _draw_generation(data: Json) -> Canvas:
    figure, (left, right) = canvas(9.6, 3.8, ncols=2)
    x, y = data["sigma_noise"], data["beta_slow"]
    image = heat_map(left, x, y, data["slow test error"]["G - U"], 0.0, (-0.5, 0.5))
    c = WORLD
    for level, name in ((1, f"U({K})"), (K, f"G({K})")):
        # the beta_slow at which the ratio is `level`
        ratio = [memorisation_ratio(s, c.dim, c.alpha, c.n_examples, 1.0) for s in x]
        border = [(r / level) ** (1 / 3) for r in ratio]
        style = "--" if level == 1 else "-."
        left.plot(x, border, color="black", ls=style, lw=1.4, label=f"balance of {name}, eq. (33)")
    left.set_ylim(y[0], y[-1])
    left.set_xlabel("sigma_noise")
    left.set_ylabel("beta_slow")
    left.set_title(f"whole run: slow test error, G({K}) − U({K})")
    left.legend(loc="lower right", frameon=True)
    figure.colorbar(image, ax=left, label="dotted: within 3 s.e. of 0")
    measured = data["NoiseAlign(G) / NoiseAlign(U)"]
    image = heat_map(right, data["k"], data["sigma_synthetic / sigma_noise"], measured, 1.0, (0, 3))
    right.plot(
        data["k"], [sigma_tolerance(k) for k in data["k"]], "k--", lw=1.4, label="(k + 1)$^{1/4}$"
    )
    right.set_xlabel("k")
    right.set_ylabel("sigma_synthetic / sigma_noise")
    right.set_title("one step: NoiseAlign(G(k)) / NoiseAlign(U(k))")
    right.legend(loc="upper left", frameon=True)
    figure.colorbar(image, ax=right, extend="max")
    return figure


FIGURES = (
    Figure(
        "generation-map",
        "Where G(5) beats U(5): after a whole run (blue), between the two predicted balances of "
        "noise and slow feature; and in one step's noise alignment, up to the tolerance k + 1.",
        {
            "data": WORLD,
            "k": K,
            "filters": _MAP_FILTERS,
            "sigma_init": SIGMA_INIT,
            "lr": LR,
            "steps": _MAP_STEPS,
            "test_examples": _MAP_TEST,
            "seeds": SEEDS,
            "one_step_data": _TOLERANCE,
            "one_step_filters": _STEP_FILTERS,
        },
        [Part(_whole_run, (sigma,)) for sigma in _MAP_NOISES]
        + [Part(_one_step, (k,)) for k in _FACTORS],
        _merge_generation,
        _draw_generation,
    ),
)
