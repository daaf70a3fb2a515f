"""Theorem 4.3 along training: the variance of a mini-batch gradient on U(k) and G(k)."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import BLUE, GREY, RED, canvas, line
from common.seeding import torch_stream
from sim.arms import ARMS, augmented
from sim.data import FAST, SLOW, DataConfig, batch_index, sample
from sim.figures.base import SEEDS, Figure, Json, K, Part, band, draw, spaced, together
from sim.measure import total_variance
from sim.network import gradient
from sim.train import Point, prepare, train
from theory.gradient_variance import Filters, gradient_variance

_CONFIG = DataConfig(n_examples=40, dim=40, beta_slow=0.5, sigma_noise=0.25)
_FILTERS, _SIGMA_INIT, _LR, _STEPS, _BATCH = 10, 0.1, 0.1, 200, 24
_LOGIT, _DRAWS, _MOMENTS = 0.5, 500, 9
_ARMS = {"original": "original", "upsample": "upsampled", "tada": "generated"}
"""Arms, and what theory calls their variances."""


def _variance(seed: int, arm: str) -> Json:
    """Filters trained on the arm; their gradient's variance on fresh data and on their own."""
    start = draw(seed, _CONFIG, _FILTERS, _SIGMA_INIT, dtype=torch.float64)

    def record(point: Point) -> dict[str, Tensor]:
        return {"W": point.W, "own": point.batch_variance(_BATCH, _LOGIT), "loss": point.loss()}

    at = spaced(_STEPS, _MOMENTS)
    run = train(prepare(start.W, start.arm(arm)), _LR, _STEPS, record=record, record_at=at)
    W = run.history["W"]
    predicted = torch.tensor([[_predicted(w, _ARMS[arm]) for w in moment] for moment in W])
    fresh = torch.tensor(
        [
            [
                _fresh(w, arm, torch_stream(seed, 6, ARMS.index(arm), t, s))
                for s, w in enumerate(moment)
            ]
            for t, moment in zip(at, W, strict=True)
        ]
    )
    return {
        arm: {
            "steps": at,
            "predicted": band(predicted),
            "fresh": band(fresh),
            "fresh_over_predicted": band(fresh / predicted),
            "own": band(run.history["own"]),
            "loss": band(run.history["loss"]),
        }
    }


def _predicted(W: Tensor, name: str) -> float:
    """Theorem 4.3 for these filters (J, d)."""
    filters = Filters(
        float(W[:, 2:].square().sum(-1).square().sum()),
        float(W[:, FAST].pow(4).sum()),
        float(W[:, SLOW].pow(4).sum()),
    )
    c = _CONFIG
    return gradient_variance(
        c.n_examples, c.dim, filters, c.alpha, c.beta_fast, c.beta_slow,
        c.sigma_noise, c.sigma_noise, K, _BATCH, _LOGIT,
    )[name]  # fmt: skip


def _fresh(W: Tensor, arm: str, generator: torch.Generator) -> float:
    """The same, from gradients on mini-batches of data sets that the filters have not seen."""
    data = augmented(arm, sample(_CONFIG, generator, (_DRAWS,)), K, generator)
    batch = data.take(batch_index(data.n, _BATCH, generator, batch=(_DRAWS,)))
    return total_variance(gradient(W, batch, _LOGIT)).mean


def _draw_variance(data: Json) -> Canvas:
    figure, axes = canvas(9.6, 3.1, ncols=3)
    for ax, (arm, title, color) in zip(
        axes, (("upsample", f"U({K})", RED), ("tada", f"G({K})", BLUE)), strict=False
    ):
        curves = data[arm]
        fresh, steps = curves["fresh"], curves["steps"]
        ax.plot(steps, curves["predicted"]["mean"], "k-", lw=1, label="predicted, Theorem 4.3")
        ax.errorbar(
            steps, fresh["mean"], yerr=[2 * e for e in fresh["standard_error"]],
            fmt="o", ms=4, color=color, capsize=2, label="measured on fresh data",
        )  # fmt: skip
        line(ax, steps, curves["own"], GREY, "measured on the training set itself", linestyle="--")
        ax.set_title(f"trained on {title}, measured on {title}")
        ax.set_yscale("log")
        ax.set_xlabel("step of GD")
        ax.legend()
    axes[0].set_ylabel(f"gradient variance, B = {_BATCH}, l = {_LOGIT}")
    axes[1].sharey(axes[0])
    for arm, color in (("original", GREY), ("upsample", RED), ("tada", BLUE)):
        ratio = data[arm]["fresh_over_predicted"]
        axes[2].errorbar(
            data[arm]["steps"], ratio["mean"], yerr=[2 * e for e in ratio["standard_error"]],
            fmt="o-", ms=3, lw=1, color=color, capsize=2,
            label={"original": "Original", "upsample": f"U({K})", "tada": f"G({K})"}[arm],
        )  # fmt: skip
    axes[2].axhline(1, color="black", lw=0.6)
    axes[2].set_title("measured on fresh data / predicted")
    axes[2].set_xlabel("step of GD")
    axes[2].legend()
    return figure


FIGURES = (
    Figure(
        "gradient-variance",
        "Theorem 4.3 at the filters met along training: exact on fresh data at every step; on the "
        "training set itself it stops holding, because the filters depend on that noise.",
        {
            "data": _CONFIG,
            "k": K,
            "filters": _FILTERS,
            "sigma_init": _SIGMA_INIT,
            "lr": _LR,
            "steps": _STEPS,
            "batch_size": _BATCH,
            "logit": _LOGIT,
            "draws": _DRAWS,
            "seeds": SEEDS,
        },
        [Part(_variance, (arm,)) for arm in _ARMS],
        together,
        _draw_variance,
    ),
)
