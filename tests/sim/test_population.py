"""The population's loss, gradient and curvature, against a large fresh sample."""

from dataclasses import replace

import pytest
import torch

from common.errors import ParameterError
from common.seeding import torch_stream
from sim.data import FAST, DataConfig, sample
from sim.network import gradient, init, loss
from sim.population import curvature, population

_TWO = DataConfig(n_examples=10, dim=8, alpha=0.7, beta_slow=0.6, sigma_noise=0.5)
_THREE = replace(_TWO, n_patches=3)


@pytest.mark.parametrize(("config", "filters"), [(_TWO, 3), (_TWO, 9), (_THREE, 3)])
def test_loss_and_gradient_are_those_of_a_large_sample(config: DataConfig, filters: int) -> None:
    g = torch.Generator().manual_seed(3)
    W = init(filters, config.dim, 0.5, g)  # 9 filters in 6 dimensions: a singular covariance
    fresh = sample(replace(config, n_examples=400_000), g)
    found, slope = population(W, config, g, draws=100_000)
    assert found == pytest.approx(float(loss(W, fresh)), rel=0.01)
    error = (slope - gradient(W, fresh)).norm() / slope.norm()
    assert error < 0.02  # the sample's own error is .01
    off = (slope - gradient(W, fresh))[:, 2:].norm() / slope[:, 2:].norm()
    assert off < 0.03


def test_batches_share_draws_and_the_share_of_fast_examples_counts() -> None:
    W = init(3, _TWO.dim, 0.5, torch_stream(0, 1), (4,))
    together, slopes = population(W, _TWO, torch_stream(0, 2), 0.3)
    for s in range(4):
        alone, slope = population(W[s], _TWO, torch_stream(0, 2), 0.3)
        assert alone == pytest.approx(float(together[s]))
        assert torch.allclose(slope, slopes[s])
    other = population(W, _TWO, torch_stream(0, 2), 0.6)[1]
    assert torch.allclose(other[..., FAST], 2 * slopes[..., FAST])


def test_gradient_is_that_of_the_loss() -> None:
    """Each is an average over the same draws, so they agree up to what these leave open."""
    W = init(2, _TWO.dim, 0.5, torch_stream(0, 3))
    along = init(2, _TWO.dim, 1.0, torch_stream(0, 4))
    slope = population(W, _TWO, torch_stream(0, 5), draws=100_000)[1]
    up, down = (
        population(W + s * along, _TWO, torch_stream(0, 5), draws=100_000)[0] for s in (1e-4, -1e-4)
    )
    size = float(slope.norm() * along.norm())
    assert float((up - down) / 2e-4) == pytest.approx(
        float((slope * along).sum()), abs=0.005 * size
    )


def test_curvature_of_a_quadratic() -> None:
    scale = torch.tensor([[3.0, -5.0], [1.0, 0.5]], dtype=torch.float64)
    start = torch.ones(4, 2, 2, dtype=torch.float64)
    W = init(2, 2, 1.0, torch_stream(0, 6), (4,))
    size, vector = curvature(lambda V: scale * V, W, start)
    assert torch.allclose(size, torch.full((4,), 5.0, dtype=torch.float64))
    assert torch.allclose(vector[..., 0, 1].abs(), size)  # along the largest, not normalised


@pytest.mark.parametrize(
    ("match", "config"),
    [
        ("^noise = orthogonal", replace(_TWO, noise="orthogonal", dim=30)),
        ("^variant = both", replace(_THREE, variant="both")),
    ],
)
def test_bad_input(match: str, config: DataConfig) -> None:
    with pytest.raises(ParameterError, match=match):
        population(init(2, config.dim, 0.5, torch_stream(0)), config, torch_stream(1))
