"""Theorem 4.1: SAM's feature factor, its noise damping, and the real-logit boundary."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Quantity, combine, exact, quantity, ratio
from sim.data import FAST, SLOW, DataConfig, Dataset, sample
from sim.measure import Estimate, noise_alignment, noise_projections
from sim.network import gradient, init, logit_term, norm
from sim.optim import sam_gradient
from theory import sam as theory

_LOGIT = 0.5


# --- Equation (5): features, exact -------------------------------------------------------------


def _measure_features(plan: Plan) -> list[Quantity]:
    config = DataConfig(n_examples=200, dim=40, beta_fast=1.2, beta_slow=0.7, sigma_noise=0.1)
    rho = 0.2
    g = plan.generator(2)
    data = sample(config, g)
    W = init(4, config.dim, 0.3, g)
    plain = gradient(W, data, _LOGIT)
    sam = sam_gradient(W, data, rho, None if plan.broken else _LOGIT)
    out = []
    for feature, name in ((FAST, "fast"), (SLOW, "slow")):
        beta = config.beta_fast if feature == FAST else config.beta_slow
        carries = data.is_fast if feature == FAST else ~data.is_fast
        for j in range(2):
            out.append(
                exact(
                    f"SAM/GD along v_{name}, filter {j}",
                    sam[j, feature] / plain[j, feature],
                    partial(
                        feature_factor,
                        rho,
                        beta,
                        _LOGIT * float(carries.double().mean()),
                        float(norm(plain)),
                        float(W[j, feature]),
                    ),
                )
            )
    return out


def feature_factor(
    rho: float, beta: float, mean_logit: float, gradient_norm: float, projection: float
) -> float:
    """(5) with (4)."""
    kappa = theory.feature_kappa(rho, beta, mean_logit, gradient_norm)
    return float(theory.feature_factor(kappa, projection))


# --- Equation (7): noise, exact for orthogonal patches ------------------------------------------


def _measure_noise(plan: Plan) -> list[Quantity]:
    config = DataConfig(
        n_examples=60,
        dim=100,
        sigma_noise=0.3,
        noise="gaussian" if plan.broken else "orthogonal",
    )
    rho = 0.5
    g = plan.generator(3)
    data = sample(config, g)
    W = init(3, config.dim, 0.3, g)
    plain = gradient(W, data, _LOGIT)
    sam = sam_gradient(W, data, rho, _LOGIT)
    projections = noise_projections(W, data)
    factor = noise_projections(-sam, data) / noise_projections(-plain, data)
    norm2 = data.x[:, 1].square().sum(-1)
    out = []
    for j in range(3):
        # the example with the largest projection feels the damping most
        for which, i in (
            ("most aligned", int(projections[:, j].argmax())),
            ("least aligned", int(projections[:, j].argmin())),
        ):
            out.append(
                exact(
                    f"SAM/GD along the {which} noise patch, filter {j}",
                    factor[i, j],
                    partial(
                        noise_factor,
                        rho,
                        _LOGIT,
                        config.n_examples,
                        float(norm(plain)),
                        float(projections[i, j]),
                        float(norm2[i]),
                    ),
                )
            )
    return out


def noise_factor(
    rho: float,
    logit: float,
    n_examples: int,
    gradient_norm: float,
    projection: float,
    squared_norm: float,
) -> float:
    """(7) with (6)."""
    lam = theory.noise_lambda(rho, logit, n_examples, gradient_norm)
    return float(theory.noise_factor(lam, projection, squared_norm))


# --- Equations (8), (9), (31): noise in distribution ----------------------------------------


def _damping(plan: Plan, config: DataConfig, W: Tensor, a: float, chunks: int) -> Estimate:
    """E NoiseAlign(SAM) / E NoiseAlign(GD) of one filter over fresh noise, at a = λ sigma³ ‖w‖."""
    lam = a / (config.sigma_noise**3 * float(W[0, 2:].norm()))
    sums: list[tuple[Tensor, Tensor]] = []
    g = plan.generator("damping", config.noise)
    for _ in range(chunks):
        data = sample(config, g, (2_000,))
        plain = gradient(W, data, _LOGIT)
        # λ is held fixed by choosing rho in each draw, so that the prediction needs no average
        rho = lam * config.n_examples * norm(plain)[..., 0, 0] / (3 * _LOGIT)
        sam = sam_gradient(W, data, rho, _LOGIT)
        on = noise_projections(W, data) > 0
        along = [
            torch.where(on, noise_projections(-grad, data), 0.0).sum((-1, -2))
            for grad in (sam, plain)
        ]
        sums.append((along[0], along[1]))
    return ratio(torch.cat([s for s, _ in sums]), torch.cat([p for _, p in sums]))


# the control puts independent noise where orthogonal is assumed, and the other way round
_FEW = DataConfig(n_examples=3, dim=6, alpha=0.7, sigma_noise=0.5)


def _kind(plan: Plan, noise: str) -> str:
    other = {"gaussian": "orthogonal", "orthogonal": "gaussian"}
    return other[noise] if plan.broken else noise


def _orthogonal_damping(plan: Plan) -> list[Quantity]:
    few = replace(_FEW, noise=_kind(plan, "orthogonal"))
    W = init(1, few.dim, 0.3, plan.fixed("orthogonal"))
    a, sigma, w_norm = 0.008, few.sigma_noise, float(W[0, 2:].norm())
    return [
        quantity(
            "mean damping, orthogonal patches",
            _damping(plan, few, W, a, plan.size(150)),
            lambda: theory.mean_noise_damping(a / (sigma**3 * w_norm), sigma, w_norm, few.dim - 2),
        )
    ]


def _independent_damping(plan: Plan) -> list[Quantity]:
    many = replace(_FEW, n_examples=4, alpha=0.5, noise=_kind(plan, "gaussian"))
    W = init(1, many.dim, 0.3, plan.fixed("independent"))
    a = 1e-6  # a derivative at 0: float64 leaves ten digits of the difference
    damping = _damping(plan, many, W, a, plan.size(250))
    return [
        quantity(
            "slope of the damping in rho, independent patches",
            damping.through((1 - damping.mean) / a, -1 / a),
            lambda: theory.independent_damping_slope(many.dim - 2, many.n_examples),
        )
    ]


def _cross_terms(plan: Plan) -> list[Quantity]:
    """What the other examples add to the first example's noise alignment, in few dimensions."""
    config = DataConfig(n_examples=3, dim=5, alpha=0.7, sigma_noise=0.5)
    W = init(1, config.dim, 0.3, plan.fixed("cross"))
    w = W[0, 2:]
    # the same first noise patch in every draw: (9) is conditional on it
    u = torch.tensor([0.4, -0.2, 0.9], dtype=torch.float64)
    own = 3 * _LOGIT / config.n_examples * (w @ u) ** 2 * (u @ u)
    squares, g = [], plan.generator("cross")
    for chunk in torch.arange(plan.size(300_000)).split(10_000):
        data = sample(config, g, (len(chunk),))
        data.x[..., 0, 1, 2:] = u
        along = noise_projections(-gradient(W, data, _LOGIT), data)[..., 0, 0]
        squares.append((along - own).square())
    square = Estimate.of(torch.cat(squares))
    root = square.mean**0.5
    w_norm, u_norm, product = float(w.norm()), float(u.norm()), float(w @ u)
    return [
        quantity(
            "deviation of the cross terms",
            square.through(root, 1 / (2 * root)),
            lambda: theory.cross_term_deviation(
                _LOGIT, config.sigma_noise, config.n_examples, w_norm, u_norm, product
            ),
        )
    ]


