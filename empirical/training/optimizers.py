"""SGD and SAM on stacked parameters: the leading axis of every tensor counts the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from empirical.training.recipes import Recipe

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Optimizer:
    """SGD with momentum and weight decay; `rho` above 0 puts SAM on top."""

    momentum: float = 0.9
    weight_decay: float = 5e-4
    rho: float = 0.0

    @staticmethod
    def of(recipe: Recipe) -> Optimizer:
        """That of a recipe with SGD."""
        return Optimizer(recipe.momentum, recipe.weight_decay, recipe.sam.rho)


def sam_point(parameters: Parameters, gradient: Parameters, rho: float) -> Parameters:
    """W + rho grad L(W) / ||grad L(W)||, the norm over all parameters of one network.

    Foret et al. 2021, eq. 2 (p = 2). Weight decay is no part of L here, as is usual.
    """
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradient.values()]).sum(0)
    scale = rho / squares.sqrt().clamp_min(1e-12)
    return {
        name: value + scale.view(-1, *[1] * (value.ndim - 1)) * gradient[name]
        for name, value in parameters.items()
    }


def sgd_step(
    parameters: Parameters,
    velocity: Parameters,
    gradient: Parameters,
    lr: Tensor,
    optimizer: Optimizer,
) -> None:
    """v <- momentum v + grad + weight_decay W; W <- W - lr v, in place; lr has shape (networks,).

    As torch.optim.SGD. A network whose lr is 0 stays exactly where it is.
    """
    for name, value in parameters.items():
        step = gradient[name].add(value, alpha=optimizer.weight_decay)
        velocity[name].mul_(optimizer.momentum).add_(step)
        value.sub_(lr.view(-1, *[1] * (value.ndim - 1)) * velocity[name])
