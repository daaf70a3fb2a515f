"""How much to amplify: test error against k, and the best k against k*."""

from __future__ import annotations

from dataclasses import replace

import torch
from matplotlib.figure import Figure as Canvas

from common.plotting import BLUE, GREY, ORANGE, canvas, plain_log
from sim.backends.span import Span
from sim.data import DataConfig
from sim.figures.base import (
    LR,
    SEEDS,
    SIGMA_INIT,
    STEPS,
    TEST_EXAMPLES,
    WORLD,
    Figure,
    Json,
    Part,
    band,
    draw,
    numbers,
    together,
)
from sim.figures.training import ARM_COLOURS, OPTIMIZERS, SETTINGS, learning_times
from sim.measure import fresh_errors
from sim.train import prepare, train
from theory.amplification import k_star

# --- test error against k ------------------------------------------------------------------------

_KS = [1, 2, 3, 4, 5, 6, 8, 10]
_ARMS = {"upsample": "U(k), copies", "tada": "G(k), generation"}


def _against_k(seed: int, arm: str, optimizer: str) -> Json:
    start = draw(seed)
    rows = []
    for k in _KS:
        space = prepare(start.W, start.arm(arm, k))
        end = train(space, LR, STEPS, OPTIMIZERS[optimizer]).end
        test = fresh_errors(end.features, end.covariance, WORLD, TEST_EXAMPLES, start.test_stream())
        rows.append(torch.stack([test["all"], test["slow"], end.errors()["all"]]))
    columns = torch.stack(rows, 1)  # (3, k, seeds)
    names = ("test", "test slow", "train")
    return {
        f"{arm} {optimizer}": {n: band(c) for n, c in zip(names, columns, strict=True)},
        "k": _KS,
    }


def _draw_against_k(data: Json) -> Canvas:
    figure, axes = canvas(7.2, 3.0, ncols=2, sharey=True)
    for ax, optimizer in zip(axes, OPTIMIZERS, strict=True):
        for arm, label in _ARMS.items():
            test = data[f"{arm} {optimizer}"]["test"]
            error = [2 * e for e in test["standard_error"]]
            ax.errorbar(
                data["k"], test["mean"], yerr=error, color=ARM_COLOURS[arm], marker="o", ms=4,
                lw=1.4, capsize=2, label=label,
            )  # fmt: skip
        ax.axhline(
            (1 - WORLD.alpha) / 2, color="black", lw=0.6, ls=":", label="slow ones at chance"
        )
        ax.set_title(f"{optimizer}, {STEPS} steps")
        ax.set_xlabel("amplification k")
    axes[0].set_ylabel("test error")
    axes[0].legend()
    return figure


# --- best k --------------------------------------------------------------------------------------

_WORLDS = [(alpha, beta) for alpha in (0.6, 0.8) for beta in (0.6, 0.7, 0.8, 0.9)]
_BEST = DataConfig(n_examples=60, dim=315)
_QUIET, _NOISY = 0.02, 0.15
_FACTORS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.8)
_BEST_FILTERS, _BEST_LR, _BEST_STEPS = 20, 0.3, 1000


def _best_k(seed: int, number: int, alpha: float, beta_slow: float) -> Json:
    """Times to learn at little noise, and test error at more, over k around k*."""
    target = k_star(alpha, 1.0, beta_slow)
    ks = sorted({max(1, round(f * target)) for f in _FACTORS})
    config = replace(_BEST, alpha=alpha, beta_slow=beta_slow, sigma_noise=_QUIET)
    start = draw(1000 * seed + number + 1, config, _BEST_FILTERS)  # independent draws in each world
    loud = _NOISY / _QUIET
    times, tests = [], []
    for k in ks:
        space = Span.of(start.arm("tada", k), start.W)
        beta = torch.tensor([config.beta_fast, beta_slow])
        times.append(learning_times(space, beta, _BEST_LR, _BEST_STEPS))
        noisy = space.rescaled(sigma_noise=loud, sigma_synthetic=loud)
        end = train(noisy, _BEST_LR, _BEST_STEPS).end
        errors = fresh_errors(
            end.features, end.covariance, replace(config, sigma_noise=_NOISY),
            TEST_EXAMPLES, start.test_stream(),
        )  # fmt: skip
        tests.append(errors["all"])
    time, test = torch.stack(times), torch.stack(tests)  # (k, seeds, 2), (k, seeds)
    both = time.amax(-1)
    log_gap = (time[..., 1] / time[..., 0]).log()
    mean, error = test.mean(1), test.std(1) / SEEDS**0.5
    best = int(mean.argmin())
    enough = int((mean <= mean[best] + 2 * error[best]).int().argmax())
    return {
        f"{alpha} {beta_slow}": {
            "k_star": target,
            "k": ks,
            "steps_both": band(both),
            "test": band(test),
            "equal": _crossing(ks, log_gap),
            "soonest": _argmin(ks, both),
            "enough": ks[enough],
        }
    }


