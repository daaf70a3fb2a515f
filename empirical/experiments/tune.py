"""The defaults, chosen on the validation images; test images are not scored here.

In turn: learning rate and epochs for SGD, learning rate and rho for SAM (Original's error), then
strength and guidance (TADA's error, both optimizers). The lowest mean error over splits and seeds
is chosen, the first of the grid where two are equal. Strength comes last, with the others' choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.divergence import DivergenceError
from common.errors import require
from common.files import digest, read_json, write_json
from common.locks import one_writer
from common.parallel import check_jobs, run_all
from common.run_folder import open_folder
from empirical.config.arms import SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.config.training import OPTIMIZERS
from empirical.datasets.base import take
from empirical.datasets.splits import n_splits
from empirical.experiments.compare import make_generator, opened
from empirical.experiments.settings import Tuning
from empirical.generation.base import Originals
from empirical.generation.variants import generate
from empirical.pipeline import arms
from empirical.pipeline.algorithm import arm_pairs, final_job, find_slow_together
from empirical.pipeline.arms import Pair
from empirical.pipeline.memory import check_seeds
from empirical.pipeline.synthesis import variants
from empirical.training.batched import train_together
from empirical.training.evaluate import evaluate
from empirical.versions import versions

# The smallest strength is near a copy. 1 is left out: it would start from pure noise, and so not be
# guided by the real image. More epochs would not fit the comparison into a few minutes.
LRS = (0.01, 0.02, 0.05, 0.1)
EPOCHS = (30, 60)
RHOS = (0.05, 0.1, 0.2, 0.4)
STRENGTHS = (0.3, 0.5, 0.7, 0.9)
GUIDANCES = (1.0, 2.0)

Point = dict[str, Any]


def validation_errors(settings: Settings, seeds: int, out: Path) -> None:
    """Score one point of a grid on one split: a file of validation errors, one for each seed.

    A point whose training diverges has everything wrong.
    """
    path = _file(out, settings)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        found: Point = {"errors": _errors(settings, seeds, out)}
    except DivergenceError as error:
        found = {"errors": [1.0] * seeds, "diverged": str(error)}
    write_json(path, found)


def _errors(settings: Settings, seeds: int, out: Path) -> list[float]:
    """Validation errors of a point on one split, one for each seed. Raises DivergenceError."""
    data, parts = opened(settings)
    images, several = data.train, range(seeds)
    each = [replace(settings, seed=seed) for seed in several]
    slow = find_slow_together(data, parts, each)
    pairs = [arm_pairs(parts, each[seed], slow[seed].train) for seed in several]
    synthetic: list[dict[Pair, Tensor]] = [{} for _ in several]
    if settings.arm in SYNTHETIC_ARMS:
        generator = make_generator(settings, out)
        for seed in several:
            made = arms.synthetic(pairs[seed])
            sources = torch.tensor(sorted({source for source, _ in made}))
            originals = Originals(images.pixels[sources], images.labels[sources], sources)
            copies = generate(generator, originals, variants(settings, made), seed)
            synthetic[seed] = dict(zip(made, copies.flatten(0, 1), strict=True))
    jobs = [final_job(data, parts, each[seed], pairs[seed], synthetic[seed]) for seed in several]
    scored = take(images, parts.validation)
    return [
        evaluate(trained.network, scored, data.mean, data.std)["error"]
        for trained in train_together(jobs)
    ]


def _file(out: Path, settings: Settings) -> Path:
    return out / "points" / f"{digest(settings.record())}.json"


@one_writer
def tune(tuning: Tuning, out: Path, jobs: int = 2) -> dict[str, Any]:
    """Run what is missing of the grids; returns what is in out/tune.json.

    Raises:
        ParameterError: the splits do not fit the data, or `out` belongs to another tuning.
    """
    check_jobs(jobs)
    check_seeds("empirical tune", tuning.settings(), tuning.seeds)
    out = Path(out)
    data, _ = opened(tuning.settings(split=tuning.first_split))
    most = n_splits(tuning.dataset, len(data.train.labels), tuning.n_train) - tuning.first_split
    require(
        tuning.splits <= most,
        "splits",
        tuning.splits,
        f"at most {most} with first_split = {tuning.first_split} and n_train = {tuning.n_train}",
    )
    open_folder(out, asdict(tuning), ("points", "generators", "tune.json"))

    def search(what: str, points: Sequence[Point]) -> list[Point]:
        """The points with their mean validation error, over `optimizers` where there are two."""
        cells = {
            (number, split, optimizer): tuning.settings(
                split=split,
                **{key: value for key, value in point.items() if key != "optimizers"}
                | {"optimizer": optimizer}
                | own_lr(point, optimizer),
            )
            for number, point in enumerate(points)
            for split in range(tuning.first_split, tuning.first_split + tuning.splits)
            for optimizer in point["optimizers"]
        }
        tasks = [(validation_errors, (cell, tuning.seeds, out)) for cell in cells.values()]
        run_all(what, tasks, jobs)
        scored = []
        for number, point in enumerate(points):
            own = [
                read_json(_file(out, cell), "point", ("errors",))["errors"]
                for key, cell in cells.items()
                if key[0] == number
            ]
            scored.append(point | {"validation_error": float(np.mean(own))})
        return scored

    def own_lr(point: Point, optimizer: str) -> Point:
        return {} if "lr" in point else {"lr": chosen[f"lr_{optimizer}"]}

    chosen: Point = {}
    grids: dict[str, list[Point]] = {}

    def choose(what: str, points: Sequence[Point], names: dict[str, str]) -> None:
        grids[what] = search(what, points)
        best = min(grids[what], key=lambda point: point["validation_error"])
        chosen.update({name: best[key] for key, name in names.items()})

    original = {"arm": "original", "optimizers": ["sgd"]}
    choose(
        "sgd: lr, epochs",
        [original | {"lr": lr, "epochs": e} for lr, e in itertools.product(LRS, EPOCHS)],
        {"lr": "lr_sgd", "epochs": "epochs"},
    )
    original |= {"optimizers": ["sam"], "epochs": chosen["epochs"]}
    choose(
        "sam: lr, rho",
        [original | {"lr": lr, "rho": rho} for lr, rho in itertools.product(LRS, RHOS)],
        {"lr": "lr_sam", "rho": "rho"},
    )
    tada = {
        "arm": "tada",
        "optimizers": list(OPTIMIZERS),
        "epochs": chosen["epochs"],
        "rho": chosen["rho"],
        "separating_lr": chosen["lr_sgd"],
    }
    run_all("generator", [(_make_generator, (tuning.settings(), out))], jobs)
    choose(
        "tada: strength, guidance",
        [
            tada | {"strength": strength, "guidance": guidance}
            for strength, guidance in itertools.product(STRENGTHS, GUIDANCES)
        ],
        {"strength": "strength", "guidance": "guidance"},
    )
    result = {
        "settings": asdict(tuning),
        "command": tuning.command(out),
        "versions": versions(),
        "rule": "lowest mean validation error over splits and seeds; the first where equal",
        "chosen": chosen,
        "grids": grids,
    }
    write_json(out / "tune.json", result)
    return result


def _make_generator(settings: Settings, out: Path) -> None:
    make_generator(settings, out)
