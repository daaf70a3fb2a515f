"""Theorem 4.1 with real logits: how they move, and the sigma_init at which each claim stops.

Slopes in h are derivatives along SAM's ascent W + h ∇L(W). (B2) to (B6) take all logit terms at W
to equal l: there each example's output is shifted by a constant that makes it so, and from there
logit terms move as the network's do. What that leaves out, (B7) to (B10), is measured with the
network's own logits, unshifted, at filters so small that the first order is all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from scipy.optimize import root_scalar
from torch import Tensor

from sim.backends.span import Span
from sim.checks.base import (
    Check,
    Plan,
    Predict,
    Quantity,
    combine,
    constant,
    exact,
    predicted,
    quantity,
    ratio,
    unbroken,
)
from sim.checks.printed import as_printed
from sim.checks.quadrature import Rule, height, length, normal, signed, square, tilt
from sim.data import FAST, SLOW, DataConfig, Dataset, sample
from sim.measure import Estimate
from sim.network import gradient, init, logit_term, norm, output
from sim.train import Point
from theory import sam_validity
from theory.claims import CLAIMS

_LOGIT = 0.3
_STEP = 1e-6
_CANCELLED = 1e-4  # relative error allowed to a difference quotient, maybe of a small sum
_INTEGRAL = 1e-8  # relative error allowed to a sum over many nodes
_SMALL = 0.003  # filters of this size show the first order in their cubes
_FIRST_ORDER = 3e-5  # relative error allowed to what the orders beyond it add there
_FEW_ORDERS = 0.01  # the same for the shift of a border


@dataclass(frozen=True)
class Ascent:
    """What is read off −∇L at W, and its derivative in h: rise − damping.

    damping: minus the derivative at frozen logit terms; rise: what their moving adds.
    """

    start: Tensor
    damping: Tensor
    rise: Tensor

    @staticmethod
    def of(
        W: Tensor,
        data: Dataset,
        read: Callable[[Tensor], Tensor],
        broken: bool,
        logit: float = _LOGIT,
        equal: bool = True,
        step: float = 1.0,
    ) -> Ascent:
        """logit: the logit term where the output is 0, 1/2 for the network's own.

        equal: all are that at W, by a shift of the outputs. broken: they are, and do not move.
        step: any; best such that step × ∇L is of the size of W.
        """
        bias = math.log(logit / (1 - logit))
        shift = data.y * output(W, data.x) if equal or broken else 0.0
        terms = torch.sigmoid(bias + shift - data.y * output(W, data.x))
        up = gradient(W, data, terms)

        def at(step: float) -> Tensor:
            return read(-gradient(W + step * up, data, terms))

        # at frozen logit terms gradients are quadratic in the filters: this is the derivative
        damping = (at(-step) - at(step)) / (2 * step)
        change = terms * (1 - terms) * data.y * -_output_change(W, data, up)
        rise = 0.0 * damping if broken else read(-gradient(W, data, change))
        return Ascent(at(0.0), damping, rise)

    @property
    def moving(self) -> Tensor:
        """The derivative."""
        return self.rise - self.damping

    def mean(self, weight: Tensor) -> Ascent:
        """The sum over the leading dimensions with these weights."""
        parts = (
            torch.tensordot(weight.flatten(), v.flatten(0, weight.dim() - 1), 1)
            for v in (self.start, self.damping, self.rise)
        )
        return Ascent(*parts)


def _output_change(W: Tensor, data: Dataset, up: Tensor) -> Tensor:
    """The derivative of the outputs along `up`: exactly, as they are cubic in the filters."""
    far, near = (output(W + k * up, data.x) - output(W - k * up, data.x) for k in (2, 1))
    return (8 * near - far) / 12


_Reading = Callable[[Tensor, Dataset], Callable[[Tensor], Tensor]]


def _on_first(W: Tensor, data: Dataset) -> Callable[[Tensor], Tensor]:
    """y⟨descent_j, ξ⟩ of the first filter and the first noise patch, in I_{j,+}."""
    patch = data.y[..., :1] * data.x[..., 0, 1, :]
    return lambda descent: (descent[..., 0, :] * patch).sum(-1)


# --- Equation (B1): any data ---------------------------------------------------------------------


def _measure_logits(plan: Plan) -> list[Quantity]:
    config = DataConfig(n_examples=4, dim=6, n_patches=3, alpha=0.5, sigma_noise=0.7)
    g = plan.generator("logits")
    data, W = sample(config, g), init(3, config.dim, 0.3, g)
    up = torch.zeros_like(W) if plan.broken else gradient(W, data)
    rate = (logit_term(W + _STEP * up, data) - logit_term(W - _STEP * up, data)) / (2 * _STEP)
    # the gradient of one example alone, at logit term 1, is −∇(y f(x))
    own = torch.stack([gradient(W, data.take(torch.tensor([i])), 1.0) for i in range(data.n)])
    logit, kernel = logit_term(W, data).numpy(), torch.einsum("ijd,mjd->im", own, own).numpy()

    def predict(i: int) -> float:
        return sam_validity.logit_change(logit, kernel)[i]

    return [
        exact(f"dl/dh of example {i}, any noise, P=3", rate[i], partial(predict, i), _CANCELLED)
        for i in range(data.n)
    ]


# --- Equations (B2), (B7), (B8): given the filters -----------------------------------------------

_TINY = DataConfig(n_examples=2, dim=4, alpha=0.5, beta_fast=0.6, beta_slow=0.4, sigma_noise=0.7)
_INTEGRATED = (
    # world, and the logit term where the output is 0: first the network's own
    (_TINY, 0.5),
    (replace(_TINY, n_examples=3, dim=3, alpha=1 / 3), _LOGIT),
    (replace(_TINY, dim=3, n_patches=3), 0.2),
)
_FRAMED = replace(_TINY, dim=6, n_patches=3, noise="orthogonal")


def _measure_integrated(plan: Plan) -> list[Quantity]:
    """Over all independent noise and all labels."""
    out = []
    for config, logit in _INTEGRATED:
        W = _two_filters(config)
        label = f"independent n={config.n_examples} P={config.n_patches} d'={config.dim_noise}"
        # degree 10 in each patch
        out += _given_filters(label, W, config, _first_patch(config, 6), logit, plan)
    return out


def _measure_framed(plan: Plan) -> list[Quantity]:
    """Over all orthogonal noise of the patches of one example, fast and slow."""
    W, label = _two_filters(_FRAMED), "orthogonal n=2 P=3 d'=4"
    return _given_filters(label, W, _FRAMED, _first_frame(_FRAMED), _LOGIT, plan)


def _two_filters(config: DataConfig) -> Tensor:
    """Of different lengths; off the features, the first lies along the first axis."""
    W = torch.zeros(2, config.dim, dtype=torch.float64)
    W[:, :2] = torch.tensor([[0.7, -0.8], [0.5, 0.9]])
    W[0, 2] = 0.6
    W[1, 2:4] = torch.tensor([-0.5, 0.9])[: config.dim_noise]
    return W


def _given_filters(
    label: str,
    W: Tensor,
    config: DataConfig,
    nodes: tuple[Dataset, Tensor],
    logit: float,
    plan: Plan,
) -> list[Quantity]:
    """Rise and damping of the first filter, and what its alignment and its damping lose."""
    data, weight = nodes
    mean = Ascent.of(W, data, _on_first(W, data), plan.broken, logit).mean(weight)
    losses = _losses(W, data, weight, _on_first, logit, plan.broken)
    # of the first filter
    cubes, quartic = _feature_sums(W, 3), _feature_sums(W, 4)
    gram, kind = (W[:, 2:] @ W[:, 2:].T).numpy(), (logit, config.noise == "orthogonal")

    def slope() -> sam_validity.Slope:
        return sam_validity.noise_slope(config, gram, *quartic, *kind)

    parts: list[tuple[str, Tensor, float, Predict]] = [
        ("rise", mean.rise / mean.start, _INTEGRAL, lambda: slope().rise[0]),
        ("damping", mean.damping / mean.start, _INTEGRAL, lambda: slope().damping[0]),
        (
            "alignment loss",
            losses["alignment"],
            _FIRST_ORDER,
            lambda: sam_validity.alignment_loss(config, gram, *cubes, *kind)[0],
        ),
        (
            "damping loss",
            losses["damping"],
            _FIRST_ORDER,
            lambda: sam_validity.damping_loss(config, gram, *cubes, *kind)[0],
        ),
    ]
    return [
        exact(f"{part}, {label} l={logit}", value, predict, error)
        for part, value, error, predict in parts
    ]


def _feature_sums(W: Tensor, power: int) -> tuple[float, float]:
    """Σ_j⟨w_j,v⟩^power of the fast and of the slow feature."""
    return float(W[:, FAST].pow(power).sum()), float(W[:, SLOW].pow(power).sum())


def _losses(
    W: Tensor,
    data: Dataset,
    weight: Tensor,
    reading: _Reading,
    logit: float,
    broken: bool,
    size: float = 1.0,
) -> dict[str, Tensor]:
    """What GD's alignment (as a share), damping and rise lose as logit terms differ at size × W.

    To first order: measured at small filters, with the power of their size that it goes with.
    """
    small = _SMALL * W
    same, own = (
        Ascent.of(small, data, reading(small, data), broken, logit, equal).mean(weight)
        for equal in (True, False)
    )
    return {
        "alignment": (same.start - own.start) / same.start * (size / _SMALL) ** 3,
        "damping": (same.damping - own.damping) / same.start * (size / _SMALL) ** 4,
        "rise": (same.rise - own.rise) / same.start * (size / _SMALL) ** 7,
    }


def _inputs(config: DataConfig, logit: float = _LOGIT, filters: int = 2) -> dict[str, Any]:
    """What `theory predict` is given of a world and of W⁽⁰⁾."""
    names = ("n_examples", "dim", "n_patches", "alpha", "beta_fast", "beta_slow", "sigma_noise")
    given = {name: getattr(config, name) for name in names}
    given |= {"filters": filters, "logit": logit}
    return given | {"orthogonal": config.noise == "orthogonal"}


def _first_patch(config: DataConfig, n: int, features: bool = True) -> tuple[Dataset, Tensor]:
    """Data sets (Q, n, P, d) and weights (Q,): all that an example's first noise patch may meet.

    Of independent noise, for a filter along the first axis off the features; to degree 2n − 1 in
    that coordinate, 2n − 3 in others. The patch is that of the first example, which has each
    feature in its turn, unless filters see none. Its label is +1 and its own first coordinate
    positive: the rest is the same with all signs turned round, or not in I_{j,+}.
    """
    data = sample(config, torch.Generator().manual_seed(0))
    m, free = int(data.is_noise.sum()), config.dim_noise
    rules = ([normal(n)] + [normal(n - 1)] * (free - 1)) * m
    nodes, weight = _grid([length(1, n), *rules[1:]])
    labels = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=data.n - 1))).double()
    y = torch.cat([torch.ones(len(labels), 1).double(), labels], -1)
    x = data.x.repeat(len(y), len(nodes), 1, 1, 1)
    x[..., 0, :] *= (data.y * y)[:, None, :, None]
    x[..., data.is_noise, 2:] = config.sigma_noise * nodes.unflatten(-1, (m, free))
    y = y.repeat_interleave(len(nodes), 0)
    weight = weight.repeat(len(labels)) / len(labels)
    found = replace(data, x=x.flatten(0, 1), y=y), weight
    return _with_each_feature(*found) if features else found


def _grid(rules: Sequence[Rule]) -> tuple[Tensor, Tensor]:
    """Every combination of nodes (Q, rules) with its weight (Q,)."""
    nodes, weights = (
        torch.cartesian_prod(*(torch.from_numpy(v) for v in values))
        for values in zip(*((rule.nodes, rule.weights) for rule in rules), strict=True)
    )
    return nodes.reshape(-1, len(rules)), weights.reshape(-1, len(rules)).prod(-1)


def _first_frame(config: DataConfig, features: bool = True) -> tuple[Dataset, Tensor]:
    """The same for orthogonal noise in four dimensions: the two patches u, v of one example.

    ⟨w,u⟩ > 0 for a filter along the first axis; other filters lie in the first two. The other
    examples have no noise: orthogonal noise of theirs would change nothing.
    """
    rules = height(4, 5), tilt(3, 3), tilt(3, 3), tilt(2, 3), length(4, 7), square(4, 2)
    nodes, weight = _grid(rules)
    x, y, a, b, first, second = nodes.unbind(-1)
    across, aside, low, rest = ((1 - v**2).sqrt() for v in (x, y, a, b))
    u = torch.stack([x, across * y, across * aside, 0 * x], -1)
    # v = a p + low (b q + rest r): p is what is left of the first axis across u, q of the second
    v = torch.stack(
        [a * across, low * b * aside - a * x * y, -low * b * y - a * x * aside, low * rest], -1
    )
    noise = torch.stack([first[:, None] * u, second[:, None] * v], 1)
    data = sample(config, torch.Generator().manual_seed(0))
    x = data.x * data.y[:, None, None]
    x[:, 1:] = 0.0
    x = x.repeat(len(nodes), 1, 1, 1)
    x[:, 0, 1:, 2:] = config.sigma_noise * noise
    found = replace(data, x=x, y=torch.ones(x.shape[:2]).double()), weight
    return _with_each_feature(*found) if features else found


def _first_alone(config: DataConfig, n: int, features: bool = True) -> tuple[Dataset, Tensor]:
    """`_first_patch` in orthogonal noise of one patch an example: others' changes nothing."""
    data, weight = _first_patch(config, n, features)
    # of the nodes that differ in others' patches alone, one is enough
    kept = (data.x[:, 1:, 1:, 2:] == data.x[:1, 1:, 1:, 2:]).flatten(1).all(1)
    data.x[:, 1:, 1:] = 0.0
    data = replace(data, x=data.x[kept], y=data.y[kept])
    return data, weight[kept] / weight[kept].sum()


