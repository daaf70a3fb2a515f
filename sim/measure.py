"""What is measured in the two-layer CNN: alignments, gradient variance, errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.data import FAST, SLOW, Dataset
from sim.network import Logits, gradient, logit_term, output
from sim.optim import batch_index


def feature_alignment(W: Tensor) -> Tensor:
    """⟨w_j, v⟩ for v = v_fast, v_slow: W (..., J, d) -> (..., J, 2)."""
    return W[..., [FAST, SLOW]]


def noise_projections(W: Tensor, data: Dataset) -> Tensor:
    """y_i⟨w_j, ξ_ip⟩ for every noise patch: (..., m, J), m = number of noise patches."""
    patches = data.x[..., data.is_noise, :]
    return (patches @ W.mT) * _patch_labels(data).unsqueeze(-1)


def noise_alignment(grad: Tensor, W: Tensor, data: Dataset) -> Tensor:
    """NoiseAlign_j = mean over I_{j,+} of y_i⟨−grad_{w_j}, ξ_i⟩, shape (..., J).

    I_{j,+} = noise patches with y_i⟨w_j, ξ_i⟩ > 0 at W; NaN for a filter that has none.
    """
    on = noise_projections(W, data) > 0
    along = noise_projections(-grad, data)
    return torch.where(on, along, 0.0).sum(-2) / on.sum(-2)


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    mean: float
    standard_error: float

    @staticmethod
    def of(samples: Tensor) -> Estimate:
        """Of independent samples, any shape."""
        flat = samples.flatten().double()
        return Estimate(float(flat.mean()), float(flat.std() / len(flat) ** 0.5))


def total_variance(gradients: Tensor) -> Estimate:
    """E‖g − Eg‖²_F from independent draws g (R, J, d), unbiased, with its standard error."""
    r = gradients.shape[0]
    deviation = (gradients - gradients.mean(0)).flatten(1).square().sum(1) * (r / (r - 1))
    return Estimate.of(deviation)


def gradient_variance(
    W: Tensor,
    data: Dataset,
    batch_size: int,
    generator: torch.Generator,
    draws: int = 200,
    logits: Logits = None,
    replacement: bool = False,
) -> Estimate:
    """Mini-batch gradient variance at fixed W (J, d) and data: over the choice of batch only."""
    index = batch_index(data.n, batch_size, generator, replacement, (draws,))
    frozen = logits[index] if isinstance(logits, Tensor) else logits
    return total_variance(gradient(W, data.take(index), frozen))


def batch_variance(W: Tensor, data: Dataset, batch_size: int, logits: Logits = None) -> Tensor:
    """The same, exactly: batches without replacement from given data, at each W, shape (...).

    (mean_i ‖g_i‖² − ‖∇L‖²) / B × (n − B)/(n − 1), with g_i the gradient of example i.
    """
    h = (data.x @ W.mT.unsqueeze(-3)).square()
    l = logit_term(W, data) if logits is None else torch.as_tensor(logits).expand(data.y.shape)
    each = 9 * l.square() * (h.mT @ data.x).square().sum((-1, -2))
    full = gradient(W, data, logits).square().sum((-1, -2))
    return (each.mean(-1) - full) / batch_size * (data.n - batch_size) / (data.n - 1)


def errors(W: Tensor, data: Dataset) -> dict[str, Tensor]:
    """Share of wrong signs {"all", "fast", "slow"}, each of shape (...).

    An output of exactly 0 counts as wrong; a group without examples gives NaN.
    """
    wrong = (data.y * output(W, data.x) <= 0).double()
    return {
        "all": wrong.mean(-1),
        "fast": wrong[..., data.is_fast].mean(-1),
        "slow": wrong[..., ~data.is_fast].mean(-1),
    }


def _patch_labels(data: Dataset) -> Tensor:
    """y_i of each noise patch, (..., m)."""
    return data.y[..., data.is_noise.nonzero()[:, 0]]
