"""Training in the filters' own coordinates: the reference that `span` must agree with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sim import measure
from sim.data import Dataset
from sim.network import CUBE, Activation, Logits, coefficients, preactivations, summed


@dataclass(frozen=True)
class Dense:
    """A data set and the filters W⁽⁰⁾ (..., J, d) that training starts from; the state is W."""

    data: Dataset
    start: Tensor
    activation: Activation = CUBE

    @property
    def y(self) -> Tensor:
        """(..., n) labels."""
        return self.data.y

    @property
    def is_fast(self) -> Tensor:
        """(n,) bool."""
        return self.data.is_fast

    @property
    def weight(self) -> Tensor:
        """(n,) share of each example in the loss."""
        n = self.data.n
        return torch.full((n,), 1 / n, dtype=self.y.dtype, device=self.y.device)

    @property
    def noise_weight(self) -> Tensor:
        """(m,) weight of each noise patch's example."""
        return self.weight.unsqueeze(-1).expand(self.data.is_noise.shape)[self.data.is_noise]

    @property
    def n_total(self) -> int:
        """Number of examples."""
        return self.data.n

    @property
    def initial(self) -> Tensor:
        """W⁽⁰⁾, with the batch dimensions of the data too."""
        batch = torch.broadcast_shapes(self.start.shape[:-2], self.data.x.shape[:-3])
        return self.start.expand(*batch, *self.start.shape[-2:])

    @property
    def identity(self) -> tuple[Tensor, ...]:
        """The tensors that a run from here depends on."""
        return self.start, self.data.x, self.data.y

    def project(self, W: Tensor) -> Tensor:
        """Preactivations of every patch, (..., n·P, J)."""
        return preactivations(W, self.data.x)

    def outputs(self, h: Tensor) -> Tensor:
        """f(x_i) from preactivations, (..., n)."""
        return summed(h, self.data.x.shape[-2], self.activation)

    def coefficients(self, h: Tensor, logits: Logits = None) -> Tensor:
        """Weight of each patch in the gradient, (..., n·P, J)."""
        return coefficients(h, self.data, logits, self.activation)

    def pull(self, c: Tensor) -> Tensor:
        """The gradient Σ_p c_p x_p with these weights, in the state's coordinates (..., J, d)."""
        return c.mT @ self.data.x.flatten(-3, -2)

    def gram_product(self, c: Tensor) -> Tensor:
        """Its projections on every patch, (..., n·P, J)."""
        return preactivations(self.pull(c), self.data.x)

    def take(self, index: Tensor) -> Dense:
        """The mini-batch of examples at index (..., b)."""
        return replace(self, data=self.data.take(index))

    def noise_part(self, h: Tensor) -> Tensor:
        """y_i h for the noise patches, (..., J, m)."""
        patches = h.mT.unflatten(-1, self.data.is_noise.shape)
        return (patches * self.y[..., None, :, None])[..., self.data.is_noise]

    def filters(self, W: Tensor) -> Tensor:
        """The filters, (..., J, d)."""
        return W

    def features(self, W: Tensor) -> Tensor:
        """⟨w_j, v⟩ for v = v_fast, v_slow, (..., J, 2)."""
        return measure.feature_alignment(W)

    def covariance(self, W: Tensor) -> Tensor:
        """Covariance of (⟨w_j, ξ⟩)_j for a fresh noise patch ξ of unit variance, (..., J, J)."""
        W = W[..., self.data.config.noise_from :]
        return W @ W.mT

    def squared_norms(self, W: Tensor, logits: Logits = None) -> Tensor:
        """‖g_i‖²_F of each example's gradient, (..., n)."""
        return measure.squared_norms(W, self.data, logits, self.activation)
