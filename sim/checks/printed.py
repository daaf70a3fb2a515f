"""What `python -m theory predict` prints, measured to rounding at values that are not its defaults.

Tiny data sets of which all labels, all mini-batches and, by quadrature, all noise are gone through.
Where a prediction is a mean over W⁽⁰⁾, filters are taken whose sums of fourth powers are the
average ones, (27). Nothing here is measured for a control: what a check draws is enough for that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import roots_genlaguerre
from torch import Tensor

from sim.checks.amplification import expected_alignment, memorisation
from sim.checks.base import (
    ROUNDING,
    Check,
    Plan,
    Quantity,
    combine,
    constant,
    exact,
    predicted,
    unbroken,
)
from sim.checks.extensions import sam_slope
from sim.checks.gradients import LOGIT, equalising_k, mean_over_batches, named, pair_shares
from sim.checks.quadrature import Rule, normal, planted, signed
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample, upsample
from sim.measure import noise_alignment, noise_projections
from sim.network import Activation, gradient, init, logit_term, norm, output
from sim.optim import sam_gradient
from theory import moments as theory
from theory.family import FamilyMember, family_alignment

_LOGIT = 0.35
_STEP = 1e-6
_DIFFERENCE = 1e-6  # relative error allowed to a difference quotient


def as_printed(
    claim: str, measured: Mapping[str, Any], note: str, rounding: float = ROUNDING, **inputs: Any
) -> list[Quantity]:
    """A quantity for each key that the claim prints for these inputs."""
    return [
        exact(
            f"{key.replace('_', ' ')} as printed, {note}",
            value,
            predicted(claim, key, **inputs),
            rounding,
        )
        for key, value in measured.items()
    ]


# --- Data sets and filters -----------------------------------------------------------------------


_Noisy = tuple[Dataset, Tensor]


def _noisy(data: Dataset, member: FamilyMember, *rules: Rule) -> _Noisy:
    """A data set with all nodes as its noise, the synthetic one that of `member`; their weights."""
    found, weight = planted(data, *rules)
    n = data.n_original
    if found.n > n:
        tau, amplitude = member.kept_noise, member.amplitude
        off = data.config.noise_from
        own, source = found.x[:, n:, 1:, off:], found.x[:, found.source[n:], 1:, off:]
        found.x[:, n:, 1:, off:] = amplitude * (tau * source + (1 - tau**2) ** 0.5 * own)
    return found, weight


def _typical_filters(config: DataConfig, sigma_init: float) -> Tensor:
    """Two filters with the sums of fourth powers that W⁽⁰⁾ has on average, (27)."""
    d = config.dim_noise
    W = torch.ones(2, config.dim, dtype=torch.float64)
    W[1, 1::2] = -1.0
    W[:, :2] *= 3**0.25 * sigma_init
    W[:, 2:] *= (d * (d + 2)) ** 0.25 * sigma_init / d**0.5
    return W


def _pooled(W: Tensor, data: Dataset, weight: Tensor) -> float:
    """E of the sum of y⟨−∇_{w_j}L, ξ⟩ over I_{j,+} over E|I_{j,+}|."""
    along = noise_projections(-gradient(W, data, _LOGIT), data)
    on = noise_projections(W, data) > 0
    total = torch.where(on, along, 0.0).sum((-1, -2)) @ weight
    return float(total / (on.double().sum((-1, -2)) @ weight))


# --- Lemma 1 -------------------------------------------------------------------------------------


def moments(plan: Plan) -> list[Quantity]:
    """(M3), (M4) for one patch and for a pair that shares a part."""
    out = []
    for dim, tau, amplitude in ((2, 0.7, 0.9), (3, 0.4, 1.3)):
        config = DataConfig(n_examples=2, dim=dim + 2, alpha=0.5, sigma_noise=0.8)
        data, weight = planted(sample(config, plan.generator("pair")), normal(4))
        xi, fresh = data.x[:, 0, 1, 2:], data.x[:, 1, 1, 2:]
        made = amplitude * (tau * xi + (1 - tau**2) ** 0.5 * fresh)
        w = torch.tensor([1.2, 0.5, -0.3], dtype=torch.float64)[:dim]
        along, squared = xi @ w, xi.square().sum(1)
        measured = {
            "noise_strength": (along**2 * squared) @ weight,
            "noise_second_moment": (along**4 * squared) @ weight,
            "shared_noise_covariance": (along**2 * (made @ w) ** 2 * (xi * made).sum(1)) @ weight,
        }
        given = {"sigma_noise": 0.8, "dim_noise": dim, "w_norm": float(w.norm())}
        given |= {"kept_noise": tau, "amplitude": amplitude}
        out += as_printed("gaussian-moments", measured, f"d'={dim}", **given)
    # of one patch in three dimensions, in units of sigma: E[z² R³], (M2)
    data, weight = planted(sample(config, plan.generator("one")).take(torch.tensor([0])), normal(5))
    z = data.x[:, 0, 1, 2:] / config.sigma_noise
    value = (z[:, 0] ** 2 * z.square().sum(1) ** 3) @ weight
    return [*out, exact("E[|z|^2 R^3], integrated", value, lambda: theory.patch_moment(2, 3, dim))]


# --- Theorem 4.1 ---------------------------------------------------------------------------------


def sam_features(plan: Plan) -> list[Quantity]:
    """(4), (5)."""
    config = DataConfig(5, 6, alpha=0.6, beta_fast=1.3, beta_slow=0.7, sigma_noise=0.2)
    data, rho = sample(config, plan.generator("features")), 0.1
    W = torch.full((1, config.dim), 0.4, dtype=torch.float64)
    plain, moved = gradient(W, data, _LOGIT), sam_gradient(W, data, rho, _LOGIT)
    out = []
    for v, name, beta, share in ((FAST, "fast", 1.3, 0.6), (SLOW, "slow", 0.7, 0.4)):
        factor = moved[0, v] / plain[0, v]
        measured = {"kappa": (1 - factor.sqrt()) / W[0, v], "factor": factor}
        given = {"rho": rho, "beta": beta, "mean_logit": share * _LOGIT}
        given |= {"gradient_norm": float(norm(plain)), "projection": 0.4}
        out += as_printed("sam-feature-factor", measured, f"v_{name}", **given)
    return out


def sam_noise(plan: Plan) -> list[Quantity]:
    """(6), (7)."""
    config = DataConfig(3, 9, alpha=0.6, sigma_noise=0.7, noise="orthogonal")
    g = plan.generator("noise")
    data, W, rho = sample(config, g), init(1, config.dim, 0.5, g), 0.07
    plain, moved = gradient(W, data, _LOGIT), sam_gradient(W, data, rho, _LOGIT)
    factor = (noise_projections(moved, data) / noise_projections(plain, data))[0, 0]
    projection = float(noise_projections(W, data)[0, 0])
    squared = float(data.x[0, 1].square().sum())
    measured = {"lambda": (1 - factor.sqrt()) / (projection * squared), "factor": factor}
    given = {"rho": rho, "logit": _LOGIT, "n_examples": 3, "gradient_norm": float(norm(plain))}
    given |= {"projection": projection, "squared_norm": squared}
    return as_printed("sam-noise-damping", measured, "n=3", **given)


def sam_damping(plan: Plan) -> list[Quantity]:
    """(8), (9), (31): means over all noise of one filter along the first axis off the features."""
    n, sigma, w_norm, a = 2, 0.6, 1.3, 0.02
    config = DataConfig(n, 5, alpha=0.5, sigma_noise=sigma)
    W = torch.zeros(1, config.dim, dtype=torch.float64)
    W[0, 2] = w_norm
    independent, weight = planted(sample(config, plan.generator("all")), signed(6), normal(4))
    alone = replace(independent, x=independent.x.clone())
    alone.x[:, 1, 1] = 0.0  # orthogonal to any other
    lam = a / (sigma**3 * w_norm)

    def mean(data: Dataset, factor: float) -> float:
        """E of the first patch's alignment on I_{j,+} under SAM over that under GD, at λ."""
        plain = gradient(W, data, _LOGIT)
        rho = factor * lam * n * norm(plain)[..., 0, 0] / (3 * _LOGIT)
        on = noise_projections(W, data)[:, 0, 0] > 0
        sums = [
            torch.where(on, noise_projections(-grad, data)[:, 0, 0], 0.0) @ weight
            for grad in (sam_gradient(W, data, rho, _LOGIT), plain)
        ]
        return float(sums[0] / sums[1])

    def slope(data: Dataset) -> float:
        """Of the mean in a at 0: with frozen logits it is 1 − slope a + c a²."""
        return (4 * (1 - mean(data, 1.0)) - (1 - mean(data, 2.0))) / (2 * a)

    measured = {
        "damping_orthogonal": mean(alone, 1.0),
        "slope_orthogonal": slope(alone),
        "slope_independent": slope(independent),
    }
    given = {"logit": _LOGIT, "sigma_noise": sigma, "w_norm": w_norm, "dim_noise": 3}
    given |= {"gradient_norm": 0.7, "rho": lam * n * 0.7 / (3 * _LOGIT), "n_examples": n}
    claim = "sam-noise-damping-gaussian"
    out = as_printed(claim, measured, f"n={n} d'=3", **given)
    # what two others add to a patch of the typical length and projection
    data, weight = planted(
        sample(replace(config, n_examples=3, dim=4), plan.generator("others")), normal(4), normal(4)
    )
    data.x[:, 0, 1, 2:] = sigma
    W = W[:, :4]
    along = noise_projections(-gradient(W, data, _LOGIT), data)[:, 0, 0]
    deviation = (along.square() @ weight - (along @ weight) ** 2).sqrt()
    given |= {"n_examples": 3, "dim_noise": 2}
    return out + as_printed(claim, {"cross_term_deviation": deviation}, "n=3 d'=2", **given)


