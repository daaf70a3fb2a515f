"""Lemma: the Gaussian moments (M1) to (M6), by direct sampling in few dimensions.

Few dimensions, so that the additive constants (d' + 2, d' + 4, ...) weigh enough to be tested.
"""

from __future__ import annotations

from functools import partial

import torch

from sim.checks.base import DRAWN, Check, Plan, Quantity, quantity
from sim.measure import Estimate
from theory import moments

_DIM, _SIGMA = 3, 1.2


def _measure(plan: Plan) -> list[Quantity]:
    g = plan.generator(1)
    n = plan.size(2_000_000)
    w = torch.tensor([0.9, -0.5, 1.6], dtype=DRAWN)
    xi = _SIGMA * _noise(g, n, _DIM, plan.broken)
    w_norm = float(w.norm())
    z = torch.randn(n, generator=g, dtype=DRAWN)
    if plan.broken:
        z = _noise(g, n, 1, True)[:, 0]
    along = xi @ w
    norm2 = xi.square().sum(1)
    out = [
        quantity(f"E|z|^{p}", Estimate.of(z.abs() ** p), partial(moments.absolute_moment, p))
        for p in (1, 3, 4)
    ]
    out += [
        quantity(
            f"E[|z|^{p} R^{q}]",
            Estimate.of((along / w_norm / _SIGMA).abs() ** p * (norm2 / _SIGMA**2) ** q),
            partial(moments.patch_moment, p, q, _DIM),
        )
        for p, q in ((2, 1), (3, 2), (4, 2))
    ]
    out += [
        quantity(
            "E<w,xi>^2 |xi|^2",
            Estimate.of(along**2 * norm2),
            lambda: moments.noise_strength(_SIGMA, w_norm, _DIM),
        ),
        quantity(
            "E<w,xi>^4 |xi|^2 / |w|^4",
            Estimate.of(along**4 * norm2 / w_norm**4),
            lambda: moments.noise_second_moment(_SIGMA, _DIM),
        ),
    ]
    for dim, tau, amplitude in ((2, 1.0, 0.7), (2, 0.8, 1.3), (10, 0.9, 1.0), (10, 0.4, 1.0)):
        out.append(_shared(plan, dim, tau, amplitude))
    for u in ((1.0, 2.0, -0.5), (1.0, -0.6, 1.8)):
        direction = torch.tensor(u, dtype=DRAWN)
        cross = along**2 * (xi @ direction)
        norm, product = float(direction.norm()), float(w @ direction)
        out.append(
            quantity(
                f"cross-term variance, <w,u>={product:.2f}",
                Estimate.of(cross.square()),
                partial(moments.cross_term_variance, _SIGMA, w_norm, norm, product),
            )
        )
    init = 0.7 * _noise(g, n, _DIM, plan.broken)
    out += [
        quantity(
            "E|w|^4",
            Estimate.of(init.square().sum(1) ** 2),
            lambda: moments.squared_norm_moments(_DIM, 0.7)[0],
        ),
        quantity(
            "E<w,v>^4",
            Estimate.of(init[:, 0] ** 4),
            lambda: moments.squared_norm_moments(_DIM, 0.7)[1],
        ),
    ]
    return out


def _shared(plan: Plan, dim: int, tau: float, amplitude: float) -> Quantity:
    g = plan.generator(2, dim, int(10 * tau))
    n = plan.size(7_000_000 // dim)
    xi, fresh = (_noise(g, n, dim, plan.broken) for _ in range(2))
    twin = amplitude * (tau * xi + (1 - tau**2) ** 0.5 * fresh)
    w = torch.ones(dim, dtype=DRAWN) / dim**0.5
    value = _SIGMA**6 * (xi @ w) ** 2 * (twin @ w) ** 2 * (xi * twin).sum(1)
    return quantity(
        f"shared-noise covariance, d'={dim}, tau={tau}, a={amplitude}",
        Estimate.of(value),
        lambda: moments.shared_noise_covariance(_SIGMA, tau, amplitude, dim),
    )


def _noise(g: torch.Generator, n: int, dim: int, broken: bool) -> torch.Tensor:
    if broken:
        return torch.randint(0, 2, (n, dim), generator=g).to(DRAWN) * 2 - 1
    return torch.randn(n, dim, generator=g, dtype=DRAWN)


CHECKS = (
    Check(
        "gaussian-moments",
        "noise is Gaussian (control: random signs of the same variance)",
        _measure,
    ),
)
