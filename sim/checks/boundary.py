"""Theorem 4.1 with real logits: how they move, and the sigma_init at which each claim stops.

Slopes in h are central differences along SAM's ascent W + h ∇L(W). Where a claim assumes that all
logit terms equal l at W, each example's output is shifted by a constant that makes it so; from
there they move as the network's do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.special import roots_gegenbauer, roots_genlaguerre
from torch import Tensor

from sim.checks.base import Check, Plan, Quantity, exact, quantity, ratio
from sim.checks.quadrature import Rule, normal, planted, signed
from sim.data import FAST, SLOW, DataConfig, Dataset, sample
from sim.engine import Point
from sim.measure import Estimate, noise_projections
from sim.network import gradient, init, logit_term, norm, output
from sim.span import Span
from theory import boundary

_LOGIT = 0.3
_STEP = 1e-6
_CHUNK = 10_000  # data sets at a time
_NEAR_HALF = 0.01  # what logits near 1/2, not equal to it, may shift
_DIFFERENCE = 1e-6  # relative error allowed to a difference quotient
_CANCELLED = 1e-4  # the same where it may be a small sum of large terms


@dataclass(frozen=True)
class Ascent:
    """What is read off −∇L at W, and its derivatives in h, with frozen and with moving logits."""

    start: Tensor
    frozen: Tensor
    moving: Tensor

    @staticmethod
    def of(
        W: Tensor,
        data: Dataset,
        read: Callable[[Tensor], Tensor],
        broken: bool,
        logit: float | None = _LOGIT,
    ) -> Ascent:
        """logit: what all logit terms are at W, by a shift of the outputs; None: the network's.

        broken: the logits that should move do not.
        """
        at_start = logit_term(W, data) if logit is None else torch.full_like(data.y, logit)
        up, outputs = gradient(W, data, at_start), output(W, data.x)
        offset = torch.logit(at_start)

        def at(h: float, moving: bool) -> Tensor:
            moved = W + h * up
            terms = at_start
            if moving:
                terms = torch.sigmoid(offset - data.y * (output(moved, data.x) - outputs))
            return read(-gradient(moved, data, terms))

        def slope(moving: bool) -> Tensor:
            return (at(_STEP, moving) - at(-_STEP, moving)) / (2 * _STEP)

        fixed = slope(False)
        return Ascent(read(-up), fixed, fixed if broken else slope(True))

    @property
    def rise(self) -> Tensor:
        return self.moving - self.frozen

    @property
    def damping(self) -> Tensor:
        return -self.frozen

    def mean(self, weight: Tensor) -> Ascent:
        """The sum over the leading dimensions with these weights."""
        parts = (
            torch.tensordot(weight.flatten(), v.flatten(0, weight.dim() - 1), 1)
            for v in (self.start, self.frozen, self.moving)
        )
        return Ascent(*parts)


def _on_noise(W: Tensor, data: Dataset) -> Callable[[Tensor], Tensor]:
    """Sum over I_{j,+} of y⟨descent_j, ξ⟩, (..., J)."""
    on = noise_projections(W, data) > 0
    return lambda descent: torch.where(on, noise_projections(descent, data), 0.0).sum(-2)


# --- Equation (B1): any data ---------------------------------------------------------------------


def _measure_logits(plan: Plan) -> list[Quantity]:
    config = DataConfig(n_examples=4, dim=6, n_patches=3, alpha=0.5, sigma_noise=0.7)
    g = plan.generator(40)
    data, W = sample(config, g), init(3, config.dim, 0.3, g)
    up = torch.zeros_like(W) if plan.broken else gradient(W, data)
    rate = (logit_term(W + _STEP * up, data) - logit_term(W - _STEP * up, data)) / (2 * _STEP)
    # the gradient of one example alone, at logit term 1, is −∇(y f(x))
    own = torch.stack([gradient(W, data.take(torch.tensor([i])), 1.0) for i in range(data.n)])
    given = {
        "what": "logits",
        "logit": logit_term(W, data).numpy(),
        "kernel": torch.einsum("ijd,mjd->im", own, own).numpy(),
    }
    return [
        exact(f"dl/dh of example {i}, any noise, P=3", rate[i], _CANCELLED, example=i, **given)
        for i in range(data.n)
    ]


# --- Equation (B2): given the filters ------------------------------------------------------------

_TINY = DataConfig(n_examples=2, dim=4, alpha=0.5, beta_fast=0.6, beta_slow=0.4, sigma_noise=0.7)
_INTEGRATED = (
    _TINY,
    replace(_TINY, n_examples=3, dim=3, alpha=1 / 3),
    replace(_TINY, dim=3, n_patches=3),
)
_FRAMED = replace(_TINY, dim=6, n_patches=3, noise="orthogonal")
_DRAWN = DataConfig(
    n_examples=4, dim=14, n_patches=3, alpha=0.75, beta_fast=1.2, beta_slow=0.6, sigma_noise=0.28
)


def _measure_slope(plan: Plan) -> list[Quantity]:
    out = _measure_logits(plan)
    for config in _INTEGRATED:
        W = _two_filters(config)
        label = f"independent n={config.n_examples} P={config.n_patches} d'={config.dim_noise}"
        out += _slopes(label, W, config, _integrated(W, config, plan.broken), dampings=1)
    W = _two_filters(_FRAMED)
    framed = _framed(W, _FRAMED, plan.broken)
    out += _slopes("orthogonal n=2 P=3 d'=4", W, _FRAMED, framed, dampings=0)
    for kind in ("gaussian", "orthogonal"):
        out += _drawn(plan, replace(_DRAWN, noise=kind))
    return out


def _two_filters(config: DataConfig) -> Tensor:
    """Of different lengths; off the features, the first lies along the first axis."""
    W = torch.zeros(2, config.dim, dtype=torch.float64)
    W[:, :2] = torch.tensor([[0.7, -0.8], [0.5, 0.9]])
    W[0, 2] = 0.6
    W[1, 2:4] = torch.tensor([0.5, 0.9])[: config.dim_noise]
    return W


def _slopes(
    label: str, W: Tensor, config: DataConfig, mean: Ascent, dampings: int
) -> list[Quantity]:
    """Exact rises of all filters, and dampings of the first few."""
    given = _given(W, config)
    out = []
    for part, value, count in (
        ("rise", mean.rise / mean.start, len(W)),
        ("damping", mean.damping / mean.start, dampings),
    ):
        for j in range(count):
            name = f"{part} of filter {j}, {label}"
            out.append(exact(name, value[j], _DIFFERENCE, what=part, filter=j, **given))
    return out


def _given(W: Tensor, config: DataConfig) -> dict[str, Any]:
    """What (B2) needs of filters (J, d)."""
    quartic = W[:, [FAST, SLOW]].pow(4).sum(0).tolist()
    return {"config": config, "gram": (W[:, 2:] @ W[:, 2:].T).numpy(), "quartic": quartic}


def _integrated(W: Tensor, config: DataConfig, broken: bool) -> Ascent:
    """Expectation over independent noise and labels.

    Exact: the rise is a polynomial of degree 10 in each patch, and the damping of the filter
    along the first axis one of degree 7 on either side of ⟨w,ξ⟩ = 0.
    """
    data, weight = _every_data_set(config, signed(6))
    return Ascent.of(W, data, _on_noise(W, data), broken).mean(weight)


def _every_data_set(config: DataConfig, first: Rule) -> tuple[Dataset, Tensor]:
    """All labels with all nodes of the noise, (Q, n, P, d), and their weights (Q,)."""
    blank = sample(config, torch.Generator().manual_seed(0))
    blank.x[:, 0] *= blank.y.unsqueeze(-1)  # the feature patch of label +1
    noisy, weight = planted(blank, first, normal(6))
    y = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=config.n_examples))).double()
    x = noisy.x.repeat(len(y), 1, 1, 1)
    y, weight = y.repeat_interleave(len(weight), 0), weight.repeat(len(y)) / len(y)
    x[..., 0, :] *= y.unsqueeze(-1)
    return replace(noisy, x=x, y=y), weight


def _framed(W: Tensor, config: DataConfig, broken: bool) -> Ascent:
    """Expectation over orthogonal noise, exact for the rise.

    A random frame seen from given filters is a given frame seen from filters that are turned at
    random together; squared lengths of patches are chi squared.
    """
    d = config.dim_noise
    first, second, turns = _frames(d, 4)
    turned = W.repeat(len(turns), 1, 1, 1)
    turned[..., 2:] = W[:, 2, None] * first[:, None, None] + W[:, 3, None] * second[:, None, None]
    halves, shares = roots_genlaguerre(3, d / 2 - 1)
    lengths = torch.tensor(list(itertools.product(np.sqrt(2 * halves), repeat=2))).double()
    weight = torch.tensor(list(itertools.product(shares / shares.sum(), repeat=2))).prod(-1)
    # an example is moved by its own patches alone, so that both may have the same lengths
    lengths = lengths.repeat(1, 2)
    data = sample(config, torch.Generator().manual_seed(0))
    x = data.x.repeat(len(lengths), 1, 1, 1)
    x[..., data.is_noise, 2:] = config.sigma_noise * torch.diag_embed(lengths)
    data = replace(data, x=x, y=data.y.expand(len(lengths), -1))
    ascent = Ascent.of(turned, data, _on_noise(turned, data), broken)
    return ascent.mean(turns[:, None] * weight)


def _frames(dim: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of orthonormal vectors (T, dim), each pair with its opposite, and weights (T,).

    Their mean is a random pair's for polynomials of degree 2n − 1.
    """
    first, weight = _sphere(dim, n)
    v, other = _sphere(dim - 1, n)
    # the reflection that takes the first axis to `first` takes the others to what is across it
    axis = torch.eye(dim, dtype=torch.float64)[0]
    mirror = torch.nn.functional.normalize(axis - first, dim=-1)
    v = torch.cat([torch.zeros_like(v[:, :1]), v], -1)
    second = v - 2 * (mirror @ v.T).unsqueeze(-1) * mirror.unsqueeze(1)
    first, second = first.repeat_interleave(len(v), 0), second.flatten(0, 1)
    weight = torch.outer(weight, other).flatten() / 2
    return torch.cat([first, -first]), torch.cat([second, -second]), weight.repeat(2)