def sam_boundary(plan: Plan) -> list[Quantity]:
    """(10), (11) for a filter that one example alone pulls, with the network's own logits."""
    config = DataConfig(3, 8, alpha=2 / 3, beta_fast=1.2, sigma_noise=0.6, noise="orthogonal")
    g = plan.generator("one")
    data, W, rho = sample(config, g), init(2, config.dim, 0.6, g), 0.2
    pulled = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    patches = data.x[:, 1]
    squared = patches.square().sum(-1)
    along = data.y * (patches @ W[0])
    W[0] += ((along.abs() * pulled - along) * data.y / squared) @ patches
    up = gradient(W, data)
    h = rho / float(norm(up))

    def slope(read: Callable[[Tensor], Tensor]) -> Tensor:
        return (read(W + _STEP * up) - read(W - _STEP * up)) / (2 * _STEP)

    margin = slope(lambda at: data.y * output(at, data.x))[0]
    aligned = slope(lambda at: noise_alignment(gradient(at, data), W, data)[0])
    base = noise_alignment(up, W, data)[0]
    terms = logit_term(W, data)
    projections = noise_projections(W, data)[0]
    given = {
        "rho": rho,
        "gradient_norm": float(norm(up)),
        "n_examples": 3,
        "beta": 1.2,
        "mean_logit": float((terms * data.is_fast).mean()),
        "feature_quartic": float(W[:, FAST].pow(4).sum()),
        "logit": float(terms[0]),
        "noise_quartic": float(projections.pow(4).sum() * squared[0]),
        "projection": float(projections[0]),
        "squared_norm": float(squared[0]),
    }
    measured = {"margin_drop": -h * margin, "sam_over_gd": 1 + h * aligned / base}
    return as_printed("sam-boundary", measured, "n=3", _DIFFERENCE, **given)


