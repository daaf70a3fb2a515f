"""SGD against torch, SAM against its formula."""

from __future__ import annotations

import torch

from empirical.training.batched import Optimizer, Plan, sam_point, sgd_step, train_stacked


def test_sgd_equals_torch() -> None:
    torch.manual_seed(0)
    start = {"a": torch.randn(2, 3, 4), "b": torch.randn(2, 5)}
    gradients = [{name: torch.randn_like(value) for name, value in start.items()} for _ in range(4)]
    rates = [torch.tensor([0.1, 0.02]), torch.tensor([0.1, 0.0])] * 2
    ours = {name: value.clone() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in start.items()}
    for gradient, lr in zip(gradients, rates, strict=True):
        sgd_step(ours, velocity, gradient, lr, Optimizer(0.9, 0.01))
    for network in range(2):
        theirs = [torch.nn.Parameter(value[network].clone()) for value in start.values()]
        sgd = torch.optim.SGD(theirs, lr=1.0, momentum=0.9, weight_decay=0.01)
        for gradient, lr in zip(gradients, rates, strict=True):
            for parameter, own in zip(theirs, gradient.values(), strict=True):
                parameter.grad = own[network].clone()
            sgd.param_groups[0]["lr"] = float(lr[network])
            sgd.step()
        for parameter, name in zip(theirs, ours, strict=True):
            torch.testing.assert_close(parameter.detach(), ours[name][network])


def test_the_ascent_step_has_length_rho_for_every_network_by_itself() -> None:
    torch.manual_seed(0)
    point = {"a": torch.randn(3, 4, 5), "b": torch.randn(3, 2)}
    gradient = {"a": torch.randn(3, 4, 5), "b": torch.randn(3, 2)}
    gradient["a"][2] = gradient["b"][2] = 0
    moved = sam_point(point, gradient, rho=0.3)
    for network in range(3):
        step = torch.cat([(moved[name] - point[name])[network].flatten() for name in point])
        along = torch.cat([gradient[name][network].flatten() for name in point])
        if network == 2:
            assert not step.any()  # no gradient, no step, and no NaN
        else:
            torch.testing.assert_close(step, 0.3 * along / along.norm())


def test_one_sam_step_on_a_linear_model_is_the_formula() -> None:
    """Softmax regression, with the gradient written out: grad W = (p - onehot)^T x / n."""
    torch.manual_seed(1)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    network = torch.nn.Linear(3, 4).double()
    start = {name: value.detach()[None] for name, value in network.named_parameters()}
    rho, lr, decay = 0.2, 0.1, 0.01

    def gradient(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rest = torch.softmax(x @ weight.T + bias, dim=1)
        rest[torch.arange(6), y] -= 1
        return rest.T @ x / 6, rest.mean(dim=0)

    weight, bias = start["weight"][0], start["bias"][0]
    g_weight, g_bias = gradient(weight, bias)
    norm = (g_weight.square().sum() + g_bias.square().sum()).sqrt()
    h_weight, h_bias = gradient(weight + rho * g_weight / norm, bias + rho * g_bias / norm)

    plan = Plan(
        rows=torch.arange(6)[None, None],
        weights=torch.full((1, 1, 6), 1 / 6, dtype=torch.float64),
        lr=torch.tensor([[lr]], dtype=torch.float64),
    )
    after = train_stacked(network, start, x, y, plan, Optimizer(0.9, decay, rho))
    torch.testing.assert_close(after["weight"][0], weight - lr * (h_weight + decay * weight))
    torch.testing.assert_close(after["bias"][0], bias - lr * (h_bias + decay * bias))
    torch.testing.assert_close(start["weight"][0], network.weight.detach())  # left as it was