def _with_each_feature(data: Dataset, weight: Tensor) -> tuple[Dataset, Tensor]:
    """The features passed round among the examples: the first has each in its turn."""
    turns = []
    for i in range(data.n):
        x = data.x.clone()
        plain = data.x[..., 0, :] * data.y.unsqueeze(-1)  # the feature patch of label +1
        x[..., 0, :] = plain.roll(i, -2) * data.y.unsqueeze(-1)
        turns.append(x)
    y = data.y.repeat(data.n, 1)
    return replace(data, x=torch.cat(turns), y=y), weight.repeat(data.n) / data.n


def _measure_alike(plan: Plan) -> list[Quantity]:
    """As `theory predict moving-logits` has it: filters at right angles, alike in all else."""
    out = []
    for config, nodes in ((_TINY, _first_patch(_TINY, 6)), (_FRAMED, _first_frame(_FRAMED))):
        W = torch.zeros(2, config.dim, dtype=torch.float64)
        W[:, :2] = 0.7
        W[0, 2] = W[1, 3] = 0.6
        data, weight = nodes
        mean = Ascent.of(W, data, _on_first(W, data), plan.broken).mean(weight)
        rise, damping = mean.rise / mean.start, mean.damping / mean.start
        measured = {"rise": rise, "damping": damping, "slope": rise - damping}
        given = _inputs(config) | {"w_norm": 0.6, "projection": 0.7}
        note = f"{config.noise} noise P={config.n_patches}"
        out += as_printed("moving-logits", measured, note, _INTEGRAL, **given)
    return out


