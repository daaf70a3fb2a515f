"""The default experiment: every arm, both optimizers, both budgets, over splits and seeds.

One generator, trained on the pool, serves all splits. In the control a split's generator is
trained on that split's training images alone (SGD only): what the pool's knowledge is worth.
Every (generator, split, arm, optimizer, budget) is one cell, with all seeds trained together;
each is one small file, so a killed comparison resumes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import require
from common.files import digest, finite, read_json, write_json
from common.locks import one_writer
from common.parallel import check_jobs, run_all
from common.progress import progress
from common.run_folder import open_folder
from common.stats import LEVEL, RULE, clustered, verdict
from empirical.config.arms import ARMS, SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.datasets.base import ImageSet, take
from empirical.datasets.splits import Split, make_split, n_splits, open_set
from empirical.experiments.settings import Comparison
from empirical.generation.base import Backend
from empirical.pipeline import arms
from empirical.pipeline.algorithm import arm_pairs, final_job, find_slow_together
from empirical.pipeline.memory import check_seeds
from empirical.pipeline.synthesis import load_backend, seen_by, stored_images, trained_here
from empirical.runtime import Machine
from empirical.training.batched import train_together
from empirical.training.evaluate import evaluate
from empirical.versions import versions

ORDERINGS = (
    ("tada", "<", "upsample"),
    ("tada", "<", "original"),
    ("tada", "<=", "syn-rand"),
    ("tada", "<=", "syn-all"),
)
"""The paper's orderings of test errors; the last one at equal steps."""


CPU = Machine(cpu=True)
"""Many small networks are trained in one-thread processes."""


def opened(settings: Settings) -> tuple[ImageSet, Split]:
    """The images of a cell, and how they are cut."""
    data = open_set(settings.data, CPU.data)
    return data, make_split(data, settings.data)


def generator_folder(out: Path, settings: Settings) -> Path:
    name = (
        "pool" if settings.generation.generator_data == "pool" else f"train-{settings.data.split}"
    )
    return out / "generators" / name


def cell_file(out: Path, settings: Settings) -> Path:
    name = (
        f"{settings.generation.generator_data}-{settings.data.split}-{settings.arm}"
        f"-{settings.training.optimizer}-{settings.budget}.json"
    )
    return out / "cells" / name


def store_folder(out: Path, settings: Settings, seed: int) -> Path:
    return out / "synthetic" / f"{settings.generation.generator_data}-{settings.data.split}-{seed}"


