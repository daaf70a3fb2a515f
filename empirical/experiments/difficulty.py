"""Which score of difficulty finds the slow examples, and which takes wrong labels for slow.

On planted images, whose slow examples are known: precision and recall of every selection of one
early training, and, with a share of wrong labels, what share of the slow set is mislabelled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from common.checks import whole_number
from common.errors import require
from common.files import write_json
from common.locks import one_writer
from common.plotting import BLUE, GREY, ORANGE, RED, STYLE, canvas, write_figure
from common.seeding import numpy_stream
from empirical.config.selection import SCORES
from empirical.config.settings import MOST_SEEDS, Settings, changed
from empirical.datasets.base import ImageSet
from empirical.datasets.planted import PlantedSet
from empirical.datasets.splits import Split, make_split, open_set
from empirical.runtime import HERE, Machine
from empirical.selection import slow_sets
from empirical.selection.early_training import logits_by_epoch
from empirical.selection.scores import score
from empirical.versions import versions

METHODS = ("cluster", "loss", "misclassified", *SCORES)


@one_writer
def difficulty(
    settings: Settings,
    out: Path,
    seeds: int = 5,
    wrong_labels: float = 0.05,
    machine: Machine = HERE,
) -> dict[str, Any]:
    """Every selection at several seeds, without and with wrong labels; what OUT/difficulty.json is.

    loss and the scores take the true share of slow examples, which only planted images tell.
    Other data sets have no truth: of them only the share of wrong labels is measured, at `theta`.

    Raises:
        ParameterError: a value is out of range.
    """
    whole_number("seeds", seeds, 1)
    require(seeds <= MOST_SEEDS, "seeds", seeds, f"at most {MOST_SEEDS}")
    require(0 <= wrong_labels < 0.5, "wrong_labels", wrong_labels, "in [0, 0.5)")
    data = open_set(settings.data, machine.data, machine.download)
    split = make_split(data, settings.data)
    truth = data.train_slow[split.train] if isinstance(data, PlantedSet) else None
    theta = settings.selection.theta if truth is None else float(truth.mean())
    rows: dict[str, dict[str, list[float]]] = {method: {} for method in METHODS}
    for seed in range(settings.seed, settings.seed + seeds):
        own = changed(settings, seed=seed)
        for name, found in _selections(data, split, own, theta, machine).items():
            kept = rows[name]
            kept.setdefault("share", []).append(float(found.mean()))
            against = {} if truth is None else slow_sets.against_truth(found, truth)
            for what, value in against.items():
                kept.setdefault(what, []).append(value)
        wrong, damaged = _mislabelled(data, split, wrong_labels, seed)
        for name, found in _selections(damaged, split, own, theta, machine).items():
            of_slow = float(wrong[found].mean()) if found.any() else 0.0
            rows[name].setdefault("wrong_in_slow", []).append(of_slow)
            rows[name].setdefault("wrong_found", []).append(float(found[wrong].mean()))
    result = {
        "methods": {
            name: {what: _mean(values) for what, values in kept.items()}
            for name, kept in rows.items()
        },
        "wrong_labels": wrong_labels,
        "theta": theta,
        "seeds": seeds,
        "dataset": settings.data.dataset,
        "settings": settings.record(),
        "versions": versions(),
        "command": f"{settings.command('difficulty', out)} --seeds {seeds} "
        f"--wrong-labels {wrong_labels:g}",
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "difficulty.json", result)
    with rc_context(STYLE):
        write_figure(out / "difficulty.png", draw(result))
    return result


def _selections(
    data: ImageSet, split: Split, settings: Settings, theta: float, machine: Machine
) -> dict[str, np.ndarray]:
    """The slow set of every method, of one early training."""
    epochs = settings.selection.separating_epoch or settings.selection.separating_epochs
    _, logits, _ = logits_by_epoch(data, split, settings, epochs, machine)
    labels = data.train.labels.numpy()[split.train]
    given = (logits[-1], logits[-1], labels, len(data.classes), settings.seed, theta)
    found = {name: slow_sets.slow_by(name, *given) for name in slow_sets.METHODS}
    by_score = {name: score(name, logits, labels) for name in SCORES}
    return found | {name: slow_sets.most_difficult(own, theta) for name, own in by_score.items()}


def _mislabelled(
    data: ImageSet, split: Split, share: float, seed: int
) -> tuple[np.ndarray, ImageSet]:
    """Which training images get another label, bool (n,), and the data set with these labels."""
    rng = numpy_stream("wrong labels", data.name, seed)
    n, classes = len(split.train), len(data.classes)
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.permutation(n)[: round(share * n)]] = True
    labels = data.train.labels.clone()
    rows = torch.from_numpy(split.train[chosen])
    labels[rows] = (labels[rows] + torch.from_numpy(rng.integers(1, classes, len(rows)))) % classes
    return chosen, replace(data, train=replace(data.train, labels=labels))


def _mean(values: list[float]) -> dict[str, Any]:
    own = np.array(values)
    error = float(own.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else None
    return {"mean": float(own.mean()), "standard_error": error}


def draw(result: dict[str, Any]) -> Figure:
    """Precision and recall of each method; the share of its slow set that is mislabelled."""
    methods = result["methods"]
    known = "precision" in methods["cluster"]
    size = (9.2, 3.2) if known else (5.2, 3.2)
    figure, axes = canvas(*size, ncols=2 if known else 1, squeeze=False, sharey=True)
    heights = range(len(methods))
    if known:
        left = axes[0, 0]
        for name, colour in (("precision", BLUE), ("recall", ORANGE)):
            _points(left, methods, name, colour, 1.0)
        left.set(xlabel="share", title="Against the true slow examples")
        left.legend(loc="center left")
    right = axes[0, -1]
    _points(right, methods, "wrong_in_slow", RED, 100.0, "of the slow set is mislabelled")
    right.axvline(100 * result["wrong_labels"], color=GREY, lw=0.9, ls="--", label="of all images")
    right.set(xlabel="%", title="Wrong labels", xlim=(0, None))
    right.legend(loc="center")
    axes[0, 0].set_yticks(list(heights), list(methods))
    axes[0, 0].invert_yaxis()
    return figure


def _points(ax: Any, methods: Any, name: str, colour: str, unit: float, label: str = "") -> None:
    for height, own in enumerate(methods.values()):
        found = own[name]
        error = unit * (found["standard_error"] or 0.0)
        said = (label or name) if height == 0 else None
        x = unit * found["mean"]
        ax.errorbar(x, height, xerr=error, fmt="o", color=colour, label=said, ms=4)
