"""The closed-form gradient against autograd, and the other closed forms of the network."""

import pytest
import torch

from common.errors import ParameterError
from sim.data import DataConfig, generate, sample, upsample
from sim.network import Activation, gradient, init, logit_term, loss, output


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CONFIGS = [
    DataConfig(n_examples=20, dim=15),
    DataConfig(n_examples=20, dim=15, n_patches=4),
    DataConfig(n_examples=20, dim=15, n_patches=3, variant="both"),
    DataConfig(n_examples=10, dim=15, noise="orthogonal"),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("arm", ["original", "upsample", "generate"])
def test_gradient_is_autograd_to_1e_10(config: DataConfig, arm: str) -> None:
    data = sample(config, rng())
    if arm == "upsample":
        data = upsample(data, 3)
    elif arm == "generate":
        data = generate(data, 2, rng(1))
    W = init(4, config.dim, 0.5, rng(2)).requires_grad_()
    (expected,) = torch.autograd.grad(loss(W, data), W)
    assert float((gradient(W.detach(), data) - expected).abs().max()) < 1e-10


@pytest.mark.parametrize("power", [2, 3, 4, 5])
@pytest.mark.parametrize("rectified", [False, True])
def test_every_activation_is_its_definition_and_its_gradient_autograd(
    power: int, rectified: bool
) -> None:
    activation = Activation(power, rectified)
    for config in CONFIGS:
        data = generate(sample(config, rng()), 2, rng(1), fidelity=0.7)
        W = init(4, config.dim, 0.5, rng(2)).requires_grad_()
        z = torch.einsum("jd,npd->npj", W, data.x)
        f = ((z.relu() if rectified else z) ** power).sum((1, 2))
        assert torch.allclose(output(W, data.x, activation), f, atol=1e-12)
        objective = -torch.nn.functional.logsigmoid(data.y * f).mean()
        assert torch.allclose(loss(W, data, activation), objective, atol=1e-12)
        (expected,) = torch.autograd.grad(objective, W)
        assert float(expected.abs().max()) > 1e-2
        found = gradient(W.detach(), data, activation=activation)
        assert float((found - expected).abs().max()) < 1e-12


def test_activations_at_zero_and_below() -> None:
    z = torch.tensor([-2.0, 0.0, 3.0])
    assert (z * Activation(3).slope(z)).tolist() == [-8.0, 0.0, 27.0]
    assert (z * Activation(2).slope(z)).tolist() == [4.0, 0.0, 9.0]
    assert (z * Activation(2, True).slope(z)).tolist() == [0.0, 0.0, 9.0]
    assert (z * Activation(3, True).slope(z)).tolist() == [0.0, 0.0, 27.0]
    assert z.tolist() == [-2.0, 0.0, 3.0]


@pytest.mark.parametrize("power", [1, 0, -1, 2.5])
def test_bad_activation(power: float) -> None:
    with pytest.raises(ParameterError, match=f"^power = {power}: "):
        Activation(power)  # type: ignore[arg-type]


def test_frozen_logits_weigh_each_example() -> None:
    data = sample(DataConfig(n_examples=20, dim=15), rng())
    W = init(4, 15, 0.5, rng(2)).requires_grad_()
    frozen = torch.rand(20, generator=rng(3)).double()
    surrogate = -(frozen * data.y * output(W, data.x)).mean()
    (expected,) = torch.autograd.grad(surrogate, W)
    assert torch.allclose(gradient(W.detach(), data, frozen), expected, atol=1e-12)


def test_real_logits_are_the_logit_term() -> None:
    data = sample(DataConfig(n_examples=20, dim=15), rng())
    W = init(4, 15, 0.5, rng(2))
    assert torch.allclose(gradient(W, data), gradient(W, data, logit_term(W, data)), atol=1e-14)


def test_batch_dimensions_are_independent_draws() -> None:
    data = sample(DataConfig(n_examples=12, dim=9), rng(), (3,))
    W = init(2, 9, 0.5, rng(1), (3,))
    together = gradient(W, data)
    for b in range(3):
        single = data.take(torch.arange(12))
        single = type(single)(
            data.x[b], data.y[b], data.is_fast, data.is_noise, data.source, 12, data.config
        )
        assert torch.allclose(together[b], gradient(W[b], single), atol=1e-14)


def test_order_of_patches_does_not_matter() -> None:
    data = sample(DataConfig(n_examples=12, dim=9, n_patches=4), rng())
    W = init(2, 9, 0.5, rng(1))
    shuffled = data.x[:, torch.tensor([2, 0, 3, 1])]
    assert torch.allclose(output(W, data.x), output(W, shuffled), atol=1e-14)


def test_bad_init() -> None:
    with pytest.raises(ParameterError, match=r"^filters = 0"):
        init(0, 9, 0.5, rng())
    with pytest.raises(ParameterError, match=r"^sigma_init = -1"):
        init(1, 9, -1.0, rng())
