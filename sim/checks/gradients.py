"""What several checks measure of gradients: noise alignment, growth, mini-batch variance."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import torch
from torch import Tensor

from sim.checks.base import increasing_root
from sim.data import FAST, SLOW, Dataset, upsample
from sim.measure import Estimate, noise_projections, squared_norms
from sim.network import CUBE, Activation, coefficients, gradient, preactivations

LOGIT = 0.4
"""Frozen logits of all gradients here."""

Batch = tuple[int, bool]
"""Size of a mini-batch, and whether it is drawn with replacement."""


def named(activation: Activation) -> str:
    """As labels show it."""
    return f"{'ReLU' if activation.rectified else 'z'}^{activation.power}"


def positive_part(data: Dataset, W: Tensor, activation: Activation = CUBE) -> tuple[Tensor, Tensor]:
    """Sums over all filters j of y⟨−∇_{w_j}L, ξ⟩ on I_{j,+}, and of |I_{j,+}|, in each draw."""
    along = noise_projections(-gradient(W, data, LOGIT, activation), data)
    on = noise_projections(W, data) > 0
    return torch.where(on, along, 0.0).sum((-1, -2)), on.sum((-1, -2))


def alignment_excess(
    up: Dataset, made: Dataset, W: Tensor, activation: Activation = CUBE
) -> Tensor:
    """Alignment of G(k) less that of U(k) per patch in I_{j,+}, as a polynomial, (4, draws).

    In the factor s of the synthetic noise: a synthetic patch pulls by s^(q−1) s and is pulled along
    by s, and s does not change I_{j,+}, so that there are the powers 0, 1, q and q + 1.
    """
    target, count = positive_part(up, W, activation)
    own, size = positive_part(made, W, activation)
    up_share, made_share = (c.double().mean() for c in (count, size))
    factors, values = (0.0, 0.7, 1.0, 1.5), []
    for s in factors:
        total = own
        if s != 1.0:
            x = made.x.clone()
            x[..., made.n_original :, 1:, :] *= s
            scaled = replace(made, x=x)
            along = noise_projections(-gradient(W, scaled, LOGIT, activation), scaled)
            total = torch.where(noise_projections(W, made) > 0, along, 0.0).sum((-1, -2))
        values.append((total / made_share - target / up_share).double())
    powers = torch.stack([_powers(s, activation) for s in factors])
    return torch.linalg.solve(powers, torch.stack(values).reshape(4, -1))


def equal_alignment(excess: Tensor, activation: Activation = CUBE) -> Estimate:
    """The factor of the synthetic noise at which G(k) aligns as much as U(k), of that excess."""
    mean = excess.mean(-1)

    def at(s: float) -> float:
        return float(_powers(s, activation) @ mean)

    factor = increasing_root(at, 0.0, 4.0)
    # the error of the excess there, over its slope
    step = 1e-4 * factor
    slope = (at(factor + step) - at(factor - step)) / (2 * step)
    drawn = _powers(factor, activation) @ excess
    return Estimate.of(drawn).through(factor, -1 / slope)


def _powers(s: float, activation: Activation) -> Tensor:
    q = activation.power
    return torch.tensor([1.0, s, s**q, s ** (q + 1)], dtype=torch.float64)


def with_labels(data: Dataset, y: Tensor) -> Dataset:
    """The same originals with these labels (n,), true and given, feature patches accordingly."""
    x = data.x.clone()
    x[..., 0, :] *= (y * data.y)[..., None]
    return replace(data, x=x, y=y.expand_as(data.y))


def equalising_k(W: Tensor, data: Dataset, activation: Activation = CUBE) -> float:
    """The k at which both features grow alike in U(k), summed over the filters."""

    def excess(k: int) -> float:
        growth = -gradient(W, upsample(data, k), LOGIT, activation).sum(0)
        return float(growth[SLOW] - growth[FAST]) * upsample(data, k).n

    first, second = excess(1), excess(2)  # linear in k once the size N' is undone
    return 1 - first / (second - first)


def batch_factor(n: int, batch: Batch) -> float:
    """What the spread within a data set of n examples adds to the variance of a mini-batch."""
    size, replacement = batch
    return 1 / size * (1.0 if replacement else (n - size) / (n - 1))


def variance_samples(
    W: Tensor, data: Dataset, batches: tuple[Batch, ...], activation: Activation = CUBE
) -> list[Tensor]:
    """Unbiased samples of the mini-batch gradient variance over data and batches, for each batch.

    data: two independent draws in its first batch dimension. By the law of total variance: over
    batches exactly, over data by E‖g − g'‖²/2 of the full gradients.
    """
    full = gradient(W, data, LOGIT, activation)
    each = squared_norms(W, data, LOGIT, activation).mean(-1)
    within = (each - full.square().sum((-1, -2))).mean(0)
    between = (full[0] - full[1]).square().sum((-1, -2)) / 2
    return [batch_factor(data.n, batch) * within + between for batch in batches]


@functools.cache
def pair_shares(n: int, batch_size: int, replacement: bool) -> Tensor:
    """E[s_i s_m] over all mini-batches, (n, n): s_i is the share of a batch that is example i."""
    if replacement:
        index = torch.tensor(list(itertools.product(range(n), repeat=batch_size)))
    else:
        index = torch.tensor(list(itertools.combinations(range(n), batch_size)))
    shares = torch.zeros(len(index), n, dtype=torch.float64)
    shares.scatter_add_(1, index, torch.ones(index.shape).double())
    return shares.T @ shares / len(index) / batch_size**2


def mean_over_batches(
    W: Tensor, data: Dataset, pairs: Tensor, logit: float = LOGIT
) -> tuple[Tensor, Tensor]:
    """Means over all mini-batches of ‖g‖², (...), and of g itself, (..., J, d).

    W: (J, d), or (..., J, d) with the batch dimensions of data. pairs: of `pair_shares`.
    """
    weights = coefficients(preactivations(W, data.x), data, logit)
    x = data.x.flatten(-3, -2)
    # ⟨g_i, g_m⟩ of single examples, patch by patch
    products = data.n**2 * (weights @ weights.mT) * (x @ x.mT)
    patches = data.x.shape[-2]
    spread = pairs.to(x).repeat_interleave(patches, 0).repeat_interleave(patches, 1)
    return (spread * products).sum((-1, -2)), weights.mT @ x


def exact_variance(
    W: Tensor,
    data: Dataset,
    chance: Tensor,
    batches: tuple[Batch, ...],
    activation: Activation = CUBE,
) -> list[float]:
    """The same, exactly, from all possible data sets (m, ...) with their probabilities."""
    full = gradient(W, data, LOGIT, activation)
    each = squared_norms(W, data, LOGIT, activation).mean(-1)
    centre = (chance[:, None, None] * full).sum(0)
    within = chance @ (each - full.square().sum((-1, -2)))
    between = chance @ (full - centre).square().sum((-1, -2))
    return [float(batch_factor(data.n, batch) * within + between) for batch in batches]
