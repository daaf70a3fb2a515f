"""One step of GD, SAM, mini-batch SGD or mini-batch SAM, in either representation."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import require
from sim.backends.dense import Dense
from sim.backends.span import Span
from sim.data import Dataset
from sim.network import Logits

Space = Dense | Span
"""A data set and initial filters, in the filters' own coordinates or in the span of the data."""

Rate = Tensor | float
"""A number, or a tensor with the state's batch dimensions."""


def descent(space: Space, state: Tensor, rho: Rate = 0.0, logits: Logits = None) -> Tensor:
    """∇L(W + ε), ε = rho ∇L(W)/‖∇L(W)‖_F (Foret et al. 2021); rho = 0 is the plain gradient.

    Shape of the state, in its coordinates. Frozen logits are used at both points; a zero
    gradient gives ε = 0.
    """
    return space.pull(patch_weights(space, space.project(state), rho, logits))


def patch_weights(space: Space, h: Tensor, rho: Rate = 0.0, logits: Logits = None) -> Tensor:
    """The weights of the patches (rows) in that gradient, from their projections h."""
    c = space.coefficients(h, logits)
    if not isinstance(rho, Tensor):
        require(rho >= 0, "rho", rho, "0 or more")
        if rho == 0:
            return c
    moved = space.gram_product(c)
    # ‖Σ c_p x_p‖² = Σ c_p ⟨x_p, Σ c_q x_q⟩: no need for the gradient itself
    squared = (c * moved).sum((-1, -2), keepdim=True).clamp_min(0)
    scale = torch.nan_to_num(_column(rho) / squared.sqrt(), nan=0.0, posinf=0.0)
    return space.coefficients(moved.mul_(scale).add_(h), logits)


def step(space: Space, state: Tensor, lr: Rate, rho: Rate = 0.0, logits: Logits = None) -> Tensor:
    """The state after W ← W − lr ∇L(W + ε)."""
    gradient = descent(space, state, rho, logits)
    if isinstance(lr, Tensor):
        return state - _column(lr) * gradient
    return torch.sub(state, gradient, alpha=lr)


def sam_gradient(W: Tensor, data: Dataset, rho: Rate, logits: Logits = None) -> Tensor:
    """`descent` at filters W (..., J, d) on the cubic network."""
    return descent(Dense(data, W), W, rho, logits)


def _column(rate: Rate) -> Rate:
    return rate[..., None, None] if isinstance(rate, Tensor) else rate
