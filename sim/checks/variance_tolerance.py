"""Equation (30): the noise of synthetic examples at which a batch of G(k) varies as one of U(k)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Predict, Quantity, exact, predicted, quantity
from sim.checks.quadrature import normal, planted
from sim.data import DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate, batch_variance
from sim.network import Logits, gradient, init

_LOGIT, _FILTERS = 0.5, 16
_CHUNK = 500  # data sets at a time

# The tolerance does not depend on d', and in more dimensions draws vary less.
_DRAWN = DataConfig(n_examples=4, dim=34, n_patches=3, alpha=0.5, sigma_noise=0.3)
# Integrated: the fewest examples, so that B − 1 and N' − 1 weigh.
_TINY = DataConfig(n_examples=2, dim=3, alpha=0.5, sigma_noise=0.6)
_TINY_PATCHES = DataConfig(n_examples=2, dim=3, n_patches=3, alpha=0.5, sigma_noise=0.6)


def total_variance(W: Tensor, data: Dataset, batch_size: int, logits: Logits = None) -> Tensor:
    """What averages over data sets to Theorem 4.3's V, over the data's noise and the batch, (...).

    The batch's variance given the data, plus the full gradient's own: off the features its mean
    is 0, and along them it is the same for all data sets.
    """
    noise_part = gradient(W, data, logits)[..., 2:].square().sum((-1, -2))
    return batch_variance(W, data, batch_size, logits) + noise_part


def _measure(plan: Plan) -> list[Quantity]:
    # at B = 1 sharing does not count; the tolerance is largest at B = N'
    out = [_drawn(plan, k, batch_size) for k, batch_size in ((2, 1), (3, 8), (5, 8))]
    if not plan.broken:  # the quadrature is over independent noise
        for config, k, batch_size in (
            (_TINY, 2, 1),
            (_TINY, 2, 2),
            (_TINY, 3, 4),
            (_TINY, 5, 4),
            (_TINY_PATCHES, 2, 3),
        ):
            out.append(_integrated(plan, config, k, batch_size))
    return out


def _drawn(plan: Plan, k: int, batch_size: int) -> Quantity:
    W = init(_FILTERS, _DRAWN.dim, 0.2, plan.fixed(32))
    g = plan.generator(33, k, batch_size)
    chunks = []
    for _ in range(plan.size(4)):
        data = sample(_DRAWN, g, (_CHUNK,))
        made = generate(data, k, g, kept_noise=0.8 if plan.broken else 0.0)
        chunks.append(_excess(W, upsample(data, k), made, batch_size))
    excess = torch.cat(chunks, -1)
    found = _crossing(excess.mean(1))
    # the error of the excess there, over its slope
    nearby = _powers(1.001 * found) - _powers(found)
    slope = float(nearby @ excess.mean(1)) / (0.001 * found)
    factor = Estimate.of(_powers(found) @ excess).through(found, -1 / slope)
    return quantity(_label(_DRAWN, k, batch_size), factor, _tolerance(_DRAWN, k, batch_size))


def _integrated(plan: Plan, config: DataConfig, k: int, batch_size: int) -> Quantity:
    W = init(2, config.dim, 1.0, plan.generator(34))
    g = plan.generator(35)
    one = sample(config, g)
    # squared gradients have degree 6 in each number
    made, weight = planted(generate(one, k, g), normal(4), normal(4))
    up = upsample(made.take(torch.arange(one.n)), k)
    found = _crossing(_excess(W, up, made, batch_size) @ weight)
    label = f"{_label(config, k, batch_size)}, integrated"
    return exact(label, found, _tolerance(config, k, batch_size))


def _excess(W: Tensor, up: Dataset, made: Dataset, batch_size: int) -> Tensor:
    """V_G − V_U of each data set as a quadratic in the synthetic noise's factor cubed, (3, ...).

    A patch's gradient is cubic in its noise, so three values give the excess at every factor.
    """
    cubes = (0.0, 1.0, 4.0)
    values = []
    for cube in cubes:
        x = made.x.clone()
        x[..., made.n_original :, :, 2:] *= cube ** (1 / 3)
        values.append(total_variance(W, replace(made, x=x), batch_size, _LOGIT))
    excess = torch.stack(values) - total_variance(W, up, batch_size, _LOGIT)
    return torch.linalg.solve(torch.stack([_powers(c ** (1 / 3)) for c in cubes]), excess)


def _powers(factor: float) -> Tensor:
    return torch.tensor([1.0, factor**3, factor**6], dtype=torch.float64)


def _crossing(excess: Tensor) -> float:
    """The factor at which the mean excess (3,) vanishes, by bisection."""
    low, high = 0.0, 2.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _powers(middle) @ excess > 0 else (middle, high)
    return (low + high) / 2


def _label(config: DataConfig, k: int, batch_size: int) -> str:
    size = config.n_fast + k * config.n_slow
    return f"sigma ratio where V_G = V_U, k={k} B={batch_size} N'={size} P={config.n_patches}"


def _tolerance(config: DataConfig, k: int, batch_size: int) -> Predict:
    world = {"n_examples": config.n_examples, "alpha": config.alpha}
    return predicted("variance-tolerance", "sigma_ratio", **world, k=k, batch_size=batch_size)


CHECKS = (
    Check(
        "variance-tolerance",
        "synthetic noise is fresh (control: it keeps tau = .8 of the original's)",
        _measure,
    ),
)
