"""`sim calibrate`: resumed and extended runs, failures, and laws that are rejected or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from common.errors import ParameterError
from sim import calibrate
from sim.checks.base import LEVEL, Check, Plan, Quantity
from sim.verify import COST

SEEDS, QUANTITIES = 200, 200


def _records(spread: Callable[[int], float]) -> dict[str, list[dict[str, Any]]]:
    """One claim of many quantities whose deviations are normal, spread(i) times as wide."""
    levels = (np.arange(SEEDS) + 0.5) / SEEDS
    shuffled = np.random.default_rng(0).permuted(np.tile(levels, (QUANTITIES, 1)), axis=1)
    z = stats.norm.ppf(shuffled) * np.array([[spread(i)] for i in range(QUANTITIES)])
    return {
        "family": [
            {
                "claim": "family",
                "seed": seed,
                "quantities": [_row(i, float(z[i, seed])) for i in range(QUANTITIES)],
                "control": [True, 7.0],
            }
            for seed in range(SEEDS)
        ]
    }


def _row(i: int, deviate: float, relation: str = "=", **more: Any) -> dict[str, Any]:
    return {
        "label": f"quantity {i}",
        "relation": relation,
        "predicted": 1.0,
        "measured": 1 + 0.01 * deviate,
        "standard_error": 0.01,
        "rounding": 1e-9,
        "deviation": abs(deviate) / 4.9,
        "coarseness": 0.7,
        "z": deviate,
        "tail": float(2 * stats.norm.sf(abs(deviate))),
        "holds": abs(deviate) < 4.9,
        "missing": "",
    } | more


def test_right_standard_errors_are_not_rejected() -> None:
    found = calibrate.summary(_records(lambda i: 1.0), range(SEEDS))
    assert found["rejected"] == []
    assert found["tested"] == QUANTITIES
    assert found["stated_probability"] == pytest.approx(QUANTITIES * LEVEL)
    assert found["stated_probability"] < 1e-3
    assert calibrate.passed(found)
    assert 0 < found["failed_interval"][1] < 0.02


def test_a_standard_error_that_is_a_fifth_too_small_is_rejected() -> None:
    found = calibrate.summary(_records(lambda i: 1 / 0.8 if i == 77 else 1.0), range(SEEDS))
    assert found["rejected"] == ["quantity 77"]
    assert not calibrate.passed(found)
    assert "rejected: quantity 77" in calibrate.in_words(found)


def test_one_that_is_a_fifth_too_large_stands_out() -> None:
    """It does no harm; among 200 others it needs 400 seeds to be rejected."""
    found = calibrate.summary(_records(lambda i: 1 / 1.2 if i == 77 else 1.0), range(SEEDS))
    scales = {q["label"]: q["scale"] for q in found["claims"][0]["quantities"]}
    assert min(scales, key=lambda name: scales[name]) == "quantity 77"
    assert found["smallest_p"] < 2e-3


def test_a_shifted_measurement_is_rejected() -> None:
    records = _records(lambda i: 1.0)
    for record in records["family"]:
        record["quantities"][3] = _row(3, record["quantities"][3]["z"] + 0.5)
    assert calibrate.summary(records, range(SEEDS))["rejected"] == ["quantity 3"]


def test_failures_missing_quantities_and_controls_are_counted() -> None:
    records = _records(lambda i: 1.0)["family"]
    records[4]["quantities"][0] = _row(0, 9.0)
    records[5]["quantities"][1] = _row(1, 0.0, holds=False, missing="no root", z=None, tail=None)
    records[6]["control"] = [False, 0.0]
    found = calibrate.summary({"family": records}, range(SEEDS))
    claim = found["claims"][0]
    assert found["failed_seeds"] == [4, 5, 6]
    assert (claim["failed"], claim["not_measurable"], claim["control_held"]) == (2, 1, 1)
    assert claim["control_smallest_deviation"] == 0.0
    assert not calibrate.passed(found)
    json.dumps(found, allow_nan=False)


def _stated(rows: list[dict[str, Any]]) -> float:
    record = [
        {"claim": "family", "seed": seed, "quantities": [row], "control": [True, None]}
        for seed, row in enumerate(rows)
    ]
    return calibrate.summary({"family": record}, range(len(rows)))["stated_probability"]


def test_an_inequality_close_to_its_margin_adds_to_the_stated_probability() -> None:
    def of(distance: float) -> float:
        noise = np.random.default_rng(1).normal(size=99)
        return _stated([_row(0, 0.0, "<", deviation=5 / (distance + float(z))) for z in noise])

    assert of(7.0) > 0.005
    assert of(16.0) < 1e-6


def test_a_measurement_that_is_nearly_too_coarse_adds_to_the_stated_probability() -> None:
    def of(typical: float) -> float:
        noise = np.random.default_rng(1).normal(size=99)
        return _stated([_row(0, 0.5, coarseness=typical * float(np.exp(z / 10))) for z in noise])

    assert of(0.9) > 0.005
    assert of(0.5) == pytest.approx(LEVEL, rel=0.01)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes "family" a check of one normal quantity, off by so many standard errors."""

    def use(off: float) -> None:
        def measure(plan: Plan) -> list[Quantity]:
            z = float(stats.norm.ppf(np.random.default_rng(plan.seed).random()))
            shift = 0.5 if plan.broken else 0.01 * off
            return [Quantity("one", 1 + shift + 0.01 * z, 0.01, 1.0)]

        monkeypatch.setitem(calibrate.CHECKS, "family", Check("family", "none", measure))

    return use


def test_a_stopped_run_is_resumed_and_extended(tmp_path: Path, tiny: Any) -> None:
    tiny(0.0)
    whole = calibrate.calibrate(tmp_path / "whole", 12, 3, ["family"], 1)
    part = tmp_path / "part"
    calibrate.calibrate(part, 5, 3, ["family"], 1)
    file = part / "family.jsonl"
    file.write_text(file.read_text()[:-20])  # as a kill leaves it
    assert calibrate.calibrate(part, 12, 3, ["family"], 1) == whole
    assert file.read_text() == (tmp_path / "whole/family.jsonl").read_text()
    assert whole["seeds"] == {"first": 3, "number": 12}
    assert whole["failed_seeds"] == []


def test_what_another_code_measured_is_not_trusted(tmp_path: Path, tiny: Any) -> None:
    tiny(0.0)
    calibrate.calibrate(tmp_path, 6, 0, ["family"], 1)
    tiny(20.0)
    found = calibrate.calibrate(tmp_path, 6, 0, ["family"], 1)
    assert found["failed_seeds"] == list(range(6))
    assert len((tmp_path / "family.jsonl").read_text().splitlines()) == 6


def test_bad_input(tmp_path: Path) -> None:
    for arguments in ((1, 0), (5, -1), (5, 0, ["nonsense"]), (5, 0, None, 0)):
        with pytest.raises(ParameterError):
            calibrate.calibrate(tmp_path / "out", *arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_plot(tmp_path: Path) -> None:
    found = calibrate.summary(_records(lambda i: 1.0), range(SEEDS))
    calibrate.draw(found).savefig(tmp_path / "seeds.png")
    assert (tmp_path / "seeds.png").stat().st_size > 10_000


def test_every_claim_has_a_cost() -> None:
    assert set(COST) == set(calibrate.CHECKS)
    assert min(COST.values()) > 0
