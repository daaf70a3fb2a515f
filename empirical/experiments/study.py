"""Does it help on these images? Arms compared on any data set, into one folder with a report.

OUT/runs/seed-S/ARM-BUDGET is a run of `pipeline.run`; those of a seed share their slow examples and
OUT/synthetic/seed-S, all share OUT/generator. A killed comparison resumes, and ends with the same
numbers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import ParameterError, require
from common.files import read_json, write_json
from common.locks import one_writer
from common.progress import say
from common.run_folder import open_folder
from common.tensors import read_tensors
from common.threads import one_thread
from empirical.config.arms import ARMS, SYNTHETIC_ARMS
from empirical.config.settings import Settings, changed, from_record
from empirical.config.study import REFERENCE, Study
from empirical.datasets.base import ImageSet, take
from empirical.datasets.splits import Split, make_split, open_set
from empirical.diagnosis.classifier import DEFAULT
from empirical.diagnosis.stores import diagnose_store
from empirical.experiments import notices, timing, verdicts
from empirical.experiments.timing import Plan
from empirical.experiments.verdicts import Difference
from empirical.pipeline import run
from empirical.pipeline.finished import NETWORK
from empirical.pipeline.synthesis import trained_here
from empirical.report.comparison import COLUMNS, Shown, write_comparison
from empirical.runtime import HERE, Machine
from empirical.training import networks
from empirical.training.evaluate import outputs
from empirical.versions import versions

JUDGED = 500
"""Slow images whose synthetic ones are judged, at most."""
RESULTS, PLAN, DIAGNOSIS, SLOW = "results.json", "plan.json", "diagnosis.json", "slow.csv"


def prepare(
    settings: Settings, study: Study, out: Path, machine: Machine = HERE
) -> tuple[Plan, ImageSet, Split]:
    """Every check that the comparison makes before its first long step, and its plan.

    A plan that OUT has is taken from there, so that a resumed comparison does the same.

    Raises:
        ParameterError: a setting does not fit the data, or a generator does not work; or nothing
            fits the time budget.
    """
    require(machine.synthetic is None, "synthetic", machine.synthetic, "not given: OUT has its own")
    data = open_set(settings.data, machine.data, machine.download)
    split = make_split(data, settings.data)
    settings = changed(
        settings, batch_size=min(settings.training.batch_size, max(2, len(split.train)))
    )
    for arm in (REFERENCE, "tada"):  # the others need nothing more; a generator is tried once
        run.check(replace(settings, arm=arm), out / "check", machine)
    path = out / PLAN
    if path.exists():
        found = read_json(path, "plan", ("settings", "seeds", "budgets", "seconds", "dropped"))
        own = from_record(found["settings"], path)
        kept = (found["seeds"], tuple(found["budgets"]), found["seconds"], tuple(found["dropped"]))
        return Plan(own, *kept), data, split
    speed = timing.measure(settings, data, split, machine)
    asked = (settings, study.arms, study.seeds, study.budgets, len(split.train), speed)
    return timing.fit(*asked, study.seconds), data, split


@one_writer
def compare_arms(
    settings: Settings, study: Study, out: Path, machine: Machine = HERE
) -> dict[str, Any]:
    """Run what is missing; returns what OUT/results.json holds.

    Raises:
        ParameterError: as `prepare`; `out` belongs to another comparison; a file is damaged.
    """
    start = time.monotonic()
    plan, data, split = prepare(settings, study, out, machine)
    asked = settings.record()
    asked |= {name: _plain(value) for name, value in asdict(study).items()}
    open_folder(out, asked, ("runs", "generator", "synthetic", RESULTS))
    write_json(out / PLAN, plan.record())
    say(f"about {timing.clock(plan.total)}: " + in_words(plan, study))
    said = notices.of_data(data, split)
    for line in said:
        say(f"warning: {line}")
    base = _with_generator(plan.settings, study, data, split, out, machine)
    found = _runs(base, plan, study, out, machine)
    first = out / "runs" / f"seed-{settings.seed}"
    shutil.copyfile(first / f"{REFERENCE}-epochs" / "slow.csv", out / SLOW)
    wrong = _answers(base, plan, study, data, split, out)
    shown = _shown(base, data, split, out, machine)
    overall = _diagnosis(out, settings.seed, machine)
    results = _collect(plan, study, found, wrong, overall, data, split, said)
    results |= {
        "dataset": settings.data.dataset,
        "asked": asked,
        "plan": plan.record(),
        "classes": list(data.classes),
        "seconds": {"whole": round(time.monotonic() - start, 1), **_spent(found)},
        "versions": versions(),
        "command": command(settings, study, out),
    }
    write_json(out / RESULTS, results)
    write_comparison(results, shown, out)
    return results


def in_words(plan: Plan, study: Study) -> str:
    """What is going to be done, and what was dropped for the time."""
    own = plan.settings
    said = (
        f"{', '.join(study.arms)}, {plan.seeds} seeds, {own.training.epochs} epochs, at equal "
        f"{' and '.join(plan.budgets)}"
    )
    parts = ", ".join(f"{name} {timing.clock(took)}" for name, took in plan.seconds.items() if took)
    return "; ".join([f"{said} ({parts})", *plan.dropped])


def command(settings: Settings, study: Study, out: Path) -> str:
    """The command line of this comparison."""
    own = settings.command("compare", out).replace(f" --arm {settings.arm}", "")
    words = [f"--arms {' '.join(study.arms)}", f"--seeds {study.seeds}"]
    words.append(f"--budgets {' '.join(study.budgets)}")
    words += [f"--time-budget {study.time_budget}"] if study.time_budget else []
    return f"{own} {' '.join(words)}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _with_generator(
    settings: Settings, study: Study, data: ImageSet, split: Split, out: Path, machine: Machine
) -> Settings:
    """The settings with a generator that is trained once, for all seeds."""
    if settings.generation.generator != "pixel" or not set(study.arms) & set(SYNTHETIC_ARMS):
        return settings
    folder = out / "generator"
    out.mkdir(parents=True, exist_ok=True)
    trained_here(data, split, settings, folder, machine.device)
    return changed(settings, generator=f"pixel:{folder}")


def cells(study: Study, budgets: Sequence[str]) -> list[tuple[str, str]]:
    """(arm, budget), original first; it is the same at both budgets, and is run once."""
    arms = sorted(study.arms, key=ARMS.index)
    return [
        (arm, budget)
        for arm in arms
        for budget in budgets
        if arm != REFERENCE or budget == budgets[0]
    ]


def _runs(
    base: Settings, plan: Plan, study: Study, out: Path, machine: Machine
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The result of every cell for every seed."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(base.seed, base.seed + plan.seeds):
        folder = out / "runs" / f"seed-{seed}"
        here = replace(machine, synthetic=out / "synthetic" / f"seed-{seed}")
        first: Path | None = None
        for arm, budget in cells(study, plan.budgets):
            own = changed(base, arm=arm, budget=_budget(arm, budget), seed=seed)
            place = folder / f"{arm}-{_budget(arm, budget)}"
            if first is None:
                run.select(own, place, here)
                first = place
            else:
                run.share_selection(first, place, own)
            say(f"seed {seed}, {arm} at equal {budget}")
            found.setdefault((arm, budget), []).append(run.run(own, place, here))
    return found


def _budget(arm: str, budget: str) -> str:
    return "epochs" if arm == REFERENCE else budget


def _answers(
    base: Settings, plan: Plan, study: Study, data: ImageSet, split: Split, out: Path
) -> dict[tuple[str, str], np.ndarray]:
    """Which test images every cell has wrong, bool (seeds, images)."""
    test = take(data.test, split.test)
    labels = test.labels.numpy()
    wrong: dict[tuple[str, str], list[np.ndarray]] = {}
    with one_thread():
        for seed in range(base.seed, base.seed + plan.seeds):
            for arm, budget in cells(study, plan.budgets):
                place = out / "runs" / f"seed-{seed}" / f"{arm}-{_budget(arm, budget)}"
                network = load_network(place / NETWORK, base, data)
                logits = outputs(network, test.pixels, data.mean, data.std).numpy()
                wrong.setdefault((arm, budget), []).append(logits.argmax(1) != labels)
    return {cell: np.stack(own) for cell, own in wrong.items()}


def _shown(base: Settings, data: ImageSet, split: Split, out: Path, machine: Machine) -> Shown:
    """The first seed's images for the report: fast ones, and slow ones with what was made of them,
    by how sure the network without augmentation is of the label."""
    folder = out / "runs" / f"seed-{base.seed}"
    here = replace(machine, synthetic=out / "synthetic" / f"seed-{base.seed}")
    place = min(folder.glob("tada-*"))
    own = changed(base, arm="tada", budget=place.name.removeprefix("tada-"))
    made = run.generate(own, place, here)
    slow = set(read_json(place / "selection.json", "selection", ("slow",))["slow"])
    pairs = [pair for pair in made if pair[1] == 1]
    pixels = torch.stack([made[pair] for pair in pairs])
    network = load_network(folder / f"{REFERENCE}-epochs" / NETWORK, base, data)
    with one_thread():
        logits = outputs(network, pixels, data.mean, data.std)
    sources = torch.tensor([source for source, _ in pairs])
    labels = data.train.labels[sources]
    fast = [row for row in split.train.tolist() if row not in slow][: 4 * COLUMNS]
    return Shown(
        fast=data.train.pixels[torch.tensor(fast, dtype=torch.int64)],
        sources=data.train.pixels[sources],
        synthetic=pixels,
        classes=tuple(data.classes[int(label)] for label in labels),
        confidence=logits.softmax(1)[torch.arange(len(pairs)), labels].numpy(),
    )


def load_network(path: Path, settings: Settings, data: ImageSet) -> torch.nn.Module:
    """A trained network of a run. Raises ParameterError for a damaged file, or another network."""
    network = networks.make(settings.network, data.channels, data.side, len(data.classes))
    weights, _ = read_tensors(path, "network", network.state_dict())
    network.load_state_dict(weights)
    return network


def _diagnosis(out: Path, seed: int, machine: Machine) -> dict[str, Any] | None:
    """How faithful the first seed's synthetic images are; None where it cannot be said."""
    path, store = out / DIAGNOSIS, out / "synthetic" / f"seed-{seed}"
    if path.exists():
        return read_json(path, "diagnosis", ("overall",))
    recipe = replace(DEFAULT, epochs=timing.JUDGE_EPOCHS)
    try:
        given = {"recipe": recipe, "at_most": JUDGED, "machine": machine}
        found = diagnose_store(store, machine.data, **given)
    except ParameterError as error:  # too few images to judge by
        say(f"how faithful the images are is not known: {error}")
        return None
    write_json(path, found)
    return found


