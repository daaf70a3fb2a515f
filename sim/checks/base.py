"""What a check is, and the statistical test that judges it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from scipy.optimize import root_scalar
from torch import Tensor

from common.seeding import torch_stream
from sim.measure import Estimate
from theory.claims import CLAIMS

LEVEL = 1e-6
"""Two-sided level of the test of each quantity: a true claim fails this rarely by chance.

With about 250 quantities that are left to chance, a correct program fails with probability
250 × LEVEL = 2.5e-4: below 1 in 1000, with room for tails heavier than the law assumed."""

RESOLUTION = 0.065
"""An equality is only accepted when its margin is below this share of the prediction.

The margin is 4.9 standard errors (more on one side where the measurement is skewed), so that one is
at most 1.33% of the prediction, and a constant wrong by 10% is caught with probability above
P(Z > −(10 − 6.5)/1.33) = .995."""

DRAWN = torch.float32
"""Type of what is drawn by the thousand: its rounding is far below chance, and it is fast."""

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

    def fixed(self, *key: str | int) -> torch.Generator:
        """A stream that is the same at every seed: for filters at which means are taken, so that
        no seed has a harder measurement than another."""
        return torch_stream("checks", self.claim, "fixed", *key)

    def size(self, quick: int) -> int:
        """Number of draws: `quick`, ten times that in full mode; a control needs a quarter."""
        draws = quick * 10 if self.full else quick
        return max(3, draws // 4) if self.broken else draws


Predict = Callable[[], Any] | float
"""A prediction: a number, or what returns one."""


@dataclass(frozen=True)
class Quantity:
    """One measured number with its prediction.

    relation: the claim is measured "=" predicted, or "<", or ">" it.
    predict: the prediction, or a call of theory that gives it: made when the quantity is judged,
        so that a measurement can be judged again by a theory that has changed.
    rounding: relative margin besides the standard error: of float64, of a difference quotient,
        or of an approximation that the claim itself makes. standard_error 0: this is all.
    dof: degrees of freedom of the standard error; None for the normal limit.
    skewness: of the measurement, as in Estimate.
    missing: why the quantity could not be formed from its draws, where it could not; measured and
        standard_error are then NaN.
    """

    label: str
    measured: float
    standard_error: float
    predict: Predict
    relation: str = "="
    dof: int | None = None
    rounding: float = ROUNDING
    skewness: float = 0.0
    missing: str = ""


Part = Callable[[Plan], list[Quantity]]
"""One part of a claim's measurement."""


@dataclass(frozen=True)
class Check:
    """A claim, how it is measured, and which assumption its control breaks.

    measure(plan) -> quantities with their predictions; with plan.broken the named assumption is
    broken in the simulation while the predictions stay, and the claim must then fail.
    """

    name: str
    broken_assumption: str
    measure: Part


