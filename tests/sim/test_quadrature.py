"""Quadrature rules for Gaussian noise: exact up to their degree, and no further."""

import numpy as np
import pytest
import torch
from scipy import stats

from common.seeding import torch_stream
from sim.checks.quadrature import normal, planted, signed
from sim.data import DataConfig, generate, sample


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_moments_are_exact_up_to_the_degree(n: int) -> None:
    rule, half = normal(n), signed(n)
    for p in range(2 * n):
        exact = stats.norm.moment(p) if p else 1.0
        assert rule.weights @ rule.nodes**p == pytest.approx(exact, abs=1e-9)
        above = half.nodes > 0
        one_side = stats.halfnorm.moment(p) / 2 if p else 0.5
        assert half.weights[above] @ half.nodes[above] ** p == pytest.approx(
            one_side, rel=1e-7
        )  # scipy integrates
    beyond = stats.norm.moment(2 * n)
    assert abs(rule.weights @ rule.nodes ** (2 * n) - beyond) > 0.1 * beyond
    assert np.sum(half.weights) == pytest.approx(1)


def test_planted_noise_has_the_moments_of_drawn_noise() -> None:
    config = DataConfig(n_examples=2, dim=4, alpha=0.5, sigma_noise=0.7)
    one = generate(sample(config, torch_stream(0)), 2, torch_stream(1))
    data, weight = planted(one, signed(2), normal(2))
    assert weight.sum() == pytest.approx(1)
    noise = data.x[..., data.is_noise, 2:].flatten(1)  # three patches of two coordinates
    assert noise.shape[1] == 6
    covariance = noise.mT @ (weight.unsqueeze(1) * noise)
    assert torch.allclose(covariance, 0.49 * torch.eye(6, dtype=noise.dtype))
    assert torch.equal(data.x[0][~data.is_noise], one.x[~one.is_noise])
    assert torch.equal(data.y[0], one.y)
