"""Theorem 4.2: equal feature learning in U(k) and G(k), unequal noise, and the tolerance."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sim.checks.base import (
    DRAWN,
    Check,
    Plan,
    Quantity,
    combine,
    constant,
    exact,
    power_product,
    predicted,
    quantity,
    ratio,
)
from sim.checks.gradients import LOGIT, alignment_excess, equal_alignment, positive_part
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.network import gradient, init
from sim.optim import Space, step
from sim.train import prepare
from theory import amplification

_LOGIT = LOGIT


# --- Equations (13), (14): features --------------------------------------------------------------


def _growths(plan: Plan) -> list[Quantity]:
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
                    partial(_growth, beta, share, config.alpha, k),
                )
            )
    out.append(
        exact(
            "k that equalises growth",
            _equalising_k(W, data),
            predicted(
                "amplification",
                "k_star",
                alpha=config.alpha,
                beta_fast=config.beta_fast,
                beta_slow=config.beta_slow,
            ),
        )
    )
    return out


def _growth(beta: float, share: float, alpha: float, k: int) -> float:
    """(13) at a projection of 1/2."""
    size = amplification.n_augmented(1, alpha, k)
    return amplification.feature_gradient(beta, share, _LOGIT, 0.5, 1 / size)


def _learning_times(plan: Plan) -> list[Quantity]:
    """Equations (32) and (33): GD with frozen logits until each projection has grown 4-fold."""
    config = DataConfig(
        n_examples=40, dim=400, alpha=0.7, beta_fast=1.2, beta_slow=0.8, noise="orthogonal"
    )
    lr, start, k = 0.04, 0.05, 3
    data = sample(config, plan.generator(25))
    # patches of their typical length; a filter for each direction, all with the same projection
    # on it. One by one, because each grows without bound while the others still wait.
    patches = data.x[:, 1]
    patches *= config.sigma_noise * config.dim**0.5 / patches.norm(dim=-1, keepdim=True)
    slow = ~data.is_fast
    directions = {
        "fast": torch.eye(config.dim, dtype=patches.dtype)[FAST],
        "slow": torch.eye(config.dim, dtype=patches.dtype)[SLOW] * (1.1 if plan.broken else 1),
        "noise": data.y[slow] @ (patches[slow] / patches[slow].norm(dim=-1, keepdim=True)),
    }
    out = []
    arms = {"original": (data, 1), f"U({k})": (upsample(data, k), k)}
    arms[f"G({k})"] = (generate(data, k, plan.generator(26)), k)
    for name, (augmented, copies) in arms.items():
        steps = {
            key: _steps_to_grow(prepare(start * w.unsqueeze(0), augmented, backend="span"), lr)
            for key, w in directions.items()
        }
        for label, beta, share in (
            ("fast", config.beta_fast, config.alpha),
            ("slow", config.beta_slow, copies * (1 - config.alpha)),
        ):
            out.append(
                exact(
                    f"steps until v_{label} is learned in {name}",
                    steps[label],
                    partial(
                        amplification.learning_time,
                        beta,
                        share * config.n_examples / augmented.n,
                        _LOGIT,
                        start,
                        lr,
                        4 * start,
                    ),
                    rounding=0.02,  # steps are not a flow
                )
            )
        out.append(
            exact(
                f"slow feature's time over its noise's in {name}",
                steps["slow"] / steps["noise"],
                partial(memorisation, config, divided_by=k if name[0] == "G" else 1),
                rounding=0.02,
            )
        )
    return out


def memorisation(config: DataConfig, divided_by: int = 1) -> float:
    """(33), on G(k) divided by k."""
    ratio = amplification.memorisation_ratio(
        config.sigma_noise, config.dim, config.alpha, config.n_examples, config.beta_slow
    )
    return ratio / divided_by


def _steps_to_grow(space: Space, lr: float) -> int:
    """Steps of GD with frozen logits until the largest projection is 4 times what it was."""
    state, steps = space.initial, 0
    target = 4 * float(space.project(state).abs().max())
    while float(space.project(state).abs().max()) < target:
        state = step(space, state, lr, logits=_LOGIT)
        steps += 1
    return steps


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


# --- Equations (15) to (19): noise alignment -----------------------------------------------------

# Few examples in few dimensions: in expectation orthogonality is not needed, and the additive
# constants weigh enough to be tested.
_SMALL = DataConfig(n_examples=10, dim=5, alpha=0.5, sigma_noise=0.5)
_WIDE = DataConfig(n_examples=10, dim=32, alpha=0.5, sigma_noise=0.2)
_FILTERS = 16


def _measure_alignment(plan: Plan) -> list[Quantity]:
    W = init(_FILTERS, _SMALL.dim, 0.5, plan.fixed("alignment"), dtype=DRAWN)
    w_norm = float(W[:, 2:].norm(dim=1).square().mean().sqrt())
    out = []
    for case, (k, sigma, chunks) in enumerate(
        ((2, 0.5, 8), (3, 0.5, 18), (3, 0.65, 18), (5, 0.5, 14))
    ):
        # the original data alone, and each arm's own number, are measured once
        alone = k == 3 and sigma == _SMALL.sigma_noise
        total, count = _alignments(plan, W, case, k, sigma, chunks, alone)
        if alone:
            for arm in total:
                estimate = ratio(total[arm], count[arm])
                predict = partial(expected_alignment, arm, _SMALL, k, sigma, _LOGIT, w_norm)
                out.append(quantity(f"NoiseAlign, {arm}, k={k}", estimate, predict))
        # both arms see the same originals, so their ratio is far sharper than either alone
        both = power_product(
            (total["generated"], 1),
            (total["upsampled"], -1),
            (count["generated"], -1),
            (count["upsampled"], 1),
        )
        label = f"G/U, k={k}, sigma_synthetic/sigma_noise={sigma / 0.5:.2g}"
        world = _SMALL.alpha, k, _SMALL.sigma_noise, sigma
        out.append(quantity(label, both, partial(amplification.generated_over_upsampled, *world)))
    return out


def _alignments(
    plan: Plan, W: Tensor, case: int, k: int, sigma_synthetic: float, chunks: int, alone: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`positive_part` of each arm over many draws, a cache-sized chunk of draws at a time."""
    g = plan.generator("alignment", case)
    arms = ("original", "upsampled", "generated") if alone else ("upsampled", "generated")
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {arm: [] for arm in arms}
    for _ in range(plan.size(chunks)):
        data = sample(_SMALL, g, (2000,), DRAWN)
        kept = 0.7 if plan.broken else 0.0
        made = generate(data, k, g, sigma_synthetic=sigma_synthetic, kept_noise=kept)
        augmented = {"original": data, "upsampled": upsample(data, k), "generated": made}
        for arm in arms:
            parts[arm].append(positive_part(augmented[arm], W))
    total = {arm: torch.cat([t for t, _ in parts[arm]]) for arm in arms}
    return total, {arm: torch.cat([c for _, c in parts[arm]]) for arm in arms}


