"""The bench of the engine measures what it says, in tiny sizes."""

from __future__ import annotations

import json

import pytest

from benchmarks import training
from benchmarks.training import SMALL, measure
from empirical.training.engine import Trained


def test_small() -> None:
    found = training.bench_engine(small=True, cpu=True)
    assert json.loads(json.dumps(found)) == found
    for goal in found["goals"]:
        compare = goal["measured"] >= goal["goal"]
        assert goal["met"] == (compare if goal["relation"] == ">=" else not compare)
    for name in ("bare_over_engine", "sam_over_sgd"):
        own = found["engine"][name]
        assert 0 < own["least"] <= own["median"] <= own["most"]


def test_ratios_are_taken_inside_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round changes no ratio."""
    rounds = [0]

    def bare(*_: object) -> object:
        def run() -> float:
            rounds[0] += 1
            return float(rounds[0])

        return run

    def train(network: object, data: object, recipe: object, **_: object) -> Trained:
        sam = getattr(recipe, "optimizer") == "sam"  # noqa: B009
        return Trained(network, 0, SMALL.steps * rounds[0] * (4.0 if sam else 2.0), [])  # pyright: ignore

    monkeypatch.setattr(training, "bare", bare)
    monkeypatch.setattr(training, "train", train)
    found = measure(SMALL, cpu=True)
    assert found["bare_over_engine"] == {"median": 0.5, "least": 0.5, "most": 0.5}
    assert found["sam_over_sgd"] == {"median": 2.0, "least": 2.0, "most": 2.0}
    assert found["seconds_a_step"]["bare"] == {"median": 2.5, "least": 2.0, "most": 3.0}
