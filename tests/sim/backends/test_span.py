"""Training in the span of the data against training in the filters' own coordinates."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sim.backends.dense import Dense
from sim.backends.span import FEATURES, Span, first_copies, times
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import fresh_errors
from sim.network import Activation, gradient, init
from sim.optim import descent
from sim.train import Point, prepare, train

LAYOUTS = [(2, "either"), (4, "either"), (4, "both")]
NOISES = ["gaussian", "orthogonal", "isotropic"]
ARMS: dict[str, Callable[[Dataset], Dataset]] = {
    "original": lambda data: data,
    "U(3)": lambda data: upsample(data, 3),
    "G(3)": lambda data: generate(data, 3, rng(1)),
    "family": lambda data: generate(data, 3, rng(1), 0.05, fidelity=0.7, kept_noise=0.4),
    "kept noise": lambda data: generate(data, 3, rng(1), kept_noise=1.0),
    "unfaithful": lambda data: generate(data, 3, rng(1), fidelity=0.7, kept_noise=1.0),
}
ACTIVATIONS = [Activation(power, rectified) for power in (2, 3, 4) for rectified in (False, True)]
OPTIMIZERS = {
    "GD": {},
    "SAM": {"rho": 0.1},
    "SGD": {"batch_size": 4},
    "mini-batch SAM": {"rho": 0.1, "batch_size": 4},
    "SGD with replacement": {"batch_size": 4, "replacement": True},
    "SAM with replacement": {"rho": 0.1, "batch_size": 4, "replacement": True},
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(n_patches: int = 2, variant: str = "either", noise: str = "gaussian", **change):
    small = {"n_examples": 8, "dim": 44, "alpha": 0.75, "sigma_noise": 0.25, "beta_slow": 0.6}
    return DataConfig(n_patches=n_patches, variant=variant, noise=noise, **{**small, **change})


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest entry; NaN counts as different."""
    difference = float((a - b).abs().max() / b.abs().max())
    return difference if difference == difference else float("inf")


def slices(data: Dataset, *index: int) -> Dataset:
    return replace(data, x=data.x[index], y=data.y[index])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_span_is_dense_over_thousands_of_steps(name: str) -> None:
    data = generate(sample(config(), rng()), 3, rng(1), sigma_synthetic=0.4)
    W = init(3, 44, 0.3, rng(2))
    runs = [
        train(prepare(W, data, backend=b), 0.02, 2000, generator=rng(3), **OPTIMIZERS[name]).W
        for b in ("dense", "span")
    ]
    assert relative(runs[1], runs[0]) < 1e-10
    # noise is learned, not the features alone
    moved = (runs[0] - W)[:, FEATURES:].norm() / W[:, FEATURES:].norm()
    assert 0.1 < float(moved) < 10


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_span_is_dense_whatever_is_trained(layout: tuple[int, str], noise: str, arm: str) -> None:
    data = ARMS[arm](sample(config(*layout, noise), rng()))
    W = init(3, 44, 0.3, rng(2))
    rho = torch.tensor([0.0, 0.1]).double()
    for activation in ACTIVATIONS:
        # frozen logits do not hold back: filters go to infinity in finite time
        for logits, rate in ((None, 0.012), (0.5, 0.006 / (activation.power - 1))):
            lr = rate * float(W.norm() / gradient(W, data, logits, activation).norm())
            dense, span = (
                train(prepare(W, data, activation, b), lr, 20, rho, logits).W
                for b in ("dense", "span")
            )
            assert relative(span, dense) < 1e-10, (activation, logits)
            moved = (dense - W).flatten(1).norm(dim=1) / W.norm()
            assert float(moved.min()) > 0.02, (activation, logits)
            assert float(moved.max()) < 10, (activation, logits)
            assert relative(dense[0], dense[1]) > 1e-4, (activation, logits)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mini_batches_are_dense_whatever_is_trained(layout: tuple[int, str], arm: str) -> None:
    data = ARMS[arm](sample(config(*layout, noise="isotropic"), rng()))
    W = init(3, 44, 0.3, rng(2))
    for activation in ACTIVATIONS:
        lr = 0.01 * float(W.norm() / gradient(W, data, None, activation).norm())
        dense, span = (
            train(
                prepare(W, data, activation, b),
                lr,
                10,
                rho=0.1,
                batch_size=4,
                replacement=True,
                generator=rng(3),
            ).W
            for b in ("dense", "span")
        )
        assert relative(span, dense) < 1e-10, activation
        assert relative(dense, W) > 0.01, activation


