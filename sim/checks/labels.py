"""Wrong labels and unequal classes: what of the theory survives."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import torch

from sim.checks.base import DRAWN, Check, Plan, Quantity, combine, exact, predicted, quantity
from sim.checks.cubic import BATCHES, alignments, features, growths, sam, unit_filters, variances
from sim.checks.gradients import LOGIT, equalising_k, exact_variance, named
from sim.data import FAST, DataConfig, sample, upsample
from sim.measure import Estimate, filter_sums
from sim.network import Activation, gradient, init
from theory import extensions

# --- Equations (E10), (E11): wrong labels ---------------------------------------------------------

_LABELS = DataConfig(
    n_examples=40,
    dim=60,
    alpha=0.6,
    beta_fast=1.1,
    beta_slow=0.7,
    sigma_noise=0.2,
    noise="orthogonal",
    label_noise=0.125,
    label_noise_slow=0.25,
)
_FEW = DataConfig(n_examples=8, dim=4, alpha=0.5, beta_slow=0.7, sigma_noise=0.5, label_noise=0.25)
_FEW_ALIGNED = DataConfig(n_examples=8, dim=12, alpha=0.5, sigma_noise=0.5, label_noise=0.25)


def _wrong(config: DataConfig, plan: Plan) -> DataConfig:
    """The control doubles the shares of wrong labels."""
    if not plan.broken:
        return config
    return replace(
        config, label_noise=2 * config.label_noise, label_noise_slow=2 * config.wrong_slow
    )


def _one_data_set(plan: Plan) -> list[Quantity]:
    g = plan.generator(80)
    data = sample(_wrong(_LABELS, plan), g)
    data = replace(data, config=_LABELS)
    W = init(2, _LABELS.dim, 0.3, g)
    W[:, :2] = 0.6
    out = growths(data, W, 2, g) + sam(data, W)
    config = _LABELS
    out.append(
        exact(
            "k that equalises growth",
            equalising_k(W, data),
            predicted(
                "label-noise",
                "k_star",
                alpha=config.alpha,
                beta_fast=config.beta_fast,
                beta_slow=config.beta_slow,
                label_noise=config.label_noise,
                label_noise_slow=config.wrong_slow,
            ),
        )
    )
    return out


def _label_alignments(plan: Plan) -> list[Quantity]:
    W = init(8, _FEW_ALIGNED.dim, 0.5, plan.fixed(81), dtype=DRAWN)
    return alignments(plan, 82, _wrong(_FEW_ALIGNED, plan), W, 24)


def _label_variances(plan: Plan) -> list[Quantity]:
    W = unit_filters(_FEW, plan.fixed(83))
    return variances(plan, 84, _FEW, _wrong(_FEW, plan), W, 24)


def _label_variance(plan: Plan) -> list[Quantity]:
    """(E8), (E9) exactly, by going through all ways in which labels can be wrong."""
    config, k = replace(_FEW, sigma_noise=0.0, label_noise=0.0), 3
    wrong = _wrong(_FEW, plan).label_noise
    g = plan.generator(85)
    data = upsample(sample(config, g), k)
    W = unit_filters(config, g, 3, torch.float64)
    flips = torch.tensor(list(itertools.product((1.0, -1.0), repeat=config.n_examples))).double()
    chances = ((1 + flips) / 2 - flips * wrong).prod(1)  # wrong for −1, 1 − wrong for 1
    count = round(wrong * 4)
    fixed = ((flips[:, :4] < 0).sum(1) == count) & ((flips[:, 4:] < 0).sum(1) == count)
    out = []
    for label, exact_counts, possible in (
        ("independent", False, chances),
        ("an exact share", True, fixed.double() / fixed.sum()),
    ):
        labelled = replace(
            data,
            x=data.x.expand(len(flips), *data.x.shape),
            y=data.y * flips[:, data.source],
        )
        for batch, value in zip(
            BATCHES, exact_variance(W, labelled, possible, BATCHES), strict=True
        ):
            out.append(
                exact(
                    f"features' variance, wrong labels {label}, B={batch[0]}"
                    + " with replacement" * batch[1],
                    value,
                    partial(features, _FEW, filter_sums(W), k, batch, exact_counts),
                )
            )
    return out


# --- Equation (E12): unequal classes --------------------------------------------------------------

_CLASSES = DataConfig(
    n_examples=40,
    dim=60,
    alpha=0.6,
    beta_slow=0.7,
    sigma_noise=0.2,
    noise="orthogonal",
    positive=0.75,
)
_FEW_CLASSES = DataConfig(
    n_examples=5, dim=4, alpha=0.6, beta_slow=0.7, sigma_noise=0.5, positive=0.75
)
_ALIGNED_CLASSES = DataConfig(n_examples=8, dim=12, alpha=0.5, sigma_noise=0.5, positive=0.75)


def _classes(config: DataConfig, plan: Plan) -> DataConfig:
    """The control has equal classes."""
    return replace(config, positive=0.5) if plan.broken else config


def _mean_growths(plan: Plan) -> list[Quantity]:
    out = []
    config = DataConfig(n_examples=20, dim=3, alpha=0.6, sigma_noise=0.1, positive=0.75)
    data = sample(_classes(config, plan), plan.generator(86), (plan.size(10_000),))
    for activation in (*map(Activation, (2, 3, 4)), Activation(2, True), Activation(3, True)):
        for u in (0.9, -0.9):
            growth = -gradient(
                torch.tensor([[u, 0, 0]], dtype=torch.float64), data, LOGIT, activation
            )
            out.append(
                quantity(
                    f"{named(activation)}: mean growth of v_fast at <w,v>={u}",
                    Estimate.of(growth[:, 0, FAST]),
                    partial(_class_growth, config, activation, u),
                )
            )
    return out


def _class_growth(config: DataConfig, activation: Activation, u: float) -> float:
    """(E12)."""
    q = activation.power
    growth = q * LOGIT * config.beta_fast**q * config.alpha * abs(u) ** (q - 1)
    return growth * extensions.class_share_growth(config.positive, u, activation.rectified, q)


def _one_set_of_classes(plan: Plan) -> list[Quantity]:
    g = plan.generator(87)
    data = replace(sample(_classes(_CLASSES, plan), g), config=_CLASSES)
    W = init(2, _CLASSES.dim, 0.3, g)
    return growths(data, W, 2, g) + sam(data, W)


def _class_alignments(plan: Plan) -> list[Quantity]:
    W = init(8, _ALIGNED_CLASSES.dim, 0.5, plan.fixed(88), dtype=DRAWN)
    return alignments(plan, 89, _classes(_ALIGNED_CLASSES, plan), W, 24)


def _class_variances(plan: Plan) -> list[Quantity]:
    W = unit_filters(_FEW_CLASSES, plan.fixed(90))
    return variances(plan, 91, _FEW_CLASSES, _classes(_FEW_CLASSES, plan), W, 110)


CHECKS = (
    Check(
        "label-noise",
        "the share of wrong labels is the one named (control: twice as many)",
        combine(_one_data_set, _label_variance, _label_alignments, _label_variances),
    ),
    Check(
        "class-imbalance",
        "the share of positive labels is the one named (control: equal classes)",
        combine(_mean_growths, _one_set_of_classes, _class_alignments, _class_variances),
    ),
)
