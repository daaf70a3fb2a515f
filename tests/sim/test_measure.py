"""Alignments, variances and errors against plain loops."""

import math

import pytest
import torch

from sim.data import FAST, SLOW, DataConfig, sample
from sim.measure import (
    Estimate,
    batch_variance,
    errors,
    feature_alignment,
    gradient_variance,
    noise_alignment,
    total_variance,
)
from sim.network import gradient, init, output


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_patches", [2, 3])
def test_noise_alignment_is_its_definition(n_patches: int) -> None:
    data = sample(DataConfig(n_examples=15, dim=10, n_patches=n_patches), rng())
    W = init(3, 10, 0.4, rng(1))
    g = gradient(W, data)
    for j, value in enumerate(noise_alignment(g, W, data)):
        along = [
            float(y * (-g[j] @ patch))
            for x, y in zip(data.x, data.y, strict=True)
            for patch in x[1:]
            if y * (W[j] @ patch) > 0
        ]
        assert float(value) == pytest.approx(sum(along) / len(along))


def test_feature_alignment_reads_the_features() -> None:
    W = init(3, 10, 0.4, rng(1))
    assert torch.equal(feature_alignment(W), torch.stack([W[:, FAST], W[:, SLOW]], -1))


def test_estimate_and_total_variance() -> None:
    samples = torch.randn(20_000, 2, 3, generator=rng()).double() * 2
    variance = total_variance(samples)
    assert abs(variance.mean - 24) < 4 * variance.standard_error
    estimate = Estimate.of(samples)
    assert estimate.standard_error == pytest.approx(2 / math.sqrt(120_000), rel=0.05)


def test_exact_batch_variance_is_what_batches_show() -> None:
    data = sample(DataConfig(n_examples=12, dim=10, sigma_noise=0.3), rng())
    W = init(3, 10, 0.4, rng(1))
    measured = gradient_variance(W, data, 5, rng(2), draws=20_000)
    assert abs(measured.mean - float(batch_variance(W, data, 5))) < 4 * measured.standard_error
    assert float(batch_variance(W, data, 12)) == pytest.approx(0, abs=1e-15)
    with_replacement = gradient_variance(W, data, 5, rng(2), draws=20_000, replacement=True)
    expected = float(batch_variance(W, data, 5)) * 11 / 7
    assert abs(with_replacement.mean - expected) < 4 * with_replacement.standard_error


def test_errors_split_by_fast_and_slow() -> None:
    data = sample(DataConfig(n_examples=1000, dim=10), rng())
    W = torch.zeros(1, 10).double()
    W[0, FAST] = 1.0  # right on fast examples, silent (wrong) on slow ones
    split = errors(W, data)
    assert float(split["fast"]) == 0.0
    assert float(split["slow"]) == 1.0
    assert float(split["all"]) == pytest.approx(0.2)
    assert float((output(W, data.x) * data.y)[data.is_fast].min()) > 0