# --- Equations (B3), (B4), (B9) to (B12): noise, in expectation over the initialisation ----------

_LINE = replace(_TINY, dim=3, beta_fast=0.9)
# features so weak that W⁽⁰⁾ may leave them out
_FAINT = replace(_TINY, beta_fast=0.05, beta_slow=0.04)
_QUIET = replace(_LINE, sigma_noise=0.07)  # so little noise that the border's shift is small
_REAL = DataConfig(n_examples=30, dim=100, alpha=0.8, beta_slow=0.5, sigma_noise=0.1)
_SIGMA_INIT, _SPREAD_INIT, _SMALL_RHO = 0.4, 0.03, 1e-6


def _expected_inputs(config: DataConfig, logit: float, filters: int) -> dict[str, Any]:
    """What `theory predict sam-noise-boundary` is given."""
    return _inputs(config, logit, filters) | {"sigma_init": _SIGMA_INIT}


def _measure_noise_slope(plan: Plan) -> list[Quantity]:
    """(B3), (B4): all logit terms equal at W."""
    out = []
    alone = replace(_FAINT, noise="orthogonal")
    for config, filters, nodes in (
        (_LINE, _on_a_line(), _first_patch(_LINE, 6)),
        (_FAINT, _off_features(2), _first_patch(_FAINT, 6, False)),
        (_FAINT, _off_features(2, filters=1), _first_patch(_FAINT, 6, False)),
        (alone, _off_features(2), _first_alone(alone, 6, False)),
    ):
        W, weight = filters
        mean = _over_filters(_SIGMA_INIT * W, weight, nodes, plan.broken)
        measured = {"rise": mean.rise / mean.start, "damping": mean.damping / mean.start}
        if not plan.broken:  # with frozen logits damping wins at every sigma_init
            border = (measured["damping"] / measured["rise"]) ** (1 / 3) * _SIGMA_INIT
            measured["sigma_init_boundary"] = border
        label = f"mean over W(0), {config.noise} J={W.shape[1]} d'={config.dim_noise}"
        given = _expected_inputs(config, _LOGIT, W.shape[1])
        out += as_printed("sam-noise-boundary", measured, label, _INTEGRAL, **given)
    return out


