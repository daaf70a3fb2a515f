"""Theorems 4.1 to 4.3 of the cubic network as quantities, for the checks of what leaves them alone.

Each function measures on data of any kind; predictions know the shares of wrong labels, noise in
all coordinates, and more patches.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sim.checks.amplification import expected_alignment
from sim.checks.base import DRAWN, Plan, Quantity, exact, power_product, quantity, ratio
from sim.checks.gradients import LOGIT, Batch, positive_part, variance_samples
from sim.checks.sam import feature_factor, noise_factor
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate, filter_sums, noise_projections
from sim.network import gradient, init, norm
from sim.optim import sam_gradient
from theory import amplification, extensions, gradient_variance
from theory.claims import CLAIMS
from theory.gradient_variance import Filters

NAMES = ((FAST, "fast"), (SLOW, "slow"))
BATCHES: tuple[Batch, ...] = ((3, False), (6, False), (3, True))


def _beta(config: DataConfig, feature: int) -> float:
    return config.beta_fast if feature == FAST else config.beta_slow


def _share(config: DataConfig, feature: int, k: int) -> float:
    """Of the original data, what counts towards a feature in U(k) and G(k)."""
    return config.alpha if feature == FAST else k * (1 - config.alpha)


def sam(data: Dataset, W: Tensor) -> list[Quantity]:
    """(5) and (7) on one data set: SAM over GD along both features and along noise patches."""
    plain, rho = gradient(W, data, LOGIT), 0.4
    moved = sam_gradient(W, data, rho, LOGIT)
    size = float(norm(plain))
    config, out = data.config, []
    for v, name in NAMES:
        carries = data.is_fast if v == FAST else ~data.is_fast
        out.append(
            exact(
                f"SAM/GD along v_{name}, P={config.n_patches}",
                moved[0, v] / plain[0, v],
                partial(
                    _sam_feature,
                    config.label_noise if v == FAST else config.wrong_slow,
                    rho,
                    _beta(config, v),
                    LOGIT * float(carries.double().mean()),
                    size,
                    float(W[0, v]),
                ),
            )
        )
    projections = noise_projections(W, data)
    factor = noise_projections(moved, data) / noise_projections(plain, data)
    norm2 = data.x[data.is_noise].square().sum(-1)
    for which, i in (
        ("most aligned", int(projections[:, 0].argmax())),
        ("least aligned", int(projections[:, 0].argmin())),
    ):
        out.append(
            exact(
                f"SAM/GD along the {which} noise patch, P={config.n_patches}",
                factor[i, 0],
                partial(
                    noise_factor,
                    rho,
                    LOGIT,
                    data.n,
                    size,
                    float(projections[i, 0]),
                    float(norm2[i]),
                ),
            )
        )
    return out


def growths(data: Dataset, W: Tensor, k: int, g: torch.Generator) -> list[Quantity]:
    """(13) on one data set: growth of the features in U(k) and G(k)."""
    return [
        exact(
            f"growth of v_{name} in {arm}({k})",
            -gradient(W, augmented, LOGIT)[0, v],
            partial(growth, data.config, v, float(W[0, v]), k),
        )
        for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g)))
        for v, name in NAMES
    ]


def alignments(
    plan: Plan, key: int, config: DataConfig, W: Tensor, draws: int, one_patch: bool = False
) -> list[Quantity]:
    """(15) to (19): NoiseAlign of U(3), and of G(3) over it with somewhat larger noise.

    one_patch: an example's noise patches are `repeated`.
    """
    g, k, sigma = plan.generator(key), 3, 1.15 * config.sigma_noise
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {"U": [], "G": []}
    for _ in range(plan.size(draws)):
        data = sample(config, g, (1000,), W.dtype)
        for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g, sigma))):
            parts[arm].append(positive_part(repeated(augmented) if one_patch else augmented, W))
    total, count = (
        {arm: torch.cat([part[i] for part in found]) for arm, found in parts.items()}
        for i in range(2)
    )
    over = power_product((total["G"], 1), (total["U"], -1), (count["G"], -1), (count["U"], 1))
    w_norm = float(W[:, 2:].norm(dim=1).square().mean().sqrt())
    label = f"NoiseAlign, P={config.n_patches}"
    return [
        quantity(
            f"{label}, U({k})",
            ratio(total["U"], count["U"]),
            lambda: expected_alignment("upsampled", config, k, sigma, LOGIT, w_norm),
        ),
        quantity(
            f"{label}, G({k})/U({k})",
            over,
            lambda: amplification.generated_over_upsampled(
                config.alpha, k, config.sigma_noise, sigma
            ),
        ),
    ]


def variances(
    plan: Plan,
    key: int,
    config: DataConfig,
    simulated: DataConfig,
    W: Tensor,
    draws: int,
    one_patch: bool = False,
) -> list[Quantity]:
    """(24), (25): gradient variance over data and batches of U(2) and G(2); config predicts."""
    k, sigma = 2, 1.1 * config.sigma_noise
    samples: dict[str, list[Tensor]] = {"U": [], "G": []}
    for chunk in range(plan.size(draws)):
        g = plan.generator(key, chunk)
        data = sample(simulated, g, (2, 1000), W.dtype)
        for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g, sigma))):
            values = variance_samples(W, repeated(augmented) if one_patch else augmented, BATCHES)
            samples[arm].append(torch.stack(values))
    sums = filter_sums(W)
    if config.noise == "isotropic":
        sums = Filters(
            float(W.square().sum(1).square().sum()), sums.fast_quartic, sums.slow_quartic
        )
    label = f"variance, P={config.n_patches}"
    return [
        quantity(
            f"{label}, {arm}({k}) B={batch[0]}" + " with replacement" * batch[1],
            Estimate.of(values),
            partial(
                variance, {"U": "upsampled", "G": "generated"}[arm], config, sums, sigma, k, batch
            ),
        )
        for arm, parts in samples.items()
        for batch, values in zip(BATCHES, torch.cat(parts, -1), strict=True)
    ]


def repeated(data: Dataset) -> Dataset:
    """The same with one noise patch in all noise places of an example."""
    x = data.x.clone()
    x[..., 2:, :] = x[..., 1:2, :]
    return replace(data, x=x)


def unit_filters(
    config: DataConfig,
    generator: torch.Generator,
    filters: int = 6,
    dtype: torch.dtype = DRAWN,
) -> Tensor:
    """Filters of unit length off the features, and ⟨w,v⟩ of .8 or −.8."""
    W = init(filters, config.dim, 1.0, generator, dtype=dtype)
    W[:, 2:] /= W[:, 2:].norm(dim=1, keepdim=True)
    W[:, :2] = 0.8 * W[:, :2].sign()
    return W


# --- Predictions ---------------------------------------------------------------------------------


def growth(config: DataConfig, feature: int, projection: float, k: int) -> float:
    """(13), of the share of examples whose label is right."""
    share, size = _share(config, feature, k), amplification.n_augmented(1, config.alpha, k)
    rate = amplification.feature_gradient(
        _beta(config, feature), share, LOGIT, projection, 1 / size
    )
    given = {"label_noise": config.label_noise, "label_noise_slow": config.wrong_slow}
    kept = CLAIMS["label-noise"].predict(**given)
    return rate * kept["growth_fast" if feature == FAST else "growth_slow"]


def _sam_feature(
    wrong: float,
    rho: float,
    beta: float,
    mean_logit: float,
    gradient_norm: float,
    projection: float,
) -> float:
    """(5), whose κ wrong labels shrink."""
    kept = extensions.label_noise_growth(wrong)
    return feature_factor(rho * kept, beta, mean_logit, gradient_norm, projection)


def features(
    config: DataConfig, filters: Filters, k: int, batch: Batch, exact_counts: bool = True
) -> float:
    """(E9): the features' variance with wrong labels."""
    squares = (
        9 * LOGIT**2 * config.beta_fast**6 * filters.fast_quartic,
        9 * LOGIT**2 * config.beta_slow**6 * filters.slow_quartic,
    )
    size, replacement = batch
    parts = extensions.label_parts(3, False, config.label_noise)
    return extensions.feature_part_variance(
        config.n_fast, config.n_slow, k, size, squares, parts, replacement, exact_counts
    )


def variance(
    arm: str, config: DataConfig, filters: Filters, sigma_synthetic: float, k: int, batch: Batch
) -> float:
    """(24), (25), with wrong labels (E9) in place of the features' part."""
    of_features = 0.0
    if config.label_noise:
        of_features = features(config, filters, k, batch)
        filters = replace(filters, fast_quartic=0.0, slow_quartic=0.0)
    size, replacement = batch
    variances = gradient_variance.gradient_variance(
        config.n_examples,
        config.dim + 2 - config.noise_from,  # noise of more dimensions is that of a larger d
        filters,
        config.alpha,
        config.beta_fast,
        config.beta_slow,
        config.sigma_noise,
        sigma_synthetic,
        k,
        size,
        LOGIT,
        config.n_patches,
        replacement,
    )
    return of_features + variances[arm]