def _sphere(dim: int, n: int) -> tuple[Tensor, Tensor]:
    """Points of the unit sphere (Q, dim) and weights: a mean, exact for degree 2n − 1."""
    if dim == 1:
        return torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0.5, 0.5]).double()
    height, share = (torch.from_numpy(v) for v in roots_gegenbauer(n, dim / 2 - 1))
    circle, weight = _sphere(dim - 1, n)
    across = (1 - height**2).sqrt()[:, None, None] * circle
    points = torch.cat([height[:, None, None].expand(-1, len(circle), 1), across], -1)
    return points.flatten(0, 1), torch.outer(share / share.sum(), weight).flatten()


def _drawn(plan: Plan, config: DataConfig) -> list[Quantity]:
    """The same slopes over drawn data sets."""
    W = _two_filters(config)
    g = plan.generator(42, len(config.noise))
    parts = []
    for _ in range(plan.size(6)):
        data = sample(config, g, (_CHUNK,))
        parts.append(Ascent.of(W, data, _on_noise(W, data), plan.broken))
    given = _given(W, config)
    out = []
    for part in ("rise", "damping"):
        for j in range(len(W)):
            estimate = ratio(
                torch.cat([getattr(p, part)[..., j] for p in parts]),
                torch.cat([p.start[..., j] for p in parts]),
            )
            name = f"{part} of filter {j}, {config.noise} n=4 P=3 d'=12"
            out.append(quantity(name, estimate, what=part, filter=j, **given))
    return out


