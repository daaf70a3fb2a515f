"""Alignments, variances and errors against plain loops."""

import math

import pytest
import torch

from sim.data import FAST, SLOW, DataConfig, generate, sample
from sim.measure import (
    Estimate,
    batch_variance,
    errors,
    feature_alignment,
    fresh_errors,
    gradient_variance,
    noise_alignment,
    squared_norms,
    total_variance,
)
from sim.network import Activation, gradient, init, output


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


def test_silent_and_diverged_networks_are_wrong() -> None:
    data = sample(DataConfig(n_examples=20, dim=10, alpha=0.99), rng())
    for value in (0.0, math.nan):
        split = errors(torch.full((2, 10), value).double(), data)
        assert float(split["all"]) == float(split["fast"]) == 1.0
        assert split["slow"].isnan()  # a group without examples


@pytest.mark.parametrize("activation", [Activation(), Activation(2), Activation(4, True)])
@pytest.mark.parametrize("logits", [None, 0.3])
def test_squared_norms_are_those_of_single_examples(
    activation: Activation, logits: float | None
) -> None:
    data = generate(sample(DataConfig(10, 9, 3, variant="both"), rng()), 2, rng(1))
    W = init(3, 9, 0.6, rng(2))
    for i, found in enumerate(squared_norms(W, data, logits, activation)):
        one = data.take(torch.tensor([i]))
        own = gradient(W, one, logits, activation)
        assert float(found) == pytest.approx(float(own.square().sum()), rel=1e-12)


# Errors on fresh data, from the filters' projections alone

FRESH = [
    DataConfig(n_patches=P, variant=variant, noise=noise, dim=40, n_examples=20)
    for P, variant in ((2, "either"), (4, "either"), (3, "both"), (4, "both"))
    for noise in ("gaussian", "orthogonal", "isotropic")
    # patches of one example are not independent when all noise is orthogonal
    if P == 2 or noise != "orthogonal"
]


def label(config: DataConfig) -> str:
    return f"{config.variant}-{config.n_patches}-{config.noise}"


