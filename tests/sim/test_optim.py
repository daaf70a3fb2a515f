"""One step of GD and SAM, and mini-batches; whole runs are in test_engine.py."""

import pytest
import torch

from common.errors import ParameterError
from sim.data import DataConfig, batch_index, sample, upsample
from sim.network import gradient, init, loss
from sim.optim import descent, sam_gradient, step
from sim.train import prepare, train


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DATA = sample(DataConfig(n_examples=20, dim=15), rng())
W0 = init(3, 15, 0.4, rng(1))
START = prepare(W0, DATA, backend="dense")


def test_sam_is_the_gradient_at_the_perturbed_point_by_autograd() -> None:
    W = W0.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(W, DATA), W)
    perturbed = (W + 0.1 * g / g.norm()).detach().requires_grad_()
    (expected,) = torch.autograd.grad(loss(perturbed, DATA), perturbed)
    assert torch.allclose(sam_gradient(W0, DATA, 0.1), expected, atol=1e-12)


def test_sam_without_radius_is_gd_and_survives_a_zero_gradient() -> None:
    assert torch.equal(sam_gradient(W0, DATA, 0.0), gradient(W0, DATA))
    assert not sam_gradient(torch.zeros_like(W0), DATA, 0.1).any()


def test_a_radius_for_each_batch_dimension() -> None:
    W = torch.stack([W0, W0])
    both = sam_gradient(W, DATA, torch.tensor([0.1, 0.3]).double())
    assert torch.allclose(both[1], sam_gradient(W0, DATA, 0.3), atol=1e-14)


def test_gd_follows_the_gradient_and_lowers_the_loss() -> None:
    one = train(START, 0.1, 1).W
    assert torch.allclose(one, W0 - 0.1 * gradient(W0, DATA), atol=1e-15)
    assert float(loss(train(START, 0.1, 200).W, DATA)) < float(loss(W0, DATA))


def test_frozen_logits_stay_frozen_under_sam() -> None:
    after = train(START, 0.1, 1, rho=0.2, logits=0.5).W
    assert torch.allclose(after, W0 - 0.1 * sam_gradient(W0, DATA, 0.2, 0.5), atol=1e-15)


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_one_step_is_descent_times_the_learning_rate(backend: str) -> None:
    space = prepare(W0, DATA, backend=backend)
    down = descent(space, space.initial, rho=0.1)
    assert torch.allclose(step(space, space.initial, 0.3, 0.1), space.initial - 0.3 * down)
    assert torch.equal(train(space, 0.3, 1, 0.1).end.state, step(space, space.initial, 0.3, 0.1))


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_a_radius_of_zero_in_one_batch_dimension_is_gd_there(backend: str) -> None:
    W = torch.stack([W0, torch.zeros_like(W0), W0])
    space = prepare(W, DATA, backend=backend)
    mixed = descent(space, space.initial, torch.tensor([0.0, 0.1, 0.1]).double())
    alone = descent(space, space.initial)
    assert torch.equal(mixed[:2], alone[:2])
    assert not mixed[1].any()
    assert not torch.allclose(mixed[2], alone[2])


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_a_gradient_too_small_to_square_gives_gd(backend: str) -> None:
    space = prepare(1e-82 * W0, DATA, backend=backend)
    plain = descent(space, space.initial)
    assert 0 < float(plain.abs().max()) < 1e-162
    assert torch.allclose(descent(space, space.initial, 0.1), plain, rtol=1e-12, atol=0)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"^rho = -0.1"):
        descent(START, START.initial, -0.1)


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_the_full_batch_is_gd(backend: str) -> None:
    space = prepare(W0, DATA, backend=backend)
    sgd = train(space, 0.1, 5, batch_size=20, generator=rng()).W
    assert torch.allclose(sgd, train(space, 0.1, 5).W, atol=1e-12)


@pytest.mark.parametrize("backend", ["dense", "span"])
@pytest.mark.parametrize("replacement", [False, True])
def test_sgd_takes_the_batches_of_its_generator(backend: str, replacement: bool) -> None:
    sgd = train(
        prepare(W0, DATA, backend=backend),
        0.1,
        10,
        batch_size=19,
        generator=rng(5),
        replacement=replacement,
    ).W
    W, draws = W0, rng(5)
    for _ in range(10):
        W = W - 0.1 * gradient(W, DATA.take(batch_index(20, 19, draws, replacement)))
    assert torch.allclose(sgd, W, atol=1e-12)


def test_sgd_depends_on_its_seed_only() -> None:
    runs = [train(START, 0.1, 20, batch_size=4, generator=rng(s)).W for s in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("backend", ["dense", "span"])
def test_each_batch_dimension_has_its_own_mini_batches(backend: str) -> None:
    space = prepare(W0.expand(2, *W0.shape), DATA, backend=backend)
    W = train(space, 0.1, 3, batch_size=4, generator=rng()).W
    assert not torch.allclose(W[0], W[1])


def test_multiplicities_are_weights() -> None:
    frozen = torch.ones(20).double()
    frozen[~DATA.is_fast] = 3.0
    up = upsample(DATA, 3)
    weighted = gradient(W0, DATA, 0.5 * frozen * 20 / up.n)
    assert torch.allclose(gradient(W0, up, 0.5), weighted, atol=1e-14)
