"""The family between copies and faithful images: one step, and the mini-batch gradient variance.

Equations (F1) to (F6) of theory/family.md, for synthetic examples of any fidelity, kept noise and
amplitude. What is exact given the data is measured to rounding, what is a mean over data in many
small draws: few examples in few dimensions, so that every term weighs enough to be tested.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sim.checks.base import (
    DRAWN,
    Check,
    Plan,
    Quantity,
    combine,
    exact,
    power_product,
    predicted,
    quantity,
    ratio,
)
from sim.checks.gradients import LOGIT, mean_over_batches, pair_shares, positive_part
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import Estimate
from sim.network import gradient, init
from theory import family as theory
from theory.amplification import feature_gradient
from theory.claims import CLAIMS
from theory.family import FamilyMember
from theory.gradient_variance import Filters

_FILTERS, _SIGMA_INIT = 16, 0.5


def _originals(
    config: DataConfig,
    n_fast: int,
    g: torch.Generator,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Dataset:
    """Data with `n_fast` fast examples, whatever config.alpha."""
    data = sample(config, g, batch, dtype)
    is_fast = torch.arange(config.n_examples) < n_fast
    x = data.x.clone()
    x[..., 0, :2] = 0.0
    x[..., is_fast, 0, FAST] = config.beta_fast * data.y[..., is_fast]
    x[..., ~is_fast, 0, SLOW] = config.beta_slow * data.y[..., ~is_fast]
    return replace(data, x=x, is_fast=is_fast)


def augmented(data: Dataset, member: FamilyMember | int, plan: Plan, g: torch.Generator) -> Dataset:
    """data with the member's synthetic examples, or U(k); the control gives them fresh noise."""
    if isinstance(member, int):
        return upsample(data, member)
    return generate(
        data,
        int(member.k),
        g,
        sigma_synthetic=member.amplitude * data.config.sigma_noise,
        fidelity=member.fidelity,
        kept_noise=0.0 if plan.broken else member.kept_noise,
    )


def matched(config: DataConfig) -> Tensor:
    """One filter with the same projection on both features."""
    W = torch.zeros(1, config.dim, dtype=torch.float64)
    W[:, [FAST, SLOW]] = 0.5
    return W


def _fast_counts(config: DataConfig, draws: int, random: bool, g: torch.Generator) -> Tensor:
    """Number of fast examples in each of `draws` data sets."""
    if not random:
        return torch.full((draws,), config.n_fast)
    return (torch.rand(draws, config.n_examples, generator=g) < config.alpha).sum(1)


def as_member(member: FamilyMember | int) -> FamilyMember:
    return theory.FamilyMember.copies(member) if isinstance(member, int) else member


def name_of(member: FamilyMember | int) -> str:
    return f"U({member})" if isinstance(member, int) else f"k={member.k:g} {shares_of(member)}"


def shares_of(member: FamilyMember) -> str:
    return f"c={member.fidelity:.2g} tau={member.kept_noise:.2g} a={member.amplitude:g}"


# --- Equations (F1) to (F3): one step ------------------------------------------------------------

# matched filters, and a feature ratio at which k* is 1.5 / .7^3
_FEATURES = DataConfig(n_examples=5, dim=30, alpha=0.6, beta_slow=0.7, sigma_noise=0.2)
_MEMBERS = (FamilyMember(3, 0.8, 0.5, 0.9), FamilyMember(5, 0.3, 1.0, 1.0), 4)  # 4: U(4)

_FEW = DataConfig(n_examples=3, dim=14, alpha=1 / 3, beta_slow=0.7, sigma_noise=0.4)
_UNEVEN = replace(_FEW, alpha=0.45)
_ONE_STEP = (
    # world, random counts, member
    (_FEW, False, 3),
    (_FEW, False, FamilyMember(2, 0.7, 0.3, 0.6)),
    (_FEW, False, FamilyMember(6, 0.9, 0.5, 1.0)),
    (replace(_FEW, n_patches=3), False, FamilyMember(4, 0.5, 0.8, 1.2)),
    (_UNEVEN, True, FamilyMember(3, 0.8, 0.6, 1.1)),
    (replace(_UNEVEN, n_patches=3), True, FamilyMember(2, 0.6, 0.4, 0.8)),
    # as few dimensions as hold 7 orthogonal patches: the kind of noise counts for 8%
    (replace(_FEW, dim=9, noise="orthogonal"), False, FamilyMember(3, 0.8, 0.6, 1.0)),
)
_CHUNK = 2_000  # data sets at a time: what fits into the processor's cache


