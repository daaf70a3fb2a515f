"""GD, SAM and mini-batch SGD (with or without SAM) on the two-layer CNN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sim.data import Dataset
from sim.network import Logits, gradient, norm
from theory.parameters import require


def sam_gradient(W: Tensor, data: Dataset, rho: float | Tensor, logits: Logits = None) -> Tensor:
    """∇L(W + ε), ε = rho ∇L(W)/‖∇L(W)‖_F (Foret et al. 2021); rho = 0 is the plain gradient.

    rho: a number, or a tensor with W's batch dimensions. Frozen logits are used at both
    points. A zero gradient gives ε = 0.
    """
    if isinstance(rho, Tensor):
        rho = rho[..., None, None]
    else:
        require(rho >= 0, "rho", rho, "0 or more")
        if rho == 0:
            return gradient(W, data, logits)
    g = gradient(W, data, logits)
    scale = torch.nan_to_num(rho / norm(g), posinf=0.0)
    return gradient(W + scale * g, data, logits)


def batch_index(
    n: int,
    batch_size: int,
    generator: torch.Generator,
    replacement: bool = False,
    batch: tuple[int, ...] = (),
) -> Tensor:
    """A uniform mini-batch of indices for each batch dimension, (*batch, batch_size).

    Raises ParameterError if the batch does not fit into n.
    """
    require(
        batch_size >= 1 and (replacement or batch_size <= n),
        "batch_size",
        batch_size,
        f"between 1 and {n}, the number of examples",
    )
    if replacement:
        return torch.randint(0, n, (*batch, batch_size), generator=generator)
    return torch.rand(*batch, n, generator=generator).argsort(-1)[..., :batch_size]


def train(
    W: Tensor,
    data: Dataset,
    lr: float,
    steps: int,
    rho: float = 0.0,
    logits: float | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    replacement: bool = False,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Run `steps` steps of W ← W − lr ∇ and return W.

    rho > 0: SAM. batch_size: a fresh uniform mini-batch each step (needs `generator`), an
    own one for each of W's batch dimensions; None: the full batch. logits: frozen at a
    number, or None for real ones. on_step(t, W) sees W before step t, and the last W at
    t = steps.
    Raises ParameterError for lr ≤ 0, steps < 0, or a batch larger than the data.
    """
    require(lr > 0, "lr", lr, "positive")
    require(steps >= 0, "steps", steps, "0 or more")
    if batch_size is not None:
        require(generator is not None, "generator", None, "given when batch_size is")
    for t in range(steps):
        if on_step is not None:
            on_step(t, W)
        batch = data
        if batch_size is not None and generator is not None:
            index = batch_index(data.n, batch_size, generator, replacement, W.shape[:-2])
            batch = data.take(index)
        W = W - lr * sam_gradient(W, batch, rho, logits)
    if on_step is not None:
        on_step(steps, W)
    return W
