"""Whole runs in the paper's setting: alignments, learning times, the five arms."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, canvas, line, plain_log
from sim.arms import ARMS
from sim.backends.span import Span
from sim.data import DataConfig
from sim.figures.base import (
    ARM_LABELS,
    FILTERS,
    LR,
    SEEDS,
    SIGMA_INIT,
    STEPS,
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
from sim.train import Point, prepare, train
from theory.amplification import learning_time

RHO = 0.1
OPTIMIZERS = {"GD": 0.0, "SAM": RHO}
ARM_COLOURS = {
    "original": GREY,
    "upsample": RED,
    "tada": BLUE,
    "syn-rand": ORANGE,
    "syn-all": GREEN,
}
SETTINGS: Json = {"filters": FILTERS, "sigma_init": SIGMA_INIT, "lr": LR, "rho": RHO}

# --- alignment -----------------------------------------------------------------------------------

_ALIGNMENT = DataConfig(n_examples=200, dim=2000, beta_slow=0.6, sigma_noise=0.02)
_ALIGNMENT_INIT, _ALIGNMENT_STEPS = 0.03, 1000


def _alignment(seed: int, name: str, rho: float) -> Json:
    start = draw(seed, _ALIGNMENT, 10, _ALIGNMENT_INIT, dtype=torch.float64)

    def record(point: Point) -> dict[str, Tensor]:
        step, gd_step = point.noise_alignment(rho), point.noise_alignment()
        best = point.features.amax(-2)
        noise = point.space.noise_part(point.space.project(point.state))
        return {
            "fast": best[..., 0],
            "slow": best[..., 1],
            "memory": noise.amax(-2)[..., ~point.space.is_fast].mean(-1),
            "step": step.nanmean(-1),
            "over_gd": step.nanmean(-1) / gd_step.nanmean(-1),
        }

    at = spaced(_ALIGNMENT_STEPS, 51)
    run = train(
        prepare(start.W, start.data), LR, _ALIGNMENT_STEPS, rho, record=record, record_at=at
    )
    return {name: {key: band(value) for key, value in run.history.items()} | {"steps": run.steps}}


def _draw_alignment(data: Json) -> Canvas:
    figure, axes = canvas(10.2, 2.7, ncols=4)
    panels = (
        ("fast", "fast feature: max$_j$ ⟨w$_j$, v$_{fast}$⟩"),
        ("slow", "slow feature: max$_j$ ⟨w$_j$, v$_{slow}$⟩"),
        ("memory", "slow examples' noise: max$_j$ y⟨w$_j$, ξ⟩"),
        ("over_gd", "NoiseAlign of SAM's step / GD's\nat the same filters"),
    )
    for ax, (key, title) in zip(axes, panels, strict=True):
        for (name, curves), color in zip(data.items(), (GREY, BLUE), strict=True):
            if key == "over_gd" and name == "GD":
                continue
            line(ax, curves["steps"], curves[key], color, name)
        ax.set_title(title)
        ax.set_xlabel("step")
    axes[3].axhline(1, color="black", lw=0.6)
    axes[0].legend()
    return figure


# --- learning time -------------------------------------------------------------------------------

_TIMES = DataConfig(n_examples=100, dim=315, sigma_noise=0.02)
_BETAS = [0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
_TIME_STEPS, _TIME_LR, _TIME_SEEDS = 2500, 0.3, 12
_MARGIN = 1.0


def learning_times(space: Span, beta: Tensor, lr: float, steps: int, rho: float = 0.0) -> Tensor:
    """First step at which each feature alone gives its examples a margin of 1, (..., 2).

    beta: beta_fast and beta_slow, broadcasting to (..., 2). NaN where `steps` do not suffice.
    """
    scale = beta.unsqueeze(-2)

    def record(point: Point) -> dict[str, Tensor]:
        return {"learned": (scale * point.features).pow(3).sum(-2) >= _MARGIN}

    at = range(0, steps + 1, 2)
    learned = train(space, lr, steps, rho, record=record, record_at=at).history["learned"]
    first = 2.0 * learned.int().argmax(0)
    return torch.where(learned.any(0), first, float("nan")).double()


def _learning_time(seed: int, arm: str, optimizer: str) -> Json:
    start = draw(seed, _TIMES, seeds=_TIME_SEEDS)
    space = Span.of(start.arm(arm), start.W)
    factor = torch.tensor(_BETAS).unsqueeze(-1) / _TIMES.beta_slow
    cells = space.rescaled(beta_slow=factor)
    beta = torch.stack([torch.full((len(_BETAS),), _TIMES.beta_fast), torch.tensor(_BETAS)], -1)
    time = learning_times(cells, beta[:, None], _TIME_LR, _TIME_STEPS, OPTIMIZERS[optimizer])
    share = torch.stack([space.weight @ space.is_fast.to(space.weight), torch.tensor(0.0)])
    share[1] = 1 - share[0]
    initial = start.W[..., :2].amax(-2)  # (seeds, 2)
    predicted = torch.tensor(
        [
            [
                [
                    learning_time(float(b[v]), float(share[v]), 0.5, float(w[v]), _TIME_LR)
                    for v in range(2)
                ]
                for w in initial
            ]
            for b in beta
        ]
    )
    out = {
        "fast": band(time[..., 0]),
        "slow": band(time[..., 1]),
        "never": numbers(time.isnan().double().mean(1)),
        "predicted_fast": band(predicted[..., 0]),
        "predicted_slow": band(predicted[..., 1]),
        "gap": band(time[..., 1] / time[..., 0]),
        "predicted_gap": band(predicted[..., 1] / predicted[..., 0]),
    }
    return {f"{arm} {optimizer}": out, "beta_slow": _BETAS}


def _draw_learning_time(data: Json) -> Canvas:
    figure, axes = canvas(9.6, 3.1, ncols=3)
    betas = data["beta_slow"]
    for ax, arm in zip(axes, ("original", "tada"), strict=False):
        for optimizer, style in (("GD", "-"), ("SAM", "--")):
            curves = data[f"{arm} {optimizer}"]
            line(ax, betas, curves["fast"], GREY, f"fast, {optimizer}", linestyle=style)
            line(ax, betas, curves["slow"], BLUE, f"slow, {optimizer}", linestyle=style)
        ax.plot(betas, curves["predicted_slow"]["mean"], "k:", lw=1, label="predicted, eq. (32)")
        ax.plot(betas, curves["predicted_fast"]["mean"], "k:", lw=1)
        plain_log(ax.yaxis, _TIME_TICKS)
        ax.set_title(f"{ARM_LABELS[arm].replace('k', str(K)) if arm == 'tada' else 'Original'}")
        ax.set_xlabel("beta_slow")
    axes[0].set_ylabel("steps until learned")
    axes[1].legend()
    for (arm, color), (optimizer, style) in (
        (a, o) for a in (("original", GREY), ("tada", BLUE)) for o in (("GD", "-"), ("SAM", "--"))
    ):
        label = f"{'G(5)' if arm == 'tada' else 'Original'}, {optimizer}"
        line(axes[2], betas, data[f"{arm} {optimizer}"]["gap"], color, label, linestyle=style)
    for arm in ("original", "tada"):
        axes[2].plot(betas, data[f"{arm} GD"]["predicted_gap"]["mean"], "k:", lw=1)
    axes[2].axhline(1, color="black", lw=0.6)
    plain_log(axes[2].yaxis, _TIME_TICKS)
    axes[2].set_title("slow / fast learning time")
    axes[2].set_xlabel("beta_slow")
    axes[2].legend()
    return figure


_TIME_TICKS = [m * 10**e for e in range(4) for m in (1, 2, 5)]


# --- arms ----------------------------------------------------------------------------------------


def _errors(point: Point, config: DataConfig, generator: torch.Generator) -> dict[str, Tensor]:
    seen = point.errors()
    fresh = fresh_errors(point.features, point.covariance, config, TEST_EXAMPLES, generator)
    return {
        "loss": point.loss(),
        "train": seen["all"],
        **{f"test {kind}": value for kind, value in fresh.items()},
    }


def _arms(seed: int, arm: str, optimizer: str) -> Json:
    start = draw(seed)

    def record(point: Point) -> dict[str, Tensor]:
        return _errors(point, WORLD, start.test_stream())

    run = train(
        prepare(start.W, start.arm(arm)),
        LR,
        STEPS,
        OPTIMIZERS[optimizer],
        record=record,
        record_at=spaced(STEPS, 61),
    )
    curves = {key: band(value) for key, value in run.history.items()}
    return {f"{arm} {optimizer}": curves | {"steps": run.steps}}


def _draw_arms(data: Json) -> Canvas:
    figure, axes = canvas(9.6, 4.9, nrows=2, ncols=4, sharex=True)
    for row, optimizer in zip(axes, OPTIMIZERS, strict=True):
        for ax, key in zip(row, ("loss", "train", "test fast", "test slow"), strict=True):
            for arm in ARMS:
                curves = data[f"{arm} {optimizer}"]
                line(ax, curves["steps"], curves[key], ARM_COLOURS[arm], ARM_LABELS[arm])
            ax.set_title(
                {
                    "loss": f"{optimizer}: training loss",
                    "train": "training error",
                    "test fast": "test error, fast",
                    "test slow": "test error, slow",
                }[key]
            )
            if key != "loss":
                ax.set_ylim(-0.01, 0.56 if key != "train" else 0.3)
    for ax in axes[1]:
        ax.set_xlabel("step")
    axes[0, 0].legend()
    return figure


FIGURES = (
    Figure(
        "alignment",
        "Feature and noise alignment over training, GD against SAM; on the right, Theorem 4.1's "
        "noise claim at every step (below 1 it holds).",
        SETTINGS
        | {"data": _ALIGNMENT, "filters": 10, "sigma_init": _ALIGNMENT_INIT, "seeds": SEEDS}
        | {"steps": _ALIGNMENT_STEPS},
        [Part(_alignment, item) for item in OPTIMIZERS.items()],
        together,
        _draw_alignment,
    ),
    Figure(
        "learning-time",
        "Steps until a feature alone gives its examples a margin of 1, and the slow/fast ratio, "
        "for GD and SAM, on the originals and on G(5).",
        SETTINGS
        | {"data": _TIMES, "lr": _TIME_LR, "steps": _TIME_STEPS}
        | {"k": K, "seeds": _TIME_SEEDS, "margin": _MARGIN, "beta_slow": _BETAS},
        [Part(_learning_time, (a, o)) for a in ("original", "tada") for o in OPTIMIZERS],
        together,
        _draw_learning_time,
    ),
    Figure(
        "arms",
        "The five arms over a whole run, GD and SAM: upsampling memorises, TADA learns the slow "
        "feature.",
        SETTINGS | {"data": WORLD, "k": K, "steps": STEPS, "test_examples": TEST_EXAMPLES},
        [Part(_arms, (arm, optimizer)) for arm in ARMS for optimizer in OPTIMIZERS],
        together,
        _draw_arms,
    ),
)