def _over_filters(
    W: Tensor,
    weight: Tensor,
    nodes: tuple[Dataset, Tensor],
    broken: bool,
    logit: float = _LOGIT,
    equal: bool = True,
    step: float = 1.0,
) -> Ascent:
    """Mean over filters (Q, J, d) and data of the first filter's alignment per ‖w_j‖²."""
    data, share = nodes
    W = W[:, None]
    ascent = Ascent.of(W, data, _per_square(W, data), broken, logit, equal, step)
    return ascent.mean(weight[:, None] * share)


def _per_square(W: Tensor, data: Dataset) -> Callable[[Tensor], Tensor]:
    """`_on_first` per ‖w_j‖² off the features.

    With equal logit terms its mean over noise under GD is the same for every filter, so that a
    ratio of two means over noise and filters is the mean over filters of the ratio for given ones.
    """
    read, square = _on_first(W, data), W[..., 0, 2:].square().sum(-1)
    return lambda descent: read(descent) / square


def _on_a_line() -> tuple[Tensor, Tensor]:
    """Two filters with one dimension off the features, (Q, 2, 3), and weights (Q,).

    All projections on features share a node: they meet in no product (the slopes at given filters
    are tested at different ones). The sign of the first filter does not matter.
    """
    rules = length(1, 4), normal(3), normal(3)
    nodes = itertools.product(*(zip(r.nodes, r.weights, strict=True) for r in rules))
    W, weight = zip(
        *(([[u, u, a], [u, u, b]], p * q * r) for (a, p), (b, q), (u, r) in nodes), strict=True
    )
    return torch.tensor(W).double(), torch.tensor(weight).double()