# --- Equation (11): the boundary with real logits ------------------------------------------------

_INSIDE = DataConfig(n_examples=100, dim=150, sigma_noise=0.1, noise="orthogonal")
_OUTSIDE = DataConfig(n_examples=100, dim=150, sigma_noise=0.02, noise="orthogonal")
_REGIONS = (("inside", _INSIDE, 0.01, "<"), ("outside", _OUTSIDE, 0.2, ">"))


def _mixed_slope(plan: Plan) -> list[Quantity]:
    config = DataConfig(
        n_examples=60, dim=100, beta_fast=1.2, beta_slow=0.8, sigma_noise=0.3, noise="orthogonal"
    )
    g = plan.generator("mixed")
    data, W = sample(config, g), init(8, config.dim, 0.2, g)
    return [_slope("d ratio / d rho, all terms alike", W, data, _LOGIT if plan.broken else None)]


def _measure_regions(plan: Plan) -> list[Quantity]:
    frozen = _LOGIT if plan.broken else None
    out = []
    for name, config, sigma_init, side in _REGIONS:
        ratios = []
        for s in range(plan.size(100)):
            g = plan.generator(name, s)
            data = sample(config, g)
            W = init(8, config.dim, sigma_init, g)
            # filters of one draw share its data: their mean is one sample
            ratios.append(_alignment_ratio(W, data, 0.05, frozen).mean())
            if s == 0:
                out.append(_slope(f"d ratio / d rho, {name}", W, data, frozen))
        estimate = Estimate.of(torch.stack(ratios))
        label = f"SAM/GD at rho=.05, {name}"
        out.append(quantity(label, estimate, 1.0, side, len(ratios) - 1))
    return out


