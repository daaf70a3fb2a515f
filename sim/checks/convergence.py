"""Corollary 4.4: the stationarity bound of SGD, where it is attained, and on U(k) and G(k)."""

from __future__ import annotations

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Predict, Quantity, combine, predicted, quantity, ratio
from sim.checks.variance_tolerance import total_variance
from sim.data import DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate
from sim.network import gradient, init, loss
from sim.population import curvature
from sim.train import Point, prepare, train


def _quadratic(plan: Plan) -> list[Quantity]:
    """Isotropic quadratics at lr = 1/L_s, where equation (28) is an identity."""
    dim, smoothness, runs, steps = 6, 2.0, plan.size(4000), 8
    lr = (2.5 if plan.broken else 1.0) / smoothness
    out = []
    for start, variance in ((3.0, 0.2), (0.5, 3.0)):
        g = plan.generator(40, int(10 * start))
        W = torch.zeros(runs, dim, dtype=torch.float64)
        W[:, 0] = start
        total = torch.zeros(runs, dtype=torch.float64)
        for _ in range(steps):
            total += (smoothness * W).square().sum(1) / steps
            noise = (variance / dim) ** 0.5 * torch.randn(runs, dim, generator=g).double()
            W = W - lr * (smoothness * W + noise)
        out.append(
            quantity(
                f"quadratic: mean |grad|^2 over {steps} steps from |W|={start}, V={variance}",
                Estimate.of(total),
                _bound(
                    # at lr = 1/L_s each W after the first is noise/L_s alone
                    loss_initial=smoothness / 2 * start**2,
                    loss_final=variance / (2 * smoothness),
                    lr=1.0 / smoothness,
                    smoothness=smoothness,
                    variance=variance,
                    steps=steps,
                ),
            )
        )
    return out


_CONFIG = DataConfig(n_examples=60, dim=30, beta_slow=0.5, sigma_noise=0.3)
_K, _BATCH, _STEPS = 3, 24, 150


def _network(plan: Plan) -> list[Quantity]:
    """Mini-batch SGD with real logits on one U(k) and one G(k): measured against the bound."""
    g = plan.generator(41)
    data = sample(_CONFIG, g)
    start = init(5, _CONFIG.dim, 0.2, g)
    lr = 0.1
    out = []
    for arm, augmented in (("U", upsample(data, _K)), ("G", generate(data, _K, g))):
        runs = plan.size(8)
        zero = torch.tensor(0.0, dtype=start.dtype)

        def record(
            point: Point, data: Dataset = augmented, zero: Tensor = zero
        ) -> dict[str, Tensor]:
            now_and_then = point.t % 25 == 0
            return {
                "square": point.gradient_norm().square(),
                "variance": point.batch_variance(_BATCH).max(),
                "smoothness": _smoothness(point.W, data, g).max() if now_and_then else zero,
            }

        space = prepare(start.expand(runs, *start.shape), augmented, batch_size=_BATCH)
        every = range(_STEPS)
        run = train(
            space, lr, _STEPS, batch_size=_BATCH, generator=g, record=record, record_at=every
        )
        out.append(
            quantity(
                f"network: mean |grad|^2 over {_STEPS} steps on {arm}({_K})",
                Estimate.of(run.history["square"].mean(0)),
                _bound(
                    loss_initial=float(loss(start, augmented)),
                    loss_final=float(run.end.loss().mean()),
                    lr=lr,
                    smoothness=float(run.history["smoothness"].max()),
                    variance=float(run.history["variance"].max()),
                    steps=_STEPS,
                ),
                "<",
            )
        )
    return out


def _variance_ratio(plan: Plan) -> list[Quantity]:
    """V_G/V_U at W⁽⁰⁾ with real logits over independent data sets: below 1."""
    g = plan.generator(42)
    seeds = plan.size(1000)
    data = sample(_CONFIG, g, (seeds,))
    W = init(5, _CONFIG.dim, 0.2, g, (seeds,))
    kept = 1.0 if plan.broken else 0.0
    variance = {
        "U": upsample(data, _K),
        "G": generate(data, _K, g, kept_noise=kept),
    }
    total = {arm: total_variance(W, augmented, _BATCH) for arm, augmented in variance.items()}
    label = f"V_G({_K}) / V_U({_K}) at W(0)"
    return [quantity(label, ratio(total["G"], total["U"]), 1.0, "<")]


def _smoothness(W: Tensor, data: Dataset, generator: torch.Generator) -> Tensor:
    """Largest |eigenvalue| of the Hessian at each W (..., J, d)."""
    start = torch.randn(W.shape, generator=generator, dtype=W.dtype)
    return curvature(lambda V: gradient(V, data), W, start)[0]


def _bound(**inputs: float) -> Predict:
    return predicted("convergence", "mean_squared_gradient_norm", **inputs)


CHECKS = (
    Check(
        "convergence",
        "lr <= 1/L_s, and fresh synthetic noise (control: lr = 2.5/L_s, and kept noise)",
        combine(_quadratic, _network, _variance_ratio),
    ),
)
