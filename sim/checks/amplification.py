"""Theorem 4.2: equal feature learning in U(k) and G(k), unequal noise, and the tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Quantity, exact, quantity, ratio
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate, noise_projections
from sim.network import gradient, init
from theory import amplification

_LOGIT = 0.5


# --- Equations (13), (14): features --------------------------------------------------------------


def _measure_features(plan: Plan) -> list[Quantity]:
    config = DataConfig(
        n_examples=200, dim=30, alpha=0.7, beta_fast=1.2, beta_slow=0.6, sigma_noise=0.2
    )
    g = plan.generator(20)
    data = sample(config, g)
    W = init(1, config.dim, 0.3, g)
    # matched filters; the control gives the slow feature a head start of a tenth
    W[:, FAST], W[:, SLOW] = 0.5, 0.55 if plan.broken else 0.5
    k = 3
    out = []
    for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g))):
        grad = gradient(W, augmented, _LOGIT)
        for feature, name, beta, share in (
            (FAST, "fast", config.beta_fast, config.alpha),
            (SLOW, "slow", config.beta_slow, k * (1 - config.alpha)),
        ):
            out.append(
                exact(
                    f"growth of v_{name} in {arm}({k})",
                    -grad[0, feature],
                    what="growth",
                    beta=beta,
                    share=share,
                    projection=0.5,
                    alpha=config.alpha,
                    k=k,
                    n=config.n_examples,
                )
            )
    out.append(
        exact(
            "k that equalises growth",
            _equalising_k(W, data),
            what="k_star",
            alpha=config.alpha,
            beta_fast=config.beta_fast,
            beta_slow=config.beta_slow,
        )
    )
    return out


def _equalising_k(W: Tensor, data: Dataset) -> float:
    """The k at which both features grow alike in U(k), between the integers that bracket it."""

    def excess(k: int) -> float:
        grad = gradient(W, upsample(data, k), _LOGIT)
        growth = float(grad[0, FAST] - grad[0, SLOW])
        return growth * upsample(data, k).n  # linear in k once the size N' is undone

    k = 1
    while excess(k + 1) < 0:
        k += 1
    low, high = excess(k), excess(k + 1)
    return k - low / (high - low)


def _predict_features(given: Mapping[str, Any]) -> float:
    if given["what"] == "k_star":
        return amplification.k_star(given["alpha"], given["beta_fast"], given["beta_slow"])
    return amplification.feature_gradient(
        given["beta"],
        given["share"],
        _LOGIT,
        given["projection"],
        given["n"] / amplification.n_augmented(given["n"], given["alpha"], given["k"]),
    )


# --- Equations (15) to (19): noise alignment -----------------------------------------------------

# Few examples in few dimensions: in expectation orthogonality is not needed, and the additive
# constants weigh enough to be tested.
_SMALL = DataConfig(n_examples=10, dim=5, alpha=0.5, sigma_noise=0.5)
_WIDE = DataConfig(n_examples=10, dim=32, alpha=0.5, sigma_noise=0.2)
_FILTERS = 16


def _positive_part(data: Dataset, W: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over all filters j of y<-grad_j, xi> on I_{j,+}, and of |I_{j,+}|, in each draw."""
    along = noise_projections(-gradient(W, data, _LOGIT), data)
    on = noise_projections(W, data) > 0
    return torch.where(on, along, 0.0).sum((-1, -2)), on.sum((-1, -2))


