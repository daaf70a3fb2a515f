"""Training many small networks (one for each seed) as one batched program.

The same steps as `engine.train` does for each of them, up to rounding: the same recipe, batches
and learning rates (a test compares the two). The seeds share an image bank; each has its own
parameters, its own members of the bank and its own batches. Training sets of different sizes give
different numbers of batches; these are padded with weight 0 inside a batch and with learning rate 0
after a seed's last step, which leaves every seed exactly with the computation that it has alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from common.divergence import Watch
from empirical.training.batches import bounds, order_of
from empirical.training.optimizers import Optimizer, Parameters, sam_point, sgd_step
from empirical.training.recipes import Recipe


@dataclass(frozen=True)
class Plan:
    """What each of S networks sees in each of T steps.

    rows: int64 (T, S, B) into the image bank; weights: float32 (T, S, B), which sum to 1 over a
    batch; lr: float32 (T, S).
    """

    rows: Tensor
    weights: Tensor
    lr: Tensor


def make_plan(members: Sequence[Tensor], recipes: Sequence[Recipe]) -> Plan:
    """The batches and learning rates that `engine.train` would use for each seed.

    members: for each seed its rows of the bank, int64 (n_s,); recipes: for each seed.
    """
    batches: list[list[Tensor]] = []
    rates: list[list[float]] = []
    for own, recipe in zip(members, recipes, strict=True):
        n, total, per_epoch = len(own), recipe.total_steps(len(own)), recipe.epoch_steps(len(own))
        mine: list[Tensor] = []
        for epoch in range(math.ceil(total / per_epoch)):
            shuffled = own[order_of(recipe, epoch, n)]
            mine += [shuffled[start:stop] for start, stop in bounds(n, per_epoch)]
        batches.append(mine[:total])
        rates.append([recipe.learning_rate(step, total) for step in range(total)])
    width = max(len(batch) for mine in batches for batch in mine)
    shape = (max(map(len, batches)), len(members))
    plan = Plan(
        rows=torch.zeros(*shape, width, dtype=torch.int64),
        weights=torch.zeros(*shape, width),
        lr=torch.zeros(*shape),
    )
    for seed, (mine, lr) in enumerate(zip(batches, rates, strict=True)):
        plan.lr[: len(mine), seed] = torch.tensor(lr)
        for step, batch in enumerate(mine):
            plan.rows[step, seed, : len(batch)] = batch
            plan.weights[step, seed, : len(batch)] = 1 / len(batch)
    return plan


def train(
    network: nn.Module,
    start: Parameters,
    pixels: Tensor,
    labels: Tensor,
    plan: Plan,
    optimizer: Optimizer,
    advance: Callable[[], None] = lambda: None,
    name: str = "training",
    advice: str = "lower its learning rate",
) -> Parameters:
    """Train S networks along a plan; returns their final parameters.

    start: stacked parameters, each (S, ...), left as they are; pixels: float32 (bank, C, H, W);
    labels: int64 (bank,); advance is called after every step; name, advice: what a message calls
    the training, and says to do if it diverges.

    Raises:
        DivergenceError: a network's loss or weights are no longer finite; which, and the step.
    """

    def loss(parameters: Parameters, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        outputs = functional_call(network, parameters, (x,))
        return (nn.functional.cross_entropy(outputs, y, reduction="none") * weights).sum()

    losses = vmap(loss)

    def gradient(parameters: Parameters, *batch: Tensor) -> tuple[Tensor, Parameters]:
        # The networks share nothing, so the gradient of the sum is every network's own.
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        each = losses(leaves, *batch)
        found = torch.autograd.grad(each.sum(), list(leaves.values()))
        return each, dict(zip(leaves, found, strict=True))

    watch = Watch(name, advice)
    parameters = {name: value.clone() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    steps = zip(plan.rows, plan.weights, plan.lr, strict=True)
    for number, (rows, weights, lr) in enumerate(steps, start=1):
        batch = (pixels[rows], labels[rows], weights)
        each, grad = gradient(parameters, *batch)
        watch.see(number, each)
        if optimizer.rho > 0:
            _, grad = gradient(sam_point(parameters, grad, optimizer.rho), *batch)
        sgd_step(parameters, velocity, grad, lr, optimizer)
        advance()
    watch.weights(len(plan.lr), parameters.values(), stacked=True)
    return parameters


@torch.no_grad()
def logits(network: nn.Module, parameters: Parameters, pixels: Tensor) -> Tensor:
    """Outputs of S networks on the same images: (S, n, classes)."""

    def forward(own: Parameters, x: Tensor) -> Tensor:
        return functional_call(network, own, (x,))

    batched = vmap(forward, in_dims=(0, None))
    return torch.cat([batched(parameters, piece) for piece in pixels.split(256)], dim=1)


def stack(parameters: Sequence[Parameters]) -> Parameters:
    """Stack the parameters of several networks on a leading axis."""
    return {name: torch.stack([own[name] for own in parameters]) for name in parameters[0]}
