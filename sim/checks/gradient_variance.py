"""Theorem 4.3: mini-batch gradient variance of original, upsampled and generated data.

Few examples in few dimensions, so that the finite-size terms (N' − 1, d' + 4, ...) weigh
enough to be tested. In some cases W is drawn anew for each pair of gradients, so that the
expectation over W⁽⁰⁾ is tested too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Quantity, quantity
from sim.data import SLOW, DataConfig, Dataset, batch_index, generate, sample, upsample
from sim.measure import Estimate, filter_sums
from sim.network import gradient, init
from theory import gradient_variance as theory

_LOGIT, _FILTERS, _SIGMA_INIT = 0.4, 16, 0.8
_CHUNK = 4_000  # draws at a time: what fits into the processor's cache

_NOISY = DataConfig(n_examples=5, dim=8, alpha=0.8, beta_slow=0.3, sigma_noise=0.9)
_CLEAN = DataConfig(n_examples=5, dim=4, alpha=0.6, beta_fast=1.2, beta_slow=0.8, sigma_noise=0.35)
_THREE_PATCHES = DataConfig(n_examples=6, dim=5, n_patches=3, alpha=0.5, sigma_noise=0.6)
_TINY = DataConfig(n_examples=2, dim=12, alpha=0.5, beta_slow=0.5, sigma_noise=0.4)
_QUIET = DataConfig(n_examples=2, dim=12, alpha=0.5, beta_slow=0.9, sigma_noise=0.2)
_CASES = (
    # config, sigma_synthetic, k, batch size, replacement, random W
    (_NOISY, 0.9, 3, 7, False, False),
    (_NOISY, 1.0, 3, 5, True, False),
    (_CLEAN, 0.5, 2, 3, False, True),
    (_CLEAN, 0.5, 2, 3, True, False),
    (_THREE_PATCHES, 0.5, 2, 4, False, True),
    (_TINY, 0.4, 2, 3, False, False),
    (_QUIET, 0.25, 2, 2, False, False),
    (_TINY, 0.5, 2, 3, True, False),
)


def _measure(plan: Plan) -> list[Quantity]:
    out = []
    for case, (config, sigma, k, batch_size, replacement, random) in enumerate(_CASES):
        fixed = init(_FILTERS, config.dim, _SIGMA_INIT, plan.generator(31, case))
        fixed[:, SLOW] *= 2  # so that the slow feature's variance can be seen beside the fast one's
        given = {
            "config": config,
            "filters": None if random else filter_sums(fixed),
            "sigma_synthetic": sigma,
            "k": k,
            "batch_size": batch_size,
            "replacement": replacement,
        }
        samples: dict[str, list[Tensor]] = {"original": [], "upsampled": [], "generated": []}
        for chunk in range(plan.size(30)):
            g = plan.generator(30, case, chunk)
            W = fixed.expand(_CHUNK, *fixed.shape)
            if random:
                W = init(_FILTERS, config.dim, _SIGMA_INIT, g, (_CHUNK,))
            for arm, collected in samples.items():
                if arm == "original" and batch_size > config.n_examples:
                    continue
                pair = [
                    _batch_gradient(W, arm, config, sigma, k, batch_size, replacement, plan, g)
                    for _ in range(2)
                ]
                # E‖g − g'‖²/2 over independent pairs at the same W is the variance given W
                collected.append((pair[0] - pair[1]).square().sum((-1, -2)) / 2)
        label = f"k={k} B={batch_size} P={config.n_patches}"
        label += " with replacement" * replacement + ", mean over W(0)" * random
        for arm, collected in samples.items():
            if collected:
                estimate = Estimate.of(torch.cat(collected))
                out.append(quantity(f"{arm}, {label}", estimate, what=arm, **given))
        full = batch_size == upsample(sample(config, plan.generator(31)), k).n
        if full and not replacement and sigma == config.sigma_noise:
            # where N' − B = 0 the features vary no more, and only U's shared noise is left
            up, made = (Estimate.of(torch.cat(samples[a])) for a in ("upsampled", "generated"))
            value = up.mean / made.mean
            error = value * math.hypot(up.standard_error / up.mean, made.standard_error / made.mean)
            label = "extra term of U at the full batch, V_U/V_G - 1"
            out.append(quantity(label, Estimate(value - 1, error), what="extra", **given))
    return out


def _batch_gradient(
    W: Tensor,
    arm: str,
    config: DataConfig,
    sigma_synthetic: float,
    k: int,
    batch_size: int,
    replacement: bool,
    plan: Plan,
    g: torch.Generator,
) -> Tensor:
    """Gradient of one fresh mini-batch of fresh data for each W in the batch."""
    data: Dataset = sample(config, g, W.shape[:-2])
    if arm == "upsampled":
        data = upsample(data, k)
    elif arm == "generated":
        kept = 1.0 if plan.broken else 0.0
        data = generate(data, k, g, sigma_synthetic=sigma_synthetic, kept_noise=kept)
    index = batch_index(data.n, batch_size, g, replacement, W.shape[:-2])
    return gradient(W, data.take(index), _LOGIT)


def _predict(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    if given["what"] == "extra":
        return theory.upsampling_extra_term(
            config.alpha, given["k"], given["batch_size"], config.n_examples
        )
    return theory.gradient_variance(
        config.n_examples,
        config.dim,
        given["filters"] or theory.expected_filters(_FILTERS, config.dim, _SIGMA_INIT),
        config.alpha,
        config.beta_fast,
        config.beta_slow,
        config.sigma_noise,
        given["sigma_synthetic"],
        given["k"],
        given["batch_size"],
        _LOGIT,
        config.n_patches,
        given["replacement"],
    )[given["what"]]


CHECKS = (
    Check(
        "gradient-variance",
        "synthetic noise is fresh (control: each synthetic example keeps its source's noise)",
        _measure,
        _predict,
    ),
)