def _off_features(dim: int, n: int = 3, filters: int = 2) -> tuple[Tensor, Tensor]:
    """One or two filters W⁽⁰⁾ without their features, (Q, J, 2 + dim), and weights (Q,).

    Noise has no direction: the first may lie along the first axis, and the second in the plane of
    the first two. To degree 7 in the length of the first, 2n − 1 in the second.
    """
    rules = [length(dim, 4), normal(n), *([square(dim - 1, n - 1)] if dim > 1 else [])]
    nodes, weight = _grid(rules if filters == 2 else rules[:1])
    W = torch.zeros(len(nodes), filters, 2 + dim, dtype=torch.float64)
    W[:, 0, 2] = nodes[:, 0]
    if filters == 2:
        W[:, 1, 2 : 1 + len(rules)] = nodes[:, 1:]
    return W, weight


_EXPECTED = (
    # world, the logit term where the output is 0 (first the network's own), and filters
    (_FAINT, 0.5, 2),
    (replace(_FAINT, n_examples=3, dim=3, alpha=1 / 3), 0.1, 1),
    (replace(_FAINT, dim=3, n_patches=3), _LOGIT, 1),
    (replace(_FAINT, noise="orthogonal"), _LOGIT, 1),
    (replace(_FAINT, dim=6, n_patches=3, noise="orthogonal"), _LOGIT, 2),
)


def _measure_losses(plan: Plan) -> list[Quantity]:
    """(B9): what the differences of logit terms take, without features and with them."""
    out = []
    for config, logit, filters in _EXPECTED[: 1 if plan.broken else None]:
        if config.noise == "gaussian":
            nodes = _first_patch(config, 7, False)
        elif config.n_patches == 2:
            nodes = _first_alone(config, 7, False)
        else:
            nodes = _first_frame(config, False)
        W = _off_features(config.dim_noise, filters=filters)
        out += _expected(config, W, nodes, logit, plan)
    return out + _expected(_LINE, _on_a_line(), _first_patch(_LINE, 7), _LOGIT, plan)


def _expected(
    config: DataConfig,
    filters: tuple[Tensor, Tensor],
    nodes: tuple[Dataset, Tensor],
    logit: float,
    plan: Plan,
) -> list[Quantity]:
    (W, weight), (data, share) = filters, nodes
    losses = _losses(
        W[:, None], data, weight[:, None] * share, _per_square, logit, plan.broken, _SIGMA_INIT
    )
    kind = f"{config.noise} n={config.n_examples} P={config.n_patches} d'={config.dim_noise}"
    label = f"mean over W(0), {kind} J={W.shape[1]} l={logit}"
    inputs = _expected_inputs(config, logit, W.shape[1])
    given = W.shape[1], _SIGMA_INIT, logit, config.noise == "orthogonal"

    def loss(part: str) -> float:
        return getattr(sam_validity.expected_loss(config, *given), part)

    out = [
        exact(f"loss of {part}, {label}", losses[part], partial(loss, part), _FIRST_ORDER)
        for part in ("damping", "rise")
    ]
    printed = {"alignment_loss": losses["alignment"]}
    if W.shape[1] == 1 and config.n_patches == 2:  # it is more than an output's deviation
        printed["validity"] = losses["alignment"]
    return out + as_printed("sam-noise-boundary", printed, label, _FIRST_ORDER, **inputs)


