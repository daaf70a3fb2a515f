"""The commands of the experiments on digits, and `bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from common.cli import benchmark
from empirical.commands.start import NO_START, Flat, Start
from empirical.config.study import STUDY, Study
from empirical.experiments.settings import Comparison, Tuning
from empirical.runtime import HERE, Machine


def compare(comparison: Comparison, out: Path, jobs: int = 2) -> None:
    """The default experiment: all arms, both optimizers, both budgets, over splits and seeds.

    Writes OUT/results.json: every error, their means, and for each of the paper's orderings the
    paired difference with its standard error and a verdict.

    For example: python -m empirical compare --out runs/compare

    or in a minute: python -m empirical compare --splits 2 --seeds 2 --control-splits 0
    --generator-steps 300 --out runs/quick
    """
    from empirical.experiments.compare import compare
    from empirical.report.tables import show_comparison

    show_comparison(compare(comparison, out, jobs))
    print(out / "results.json")


def compare_arms(
    settings: Flat,
    *,
    out: Path,
    study: Annotated[Study, tyro.conf.arg(name="")] = STUDY,
    machine: Machine = HERE,
    start: Start = NO_START,
    dry_run: bool = False,
) -> None:
    """Does targeted augmentation help on these images? Arms compared over seeds, with a verdict.

    Trains every arm with the same slow examples and images, at equal epochs and at equal optimizer
    steps, and writes OUT/report.html, OUT/results.json and OUT/slow.csv (every training image:
    file, class, loss, cluster, slow or fast). The same command resumes. --dry-run makes every
    check and says how long it would take.

    For example: python -m empirical compare --dataset folder:photos --time-budget 20m --out
    runs/photos

    or with a model from the hub: python -m empirical compare --dataset folder:photos --generator
    hub:stabilityai/sd-turbo --arms original upsample tada syn-rand syn-all --out runs/photos

    Without --dataset, or for digits, `compare` is another experiment: many splits of digits.
    """
    from empirical.experiments import study as studies
    from empirical.experiments.timing import clock

    if dry_run:
        plan, _, _ = studies.prepare(settings, study, out, machine)
        print(f"about {clock(plan.total)}: {studies.in_words(plan, study)}")
        return
    results = studies.compare_arms(settings, study, out, machine)
    for line in results["warnings"]:
        print(f"warning: {line}")
    print(results["verdict"])
    print(out / "report.html")


def tune(tuning: Tuning, out: Path, jobs: int = 2) -> None:
    """Choose learning rates, epochs, rho, strength and guidance on validation images alone.

    Writes OUT/tune.json. Its choice is the default of the other commands.

    For example: python -m empirical tune --out runs/tune
    """
    from empirical.experiments.tune import tune

    for name, value in tune(tuning, out, jobs)["chosen"].items():
        print(f"{name}: {value}")
    print(out / "tune.json")


def reproduce(comparison: Comparison, out: Path, jobs: int | None = None) -> None:
    """Everything at laptop scale: the theory's claims, the comparison, and one report.

    Writes OUT/report.html and OUT/results.json; exit code 1 if a claim of the theory fails.

    For example: python -m empirical reproduce --out results/reproduce
    """
    from empirical.experiments.reproduce import all_claims_pass, reproduce
    from empirical.report.tables import show_comparison

    results = reproduce(out, comparison, jobs=jobs)
    show_comparison(results["empirical"])
    print(f"open {out / 'report.html'}; the numbers: {out / 'results.json'}")
    if not all_claims_pass(results):
        sys.exit(1)


def bench(out: Path | None = None, cpu: bool = False, small: bool = False) -> None:
    """Measure speed as ratios: engine, SAM, augmentation, selection. About three minutes.

    The machine should do nothing else. --small only shows that it works.

    For example: python -m empirical bench --out results/bench-empirical.json
    """
    from common.files import check_writable, write_json

    if out is not None:
        check_writable(out)
    speed = benchmark("images")
    record = speed.bench(small, cpu)
    Console().print(speed.table(record))
    if out is not None:
        write_json(out, record)