def _feature_growth(plan: Plan) -> list[Quantity]:
    """(F1) and (F2) given the data: exact."""
    out = []
    g = plan.generator(60)
    data = sample(_FEATURES, g)
    W = matched(_FEATURES)
    before = -gradient(W, data, LOGIT)[0]
    for member in _MEMBERS:
        made = augmented(data, member, plan, g)
        growth = -gradient(W, made, LOGIT)[0]
        for feature, name in ((FAST, "fast"), (SLOW, "slow")):
            label = f"growth of v_{name}, {name_of(member)}"
            out.append(exact(label, growth[feature], partial(_growth, _FEATURES, member, feature)))
        gain = (growth[SLOW] / growth[FAST]) / (before[SLOW] / before[FAST])
        label = f"gain of the slow feature on the fast one, {name_of(member)}"
        out.append(exact(label, gain, partial(_predicted, "effective_k", member)))
    for fidelity in (1.0, 0.8):
        k = _equalising_k(data, W, fidelity, g)
        label = f"k that equalises growth, c={fidelity}"
        given = {"beta_fast": _FEATURES.beta_fast, "beta_slow": _FEATURES.beta_slow}
        given |= {"alpha": _FEATURES.alpha, "fidelity": fidelity}
        out.append(exact(label, k, predicted("family", "k_star", **given)))
    return out


def _equalising_k(data: Dataset, W: Tensor, fidelity: float, g: torch.Generator) -> float:
    """The k at which both features grow alike, between the whole numbers that bracket it."""

    def excess(k: int) -> float:
        made = generate(data, k, g, fidelity=fidelity)
        grad = gradient(W, made, LOGIT)[0]
        return float(grad[FAST] - grad[SLOW]) * made.n  # linear in k once the size is undone

    k = 1
    while excess(k + 1) < 0:
        k += 1
    low, high = excess(k), excess(k + 1)
    return k - low / (high - low)


def _mean_shares(plan: Plan) -> list[Quantity]:
    """(F1) over random counts: growth depends on the count alone, so each count needs one set."""
    config = replace(_FEATURES, alpha=0.7)
    member = _MEMBERS[0]
    g = plan.generator(61)
    W = matched(config)
    growth = []
    for n_fast in range(config.n_examples + 1):
        data = _originals(config, n_fast, g)
        growth.append(-gradient(W, augmented(data, member, plan, g), LOGIT)[0])
    drawn = torch.stack(growth)[_fast_counts(config, plan.size(100_000), True, g)]
    return [
        quantity(
            f"mean growth of v_{name}, random counts",
            Estimate.of(drawn[:, feature]),
            partial(_growth, config, member, feature, random_counts=True),
        )
        for feature, name in ((FAST, "fast"), (SLOW, "slow"))
    ]


def _alignments(plan: Plan) -> list[Quantity]:
    """(F3) in expectation over data."""
    out = []
    for case, (config, random, member) in enumerate(_ONE_STEP):
        W = init(_FILTERS, config.dim, _SIGMA_INIT, plan.fixed(62), dtype=DRAWN)
        w_norm = float(W[:, 2:].square().sum(1).mean().sqrt())
        g = plan.generator(63, case)
        counts = _fast_counts(config, plan.size(16_000), random, g)
        parts = []
        for n_fast, draws in zip(*torch.unique(counts, return_counts=True), strict=True):
            for chunk in torch.arange(int(draws)).split(_CHUNK):
                data = _originals(config, int(n_fast), g, (len(chunk),), DRAWN)
                made = augmented(data, member, plan, g)
                both = (*positive_part(made, W), *positive_part(data, W))
                parts.append(torch.stack([part.double() for part in both]))
        own, size, bare, bare_size = torch.cat(parts, 1)
        label = f"{name_of(member)} P={config.n_patches}" + ", random counts" * random
        label += ", orthogonal noise" * _is_orthogonal(config)
        out.append(
            quantity(
                f"NoiseAlign, {label}",
                ratio(own, size),
                partial(_alignment, config, member, w_norm, random),
            )
        )
        if not random:
            # the weight in units of the originals', which are the same: far sharper than alone
            sums = power_product((own, 1), (bare, -1), (size, -1), (bare_size, 1))
            scale = _size(config, member) / config.n_examples
            weight = sums.through(sums.mean * scale, scale)
            given = {"alpha": config.share_fast, "dim_noise": config.dim_noise}
            given |= {"orthogonal": _is_orthogonal(config)}
            predict = partial(_predicted, "noise_weight", member, **given)
            out.append(quantity(f"weight of noise, {label}", weight, predict))
    return out


