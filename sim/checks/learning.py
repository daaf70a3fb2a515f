"""A whole training run: U(5) memorises the slow examples' noise, G(5) learns their feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.checks.base import Check, Plan, Quantity, quantity
from sim.data import DataConfig, generate, sample, upsample
from sim.engine import prepare, train
from sim.measure import Estimate, fresh_errors
from sim.network import init
from theory import convergence

# sigma_noise³ d^1.5 against (1 − alpha) N beta_slow³ decides whether noise or the slow feature
# escapes first; it is 2.6 in U(5) and a fifth of that in G(5), so each is clear of the balance.
_CONFIG = DataConfig(n_examples=100, dim=315, beta_slow=0.45, sigma_noise=0.095)
_FILTERS, _SIGMA_INIT, _LR, _STEPS, _K = 40, 0.05, 0.4, 600, 5
_FRESH = 20_000


def _measure(plan: Plan) -> list[Quantity]:
    seeds = plan.size(16)
    g = plan.generator()
    dtype = torch.float32  # thousands of steps on whole data sets; errors are counts
    data = sample(_CONFIG, g, (seeds,), dtype)
    W = init(_FILTERS, _CONFIG.dim, _SIGMA_INIT, g, (seeds,), dtype)
    made = generate(data, _K, g, fidelity=0.0 if plan.broken else 1.0)
    error = {}
    for arm, augmented in (("U", upsample(data, _K)), ("G", made)):
        end = train(prepare(W, augmented), _LR, _STEPS).end
        # test examples of its own for each run, so that runs are independent
        error[arm] = torch.stack(
            [
                fresh_errors(end.features[s], end.covariance[s], _CONFIG, _FRESH, g)["all"]
                for s in range(seeds)
            ]
        )
    return [
        quantity(
            f"test error of U({_K})",
            Estimate.of(error["U"]),
            dof=seeds - 1,
            rounding=0.03,  # (29) is for no trace of the slow feature; U(5) learns a faint one
            what="chance on slow",
            alpha=_CONFIG.alpha,
        ),
        quantity(
            f"test error of G({_K}) - U({_K})",
            Estimate.of(error["G"] - error["U"]),
            "<",
            dof=seeds - 1,
            what="difference",
            alpha=_CONFIG.alpha,
        ),
    ]


def _predict(given: Mapping[str, Any]) -> float:
    if given["what"] == "difference":
        return 0.0
    return convergence.error_without_slow_feature(given["alpha"])


CHECKS = (
    Check(
        "test-error",
        "synthetic examples are faithful (control: they have lost the slow feature)",
        _measure,
        _predict,
    ),
)