# Copies


def test_copies_add_no_rows() -> None:
    data = sample(config(4, "both"), rng())
    rows = {name: Span.of(arm(data), init(2, 44, 0.3, rng())).rows for name, arm in ARMS.items()}
    noise = 6 * 2 + 2 * 3  # noise patches of 6 fast and 2 slow examples
    assert len(rows["original"]) == FEATURES + noise
    assert torch.equal(rows["U(3)"], rows["original"])
    assert torch.equal(rows["kept noise"], rows["original"])
    for name in ("G(3)", "family", "unfaithful"):
        assert len(rows[name]) == FEATURES + noise + 2 * 2 * 3


def test_copies_are_weights() -> None:
    span = Span.of(upsample(sample(config(), rng()), 3), init(2, 44, 0.3, rng()))
    assert torch.allclose(span.weight, torch.tensor([1 / 12] * 6 + [3 / 12] * 2).double())
    assert span.distinct.tolist() == [*range(8), 6, 7, 6, 7]
    assert span.n_total == 12
    assert not span.is_synthetic.any()


def test_a_copy_in_one_batch_dimension_only_is_no_copy() -> None:
    data = generate(sample(config(), rng(), (2,)), 2, rng(1))
    x = data.x.clone()
    x[0, 8:] = data.x[0, 6:8]
    assert first_copies(replace(data, x=x)).tolist() == list(range(10))
    x[1, 9] = data.x[1, 7]
    assert first_copies(replace(data, x=x)).tolist() == [*range(9), 7]


# Batch dimensions


def both(W: Tensor, data: Dataset, **settings) -> tuple[Tensor, Tensor]:
    dense, span = (
        train(prepare(W, data, backend=b), steps=60, **settings).W for b in ("dense", "span")
    )
    return dense, span


@pytest.mark.parametrize("draws", [(3,), ()])
@pytest.mark.parametrize("filters", [(3,), (2, 3), ()])
def test_batched_runs_are_the_single_ones(draws: tuple, filters: tuple) -> None:
    """Over draws of the data, over filters that share data, and both at once."""
    data = generate(sample(config(), rng(), draws), 3, rng(1))
    W = init(2, 44, 0.3, rng(2), filters)
    dense, span = both(W, data, lr=0.05, rho=0.1)
    batch = torch.broadcast_shapes(draws, filters)
    assert span.shape == dense.shape == (*batch, 2, 44)
    assert relative(span, dense) < 1e-10
    wide = W.expand(*batch, 2, 44)
    for at in itertools.product(*(range(n) for n in batch)):
        own = slices(data, at[-1]) if draws else data
        alone = both(wide[at], own, lr=0.05, rho=0.1)
        assert relative(span[at], alone[0]) < 1e-10
        assert relative(span[at], alone[1]) < 1e-10


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3, "generator": None}])
def test_rates_as_batch_dimensions(settings: dict) -> None:
    data = upsample(sample(config(3, "both"), rng(), (2,)), 3)
    W = init(2, 44, 0.3, rng(1))
    lr = torch.tensor([0.02, 0.05, 0.1]).double()[:, None]
    rho = torch.tensor([0.0, 0.05, 0.2]).double()[:, None]
    runs = []
    for backend in ("dense", "span"):
        if settings:
            settings["generator"] = rng(5)
        space = prepare(W, data, backend=backend)
        runs.append(train(space, lr, 60, rho, **settings).W)
    assert runs[0].shape == (3, 2, 2, 44)
    assert relative(runs[1], runs[0]) < 1e-10
    if settings:
        return
    for cell in range(3):
        for seed in range(2):
            rates = {"lr": float(lr[cell]), "rho": float(rho[cell])}
            dense, span = both(W, slices(data, seed), **rates)
            assert relative(runs[1][cell, seed], dense) < 1e-10
            assert relative(runs[0][cell, seed], span) < 1e-10