@dataclass(frozen=True)
class Verdict:
    """A judged quantity.

    deviation: |measured − predicted| over the margin allowed ("="), or the margin over the
    distance on the right side ("<", ">"); above 1 the quantity does not hold.
    coarseness: the larger margin over what RESOLUTION allows it ("="); above 1 the quantity does
        not hold.
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
    missing: str = ""
    coarseness: float = 0.0


def judge(quantity: Quantity) -> Verdict:
    """Test one quantity against its prediction.

    "=": the truth's interval at LEVEL, `_interval`, holds the prediction up to rounding, and each
    of its arms resolves RESOLUTION of the prediction (a measurement too coarse to catch a wrong
    constant does not count as holding).
    "<", ">": that interval lies on that side of the prediction.
    A measurement or a prediction that is not a finite number is neither.
    """
    m, se = quantity.measured, quantity.standard_error
    p, missing = math.nan, quantity.missing
    if not missing and not (math.isfinite(m) and math.isfinite(se)):
        missing = "the measurement is not a finite number"
    if not missing:
        try:
            p = float(quantity.predict() if callable(quantity.predict) else quantity.predict)
        except (ArithmeticError, ValueError) as error:
            missing = f"no prediction: {error}"
        else:
            missing = "" if math.isfinite(p) else "the prediction is not a finite number"
    if missing:
        return Verdict(quantity.label, quantity.relation, p, m, se, math.inf, False, False, missing)
    below, above = (arm * se + quantity.rounding * abs(p) for arm in _interval(quantity))
    coarseness = 0.0
    if quantity.relation == "=":
        margin = above if p >= m else below
        refuted = not abs(m - p) <= margin
        widest, allowed = max(below, above), RESOLUTION * abs(p)
        coarseness = widest / allowed if allowed else (math.inf if widest else 0.0)
        holds = not refuted and coarseness <= 1
        deviation = abs(m - p) / margin if margin > 0 else (math.inf if refuted else 0.0)
    else:
        gap, margin = (p - m, above) if quantity.relation == "<" else (m - p, below)
        holds = gap > margin
        refuted = not holds
        deviation = margin / gap if gap > 0 else float("inf")
    return Verdict(
        quantity.label,
        quantity.relation,
        p,
        m,
        se,
        deviation,
        bool(holds),
        bool(refuted),
        coarseness=coarseness,
    )


def standardised(verdict: Verdict, quantity: Quantity) -> tuple[float, float]:
    """(measured − predicted)/standard error, freed of its skewness, and its two-sided p-value.

    Of a quantity with relation "=" and a standard error; NaN for any other.
    """
    if verdict.relation != "=" or verdict.missing or not verdict.standard_error:
        return math.nan, math.nan
    t = (verdict.measured - verdict.predicted) / verdict.standard_error
    z = _unskewed(t, quantity.skewness)
    return z, float(2 * _law(quantity).sf(abs(z)))


def _law(quantity: Quantity) -> Any:
    return stats.norm if quantity.dof is None else stats.t(quantity.dof)


def _unskewed(t: float, skewness: float) -> float:
    """Hall's transformation (1992) of a t statistic, after which its skewness is 0 to first order.

    Sums of high powers of normal numbers are so skewed that at level 1e-6 the law of t is wrong
    by a factor of ten and more where `skewness` is .1.
    """
    return t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6


def _interval(quantity: Quantity) -> tuple[float, float]:
    """How far the truth may lie below and above the measurement, in standard errors, at LEVEL."""
    quantile, skewness = float(_law(quantity).isf(LEVEL / 2)), quantity.skewness
    if abs(skewness) < 1e-9:
        return quantile, quantile

    def skewed(z: float) -> float:  # the inverse of _unskewed
        return 3 / skewness * (math.cbrt(1 + skewness * (z - skewness / 6)) - 1)

    # t = (measured − truth)/se is large where the truth lies below
    return skewed(quantile), -skewed(-quantile)


def combine(*parts: Part) -> Part:
    """One `measure` of several, none of which is stopped by another's failure.

    What a part raises becomes a quantity that says so and does not hold.
    """

    def measure(plan: Plan) -> list[Quantity]:
        out: list[Quantity] = []
        for part in parts:
            out += guarded(part, plan)
        return out

    return measure


def unbroken(measure: Part) -> Part:
    """A part that the broken assumption does not enter: the control leaves it out."""

    @functools.wraps(measure)
    def part(plan: Plan) -> list[Quantity]:
        return [] if plan.broken else measure(plan)

    return part


def constant(measure: Part) -> Part:
    """A part that leaves nothing to chance: measured once a process, at a seed of its own."""

    @functools.cache
    def once(claim: str, full: bool, broken: bool) -> tuple[Quantity, ...]:
        return tuple(measure(Plan(0, full, broken, claim)))

    @functools.wraps(measure)
    def part(plan: Plan) -> list[Quantity]:
        return list(once(plan.claim, plan.full, plan.broken))

    return part


def guarded(measure: Part, plan: Plan) -> list[Quantity]:
    """measure(plan), or one quantity that says why there is none."""
    try:
        return measure(plan)
    except Exception as error:  # whatever it is, the other quantities are to be judged
        name = getattr(measure, "__name__", "measure").strip("_").replace("_", " ")
        return [unmeasurable(name, f"{type(error).__name__}: {error}")]


def unmeasurable(label: str, why: str) -> Quantity:
    """A quantity that could not be formed from its draws."""
    return Quantity(label, math.nan, math.nan, math.nan, missing=" ".join(why.split()))


def predicted(claim: str, key: str, **inputs: Any) -> Predict:
    """What `python -m theory predict claim` prints as `key` for these inputs."""
    return lambda: CLAIMS[claim].predict(**inputs)[key]


def ratio(numerator: Tensor, denominator: Tensor) -> Estimate:
    """E[numerator]/E[denominator] from paired independent samples; delta-method error."""
    return power_product((numerator, 1), (denominator, -1))


def power_product(*factors: tuple[Tensor, int]) -> Estimate:
    """Product of E[samples]^power over paired independent samples; delta-method error."""
    value, residual = 1.0, torch.zeros(())
    for samples, power in factors:
        flat = samples.flatten().double()
        mean = flat.mean()
        value = value * float(mean) ** power
        residual = residual + power * (flat / mean - 1)
    return Estimate.of(residual).through(value, value)


def increasing_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where f, increasing, is 0 between low and high; `high` is doubled until f is positive there.

    NaN, so that the quantity is not measurable, where f is positive at low or never at high.
    """
    for _ in range(20):
        if f(high) > 0:
            break
        low, high = high, 2 * high
    if not f(low) <= 0 < f(high):
        return math.nan
    return float(root_scalar(f, bracket=(low, high), xtol=1e-13 * high, rtol=1e-13).root)


def quantity(
    label: str,
    estimate: Estimate,
    predict: Predict,
    relation: str = "=",
    dof: int | None = None,
    rounding: float = ROUNDING,
) -> Quantity:
    """A `Quantity` from an `Estimate`."""
    mean, error = estimate.mean, estimate.standard_error
    return Quantity(label, mean, error, predict, relation, dof, rounding, estimate.skewness)


def exact(
    label: str, value: Tensor | float, predict: Predict, rounding: float = ROUNDING
) -> Quantity:
    """A `Quantity` that must agree to rounding."""
    return Quantity(label, float(value), 0.0, predict, rounding=rounding)
