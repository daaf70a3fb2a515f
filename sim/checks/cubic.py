"""Theorems 4.1 to 4.3 of the cubic network as quantities, for the checks of what leaves them alone.

Each function measures on data of any kind; `predict` knows the shares of wrong labels, noise in all
coordinates, and more patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sim.checks.base import DRAWN, Plan, Quantity, exact, power_product, quantity, ratio
from sim.checks.gradients import LOGIT, Batch, positive_part, variance_samples
from sim.checks.printed import predicted
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate, filter_sums, noise_projections
from sim.network import gradient, init, norm
from sim.optim import sam_gradient
from theory import amplification, extensions, gradient_variance
from theory import sam as sam_theory
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
    given = {"rho": rho, "gradient_norm": float(norm(plain))}
    config, out = data.config, []
    for v, name in NAMES:
        carries = data.is_fast if v == FAST else ~data.is_fast
        out.append(
            exact(
                f"SAM/GD along v_{name}, P={config.n_patches}",
                moved[0, v] / plain[0, v],
                what="sam feature",
                beta=_beta(config, v),
                mean_logit=LOGIT * float(carries.double().mean()),
                projection=float(W[0, v]),
                wrong=config.label_noise if v == FAST else config.wrong_slow,
                **given,
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
                what="sam noise",
                n_examples=data.n,
                projection=float(projections[i, 0]),
                norm2=float(norm2[i]),
                **given,
            )
        )
    return out


def growths(data: Dataset, W: Tensor, k: int, g: torch.Generator) -> list[Quantity]:
    """(13) on one data set: growth of the features in U(k) and G(k)."""
    return [
        exact(
            f"growth of v_{name} in {arm}({k})",
            -gradient(W, augmented, LOGIT)[0, v],
            what="growth",
            config=data.config,
            feature=v,
            projection=float(W[0, v]),
            k=k,
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
    given = {"config": config, "k": k, "sigma_synthetic": sigma}
    label = f"NoiseAlign, P={config.n_patches}"
    return [
        quantity(
            f"{label}, U({k})",
            ratio(total["U"], count["U"]),
            what="alignment",
            w_norm=float(W[:, 2:].norm(dim=1).square().mean().sqrt()),
            **given,
        ),
        quantity(
            f"{label}, G({k})/U({k})",
            over,
            what="alignments",
            **given,
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
            what="variance",
            arm={"U": "upsampled", "G": "generated"}[arm],
            config=config,
            filters=sums,
            sigma_synthetic=sigma,
            k=k,
            batch=batch,
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


def _predict_growth(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    v, k = given["feature"], given["k"]
    size = amplification.n_augmented(1, config.alpha, k)
    growth = amplification.feature_gradient(
        _beta(config, v), _share(config, v, k), LOGIT, given["projection"], 1 / size
    )
    return growth * predicted(
        "label-noise",
        "growth_fast" if v == FAST else "growth_slow",
        label_noise=config.label_noise,
        label_noise_slow=config.wrong_slow,
    )


def _predict_sam_feature(given: Mapping[str, Any]) -> float:
    names = ("rho", "beta", "mean_logit", "gradient_norm")
    kappa = sam_theory.feature_kappa(*(given[n] for n in names))
    kappa *= extensions.label_noise_growth(given["wrong"])
    return float(sam_theory.feature_factor(kappa, given["projection"]))


def _predict_sam_noise(given: Mapping[str, Any]) -> float:
    lam = sam_theory.noise_lambda(given["rho"], LOGIT, given["n_examples"], given["gradient_norm"])
    return float(sam_theory.noise_factor(lam, given["projection"], given["norm2"]))


def _predict_alignment(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    return amplification.noise_alignment(
        "upsampled",
        config.alpha,
        given["k"],
        config.n_examples,
        LOGIT,
        config.sigma_noise,
        given["sigma_synthetic"],
        given["w_norm"],
        config.dim - config.noise_from,
    )


def _predict_alignments(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    return amplification.generated_over_upsampled(
        config.alpha, given["k"], config.sigma_noise, given["sigma_synthetic"]
    )


def _predict_features(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    filters: Filters = given["filters"]
    n_fast = config.n_fast
    squares = (
        9 * LOGIT**2 * config.beta_fast**6 * filters.fast_quartic,
        9 * LOGIT**2 * config.beta_slow**6 * filters.slow_quartic,
    )
    size, replacement = given["batch"]
    return extensions.feature_part_variance(
        n_fast,
        config.n_examples - n_fast,
        given["k"],
        size,
        squares,
        extensions.label_parts(3, False, config.label_noise),
        replacement,
        given.get("exact_counts", True),
    )


def _predict_variance(given: Mapping[str, Any]) -> float:
    config: DataConfig = given["config"]
    filters: Filters = given["filters"]
    features = 0.0
    if config.label_noise:
        features = _predict_features(given)
        filters = replace(filters, fast_quartic=0.0, slow_quartic=0.0)
    size, replacement = given["batch"]
    variance = gradient_variance.gradient_variance(
        config.n_examples,
        config.dim + 2 - config.noise_from,  # noise of more dimensions is that of a larger d
        filters,
        config.alpha,
        config.beta_fast,
        config.beta_slow,
        config.sigma_noise,
        given["sigma_synthetic"],
        given["k"],
        size,
        LOGIT,
        config.n_patches,
        replacement,
    )
    return features + variance[given["arm"]]


PREDICT = {
    "growth": _predict_growth,
    "sam feature": _predict_sam_feature,
    "sam noise": _predict_sam_noise,
    "alignment": _predict_alignment,
    "alignments": _predict_alignments,
    "features": _predict_features,
    "variance": _predict_variance,
}
"""How each kind of quantity is predicted, by its "what"."""