def _is_orthogonal(config: DataConfig) -> bool:
    return config.noise == "orthogonal"


def _size(config: DataConfig, member: FamilyMember | int) -> int:
    """N' at fixed counts."""
    n_fast = config.n_fast
    k = member if isinstance(member, int) else int(member.k)
    return n_fast + k * (config.n_examples - n_fast)


def _predicted(key: str, member: FamilyMember | int, **inputs: Any) -> float:
    """What `theory predict family` prints of a member."""
    return CLAIMS["family"].predict(**asdict(as_member(member)), **inputs)[key]


def _growth(
    world: DataConfig, member: FamilyMember | int, feature: int, random_counts: bool = False
) -> float:
    """(F1) at a projection of 1/2."""
    share = theory.feature_shares(world, as_member(member), random_counts)[feature]
    return feature_gradient((world.beta_fast, world.beta_slow)[feature], share, LOGIT, 0.5)


def _alignment(
    world: DataConfig, member: FamilyMember | int, w_norm: float, random_counts: bool
) -> float:
    """(F3)."""
    kind = random_counts, _is_orthogonal(world)
    return theory.family_alignment(world, as_member(member), w_norm, LOGIT, *kind)


# --- Equations (F4) to (F6): mini-batch gradient variance ----------------------------------------

_BARE = DataConfig(3, 4, alpha=0.4, beta_fast=1.2, beta_slow=0.8, sigma_noise=0.0)
_LOUD = DataConfig(n_examples=2, dim=12, alpha=0.5, beta_slow=0.6, sigma_noise=0.5)
_MIXED = DataConfig(n_examples=3, dim=12, alpha=0.4, beta_slow=0.9, sigma_noise=0.35)
_THREE = replace(_MIXED, n_patches=3)


@dataclass(frozen=True)
class _Batches:
    """A world, a member and how its mini-batches are drawn."""

    world: DataConfig
    member: FamilyMember | int
    batch_size: int
    draws: int
    replacement: bool = False
    random_counts: bool = False
    random_filters: bool = False

    def __str__(self) -> str:
        return (
            f"{name_of(self.member)} B={self.batch_size} P={self.world.n_patches}"
            + " with replacement" * self.replacement
            + ", random counts" * self.random_counts
            + ", mean over W(0)" * self.random_filters
            + ", no noise" * (self.world.sigma_noise == 0)
            + ", orthogonal noise" * _is_orthogonal(self.world)
        )


_VARIANCES = (
    # without noise and at fixed counts nothing is left to chance: one draw is exact
    _Batches(_BARE, FamilyMember(3, 0.8, 0.5, 0.9), 2, 1),
    _Batches(_BARE, FamilyMember(2, 0.6, 0.5, 0.9), 3, 1, replacement=True),
    # full batches, for which the terms in B − 1 and N' − 1 weigh most
    _Batches(_LOUD, 2, 3, 70_000),
    _Batches(_LOUD, FamilyMember(6, 0.9, 0.7, 1.3), 7, 24_000),
    _Batches(_LOUD, FamilyMember(3, 0.9, 0.6, 0.9), 4, 16_000, replacement=True),
    _Batches(_THREE, FamilyMember(3, 0.7, 0.9, 0.8), 4, 12_000, random_filters=True),
    _Batches(_MIXED, FamilyMember(2, 0.8, 0.7, 1.1), 3, 12_000, random_counts=True),
    _Batches(_THREE, FamilyMember(3, 0.5, 0.8, 0.9), 3, 12_000, True, True, True),
    # in as few dimensions as hold the patches: the kind of noise counts for 30%
    _Batches(
        replace(_LOUD, dim=6, noise="orthogonal"),
        FamilyMember(3, 0.9, 0.7, 1.2),
        4,
        84_000,
    ),
)