# --- Theorem 4.2 ---------------------------------------------------------------------------------


def growth_ratio(plan: Plan) -> list[Quantity]:
    """(13): slow over fast growth at matched filters."""
    config, k = DataConfig(10, 6, alpha=0.7, beta_fast=1.2, beta_slow=0.6, sigma_noise=0.2), 3
    data = sample(config, plan.generator("growth"))
    W = torch.full((1, config.dim), 0.4, dtype=torch.float64)
    grad = gradient(W, upsample(data, k), _LOGIT)[0]
    given = {"alpha": 0.7, "beta_fast": 1.2, "beta_slow": 0.6, "k": k}
    measured = {"slow_over_fast": grad[SLOW] / grad[FAST]}
    return as_printed("amplification", measured, f"k={k}", **given) + _race(plan)


def _race(plan: Plan) -> list[Quantity]:
    """(33) from the rates at which two matched unit filters start to grow, in few dimensions."""
    config = DataConfig(4, 6, alpha=0.5, beta_slow=0.8, sigma_noise=0.4, noise="orthogonal")
    data = sample(config, plan.generator("race"))
    patches = data.x[:, 1]
    patches *= config.sigma_noise * config.dim**0.5 / patches.norm(dim=-1, keepdim=True)
    noise = data.y[3] * patches[3] / patches[3].norm()
    feature = torch.eye(config.dim, dtype=torch.float64)[SLOW]
    rates = [float(-gradient(w[None], data, _LOGIT)[0] @ w) for w in (noise, feature)]
    label = "slow feature's time over its noise's, by rates"
    return [exact(label, rates[0] / rates[1], lambda: memorisation(config))]


_LINE = DataConfig(3, 3, alpha=2 / 3, beta_fast=1.1, sigma_noise=0.4)


def _on_a_line(plan: Plan, k: int, factor: float) -> tuple[float, float]:
    """NoiseAlign of U(k), and of G(k) with synthetic noise `factor` times as large, d' = 1."""
    W = torch.tensor([[0.3, 0.2, 0.7]], dtype=torch.float64)
    g = plan.generator("line")
    one = sample(_LINE, g)
    made, weight = _noisy(generate(one, k, g), FamilyMember(k, amplitude=factor), normal(4))
    up = upsample(made.take(torch.arange(one.n)), k)
    return _pooled(W, up, weight), _pooled(W, made, weight)


def alignments(plan: Plan) -> list[Quantity]:
    """(18) to (20)."""
    out = []
    for k, factor in ((2, 1.25), (3, 0.8)):
        up, made = _on_a_line(plan, k, factor)
        nodes = planted(sample(_LINE, plan.generator("line")), normal(4))
        square = nodes[0].x[:, 0, 1, 2].square()
        strengths = [(square * s**2).square() @ nodes[1] for s in (factor, 1.0)]
        measured = {
            "generated_over_upsampled": made / up,
            "noise_ratio": strengths[0] / strengths[1],
            "tolerance": _equal_noise(plan, k),
        }
        given = {"alpha": 2 / 3, "k": k, "sigma_noise": 0.4, "sigma_synthetic": 0.4 * factor}
        out += as_printed("noise-alignment", measured, f"k={k}", **given)
        for arm, value in (("upsampled", up), ("generated", made)):
            predict = partial(expected_alignment, arm, _LINE, k, 0.4 * factor, _LOGIT, 0.7)
            out.append(exact(f"NoiseAlign, {arm}, k={k}, integrated", value, predict))
    return out


def _equal_noise(plan: Plan, k: int) -> float:
    """The r at which G(k) aligns as much as U(k): its mean is linear in r."""
    up, low = _on_a_line(plan, k, 1.0)
    high = _on_a_line(plan, k, 2.0)[1]
    return 1 + 15 * (up - low) / (high - low)


