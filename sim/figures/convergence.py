"""Corollary 4.4 on reused data: what SGD does to the training loss, and to the population's."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import BLUE, GREY, RED, canvas, line, plain_log
from common.seeding import torch_stream
from sim.arms import ARMS
from sim.data import DataConfig
from sim.figures.base import (
    ARM_LABELS,
    FILTERS,
    SEEDS,
    SIGMA_INIT,
    TEST_EXAMPLES,
    WORLD,
    Figure,
    Json,
    K,
    Part,
    band,
    draw,
    numbers,
    spaced,
    together,
)
from sim.measure import fresh_errors
from sim.population import curvature, population
from sim.train import Point, prepare, train
from theory.convergence import reused_data_bound

_POINTS, _DRAWS = 41, 200
_NOISY = DataConfig(n_examples=20, dim=30, beta_slow=0.7, sigma_noise=0.25)
_WORLDS: dict[str, dict[str, Any]] = {
    # a name, its data, and a target for the mean of |grad|² that some arm reaches
    "few dimensions": {
        "data": _NOISY,
        "filters": 10,
        "sigma_init": 0.2,
        "batch_size": 18,
        "lr": 0.1,
        "steps": 600,
        "target": 0.035,
    },
    "many dimensions": {
        "data": WORLD,
        "filters": FILTERS,
        "sigma_init": SIGMA_INIT,
        "batch_size": 20,
        "lr": 0.2,
        "steps": 1500,
        "target": 0.01,
    },
}
_COLOURS = {"original": GREY, "upsample": RED, "tada": BLUE}


def _run(seed: int, world: str, arm: str) -> Json:
    """SGD on the arm's data sets, used again and again; the population at `_POINTS` steps."""
    how = _WORLDS[world]
    config: DataConfig = how["data"]
    start = draw(seed, config, how["filters"], how["sigma_init"], SEEDS, torch.float64)
    data = start.arm(arm)
    share = float(data.is_fast.double().mean())
    vector = torch.randn(start.W.shape, generator=torch_stream(seed, 10), dtype=start.W.dtype)

    def expected(W: Tensor) -> tuple[Tensor, Tensor]:
        return population(W, config, torch_stream(seed, 11), share, _DRAWS)

    def record(point: Point) -> dict[str, Tensor]:
        nonlocal vector
        W, space = point.W, point.space
        loss, slope = expected(W)
        # filters are affine in the state: this is the gradient of the data in use, (..., J, d)
        weights = space.coefficients(space.project(point.state))
        own = space.filters(space.pull(weights)) - space.filters(torch.zeros_like(point.state))
        # the vector of the last time is almost right: a few iterations do
        most, vector = curvature(lambda V: expected(V)[1], W, vector, 2 if point.t else 15)
        errors = fresh_errors(
            point.features, point.covariance, config, TEST_EXAMPLES, start.test_stream()
        )
        return {
            "loss": point.loss(),
            "population": loss,
            "square": slope.square().sum((-1, -2)),
            "bias": (own - slope).square().sum((-1, -2)),
            "variance": point.batch_variance(how["batch_size"]),
            "smoothness": most,
            "test slow": errors["slow"],
        }

    run = train(
        prepare(start.W, data, batch_size=how["batch_size"]),
        how["lr"],
        how["steps"],
        batch_size=how["batch_size"],
        generator=torch_stream(seed, 5, ARMS.index(arm)),
        record=record,
        record_at=spaced(how["steps"], _POINTS),
    )
    history = run.history
    so_far = {f"mean {name}": _so_far(history[name]) for name in ("square", "bias", "variance")}
    smoothness = float(history["smoothness"].max())
    bound = _bound(run.steps, history["population"], so_far, smoothness, how["lr"])
    mean = so_far["mean square"].mean(1)
    curves = {name: band(value) for name, value in (history | so_far).items()}
    return {
        f"{world}: {arm}": curves
        | {"steps": run.steps, "largest smoothness": smoothness, "bound": bound}
        | {"measured steps": _reached(run.steps, numbers(mean), how["target"])}
        | {"predicted steps": _reached(run.steps, bound, how["target"])}
    }


def _so_far(values: Tensor) -> Tensor:
    """Mean over the recorded steps so far, (points, seeds)."""
    count = torch.arange(1, len(values) + 1, dtype=values.dtype)
    return values.cumsum(0) / count.unsqueeze(-1)