def _measure_variance(plan: Plan) -> list[Quantity]:
    out = []
    for number, case in enumerate(_VARIANCES):
        g = plan.generator(64, number)
        d = case.world.dim
        dtype = torch.float64 if case.draws == 1 else DRAWN
        fixed = init(_FILTERS, d, _SIGMA_INIT, plan.fixed(number), dtype=dtype)
        fixed[:, :2] *= 2  # so that the features' variance can be seen beside the noise's
        predict = partial(_variance, case, None if case.random_filters else _filters(fixed))
        samples = []
        for chunk in torch.arange(plan.size(case.draws) if case.draws > 1 else 1).split(_CHUNK):
            n = len(chunk)
            W = init(_FILTERS, d, _SIGMA_INIT, g, (n,), dtype) if case.random_filters else fixed
            (squares, means), (squares2, means2) = (
                _mean_over_batches(W, case, n, plan, g) for _ in range(2)
            )
            # E‖g‖² − ⟨Eg, Eg⟩ from independent data sets at the same W: the variance given W
            samples.append((squares + squares2) / 2 - (means * means2).sum((-1, -2)))
        if case.draws == 1:
            out.append(exact(str(case), samples[0], predict))
        else:
            out.append(quantity(str(case), Estimate.of(torch.cat(samples)), predict))
    return out


def _mean_over_batches(
    W: Tensor, case: _Batches, draws: int, plan: Plan, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of fresh data at W (J, d) or (draws, J, d): means over all mini-batches of ‖g‖² and g."""
    world = case.world
    counts = _fast_counts(world, draws, case.random_counts, g)
    squares, means = W.new_empty(draws), W.new_empty(draws, *W.shape[-2:])
    for n_fast in counts.unique():
        at = (counts == n_fast).nonzero().flatten()
        drawn = _originals(world, int(n_fast), g, (len(at),), W.dtype)
        data = augmented(drawn, case.member, plan, g)
        pairs = pair_shares(data.n, case.batch_size, case.replacement)
        squares[at], means[at] = mean_over_batches(W[at] if W.dim() == 3 else W, data, pairs)
    return squares, means


def _filters(W: Tensor) -> Filters:
    """What the variance needs of a given W (J, d)."""
    return Filters(
        float(W[:, 2:].square().sum(1).square().sum()),
        float(W[:, FAST].pow(4).sum()),
        float(W[:, SLOW].pow(4).sum()),
    )


_WORLD_INPUTS = ("n_examples", "dim", "n_patches", "alpha", "beta_fast", "beta_slow", "sigma_noise")


def _variance(case: _Batches, filters: Filters | None) -> float:
    """(F4) to (F6) at these filters, or in expectation over W⁽⁰⁾, as printed."""
    if filters is None:
        world = {name: getattr(case.world, name) for name in _WORLD_INPUTS}
        printed = CLAIMS["family-variance"].predict(
            **world,
            **asdict(as_member(case.member)),
            filters=_FILTERS,
            sigma_init=_SIGMA_INIT,
            batch_size=case.batch_size,
            logit=LOGIT,
            replacement=case.replacement,
            random_counts=case.random_counts,
            orthogonal=_is_orthogonal(case.world),
        )
        return printed["variance"]
    return theory.family_variance(
        case.world,
        filters,
        as_member(case.member),
        case.batch_size,
        LOGIT,
        case.replacement,
        case.random_counts,
        _is_orthogonal(case.world),
    )


CHECKS = (
    Check(
        "family",
        "synthetic noise keeps tau of its source's (control: it is fresh)",
        combine(_feature_growth, _mean_shares, _alignments),
    ),
    Check(
        "family-variance",
        "synthetic noise keeps tau of its source's (control: it is fresh)",
        _measure_variance,
    ),
)