def tolerances(plan: Plan) -> list[Quantity]:
    """(20)."""
    out = []
    for k in (2, 3):
        r = _equal_noise(plan, k)
        measured = {"tolerance": r, "sigma_ratio": r**0.25}
        out += as_printed("noise-tolerance", measured, f"k={k}", k=k)
    return out


# --- The family ----------------------------------------------------------------------------------


def family(plan: Plan) -> list[Quantity]:
    """(F1) to (F3) over all independent noise."""
    W = torch.tensor([[0.5, 0.5, 0.7]], dtype=torch.float64)
    out = []
    for k, c, tau, amplitude in ((2, 0.8, 0.6, 1.2), (3, 0.6, 0.7, 0.8)):
        g = plan.generator("line")
        one, member = sample(_LINE, g), FamilyMember(k, c, tau, amplitude)
        # an even number of nodes: none has ⟨w,ξ⟩ = 0, and each has its opposite
        made, weight = _noisy(generate(one, k, g, fidelity=c), member, normal(4))
        alone = made.take(torch.arange(one.n))
        growths = [weight @ -gradient(W, data, _LOGIT)[:, 0] for data in (made, alone)]
        gain, before = (growth[SLOW] / growth[FAST] for growth in growths)
        own, up, base = (_pooled(W, d, weight) for d in (made, upsample(alone, k), alone))
        effective_k = float(gain / before)
        measured = {
            "effective_k": effective_k,
            "k_star": 1 + (1 / float(before) - 1) * (k - 1) / (effective_k - 1),
            "noise_weight": own / base * made.n / one.n,
            "noise_over_upsampled": own / up,
        }
        given = {"alpha": 2 / 3, "beta_fast": 1.1, "beta_slow": 0.3, "k": k, "fidelity": c}
        given |= {"kept_noise": tau, "amplitude": amplitude}
        out += as_printed("family", measured, f"k={k}", **given)
    return out


def _frames() -> tuple[Tensor, Tensor]:
    """Random orthogonal matrices of three dimensions (T, 3, 3), weights (T,): exact to degree 6."""
    turn = 2 * math.pi * torch.arange(7, dtype=torch.float64) / 7
    height, share = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(4))
    a, z, c = (v.flatten() for v in torch.meshgrid(turn, height, turn, indexing="ij"))
    weight = share[None, :, None].expand(7, 4, 7).flatten() / 2 / 49

    def about(axis: int, cosine: Tensor, sine: Tensor) -> Tensor:
        i, j = [k for k in range(3) if k != axis]
        out = torch.eye(3, dtype=torch.float64).repeat(len(cosine), 1, 1)
        out[:, i, i] = out[:, j, j] = cosine
        out[:, i, j], out[:, j, i] = -sine, sine
        return out

    turned = (
        about(2, a.cos(), a.sin()) @ about(0, z, (1 - z**2).sqrt()) @ about(2, c.cos(), c.sin())
    )
    return torch.cat([turned, -turned]), weight.repeat(2) / 2


def _orthogonal_group(config: DataConfig, member: FamilyMember) -> tuple[Tensor, Tensor]:
    """Noise of a slow example and its synthetic ones, (Q, k, 3), with fresh parts orthogonal."""
    frames, weight = _frames()
    k = int(member.k)
    halves, shares = roots_genlaguerre(4, 1 / 2)  # squared lengths are chi squared with 3 degrees
    lengths = torch.tensor(list(itertools.product(np.sqrt(2 * halves), repeat=k)))
    chance = torch.tensor(list(itertools.product(shares / shares.sum(), repeat=k))).prod(-1)
    patches = config.sigma_noise * lengths[:, None, :, None] * frames[None, :, :k]
    patches = patches.flatten(0, 1)
    tau = member.kept_noise
    fresh = (1 - tau**2) ** 0.5 * patches[:, 1:]
    patches[:, 1:] = member.amplitude * (tau * patches[:, :1] + fresh)
    return patches, torch.outer(chance, weight).flatten()


def orthogonal_family(plan: Plan) -> list[Quantity]:
    """(F3) with orthogonal noise: a slow example's group, weighed as in the data by counting."""
    config = replace(_LINE, dim=5)
    W = torch.tensor([[0.5, 0.5, 0.7, -0.3, 0.4]], dtype=torch.float64)
    out = []
    for k, tau, amplitude in ((2, 0.6, 1.2), (3, 0.7, 0.8)):
        sums = []
        for member in (FamilyMember(k, 1.0, tau, amplitude), FamilyMember(1)):
            patches, weight = _orthogonal_group(config, member)
            n = patches.shape[1]
            one = sample(config, plan.generator("slow")).take(torch.full((n,), 2))
            x = one.x.repeat(len(weight), 1, 1, 1)
            x[:, :, 1, 2:] = patches
            data = replace(one, x=x, y=one.y.expand(len(weight), -1))
            sums.append(_pooled(W, data, weight) * n**2)
        own, alpha = sums[0] / sums[1], 2 / 3
        measured = {
            "noise_weight": (alpha + (1 - alpha) * own) / (alpha + k * (1 - alpha)),
            "noise_over_upsampled": (alpha + (1 - alpha) * own) / (alpha + k**2 * (1 - alpha)),
        }
        given = {"alpha": alpha, "k": k, "kept_noise": tau, "amplitude": amplitude}
        given |= {"dim_noise": 3, "orthogonal": True}
        out += as_printed("family", measured, f"k={k}, orthogonal noise", **given)
        # (F3) whole, from what one patch alone aligns
        counted = config.n_fast + config.n_slow * own
        mean = sums[1] * counted / (config.n_fast + k * config.n_slow) ** 2
        at = config, FamilyMember(k, 1.0, tau, amplitude), float(W[:, 2:].norm()), LOGIT
        label = f"NoiseAlign, k={k}, orthogonal noise, integrated"
        out.append(
            exact(label, mean / _LOGIT * LOGIT, partial(family_alignment, *at, orthogonal=True))
        )
    return out