def _predict_slope(given: Mapping[str, Any]) -> float:
    if given["what"] == "logits":
        return float(boundary.logit_change(given["logit"], given["kernel"])[given["example"]])
    config: DataConfig = given["config"]
    fast, slow = given["quartic"]
    slope = boundary.noise_slope(
        config, given["gram"], fast, slow, _LOGIT, config.noise == "orthogonal"
    )
    return float(getattr(slope, given["what"])[given["filter"]])


# --- Equations (B3), (B4): noise, in expectation over the initialisation -------------------------

_LINE = replace(_TINY, dim=3, beta_fast=0.9)
_PLANE = replace(_TINY, beta_fast=0.05, beta_slow=0.04)
_REAL = DataConfig(n_examples=30, dim=100, alpha=0.8, beta_slow=0.5, sigma_noise=0.1)
_SIGMA_INIT, _SMALL_RHO = 0.4, 1e-6
# how draws are averaged: at one h for all, as claimed, or at SAM's h, small where the rise is large
_SENSE = {False: "h given", True: "SAM's own h"}


def _measure_noise_boundary(plan: Plan) -> list[Quantity]:
    W, weight = _on_a_line()
    data, share = _every_data_set(_LINE, signed(6))

    def slope(sigma: float) -> Ascent:
        return _per_square(sigma * W, data, plan.broken).mean(weight[:, None] * share)

    given = {"config": _LINE, "filters": 2, "sigma_init": _SIGMA_INIT}
    line, plane = slope(_SIGMA_INIT), _in_a_plane(plan)
    crossing = _zero(lambda sigma: float((at := slope(sigma)).rise - at.damping), 0.1, 1.0)
    return [
        exact(f"{label}, mean over W(0), J=2 d'={config.dim_noise}", value, _DIFFERENCE, **given)
        for label, config, value, given in (
            ("rise", _LINE, line.rise / line.start, given | {"what": "rise"}),
            ("damping", _LINE, line.damping / line.start, given | {"what": "damping"}),
            ("sigma_init where they are equal", _LINE, crossing, given | {"what": "boundary"}),
            ("rise", _PLANE, plane, given | {"what": "rise", "config": _PLANE}),
        )
    ] + _real(plan)