def _collect(
    plan: Plan,
    study: Study,
    found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    wrong: Mapping[tuple[str, str], np.ndarray],
    diagnosis: Mapping[str, Any] | None,
    data: ImageSet,
    split: Split,
    said: Sequence[str],
) -> dict[str, Any]:
    """The table, the differences, the verdict and the warnings."""
    budgets = plan.budgets
    rows = [_row(arm, budget, found[arm, budget]) for arm, budget in cells(study, budgets)]
    differences: list[dict[str, Any]] = []
    own: dict[str, Difference] = {}
    for budget in budgets:
        reference = wrong[REFERENCE, budgets[0]]
        for other in [arm for arm in study.arms if arm != "tada"]:
            against = reference if other == REFERENCE else wrong[other, budget]
            one = verdicts.difference(wrong["tada", budget], against)
            name = "no augmentation" if other == REFERENCE else other
            told = {"budget": budget, "other": other}
            told["sentence"] = verdicts.sentence(one, "TADA", name)
            differences.append(told | asdict(one))
            if other == REFERENCE:
                own[budget] = one
    overall = None if diagnosis is None else diagnosis["overall"]
    unusable = notices.of_images(overall)
    results = [run for runs in found.values() for run in runs]
    share = float(np.mean([run["slow_fraction"] for run in results]))
    labels = data.test.labels.numpy()[split.test]
    notes = list(dict.fromkeys(note for run in results for note in run["notes"]))
    by_arm = {arm: wrong[arm, budget] for arm, budget in reversed(cells(study, budgets))}
    chance = notices.of_networks(by_arm, labels)
    verdict = verdicts.verdict(own, unusable)
    if chance:
        verdict = f"no answer: {chance[0]}"
    return {
        "verdict": verdict,
        "warnings": [
            *said,
            *chance,
            *notices.of_selection(share, notes),
            *unusable,
            *notices.of_difference(own[budgets[0]]),
        ],
        "table": rows,
        "differences": differences,
        "slow_fraction": share,
        "n_train": len(split.train),
        "n_test": len(split.test),
        "diagnosis": overall,
        "history": {
            f"{arm}-{budget}": [epoch["error"] for epoch in runs[0]["history"]]
            for (arm, budget), runs in found.items()
        },
    }


def _row(arm: str, budget: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One line of the table: mean errors over seeds, with their standard errors."""
    row: dict[str, Any] = {"arm": arm, "budget": "both" if arm == REFERENCE else budget}
    for name in ("test_error", "test_error_slow", "test_error_fast"):
        values = [own[name] for own in runs if own[name] is not None]
        error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
        row[name] = float(np.mean(values)) if values else None
        row[f"{name}_standard_error"] = error
    row["n_training"] = int(np.mean([own["n_training"] for own in runs]))
    row["n_synthetic"] = int(np.mean([own["n_synthetic"] for own in runs]))
    row["steps"] = runs[0]["steps"]
    return row


def _spent(found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Seconds of every stage, over all runs."""
    total: dict[str, float] = {}
    for runs in found.values():
        for own in runs:
            for stage, took in own["seconds"].items():
                total[stage] = round(total.get(stage, 0.0) + took, 1)
    return total