def test_times_is_a_product_whatever_is_shared() -> None:
    draw = rng()
    for a, k in [
        ((), ()),
        ((3,), ()),
        ((3,), (3,)),
        ((3, 4), (4,)),
        ((3, 4), (3, 1)),
        ((3, 4), (1, 4)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (2, 1, 4)),
        ((2, 3, 4), (4,)),
        ((1, 4), (4,)),
    ]:
        A = torch.randn(*a, 2, 5, generator=draw)
        K = torch.randn(*k, 6, 5, generator=draw)
        product = times(A, K)
        assert product.shape == (*a, 2, 6)
        assert torch.allclose(product, A @ K.mT, atol=1e-5), (a, k)


# Scales


def scaled(data: Dataset, sigma: float, synthetic: float, fast: float, slow: float) -> Dataset:
    """The same draws with each scale really multiplied."""
    x = data.x.clone()
    original = (torch.arange(data.n) < data.n_original).unsqueeze(-1)
    x[..., data.is_noise & original, :] *= sigma
    x[..., data.is_noise & ~original, :] *= synthetic
    x[..., ~data.is_noise, FAST] *= fast
    x[..., ~data.is_noise, SLOW] *= slow
    return replace(data, x=x)


@pytest.mark.parametrize("activation", [Activation(), Activation(2, True), Activation(4)])
@pytest.mark.parametrize("noise", ["gaussian", "isotropic"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rescaled_is_training_on_scaled_data(
    layout: tuple[int, str], noise: str, activation: Activation
) -> None:
    data = generate(sample(config(*layout, noise), rng(), (3,)), 3, rng(1), fidelity=0.8)
    W = init(2, 44, 0.3, rng(2), (3,))
    factors = torch.tensor(
        # noise, synthetic noise, fast, slow, initial filters
        [
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [0.3, 2.0, 1.2, 0.7, 0.9],
            [1.5, 0.5, 0.8, 1.2, 1.3],
            [0.0, 1.0, 1.0, 1.0, 1.0],
        ]
    ).double()
    sigma, synthetic, fast, slow, start = factors.T[:, :, None]
    space = Span.of(data, W, activation).rescaled(sigma, synthetic, fast, slow, start)
    assert space.batch == (4, 3)
    references = [Dense(scaled(data, *row[:4]), W * row[4], activation) for row in factors.tolist()]
    lr = torch.tensor(
        [
            0.02 / activation.power * float(one.start[0].norm() / descent(one, one.start)[0].norm())
            for one in references
        ]
    ).double()
    end = train(space, lr[:, None], 25, rho=0.1).end
    scales = (fast, 0.6 * slow, 0.25 * sigma)
    fresh = fresh_errors(
        end.features, end.covariance, data.config, 300, rng(8), activation, *scales
    )
    index = torch.randint(0, data.n, (4, 3, 5), generator=rng(5))
    state = 0.1 * torch.randn(space.initial.shape, generator=rng(6), dtype=torch.float64)
    stochastic = space.filters(state - descent(space.take(index), state, rho=0.1))
    for cell, reference in enumerate(references):
        alone = train(reference, float(lr[cell]), 25, rho=0.1).end
        assert relative(alone.W, reference.start) > 0.05
        assert relative(end.W[cell], alone.W) < 1e-10
        assert relative(end.features[cell], alone.features) < 1e-10
        assert relative(end.covariance[cell], alone.covariance) < 1e-10
        assert relative(end.loss()[cell], alone.loss()) < 1e-10
        assert relative(end.batch_variance(3)[cell], alone.batch_variance(3)) < 1e-8
        for name, value in alone.errors().items():
            assert torch.allclose(end.errors()[name][cell], value, atol=1e-12)
        own = replace(
            reference.data.config,
            sigma_noise=0.25 * float(sigma[cell]),
            beta_fast=float(fast[cell]),
            beta_slow=0.6 * float(slow[cell]),
        )
        errors = fresh_errors(alone.features, alone.covariance, own, 300, rng(8), activation)
        for name, value in errors.items():
            assert torch.equal(fresh[name][cell], value)
        if factors[cell, 0] > 0:
            assert relative(end.noise_alignment(0.05)[cell], alone.noise_alignment(0.05)) < 1e-8
        there = space.filters(state)[cell]
        own = there - descent(reference.take(index[cell]), there, rho=0.1)
        assert relative(stochastic[cell], own) < 1e-10


def test_rescaled_by_numbers_one_after_the_other() -> None:
    data = generate(sample(config(), rng()), 3, rng(1))
    W = init(2, 44, 0.3, rng(2))
    twice = Span.of(data, W).rescaled(sigma_noise=2.0, sigma_init=0.5)
    twice = twice.rescaled(0.7, 0.4, 1.1, 0.9, 3.0)
    real = Dense(scaled(data, 1.4, 0.4, 1.1, 0.9), 1.5 * W)
    assert relative(train(twice, 0.05, 40).W, train(real, 0.05, 40).W) < 1e-10


def test_rescaled_leaves_the_original_alone() -> None:
    span = Span.of(sample(config(), rng()), init(2, 44, 0.3, rng()))
    before = [tensor.clone() for tensor in span.identity]
    train(span.rescaled(sigma_noise=2.0), 0.05, 5)
    assert all(torch.equal(a, b) for a, b in zip(before, span.identity, strict=True))


# Precision


@pytest.mark.parametrize("name", ["GD", "SAM", "SGD with replacement"])
@pytest.mark.parametrize("backend", ["dense", "span"])
def test_float32_is_float32_and_agrees_with_float64(backend: str, name: str) -> None:
    data = generate(sample(config(4, "both"), rng()), 3, rng(1))
    W = init(3, 44, 0.3, rng(2))

    def trained(dtype: torch.dtype) -> Point:
        space = prepare(W.to(dtype), data.to(dtype=dtype), backend=backend)
        return train(space, 0.05, 200, generator=rng(3), **OPTIMIZERS[name]).end

    single, double = trained(torch.float32), trained(torch.float64)
    for measured in (
        lambda point: point.W,
        lambda point: point.features,
        lambda point: point.covariance,
        lambda point: point.loss(),
        lambda point: point.gradient_norm(),
        lambda point: point.noise_alignment(),
        lambda point: point.batch_variance(3),
    ):
        assert measured(single).dtype == torch.float32
        assert relative(measured(single).double(), measured(double)) < 1e-4
    assert relative(single.W.double(), W) > 0.1


def test_single_precision_filters_with_double_rates_stay_single() -> None:
    data = sample(config(), rng()).to(dtype=torch.float32)
    W = init(2, 44, 0.3, rng(), dtype=torch.float32)
    lr = torch.tensor([0.1, 0.2]).double()
    for backend in ("dense", "span"):
        end = train(prepare(W, data, backend=backend), lr, 3, rho=lr).W
        assert end.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("backend", ["dense", "span"])
def test_a_gpu_agrees_with_the_cpu(backend: str, name: str) -> None:
    data = generate(sample(config(4, "both"), rng(), (2,)), 3, rng(1))
    W = init(3, 44, 0.3, rng(2))
    runs = []
    for device in ("cpu", "cuda"):
        space = prepare(W.to(device), data.to(device), backend=backend)
        runs.append(train(space, 0.05, 200, generator=rng(3), **OPTIMIZERS[name]).end)
    assert runs[1].W.is_cuda
    assert relative(runs[1].W.cpu(), runs[0].W) < 1e-10
    assert relative(runs[1].batch_variance(3).cpu(), runs[0].batch_variance(3)) < 1e-9
    assert relative(runs[1].noise_alignment(0.1).cpu(), runs[0].noise_alignment(0.1)) < 1e-9


# Edges


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_one_filter_no_slow_example_and_no_noise(backend: str) -> None:
    silent = upsample(sample(config(alpha=0.99, sigma_noise=0.0), rng()), 3)
    assert silent.n == 8
    W = init(1, 44, 0.3, rng(1))
    end = train(prepare(W, silent, backend=backend), 0.1, 100, rho=0.1).end
    growth = end.W - W
    assert float(growth[0, FAST]) > 0.1
    assert not growth[0, SLOW:].any()
    assert float(end.errors()["all"]) == 0.0
    assert end.errors()["slow"].isnan()
    assert end.noise_alignment().isnan().all()
    assert float(end.batch_variance(4)) == pytest.approx(0.0, abs=1e-15)


def test_zero_filters_stay_where_they_are() -> None:
    data = sample(config(), rng())
    W = torch.zeros(2, 44).double()
    for backend in ("dense", "span"):
        end = train(prepare(W, data, backend=backend), 0.1, 10, rho=0.1).end
        assert not end.W.any()
        assert float(end.gradient_norm()) == 0.0