def scored(
    config: DataConfig, W: torch.Tensor, activation: Activation, n: int
) -> dict[str, tuple[float, float]]:
    """(fresh_errors, share of wrong outputs on sampled examples) of each kind."""
    first = config.noise_from
    covariance = W[:, first:] @ W[:, first:].mT
    found = fresh_errors(feature_alignment(W), covariance, config, n, rng(11), activation)
    data = sample(config, rng(12), (n // config.n_examples,))
    wrong = (data.y * output(W, data.x, activation) <= 0).double()
    return {
        "all": (float(found["all"]), float(wrong.mean())),
        "fast": (float(found["fast"]), float(wrong[..., data.is_fast].mean())),
        "slow": (float(found["slow"]), float(wrong[..., ~data.is_fast].mean())),
    }


@pytest.mark.parametrize("activation", [Activation(), Activation(5), Activation(3, True)])
@pytest.mark.parametrize("config", FRESH, ids=label)
def test_fresh_errors_are_errors_on_sampled_data(
    config: DataConfig, activation: Activation
) -> None:
    config = DataConfig(**{**vars(config), "sigma_noise": 0.5, "alpha": 0.5, "beta_slow": 0.6})
    W = init(3, 40, 0.2, rng(1))
    # two filters nearly cancel, so that their correlation decides
    W[1], W[2] = 0.3 * W[1] - W[0], 0.3 * W[2]
    W[:, :2] = torch.tensor([[0.6, -0.2], [0.2, 0.9], [-0.4, 0.3]])
    if activation.rectified:
        # outputs are never negative: what can be told apart is 0, where all filters are silent
        W[1, 2:], W[:, :2] = W[0, 2:] + W[1, 2:], torch.tensor([-0.5, -0.2])
    n = 40_000
    for kind, (found, sampled) in scored(config, W, activation, n).items():
        assert 0.005 < sampled < 0.8, kind
        # both are of about n draws of a kind, n/2 for the sampled fast and slow ones
        error = math.sqrt(3 * sampled * (1 - sampled) / n)
        assert abs(found - sampled) < 4 * error, kind


@pytest.mark.parametrize("activation", [Activation(2), Activation(4)])
def test_even_powers_are_right_on_positive_labels_alone(activation: Activation) -> None:
    config = DataConfig(dim=40, n_examples=20)
    for found, sampled in scored(config, init(3, 40, 0.2, rng(1)), activation, 4000).values():
        assert found == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
        assert sampled == pytest.approx(0.5, abs=4 * 0.5 / 800**0.5)


def test_fresh_errors_weigh_fast_by_alpha() -> None:
    W = init(3, 40, 0.2, rng(1))
    found = fresh_errors(W[:, :2], W @ W.mT, DataConfig(alpha=0.7), 500, rng())
    mixed = 0.7 * found["fast"] + 0.3 * found["slow"]
    assert float(found["all"]) == pytest.approx(float(mixed))


def test_fresh_errors_take_scales_for_each_cell() -> None:
    """(cells, 1) scales over (seeds,) filters, against one configuration at a time."""
    W = init(3, 40, 0.3, rng(1), (2,))
    features, covariance = feature_alignment(W), W[..., 2:] @ W[..., 2:].mT
    rows = [(1.0, 0.3, 0.1), (1.5, 0.6, 0.8), (1.0, 0.9, 2.0)]
    fast, slow, sigma = torch.tensor(rows).double().T[:, :, None]
    base = DataConfig(dim=40)
    together = fresh_errors(
        features, covariance, base, 4000, rng(3), Activation(), fast, slow, sigma
    )
    for cell, (beta_fast, beta_slow, sigma_noise) in enumerate(rows):
        config = DataConfig(
            dim=40, beta_fast=beta_fast, beta_slow=beta_slow, sigma_noise=sigma_noise
        )
        alone = fresh_errors(features, covariance, config, 4000, rng(3))
        for kind, value in alone.items():
            assert together[kind].shape == (3, 2)
            assert torch.allclose(together[kind][cell], value, atol=1e-12), (kind, cell)
    assert float(together["all"].std()) > 0.01


def test_fresh_errors_without_noise_and_with_one_filter() -> None:
    W = torch.zeros(1, 5).double()
    W[0, FAST] = 0.5
    found = fresh_errors(W[:, :2], W @ W.mT, DataConfig(sigma_noise=0.0), 100, rng())
    assert (float(found["fast"]), float(found["slow"])) == (0.0, 1.0)


def test_one_diverged_cell_does_not_spoil_the_others() -> None:
    W = init(3, 40, 0.3, rng(1), (3,))
    covariance = W[..., 2:] @ W[..., 2:].mT
    whole = fresh_errors(W[..., :2], covariance, DataConfig(), 1000, rng())
    for value in (math.nan, math.inf):
        W[1], covariance[1] = value, value
        found = fresh_errors(W[..., :2], covariance, DataConfig(), 1000, rng())
        for kind, errors_ in found.items():
            assert float(errors_[1]) == pytest.approx(1.0), kind
            assert torch.equal(errors_[[0, 2]], whole[kind][[0, 2]])


def test_fresh_errors_in_single_precision() -> None:
    W = init(3, 40, 0.3, rng(1))
    pair = [
        fresh_errors(W[:, :2].to(t), (W @ W.mT).to(t), DataConfig(sigma_noise=1.0), 4000, rng())
        for t in (torch.float32, torch.float64)
    ]
    assert pair[0]["all"].dtype == torch.float32
    assert float(pair[1]["all"]) > 0.02
    # other random numbers are drawn in another precision
    assert float(pair[0]["all"]) == pytest.approx(float(pair[1]["all"]), abs=4 * 0.7 / 4000**0.5)