def _measure_margins(plan: Plan) -> list[Quantity]:
    """(B12): the standard deviation of an output, over both examples' noise and features."""
    out = []
    for config, (W, weight) in (
        (_FAINT, _off_features(2, 4)),
        (replace(_FAINT, dim=3, n_patches=4), _off_features(1, 4)),
        (replace(_LINE, beta_slow=0.7), _filters_on_a_line(4)),
    ):
        patches, free = config.n_patches - 1, config.dim_noise
        nodes, share = _grid([normal(4)] * (patches * free))
        x = torch.zeros(len(nodes), 2, 1 + patches, config.dim, dtype=torch.float64)
        x[:, 0, 0, FAST], x[:, 1, 0, SLOW] = config.beta_fast, config.beta_slow
        x[:, :, 1:, 2:] = config.sigma_noise * nodes.unflatten(-1, (1, patches, free))
        squares = output(_SIGMA_INIT * W[:, None], x).square().mean(-1)
        measured = {"validity": (weight @ squares @ share).sqrt()}
        label = f"deviation of an output, P={config.n_patches} d'={free} J=2"
        given = _expected_inputs(config, 0.5, 2)
        out += as_printed("sam-noise-boundary", measured, label, _INTEGRAL, **given)
    return out


def _filters_on_a_line(n: int) -> tuple[Tensor, Tensor]:
    """Two filters with one dimension off the features, (Q, 2, 3), and weights (Q,).

    To degree 2n − 1. A filter's projections on the two features share a node: no example has both.
    """
    nodes, weight = _grid([normal(n)] * 4)
    return torch.stack([nodes[:, [0, 0, 1]], nodes[:, [2, 2, 3]]], 1), weight


def _on_features_too(dim: int, filters: int) -> tuple[Tensor, Tensor]:
    """Filters W⁽⁰⁾, (Q, J, 2 + dim), and weights (Q,): to degree 11 along a feature.

    Of what is off the features only the first filter's part, which is that of noise by itself.
    """
    nodes, weight = _grid([length(dim, 3), *[normal(6)] * filters])
    W = torch.zeros(len(nodes), filters, 2 + dim, dtype=torch.float64)
    W[:, 0, 2], W[:, :, :2] = nodes[:, 0], nodes[:, 1:, None]
    return W, weight


def _measure_spread(plan: Plan) -> list[Quantity]:
    """(B10): what the margins' spread over features does, where there is next to no noise."""
    config, filters = replace(_LINE, sigma_noise=3e-4), 3
    W, weight = _on_features_too(1, filters)
    data, out = _first_patch(config, 3), []
    step = 1 / (config.sigma_noise**3 * _SPREAD_INIT)
    for logit in (0.5, 0.2):
        same, own = (
            _over_filters(_SPREAD_INIT * W, weight, data, False, logit, equal, step)
            for equal in (True, plan.broken)
        )
        for index, part in enumerate(("damping", "rise")):
            change = float(getattr(own, part) / getattr(same, part)) - 1
            name = f"change of {part} by unequal features, J={filters} l={logit} at output 0"
            predict = partial(_spread, config, filters, logit, index)
            out.append(exact(name, change, predict, 1e-4))
    return out


def _spread(config: DataConfig, filters: int, logit: float, part: int) -> float:
    return sam_validity.feature_spread(config, filters, _SPREAD_INIT, logit)[part]


def _measure_shift(plan: Plan) -> list[Quantity]:
    """(B11): how far the border with the network's own logits lies from that with equal ones.

    With so little noise that its shift is small.
    """
    alone = replace(_QUIET, dim=4, noise="orthogonal")
    return [
        _shift(_QUIET, _on_features_too(1, 2), _first_patch(_QUIET, 6), 0.5),
        _shift(_QUIET, _on_features_too(1, 1), _first_patch(_QUIET, 6), 0.2),
        _shift(alone, _on_features_too(2, 1), _first_alone(alone, 6), 0.5),
    ]


def _shift(
    config: DataConfig,
    filters: tuple[Tensor, Tensor],
    nodes: tuple[Dataset, Tensor],
    logit: float,
) -> Quantity:
    W, weight = filters

    def slope(cube: float, equal: bool) -> Ascent:
        """At the sigma_init that has this cube."""
        return _over_filters(cube ** (1 / 3) * W, weight, nodes, False, logit, equal)

    one = slope(_SIGMA_INIT**3, True)
    same = _SIGMA_INIT**3 * float(one.damping / one.rise)
    own = root_scalar(
        lambda cube: float(slope(cube, False).moving), x0=same, x1=1.001 * same, rtol=1e-9
    ).root
    inputs = _expected_inputs(config, logit, W.shape[1])
    name = (
        f"relative shift of the border by unequal logits, {config.noise} J={W.shape[1]} l={logit}"
    )

    def predict() -> float:
        printed = CLAIMS["sam-noise-boundary"].predict(**inputs)
        return printed["sigma_init_boundary_corrected"] / printed["sigma_init_boundary"] - 1

    return exact(name, (own / same) ** (1 / 3) - 1, predict, _FEW_ORDERS)


