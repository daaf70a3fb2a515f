"""The two-layer CNN of Definition 3.2, f(x; W) = Σ_j Σ_p σ(⟨w_j, x^(p)⟩), and its gradient.

σ is the paper's cube unless an `Activation` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from common.errors import require
from sim.data import Dataset

Logits = Tensor | float | None
"""None: the real l_i. A number or an (..., n) tensor: logits frozen at it."""


@dataclass(frozen=True)
class Activation:
    """σ(z) = z^power, or max(z, 0)^power when rectified.

    Both are homogeneous: σ'(z) = power · slope(z) and σ(z) = z · slope(z), with slope(z) =
    z^(power − 1), zero below 0 when rectified. Raises ParameterError for a power below 2.
    """

    power: int = 3
    rectified: bool = False

    def __post_init__(self) -> None:
        whole = self.power == int(self.power)
        require(whole and self.power >= 2, "power", self.power, "a whole number, at least 2")

    def slope(self, z: Tensor) -> Tensor:
        """σ'(z) / power, elementwise."""
        if self.rectified:
            z = z.clamp_min(0)
        return z if self.power == 2 else z.pow(self.power - 1)


CUBE = Activation()


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


def output(W: Tensor, x: Tensor, activation: Activation = CUBE) -> Tensor:
    """f(x; W): W (..., J, d), x (..., n, P, d) -> (..., n)."""
    return summed(preactivations(W, x), x.shape[-2], activation)


def loss(W: Tensor, data: Dataset, activation: Activation = CUBE) -> Tensor:
    """Logistic loss L(W) = (1/n) Σ log(1 + exp(−y_i f(x_i))), shape (...)."""
    return softplus(-data.y * output(W, data.x, activation)).mean(-1)


def logit_term(W: Tensor, data: Dataset, activation: Activation = CUBE) -> Tensor:
    """l_i = sigmoid(−y_i f(x_i; W)), shape (..., n)."""
    return torch.sigmoid(-data.y * output(W, data.x, activation))


def gradient(
    W: Tensor, data: Dataset, logits: Logits = None, activation: Activation = CUBE
) -> Tensor:
    """∇L(W) in closed form, theory/README.md equation (3), shape of W.

    −(1/n) Σ_i l_i y_i Σ_p σ'(⟨w_j,x_i^(p)⟩) x_i^(p), with real logits (None) or frozen ones.
    """
    h = preactivations(W, data.x)
    return coefficients(h, data, logits, activation).mT @ data.x.flatten(-3, -2)


def norm(gradient: Tensor) -> Tensor:
    """‖·‖_F over the last two dimensions, shape (..., 1, 1)."""
    return torch.linalg.matrix_norm(gradient, keepdim=True)


def preactivations(W: Tensor, x: Tensor) -> Tensor:
    """⟨w_j, x_i^(p)⟩, shape (..., n·P, J)."""
    return x.flatten(-3, -2) @ W.mT


def summed(h: Tensor, n_patches: int, activation: Activation = CUBE) -> Tensor:
    """Σ_p Σ_j σ(h), from preactivations (..., n·P, J) to outputs (..., n)."""
    value = (activation.slope(h) * h).sum(-1)
    return value.unflatten(-1, (-1, n_patches)).sum(-1)


def coefficients(
    h: Tensor, data: Dataset, logits: Logits = None, activation: Activation = CUBE
) -> Tensor:
    """What each patch weighs in ∇L at preactivations h: (..., n·P, J), like h."""
    P = data.x.shape[-2]
    if logits is None:
        logits = torch.sigmoid(-data.y * summed(h, P, activation))
    signed = (logits * data.y).repeat_interleave(P, dim=-1) * (-activation.power / data.n)
    return activation.slope(h) * signed.unsqueeze(-1)