def _on_a_line() -> tuple[Tensor, Tensor]:
    """Two filters with one dimension off the features, (Q, 2, 3), and weights (Q,).

    All projections on features share a node: they meet in no product (the slopes at given filters
    are tested at different ones).
    """
    nodes = itertools.product(*(zip(r.nodes, r.weights, strict=True) for r in _RULES))
    W, weight = zip(
        *(([[u, u, a], [u, u, b]], p * q * r) for (a, p), (b, q), (u, r) in nodes), strict=True
    )
    return torch.tensor(W).double(), torch.tensor(weight).double()


_RULES = signed(3), normal(3), normal(3)


def _in_a_plane(plan: Plan) -> float:
    """The expected rise with two dimensions off the features, which are left out.

    The first filter may lie along an axis, as noise has no direction.
    """
    halves, shares = roots_genlaguerre(2, 0)
    first = zip(np.sqrt(2 * halves), shares, strict=True)
    one = normal(3)
    other = zip(one.nodes, one.weights, strict=True)
    nodes = list(itertools.product(first, itertools.product(list(other), repeat=2)))
    W = torch.tensor([[[0, 0, r, 0], [0, 0, a, b]] for (r, _), ((a, _), (b, _)) in nodes])
    weight = torch.tensor([p * q * s for (_, p), ((_, q), (_, s)) in nodes])
    data, share = _every_data_set(_PLANE, normal(6))
    ascent = _per_square(_SIGMA_INIT * W.double(), data, plan.broken)
    mean = ascent.mean(weight.double()[:, None] * share)
    return float(mean.rise / mean.start)


def _per_square(W: Tensor, data: Dataset, broken: bool) -> Ascent:
    """The first filter's sum over I_{j,+} per ‖w_j‖² off the features, W (Q, J, d) -> (Q, ...).

    Under GD its mean over noise is the same for every filter, so that a ratio of two means over
    noise and filters is the mean over filters of the ratio for given ones.
    """
    W = W.unsqueeze(1)
    read, square = _on_noise(W, data), W[..., 0, 2:].square().sum(-1)
    return Ascent.of(W, data, lambda descent: read(descent)[..., 0] / square, broken)


