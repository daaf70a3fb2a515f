"""Other activations: what of the theory survives for z^q and ReLU^q, and what even powers lose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sim.backends.dense import Dense
from sim.checks import activation_variance
from sim.checks.base import (
    DRAWN,
    Check,
    Part,
    Plan,
    Quantity,
    combine,
    constant,
    exact,
    power_product,
    predicted,
    quantity,
    ratio,
)
from sim.checks.gradients import (
    LOGIT,
    alignment_excess,
    equal_alignment,
    equalising_k,
    named,
    positive_part,
    with_labels,
)
from sim.data import FAST, SLOW, DataConfig, generate, sample, upsample
from sim.measure import noise_projections
from sim.network import Activation, gradient, init, norm
from sim.optim import descent
from theory import amplification, extensions, sam

_ODD = (Activation(3), Activation(5))
_EVEN = (Activation(2), Activation(4))
_RECTIFIED = (Activation(2, True), Activation(3, True), Activation(4, True))


def _simulated(activation: Activation, plan: Plan) -> Activation:
    """The control simulates another power than it predicts."""
    return replace(activation, power=activation.power + 2) if plan.broken else activation


def _alternating(n: int) -> Tensor:
    """Labels +1, −1, +1, ..., (n,)."""
    return 1.0 - 2.0 * (torch.arange(n) % 2).double()


# --- Equation (E1): SAM's factors ----------------------------------------------------------------


def _factors(plan: Plan, activation: Activation) -> list[Quantity]:
    config = DataConfig(
        n_examples=12, dim=40, alpha=0.5, beta_slow=0.7, sigma_noise=0.3, noise="orthogonal"
    )
    g = plan.generator(60)
    # both features with both labels, of which ReLU^q at one sign of ⟨w,v⟩ sees one
    data = with_labels(sample(config, g), _alternating(config.n_examples))
    W = init(2, config.dim, 0.3, g)
    W[:, FAST], W[:, SLOW] = torch.tensor([0.6, -0.5]), torch.tensor([0.7, -0.8])
    simulated = _simulated(activation, plan)
    plain = gradient(W, data, LOGIT, simulated)
    rho = 0.4 * float(norm(plain))
    sam = descent(Dense(data, W, simulated), W, rho, LOGIT)
    q, size, out = activation.power, float(norm(plain)), []
    for v, name, beta in ((FAST, "fast", config.beta_fast), (SLOW, "slow", config.beta_slow)):
        for j in range(2):
            # ReLU^q at ⟨w,v⟩ of one sign sees the examples of one label
            carries = data.is_fast if v == FAST else ~data.is_fast
            if activation.rectified:
                carries = carries & (data.y == W[j, v].sign())
            out.append(
                exact(
                    f"{named(activation)}: SAM/GD along v_{name} at <w,v>={float(W[j, v]):.1f}",
                    sam[j, v] / plain[j, v],
                    partial(
                        _factor,
                        q,
                        rho,
                        beta,
                        LOGIT * float(carries.double().mean()),
                        size,
                        float(W[j, v]),
                    ),
                )
            )
    projections = noise_projections(W, data)[:, 0]
    factor = (noise_projections(sam, data) / noise_projections(plain, data))[:, 0]
    active = data.y * projections > 0 if activation.rectified else projections.isfinite()
    for i in (projections + ~active * -9.0).argmax(), (projections + ~active * 9.0).argmin():
        out.append(
            exact(
                f"{named(activation)}: SAM/GD along noise, y<w,xi>={float(projections[i]):.2g}",
                factor[i],
                partial(
                    _factor,
                    q,
                    rho,
                    1.0,
                    # κ of noise is that of a feature of strength ‖ξ_i‖^(2/q) in one example
                    LOGIT / config.n_examples * float(data.x[i, 1].square().sum()),
                    size,
                    float(projections[i]),
                ),
            )
        )
    return out


def _factor(
    power: int,
    rho: float,
    beta: float,
    mean_logit: float,
    gradient_norm: float,
    projection: float,
) -> float:
    kappa = sam.feature_kappa(rho, beta, mean_logit, gradient_norm, power)
    return float(sam.feature_factor(kappa, projection, power))


# --- Equations (E2), (E12), (E4): growth of features ----------------------------------------------


def _growth(plan: Plan, activation: Activation) -> list[Quantity]:
    config = DataConfig(n_examples=20, dim=6, alpha=0.6, beta_slow=0.7, sigma_noise=0.2)
    data = sample(config, plan.generator(61))
    simulated = _simulated(activation, plan)
    # matched filters, and their mirror images for the labels that ReLU^q does not show the first
    W = 0.5 * torch.tensor([[1.0, 1.0, 0, 0, 0, 0], [-1.0, -1.0, 0, 0, 0, 0]], dtype=torch.float64)
    return [
        exact(
            f"{named(activation)}: k that equalises growth",
            equalising_k(W, data, simulated),
            predicted(
                "activation",
                "k_star",
                alpha=config.alpha,
                beta_fast=config.beta_fast,
                beta_slow=config.beta_slow,
                power=activation.power,
                rectified=activation.rectified,
            ),
        )
    ]


def _race(plan: Plan, activation: Activation) -> list[Quantity]:
    """(E4): relative growth of a slow example's noise over that of the slow feature.

    Both keep their ratio, growing by u^(q−1), so it is that of the learning times. Patches of one
    length; half the labels are positive, and as many of either sign are wrong.
    """
    config = DataConfig(
        n_examples=20, dim=60, alpha=0.5, beta_slow=0.7, noise="orthogonal", label_noise_slow=0.2
    )
    simulated, g, k = _simulated(activation, plan), plan.generator(73), 2
    true, wrong = torch.ones(20, dtype=torch.float64), torch.ones(20, dtype=torch.float64)
    true[::2] = -1.0
    wrong[-2:] = -1.0
    data = sample(replace(config, label_noise_slow=None), g)
    x = data.x.clone()
    x[:, 0] *= (true * data.y)[:, None]
    data = replace(data, x=x, y=true * wrong)
    out = []
    for arm, augmented in (("U", upsample(data, k)), ("G", generate(data, k, g))):
        length = config.sigma_noise * config.dim**0.5
        noise = augmented.x[:, 1] / augmented.x[:, 1].norm(dim=-1, keepdim=True)
        augmented.x[:, 1] = length * noise
        one = int((augmented.y * ~augmented.is_fast).argmax())  # slow, with a positive label
        feature = torch.eye(config.dim, dtype=torch.float64)[SLOW]
        rates = [
            float(-gradient(0.3 * w[None], augmented, LOGIT, simulated)[0] @ w)
            for w in (noise[one], feature)
        ]
        out.append(
            exact(
                f"{named(activation)}: slow feature's time over its noise's in {arm}({k})",
                rates[0] / rates[1],
                partial(_memorisation, config, activation, k if arm == "G" else 1),
            )
        )
    return out


def _memorisation(config: DataConfig, activation: Activation, divided_by: int) -> float:
    ratio = amplification.memorisation_ratio(
        config.sigma_noise,
        config.dim,
        config.alpha,
        config.n_examples,
        config.beta_slow,
        activation.power,
        activation.rectified,
        config.wrong_slow,
    )
    return ratio / divided_by


def _by_class(plan: Plan, activation: Activation) -> list[Quantity]:
    """Growth from the negative class over that from the positive one: even powers cancel it."""
    power = activation.power + (1 if plan.broken else 0)
    simulated = replace(activation, power=power)
    config = DataConfig(n_examples=20, dim=6, sigma_noise=0.2)
    W = init(1, config.dim, 0.5, plan.generator(62))
    negative, positive = (
        -gradient(W, sample(replace(config, positive=p), plan.generator(63)), LOGIT, simulated)
        for p in (0.0, 1.0)
    )
    given = float(W[0, FAST]), activation.rectified, activation.power

    def predict() -> float:
        none, all_ = (extensions.class_share_growth(share, *given) for share in (0.0, 1.0))
        return none / all_

    label = f"{named(activation)}: growth from class -1 over that from class +1"
    return [exact(label, negative[0, FAST] / positive[0, FAST], predict)]


# --- Even powers: noise --------------------------------------------------------------------------


def _even_noise(plan: Plan, activation: Activation) -> list[Quantity]:
    """Alignment cancels between the labels, and SAM does not damp it."""
    config = DataConfig(n_examples=4, dim=12, alpha=0.5, sigma_noise=0.5, noise="orthogonal")
    power = activation.power + (1 if plan.broken else 0)
    simulated = replace(activation, power=power)
    W = init(12, config.dim, 0.4, plan.fixed(64))
    data = sample(config, plan.generator(65), (plan.size(15_000 * (activation.power - 1)),))
    plain = gradient(W, data, LOGIT, simulated)
    rho = 0.06 * norm(plain)[..., 0, 0]  # small: its tails are those of a high power
    along = noise_projections(-plain, data)
    sam = noise_projections(-descent(Dense(data, W, simulated), W, rho, LOGIT), data)
    on = noise_projections(W, data) > 0
    negative = data.y.unsqueeze(-1) < 0
    parts = [torch.where(on & side, along, 0.0).sum((-1, -2)) for side in (negative, ~negative)]
    factor = torch.where(on, sam / along, 0.0).sum((-1, -2))
    name = named(activation)
    return [
        quantity(f"{name}: NoiseAlign, labels -1 over +1", ratio(*parts), -1.0),
        quantity(
            f"{name}: mean SAM/GD on I_j+",
            ratio(factor, on.double().sum((-1, -2))),
            1.0,
            "=" if activation.power == 2 else ">",
        ),
    ]


# --- Equation (E3): noise alignment --------------------------------------------------------------

_WIDE = DataConfig(n_examples=4, dim=34, alpha=0.5, sigma_noise=0.3)
_FILTERS = 24


def _tolerance(plan: Plan, activation: Activation) -> list[Quantity]:
    """sigma_synthetic/sigma_noise at which the same draws of G(k) and U(k) align alike."""
    simulated = _simulated(activation, plan)
    k, name = 2, named(activation)
    given = {"power": activation.power, "rectified": activation.rectified, "k": k}
    tolerance = predicted("activation", "sigma_ratio", **given)
    # orthogonal patches of one length that a filter sees alike: exact
    data = replace(sample(_WIDE, plan.generator(66)), y=_alternating(_WIDE.n_examples))
    made = generate(data, k, plan.generator(66))
    made.x[:, 1] = torch.eye(_WIDE.dim).double()[2 : 2 + made.n]
    w = 0.5 * (made.y @ made.x[:, 1]).unsqueeze(0)
    original = replace(data, x=made.x[: data.n])
    excess = alignment_excess(upsample(original, k), made, w, simulated)
    at = equal_alignment(excess.expand(-1, 2), simulated).mean
    out = [exact(f"{name}: sigma ratio at which G({k}) aligns as much as U({k})", at, tolerance)]
    # independent Gaussian patches: in the mean
    W = init(_FILTERS, _WIDE.dim, 0.3, plan.fixed(66), dtype=DRAWN)
    g = plan.generator(67, name)
    parts: dict[str, list[Tensor]] = {"excess": [], "U": [], "G": []}
    for chunk in torch.arange(plan.size(900 * activation.power)).split(300):
        data = sample(_WIDE, g, (len(chunk),), DRAWN)
        up, made = upsample(data, k), generate(data, k, g)
        parts["excess"].append(alignment_excess(up, made, W, simulated))
        for arm, augmented in (("U", up), ("G", made)):
            parts[arm].append(torch.stack(positive_part(augmented, W, simulated)))
    excess, up, made = (torch.cat(part, -1) for part in parts.values())
    label = f"{name}: sigma ratio at which they align alike, independent patches"
    out.append(quantity(label, equal_alignment(excess, simulated), tolerance))
    if activation.power < 4:  # above, tails are too heavy for so few draws
        both = power_product((made[0], 1), (up[0], -1), (made[1], -1), (up[1], 1))
        label = f"{name}: NoiseAlign, G({k})/U({k}) at equal noise"
        equal = _WIDE.alpha, k, 1.0, 1.0
        out.append(quantity(label, both, lambda: amplification.generated_over_upsampled(*equal)))
    return out


# --- All together --------------------------------------------------------------------------------


def _part(measure: Callable[[Plan, Activation], list[Quantity]], activation: Activation) -> Part:
    def part(plan: Plan) -> list[Quantity]:
        return measure(plan, activation)

    part.__name__ = f"{measure.__name__} of {named(activation)}"
    return part


def _variance(plan: Plan, activation: Activation) -> list[Quantity]:
    return activation_variance.measure(plan, activation, _simulated(activation, plan))


_PARTS = (
    *(_part(m, a) for a in (*_ODD, *_RECTIFIED) for m in (_factors, _growth, _race, _tolerance)),
    *(_part(_even_noise, a) for a in _EVEN),
    *(_part(_by_class, a) for a in (*_EVEN, *_ODD)),
    *(constant(_part(_variance, a)) for a in (*_ODD, *_EVEN, *_RECTIFIED)),
)


CHECKS = (
    Check(
        "activation",
        "the activation is the one named (control: its power is 2 higher, or 1 for even ones)",
        combine(*_PARTS),
    ),
)