def _alignment_ratio(W: Tensor, data: Dataset, rho: float, logits: float | None) -> Tensor:
    sam, plain = sam_gradient(W, data, rho, logits), gradient(W, data, logits)
    return noise_alignment(sam, W, data) / noise_alignment(plain, W, data)


def _slope(label: str, W: Tensor, data: Dataset, logits: float | None) -> Quantity:
    """Slope of the ratio in rho at rho = 0 for filter 0, by a central difference."""
    step = 1e-7
    g = gradient(W, data, logits)
    scale = step / norm(g)
    up, down = (gradient(W + sign * scale * g, data, logits) for sign in (1, -1))
    base = noise_alignment(g, W, data)[0]
    slope = (noise_alignment(up, W, data) - noise_alignment(down, W, data))[0] / (2 * step * base)
    projections = noise_projections(W, data)
    norm2 = data.x[:, 1].square().sum(-1)
    l = logit_term(W, data)
    share = torch.where(data.is_fast, (l * data.is_fast).mean(), (l * ~data.is_fast).mean())
    quartic = W[:, [FAST, SLOW]].pow(4).sum(0)
    config = data.config
    given = {
        "beta": torch.where(data.is_fast, config.beta_fast, config.beta_slow).numpy(),
        "mean_logit": share.numpy(),
        "feature_quartic": torch.where(data.is_fast, quartic[0], quartic[1]).numpy(),
        "logit": l.numpy(),
        "noise_quartic": (projections.pow(4).sum(1) * norm2).numpy(),
    }
    own, squared, size = projections[:, 0].numpy(), norm2.numpy(), float(norm(gradient(W, data)))
    n = config.n_examples

    def predict() -> float:
        shift = theory.logit_shift(1.0, size, n_examples=n, **given)
        return theory.moving_logit_ratio(1.0, size, n, given["logit"], shift, own, squared) - 1

    # the error is that of the difference quotient
    return exact(label, slope, predict, rounding=1e-4)


CHECKS = (
    Check(
        "sam-feature-factor",
        "logits are frozen (control: they move with the perturbed weights)",
        _measure_features,
    ),
    Check(
        "sam-noise-damping",
        "noise patches are orthogonal (control: independent Gaussian patches, n near d)",
        _measure_noise,
    ),
    Check(
        "sam-noise-damping-gaussian",
        "noise is orthogonal, or independent, as stated (control: the one in place of the other)",
        combine(_orthogonal_damping, _independent_damping, _cross_terms),
    ),
    Check(
        "sam-boundary",
        "logits move (control: frozen logits, where damping always wins)",
        combine(_mixed_slope, _measure_regions),
    ),
)