def best_whole(plan: Plan) -> list[Quantity]:
    """(F10), (F11) from rates of growth at every whole k, for k* that are none."""
    out = []
    for k_star, fidelity in ((3.4, 1.0), (3.9, 1.0), (2.5, 0.97)):
        beta_slow = 1.1 * (0.6 / 0.4 / k_star) ** (1 / 3)
        config = DataConfig(5, 4, alpha=0.6, beta_fast=1.1, beta_slow=beta_slow, sigma_noise=0.1)
        g = plan.generator("whole")
        data = sample(config, g)
        W = torch.zeros(1, config.dim, dtype=torch.float64)
        W[:, :2] = 0.5
        alone = gradient(W, data, _LOGIT)[0, FAST]
        arms = [generate(data, k, g, fidelity=fidelity) for k in range(1, 9)]
        slowest = [gradient(W, arm, _LOGIT)[0, :2].abs().min() for arm in arms]
        times = [float(alone.abs() / growth) for growth in slowest]
        measured = {"best_whole_k": times.index(min(times)) + 1, "time": times[2]}
        given = {"n_examples": 5, "dim": 4, "alpha": 0.6, "beta_fast": 1.1, "sigma_noise": 0.1}
        given |= {"beta_slow": beta_slow, "fidelity": fidelity, "k": 3}
        out += as_printed("best-k", measured, f"k*={k_star:g} c={fidelity:g}", **given)
    return out


# --- Theorem 4.3 ---------------------------------------------------------------------------------

_SIGMA_INIT, _SIGMA = 0.7, 0.5
_PAIR = DataConfig(2, 3, alpha=0.5, beta_fast=1.2, beta_slow=0.8, sigma_noise=_SIGMA)
_BATCHES = (
    # world, k, batch size, with replacement
    (replace(_PAIR, n_examples=3, alpha=0.6), 2, 3, False),
    (_PAIR, 3, 2, False),
    (replace(_PAIR, dim=4), 2, 2, True),
    (replace(_PAIR, n_patches=3), 2, 2, False),
)


def _variance(
    W: Tensor, parts: list[tuple[float, Dataset, Tensor]], batch_size: int, replacement: bool
) -> float:
    """E‖g‖² − ‖Eg‖² of a mini-batch gradient over data sets (probability, nodes, weights)."""
    square, centre = torch.zeros(()).double(), torch.zeros_like(W)
    for chance, data, weight in parts:
        pairs = pair_shares(data.n, batch_size, replacement)
        squares, means = mean_over_batches(W, data, pairs, _LOGIT)
        square = square + chance * (weight @ squares)
        centre = centre + chance * torch.tensordot(weight, means, 1)
    return float(square - centre.square().sum())


def _arms(
    plan: Plan, config: DataConfig, member: FamilyMember
) -> dict[str, tuple[Dataset, Tensor]]:
    """The original data, U(k) and the member's, with all their noise."""
    g, k = plan.generator("arms"), int(member.k)
    one = sample(config, g)
    bare = generate(one, k, g, fidelity=member.fidelity)
    made, weight = _noisy(bare, member, normal(4))
    alone = made.take(torch.arange(one.n))
    return {
        "original": (alone, weight),
        "upsampled": (upsample(alone, k), weight),
        "generated": (made, weight),
    }


def _world(config: DataConfig) -> dict[str, Any]:
    """What `theory predict` needs to know of it, and of the filters."""
    names = ("n_examples", "dim", "n_patches", "alpha", "beta_fast", "beta_slow", "sigma_noise")
    return {name: getattr(config, name) for name in names} | {
        "filters": 2,
        "sigma_init": _SIGMA_INIT,
        "logit": _LOGIT,
    }


def gradient_variances(plan: Plan) -> list[Quantity]:
    """(21) to (27)."""
    out = []
    for config, k, batch_size, replacement in _BATCHES:
        W = _typical_filters(config, _SIGMA_INIT)
        member = FamilyMember(k, amplitude=1.15)
        measured = {
            arm: _variance(W, [(1.0, *data)], batch_size, replacement)
            for arm, data in _arms(plan, config, member).items()
        }
        measured["ratio"] = measured["upsampled"] / measured["generated"]
        given = _world(config) | {"sigma_synthetic": 1.15 * _SIGMA, "k": k}
        given |= {"batch_size": batch_size, "replacement": replacement}
        out += as_printed("gradient-variance", measured, _note(config, k, given), **given)
    return out