def _measure_own_step(plan: Plan) -> list[Quantity]:
    """(B4) with the network's own logits and SAM's own h, small where the rise is large."""
    draws, filters = plan.size(600), 4
    g = plan.generator("own")
    data, W = sample(_REAL, g, (draws,)), init(filters, _REAL.dim, 1.0, g, (draws,))
    space, square = Span.of(data, W), W[..., 2:].square().sum(-1)

    def change(sigma: float) -> Tensor:
        """Of the alignments per ‖w_j‖², in each draw."""
        point = Point(at := space.rescaled(sigma_init=sigma), at.initial)
        moved = point.noise_alignment(_SMALL_RHO) - point.noise_alignment(0.0)
        return (moved / square).sum(-1) / _SMALL_RHO

    label = f"sigma_init where SAM = GD, SAM's own h, J={filters}"
    given = _expected_inputs(_REAL, 0.5, filters)
    border = predicted("sam-noise-boundary", "sigma_init_boundary", **given)
    return [quantity(label, _crossing(change, 0.01, 1.0), border, ">")]


def _zero(f: Callable[[float], float], low: float, high: float, error: float = 1e-10) -> float:
    """Where f, negative at low and positive at high, is 0; raises ArithmeticError if it is not so.

    Sought in the cube, in which the borders' f are nearly linear; error: relative.
    """
    ends = f(low), f(high)
    if not ends[0] < 0 < ends[1]:
        raise ArithmeticError(f"no border between {low} and {high}: {ends[0]:.3g}, {ends[1]:.3g}")
    found = root_scalar(
        lambda t: f(t ** (1 / 3)), bracket=(low**3, high**3), xtol=1e-30, rtol=error
    )
    return found.root ** (1 / 3)


def _crossing(change: Callable[[float], Tensor], low: float, high: float) -> Estimate:
    """Where the mean over draws of change(sigma) is 0."""
    at = _zero(lambda sigma: float(change(sigma).mean()), low, high, error=1e-4)
    step = 0.01 * at
    slope = (change(at + step) - change(at - step)).mean() / (2 * step)
    return Estimate.of(change(at)).through(at, -1 / float(slope))


# --- Equations (B5), (B6): features --------------------------------------------------------------


def _on_features(W: Tensor) -> Callable[[Tensor], Tensor]:
    """Growth of each feature, summed over the filters with a positive projection, (..., 2)."""
    positive = W[..., :2] > 0
    return lambda descent: torch.where(positive, descent[..., :2], 0.0).sum(-2)


_SILENT = DataConfig(n_examples=5, dim=3, alpha=0.6, beta_fast=1.1, beta_slow=0.8, sigma_noise=0.0)
_SLOW_FIRST = replace(_SILENT, alpha=0.2)  # k* < 1: SAM evens out below no sigma_init
_LOUD = replace(_SILENT, dim=8, sigma_noise=0.4)


def _growth(plan: Plan) -> list[Quantity]:
    """(B5): exactly without noise, and in expectation with it."""
    W = init(4, _LOUD.dim, 0.3, plan.fixed("growth"))
    W[:, :2] = torch.tensor([[0.7, 0.5], [0.6, -0.3], [-0.4, 0.4], [0.3, 0.6]])
    fast, slow = W[:, FAST].numpy(), W[:, SLOW].numpy()

    def slope(config: DataConfig, part: int) -> float:
        return sam_validity.feature_slope(config, fast, slow, _LOGIT)[part]

    out = []
    for config in (_SILENT, _LOUD):
        draws = plan.size(5_000) if config.sigma_noise else 1
        data = sample(config, plan.generator("growth", config.dim), (draws,))
        near = W[:, : config.dim]
        ascent = Ascent.of(near, data, _on_features(near), plan.broken)
        evening, rise = (
            part[:, SLOW] - part[:, FAST]
            for part in (-ascent.damping / ascent.start, -ascent.rise / ascent.start)
        )
        if config.sigma_noise:
            label = "rise, given filters, independent noise"
            out.append(quantity(label, Estimate.of(rise), partial(slope, config, 1)))
        else:
            for index, (part, value) in enumerate((("evening", evening), ("rise", rise))):
                label = f"{part}, given filters, no noise"
                out.append(exact(label, value[0], partial(slope, config, index)))
    return out


