"""The choice of the defaults: on validation images alone, and the defaults are what it chose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from empirical.config.presets import DIGITS
from empirical.config.settings import Settings, changed
from empirical.datasets.base import ImageSet
from empirical.datasets.digits import whole
from empirical.datasets.splits import Split, make_split
from empirical.experiments import tune as module
from empirical.experiments.settings import Comparison, Tuning
from empirical.experiments.tune import tune

CHOSEN = Path(__file__).parents[3] / "results" / "digits" / "tune.json"


def test_defaults_are_what_was_chosen() -> None:
    chosen = json.loads(CHOSEN.read_text(encoding="utf-8"))["chosen"]
    sgd, sam, comparison = (
        changed(DIGITS, optimizer="sgd"),
        changed(DIGITS, optimizer="sam"),
        Comparison(),
    )
    assert chosen == {
        "lr_sgd": sgd.training.base_lr,
        "epochs": sgd.training.epochs,
        "lr_sam": sam.training.base_lr,
        "rho": sam.training.rho,
        "strength": sgd.generation.strength,
        "guidance": sgd.generation.guidance,
    }
    assert sgd.selection.separating_lr == chosen["lr_sgd"]
    assert (comparison.epochs, comparison.strength, comparison.guidance) == (
        *(chosen["epochs"], chosen["strength"], chosen["guidance"]),
    )


def test_it_was_chosen_from_the_stated_grids_on_other_splits() -> None:
    record = json.loads(CHOSEN.read_text(encoding="utf-8"))
    assert record["settings"]["first_split"] >= Comparison().splits
    assert record["command"].startswith("python -m empirical tune")
    grid = record["grids"]["tada: strength, guidance"]
    assert [(point["strength"], point["guidance"]) for point in grid] == [
        (strength, guidance) for strength in module.STRENGTHS for guidance in module.GUIDANCES
    ]
    best = min(grid, key=lambda point: point["validation_error"])
    assert best["strength"] == record["chosen"]["strength"]


def test_a_tiny_tuning_sees_no_test_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LRS", (0.01, 0.05))
    monkeypatch.setattr(module, "EPOCHS", (1, 2))
    monkeypatch.setattr(module, "RHOS", (0.1,))
    monkeypatch.setattr(module, "STRENGTHS", (0.5,))
    monkeypatch.setattr(module, "GUIDANCES", (1.0,))

    def without_tests(settings: Settings) -> tuple[ImageSet, Split]:
        split = make_split(whole(), settings.data)
        few = Split(split.train, split.validation, split.test[:1], split.pool)
        return whole(), few

    monkeypatch.setattr(module, "opened", without_tests)
    tuning = Tuning(splits=1, seeds=2, generator_steps=1)
    result = tune(tuning, tmp_path / "tune", jobs=1)
    for points in result["grids"].values():
        assert all(0 < point["validation_error"] < 1 for point in points)
    assert [len(points) for points in result["grids"].values()] == [4, 2, 1]
    first = result["grids"]["sgd: lr, epochs"]
    best = min(first, key=lambda point: point["validation_error"])
    assert (result["chosen"]["lr_sgd"], result["chosen"]["epochs"]) == (best["lr"], best["epochs"])
    assert len(list((tmp_path / "tune" / "points").iterdir())) == 4 + 2 + 2

    monkeypatch.delattr(module, "train_together")  # nothing is run again
    assert tune(tuning, tmp_path / "tune", jobs=1) == result


def test_validation_images_are_in_no_other_part() -> None:
    split = make_split(whole(), changed(DIGITS, split=8).data)
    assert not np.intersect1d(split.validation, np.concatenate([split.train, split.test])).size
