"""The comparison: cells, resume, agreement with single runs, orderings and their verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empirical.config.arms import ARMS
from empirical.config.settings import BUDGETS
from empirical.config.training import OPTIMIZERS
from empirical.experiments import compare as module
from empirical.experiments.compare import ORDERINGS, compare, errors
from empirical.experiments.gallery import comparison_gallery
from empirical.experiments.settings import Comparison
from empirical.report.tables import points, show_comparison

Contents = Callable[[Path], dict[str, bytes]]
TINY = Comparison(
    *("digits", "small"),
    **{"epochs": 2, "splits": 2, "seeds": 2, "control_splits": 2},
    **{"generator_steps": 2, "control_generator_steps": 1},
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compared") / "compare"
    return out, compare(TINY, out, jobs=2)


def test_every_cell_is_there(compared: tuple[Path, dict[str, Any]]) -> None:
    out, results = compared
    assert results == json.loads((out / "results.json").read_text(encoding="utf-8"))
    found = {
        (c["generator"], c["optimizer"], c["budget"], c["arm"], c["split"], c["seed"])
        for c in results["cells"]
    }
    expected = {
        ("pool", optimizer, budget, arm, split, seed)
        for optimizer in OPTIMIZERS
        for budget in BUDGETS
        for arm in ARMS
        for split in range(2)
        for seed in range(2)
        if (arm, budget) != ("original", "steps")
    } | {
        ("train", "sgd", budget, arm, split, seed)
        for budget in BUDGETS
        for arm in ("tada", "syn-rand", "syn-all")
        for split in range(2)
        for seed in range(2)
    }
    assert found == expected
    assert len(results["cells"]) == len(expected)
    for cell in results["cells"]:
        assert 0 <= cell["test_error"] <= 1
        original = 2 * 4
        if cell["budget"] == "steps" or cell["arm"] == "original":
            assert cell["steps"] == original
        else:
            assert cell["steps"] > original
    for key in ("settings", "command", "versions", "rule", "level", "seconds"):
        assert results[key]


def test_orderings_are_the_cells_differences(compared: tuple[Path, dict[str, Any]]) -> None:
    _, results = compared
    rows = results["orderings"]
    conditions = {(row["generator"], row["optimizer"], row["budget"]) for row in rows}
    assert conditions == {
        *(("pool", optimizer, budget) for optimizer in OPTIMIZERS for budget in BUDGETS),
        *(("train", "sgd", budget) for budget in BUDGETS),
    }
    assert len(rows) == len(conditions) * len(ORDERINGS)
    by_hand = {
        (c["generator"], c["optimizer"], c["budget"], c["arm"], c["split"], c["seed"]): c[
            "test_error"
        ]
        for c in results["cells"]
    }
    for row in rows:
        arm, _, other = row["ordering"].split()
        where = (row["optimizer"], row["budget"])
        base = ("pool", row["optimizer"], "epochs" if other == "original" else row["budget"])
        if other.startswith("syn"):
            base = (row["generator"], *where)
        differences = [
            np.mean(
                [
                    by_hand[row["generator"], *where, arm, split, seed]
                    - by_hand[*base, other, split, seed]
                    for seed in range(2)
                ]
            )
            for split in range(2)
        ]
        assert row["difference"] == pytest.approx(np.mean(differences))
        assert row["standard_error"] == pytest.approx(abs(differences[0] - differences[1]) / 2)
        assert row["verdict"] in ("agrees", "disagrees", "undecided at this scale")


def test_a_second_call_runs_no_cell(
    compared: tuple[Path, dict[str, Any]], contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = compared
    before = contents(out / "cells")
    monkeypatch.delattr(module, "train_together")
    again = compare(TINY, out, jobs=1)
    assert again["cells"] == results["cells"]
    assert contents(out / "cells") == before


def test_a_lost_cell_is_run_again_the_same(
    compared: tuple[Path, dict[str, Any]], contents: Contents
) -> None:
    out, results = compared
    before = contents(out)
    (out / "cells" / "pool-1-tada-sam-steps.json").unlink()
    again = compare(TINY, out, jobs=1)
    assert again["cells"] == results["cells"]
    after = contents(out)
    assert before.keys() == after.keys()
    for name in before:
        if name.startswith(("synthetic", "generators")):
            assert before[name] == after[name]


def test_a_damaged_cell_is_named(
    compared: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
    contents: Contents,
) -> None:
    import shutil

    out = Path(shutil.copytree(compared[0], tmp_path / "compare"))
    path = out / "cells" / "pool-0-tada-sgd-epochs.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    before = contents(out)
    words = TINY.command(out).split()[3:]
    code, _, said = command(*words)
    assert code == 2
    assert said.splitlines()[-1].startswith(f"error: {path}")
    assert contents(out) == before


def test_errors_of_arms_without_generator_are_shared() -> None:
    cells = [
        {"generator": "pool", "arm": arm, "optimizer": "sgd", "budget": "epochs"}
        | {"split": split, "seed": seed, "test_error": value + split + 10 * seed}
        for arm, value in (("original", 0), ("tada", 100))
        for split in (1, 0)
        for seed in (1, 0)
    ]
    assert errors(cells, "train", "original", "sgd", "steps").tolist() == [[0, 10], [1, 11]]
    assert errors(cells, "pool", "tada", "sgd", "epochs", 1).tolist() == [[100, 110]]


def test_gallery(
    compared: tuple[Path, dict[str, Any]],
    contents: Contents,
    stored: Callable[..., list[np.ndarray]],
) -> None:
    out, _ = compared
    before = contents(out / "synthetic")
    shown = comparison_gallery(TINY, out, split=1, seed=1)
    assert len(shown.classes) >= 5
    assert contents(out / "synthetic") == before
    folder = out / "synthetic" / "pool-1-1"
    made = stored(folder, "01")
    assert all(any((image == one).all() for one in made) for image in shown.synthetic)


def test_tables(compared: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(compared[1])
    said = capsys.readouterr().out
    assert "tada < upsample" in said
    assert points(0.1234) == "12.34"
    assert points(0.01, sign=True) == "+1.00"
    assert points(None) == ""
