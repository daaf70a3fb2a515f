"""The bench of generation measures what it says, in tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import generation as module
from benchmarks.generation import SMALL, arms, clocked, generator, measure, originals, stored


def test_small() -> None:
    found = module.bench_generation(small=True, cpu=True)
    assert json.loads(json.dumps(found)) == found
    for goal in found["goals"]:
        compare = goal["measured"] >= goal["goal"]
        assert goal["met"] == (compare if goal["relation"] == ">=" else not compare)
    own = found["generation"]
    assert own["slow_images"] == 7  # 35% of 20
    assert own["inside_network"]["most"] < 1
    for name in ("inside_network", "tada_over_syn_all", "one_by_one_over_batches"):
        assert 0 < own[name]["least"] <= own[name]["median"] <= own[name]["most"]


def test_ratios_are_taken_inside_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round changes no ratio."""
    rounds = [0]

    def stored(_case: Any, _backend: Any, _images: Any, pairs: Any, folder: Path) -> Any:
        rounds[0] += folder.name.startswith("all")
        return len(pairs) * rounds[0] / 2, len(pairs) * rounds[0] / 4

    def one_by_one(_case: Any, _backend: Any, _images: Any, count: int, _folder: Path) -> float:
        return 3.0 * count * max(1, rounds[0])

    monkeypatch.setattr(module, "stored", stored)
    monkeypatch.setattr(module, "one_by_one", one_by_one)
    found = measure(SMALL, "cpu")
    for name, expected in (
        ("inside_network", 0.5),
        ("tada_over_syn_all", 0.35),
        ("one_by_one_over_batches", 6.0),
    ):
        assert found[name] == dict.fromkeys(("median", "least", "most"), pytest.approx(expected))
    assert found["images_a_second"]["here"]["most"] == pytest.approx(2.0)


def test_what_is_timed_makes_all_images(tmp_path: Path) -> None:
    backend, images = generator(SMALL, tmp_path / "model", "cpu"), originals(SMALL)
    calls = [0]
    hook = backend.unet.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    pairs = arms(SMALL)["syn-all"]
    took, inside = stored(SMALL, backend, images, pairs, tmp_path / "store")
    hook.remove()
    assert 0 < inside < took
    assert calls[0] == 3 * SMALL.steps  # 20 images in batches of 8
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["images"] == 20


def test_only_time_in_the_network_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 3.0, 10.0, 10.5, 99.0, 100.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    network = nn.Identity()
    with clocked(network, torch.device("cpu")) as inside:
        network(0)
        network(0)
        assert inside() == 2.5
    network(0)
    assert next(now) == 99.0
