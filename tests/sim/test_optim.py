"""GD, SAM and mini-batch SGD."""

import pytest
import torch

from sim.data import DataConfig, sample, upsample
from sim.network import gradient, init, loss
from sim.optim import sam_gradient
from theory.parameters import ParameterError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DATA = sample(DataConfig(n_examples=20, dim=15), rng())
W0 = init(3, 15, 0.4, rng(1))


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
    one = train(W0, DATA, 0.1, 1)
    assert torch.allclose(one, W0 - 0.1 * gradient(W0, DATA), atol=1e-15)
    assert float(loss(train(W0, DATA, 0.1, 200), DATA)) < float(loss(W0, DATA))


def test_frozen_logits_stay_frozen_under_sam() -> None:
    step = train(W0, DATA, 0.1, 1, rho=0.2, logits=0.5)
    assert torch.allclose(step, W0 - 0.1 * sam_gradient(W0, DATA, 0.2, 0.5), atol=1e-15)


def test_the_full_batch_is_gd() -> None:
    sgd = train(W0, DATA, 0.1, 5, batch_size=20, generator=rng())
    assert torch.allclose(sgd, train(W0, DATA, 0.1, 5), atol=1e-12)


def test_sgd_depends_on_its_seed_only() -> None:
    runs = [train(W0, DATA, 0.1, 20, batch_size=4, generator=rng(s)) for s in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_each_batch_dimension_has_its_own_mini_batches() -> None:
    W = train(W0.expand(2, *W0.shape), DATA, 0.1, 3, batch_size=4, generator=rng())
    assert not torch.allclose(W[0], W[1])


def test_batches_with_and_without_replacement() -> None:
    without = batch_index(6, 6, rng(), batch=(50,))
    assert torch.equal(without.sort(-1).values, torch.arange(6).expand(50, 6))
    counts = torch.bincount(batch_index(6, 60_000, rng(), replacement=True))
    assert float((counts - 10_000).abs().max()) < 4 * (60_000 * 5 / 36) ** 0.5


def test_multiplicities_are_weights() -> None:
    frozen = torch.ones(20).double()
    frozen[~DATA.is_fast] = 3.0
    up = upsample(DATA, 3)
    weighted = gradient(W0, DATA, 0.5 * frozen * 20 / up.n)
    assert torch.allclose(gradient(W0, up, 0.5), weighted, atol=1e-14)


def test_on_step_sees_every_iterate() -> None:
    seen = []
    end = train(W0, DATA, 0.1, 3, on_step=lambda t, W: seen.append((t, W)))
    assert [t for t, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0][1], W0)
    assert torch.equal(seen[3][1], end)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lr", {"lr": 0.0}),
        ("steps", {"steps": -1}),
        ("rho", {"rho": -0.1}),
        ("batch_size", {"batch_size": 21, "generator": rng()}),
        ("batch_size", {"batch_size": 0, "generator": rng()}),
        ("generator", {"batch_size": 4}),
    ],
)
def test_bad_parameters(name: str, change: dict) -> None:
    with pytest.raises(ParameterError, match=f"^{name} = "):
        train(W0, DATA, **{"lr": 0.1, "steps": 1, **change})
