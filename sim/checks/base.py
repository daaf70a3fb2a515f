"""What a check is, and the statistical test that judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from sim.measure import Estimate
from sim.streams import torch_stream

LEVEL = 1e-4
"""Two-sided level of the test of each quantity: a true claim fails this rarely by chance."""

RESOLUTION = 0.07
"""An equality is only accepted when its margin is below this share of the prediction."""

ROUNDING = 1e-9
"""Relative margin for quantities that are exact in float64."""


@dataclass(frozen=True)
class Plan:
    """How a check is to be run: its seed, quick or full size, and whether to break it.

    claim: its random streams are those of this claim and of no other.
    """

    seed: int = 0
    full: bool = False
    broken: bool = False
    claim: str = ""

    def generator(self, *key: str | int) -> torch.Generator:
        """A random stream of its own for each claim, seed and `key`."""
        return torch_stream("checks", self.claim, self.seed, *key)

    def size(self, quick: int) -> int:
        """Number of draws: `quick`, ten times that in full mode; a control needs a quarter."""
        draws = quick * 10 if self.full else quick
        return max(3, draws // 4) if self.broken else draws


@dataclass(frozen=True)
class Quantity:
    """One measured number, with what its prediction needs.

    relation: the claim is measured "=" predicted, or "<", or ">" it.
    inputs: passed to the check's `predict`.
    rounding: relative margin besides the standard error: of float64, of a difference quotient,
        or of an approximation that the claim itself makes. standard_error 0: this is all.
    dof: degrees of freedom of the standard error; None for the normal limit.
    """

    label: str
    inputs: Mapping[str, Any]
    measured: float
    standard_error: float
    relation: str = "="
    dof: int | None = None
    rounding: float = ROUNDING


@dataclass(frozen=True)
class Check:
    """A claim, how it is measured, how it is predicted, and which assumption its control breaks.

    measure(plan) -> quantities; with plan.broken the named assumption is broken in the
    simulation while the prediction stays, and the claim must then fail.
    """

    name: str
    broken_assumption: str
    measure: Callable[[Plan], list[Quantity]]
    predict: Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Verdict:
    """A judged quantity.

    deviation: |measured − predicted| over the margin allowed ("="), or the margin over the
    distance on the right side ("<", ">"); above 1 the quantity does not hold.
    refuted: it does not hold, and not merely because the measurement was too coarse.
    """

    label: str
    relation: str
    predicted: float
    measured: float
    standard_error: float
    deviation: float
    holds: bool
    refuted: bool


def judge(check: Check, quantity: Quantity) -> Verdict:
    """Test one quantity against its prediction.

    "=": |measured − predicted| ≤ t·se + rounding, and that margin resolves RESOLUTION of the
    prediction (a measurement too coarse to catch a wrong constant does not count as holding).
    "<", ">": measured lies on that side of the prediction by more than t·se.
    """
    p, m, se = check.predict(quantity.inputs), quantity.measured, quantity.standard_error
    law = stats.norm if quantity.dof is None else stats.t(quantity.dof)
    margin = float(law.isf(LEVEL / 2)) * se + quantity.rounding * abs(p)
    if quantity.relation == "=":
        refuted = not abs(m - p) <= margin
        holds = not refuted and margin <= RESOLUTION * abs(p)
        deviation = abs(m - p) / margin if margin > 0 else float("inf") * (m != p)
    else:
        gap = p - m if quantity.relation == "<" else m - p
        holds = gap > margin
        refuted = not holds
        deviation = margin / gap if gap > 0 else float("inf")
    return Verdict(
        quantity.label, quantity.relation, p, m, se, deviation, bool(holds), bool(refuted)
    )


def ratio(numerator: Tensor, denominator: Tensor) -> Estimate:
    """E[numerator]/E[denominator] from paired independent samples; delta-method error."""
    a, b = numerator.flatten().double(), denominator.flatten().double()
    value = a.mean() / b.mean()
    residual = (a - value * b) / b.mean()
    return Estimate(float(value), float(residual.std() / len(a) ** 0.5))


def quantity(
    label: str,
    estimate: Estimate,
    relation: str = "=",
    dof: int | None = None,
    rounding: float = ROUNDING,
    **inputs: Any,
) -> Quantity:
    """A `Quantity` from an `Estimate`."""
    return Quantity(label, inputs, estimate.mean, estimate.standard_error, relation, dof, rounding)


def exact(label: str, value: Tensor | float, rounding: float = ROUNDING, **inputs: Any) -> Quantity:
    """A `Quantity` that must agree to rounding."""
    return Quantity(label, inputs, float(value), 0.0, rounding=rounding)
