"""The bench: its baseline is right, its ratios are of what they say, its record is whole."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.simulation import LR, RHO, SMALL, autograd_step, bench, problem, seconds_each
from sim.backends.dense import Dense
from sim.optim import step


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_autograd_baseline_does_the_same_step(seeds: int) -> None:
    data, W = problem(replace(SMALL, seeds=seeds))
    space = Dense(data, W)
    for rho in (0.0, RHO):
        expected = step(space, W, LR, rho)
        assert torch.allclose(autograd_step(W, data, LR, rho), expected, atol=1e-14)
        assert not torch.allclose(W, expected, atol=1e-8)


def test_ratios_see_a_planted_factor() -> None:
    A = torch.randn(200, 200)

    def products(repeat: int):
        def run(count: int) -> None:
            for _ in range(repeat * count):
                A @ A

        return run

    found = seconds_each({"one": products(3), "four": products(12)}, rounds=5, least=0.02)
    assert found["one"]["over_first"] == 1
    assert 2.5 < found["four"]["over_first"] < 6


def test_the_record_is_whole() -> None:
    record = json.loads(json.dumps(bench(small=True), allow_nan=False))
    assert {g["name"].split(",")[0].split(" at ")[0] for g in record["goals"]} == {
        "SAM",
        "step time",
        "2 seeds",
    }
    assert {c["optimizer"] for c in record["against_baselines"]} == {"GD", "SAM"}
    for case in record["against_baselines"]:
        assert set(case["seconds_a_step"]) == {"span", "dense", "autograd"}
    assert record["machine"]["threads"] >= 1
    assert {"torch", "python"} <= set(record["versions"])