def _note(config: DataConfig, k: int, given: Mapping[str, Any]) -> str:
    note = f"k={k} B={given['batch_size']} P={config.n_patches} d'={config.dim_noise}"
    return note + " with replacement" * given["replacement"]


def family_variances(plan: Plan) -> list[Quantity]:
    """(F4) to (F6), at fixed counts and at binomial ones."""
    out = []
    for config, k, batch_size, replacement in _BATCHES:
        W = _typical_filters(config, _SIGMA_INIT)
        member = FamilyMember(k, 0.8, 0.6, 1.2)
        for random in (False, True) if config.n_examples == 2 else (False,):
            config = replace(config, alpha=0.4 if random else config.alpha)
            parts = [(1.0, _arms(plan, config, member))]
            if random:
                chances = ((0.36, 0.0), (0.48, 0.5), (0.16, 1.0))  # of each share of fast examples
                parts = [
                    (chance, _arms(plan, _with_fast(config, share), member))
                    for chance, share in chances
                ]
            own, up = (
                _variance(W, [(p, *arms[arm]) for p, arms in parts], batch_size, replacement)
                for arm in ("generated", "upsampled")
            )
            measured = {"variance": own, "upsampled": up, "ratio": own / up}
            given = _world(config) | {"k": k, "fidelity": 0.8, "kept_noise": 0.6}
            given |= {"amplitude": 1.2, "batch_size": batch_size, "replacement": replacement}
            given |= {"random_counts": random}
            note = _note(config, k, given) + ", random counts" * random
            out += as_printed("family-variance", measured, note, **given)
    return out


def orthogonal_variances(plan: Plan) -> list[Quantity]:
    """(F5) with orthogonal noise."""
    out = []
    config = replace(_PAIR, dim=5)
    W = _typical_filters(config, _SIGMA_INIT)
    for k, batch_size, replacement in ((2, 2, True), (3, 3, False)):
        member = FamilyMember(k, 0.8, 0.6, 1.2)
        variances = []
        for one_kind in (member, FamilyMember(k, kept_noise=1.0)):
            patches, weight = _orthogonal_group(config, one_kind)
            g = plan.generator("pair")
            bare = generate(sample(config, g), k, g, fidelity=one_kind.fidelity)
            # the fast example's noise, of the same kind, meets the others' in no mean: a random
            # sign sees to that
            signed_first = torch.cat([patches[:, :1], -patches[:, :1]])
            x = bare.x.repeat(2 * len(weight), 1, 1, 1)
            x[:, 0, 1, 2:], x[:, 1:, 1, 2:] = signed_first[:, 0], patches.repeat(2, 1, 1)
            data = replace(bare, x=x, y=bare.y.expand(len(x), -1))
            parts = [(1.0, data, weight.repeat(2) / 2)]
            variances.append(_variance(W, parts, batch_size, replacement))
        own, up = variances
        measured = {"variance": own, "upsampled": up, "ratio": own / up}
        given = _world(config) | {"k": k, "fidelity": 0.8, "kept_noise": 0.6, "amplitude": 1.2}
        given |= {"batch_size": batch_size, "replacement": replacement, "orthogonal": True}
        note = _note(config, k, given) + ", orthogonal noise"
        out += as_printed("family-variance", measured, note, **given)
    return out


def _with_fast(config: DataConfig, share: float) -> DataConfig:
    """With this share of fast examples, which may be none or all."""
    # alpha has to be inside (0, 1): of two examples, this much rounds to the share
    return replace(config, alpha=min(max(share, 0.1), 0.9))


def more_patches(plan: Plan) -> list[Quantity]:
    """(21) for one example of P patches."""
    out = []
    for n_patches, dim in ((3, 4), (4, 3)):
        noise = []
        for patches in (n_patches, 2):
            config = replace(_PAIR, n_patches=patches, dim=dim)
            one = sample(config, plan.generator("one")).take(torch.tensor([0]))
            data, weight = planted(one, normal(4))
            W = _typical_filters(config, _SIGMA_INIT)
            squares = gradient(W, data, _LOGIT)[..., 2:].square().sum((-1, -2))
            noise.append(float(squares @ weight))
        measured = {"noise": noise[0], "over_two_patches": noise[0] / noise[1]}
        given = {"n_patches": n_patches, "sigma_noise": _SIGMA, "logit": _LOGIT, "filters": 2}
        given |= {"dim": dim, "sigma_init": _SIGMA_INIT}
        out += as_printed("more-patches", measured, f"P={n_patches}", **given)
    return out


# --- Beyond the paper's setting ------------------------------------------------------------------