def _measure_alignment(plan: Plan) -> list[Quantity]:
    draws = plan.size(80_000)
    W = init(_FILTERS, _SMALL.dim, 0.5, plan.generator(21))
    given = {
        "alpha": _SMALL.alpha,
        "n_examples": _SMALL.n_examples,
        "sigma_noise": _SMALL.sigma_noise,
        "w_norm": float(W[:, 2:].norm(dim=1).square().mean().sqrt()),
        "dim_noise": _SMALL.dim - 2,
    }
    kept = 0.7 if plan.broken else 0.0
    out = []
    for k, sigma in ((2, 0.5), (3, 0.5), (3, 0.65), (5, 0.5)):
        g = plan.generator(22, k)
        data = sample(_SMALL, g, (draws,))
        copies, count_u = _positive_part(upsample(data, k), W)
        made, count_g = _positive_part(
            generate(data, k, g, sigma_synthetic=sigma, kept_noise=kept), W
        )
        inputs = {**given, "k": k, "sigma_synthetic": sigma}
        if k == 3 and sigma == _SMALL.sigma_noise:
            plain, count = _positive_part(data, W)
            for arm, total, size in (
                ("original", plain, count),
                ("upsampled", copies, count_u),
                ("generated", made, count_g),
            ):
                out.append(
                    quantity(f"NoiseAlign, {arm}, k={k}", ratio(total, size), what=arm, **inputs)
                )
        # both arms see the same originals, so their ratio is far sharper than either alone
        share = count_g.double().mean() / count_u.double().mean()
        estimate = ratio(made, copies)
        scaled = Estimate(estimate.mean / float(share), estimate.standard_error / float(share))
        label = f"G/U, k={k}, sigma_synthetic/sigma_noise={sigma / 0.5:.2g}"
        out.append(quantity(label, scaled, what="ratio", **inputs))
    return out


def _predict_alignment(given: Mapping[str, Any]) -> float:
    if given["what"] == "ratio":
        return amplification.generated_over_upsampled(
            given["alpha"], given["k"], given["sigma_noise"], given["sigma_synthetic"]
        )
    return amplification.noise_alignment(
        given["what"],
        given["alpha"],
        given["k"],
        given["n_examples"],
        _LOGIT,
        given["sigma_noise"],
        given["sigma_synthetic"],
        given["w_norm"],
        given["dim_noise"],
    )


# --- Equation (20): the tolerance, located by bisection ------------------------------------------


def _measure_tolerance(plan: Plan) -> list[Quantity]:
    groups = plan.size(60)
    W = init(_FILTERS, _WIDE.dim, 0.5, plan.generator(23))
    out = []
    for k, draws in ((2, 300), (3, 150), (5, 60)):
        g = plan.generator(24, k)
        data = sample(_WIDE, g, (groups, draws))
        target = _group_alignment(upsample(data, k), W)
        made = generate(data, k, g, kept_noise=0.6 if plan.broken else 0.0)
        low, high = torch.zeros(groups).double(), torch.full((groups,), 4.0 * (k + 1)).double()
        for _ in range(16):
            r = (low + high) / 2
            above = _group_alignment(_with_noise_ratio(made, r), W) > target
            low, high = torch.where(above, low, r), torch.where(above, r, high)
        crossing = (low + high) / 2
        label = f"r at which G({k}) aligns as much as U({k})"
        out.append(quantity(label, Estimate.of(crossing), dof=groups - 1, what="r", k=k))
        label = f"sigma ratio at which G({k}) aligns as much as U({k})"
        ratio_of_sigmas = Estimate.of(crossing.pow(0.25))
        out.append(quantity(label, ratio_of_sigmas, dof=groups - 1, what="sigma", k=k))
    return out


def _group_alignment(data: Dataset, W: Tensor) -> Tensor:
    total, count = _positive_part(data, W)
    return total.sum(-1) / count.sum(-1)


def _with_noise_ratio(data: Dataset, r: Tensor) -> Dataset:
    """The same draws with synthetic noise of ratio r = (sigma_synthetic/sigma_noise)⁴ per group."""
    x = data.x.clone()
    x[..., data.n_original :, :, 2:] *= r.pow(0.25)[:, None, None, None, None]
    return replace(data, x=x)


def _predict_tolerance(given: Mapping[str, Any]) -> float:
    if given["what"] == "sigma":
        return amplification.sigma_tolerance(given["k"])
    return amplification.noise_tolerance(given["k"])


CHECKS = (
    Check(
        "amplification",
        "filters are matched (control: the slow feature starts a tenth ahead)",
        _measure_features,
        _predict_features,
    ),
    Check(
        "noise-alignment",
        "synthetic noise is fresh (control: it keeps tau = .7 of the original's)",
        _measure_alignment,
        _predict_alignment,
    ),
    Check(
        "noise-tolerance",
        "synthetic noise is fresh (control: it keeps tau = .6 of the original's)",
        _measure_tolerance,
        _predict_tolerance,
    ),
)
