"""Run checks with their controls on all cores, judge them, and lay out the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from joblib import delayed
from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.errors import require
from common.files import finite
from common.parallel import check_jobs, pool
from common.progress import progress
from sim.checks import CHECKS
from sim.checks.base import LEVEL, Check, Plan, Quantity, Verdict, guarded, judge
from theory.claims import CLAIMS


@dataclass(frozen=True)
class Result:
    """A claim's verdicts and its control's; it passes when it holds and its control fails."""

    check: Check
    verdicts: list[Verdict]
    control: list[Verdict]

    @property
    def holds(self) -> bool:
        return all(v.holds for v in self.verdicts)

    @property
    def control_holds(self) -> bool:
        """Whether nothing in the control contradicts the claim.

        Coarse measurements do not, nor do quantities that cannot be measured in it.
        """
        return not any(v.refuted for v in self.control)

    @property
    def worst(self) -> Verdict:
        """The quantity that fails, or is closest to failing."""
        return max(self.verdicts, key=lambda v: (not v.holds, v.deviation))

    @property
    def passed(self) -> bool:
        return self.holds and not self.control_holds


def verify(
    names: Sequence[str] | None = None,
    seed: int = 0,
    full: bool = False,
    advance: Callable[[float], None] = lambda cost: None,
    jobs: int | None = None,
) -> list[Result]:
    """Check the claims `names` (all by default), each with its control, in parallel.

    advance(cost) is called after each of the 2 × claims measurements. The result depends on seed
    and full alone, not on jobs (default: the machine's cores). Raises ParameterError for an
    unknown claim, a negative seed, or jobs < 1.
    """
    chosen = selected(names, seed, jobs)
    # the slowest first, so that the last core to finish is not alone for long
    tasks = [(name, Plan(seed, full, broken, name)) for broken in (False, True) for name in chosen]
    tasks.sort(key=lambda task: -_cost(*task))
    measured: dict[tuple[str, bool], list[Quantity]] = {}
    done: Any = pool(jobs, len(tasks))(delayed(_measure)(*task) for task in tasks)
    for name, broken, quantities in done:
        measured[name, broken] = quantities
        advance(_cost(name, Plan(broken=broken)))
    return [result(CHECKS[n], measured[n, False], measured[n, True]) for n in chosen]


def _cost(name: str, plan: Plan) -> float:
    return COST[name] * (_CONTROL if plan.broken else 1 - _CONTROL)


def selected(names: Sequence[str] | None, seed: int, jobs: int | None) -> list[str]:
    """The claims to check, after a check of the parameters (ParameterError)."""
    chosen = list(CHECKS) if names is None else list(names)
    for name in chosen:
        require(name in CHECKS, "claims", name, f"one of {', '.join(CHECKS)}")
    require(seed >= 0, "seed", seed, "0 or more")
    check_jobs(jobs, 2 * len(chosen))
    return chosen


COST = {
    **dict.fromkeys(CHECKS, 1.2),
    "gaussian-moments": 1.5,
    "sam-feature-factor": 0.1,
    "sam-noise-damping": 0.1,
    "sam-noise-damping-gaussian": 2.4,
    "sam-boundary": 0.7,
    "moving-logits": 3.0,
    "sam-noise-boundary": 2.4,
    "sam-feature-boundary": 2.2,
    "noise-alignment": 2.8,
    "noise-tolerance": 2.2,
    "alignment-distribution": 4.0,
    "family-variance": 2.7,
    "family-memorisation": 0.6,
    "best-k": 2.4,
    "gradient-variance": 4.4,
    "convergence": 2.7,
    "smoothness": 0.2,
    "steps-to-target": 4.8,
    "reused-data": 2.4,
    "test-error": 3.0,
    "activation": 3.2,
    "isotropic-noise": 2.3,
    "more-patches": 2.1,
}
"""Seconds of one core that a claim and its control take, about: for the order and the time left."""

_CONTROL = 0.25
"""The control's share of a claim's cost."""


def _measure(name: str, plan: Plan) -> tuple[str, bool, list[Quantity]]:
    torch.set_num_threads(1)
    return name, plan.broken, guarded(CHECKS[name].measure, plan)


def result(check: Check, quantities: list[Quantity], control: list[Quantity]) -> Result:
    """Judge what was measured; nothing is measured here."""
    return Result(check, [judge(q) for q in quantities], [judge(q) for q in control])


def as_json(results: list[Result], elapsed: float, seed: int, full: bool) -> dict[str, Any]:
    """The contract's object; each claim's headline is its quantity closest to failing."""
    claims = []
    for r in results:
        worst = r.worst
        claim = CLAIMS[r.check.name]
        claims.append(
            {
                "name": r.check.name,
                "source": claim.source,
                "statement": claim.statement,
                **_plain(worst),
                "holds": r.holds,
                "quantities": [_plain(v) for v in r.verdicts],
                "control": {
                    "broken_assumption": r.check.broken_assumption,
                    "holds": r.control_holds,
                    "quantities": [_plain(v) for v in r.control],
                },
            }
        )
    return {"claims": claims, "level": LEVEL, "seed": seed, "full": full, "elapsed_s": elapsed}


def _plain(verdict: Verdict) -> dict[str, Any]:
    # JSON has neither infinity (no margin, or the wrong side of it) nor NaN (not measurable)
    plain = finite({k: v for k, v in asdict(verdict).items() if k != "missing" or v})
    if verdict.missing:
        return plain
    if verdict.relation in "<>" and verdict.predicted:
        plain["tightness"] = verdict.measured / verdict.predicted
    return plain


def table(results: list[Result], verbose: bool = False) -> Table:
    """A row for each claim, with the quantity closest to failing and the control's outcome.

    verbose: a row for each quantity, and what the control breaks.
    """
    out = Table(
        title=f"The theory's claims, each quantity tested at level {LEVEL:g}", box=SIMPLE_HEAD
    )
    out.add_column("quantity" if verbose else "claim", overflow="fold")
    out.add_column("predicted", justify="right", no_wrap=True)
    out.add_column("measured ± s.e.", justify="right", no_wrap=True)
    out.add_column("claim" if verbose else "", no_wrap=True)
    out.add_column("control", no_wrap=True)
    for r in results:
        control = "[red]HOLDS[/]" if r.control_holds else "[green]fails[/]"
        if verbose:
            out.add_row(f"[bold]{r.check.name}[/]")
            for v in r.verdicts:
                out.add_row(f"  {v.label}", *_numbers(v))
            out.add_row(f"  [dim]assumed: {r.check.broken_assumption}[/]", "", "", "", control)
        else:
            out.add_row(f"[bold]{r.check.name}[/]", *_numbers(r.worst), control)
    return out


def reasons(results: list[Result]) -> list[str]:
    """A line for each quantity that could not be measured, and why.

    Not for controls, in which 0/0 may be what a broken assumption leads to.
    """
    return [
        f"{r.check.name}: {v.label} is not measurable: {v.missing}"
        for r in results
        for v in r.verdicts
        if v.missing
    ]


def _numbers(v: Verdict) -> tuple[str, str, str]:
    if v.missing:
        return "", "not measurable", "[red]FAILS[/]"
    error = f" ± {v.standard_error:.1g}" if v.standard_error else " (exact)"
    verdict = "[green]holds[/]" if v.holds else "[red]FAILS[/]"
    return f"{v.relation} {v.predicted:.4g}", f"{v.measured:.4g}{error}", verdict


def _total(names: Sequence[str]) -> float:
    return sum(COST[name] for name in names)


def verify_with_progress(
    names: Sequence[str] | None = None,
    seed: int = 0,
    full: bool = False,
    jobs: int | None = None,
) -> tuple[list[Result], float]:
    """`verify` with a progress bar on stderr; returns the results and the seconds it took."""
    names = selected(names, seed, jobs)
    start = time.perf_counter()
    with progress("claims and controls measured", 2 * len(names), cost=_total(names)) as advance:
        results = verify(names, seed, full, advance, jobs)
    return results, round(time.perf_counter() - start, 1)
