"""The data of Definition 3.1 and the augmented data sets U(k) and G(k).

An example is P patches in R^d: one feature patch (fast or slow), the rest noise orthogonal
to both features. The features are the first two basis vectors; the noise is isotropic off
them, so nothing is lost by that choice. Every tensor may carry leading batch dimensions
(independent draws of the whole data set).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.errors import ParameterError, require
from theory.world import World

FAST, SLOW = 0, 1
"""Coordinates of v_fast and v_slow, and their order wherever features are listed."""


@dataclass(frozen=True)
class DataConfig(World):
    """Parameters of Definition 3.1.

    variant "either": a fast *or* a slow feature patch (the paper's). variant "both": the
    slow feature in every example, the fast one added with probability alpha (P ≥ 3).
    noise "gaussian": independent patches N(0, sigma_noise² (I − v_e v_eᵀ − v_d v_dᵀ)).
    noise "orthogonal": the same marginals, but all noise patches mutually orthogonal
    (a random frame with independent χ_{d−2} lengths), which needs n_examples × patches ≤ d − 2.
    noise "isotropic": N(0, sigma_noise² I), so that noise has a component along the features.
    fixed_counts: exactly `theory.world.n_fast` examples are fast, else each with probability alpha.
    positive: probability that the true label is +1.
    label_noise: share of fast examples whose given label is wrong, and of slow ones too unless
    label_noise_slow is given. The patches are those of the true label, y is the given one. With
    fixed_counts exactly that share, rounded, at random places, else each independently.
    """

    variant: str = "either"
    noise: str = "gaussian"
    fixed_counts: bool = True
    positive: float = 0.5
    label_noise: float = 0.0
    label_noise_slow: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variant in VARIANTS, "variant", self.variant, f"one of {VARIANTS}")
        require(self.noise in NOISES, "noise", self.noise, f"one of {NOISES}")
        fewest = 3 if self.variant == "both" else 2
        require(
            self.n_patches >= fewest,
            "n_patches",
            self.n_patches,
            f'at least {fewest} for variant "{self.variant}"',
        )
        shares = (self.label_noise, self.wrong_slow)
        for name, share in zip(("label_noise", "label_noise_slow"), shares, strict=True):
            require(0 <= share <= 1, name, share, "inside [0, 1]")
        require(0 <= self.positive <= 1, "positive", self.positive, "inside [0, 1]")

    @property
    def wrong_slow(self) -> float:
        """Share of slow examples whose label is wrong."""
        return self.label_noise if self.label_noise_slow is None else self.label_noise_slow

    @property
    def noise_from(self) -> int:
        """First coordinate that noise fills: 2, off the features, or 0 if it is isotropic."""
        return 0 if self.noise == "isotropic" else 2


VARIANTS = ("either", "both")
NOISES = ("gaussian", "orthogonal", "isotropic")


@dataclass(frozen=True)
class Dataset:
    """Examples and where they come from.

    x: (..., n, P, d) patches; the features come first, but the network does not see order.
    y: (..., n) given labels −1.0 or +1.0.
    is_fast: (n,) bool; in variant "both" an example is fast when it has the fast feature.
    is_noise: (n, P) bool, True where the patch holds noise.
    source: (n,) index of the original each example derives from (an original's is its own).
    n_original: examples 0 .. n_original − 1 are the originals, the others are augmentation.
    """

    x: Tensor
    y: Tensor
    is_fast: Tensor
    is_noise: Tensor
    source: Tensor
    n_original: int
    config: DataConfig

    @property
    def n(self) -> int:
        """Number of examples, augmentation included (N')."""
        return self.x.shape[-3]

    @property
    def slow(self) -> Tensor:
        """Indices of the original slow examples."""
        return torch.nonzero(~self.is_fast[: self.n_original]).flatten()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Dataset:
        """The same data elsewhere: x and y on `device` in `dtype`, index tensors on `device`."""
        move = {name: getattr(self, name).to(device) for name in ("is_fast", "is_noise", "source")}
        return replace(self, x=self.x.to(device, dtype), y=self.y.to(device, dtype), **move)

    def take(self, index: Tensor) -> Dataset:
        """The examples at `index`, in that order.

        index (m,): the same examples in every batch dimension. index (..., m) with the batch
        dimensions of x, or any where x has none: other examples in each, and then is_fast,
        is_noise and source carry them too.
        """
        if index.dim() == 1:
            x, y = self.x.index_select(-3, index), self.y.index_select(-1, index)
        else:
            batch = index.shape[:-1]
            x = self.x.expand(*batch, *self.x.shape[-3:])
            x = x.gather(-3, index[..., None, None].expand(*index.shape, *x.shape[-2:]))
            y = self.y.expand(*batch, self.n).gather(-1, index)
        return replace(
            self,
            x=x,
            y=y,
            is_fast=self.is_fast[index],
            is_noise=self.is_noise[index],
            source=self.source[index],
        )


def sample(
    config: DataConfig,
    generator: torch.Generator,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Dataset:
    """Draw the data of Definition 3.1, with leading `batch` dimensions of independent draws.

    Fast examples come first when counts are fixed. Batched draws share is_fast.
    Raises ParameterError when orthogonal noise does not fit into d − 2 dimensions.
    """
    n, P, d = config.n_examples, config.n_patches, config.dim
    y = labels(config, (*batch, n), generator, dtype)
    if config.fixed_counts:
        is_fast = torch.arange(n) < config.n_fast
    else:
        is_fast = torch.rand(n, generator=generator) < config.alpha
    is_noise = torch.ones(n, P, dtype=torch.bool)
    is_noise[:, 0] = False
    if config.variant == "both":
        is_noise[is_fast, 1] = False
    x = torch.zeros(*batch, n, P, d, dtype=dtype)
    count = int(is_noise.sum())
    x[..., is_noise, config.noise_from :] = _noise(config, generator, (*batch, count), dtype)
    _write_features(x, y, is_fast, config)
    if config.label_noise or config.wrong_slow:  # drawn last: all else is as without
        y = torch.where(_wrong(config, is_fast, y.shape, generator), -y, y)
    return Dataset(x, y, is_fast, is_noise, torch.arange(n), n, config)


def labels(
    config: DataConfig,
    shape: tuple[int, ...],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """True labels, +1 with probability `config.positive`, else −1."""
    if config.positive == 0.5:  # one random bit each
        return torch.randint(0, 2, shape, generator=generator).to(dtype) * 2 - 1
    return (torch.rand(shape, generator=generator) < config.positive).to(dtype) * 2 - 1


def upsample(data: Dataset, k: int) -> Dataset:
    """U(k): every slow example appears k times. Raises ParameterError for k < 1."""
    return data.take(_augmented_index(data, k, data.slow))


def generate(
    data: Dataset,
    k: int,
    generator: torch.Generator,
    sigma_synthetic: float | None = None,
    fidelity: float = 1.0,
    kept_noise: float = 0.0,
    which: Tensor | None = None,
) -> Dataset:
    """G(k): every slow example is joined by k − 1 synthetic ones, same label, fresh noise.

    The family of theory/family.md: a synthetic example keeps `fidelity` c of its
    feature patch, and its noise is a (τ ξ + √(1 − τ²) ξ') with τ = `kept_noise`, ξ' fresh and
    a = sigma_synthetic / sigma_noise (default 1). c = 1, τ = 0 is the paper's G(k).
    which: (m,) indices of the originals to amplify; the slow ones by default.
    Raises ParameterError for k < 1, a negative sigma_synthetic, or c, τ outside [0, 1].
    """
    config = data.config
    sigma = config.sigma_noise if sigma_synthetic is None else sigma_synthetic
    require(sigma >= 0, "sigma_synthetic", sigma, "0 or more")
    silent = config.sigma_noise == 0 and sigma > 0
    require(not silent, "sigma_synthetic", sigma, "0 where sigma_noise is 0")
    require(0 <= fidelity <= 1, "fidelity", fidelity, "inside [0, 1]")
    require(0 <= kept_noise <= 1, "kept_noise", kept_noise, "inside [0, 1]")
    n = data.n
    result = data.take(_augmented_index(data, k, data.slow if which is None else which))
    new_noise = result.is_noise.clone()
    new_noise[:n] = False
    if not new_noise.any():
        return result
    x = result.x.clone()
    batch = x.shape[:-3]
    shape = (*batch, int(new_noise.sum()))
    first = config.noise_from
    old = data.x[..., data.is_noise, 2:] if config.noise == "orthogonal" else None
    fresh = _noise(config, generator, shape, x.dtype, beside=old)
    kept = x[..., new_noise, first:]
    amplitude = sigma / config.sigma_noise if config.sigma_noise > 0 else 0.0
    x[..., new_noise, first:] = amplitude * (kept_noise * kept + (1 - kept_noise**2) ** 0.5 * fresh)
    new_feature = ~result.is_noise
    new_feature[:n] = False
    x[..., new_feature, :2] *= fidelity
    return replace(result, x=x)


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


def _augmented_index(data: Dataset, k: int, which: Tensor) -> Tensor:
    require(k >= 1 and k == int(k), "k", k, "a whole number, at least 1")
    if data.n != data.n_original:
        raise ParameterError("data", f"{data.n} examples", "an original data set")
    return torch.cat([torch.arange(data.n), which.repeat(int(k) - 1)])


def _write_features(x: Tensor, y: Tensor, is_fast: Tensor, config: DataConfig) -> None:
    slow = ~is_fast if config.variant == "either" else torch.ones_like(is_fast)
    fast_patch = 0 if config.variant == "either" else 1
    x[..., slow, 0, SLOW] = config.beta_slow * y[..., slow]
    x[..., is_fast, fast_patch, FAST] = config.beta_fast * y[..., is_fast]


def _wrong(
    config: DataConfig, is_fast: Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Which labels are wrong, bool (..., n)."""
    draw = torch.rand(shape, generator=generator)
    if not config.fixed_counts:
        return draw < torch.where(is_fast, config.label_noise, config.wrong_slow)
    wrong = torch.zeros(shape, dtype=torch.bool)
    for group, share in ((is_fast, config.label_noise), (~is_fast, config.wrong_slow)):
        rank = draw[..., group].argsort(-1).argsort(-1)
        wrong[..., group] = rank < round(share * int(group.sum()))
    return wrong


def _noise(
    config: DataConfig,
    generator: torch.Generator,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    beside: Tensor | None = None,
) -> Tensor:
    """Noise patches (*shape, d − noise_from); orthogonal ones also to `beside` (..., m, d − 2)."""
    dim = config.dim - config.noise_from
    z = torch.randn(*shape, dim, generator=generator, dtype=dtype)
    if config.noise != "orthogonal":
        return config.sigma_noise * z
    m = 0 if beside is None else beside.shape[-2]
    require(
        shape[-1] + m <= dim,
        "noise",
        "orthogonal",
        f"gaussian unless dim − 2 = {dim} holds all {shape[-1] + m} noise patches",
    )
    # Lengths are kept from the Gaussian draw and directions from a Haar frame, independent of
    # them: every patch alone is exactly Gaussian. QR of earlier patches and new ones together
    # gives new directions that are Haar in the complement of the earlier ones.
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    z = torch.randn(z.shape, generator=generator, dtype=dtype)
    stacked = z if beside is None else torch.cat([beside, z], dim=-2)
    q, r = torch.linalg.qr(stacked.mT)
    q = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1)).unsqueeze(-2)
    return config.sigma_noise * length * q.mT[..., m:, :]