def _crossing(ks: list[int], log_gap: torch.Tensor) -> Json:
    """The k at which slow and fast are learned together: geometric mean over seeds, log s.e.

    Per seed, by interpolation of the log ratio of times in log k; where the seed's crossing lies
    beyond the ks, by extrapolation (there the slope is -1 by equation (32)).
    """
    log_k = torch.tensor(ks).double().log()
    found = []
    for gap in log_gap.T:
        known = ~gap.isnan()
        x, y = log_k[known], gap[known]
        if len(x) == 0:
            continue
        below = (y <= 0).nonzero()
        if len(below) == 0:
            found.append(x[-1] + y[-1])
        elif int(below[0]) == 0:
            found.append(x[0] + y[0])
        else:
            i = int(below[0])
            share = y[i - 1] / (y[i - 1] - y[i])
            found.append(x[i - 1] + share * (x[i] - x[i - 1]))
    logs = torch.stack(found)
    error = logs.std() / len(logs) ** 0.5
    return {
        "mean": numbers(logs.mean().exp()),
        "standard_error": numbers(logs.mean().exp() * error),
        "seeds": len(found),
    }


def _argmin(ks: list[int], both: torch.Tensor) -> Json:
    """The k of the least geometric mean of steps over seeds, by a parabola in log k; jackknifed.

    Only the ks at which every seed learns both.
    """
    known = ~both.isnan().any(1)
    log_k = torch.tensor(ks).double().log()[known]
    logs = both.log()[known]

    def at(seeds: torch.Tensor) -> float:
        mean = logs[:, seeds].mean(1)
        i = min(max(int(mean.argmin()), 1), len(mean) - 2)
        x, y = log_k[i - 1 : i + 2], mean[i - 1 : i + 2]
        powers = torch.linalg.solve(torch.stack([x**2, x, torch.ones(3).double()], 1), y)
        peak = -powers[1] / (2 * powers[0])
        return float(peak.clamp(x[0], x[-1]).exp())

    n = logs.shape[1]
    every = torch.arange(n)
    left_out = torch.tensor([at(every[every != s]) for s in range(n)])
    error = ((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt()
    return {"mean": numbers(torch.tensor(at(every))), "standard_error": numbers(error)}


def _draw_best_k(data: Json) -> Canvas:
    figure, (left, right) = canvas(8.4, 3.5, ncols=2)
    cells = sorted(data.values(), key=lambda c: c["k_star"])
    x = [c["k_star"] for c in cells]
    span = [min(x) / 1.3, max(x) * 1.3]
    left.plot(span, span, color="black", lw=0.6, label="k* of equation (14)")
    for key, color, label in (
        ("equal", BLUE, "both features learned together"),
        ("soonest", ORANGE, "both features learned soonest"),
    ):
        left.errorbar(
            x, [c[key]["mean"] for c in cells], yerr=[2 * c[key]["standard_error"] for c in cells],
            fmt="o", ms=4, color=color, capsize=2, lw=1, label=label,
        )  # fmt: skip
    left.plot(
        x, [c["enough"] for c in cells], "x", color=GREY, label="least k of lowest test error"
    )
    for axis in (left.xaxis, left.yaxis):
        plain_log(axis, [1, 2, 5, 10, 20])
    left.set_xlabel("predicted k*")
    left.set_ylabel("measured k")
    left.legend()
    for c, shade in zip(cells, torch.linspace(0.25, 1, len(cells)).tolist(), strict=True):
        ratio = [k / c["k_star"] for k in c["k"]]
        fastest = min(v for v in c["steps_both"]["mean"] if v is not None)
        steps = [float("nan") if v is None else v / fastest for v in c["steps_both"]["mean"]]
        right.plot(
            ratio, steps, "o-", ms=3, lw=1, color=BLUE, alpha=shade, label=f"{c['k_star']:.1f}"
        )
    right.axvline(1, color="black", lw=0.6)
    plain_log(right.xaxis, [0.25, 0.5, 1, 2])
    right.set_xlabel("k / k*")
    right.set_title("steps until both features are learned / least")
    right.legend(title="k*", ncols=2)
    return figure


FIGURES = (
    Figure(
        "test-error",
        "Test error against k for upsampling and generation: the paper's Figure 5 left, in "
        "theory's own world.",
        SETTINGS | {"data": WORLD, "steps": STEPS, "k": _KS, "test_examples": TEST_EXAMPLES},
        [Part(_against_k, (arm, optimizer)) for arm in _ARMS for optimizer in OPTIMIZERS],
        together,
        _draw_against_k,
    ),
    Figure(
        "best-k",
        "The k at which both features are learned together, and soonest, against k*; the least k "
        "that reaches the lowest test error is set by the noise instead.",
        {
            "data": _BEST,
            "alpha_beta_slow": _WORLDS,
            "sigma_noise_times": _QUIET,
            "sigma_noise_test": _NOISY,
            "filters": _BEST_FILTERS,
            "sigma_init": SIGMA_INIT,
            "lr": _BEST_LR,
            "steps": _BEST_STEPS,
        },
        [Part(_best_k, (i, *world)) for i, world in enumerate(_WORLDS)],
        together,
        _draw_best_k,
    ),
)
