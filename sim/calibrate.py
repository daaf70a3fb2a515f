"""Whether the checks are right at every seed: the same verification at many seeds, and its report.

A check that is right fails as rarely as its level says, and its standardised deviations follow the
law that its test assumes. Both are tested here, over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import delayed
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from common.errors import require
from common.files import finite
from common.parallel import pool
from common.plotting import BLUE, GREY, ORANGE, RED, canvas
from common.progress import progress
from common.provenance import versions
from sim.checks import CHECKS
from sim.checks.base import LEVEL, Plan, Quantity, Verdict, guarded, judge, standardised
from sim.verify import COST, selected

Json = dict[str, Any]

MOST_SEEDS = 100_000
"""They are listed before the first is measured; so many take weeks."""

REJECTED = 0.01
"""A quantity's law is rejected where its p-value, times the number of quantities, is below this."""


def calibrate(
    out: Path,
    seeds: int = 200,
    first: int = 1000,
    names: Sequence[str] | None = None,
    jobs: int | None = None,
) -> Json:
    """Measure the claims `names` (all by default) in quick mode at `seeds` seeds; a summary.

    out: a folder that keeps what was measured, a file for each claim and a line for each seed, so
    that a stopped run is resumed and more seeds can be added. What is there is trusted if the
    first seed, measured again, gives the same; else the claim is measured again.
    Raises ParameterError for an unknown claim, fewer than 2 seeds or a negative first seed.
    """
    chosen = selected(names, first, jobs)
    require(2 <= seeds <= MOST_SEEDS, "seeds", seeds, f"at least 2 and at most {MOST_SEEDS}")
    out.mkdir(parents=True, exist_ok=True)
    wanted = range(first, first + seeds)
    kept: dict[str, dict[int, Json]] = {name: _read(out, name) for name in chosen}
    fresh: Any = pool(jobs)(delayed(measure)(name, first) for name in chosen)
    for record in fresh:
        name = record["claim"]
        if kept[name].get(first) != record:
            kept[name] = {}
            _path(out, name).unlink(missing_ok=True)
            _append(out, record)
            kept[name][first] = record
    tasks = [(n, s) for s in wanted for n in chosen if s not in kept[n]]
    number = len(chosen) * len(wanted)
    cost = sum(COST[name] for name, _ in tasks)
    with progress("claims at seeds", number, number - len(tasks), cost) as advance:
        found: Any = pool(jobs)(delayed(measure)(*task) for task in tasks)
        for record in found:
            _append(out, record)
            kept[record["claim"]][record["seed"]] = record
            advance(COST[record["claim"]])
    return summary({n: [kept[n][s] for s in wanted] for n in chosen}, wanted)


def measure(name: str, seed: int) -> Json:
    """One claim and its control at one seed, as JSON."""
    torch.set_num_threads(1)
    check = CHECKS[name]
    quantities = guarded(check.measure, Plan(seed, claim=name))
    verdicts = [judge(q) for q in quantities]
    control = [judge(q) for q in guarded(check.measure, Plan(seed, broken=True, claim=name))]
    record = {
        "claim": name,
        "seed": seed,
        "quantities": [_row(v, q) for v, q in zip(verdicts, quantities, strict=True)],
        # how clearly the control is contradicted: the largest deviation over the margin
        "control": [
            any(v.refuted for v in control),
            finite(max((v.deviation for v in control if v.refuted), default=0.0)),
        ],
    }
    return json.loads(json.dumps(record))


def _row(verdict: Verdict, quantity: Quantity) -> Json:
    z, tail = standardised(verdict, quantity)
    numbers = {
        "predicted": verdict.predicted,
        "measured": verdict.measured,
        "standard_error": verdict.standard_error,
        "rounding": quantity.rounding,
        "deviation": verdict.deviation,
        "coarseness": verdict.coarseness,
        "z": z,
        "tail": tail,
    }
    texts = {"label": verdict.label, "relation": verdict.relation}
    return (
        texts
        | {k: finite(x) for k, x in numbers.items()}
        | {
            "holds": verdict.holds,
            "missing": verdict.missing,
        }
    )


# --- what was measured, on disk ------------------------------------------------------------------


def _path(out: Path, name: str) -> Path:
    return out / f"{name}.jsonl"


