"""Steps of SGD until the mean squared gradient so far is down at a target; fresh data throughout.

On quadratics, whose noise is made or is that of U(k) and G(k), and on the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import (
    Check,
    Plan,
    Quantity,
    combine,
    constant,
    exact,
    predicted,
    quantity,
    unbroken,
)
from sim.checks.fresh_data import Fresh, noisy_network, steps_of_network, time_ratio
from sim.data import DataConfig
from sim.network import gradient, init
from theory import convergence
from theory.gradient_variance import Filters, gradient_variance

# --- quadratics, where (C3) is an identity -------------------------------------------------------

_SMOOTHNESS = 2.0
_QUADRATICS = (
    # V, target, |W_0|, lr L_s
    (0.2, 0.5, 3.0, 1.0),
    (3.0, 4.0, 5.0, 0.4),
    (3.0, 1.0, 6.0, 0.3),
    (0.5, 2.0, 3.0, 1.4),
)


def _quadratic(plan: Plan) -> list[Quantity]:
    """Measured steps against (C3), and the measured best lr against (C4)."""
    out = []
    for variance, target, start, share in _QUADRATICS:
        if plan.broken and variance >= target:
            continue  # it never gets there
        lr = torch.tensor([share / _SMOOTHNESS], dtype=torch.float64)
        steps, loss = _steps_on_quadratic(plan, variance, target, start, lr, 1000)
        out.append(
            exact(
                f"quadratic: steps to {target:g} at V={variance:g}, lr L_s={share:g}",
                steps,
                partial(
                    convergence.steps_to_target,
                    target,
                    _SMOOTHNESS / 2 * start**2 - float(loss),
                    _SMOOTHNESS,
                    variance,
                    share / _SMOOTHNESS,
                ),
            )
        )
    if plan.broken:
        return out  # most lr never get there
    variance, target, start = 3.0, 1.0, 6.0
    lr = torch.tensor([target / (_SMOOTHNESS * (target + variance))], dtype=torch.float64)
    steps, loss = _steps_on_quadratic(plan, variance, target, start, lr, 1000)
    out.append(
        exact(
            f"quadratic: steps to {target:g} at V={variance:g} and the best lr",
            steps,
            predicted(
                "steps-to-target",
                "steps",
                loss_gap=_SMOOTHNESS / 2 * start**2 - float(loss),
                target=target,
                smoothness=_SMOOTHNESS,
                variance=variance,
            ),
        )
    )
    for variance, target in ((0.1, 1.0), (1.0, 1.0), (6.0, 2.0)):
        shares = torch.arange(0.1, 1.6, 0.01, dtype=torch.float64)
        # from so far out that L_T, which depends on lr, hardly counts
        steps, _ = _steps_on_quadratic(plan, variance, target, 10.0, shares / _SMOOTHNESS, 1200)
        out.append(
            exact(
                f"quadratic: best lr for a target of {target:g} at V={variance:g}",
                _argmin(shares / _SMOOTHNESS, steps),
                predicted(
                    "steps-to-target",
                    "lr",
                    target=target,
                    smoothness=_SMOOTHNESS,
                    variance=variance,
                ),
                rounding=0.01,
            )
        )
    return out


def _steps_on_quadratic(
    plan: Plan, variance: float, target: float, start: float, lr: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """When the mean of |grad|² so far falls to the target, between steps, and the loss then.

    SGD on (L_s/2)|W|² in the plane for each lr (m,); not within `limit` steps: infinite. The noise
    has length √V, a random sign, and stands at right angles to W: unbiased, of variance V, and yet
    |W| is the same in every run, so nothing is left to chance. The control never draws it again.
    """
    g = plan.generator(43)
    W = torch.zeros(len(lr), 2, dtype=torch.float64)
    W[:, 0] = start
    total = torch.zeros_like(lr)
    found, loss_then = torch.full_like(lr, torch.inf), torch.full_like(lr, torch.nan)
    for t in range(limit):
        square = (_SMOOTHNESS * W).square().sum(1)
        sign = 1.0 - 2.0 * float(torch.randint(0, 2, (), generator=g))
        across = sign * torch.stack([-W[:, 1], W[:, 0]], 1) / W.norm(dim=1, keepdim=True)
        if plan.broken:
            across = torch.tensor([0.0, 1.0], dtype=W.dtype)
        following = W - lr[:, None] * (_SMOOTHNESS * W + variance**0.5 * across)
        # part of this step after which the sum is target times the steps
        part = (total - target * t) / (target - square)
        here = found.isinf() & (square < target) & (part <= 1)
        before, after = (_SMOOTHNESS / 2 * w.square().sum(1) for w in (W, following))
        loss_then[here] = torch.lerp(before, after, part)[here]
        found[here] = t + part[here]
        total, W = total + square, following
        if found.isfinite().all():
            break
    return found, loss_then


def _argmin(x: Tensor, y: Tensor) -> float:
    """Where y is least, by a parabola through the three lowest points of an even grid."""
    i = min(max(int(y.argmin()), 1), len(x) - 2)
    a, b, c = (float(y[i + s]) for s in (-1, 0, 1))
    return float(x[i]) + float(x[1] - x[0]) * (a - c) / (2 * (a - 2 * b + c))


# --- the noise of U(k) and G(k) ------------------------------------------------------------------


_NOISE = Fresh(DataConfig(n_examples=6, dim=12, alpha=0.5, sigma_noise=0.5), 4, 15)
_LOGIT, _FAR, _NOISE_LR, _NOISE_TARGET, _NOISE_STEPS = 0.5, 3.0, 0.125, 4.0, 90


def _noisy_quadratic(plan: Plan) -> list[Quantity]:
    """T_G/T_U of SGD on a quadratic, its noise the gradients of U(k) and G(k) at fixed filters."""
    runs = plan.size(900)
    g = plan.generator(44)
    filters = init(8, _NOISE.config.dim, 1.0, plan.fixed("filters"))
    filters[:, :2] = 0  # then their mean gradient is 0
    filters *= 1.6 / filters.norm(dim=1, keepdim=True)
    start = torch.zeros_like(filters)
    start[0, 0] = _FAR
    W = {arm: start.expand(runs, *start.shape) for arm in ("U", "G")}
    squares: dict[str, list[Tensor]] = {arm: [] for arm in W}
    for _ in range(_NOISE_STEPS):
        batches = _NOISE.draw(g, runs, 1.0 if plan.broken else 0.0)
        for arm, batch in batches.items():
            slope = _SMOOTHNESS * W[arm]
            squares[arm].append(slope.square().sum((-1, -2)))
            W[arm] = W[arm] - _NOISE_LR * (slope + gradient(filters, batch, _LOGIT))
    noise_quartic = float(filters.square().sum(1).square().sum())
    # L_T, so small that its own error does not count
    loss_left = {a: _SMOOTHNESS / 2 * float(w.square().sum((-1, -2)).mean()) for a, w in W.items()}
    return [
        quantity(
            f"quadratic with the noise of U({_NOISE.k}) and G({_NOISE.k}): T_G/T_U",
            time_ratio({arm: torch.stack(s) for arm, s in squares.items()}, _NOISE_TARGET),
            lambda: _time_ratio(noise_quartic, loss_left),
        )
    ]


def _time_ratio(noise_quartic: float, loss_left: Mapping[str, float]) -> float:
    """(C3) with the variances of Theorem 4.3."""
    config = _NOISE.config
    variance = gradient_variance(
        config.n_examples,
        config.dim,
        Filters(noise_quartic, 0.0, 0.0),
        config.alpha,
        config.beta_fast,
        config.beta_slow,
        config.sigma_noise,
        config.sigma_noise,
        _NOISE.k,
        _NOISE.batch_size,
        _LOGIT,
    )
    steps = {
        arm: convergence.steps_to_target(
            _NOISE_TARGET,
            _SMOOTHNESS / 2 * _FAR**2 - loss_left[arm],
            _SMOOTHNESS,
            variance[name],
            _NOISE_LR,
        )
        for arm, name in (("U", "upsampled"), ("G", "generated"))
    }
    return steps["G"] / steps["U"]


CHECKS = (
    Check(
        "steps-to-target",
        "noise is fresh at every step (control: it is drawn once; synthetic noise is a copy)",
        combine(
            constant(_quadratic),
            _noisy_quadratic,
            unbroken(steps_of_network),
            unbroken(noisy_network),
        ),
    ),
)
