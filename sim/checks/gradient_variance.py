"""Theorem 4.3: mini-batch gradient variance of original, upsampled and generated data.

Few examples in few dimensions, so that the finite-size terms (N' − 1, d' + 4, ...) weigh
enough to be tested. In some cases W is redrawn for each pair of gradients, so that the
expectation over W⁽⁰⁾ is tested too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import DRAWN, Check, Plan, Quantity, quantity, ratio
from sim.checks.gradients import mean_over_batches, pair_shares
from sim.data import SLOW, DataConfig, generate, sample, upsample
from sim.measure import Estimate, filter_sums
from sim.network import init
from theory import gradient_variance as theory

_LOGIT, _FILTERS, _SIGMA_INIT = 0.4, 16, 0.8
_CHUNK = 2_000  # draws at a time: what fits into the processor's cache

_NOISY = DataConfig(n_examples=5, dim=14, alpha=0.8, beta_slow=0.3, sigma_noise=0.9)
_CLEAN = DataConfig(n_examples=5, dim=4, alpha=0.6, beta_fast=1.2, beta_slow=0.8, sigma_noise=0.35)
_FLAT = DataConfig(
    n_examples=5, dim=7, alpha=0.6, beta_fast=1.2, beta_slow=0.8, sigma_noise=0.35
)  # lighter tails, for a mean over W(0)
_THREE_PATCHES = DataConfig(n_examples=6, dim=5, n_patches=3, alpha=0.5, sigma_noise=0.6)
_TINY = DataConfig(n_examples=2, dim=12, alpha=0.5, beta_slow=0.5, sigma_noise=0.4)
_QUIET = DataConfig(n_examples=2, dim=12, alpha=0.5, beta_slow=0.9, sigma_noise=0.2)


@dataclass(frozen=True)
class _Case:
    """A world, its augmentation, how mini-batches are drawn, and over how many data sets."""

    config: DataConfig
    sigma_synthetic: float
    k: int
    batch_size: int
    draws: int
    replacement: bool = False
    random_filters: bool = False

    def __str__(self) -> str:
        return (
            f"k={self.k} B={self.batch_size} P={self.config.n_patches} d'={self.config.dim_noise}"
            + " with replacement" * self.replacement
            + ", mean over W(0)" * self.random_filters
        )


_CASES = (
    _Case(_NOISY, 0.9, 3, 7, 32_000),
    _Case(_NOISY, 1.0, 3, 5, 18_000, replacement=True),
    _Case(_FLAT, 0.5, 2, 3, 60_000, random_filters=True),
    _Case(_CLEAN, 0.5, 2, 3, 32_000, replacement=True),
    _Case(_THREE_PATCHES, 0.5, 2, 4, 40_000, random_filters=True),
    _Case(_TINY, 0.4, 2, 3, 44_000),
    _Case(_QUIET, 0.25, 2, 2, 14_000),
    _Case(_TINY, 0.5, 2, 3, 26_000, replacement=True),
)


def _measure(plan: Plan) -> list[Quantity]:
    out = []
    for number, case in enumerate(_CASES):
        fixed = init(_FILTERS, case.config.dim, _SIGMA_INIT, plan.fixed(number), dtype=DRAWN)
        fixed[:, SLOW] *= 2  # so that the slow feature's variance can be seen beside the fast one's
        filters = None if case.random_filters else filter_sums(fixed)
        samples = _variances(plan, number, case, fixed)
        for arm, values in samples.items():
            predict = partial(_variance, case, filters, arm)
            out.append(quantity(f"{arm}, {case}", Estimate.of(values), predict))
        size = _sizes(case)["upsampled"]
        sigmas = case.config.sigma_noise, case.sigma_synthetic
        if case.batch_size == size and not case.replacement and sigmas[0] == sigmas[1]:
            # where N' − B = 0 the features vary no more, and only U's shared noise is left
            share = ratio(samples["upsampled"], samples["generated"])
            label = f"extra term of U at the full batch, V_U/V_G - 1, k={case.k}"
            estimate = share.through(share.mean - 1, 1.0)
            out.append(quantity(label, estimate, partial(_extra_term, case)))
    return out


def _sizes(case: _Case) -> dict[str, int]:
    """Number of examples of each arm that a batch can be drawn from."""
    slow = case.config.n_examples - round(case.config.alpha * case.config.n_examples)
    size = case.config.n_examples + (case.k - 1) * slow
    sizes = {"original": case.config.n_examples, "upsampled": size, "generated": size}
    return {a: n for a, n in sizes.items() if case.replacement or case.batch_size <= n}


def _variances(plan: Plan, number: int, case: _Case, fixed: Tensor) -> dict[str, Tensor]:
    """Samples, for each arm, that average to the variance of a mini-batch's gradient given W."""
    g = plan.generator("draws", number)
    kept = 1.0 if plan.broken else 0.0
    pairs = {a: pair_shares(n, case.batch_size, case.replacement) for a, n in _sizes(case).items()}
    samples: dict[str, list[Tensor]] = {arm: [] for arm in pairs}
    for chunk in torch.arange(plan.size(case.draws)).split(_CHUNK):
        W = fixed
        if case.random_filters:
            W = init(_FILTERS, case.config.dim, _SIGMA_INIT, g, (len(chunk),), DRAWN)
        # two independent data sets at the same W
        both = []
        for _ in range(2):
            data = sample(case.config, g, (len(chunk),), DRAWN)
            made = generate(data, case.k, g, sigma_synthetic=case.sigma_synthetic, kept_noise=kept)
            both.append({"original": data, "upsampled": upsample(data, case.k), "generated": made})
        for arm, found in samples.items():
            (squares, mean), (squares2, mean2) = (
                mean_over_batches(W, data[arm], pairs[arm], _LOGIT) for data in both
            )
            # E‖g‖² − ⟨Eg, Eg⟩: the variance given W
            found.append((squares + squares2) / 2 - (mean * mean2).sum((-1, -2)))
    return {arm: torch.cat(found) for arm, found in samples.items()}


def _extra_term(case: _Case) -> float:
    """(26)."""
    config = case.config
    return theory.upsampling_extra_term(config.alpha, case.k, case.batch_size, config.n_examples)


def _variance(case: _Case, filters: theory.Filters | None, arm: str) -> float:
    """(24), (25) at these filters, or in expectation over W⁽⁰⁾."""
    config = case.config
    return theory.gradient_variance(
        config.n_examples,
        config.dim,
        filters or theory.expected_filters(_FILTERS, config.dim, _SIGMA_INIT),
        config.alpha,
        config.beta_fast,
        config.beta_slow,
        config.sigma_noise,
        case.sigma_synthetic,
        case.k,
        case.batch_size,
        _LOGIT,
        config.n_patches,
        case.replacement,
    )[arm]


CHECKS = (
    Check(
        "gradient-variance",
        "synthetic noise is fresh (control: each synthetic example keeps its source's noise)",
        _measure,
    ),
)