def _append(out: Path, record: Json) -> None:
    with _path(out, record["claim"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def _read(out: Path, name: str) -> dict[int, Json]:
    """Records by seed; a last line that was cut short is removed from the file."""
    path = _path(out, name)
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    records = [json.loads(line) for line in lines]
    return {record["seed"]: record for record in records}


# --- the summary ---------------------------------------------------------------------------------


def summary(records: dict[str, list[Json]], seeds: range) -> Json:
    """Failures with their binomial intervals, and each quantity's law tested over the seeds."""
    claims = [_claim(name, found) for name, found in records.items()]
    tested = [q for claim in claims for q in claim["quantities"] if q["p"] is not None]
    rejected = []
    for q in tested:
        q["rejected"] = q["p"] * len(tested) < REJECTED
        if q["rejected"]:
            rejected.append(q["label"])
    failed = sorted({r["seed"] for found in records.values() for r in found if not _passed(r)})
    return {
        "seeds": {"first": seeds.start, "number": len(seeds)},
        "level": LEVEL,
        "stated_probability": sum(c["stated_probability"] for c in claims),
        "failed_seeds": failed,
        "failed_interval": _interval(len(failed), len(seeds)),
        "quantities": sum(len(c["quantities"]) for c in claims),
        "tested": len(tested),
        "smallest_p": min((q["p"] for q in tested), default=None),
        "smallest_p_corrected": min((min(1.0, q["p"] * len(tested)) for q in tested), default=None),
        "rejected": rejected,
        "claims": claims,
        "versions": versions("scipy"),
    }


def passed(record: Json) -> bool:
    """Whether a summary is that of checks that are right at every seed."""
    return not record["failed_seeds"] and not record["rejected"]


def in_words(record: Json) -> str:
    """The outcome in a few lines."""
    number, failed = record["seeds"]["number"], record["failed_seeds"]
    low, high = record["failed_interval"]
    lines = [
        f"{len(failed)} of {number} seeds fail (95% interval {low:.2%} to {high:.2%}; stated: "
        f"{record['stated_probability']:.1e})" + (f": {failed}" if failed else "")
    ]
    if record["tested"]:
        lines.append(
            f"laws of {record['tested']} quantities tested, {len(record['rejected'])} rejected; "
            f"smallest p-value {record['smallest_p']:.1e}, "
            f"times their number {record['smallest_p_corrected']:.2g}"
        )
    return "\n".join(lines + [f"rejected: {label}" for label in record["rejected"]])


def _passed(record: Json) -> bool:
    return record["control"][0] and all(q["holds"] for q in record["quantities"])


def _claim(name: str, found: list[Json]) -> Json:
    quantities = [_quantity(rows) for rows in _by_label(found)]
    failed = sum(not all(q["holds"] for q in r["quantities"]) for r in found)
    margins = [r["control"][1] for r in found]
    return {
        "name": name,
        "failed": failed,
        "failed_interval": _interval(failed, len(found)),
        "not_measurable": sum(any(q["missing"] for q in r["quantities"]) for r in found),
        "control_held": sum(not r["control"][0] for r in found),
        # None: infinite, as where the claim is an inequality and the control lies on its other side
        "control_smallest_deviation": min((m for m in margins if m is not None), default=None),
        "stated_probability": sum(q["stated_probability"] for q in quantities),
        "quantities": quantities,
    }


def _by_label(found: list[Json]) -> Iterator[list[Json]]:
    """The rows of each quantity over the seeds, in the order of the check."""
    rows: dict[str, list[Json]] = {}
    for record in found:
        for row in record["quantities"]:
            rows.setdefault(row["label"], []).append(row)
    yield from rows.values()


def _quantity(rows: list[Json]) -> Json:
    relation = rows[0]["relation"]
    deviations, coarseness = (
        [row[key] for row in rows if row[key] is not None] for key in ("deviation", "coarseness")
    )
    random = all(row["standard_error"] for row in rows)
    out: Json = {
        "label": rows[0]["label"],
        "relation": relation,
        "seeds": len(rows),
        "failed": sum(not row["holds"] for row in rows),
        "not_measurable": sum(bool(row["missing"]) for row in rows),
        "largest_deviation": max(deviations, default=None),
        "largest_coarseness": max(coarseness, default=None),
        "mean": None,
        "scale": None,
        "p": None,
        "stated_probability": 0.0,
    }
    if relation == "=" and random:
        out["stated_probability"] = LEVEL + _above_one(coarseness)
    elif random:
        out["stated_probability"] = _above_one(deviations)
    if all(_follows_a_law(row) for row in rows):
        # standard normal where the law assumed is right, whichever it is
        z, tail = (np.array([row[key] for row in rows]) for key in ("z", "tail"))
        score = np.sign(z) * stats.norm.isf(tail / 2)
        scale = float((score**2).mean() ** 0.5)
        out |= {"mean": float(score.mean()), "scale": scale, "p": _p_value(score)}
    return out


def _follows_a_law(row: Json) -> bool:
    """Whether chance decides: not where the claim is an approximation that its rounding allows
    for, or where the standard error is itself of rounding's size."""
    if row["z"] is None:
        return False
    rounding = row["rounding"] * abs(row["predicted"])
    return rounding < 0.05 * row["standard_error"]


def _above_one(margins: list[float]) -> float:
    """Chance of a margin larger than allowed, if its share of that is log-normal over seeds."""
    logs = np.log([max(m, 1e-300) for m in margins])
    if len(logs) < 2 or not logs.std():
        return 0.0
    return float(stats.norm.sf(-logs.mean() / logs.std(ddof=1)))


def _p_value(score: np.ndarray) -> float:
    """Of two tests of a standard normal, the smaller p-value, doubled.

    Kolmogorov's, and that of the mean square, which is the sharper one for a standard error that
    is too large or too small.
    """
    square = float((score**2).sum())
    chi = stats.chi2(len(score))
    spread = 2 * min(float(chi.cdf(square)), float(chi.sf(square)))
    shape = float(stats.kstest(score, "norm").pvalue)
    return min(1.0, 2 * min(spread, shape))


def _interval(failed: int, n: int) -> list[float]:
    """Clopper-Pearson's 95% interval of a probability."""
    found = stats.binomtest(failed, n).proportion_ci(0.95)
    return [float(found.low), float(found.high)]


# --- the plot ------------------------------------------------------------------------------------


def draw(record: Json) -> Figure:
    """Failures of each claim, the spread of each quantity, and all p-values."""
    figure, (left, middle, right) = canvas(11, 5.2, ncols=3, width_ratios=(1.3, 1.3, 1))
    claims, n = record["claims"], record["seeds"]["number"]
    rows = range(len(claims))
    share = [c["failed"] / n for c in claims]
    ends = np.array([c["failed_interval"] for c in claims]).T
    error = np.abs(ends - share)
    left.errorbar(share, rows, xerr=error, fmt="o", ms=3.5, color=BLUE, ecolor=GREY, lw=1)
    left.set(
        yticks=rows,
        xlabel=f"share of {n} seeds that fail, 95% interval",
        title="Failures of each claim",
        xlim=(-0.002, None),
    )
    left.set_yticklabels([c["name"] for c in claims])
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.invert_yaxis()

    for row, claim in enumerate(claims):
        tested = [q for q in claim["quantities"] if q["p"] is not None]
        colors = [RED if q["rejected"] else BLUE for q in tested]
        middle.scatter([q["scale"] for q in tested], [row] * len(tested), s=9, c=colors, alpha=0.6)
    band = np.sqrt(stats.chi2(n).ppf([0.025, 0.975]) / n)
    middle.axvspan(*band, color=GREY, alpha=0.25, lw=0, label="95% of right ones")
    for wrong in (1 / 1.2, 1.2):
        middle.axvline(wrong, color=ORANGE, lw=0.9, ls="--")
    middle.set(
        yticks=rows,
        yticklabels=[],
        xlabel="(measured − predicted)/standard error,\nroot mean square over seeds",
        title="Spread; dashed: wrong by a fifth",
        ylim=left.get_ylim(),
    )
    figure.legend(loc="outside lower center", ncols=1)

    p = np.sort([q["p"] for c in claims for q in c["quantities"] if q["p"] is not None])
    expected = (np.arange(len(p)) + 0.5) / max(len(p), 1)
    right.plot(expected, p, color=BLUE, lw=1.4)
    right.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
    right.set(
        xlabel="uniform",
        ylabel="p-value of the law assumed (1: conservative)",
        title=f"{len(p)} quantities",
        aspect="equal",
    )
    return figure
