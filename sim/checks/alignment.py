"""Noise alignment of one data set: the mean over I_{j,+} itself, and one patch's spread.

Two ways: drawn, as data are, and integrated, where what is averaged is a polynomial in the noise
once it is known which projections are positive.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim.checks.base import DRAWN, Check, Plan, Predict, Quantity, exact, predicted, quantity, ratio
from sim.checks.quadrature import normal, planted, signed
from sim.data import DataConfig, sample
from sim.measure import Estimate, noise_alignment, noise_projections
from sim.network import gradient, init

_LOGIT, _W_NORM, _SIGMA, _FILTERS = 0.4, 1.3, 0.7, 8
_CHUNK = 10_000  # data sets at a time

# Few patches in few dimensions: (A1)'s correction fades with d', and its m/(2^m − 1) with m.
_TWO = DataConfig(n_examples=2, dim=7, alpha=0.5, sigma_noise=_SIGMA)
_THREE = DataConfig(n_examples=3, dim=5, alpha=0.5, sigma_noise=_SIGMA)
_FOUR = DataConfig(n_examples=2, dim=7, n_patches=3, alpha=0.5, sigma_noise=_SIGMA)


def _measure(plan: Plan) -> list[Quantity]:
    out = []
    for case, config in enumerate((_TWO, _THREE, _FOUR)):
        out += _drawn(plan, case, config)
    if not plan.broken:  # the quadrature is over independent noise
        for n, n_patches, dim in ((1, 2, 3), (2, 2, 3), (2, 2, 4), (3, 2, 4), (1, 3, 5)):
            out += _integrated(plan, n, n_patches, dim)
    return out


def _drawn(plan: Plan, case: int, config: DataConfig) -> list[Quantity]:
    """Over independent data sets and filters of one length."""
    W = init(_FILTERS, config.dim, 1.0, plan.fixed(27, case), dtype=DRAWN)
    W[:, 2:] *= _W_NORM / W[:, 2:].norm(dim=1, keepdim=True)
    if plan.broken:
        config = replace(config, noise="orthogonal")
    g = plan.generator(28, case)
    means, counts, firsts, seconds = [], [], [], []
    for _ in range(plan.size(28)):
        data = sample(config, g, (_CHUNK,), DRAWN)
        grad = gradient(W, data, _LOGIT)
        mean = noise_alignment(grad, W, data)
        means.append(mean.nan_to_num().sum(-1))
        counts.append((~mean.isnan()).sum(-1))
        alone = noise_projections(-grad, data)
        firsts.append(alone.mean((-1, -2)))
        seconds.append(alone.square().mean((-1, -2)))
    label = f"n={config.n_examples} P={config.n_patches} d'={config.dim_noise}"
    world = config.n_examples, config.n_patches, config.dim_noise
    average = ratio(torch.cat(means), torch.cat(counts))
    found = [quantity(f"mean over I+, {label}", average, _predicted("mean", *world))]
    if config.n_examples * (config.n_patches - 1) > 2:
        # of two patches its sixteenth powers have too heavy tails, and `_integrated` has none
        spread = _spread(torch.cat(firsts), torch.cat(seconds))
        predict = _predicted("deviation_of_one", *world)
        found.append(quantity(f"one patch's spread, {label}", spread, predict))
    return found


def _spread(first: Tensor, second: Tensor) -> Estimate:
    """Standard deviation, from each data set's mean and mean square; delta-method error."""
    centre = first.mean()
    root = float((second.mean() - centre**2).sqrt())
    return Estimate.of(second - 2 * centre * first).through(root, 1 / (2 * root))


def _integrated(plan: Plan, n: int, n_patches: int, dim: int) -> list[Quantity]:
    """The same two numbers of one filter along the first coordinate of the noise, exactly."""
    W = torch.full((1, dim), 0.5, dtype=torch.float64)  # what it is along the features is no matter
    W[:, 2:] = 0
    W[:, 2] = _W_NORM
    config = DataConfig(
        n_examples=max(n, 2), dim=dim, n_patches=n_patches, alpha=0.5, sigma_noise=_SIGMA
    )
    one = sample(config, plan.generator(29)).take(torch.arange(n))
    # degree 4 along w and 2 across it in the mean, 8 and 4 in the square
    data, weight = planted(one, signed(3), normal(2))
    mean = noise_alignment(gradient(W, data, _LOGIT), W, data).squeeze(-1)
    some = ~mean.isnan()
    average = (mean[some] @ weight[some]) / weight[some].sum()
    data, weight = planted(one, signed(5), normal(3))
    first = noise_projections(-gradient(W, data, _LOGIT), data)[:, 0, 0]
    spread = (first.square() @ weight - (first @ weight) ** 2).sqrt()
    label = f"n={n} P={n_patches} d'={dim - 2}, integrated"
    world = n, n_patches, dim - 2
    return [
        exact(f"mean over I+, {label}", average, _predicted("mean", *world)),
        exact(f"one patch's spread, {label}", spread, _predicted("deviation_of_one", *world)),
    ]


def _predicted(key: str, n: int, n_patches: int, dim_noise: int) -> Predict:
    return predicted(
        "alignment-distribution",
        key,
        n_examples=n,
        n_patches=n_patches,
        sigma_noise=_SIGMA,
        w_norm=_W_NORM,
        dim_noise=dim_noise,
        logit=_LOGIT,
    )


CHECKS = (
    Check(
        "alignment-distribution",
        "noise patches are independent (control: they are orthogonal)",
        _measure,
    ),
)