def expected_alignment(
    arm: str, config: DataConfig, k: int, sigma_synthetic: float, logit: float, w_norm: float
) -> float:
    """(15) to (17)."""
    return amplification.noise_alignment(
        arm,
        config.alpha,
        k,
        config.n_examples,
        logit,
        config.sigma_noise,
        sigma_synthetic,
        w_norm,
        config.dim - config.noise_from,
    )


# --- Equation (20): the tolerance ----------------------------------------------------------------


def _measure_tolerance(plan: Plan) -> list[Quantity]:
    W = init(_FILTERS, _WIDE.dim, 0.5, plan.fixed("tolerance"), dtype=DRAWN)
    out = []
    for k, draws in ((2, 8_000), (3, 5_000), (5, 4_000)):
        g = plan.generator("tolerance", k)
        chunks = []
        for chunk in torch.arange(plan.size(draws)).split(500):
            data = sample(_WIDE, g, (len(chunk),), DRAWN)
            made = generate(data, k, g, kept_noise=0.6 if plan.broken else 0.0)
            chunks.append(alignment_excess(upsample(data, k), made, W))
        factor = equal_alignment(torch.cat(chunks, -1))
        label = f"sigma ratio at which G({k}) aligns as much as U({k})"
        out.append(quantity(label, factor, partial(amplification.sigma_tolerance, k)))
        noise = factor.through(factor.mean**4, 4 * factor.mean**3)
        label = f"r at which G({k}) aligns as much as U({k})"
        out.append(quantity(label, noise, partial(amplification.noise_tolerance, k)))
    return out


CHECKS = (
    Check(
        "amplification",
        "filters are matched (control: the slow feature starts a tenth ahead)",
        combine(_growths, constant(_learning_times)),
    ),
    Check(
        "noise-alignment",
        "synthetic noise is fresh (control: it keeps tau = .7 of the original's)",
        _measure_alignment,
    ),
    Check(
        "noise-tolerance",
        "synthetic noise is fresh (control: it keeps tau = .6 of the original's)",
        _measure_tolerance,
    ),
)