def activations(plan: Plan) -> list[Quantity]:
    """(E2), (E3), (E8): one example's feature gradient at both labels; growth and alignment."""
    out = []
    beta, projection = 1.2, 0.7
    for activation in (*map(Activation, (2, 3, 5)), Activation(2, True), Activation(3, True)):
        q, rectified = activation.power, activation.rectified
        config = DataConfig(2, 3, alpha=0.5, beta_fast=beta, sigma_noise=0.0)
        one = sample(config, plan.generator("label")).take(torch.tensor([0]))
        x = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
        y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        x[:, 0, 0, FAST] = beta * y[:, 0]
        W = torch.tensor([[projection, 0.0, 0.0]], dtype=torch.float64)
        along = gradient(W, replace(one, x=x, y=y), _LOGIT, activation)[:, 0, FAST]
        square = (q * _LOGIT * beta**q * projection ** (q - 1)) ** 2
        mean = float(along.mean() ** 2) / square
        measured = {"mean_part": mean, "label_part": float(along.square().mean()) / square - mean}
        given = {"power": q, "rectified": rectified, "beta_fast": beta}
        given |= {"alpha": 0.6, "beta_slow": 0.7, "k": 3}
        if rectified or q % 2:
            # mirrored filters too, for the labels that ReLU^q does not show the first
            config = DataConfig(10, 3, alpha=0.6, beta_fast=beta, beta_slow=0.7, sigma_noise=0.0)
            matched = torch.tensor([[0.5, 0.5, 0.0], [-0.5, -0.5, 0.0]], dtype=torch.float64)
            data = sample(config, plan.generator("growth"))
            measured["k_star"] = equalising_k(matched, data, activation)
        out += as_printed("activation", measured, named(activation), **given)
    return out


def classes(plan: Plan) -> list[Quantity]:
    """(E12): the mean over labels of a feature's growth, over the cube's."""
    out = []
    beta, positive = 1.2, 0.7
    config = DataConfig(2, 3, alpha=0.5, beta_fast=beta, sigma_noise=0.0)
    one = sample(config, plan.generator("label")).take(torch.tensor([0]))
    x = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    x[:, 0, 0, FAST] = beta * y[:, 0]
    chance = torch.tensor([positive, 1 - positive], dtype=torch.float64)
    for activation in (Activation(2), Activation(3), Activation(2, True), Activation(3, True)):
        for projection in (0.7, -0.6):
            q, rectified = activation.power, activation.rectified
            W = torch.tensor([[projection, 0.0, 0.0]], dtype=torch.float64)
            along = -gradient(W, replace(one, x=x, y=y), _LOGIT, activation)[:, 0, FAST]
            unit = q * _LOGIT * beta**q * abs(projection) ** (q - 1)
            given = {"positive": positive, "projection": projection, "power": q}
            given |= {"rectified": rectified}
            note = f"{named(activation)} at <w,v>={projection}"
            measured = {"growth": float(chance @ along) / unit}
            out += as_printed("class-imbalance", measured, note, **given)
    return out


def isotropic(plan: Plan) -> list[Quantity]:
    """(E13): the spread of the slow feature's gradient, over all noise in all coordinates."""
    out = []
    base = DataConfig(3, 3, alpha=0.4, beta_slow=0.8, sigma_noise=0.5, noise="isotropic")
    for config, k, arms, across in (
        (base, 2, ("upsampled",), 0.6),
        (base, 2, ("upsampled", "generated"), 0.0),
        (replace(base, n_examples=2, alpha=0.5, n_patches=3), 3, ("upsampled",), 0.6),
        (replace(base, n_examples=2, alpha=0.5), 3, ("generated",), 0.0),
    ):
        W = torch.tensor([[0.0, 0.8, across]], dtype=torch.float64)
        # no need of nodes for a coordinate that the filter does not see
        rules = normal(1), normal(4), normal(4 if across else 1)
        g = plan.generator("isotropic")
        one = sample(config, g)
        measured = {}
        for arm in arms:
            bare = one if arm == "upsampled" else generate(one, k, g)
            data, weight = _noisy(bare, FamilyMember(k, amplitude=1.2), *rules)
            data = upsample(data, k) if arm == "upsampled" else data
            growth = gradient(W, data, _LOGIT)[:, 0, SLOW]
            measured[arm] = (growth.square() @ weight - (growth @ weight) ** 2).sqrt()
        given = {"n_examples": config.n_examples, "n_patches": config.n_patches, "k": k}
        given |= {"alpha": config.alpha, "sigma_noise": 0.5, "sigma_synthetic": 0.6}
        given |= {"w_norm": float(W.norm()), "projection": 0.8, "logit": _LOGIT}
        note = f"k={k} P={config.n_patches} |w|={float(W.norm()):g}"
        out += as_printed("isotropic-noise", measured, note, **given)
    return [*out, _isotropic_slope(plan)]


