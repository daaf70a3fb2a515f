"""Noise along the features, and more patches: what of the theory survives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sim.checks.amplification import expected_alignment
from sim.checks.base import DRAWN, Check, Plan, Quantity, combine, quantity, ratio
from sim.checks.cubic import NAMES, alignments, growth, repeated, sam, unit_filters, variances
from sim.checks.gradients import LOGIT, positive_part
from sim.checks.sam import feature_factor
from sim.data import FAST, DataConfig, generate, sample, upsample
from sim.measure import Estimate
from sim.network import gradient, init, norm
from sim.optim import sam_gradient
from theory import amplification, extensions

# --- Equations (E13), (E14): noise along the features --------------------------------------------

_ISOTROPIC = DataConfig(
    n_examples=5, dim=4, alpha=0.6, beta_slow=0.8, sigma_noise=0.5, noise="isotropic"
)


def _off_features(config: DataConfig, plan: Plan) -> DataConfig:
    """The control keeps noise off the features."""
    return replace(config, noise="gaussian") if plan.broken else config


def _blurred_growths(plan: Plan) -> list[Quantity]:
    out = []
    for case, patches in enumerate((2, 3)):
        config = replace(_ISOTROPIC, n_patches=patches)
        out += _blurred_growth(plan, 92 + case, config)
    return out


def _blurred_variances(plan: Plan) -> list[Quantity]:
    W = unit_filters(_ISOTROPIC, plan.fixed(94))
    return variances(plan, 95, _ISOTROPIC, _off_features(_ISOTROPIC, plan), W, 40)


def _blurred_growth(plan: Plan, key: int, config: DataConfig) -> list[Quantity]:
    """(13) in the mean, and the deviation (E13) around it."""
    g, k, sigma = plan.generator(key), 2, 1.2 * config.sigma_noise
    W = torch.tensor([[0.9, 0.8, 0.5, -0.4]], dtype=DRAWN)
    growing: dict[str, list[Tensor]] = {"U": [], "G": []}
    for _ in range(plan.size(90)):
        data = sample(_off_features(config, plan), g, (5000,), DRAWN)
        for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g, sigma))):
            growing[arm].append(-gradient(W, augmented, LOGIT)[:, 0])
    out = []
    for arm, parts in growing.items():
        grown = torch.cat(parts)
        amplitude = None if arm == "U" else sigma / config.sigma_noise
        for v, name in NAMES:
            label = f"growth of v_{name} in {arm}({k}), P={config.n_patches}"
            mean, projection = Estimate.of(grown[:, v]), float(W[0, v])
            predict = partial(growth, config, v, projection, k)
            out.append(quantity(f"mean {label}", mean, predict))
            square = Estimate.of((grown[:, v] - mean.mean).square())
            root = square.mean**0.5
            slope = 1 / (2 * root) if root > 0 else 0.0
            out.append(
                quantity(
                    f"deviation of the {label}",
                    square.through(root, slope),
                    partial(_deviation, config, k, amplitude, projection, float(W.norm())),
                )
            )
    return out


def _leaning(plan: Plan) -> list[Quantity]:
    """NoiseAlign at filters and at their mirror images in the features: mean and half difference.

    The mean is (15) in d dimensions; the difference is what learned features add, (E14).
    """
    config, k = replace(_ISOTROPIC, n_examples=4, alpha=0.5, sigma_noise=0.4), 3
    W = torch.tensor([[0.9, 0.7, 0.5, -0.4]], dtype=DRAWN)
    g = plan.generator(96)
    totals, counts = [], []
    for _ in range(plan.size(80)):
        data = upsample(sample(_off_features(config, plan), g, (2000,), DRAWN), k)
        total, count = zip(
            *(positive_part(data, W * s) for s in (1, torch.tensor([-1, -1, 1, 1]))), strict=True
        )
        totals.append(torch.stack(total))
        counts.append(torch.stack(count).double())
    (up, down), size = torch.cat(totals, 1), torch.cat(counts, 1).mean(0)
    w_norm, projections = float(W.norm()), W[0, :2].tolist()
    return [
        quantity(
            f"NoiseAlign, U({k}), mean of mirrored filters",
            ratio((up + down) / 2, size),
            lambda: expected_alignment("upsampled", config, k, config.sigma_noise, LOGIT, w_norm),
        ),
        quantity(
            f"NoiseAlign, U({k}), half difference of mirrored filters",
            ratio((up - down) / 2, size),
            lambda: _lean(config, k, projections, w_norm),
        ),
    ]


def _sam_in_mean(plan: Plan) -> list[Quantity]:
    """SAM's mean gradient along v_fast over GD's: below (5), by (E15) to first order in rho."""
    W = torch.tensor([[0.6, 0.4, 1.2, -0.9]], dtype=torch.float64)
    u = float(W[0, FAST])
    out = []
    for case, (sigma, patches, k) in enumerate(((0.38, 2, 1), (0.32, 3, 2))):
        config = replace(_ISOTROPIC, beta_fast=1.3, sigma_noise=sigma, n_patches=patches)
        g = plan.generator(106, case)
        n_fast = config.n_fast
        share = n_fast / (n_fast + k * (config.n_examples - n_fast))
        # a derivative at 0, of which float64 leaves ten digits; and a step like SAM's
        steps, sums = (1e-6, 0.1), ([], [])
        for _ in range(plan.size(8)):
            data = upsample(sample(_off_features(config, plan), g, (5000,)), k)
            plain = gradient(W, data, LOGIT)
            for h, found in zip(steps, sums, strict=True):
                # h is held fixed by choosing rho in each draw, so that (5) is one number
                moved = sam_gradient(W, data, h * norm(plain)[..., 0, 0], LOGIT)
                found.append(torch.stack([moved[:, 0, FAST], plain[:, 0, FAST]]))
        small, large = (ratio(*torch.cat(found, 1)) for found in sums)
        label = f"sigma={sigma}, P={patches}, k={k}"
        out += [
            quantity(
                f"slope of SAM/GD along v_fast in rho, {label}",
                small.through((1 - small.mean) / steps[0], -1 / steps[0]),
                partial(sam_slope, config, k, share, u, float(W.norm())),
            ),
            quantity(
                f"mean SAM/GD along v_fast, not (5), {label}",
                large,
                partial(feature_factor, steps[1], config.beta_fast, LOGIT * share, 1.0, u),
                "<",
            ),
        ]
    return out


# --- More patches --------------------------------------------------------------------------------


_PATCHES = (3, 4)


def _sam_on_patches(plan: Plan) -> list[Quantity]:
    out = []
    for patches in _PATCHES:
        config = DataConfig(
            n_examples=12,
            dim=60,
            n_patches=patches,
            alpha=0.5,
            beta_slow=0.7,
            sigma_noise=0.3,
            noise="orthogonal",
        )
        g = plan.generator(98, patches)
        data, W = sample(config, g), init(2, config.dim, 0.4, g)
        out += sam(repeated(data) if plan.broken else data, W)
    return out


def _patch_alignments(plan: Plan) -> list[Quantity]:
    out = []
    for case, patches in enumerate(_PATCHES):
        config = DataConfig(
            n_examples=6, dim=12, n_patches=patches, alpha=0.5, beta_slow=0.7, sigma_noise=0.5
        )
        W = init(8, config.dim, 0.5, plan.fixed(99, case), dtype=DRAWN)
        out += alignments(plan, 100 + case, config, W, 16, plan.broken)
    return out


def _patch_variances(plan: Plan) -> list[Quantity]:
    out = []
    for case, patches in enumerate(_PATCHES):
        config = DataConfig(
            n_examples=4, dim=4, n_patches=patches, alpha=0.5, beta_slow=0.7, sigma_noise=0.5
        )
        W = unit_filters(config, plan.fixed(102, case))
        out += variances(plan, 104 + case, config, config, W, 48, plan.broken)
    return out


# --- Predictions ---------------------------------------------------------------------------------


def _lean(config: DataConfig, k: int, projections: list[float], w_norm: float) -> float:
    """(E14)."""
    growths = [growth(config, v, projections[v], k) for v, _ in NAMES]
    return extensions.feature_lean(config.sigma_noise, w_norm, growths, projections)


def _noise_weight(config: DataConfig, k: int, amplitude: float | None = None) -> float:
    """Multiplicity² of the noise patches, weighed by their amplitudes⁶; amplitude: of G(k)."""
    n_slow = config.n_slow
    added = k**2 - 1 if amplitude is None else (k - 1) * amplitude**6
    return (config.n_patches - 1) * (config.n_examples + n_slow * added)


def _deviation(
    config: DataConfig, k: int, amplitude: float | None, projection: float, w_norm: float
) -> float:
    """(E13)."""
    size = amplification.n_augmented(config.n_examples, config.alpha, k)
    weight = _noise_weight(config, k, amplitude)
    return extensions.feature_gradient_deviation(
        LOGIT, config.sigma_noise, w_norm, projection, size, weight
    )


def sam_slope(config: DataConfig, k: int, share: float, projection: float, w_norm: float) -> float:
    """(E15) of the fast feature in U(k), which is a share of the data."""
    return LOGIT * extensions.isotropic_sam_slope(
        config.beta_fast,
        share,
        projection,
        config.sigma_noise,
        w_norm,
        config.dim,
        amplification.n_augmented(config.n_examples, config.alpha, k),
        _noise_weight(config, k),
    )


CHECKS = (
    Check(
        "isotropic-noise",
        "noise has a part along the features (control: it has none)",
        combine(_blurred_growths, _blurred_variances, _leaning, _sam_in_mean),
    ),
    Check(
        "more-patches",
        "an example's noise patches are independent (control: they are one and the same)",
        combine(_sam_on_patches, _patch_alignments, _patch_variances),
    ),
)