def make_generator(settings: Settings, out: Path) -> Backend:
    """Train the generator of a cell, or load it."""
    data, parts = opened(settings)
    folder = generator_folder(out, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    trained_here(data, parts, settings, folder, name=f"generator ({folder.name})")
    return load_backend(data, parts, settings, folder, CPU)


def read_cell(out: Path, settings: Settings, seeds: int) -> list[dict[str, Any]] | None:
    """The results of a finished cell, one for each seed; None if it is not finished."""
    path = cell_file(out, settings)
    if not path.exists():
        return None
    found = read_json(path, "cell", ("fingerprint", "results"))
    require(
        found["fingerprint"] == digest(settings.record()) and len(found["results"]) == seeds,
        "cell",
        path,
        "a cell of these settings; remove it to run it again",
    )
    return found["results"]


def needed(cells: Sequence[Settings], parts: Split, slow: np.ndarray, seed: int) -> list[arms.Pair]:
    """The synthetic images that any of the cells needs for one seed: they share them."""
    every = {pair for cell in cells for pair in arm_pairs(parts, replace(cell, seed=seed), slow)}
    return arms.synthetic(sorted(every))


def run_split(comparison: Comparison, generator_data: str, split: int, out: Path) -> None:
    """Run the cells of one split that are not finished, every seed in one batched program."""
    seeds = range(comparison.seeds)
    cells = [
        cell
        for cell in comparison.cells(generator_data, split)
        if read_cell(out, cell, comparison.seeds) is None
    ]
    if not cells:
        return
    any_cell = cells[0]
    data, parts = opened(any_cell)
    slow = find_slow_together(data, parts, [replace(any_cell, seed=seed) for seed in seeds])
    test = take(data.test, parts.test)
    generator = make_generator(any_cell, out)
    seen = seen_by(any_cell, generator_folder(out, any_cell))
    synthetic = []
    for seed in seeds:
        pairs = needed(comparison.cells(generator_data, split), parts, slow[seed].train, seed)
        folder = store_folder(out, any_cell, seed)
        synthetic.append(
            stored_images(data.train, pairs, any_cell, generator, seed, folder, seen=seen)
        )
    with progress(f"{generator_data} generator, split {split}: cells", len(cells)) as advance:
        for cell in cells:
            start = time.monotonic()
            own = [replace(cell, seed=seed) for seed in seeds]
            pairs = [arm_pairs(parts, own[seed], slow[seed].train) for seed in seeds]
            jobs = [
                final_job(data, parts, own[seed], pairs[seed], synthetic[seed]) for seed in seeds
            ]
            results = []
            for seed, trained in zip(seeds, train_together(jobs), strict=True):
                groups = torch.from_numpy(slow[seed].test)
                found = evaluate(trained.network, test, data.mean, data.std, groups)
                results.append(
                    {
                        "seed": seed,
                        "test_error": found["error"],
                        "test_error_slow": found["error_slow"],
                        "test_error_fast": found["error_fast"],
                        "slow_fraction": float(slow[seed].train.mean()),
                        "n_synthetic": len(arms.synthetic(pairs[seed])),
                        "steps": trained.steps,
                    }
                )
            path = cell_file(out, cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            about = {
                "fingerprint": digest(cell.record()),
                "results": results,
                "seconds": round(time.monotonic() - start, 2),
            }
            write_json(path, about)
            advance()


def _make_generators(settings: Sequence[Settings], out: Path) -> None:
    for one in settings:
        make_generator(one, out)


def check(comparison: Comparison, jobs: int | None) -> None:
    """Raise ParameterError for counts that do not fit the data, or jobs that do not fit here."""
    check_jobs(jobs)
    check_seeds("empirical compare", comparison.settings("pool"), comparison.seeds)
    data, _ = opened(comparison.settings("pool"))
    most = n_splits(comparison.dataset, len(data.train.labels), comparison.n_train)
    require(
        comparison.splits <= most,
        "splits",
        comparison.splits,
        f"at most {most} with n_train = {comparison.n_train}",
    )


@one_writer
def compare(comparison: Comparison, out: Path, jobs: int = 2) -> dict[str, Any]:
    """Run what is missing of the comparison; returns what is in out/results.json.

    Raises:
        ParameterError: a count does not fit the data, `out` belongs to another comparison, or a
            file in it is damaged.
    """
    check(comparison, jobs)
    out = Path(out)
    open_folder(out, asdict(comparison), ("cells", "generators", "synthetic", "results.json"))
    written = out / "results.json"
    spent = read_json(written, "results", ("seconds",))["seconds"] if written.exists() else 0.0
    start = time.monotonic()
    pool = comparison.settings("pool")
    control = [
        comparison.settings("train", split=split) for split in range(comparison.control_splits)
    ]
    # The pool's generator takes about as long as all of the control's: one process each.
    generators = [[pool], control] if control else [[pool]]
    run_all("generators", [(_make_generators, (some, out)) for some in generators], jobs)
    work = [("pool", split) for split in range(comparison.splits)]
    work += [("train", split) for split in range(comparison.control_splits)]
    run_all("splits", [(run_split, (comparison, *which, out)) for which in work], jobs)
    results = collect(comparison, out, work)
    results["seconds"] = round(spent + time.monotonic() - start, 1)
    write_json(out / "results.json", results)
    return results


def collect(comparison: Comparison, out: Path, work: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Gather the finished cells: every error, the means, and the paper's orderings."""
    cells = []
    for generator, split in work:
        for cell in comparison.cells(generator, split):
            for result in read_cell(out, cell, comparison.seeds) or []:
                where = {"generator": generator, "split": split, "arm": cell.arm}
                cells.append(
                    where | {"optimizer": cell.training.optimizer, "budget": cell.budget} | result
                )
    return {
        "settings": asdict(comparison),
        "command": comparison.command(out),
        "versions": versions(),
        "rule": RULE,
        "level": LEVEL,
        "summary": _summary(cells),
        "orderings": _orderings(cells),
        "cells": cells,
    }


def errors(
    cells: Sequence[dict[str, Any]],
    generator: str,
    arm: str,
    optimizer: str,
    budget: str,
    splits: int | None = None,
    key: str = "test_error",
) -> np.ndarray:
    """The errors (splits, seeds) of an arm; for arms without a generator, of either generator.

    original is the same at both budgets. splits: only the first so many.
    """
    if arm not in SYNTHETIC_ARMS:
        generator = "pool"
    if arm == "original":
        budget = "epochs"
    found: dict[int, dict[int, float]] = {}
    for cell in cells:
        what = (cell["generator"], cell["arm"], cell["optimizer"], cell["budget"])
        if what == (generator, arm, optimizer, budget):
            found.setdefault(cell["split"], {})[cell["seed"]] = cell[key]
    return np.array(
        [[by_seed[seed] for seed in sorted(by_seed)] for _, by_seed in sorted(found.items())]
    )[:splits]


def _conditions(cells: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(generator, optimizer, budget) that were run with synthetic images, in order."""
    return list(
        dict.fromkeys(
            (cell["generator"], cell["optimizer"], cell["budget"])
            for cell in cells
            if cell["arm"] in SYNTHETIC_ARMS
        )
    )


def _summary(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for generator, optimizer, budget in _conditions(cells):
        splits = len(errors(cells, generator, "tada", optimizer, budget))
        for arm in ARMS:
            where = (generator, arm, optimizer, budget, splits)
            row: dict[str, Any] = dict(
                zip(("generator", "arm", "optimizer", "budget", "splits"), where, strict=True)
            )
            for key in ("test_error", "test_error_slow", "test_error_fast"):
                estimate = clustered(errors(cells, *where, key=key))
                row[key] = estimate.mean
                row[f"{key}_standard_error"] = finite(estimate.standard_error)
            rows.append(row)
    return rows


def _orderings(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for generator, optimizer, budget in _conditions(cells):
        for arm, relation, other in ORDERINGS:
            own = errors(cells, generator, arm, optimizer, budget)
            others = errors(cells, generator, other, optimizer, budget, len(own))
            estimate = clustered(own - others)
            rows.append(
                {
                    "ordering": f"{arm} {relation} {other}",
                    "generator": generator,
                    "optimizer": optimizer,
                    "budget": budget,
                    "difference": estimate.mean,
                    "standard_error": finite(estimate.standard_error),
                    "low": finite(estimate.low),
                    "high": finite(estimate.high),
                    "splits": estimate.splits,
                    "seeds": own.shape[1],
                    "verdict": verdict(estimate),
                }
            )
    return rows