def _isotropic_slope(plan: Plan) -> Quantity:
    """(E14) in three dimensions: at frozen logits SAM over GD along a feature is quadratic in h."""
    config = DataConfig(2, 3, alpha=0.5, beta_fast=1.3, sigma_noise=0.5, noise="isotropic")
    W, k = torch.tensor([[0.6, 0.4, 0.7]], dtype=torch.float64), 2
    data, weight = planted(sample(config, plan.generator("slope")), normal(4))
    data = upsample(data, k)
    plain = gradient(W, data, LOGIT)

    def drop(h: float) -> Tensor:
        moved = sam_gradient(W, data, h * norm(plain)[..., 0, 0], LOGIT)
        return 1 - (moved[:, 0, FAST] @ weight) / (plain[:, 0, FAST] @ weight)

    h = 0.01
    w_norm = float(W.norm())
    label = "slope of SAM/GD along v_fast in rho, integrated"
    slope = (4 * drop(h) - drop(2 * h)) / (2 * h)
    return exact(label, slope, lambda: sam_slope(config, k, 1 / 3, 0.6, w_norm))


# --- Corollary 4.4 -------------------------------------------------------------------------------


def bound(plan: Plan) -> list[Quantity]:
    """(28) at lr below 1/L_s: of a quadratic, (2 − lr L_s) times the mean is what it says.

    The noise has one length and stands at right angles to W, so that nothing is left to chance.
    """
    smoothness, lr, variance, steps = 2.0, 0.2, 1.3, 7
    W = torch.tensor([1.5, 0.4], dtype=torch.float64)
    losses, total = [], 0.0
    for _ in range(steps):
        losses.append(smoothness / 2 * float(W.square().sum()))
        total += float((smoothness * W).square().sum()) / steps
        across = torch.stack([-W[1], W[0]]) / W.norm()
        W = W - lr * (smoothness * W + variance**0.5 * across)
    given = {"loss_initial": losses[0], "loss_final": smoothness / 2 * float(W.square().sum())}
    given |= {"lr": lr, "smoothness": smoothness, "variance": variance, "steps": steps}
    measured = {"mean_squared_gradient_norm": (2 - lr * smoothness) * total}
    return as_printed("convergence", measured, f"quadratic, lr L_s={lr * smoothness:g}", **given)


def reused(plan: Plan) -> list[Quantity]:
    """(C6), (C7) in units of one example's noise, at filters that see no feature."""
    out = []
    for config, k, batch_size, share in (
        (replace(_PAIR, n_examples=3, alpha=0.4), 2, 3, 0.6),
        (_PAIR, 3, 3, 0.9),
    ):
        W = _typical_filters(config, _SIGMA_INIT)
        W[:, :2] = 0.0
        parts: dict[str, tuple[float, float]] = {}
        arms = _arms(plan, config, FamilyMember(k))
        for arm, (data, weight) in arms.items():
            full = float(gradient(W, data, _LOGIT).square().sum((-1, -2)) @ weight)
            parts[arm] = full, _variance(W, [(1.0, data, weight)], batch_size, False) - full
        one = arms["original"][0].take(torch.tensor([0]))
        noise = float(gradient(W, one, _LOGIT).square().sum((-1, -2)) @ arms["original"][1])
        (bias_up, batch_up), (bias_made, batch_made) = parts["upsampled"], parts["generated"]
        measured = {
            "bias_upsampled": bias_up,
            "bias_generated": bias_made,
            "batch_variance_upsampled": batch_up,
            "batch_variance_generated": batch_made,
            "penalty": bias_up - bias_made + share * (batch_up - batch_made),
        }
        given = {"n_examples": config.n_examples, "alpha": config.alpha, "k": k}
        given |= {"batch_size": batch_size, "noise": noise, "lr": share / 2, "smoothness": 2.0}
        out += as_printed("reused-data", measured, f"k={k} B={batch_size}", **given)
    return out


def whole_run(plan: Plan) -> list[Quantity]:
    """(29): errors of a network with the fast feature alone, on both labels and opposite noise."""
    config = DataConfig(10, 4, alpha=0.7, sigma_noise=0.2)
    data, weight = planted(
        sample(config, plan.generator("test")).take(torch.tensor([0, 9])), normal(2)
    )
    W = torch.tensor([[1.0, 0.0, 0.3, 0.1]], dtype=torch.float64)
    wrong = (data.y * output(W, data.x) < 0).double()
    fast, slow = (weight @ wrong).tolist()
    measured = {"upsampled": 0.7 * fast + 0.3 * slow}
    return as_printed("test-error", measured, "alpha=0.7", alpha=0.7)


# --- All together --------------------------------------------------------------------------------

_MEASURED = {
    "gaussian-moments": moments,
    "sam-feature-factor": sam_features,
    "sam-noise-damping": sam_noise,
    "sam-noise-damping-gaussian": sam_damping,
    "sam-boundary": sam_boundary,
    "amplification": growth_ratio,
    "noise-alignment": alignments,
    "noise-tolerance": tolerances,
    "family": combine(family, orthogonal_family),
    "best-k": best_whole,
    "family-variance": combine(family_variances, orthogonal_variances),
    "gradient-variance": gradient_variances,
    "more-patches": more_patches,
    "reused-data": reused,
    "convergence": bound,
    "test-error": whole_run,
    "activation": activations,
    "class-imbalance": classes,
    "isotropic-noise": isotropic,
}


def extended(check: Check) -> Check:
    """The check with what its claim prints measured besides."""
    measure = check.measure
    if check.name in _MEASURED:
        measure = combine(measure, constant(unbroken(_MEASURED[check.name])))
    return replace(check, measure=measure)
