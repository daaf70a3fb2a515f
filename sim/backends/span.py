"""Training in the span of the features and the noise patches: exact, whatever the dimension.

By equation (3) of theory/README.md every gradient is a combination C of the rows
R = [v_fast, v_slow, distinct noise patches], so the filters never leave W⁽⁰⁾ + span R:
W = W⁽⁰⁾ + A R. With the Gram matrix K = R Rᵀ the projections are B = W Rᵀ = W⁽⁰⁾Rᵀ + A K, and
all that the network and the loss need of a patch is its column of B. A step costs O(m² J) for m
rows whatever d is; copies of an example cost nothing (they are weights); and since the activation
is homogeneous, neither does a scale of the noise or of the features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from common.errors import require
from sim.data import Dataset
from sim.network import CUBE, Activation, Logits

FEATURES = 2
"""The first rows are v_fast and v_slow."""


@dataclass(frozen=True)
class Span:
    """A data set and initial filters in the coordinates of its m rows; the state is A.

    gram: (..., r, m) inner products of the r rows in use with all m rows (r = m for the full
        batch); block: (..., r, r) among themselves. used: (..., r) their numbers in a
        mini-batch, None for all.
    start: (..., J, r) projections of W⁽⁰⁾ on the rows in use.
    moments: (..., J, J) W⁽⁰⁾W⁽⁰⁾ᵀ.
    y: (..., n') labels of the n' distinct examples; is_fast, is_synthetic: (n',) bool; weight:
        (n',) share of each in the loss, copies included; distinct: (n,) which of them each
        example is.
    feature: (..., n', 2) coefficients of each example's feature patches (0: it has none).
    owner: (r − 2,) the example of each noise patch; scale: (..., r − 2) its coefficient, ≥ 0.
    n_total: number of examples, copies included. noise_from: see `sim.data.DataConfig`.
    W, rows: what the filters are rebuilt from, (..., J, d) and (..., m, d).
    """

    gram: Tensor
    block: Tensor
    used: Tensor | None
    start: Tensor
    moments: Tensor
    y: Tensor
    is_fast: Tensor
    is_synthetic: Tensor
    weight: Tensor
    distinct: Tensor
    feature: Tensor
    owner: Tensor
    scale: Tensor
    n_total: int
    noise_from: int
    W: Tensor
    rows: Tensor
    activation: Activation = CUBE

    @staticmethod
    def of(data: Dataset, W: Tensor, activation: Activation = CUBE) -> Span:
        """Rows, Gram matrix and initial projections: the set-up, O(m² d).

        data: as `sample`, `upsample` and `generate` make it; W: (..., J, d) initial filters.
        """
        first = first_copies(data)
        kept, distinct, copies = torch.unique(first, return_inverse=True, return_counts=True)
        one = data.take(kept)
        basis = torch.eye(FEATURES, one.x.shape[-1], dtype=one.x.dtype, device=one.x.device)
        noise = one.x[..., one.is_noise, :]
        rows = torch.cat([basis.expand(*noise.shape[:-2], *basis.shape), noise], dim=-2)
        gram = rows @ rows.mT
        feature = (one.x[..., :FEATURES] * ~one.is_noise.unsqueeze(-1)).sum(-2)
        return Span(
            gram=gram,
            block=gram,
            used=None,
            start=W @ rows.mT,
            moments=W @ W.mT,
            y=one.y,
            is_fast=one.is_fast,
            is_synthetic=kept >= data.n_original,
            weight=copies.to(W.dtype) / data.n,
            distinct=distinct,
            feature=feature,
            owner=one.is_noise.nonzero()[:, 0],
            scale=torch.ones(noise.shape[-2], dtype=W.dtype, device=W.device),
            n_total=data.n,
            noise_from=data.config.noise_from,
            W=W,
            rows=rows,
            activation=activation,
        )

    def rescaled(
        self,
        sigma_noise: Tensor | float = 1.0,
        sigma_synthetic: Tensor | float = 1.0,
        beta_fast: Tensor | float = 1.0,
        beta_slow: Tensor | float = 1.0,
        sigma_init: Tensor | float = 1.0,
    ) -> Span:
        """The same draws with each scale multiplied: many configurations, one Gram matrix.

        sigma_noise multiplies the noise of originals and their copies (a synthetic example that
        equals its source is one), sigma_synthetic that of the other synthetic examples. Each
        factor is a number or a tensor with leading batch dimensions, for example (cells, 1) over
        seeds (seeds,); configurations then share their random numbers. Filters and moments stay
        those of the unscaled rows: give `fresh_errors` the scaled parameters.
        """
        dtype, device = self.start.dtype, self.start.device
        sigma, synthetic, fast, slow, init = (
            torch.as_tensor(v, dtype=dtype, device=device)[..., None]
            for v in (sigma_noise, sigma_synthetic, beta_fast, beta_slow, sigma_init)
        )
        for name, factor in (("sigma_noise", sigma), ("sigma_synthetic", synthetic)):
            require(bool((factor >= 0).all()), name, float(factor.min()), "0 or more")
        beta = torch.stack(torch.broadcast_tensors(fast, slow), -1)
        return replace(
            self,
            scale=self.scale * torch.where(self.is_synthetic[self.owner], synthetic, sigma),
            feature=self.feature * beta,
            start=self.start * init[..., None],
            moments=self.moments * init[..., None] ** 2,
            W=self.W * init[..., None],
        )

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch dimensions of the state: all configurations and seeds."""
        parts = (self.start.shape[:-2], self.feature.shape[:-2], self.scale.shape[:-1])
        return tuple(torch.broadcast_shapes(*parts, self.y.shape[:-1]))

    @property
    def initial(self) -> Tensor:
        """A = 0, (..., J, m)."""
        shape = (*self.batch, self.start.shape[-2], self.gram.shape[-1])
        return torch.zeros(shape, dtype=self.start.dtype, device=self.start.device)

    @property
    def identity(self) -> tuple[Tensor, ...]:
        """The tensors that a run from here depends on."""
        return self.start, self.gram, self.y, self.weight, self.feature, self.scale

    def project(self, A: Tensor) -> Tensor:
        """Projections of the filters on the rows in use, B = W⁽⁰⁾Rᵀ + A K, (..., J, r)."""
        return times(A, self.gram).add_(self.start)

    def outputs(self, B: Tensor) -> Tensor:
        """f(x_i) of the distinct examples, (..., n')."""
        return self._forward(B)[0]

    def coefficients(self, B: Tensor, logits: Logits = None) -> Tensor:
        """Weight of each row in the gradient of the loss, (..., J, r)."""
        output, slope, feature_slope = self._forward(B)
        if logits is None:
            logits = torch.sigmoid(-self.y * output)
        signed = -self.activation.power * self.weight * logits * self.y
        on_noise = self._at_rows(signed) * self._scale_power
        on_features = signed.unsqueeze(-2) @ self._feature_power
        along = self._merged(feature_slope * on_features)
        weights = B.new_empty(*slope.shape[:-1], FEATURES + slope.shape[-1])
        weights[..., :FEATURES] = along
        torch.mul(slope, on_noise.unsqueeze(-2), out=weights[..., FEATURES:])
        return weights

    def pull(self, c: Tensor) -> Tensor:
        """The gradient with these weights of the rows in use, in the state's coordinates."""
        if self.used is None:
            return c
        out = c.new_zeros(*c.shape[:-1], self.gram.shape[-1])
        return out.scatter_add_(-1, self.used.unsqueeze(-2).expand(c.shape), c)

    def gram_product(self, c: Tensor) -> Tensor:
        """Projections of that gradient on the rows in use, (..., J, r)."""
        return times(c, self.block)

    def take(self, index: Tensor) -> Span:
        """The mini-batch of the data set's examples `index` (..., b), with repetitions."""
        i = self.distinct[index]
        batch = torch.broadcast_shapes(i.shape[:-1], self.gram.shape[:-2])
        i = i.expand(*batch, i.shape[-1])
        table, present = self._row_table
        patches = table[i].flatten(-2)
        features = torch.arange(FEATURES, device=i.device).expand(*batch, FEATURES)
        used = torch.cat([features, patches], dim=-1)
        gram = _rows(self.gram, used)
        return replace(
            self,
            gram=gram,
            block=gram.gather(-1, used.unsqueeze(-2).expand(*gram.shape[:-1], used.shape[-1])),
            used=used,
            start=_rows(self.start.mT, used).mT,
            y=_entries(self.y, i),
            is_fast=self.is_fast[i],
            is_synthetic=self.is_synthetic[i],
            weight=torch.full_like(self.weight[:1], 1 / i.shape[-1]),
            feature=_rows(self.feature, i),
            owner=torch.arange(i.shape[-1], device=i.device).repeat_interleave(table.shape[-1]),
            scale=_entries(self.scale, patches - FEATURES) * present[i].flatten(-2),
            n_total=i.shape[-1],
        )

    def noise_part(self, B: Tensor) -> Tensor:
        """y_i⟨w_j, ξ⟩ for the distinct noise patches, (..., J, m − 2)."""
        return B[..., FEATURES:] * (self._at_rows(self.y) * self.scale).unsqueeze(-2)

    @property
    def noise_weight(self) -> Tensor:
        """(m − 2,) weight of each noise patch's example."""
        return self.weight[self.owner]

    def filters(self, A: Tensor) -> Tensor:
        """W = W⁽⁰⁾ + A R, (..., J, d)."""
        return self.W + A @ self.rows

    def features(self, A: Tensor) -> Tensor:
        """⟨w_j, v⟩ for v = v_fast, v_slow, (..., J, 2)."""
        return times(A, self.gram[..., :FEATURES, :]) + self.start[..., :FEATURES]

    def covariance(self, A: Tensor) -> Tensor:
        """Covariance of (⟨w_j, ξ⟩)_j for a fresh noise patch ξ of unit variance, (..., J, J)."""
        total = self.moments + self.start @ A.mT + A @ self.project(A).mT
        if self.noise_from == 0:
            return total
        along = self.features(A)
        return total - along @ along.mT

    def squared_norms(self, A: Tensor, logits: Logits = None) -> Tensor:
        """‖g_i‖²_F of each distinct example's own gradient, (..., n')."""
        B = self.project(A)
        table, present = self._row_table
        n = table.shape[0]
        output, slope, feature_slope = self._forward(B)
        l = torch.sigmoid(-self.y * output) if logits is None else logits
        noise = (slope * self._scale_power.unsqueeze(-2)).mT
        noise = noise[..., table - FEATURES, :] * present.unsqueeze(-1)  # (..., n', Q, J)
        along = feature_slope.unsqueeze(-3) * self._feature_power.unsqueeze(-2)
        along = self._merged(along).mT.expand(*noise.shape[:-2], FEATURES, noise.shape[-1])
        own = torch.cat([along, noise], dim=-2)
        slots = torch.cat([torch.arange(FEATURES).expand(n, FEATURES).to(table), table], -1)
        block = self.gram[..., slots.unsqueeze(-1), slots.unsqueeze(-2)]
        each = (block * (own @ own.mT)).sum((-1, -2))
        return self.activation.power**2 * l**2 * each

    def _forward(self, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (..., n'), and the activation's slope at noise rows and feature channels."""
        noise, feature = B[..., FEATURES:], B[..., :FEATURES]
        if self.activation.rectified:
            feature = torch.cat([feature, -feature], dim=-1)
        slope, feature_slope = self.activation.slope(noise), self.activation.slope(feature)
        if slope is noise:
            slope = noise.clone()
        from_noise = self._per_example((slope * noise).sum(-2) * self._scale_power)
        value = (feature_slope * feature).sum(-2)
        output = from_noise + (self._feature_power @ value.unsqueeze(-1)).squeeze(-1)
        return output, slope, feature_slope

    def _merged(self, channels: Tensor) -> Tensor:
        """Gradients along the two features from those of the feature channels (last dimension)."""
        if not self.activation.rectified:
            return channels
        return channels[..., :FEATURES] - channels[..., FEATURES:]

    @cached_property
    def _feature_power(self) -> Tensor:
        """f^q of each feature coefficient: σ(f z) = f^q σ(z); rectified: of ±f's positive part."""
        q = self.activation.power
        if self.activation.rectified:
            return torch.cat([self.feature, -self.feature], -1).clamp_min(0).pow(q)
        return self.feature.pow(q)

    @cached_property
    def _scale_power(self) -> Tensor:
        return self.scale.pow(self.activation.power)

    @cached_property
    def _per_row(self) -> int | None:
        """Noise patches of each example where all have as many, in order; else None."""
        n, r = self.y.shape[-1], len(self.owner)
        ordered = torch.arange(n, device=self.owner.device).repeat_interleave(r // n)
        return r // n if r % n == 0 and torch.equal(self.owner, ordered) else None

    def _per_example(self, v: Tensor) -> Tensor:
        """Sum over each example's noise patches, (..., r − 2) -> (..., n')."""
        if self._per_row == 1:
            return v
        if self._per_row is not None:
            return v.unflatten(-1, (-1, self._per_row)).sum(-1)
        out = v.new_zeros(*v.shape[:-1], self.y.shape[-1])
        return out.index_add_(-1, self.owner, v)

    def _at_rows(self, v: Tensor) -> Tensor:
        """Each noise patch's example's value, (..., n') -> (..., r − 2)."""
        return v if self._per_row == 1 else v.index_select(-1, self.owner)

    @cached_property
    def _row_table(self) -> tuple[Tensor, Tensor]:
        """(n', Q) row numbers of each example's noise patches, and 1.0 where it has that many."""
        n = self.y.shape[-1]
        counts = torch.bincount(self.owner, minlength=n)
        place = torch.arange(len(self.owner), device=self.owner.device)
        within = place - (counts.cumsum(0) - counts)[self.owner]
        table = torch.full((n, int(counts.max())), FEATURES, device=self.owner.device)
        present = torch.zeros(table.shape, dtype=self.start.dtype, device=self.owner.device)
        table[self.owner, within] = place + FEATURES
        present[self.owner, within] = 1.0
        return table, present


def times(A: Tensor, K: Tensor) -> Tensor:
    """A Kᵀ, where batch dimensions that only A has become rows of one product.

    A (..., J, m), K (..., r, m) -> (..., J, r). `matmul` would copy K once for each of them. The
    long dimension is kept last: with the few filters last it runs at half the speed.
    """
    lead = A.dim() - 2
    shape = (1,) * (lead - K.dim() + 2) + tuple(K.shape[:-2])
    shared = [i for i in range(lead) if shape[i] == 1 and A.shape[i] > 1]
    if not shared:
        return A @ K.mT
    own = [i for i in range(lead) if i not in shared]
    order = [*own, *shared, lead, lead + 1]
    rows = A.permute(order).flatten(len(own), -2)
    product = rows @ K.reshape(*(shape[i] for i in own), *K.shape[-2:]).mT
    sizes = [A.shape[i] for i in shared] + [A.shape[lead]]
    back = [order.index(i) for i in range(lead + 2)]
    return product.unflatten(-2, sizes).permute(back)


def first_copies(data: Dataset) -> Tensor:
    """For each example the first one that equals it: its source if it is a copy, else itself."""
    own = torch.arange(data.n, device=data.y.device)
    later = own[data.n_original :]
    if not len(later):
        return own
    source = data.source[later]
    same = data.x[..., later, :, :] == data.x[..., source, :, :]
    equal = same.flatten(-2).all(-1).reshape(-1, len(later)).all(0)
    return torch.cat([own[: data.n_original], torch.where(equal, source, later)])


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """tensor (..., m, J), index (..., r) -> (..., r, J), batch dimensions broadcast."""
    batch = torch.broadcast_shapes(tensor.shape[:-2], index.shape[:-1])
    tensor = tensor.expand(*batch, *tensor.shape[-2:])
    index = index.expand(*batch, index.shape[-1]).unsqueeze(-1)
    return tensor.gather(-2, index.expand(*index.shape[:-1], tensor.shape[-1]))


def _entries(tensor: Tensor, index: Tensor) -> Tensor:
    """tensor (..., m), index (..., r) -> (..., r), batch dimensions broadcast."""
    return _rows(tensor.unsqueeze(-1), index).squeeze(-1)
