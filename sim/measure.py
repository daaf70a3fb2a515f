"""What is measured in the two-layer CNN: alignments, gradient variance, errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim.data import FAST, SLOW, DataConfig, Dataset, batch_index, labels
from sim.network import CUBE, Activation, Logits, gradient, logit_term, output
from theory.gradient_variance import Filters


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
    """A mean with its standard error.

    skewness: of the mean, E[(sample − mean)³] / (s³ √n). Its t statistic then has the skewness
    −2 times this, which counts far out in the tails even where it is small.
    """

    mean: float
    standard_error: float
    skewness: float = 0.0

    @staticmethod
    def of(samples: Tensor) -> Estimate:
        """Of independent samples, any shape."""
        flat = samples.flatten().double()
        mean, spread, n = flat.mean(), flat.std(), len(flat)
        third = float(((flat - mean) ** 3).mean() / spread**3) if spread > 0 else 0.0
        return Estimate(float(mean), float(spread / n**0.5), third / n**0.5)

    def through(self, value: float, slope: float) -> Estimate:
        """A function of the mean, of which `value` is its value there, by the delta method."""
        sign = 1.0 if slope >= 0 else -1.0
        return Estimate(value, abs(slope) * self.standard_error, sign * self.skewness)


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
    full = gradient(W, data, logits).square().sum((-1, -2))
    each = squared_norms(W, data, logits).mean(-1)
    return (each - full) / batch_size * (data.n - batch_size) / (data.n - 1)


def filter_sums(W: Tensor) -> Filters:
    """What Theorem 4.3 needs to know of given filters (J, d)."""
    quartic = W[:, [FAST, SLOW]].pow(4).sum(0)
    off_features = W[:, 2:].square().sum(1).square().sum()
    return Filters(float(off_features), float(quartic[0]), float(quartic[1]))


def squared_norms(
    W: Tensor, data: Dataset, logits: Logits = None, activation: Activation = CUBE
) -> Tensor:
    """‖g_i‖²_F of each example's own gradient, shape (..., n)."""
    l = logit_term(W, data, activation) if logits is None else logits
    slope = activation.power * activation.slope(data.x @ W.mT.unsqueeze(-3))
    # Σ_j ‖Σ_p s_jp x_p‖², patch by patch: P × P numbers an example instead of J × d
    return l**2 * ((slope @ slope.mT) * (data.x @ data.x.mT)).sum((-1, -2))


def errors(W: Tensor, data: Dataset) -> dict[str, Tensor]:
    """Share of wrong signs {"all", "fast", "slow"} against the given labels, each of shape (...).

    An output of exactly 0, or NaN, counts as wrong; a group without examples gives NaN.
    """
    wrong = (~(data.y * output(W, data.x) > 0)).double()
    return {
        "all": wrong.mean(-1),
        "fast": wrong[..., data.is_fast].mean(-1),
        "slow": wrong[..., ~data.is_fast].mean(-1),
    }


FRESH_CHUNK = 500
"""Fresh examples drawn at once: fixed, so that draws do not depend on the leading dimensions."""


def fresh_errors(
    features: Tensor,
    covariance: Tensor,
    config: DataConfig,
    n: int,
    generator: torch.Generator,
    activation: Activation = CUBE,
    beta_fast: Tensor | float | None = None,
    beta_slow: Tensor | float | None = None,
    sigma_noise: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Test errors {"all", "fast", "slow"} on n fresh examples of each kind, each of shape (...).

    A fresh example enters only through its projections on the filters, and those of a fresh
    noise patch are N(0, sigma_noise² covariance): J numbers, whatever d is. So this is exact in
    law from features (..., J, 2) and covariance (..., J, J), `Point.features` and
    `Point.covariance`; the same draws serve fast and slow examples and all leading dimensions.
    The three scales default to config's; tensors broadcast against the leading dimensions.
    "all" weighs fast by alpha. Errors are those on true labels, +1 with probability
    config.positive (label_noise is not used). An output of exactly 0 counts as wrong, and so does
    a run that has diverged (features or covariance not finite).
    An example's noise patches are taken as independent of each other, which for noise
    "orthogonal" and more than two patches is an approximation (close for large d).
    """
    dtype, device = features.dtype, features.device
    given = (
        (beta_fast, config.beta_fast),
        (beta_slow, config.beta_slow),
        (sigma_noise, config.sigma_noise),
    )
    fast, slow, sigma = (
        torch.as_tensor(default if v is None else v, dtype=dtype, device=device)
        for v, default in given
    )
    finite = covariance.isfinite().all(-1).all(-1)[..., None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, covariance, 0.0))
    values = torch.where(finite.squeeze(-1), values, torch.nan)
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2) * sigma[..., None, None]
    kinds = ("fast", "slow")
    beta = {"fast": fast, "slow": slow}
    wrong = {kind: torch.zeros((), dtype=dtype, device=device) for kind in kinds}
    J, done = features.shape[-2], 0
    while done < n:
        size = min(FRESH_CHUNK, n - done)
        done += size
        y = labels(config, (size,), generator, dtype).to(device)
        count = config.n_patches - 1
        z = torch.randn(count, size, J, generator=generator, dtype=dtype).to(device)
        noise = [_value(z[p] @ root.mT, activation).sum(-1) for p in range(count)]
        present = {
            v: _value(
                y[:, None] * (beta[kind][..., None, None] * features[..., None, :, v]), activation
            ).sum(-1)
            for v, kind in ((FAST, "fast"), (SLOW, "slow"))
        }
        if config.variant == "both":
            output = {
                "slow": present[SLOW] + sum(noise),
                "fast": present[SLOW] + present[FAST] + sum(noise[1:]),
            }
        else:
            output = {kind: present[v] + sum(noise) for v, kind in ((FAST, "fast"), (SLOW, "slow"))}
        for kind in kinds:
            wrong[kind] = wrong[kind] + (~(y * output[kind] > 0)).sum(-1)
    error = {kind: count / n for kind, count in wrong.items()}
    return {"all": config.alpha * error["fast"] + (1 - config.alpha) * error["slow"], **error}


def _value(z: Tensor, activation: Activation) -> Tensor:
    return activation.slope(z) * z


def _patch_labels(data: Dataset) -> Tensor:
    """y_i of each noise patch, (..., m)."""
    return data.y[..., data.is_noise.nonzero()[:, 0]]