def _bound(
    steps: list[int], loss: Tensor, so_far: dict[str, Tensor], smoothness: float, lr: float
) -> list[float | None]:
    """(C5) after each number of steps, from what was measured until then; none at the start."""
    mean = {name: value.mean(1) for name, value in so_far.items()}
    first = float(loss[0].mean())
    bounds = [
        reused_data_bound(
            first,
            float(loss[i].mean()),
            lr,
            smoothness,
            float(mean["mean bias"][i]),
            float(mean["mean variance"][i]),
            steps[i],
        )
        for i in range(1, len(steps))
    ]
    return [None, *numbers(torch.tensor(bounds))]


def _reached(steps: list[int], curve: list[float | None], target: float) -> float | None:
    """The step from which on the curve is below the target, interpolated; None if it is not."""
    above = [i for i, value in enumerate(curve) if value is None or value > target]
    last = max(above, default=0)
    if last + 1 >= len(steps):
        return None
    high, low = curve[last], curve[last + 1]
    part = 1.0 if high is None or low is None else (high - target) / (high - low)
    return round(steps[last] + part * (steps[last + 1] - steps[last]), 1)


_TICKS = [m * 10.0**e for e in range(-4, 0) for m in (1, 2, 5)]
_PANELS = {
    "loss": "training loss",
    "population": "expected loss of fresh examples",
    "mean square": "its squared gradient, mean so far",
    "test slow": "test error, slow",
}


def _draw(data: Json) -> Canvas:
    figure, axes = canvas(11.2, 5.6, nrows=2, ncols=4)
    for row, (world, how) in zip(axes, _WORLDS.items(), strict=True):
        row[0].set_ylabel(world)
        for ax, (key, title) in zip(row, _PANELS.items(), strict=True):
            for arm, color in _COLOURS.items():
                curves = data[f"{world}: {arm}"]
                label = ARM_LABELS[arm].replace("(k)", f"({K})")
                line(ax, curves["steps"], curves[key], color, label)
                if key == "mean square":
                    bound = [float("nan") if v is None else v for v in curves["bound"]]
                    ax.plot(curves["steps"], bound, color=color, ls="--", lw=1)
                    _mark(ax, curves, how["target"], color)
            ax.set_title(title)
            ax.set_ylim(bottom=0)
        row[2].axhline(how["target"], color="black", lw=0.6)
        row[2].set_ylim(how["target"] / 12, 4 * how["target"])
        plain_log(row[2].yaxis, _TICKS)
        row[3].set_ylim(0, 0.56)
    axes[0, 0].legend()
    signs = [
        axes[0, 2].plot([], [], "k--", lw=1, label="bound, eq. (C5)")[0],
        axes[0, 2].plot([], [], "ko", ms=4, label="target reached")[0],
        axes[0, 2].plot([], [], "o", ms=4, mfc="white", mec="black", label="by the bound")[0],
    ]
    axes[0, 2].legend(handles=signs, loc="lower right")
    for ax in axes[1]:
        ax.set_xlabel("SGD step")
    return figure


def _mark(ax: Any, curves: Json, target: float, color: str) -> None:
    """Where the target is reached, measured (full) and by the bound (hollow)."""
    for key, face in (("measured steps", color), ("predicted steps", "white")):
        if curves[key] is not None:
            ax.plot(curves[key], target, "o", ms=4, mfc=face, mec=color, zorder=5)


FIGURES = (
    Figure(
        "convergence",
        "SGD on one data set of each arm, used again and again (Corollary 4.4, (C5)). U(5)'s "
        "training loss falls first: it memorises. The expected loss of fresh examples (with the "
        "arm's own share of fast ones, the same in U(5) and G(5)) falls "
        "furthest on G(5). In few dimensions (above) so does its gradient, while U(5)'s is "
        "held up by the bias of its data. In many (below) U(5)'s gradient becomes small "
        "though the slow feature is not learned: it rests at a saddle.",
        {"k": K, "seeds": SEEDS, "test_examples": TEST_EXAMPLES, "population_draws": _DRAWS}
        | {f"{world}: {name}": v for world, how in _WORLDS.items() for name, v in how.items()},
        [Part(_run, (world, arm)) for world in reversed(_WORLDS) for arm in reversed(_COLOURS)],
        together,
        _draw,
    ),
)
