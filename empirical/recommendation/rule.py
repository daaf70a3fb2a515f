"""Strength and k by rule, from what copies keep: a pure function of measured numbers.

Equation numbers refer to theory/family.md. A synthetic image keeps a share c of its source's
feature and a correlation τ with its noise, of amplitude a; c, τ and a move with the strength.

- Strength, for a k: the one of least (F8), how late the slow feature is learned against its
  examples' noise. Among strengths and at one k, (F8) is the same multiple, (33), of

      R(k) = ρ(k, τ, a) / [1 + (k − 1) c³],

  so that noise level, dimension, number and contrast of the slow examples do not matter. The rule
  (F12) has no margin, and did worse on whole runs (theory/family.md, at its end).
- k: copies help if R < 1, which some k reaches exactly where aτ < c (F9); and then R falls with
  every further copy, so that something else must end it. At equal epochs it is the least available
  k with which the slow feature is learned no later than the fast one, k ≥ 1 + (k* − 1)/c³ (F2), and
  before its examples' noise, (33) R < 1; at equal steps the least that minimises (F10), which is 1
  where c³ ≤ 1 − α. k* and (33) are ratios of learning times, and are
  measured as such (`LearningTimes`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import require
from theory.amplification import n_augmented
from theory.family import FamilyMember, amplification_helps, effective_k, fastest_growth


@dataclass(frozen=True)
class MeasuredStrength:
    """What copies of one strength keep: fidelity c, kept noise τ, amplitude a.

    c and τ are cut to [0, 1] where the family needs them: measured ones can lie outside.
    """

    strength: float
    fidelity: float
    kept_noise: float
    amplitude: float

    def member(self, k: float) -> FamilyMember:
        """k - 1 such copies of each slow example."""
        c, tau = (min(1.0, max(0.0, own)) for own in (self.fidelity, self.kept_noise))
        return FamilyMember(k, c, tau, self.amplitude)


@dataclass(frozen=True)
class LearningTimes:
    """Learning times without synthetic images. None: not measured.

    slow_over_fast: of the slow feature over the fast one's, k* of (14) by (32);
    slow_over_noise: of the slow feature over that of its examples' noise, (33);
    at_least: the slow feature was not learned while it was watched, and both are lower bounds.
    """

    slow_over_fast: float | None = None
    slow_over_noise: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Choice:
    """A strength and a k; strength None and k 1: no synthetic images. enough: k does what the rule
    asks of it; if not, it is the largest available. Without a pace nothing is asked."""

    strength: float | None
    k: int
    enough: bool


@dataclass(frozen=True)
class Recommendation:
    """A choice and what it rests on.

    criterion: for each k, R of every strength (below 1: copies help); best: for each k the
    strength of least R; wanted_k: what (F2) asks at the chosen strength, None where not known;
    helps: whether aτ < c at each strength (F9); soonest: for each k the strength of (F12), see
    `soonest`; by_strength, by_k: how often each is chosen over
    resamples of the sources (key None: none helps), empty without resamples; reason: sentences.
    """

    choice: Choice
    criterion: dict[int, list[float]]
    best: dict[int, float]
    wanted_k: float | None
    helps: list[bool]
    soonest: dict[int, float | None]
    by_strength: dict[float | None, float]
    by_k: dict[int, float]
    reason: list[str]


def relative_time(kept: MeasuredStrength, k: int) -> float:
    """R(k) = ρ / [1 + (k − 1)c³]: (F8) over its value without synthetic images, (33)."""
    member = kept.member(k)
    return fastest_growth(member) / effective_k(member)


def recommend(
    measured: Sequence[MeasuredStrength],
    ks: Sequence[int],
    alpha: float,
    pace: LearningTimes | None = None,
    budget: str = "epochs",
    resamples: Sequence[Sequence[MeasuredStrength]] = (),
    errors: Sequence[tuple[float | None, float | None]] = (),
) -> Recommendation:
    """The strength and the k to use.

    measured: one for each strength; ks: the available k (1, no synthetic images, always is);
    alpha: share of fast examples, which matters at equal steps only; budget: epochs or steps;
    resamples: `measured` again from resampled sources; errors: standard errors of c and τ at each
    strength, for the wording.

    Raises:
        ParameterError: no strength, one twice, no k, a k below 2, or alpha outside (0, 1).
    """
    strengths = [own.strength for own in measured]
    require(len(strengths) > 0, "strengths", "none", "at least one")
    distinct = len(set(strengths)) == len(strengths)
    require(distinct, "strengths", strengths, "each once")
    check_ks(ks)
    require(0 < alpha < 1, "alpha", alpha, "inside (0, 1)")
    require(budget in ("epochs", "steps"), "budget", budget, "epochs or steps")
    pace = pace or LearningTimes()
    ks = sorted(ks)
    choice = choose(measured, ks, alpha, pace, budget)
    drawn = [choose(own, ks, alpha, pace, budget) for own in resamples]
    criterion = {k: [relative_time(own, k) for own in measured] for k in ks}
    chosen = next((own for own in measured if own.strength == choice.strength), None)
    recommendation = Recommendation(
        choice=choice,
        criterion=criterion,
        best={k: strengths[int(np.argmin(values))] for k, values in criterion.items()},
        wanted_k=None if chosen is None else equal_growth(chosen, pace),
        helps=[amplification_helps(own.member(max(ks))) for own in measured],
        soonest={k: soonest(measured, k, alpha, pace) for k in ks},
        by_strength=_shares([own.strength for own in drawn], [None, *strengths]),
        by_k=_shares([own.k for own in drawn], [1, *ks]),
        reason=[],
    )
    recommendation.reason.extend(_reason(recommendation, measured, alpha, pace, budget, errors))
    return recommendation


def check_ks(ks: Sequence[int]) -> None:
    """Raise ParameterError unless `ks` are different whole numbers of at least 2."""
    ok = len(ks) > 0 and len(set(ks)) == len(ks)
    ok = ok and all(isinstance(k, int) and k >= 2 for k in ks)
    require(ok, "ks", list(ks), "different whole numbers of at least 2")


def choose(
    measured: Sequence[MeasuredStrength],
    ks: Sequence[int],
    alpha: float,
    pace: LearningTimes,
    budget: str,
) -> Choice:
    """The rule itself, see the module. ks: rising."""
    nothing = Choice(None, 1, enough=True)
    points = []
    for k in ks:
        values = [relative_time(own, k) for own in measured]
        least = int(np.argmin(values))
        if values[least] < 1:
            points.append((k, measured[least], values[least]))
    if not points:
        return nothing
    if budget == "steps":
        points = [point for point in points if point[1].member(1).fidelity ** 3 > 1 - alpha]
        if not points:
            return nothing
        if pace.slow_over_fast is not None:
            slow = pace.slow_over_fast
            times = {k: _time(own.member(k), slow, alpha) for k, own, _ in points}
            k, own, _ = min(points, key=lambda point: times[point[0]])
            # one that repays no step is none
            enough = not pace.at_least
            return Choice(own.strength, k, enough) if times[k] < max(1.0, slow) else nothing
    for k, own, value in points:
        if _enough(k, own, value, pace):
            return Choice(own.strength, k, enough=True)
    k, own, _ = points[-1]
    return Choice(own.strength, k, enough=pace == LearningTimes())


def soonest(
    measured: Sequence[MeasuredStrength], k: int, alpha: float, pace: LearningTimes
) -> float | None:
    """The strength of (F12) instead: both features learned first, where (F8) < 1; for comparison.

    None where a learning time is missing or only bounded, or (F8) < 1 nowhere.
    """
    if pace.at_least or pace.slow_over_fast is None or pace.slow_over_noise is None:
        return None
    first = [own for own in measured if pace.slow_over_noise * relative_time(own, k) < 1]
    slow = pace.slow_over_fast
    if not first:
        return None
    return min(
        first, key=lambda own: (_time(own.member(k), slow, alpha), relative_time(own, k))
    ).strength


def equal_growth(kept: MeasuredStrength, pace: LearningTimes) -> float | None:
    """The k from which the slow feature is no longer the later one, 1 + (k* − 1)/c³, (F2)."""
    if pace.slow_over_fast is None:
        return None
    missing, fidelity = max(0.0, pace.slow_over_fast - 1), kept.member(1).fidelity
    if missing == 0:
        return 1.0
    return 1 + missing / fidelity**3 if fidelity > 0 else math.inf


def _enough(k: int, kept: MeasuredStrength, value: float, pace: LearningTimes) -> bool:
    if pace == LearningTimes() or pace.at_least:
        return False  # nothing says when to stop: from a lower bound, only what is too little
    wanted = equal_growth(kept, pace)
    if wanted is not None and k < wanted:
        return False
    return pace.slow_over_noise is None or pace.slow_over_noise * value < 1


def _time(member: FamilyMember, k_star: float, alpha: float) -> float:
    """Equation (F10), with a k* that was measured."""
    return max(1.0, k_star / effective_k(member)) * n_augmented(1, alpha, member.k)


def _shares(values: Sequence, allowed: Sequence) -> dict:
    count = Counter(values)
    return {own: count[own] / len(values) for own in allowed} if values else {}


# --- in words ------------------------------------------------------------------------------------


def _reason(
    found: Recommendation,
    measured: Sequence[MeasuredStrength],
    alpha: float,
    pace: LearningTimes,
    budget: str,
    errors: Sequence[tuple[float | None, float | None]],
) -> list[str]:
    choice = found.choice
    said = [*_no_copies(found, measured, alpha, budget)] if choice.strength is None else []
    if choice.strength is not None:
        said += _of_strength(found, measured, errors) + _of_k(found, pace, budget)
        other = found.soonest[choice.k]
        if other not in (None, choice.strength):
            said.append(
                f"The feature comes before the noise at strength {other:g} too, and is learned "
                f"sooner: (F12) would take that ((33) is {pace.slow_over_noise:.2f})."
            )
    if found.by_strength:
        share = found.by_strength[choice.strength]
        others = {own: part for own, part in found.by_strength.items() if own != choice.strength}
        other, part = max(others.items(), key=lambda item: item[1]) if others else (None, 0.0)
        text = f"Over resamples of the sources this strength is chosen {share:.0%} of the time"
        if choice.strength is None:
            text = f"Over resamples of the sources none helps {share:.0%} of the time"
        if part >= 0.005:
            text += f", {'none' if other is None else f'{other:g}'} {part:.0%}"
        said.append(text + ".")
    return said


def _no_copies(
    found: Recommendation, measured: Sequence[MeasuredStrength], alpha: float, budget: str
) -> list[str]:
    least, k = min((min(own), k) for k, own in found.criterion.items())
    if least < 1 and budget == "steps":
        best = max(own.member(1).fidelity for own in measured)
        return [
            "At equal steps no k helps: synthetic images take steps from the real ones, which pays "
            f"above fidelity (1 - alpha)^(1/3) = {(1 - alpha) ** (1 / 3):.2f} (F11) and where slow "
            f"examples need more time (F10); copies keep {best:.0%} of the feature at most.",
            "At equal epochs it would be another matter.",
        ]
    if any(found.helps):
        return [
            f"No available k helps: with k = {k}, at best, the feature takes {least:.2f} times as "
            "long against its noise as without copies (F8). A larger k would help (a tau < c, F9)."
        ]
    return [
        "No k helps: at every strength copies keep at least as much of their source's noise as of "
        "its feature (a tau >= c, F9), so that more of them let the noise be memorised sooner.",
        "A generator that is more faithful is needed, not more images.",
    ]


def _of_strength(
    found: Recommendation,
    measured: Sequence[MeasuredStrength],
    errors: Sequence[tuple[float | None, float | None]],
) -> list[str]:
    in_order = sorted(measured, key=lambda own: own.strength)
    here = next(i for i, own in enumerate(in_order) if own.strength == found.choice.strength)
    own = in_order[here]
    spread = dict(zip([own.strength for own in measured], errors, strict=False))
    c_error, tau_error = spread.get(own.strength, (None, None))
    text = (
        f"At strength {own.strength:g} copies keep {_percent(own.fidelity, c_error)} of the "
        f"feature and {_percent(own.kept_noise, tau_error)} of the noise"
    )
    sides = []
    if here > 0:
        sides.append(_side(in_order[0], own, "below", spread))
    if here < len(in_order) - 1:
        sides.append(_side(in_order[-1], own, "above", spread))
    return [text + (f"; {', '.join(sides)}." if sides else "; no other strength was tried.")]


def _side(
    other: MeasuredStrength,
    own: MeasuredStrength,
    where: str,
    spread: dict[float, tuple[float | None, float | None]],
) -> str:
    """What the strengths on one side do worse, shown by the last of them on that side."""
    (c, tau), (c_own, tau_own) = (
        [error or 0.0 for error in spread.get(one.strength, (None, None))] for one in (other, own)
    )
    worse = []
    if other.kept_noise - own.kept_noise > 2 * math.hypot(tau, tau_own):
        worse.append(f"repeat more noise ({other.kept_noise:.0%} at {other.strength:g})")
    if own.fidelity - other.fidelity > 2 * math.hypot(c, c_own):
        worse.append(f"lose more of the feature ({other.fidelity:.0%} left at {other.strength:g})")
    return f"{where} it they {' and '.join(worse) or 'are no better'}"


def _percent(value: float, error: float | None) -> str:
    return f"{value:.0%}" if error is None else f"{100 * value:.0f} ± {100 * error:.0f}%"


def _of_k(found: Recommendation, pace: LearningTimes, budget: str) -> list[str]:
    k, ks = found.choice.k, list(found.criterion)
    gain = 1 / found.criterion[k][_index(found)]
    said = [f"With k = {k} the slow feature gains on its examples' noise {gain:.1f} times (F8)"]
    bound = "at least " if pace.at_least else ""
    if pace.slow_over_fast is not None:
        said[0] += (
            f"; slow examples take {bound}{pace.slow_over_fast:.1f} times as long as fast ones, "
            f"so the two are level at k = {bound}{found.wanted_k:.1f} (F2)"
        )
    if budget == "steps" and pace.slow_over_fast is not None:
        said.append("Of the available k it learns both in the fewest steps (F10).")
    elif pace == LearningTimes():
        said.append("It is the largest available k: nothing was measured that says when to stop.")
    elif found.choice.enough and k == ks[0]:
        said.append(
            f"It is the least of {', '.join(map(str, ks))}, and slow examples are learned with the "
            "fast ones and before their noise; more would cost and dilute the fast ones."
        )
    elif found.choice.enough:
        said.append(
            f"It is the least of {', '.join(map(str, ks))} that lets slow examples be learned with "
            "the fast ones and before their noise; more would cost and dilute the fast ones."
        )
    elif pace.at_least:
        said.append(
            "It is the largest available k: slow examples were not learned while they were "
            "watched, so that it is not known how many would be enough."
        )
    else:
        said.append("It is the largest k available, and a larger one would help more.")
    said[0] += "."
    return said


def _index(found: Recommendation) -> int:
    """The chosen strength's place in `criterion`."""
    values = found.criterion[found.choice.k]
    return int(np.argmin(values))