def _uneven(plan: Plan) -> list[Quantity]:
    """(B6) exactly: over the nodes of three filters, the sigma_init where growth stays as even."""
    # growth of one feature does not depend on the other's projections: they may be the same
    nodes, weight = _grid([signed(4)] * 3)
    W = torch.stack([nodes, nodes, torch.zeros_like(nodes)], -1)
    out = []
    faint = replace(_SILENT, n_examples=25, alpha=0.36, beta_fast=0.6, beta_slow=0.4)
    for config in (_SILENT, faint, _SLOW_FIRST):
        data = sample(config, plan.fixed("uneven"))

        def change(sigma: float, data: Dataset = data) -> float:
            ascent = Ascent.of(sigma * W, data, _on_features(W), False).mean(weight)
            share = ascent.moving / ascent.start
            return float(share[FAST] - share[SLOW]) / sigma

        evens_out = change(0.01) < 0
        border = _zero(change, 0.01, 3.0) if evens_out else 0.0
        name = f"sigma_init where SAM is as even as GD, J=3 alpha={config.alpha:g}"
        name += f" beta={config.beta_fast:g}/{config.beta_slow:g}"
        out.append(exact(name, border, _feature_border(config, 3, _LOGIT), _INTEGRAL))
    return out


_FEW = DataConfig(n_examples=5, dim=7, alpha=0.8, beta_slow=0.5, sigma_noise=0.1)


def _drawn_growth(plan: Plan) -> list[Quantity]:
    """(B6) with noise, over drawn filters and data."""
    draws, filters, g = plan.size(30_000), 20, plan.generator("drawn")
    data, W = sample(_FEW, g, (draws,)), init(filters, _FEW.dim, 1.0, g, (draws,))
    # with equal logits the damping goes with sigma_init, the rise with its fourth power
    one = Ascent.of(W, data, _on_features(W), False)
    cube = ratio(*(_gap(one.start, part) for part in (one.damping, one.rise)))
    border = cube.through(cube.mean ** (1 / 3), cube.mean ** (-2 / 3) / 3)
    return [_border_of_features(border, "=", filters, _LOGIT, "h given")]


def _own_growth(plan: Plan) -> list[Quantity]:
    """The same with the network's own logits and SAM's own h, small where the rise is large."""
    draws, filters, g = plan.size(1_500), 8, plan.generator("own")
    data, W = sample(_FEW, g, (draws,)), init(filters, _FEW.dim, 1.0, g, (draws,))

    def change(sigma: float) -> Tensor:
        at = sigma * W
        ascent = Ascent.of(at, data, _on_features(at), False, 0.5, equal=False)
        return _gap(ascent.start, ascent.moving / norm(gradient(at, data)).squeeze(-1))

    border = _crossing(change, 0.03, 1.0)
    return [_border_of_features(border, ">", filters, 0.5, "SAM's own h")]


def _gap(start: Tensor, change: Tensor) -> Tensor:
    """In each draw, what adds up to the share of its growth by which the fast feature's changes
    less the slow one's, with what the draw's own growth does to that share to first order."""
    mean = start.mean(0)
    share = change.mean(0) / mean
    each = share + (change - share * start) / mean
    return each[:, FAST] - each[:, SLOW]


def _border_of_features(
    border: Estimate, relation: str, filters: int, logit: float, step: str
) -> Quantity:
    name = f"sigma_init where SAM is as even as GD, {step}, J={filters}, noise"
    return quantity(name, border, _feature_border(_FEW, filters, logit), relation)


def _feature_border(config: DataConfig, filters: int, logit: float) -> Predict:
    """(B6), as printed."""
    given = {"filters": filters, "logit": logit, "alpha": config.alpha}
    given |= {"beta_fast": config.beta_fast, "beta_slow": config.beta_slow}
    return predicted("sam-feature-boundary", "sigma_init_boundary", **given)


CHECKS = (
    Check(
        "moving-logits",
        "logits are the network's (control: they are equal and frozen)",
        combine(
            _measure_logits,
            constant(_measure_integrated),
            constant(_measure_framed),
            constant(_measure_alike),
        ),
    ),
    Check(
        "sam-noise-boundary",
        "logits are the network's (control: they are equal, and frozen where they should move)",
        combine(
            constant(_measure_noise_slope),
            constant(_measure_losses),
            constant(_measure_spread),
            constant(unbroken(_measure_margins)),
            constant(unbroken(_measure_shift)),
            unbroken(_measure_own_step),
        ),
    ),
    Check(
        "sam-feature-boundary",
        "logits move along the ascent (control: they are frozen, and SAM is always more even)",
        combine(
            _growth, constant(unbroken(_uneven)), unbroken(_drawn_growth), unbroken(_own_growth)
        ),
    ),
)
