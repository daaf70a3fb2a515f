"""The two-layer CNN of Definition 3.2, f(x; W) = Σ_j Σ_p ⟨w_j, x^(p)⟩³, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sim.data import Dataset
from theory.parameters import require

Logits = Tensor | float | None
"""None: the real l_i. A number or an (..., n) tensor: logits frozen at it."""


def init(
    filters: int,
    dim: int,
    sigma_init: float,
    generator: torch.Generator,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """W⁽⁰⁾ ~ N(0, sigma_init² I), shape (*batch, J, d).

    Raises ParameterError for filters < 1 or sigma_init < 0.
    """
    require(filters >= 1, "filters", filters, "at least 1")
    require(sigma_init >= 0, "sigma_init", sigma_init, "0 or more")
    return sigma_init * torch.randn(*batch, filters, dim, generator=generator, dtype=dtype)


def output(W: Tensor, x: Tensor) -> Tensor:
    """f(x; W): W (..., J, d), x (..., n, P, d) -> (..., n)."""
    return _preactivations(W, x).pow(3).sum(-1).unflatten(-1, x.shape[-3:-1]).sum(-1)


def loss(W: Tensor, data: Dataset) -> Tensor:
    """Logistic loss L(W) = (1/n) Σ log(1 + exp(−y_i f(x_i))), shape (...)."""
    return softplus(-data.y * output(W, data.x)).mean(-1)


def logit_term(W: Tensor, data: Dataset) -> Tensor:
    """l_i = sigmoid(−y_i f(x_i; W)), shape (..., n)."""
    return torch.sigmoid(-data.y * output(W, data.x))


def gradient(W: Tensor, data: Dataset, logits: Logits = None) -> Tensor:
    """∇L(W) in closed form, theory/README.md equation (3), shape of W.

    −(3/n) Σ_i l_i y_i Σ_p ⟨w_j,x_i^(p)⟩² x_i^(p), with real logits (None) or frozen ones.
    """
    h = _preactivations(W, data.x)
    P = data.x.shape[-2]
    if logits is None:
        f = h.pow(3).sum(-1).unflatten(-1, (data.n, P)).sum(-1)
        logits = torch.sigmoid(-data.y * f)
    signed = (logits * data.y).repeat_interleave(P, dim=-1)
    coefficients = h.square() * signed.unsqueeze(-1)
    return coefficients.mT @ data.x.flatten(-3, -2) * (-3 / data.n)


def norm(gradient: Tensor) -> Tensor:
    """‖·‖_F over the last two dimensions, shape (..., 1, 1)."""
    return torch.linalg.matrix_norm(gradient, keepdim=True)


def _preactivations(W: Tensor, x: Tensor) -> Tensor:
    """⟨w_j, x_i^(p)⟩, shape (..., n·P, J)."""
    return x.flatten(-3, -2) @ W.mT
