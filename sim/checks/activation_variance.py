"""Gradient variance with other activations, exactly: all labels and, by quadrature, all noise."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import Plan, Quantity, exact
from sim.checks.gradients import LOGIT, Batch, exact_variance, named
from sim.checks.quadrature import normal, planted, signed
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.network import Activation, init
from theory import extensions
from theory.gradient_variance import batch_variance, patch_noise


def measure(plan: Plan, activation: Activation, simulated: Activation) -> list[Quantity]:
    """(E5) to (E9) of one activation; the control simulates another one."""
    out = _feature_variance(plan, activation, simulated)
    if activation.power < 5:  # above, too many nodes are needed
        out += _variance(plan, activation, simulated)
    return out


_SILENT = DataConfig(n_examples=5, dim=4, alpha=0.4, beta_slow=0.8, sigma_noise=0.0)


def _feature_variance(plan: Plan, activation: Activation, simulated: Activation) -> list[Quantity]:
    config, k = _SILENT, 3
    W = init(3, config.dim, 0.8, plan.generator(68))
    data = upsample(sample(config, plan.generator(69)), k)
    # both the label and the patch that shows it
    flips = torch.tensor(list(itertools.product((1.0, -1.0), repeat=config.n_examples))).double()
    signs = flips[:, data.source]
    chance = torch.full((len(flips),), 1 / len(flips), dtype=torch.float64)
    labelled = replace(data, x=data.x * signs[..., None, None], y=data.y * signs)
    batches = ((4, False), (data.n - 1, False), (4, True))
    sums = _power_sums(W, activation.power)
    return [
        exact(
            f"{named(activation)}: features' variance, k={k} {_batch(batch)}",
            value,
            partial(_features, config, activation, sums, k, batch),
        )
        for batch, value in zip(
            batches, exact_variance(W, labelled, chance, batches, simulated), strict=True
        )
    ]


def _batch(batch: Batch) -> str:
    return f"B={batch[0]}" + " with replacement" * batch[1]


def _power_sums(W: Tensor, power: int) -> tuple[float, float, float]:
    """Σ_j ⟨w_j,v⟩^(2q−2) of the fast and slow feature, and Σ_j ‖w_j‖^(2q−2) off both."""
    p = 2 * power - 2
    return (
        float(W[:, FAST].pow(p).sum()),
        float(W[:, SLOW].pow(p).sum()),
        float(W[:, 2:].norm(dim=1).pow(p).sum()),
    )


def _variance(plan: Plan, activation: Activation, simulated: Activation) -> list[Quantity]:
    """The whole of it, exactly: all labels, and noise by quadrature."""
    out = []
    cases = [(2, 4, 2, ((2, False), (3, True))), (2, 3, 3, ((3, False), (3, True)))]
    if activation.power == 2:  # above, too many nodes for two slow examples
        cases.append((3, 3, 2, ((3, False), (3, True))))
    for n, dim, k, batches in cases:
        config = DataConfig(n, dim, alpha=1 / n, beta_slow=0.7, sigma_noise=0.6)
        W = torch.zeros(2, dim).double()
        W[:, :3] = torch.tensor([[0.6, -0.5, 0.9], [-0.4, 0.7, 0.6]])
        for arm, sigma_synthetic in (("U", 0.6), ("G", 0.7)):
            data, chance = _all_data(config, k, arm, sigma_synthetic, activation, plan)
            found = exact_variance(W, data, chance, batches, simulated)
            out += [
                exact(
                    f"{named(activation)}: variance, d'={dim - 2}, {arm}({k}) {_batch(batch)}",
                    value,
                    partial(
                        _whole,
                        config,
                        activation,
                        _power_sums(W, activation.power),
                        k,
                        batch,
                        arm == "G",
                        sigma_synthetic,
                    ),
                )
                for batch, value in zip(batches, found, strict=True)
            ]
    return out


def _all_data(
    config: DataConfig,
    k: int,
    arm: str,
    sigma_synthetic: float,
    activation: Activation,
    plan: Plan,
) -> tuple[Dataset, Tensor]:
    """U(k) or G(k) with all labels and all nodes of their noise, and the weights.

    Filters may see the first coordinate of the noise only: the gradient's square has degree 2q in
    it on either side of 0, and 2 in the others.
    """
    g = plan.generator(70)
    original = sample(config, g)
    augmented = original if arm == "U" else generate(original, k, g)
    nodes, weights = planted(augmented, signed(activation.power + 1), normal(2))
    flips = torch.tensor(list(itertools.product((1.0, -1.0), repeat=config.n_examples))).double()
    chance = weights.repeat(len(flips)) / len(flips)
    signs = flips[:, augmented.source].repeat_interleave(len(weights), 0)
    x = nodes.x.repeat(len(flips), 1, 1, 1)
    x[..., 0, :] *= signs[..., None]
    x[:, config.n_examples :, 1] *= sigma_synthetic / config.sigma_noise
    data = replace(nodes, x=x, y=augmented.y * signs)
    return data if arm == "G" else upsample(data, k), chance


_Sums = tuple[float, float, float]


def _features(
    config: DataConfig, activation: Activation, power_sums: _Sums, k: int, batch: Batch
) -> float:
    """(E9)."""
    q = activation.power
    size, replacement = batch
    fast, slow = (
        q**2 * LOGIT**2 * beta ** (2 * q) * power_sum
        for beta, power_sum in zip(
            (config.beta_fast, config.beta_slow), power_sums[:2], strict=True
        )
    )
    return extensions.feature_part_variance(
        config.n_fast,
        config.n_slow,
        k,
        size,
        (fast, slow),
        extensions.label_parts(q, activation.rectified),
        replacement,
    )


def _whole(
    config: DataConfig,
    activation: Activation,
    power_sums: _Sums,
    k: int,
    batch: Batch,
    generated: bool,
    sigma_synthetic: float,
) -> float:
    """(24), (25) with (E5) to (E9)."""
    q, rectified, total = activation.power, activation.rectified, power_sums[2]
    sigmas = config.sigma_noise, sigma_synthetic
    noise, synthetic = (
        patch_noise(sigma, LOGIT, total, config.dim - 2, q, rectified) for sigma in sigmas
    )
    counts, (size, replacement) = (config.n_fast, config.n_slow, k), batch
    variance = _features(config, activation, power_sums, k, batch) + batch_variance(
        *counts, size, noise, synthetic, 0.0, generated, replacement=replacement
    )
    if not generated:
        return variance
    means = (extensions.power_noise_mean(sigma, LOGIT, total, q, rectified) for sigma in sigmas)
    return variance + extensions.shared_label_variance(
        *counts, size, *means, replacement=replacement
    )