def _real(plan: Plan) -> list[Quantity]:
    """(B4) with the network's own logits: where SAM's step at a small rho changes nothing."""
    out = []
    for filters, own, relation, draws in ((40, False, "=", 300), (4, True, ">", 600)):
        draws = plan.size(draws)
        g = plan.generator(44, filters)
        data, W = sample(_REAL, g, (draws,)), init(filters, _REAL.dim, 1.0, g, (draws,))
        space, square = Span.of(data, W), W[..., 2:].square().sum(-1)

        def change(
            sigma: float, own: bool = own, space: Span = space, square: Tensor = square
        ) -> Tensor:
            """Of the alignments per ‖w_j‖², in each draw, at h or at SAM's own."""
            point = Point(at := space.rescaled(sigma_init=sigma), at.initial)
            logits = 0.5 if plan.broken else None
            moved = point.noise_alignment(_SMALL_RHO, logits) - point.noise_alignment(0.0, logits)
            total = (moved / square).sum(-1) / _SMALL_RHO
            return total if own else total * point.gradient_norm(logits)

        label = f"sigma_init where SAM = GD, {_SENSE[own]}, J={filters}"
        given = {"what": "boundary", "config": _REAL, "filters": filters, "logit": 0.5}
        out.append(
            quantity(label, _crossing(change, 0.01, 1.0), relation, rounding=_NEAR_HALF, **given)
        )
    return out


