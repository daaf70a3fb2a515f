"""Strength and k for a run, recommended before its images are made: `recommend`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import distributed
from common.errors import ParameterError, require
from common.files import finite, read_json, write_json
from common.locks import one_writer
from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, STYLE, canvas, write_figure
from empirical.config.settings import Settings, changed
from empirical.datasets.splits import make_split, open_set
from empirical.diagnosis.classifier import DEFAULT
from empirical.diagnosis.estimates import Estimate
from empirical.pipeline import memory, run
from empirical.pipeline.synthesis import check, load_backend
from empirical.recommendation import rule
from empirical.recommendation.probe import Probe, check_grid, measure_learning_times, probe
from empirical.runtime import HERE, Machine
from empirical.training import networks
from empirical.versions import versions

CHOSEN = ("strength", "strengths", "k")
"""The settings that are recommended, and that a recommendation does not depend on."""
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KS = (2, 3, 4, 5, 8)
COLOURS = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#5f6b2d")


@one_writer
def recommend(
    settings: Settings,
    out: Path,
    ks: Sequence[int] = KS,
    sources: int = 256,
    copies: int = 2,
    judge: str = "conv4",
    judge_epochs: int = DEFAULT.epochs,
    machine: Machine = HERE,
) -> dict[str, Any]:
    """Measure (c, τ, a) on a few sources and choose by `rule`; returns OUT/recommendation.json.

    OUT is a run's folder: steps 1 and 2 and the generator are made there as `run` makes them, and
    in the end its settings are those recommended, so that `run` continues from it with these. Every
    part is found again: copies in OUT/probe, the judge in OUT/judge, learning times in OUT/pace.
    The settings' `strengths` are tried, or STRENGTHS; strength and k of `settings` do not matter.

    Raises:
        ParameterError: see `check_grid`, `rule.check_ks` and `probe`; or as `run.select`.
    """
    out = Path(out)
    with run.free_if_diverged(out, "selection.json"):
        return _recommend(settings, out, ks, sources, copies, judge, judge_epochs, machine)


def _recommend(
    settings: Settings,
    out: Path,
    ks: Sequence[int],
    sources: int,
    copies: int,
    judge: str,
    judge_epochs: int,
    machine: Machine,
) -> dict[str, Any]:
    strengths = sorted(settings.generation.strengths or STRENGTHS)
    check_grid(settings, strengths)
    rule.check_ks(ks)
    for name, value in (("sources", sources), ("copies", copies), ("judge_epochs", judge_epochs)):
        require(value >= 1, name, value, "at least 1")
    here = _as_begun(settings, out)
    data = open_set(here.data, machine.data, machine.download)
    split = make_split(data, here.data)
    check(data, split, here)
    every_copy = changed(here, k=1 + copies * len(strengths), strengths=None)
    memory.check_split(every_copy, data, split, machine)
    try:
        with torch.device("meta"):
            networks.make(judge, data.channels, data.side, len(data.classes))
    except ParameterError as error:
        raise ParameterError("judge", error.value, error.allowed) from error
    slow = run.select(here, out, machine)
    backend = load_backend(data, split, here, out / "generator", machine)
    recipe = replace(DEFAULT, epochs=judge_epochs)
    found = probe(
        *(data, split, slow.train, here, backend, strengths, out),
        *(sources, copies, judge, recipe, machine),
    )
    pace, curves = measure_learning_times(data, split, slow.train, here, out / "pace", machine)
    alpha = 1 - float(slow.train.mean())
    errors = [
        (_error_of(seen.fidelity), _error_of(own.kept_noise))
        for own, seen in zip(found.faithfulness, found.fast or found.faithfulness, strict=True)
    ]
    chosen = rule.recommend(found.kept, ks, alpha, pace, here.budget, found.resamples, errors)
    strength, k = chosen.choice.strength, chosen.choice.k
    if found.fast is not None:
        chosen.reason.append(
            "The feature is that of fast sources: a judge with these images does not see the class "
            "of the slow ones. Of their fainter features the generator may keep less."
        )
    asked = f" --ks {' '.join(map(str, sorted(ks)))} --sources {sources} --copies {copies}"
    asked += f" --judge {judge} --judge-epochs {judge_epochs}"
    result = {
        "strength": strength,
        "k": k,
        "enough": chosen.choice.enough,
        "reason": chosen.reason,
        "alpha": alpha,
        "budget": here.budget,
        "pace": {**asdict(pace), "accuracy": curves},
        "wanted_k": finite(chosen.wanted_k),
        "strengths": _rows(found, chosen),
        "best": [{"k": k, "strength": own} for k, own in chosen.best.items()],
        "soonest": [{"k": k, "strength": own} for k, own in chosen.soonest.items()],
        "chosen": {
            "by_strength": [{"strength": s, "share": p} for s, p in chosen.by_strength.items()],
            "by_k": [{"k": k, "share": p} for k, p in chosen.by_k.items()],
        },
        "sources": found.faithfulness[0].sources,
        "fidelity_of": "slow" if found.fast is None else "fast",
        "judge": found.judge,
        "settings": here.record(),
        "versions": versions(),
        "command": settings.command("recommend", out) + asked,
    }
    begun = any((out / stage).exists() for stage in ("synthetic", "training", "result.json"))
    taken = here
    if strength is not None:
        taken = changed(here, strength=strength, strengths=None, k=k)
        other = begun and read_json(out / "settings.json", "settings") != taken.record()
        result["go_on"] = taken.command("run", out / "recommended" if other else out)

    def write() -> None:
        write_json(out / "recommendation.json", result)
        with rc_context(STYLE):
            write_figure(out / "recommendation.png", draw(result))
        if not begun:
            write_json(out / "settings.json", taken.record())

    distributed.run_on_main(write)
    return result


def _as_begun(settings: Settings, out: Path) -> Settings:
    """These settings with the strength and k that OUT was begun with, which do not matter here."""
    path = out / "settings.json"
    if not path.exists():
        return settings
    known = read_json(path, "settings", CHOSEN)
    strengths = tuple(known["strengths"]) or None
    return changed(settings, strength=known["strength"], strengths=strengths, k=known["k"])


def _rows(found: Probe, chosen: rule.Recommendation) -> list[dict[str, Any]]:
    rows = []
    for place, own in enumerate(found.faithfulness):
        row: dict[str, Any] = {"strength": own.strength}
        seen = own if found.fast is None else found.fast[place]
        for name in ("fidelity", "kept_noise", "amplitude"):
            value = getattr(seen if name == "fidelity" else own, name)
            row[name] = None if value is None else asdict(value)
        row["helps"] = chosen.helps[place]
        row["criterion"] = [{"k": k, "value": v[place]} for k, v in chosen.criterion.items()]
        rows.append(row)
    return rows


def _error_of(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.standard_error


def draw(result: dict[str, Any]) -> Figure:
    """Fidelity and kept noise against strength; the criterion for every k, the choice marked."""
    figure, (left, right) = canvas(8.2, 3.4, ncols=2)
    rows = result["strengths"]
    x = [row["strength"] for row in rows]
    for name, colour, label in (
        ("fidelity", BLUE, "fidelity c" + " (of fast ones)" * (result["fidelity_of"] == "fast")),
        ("kept_noise", RED, "kept noise τ"),
        ("amplitude", GREY, "amplitude a"),
    ):
        there = [(s, row[name]) for s, row in zip(x, rows, strict=True) if row[name]]
        left.errorbar(
            [s for s, _ in there],
            [own["value"] for _, own in there],
            yerr=[own["standard_error"] or 0.0 for _, own in there],
            fmt="o-", ms=3.5, lw=1.2, capsize=2, color=colour, label=label,
        )  # fmt: skip
    left.axhline(0, color="black", lw=0.6)
    left.set(xlabel="strength", title=f"copies of {result['sources']} slow sources, ± s.e.")
    left.legend(loc="best")
    _draw_criterion(right, result, x)
    return figure


def _draw_criterion(ax: Axes, result: dict[str, Any], x: list[float]) -> None:
    for number, own in enumerate(result["best"]):
        k = own["k"]
        values = [row["criterion"][number]["value"] for row in result["strengths"]]
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(x, values, "o-", ms=3, lw=1.2, color=colour, label=f"k = {k}")
        if k == result["k"]:
            place = x.index(result["strength"])
            label = f"recommended: {result['strength']:g}"
            ax.plot(x[place], values[place], "*", ms=14, color="black", label=label)
    ax.axhline(1, color="black", lw=0.8, ls=":")
    every = [c["value"] for row in result["strengths"] for c in row["criterion"]]
    if max(every) > 10 * min(every):
        ax.set_yscale("log")
    ax.set(
        xlabel="strength",
        ylabel="(F8) over its value at k = 1",
        title="how late the feature is against its noise",
    )
    ax.legend(loc="best", ncols=2)