def _zero(f: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing f is 0; `high` where it is not between low and high."""
    if f(low) * f(high) > 0:
        return high
    bracket = math.log(low), math.log(high)
    return math.exp(root_scalar(lambda x: f(math.exp(x)), bracket=bracket, xtol=1e-8).root)


def _crossing(change: Callable[[float], Tensor], low: float, high: float) -> Estimate:
    """Where the mean over draws of change(sigma) is 0."""
    at = _zero(lambda sigma: float(change(sigma).mean()), low, high)
    step = 0.01 * at
    slope = (change(at + step) - change(at - step)).mean() / (2 * step)
    return Estimate(at, Estimate.of(change(at)).standard_error / abs(float(slope)))


def _predict_noise_boundary(given: Mapping[str, Any]) -> float:
    config, filters = given["config"], given["filters"]
    if given["what"] == "boundary":
        return boundary.sigma_init_boundary(config, filters, given.get("logit", _LOGIT))
    slope = boundary.expected_noise_slope(config, filters, given["sigma_init"], _LOGIT)
    return float(getattr(slope, given["what"]))


# --- Equations (B5), (B6): features --------------------------------------------------------------


def _measure_feature_boundary(plan: Plan) -> list[Quantity]:
    return _growth(plan) + _uneven(plan) + _real_growth(plan)


def _on_features(W: Tensor) -> Callable[[Tensor], Tensor]:
    """Growth of each feature, summed over the filters with a positive projection, (..., 2)."""
    positive = W[..., :2] > 0
    return lambda descent: torch.where(positive, descent[..., :2], 0.0).sum(-2)


_SILENT = DataConfig(n_examples=5, dim=3, alpha=0.6, beta_fast=1.1, beta_slow=0.8, sigma_noise=0.0)
_LOUD = replace(_SILENT, dim=8, sigma_noise=0.4)


def _growth(plan: Plan) -> list[Quantity]:
    """(B5): exactly without noise, and in expectation with it."""
    W = init(4, _LOUD.dim, 0.3, plan.generator(41))
    W[:, :2] = torch.tensor([[0.7, 0.5], [0.6, -0.3], [-0.4, 0.4], [0.3, 0.6]])
    fast, slow = W[:, FAST].numpy(), W[:, SLOW].numpy()
    out = []
    for config in (_SILENT, _LOUD):
        given = {"config": config, "fast": fast, "slow": slow}
        draws = plan.size(20_000) if config.sigma_noise else 1
        data = sample(config, plan.generator(46), (draws,))
        near = W[:, : config.dim]
        ascent = Ascent.of(near, data, _on_features(near), plan.broken)
        evening, rise = (
            part[:, SLOW] - part[:, FAST]
            for part in (-ascent.damping / ascent.start, -ascent.rise / ascent.start)
        )
        if config.sigma_noise:
            label = "rise, given filters, independent noise"
            out.append(quantity(label, Estimate.of(rise), what="rise", **given))
        else:
            for part, value in (("evening", evening), ("rise", rise)):
                label = f"{part}, given filters, no noise"
                out.append(exact(label, value[0], _DIFFERENCE, what=part, **given))
    return out


def _uneven(plan: Plan) -> list[Quantity]:
    """(B6) exactly: over the nodes of three filters, the sigma_init where growth stays as even."""
    rule = signed(4)
    # growth of one feature does not depend on the other's projections: they may be the same
    W = torch.tensor(list(itertools.product(rule.nodes, repeat=3))).double()
    W = torch.stack([W, W, torch.zeros_like(W)], -1)
    weight = torch.tensor(list(itertools.product(rule.weights, repeat=3))).double().prod(-1)
    data = sample(_SILENT, plan.generator(47))

    def change(sigma: float) -> float:
        ascent = Ascent.of(sigma * W, data, _on_features(W), plan.broken).mean(weight)
        share = ascent.moving / ascent.start
        return float(share[FAST] - share[SLOW])

    crossing = _zero(change, 0.03, 3.0)
    given = {"what": "boundary", "config": _SILENT, "filters": 3}
    return [exact("sigma_init where SAM is as even as GD, J=3", crossing, _DIFFERENCE, **given)]


def _real_growth(plan: Plan) -> list[Quantity]:
    """(B6) with noise, over drawn filters and data; then with the network's own logits and h."""
    config = DataConfig(n_examples=5, dim=7, alpha=0.8, beta_slow=0.5, sigma_noise=0.1)
    draws, filters = plan.size(4000), 20
    g = plan.generator(48)
    data, W = sample(config, g, (draws,)), init(filters, config.dim, 1.0, g, (draws,))
    out = []
    for own, relation, logit in ((False, "=", _LOGIT), (True, ">", None)):

        def change(sigma: float, own: bool = own, logit: float | None = logit) -> Tensor:
            """Of the fast feature's growth less the slow one's, each per its mean."""
            ascent = Ascent.of(sigma * W, data, _on_features(W), plan.broken, logit)
            share = ascent.moving / ascent.start.mean(0)
            gap = share[:, FAST] - share[:, SLOW]
            return gap / norm(gradient(sigma * W, data, logit)).flatten() if own else gap

        label = f"sigma_init where SAM is as even as GD, {_SENSE[own]}, J={filters}, noise"
        given = {"config": config, "filters": filters, "logit": logit or 0.5, "what": "boundary"}
        out.append(quantity(label, _crossing(change, 0.03, 1.0), relation, **given))
    return out


def _predict_feature_boundary(given: Mapping[str, Any]) -> float:
    if given["what"] == "boundary":
        return boundary.feature_sigma_boundary(
            given["config"], given["filters"], given.get("logit", _LOGIT)
        )
    parts = boundary.feature_slope(given["config"], given["fast"], given["slow"], _LOGIT)
    return float(parts[0] if given["what"] == "evening" else parts[1])


CHECKS = (
    Check(
        "moving-logits",
        "logits move along the ascent (control: they are frozen)",
        _measure_slope,
        _predict_slope,
    ),
    Check(
        "sam-noise-boundary",
        "logits move along the ascent (control: they are frozen, and damping always wins)",
        _measure_noise_boundary,
        _predict_noise_boundary,
    ),
    Check(
        "sam-feature-boundary",
        "logits move along the ascent (control: they are frozen, and SAM is always more even)",
        _measure_feature_boundary,
        _predict_feature_boundary,
    ),
)
