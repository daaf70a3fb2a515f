"""Slow examples against the truth: a real early network on small planted images.

At the size of the preset this is measured in results/planted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empirical.config import presets
from empirical.config.settings import changed, from_record
from empirical.datasets.planted import PlantedConfig, is_slow
from empirical.experiments.stability import LEVEL, stability
from empirical.pipeline.run import SELECTION_DEPENDS_ON

Command = Callable[..., tuple[int, str, str]]

SMALL = functools.partial(
    PlantedConfig, n_train=600, n_test=60, n_classes=3, side=16, beta_fast=0.3, sigma_noise=0.05
)
CHOSEN, EPOCHS = 4, 5
# with so few images logits still vary much within the fast ones
SMALLER = {"separating_epoch": CHOSEN, "separating_epochs": EPOCHS, "outputs": "softmax"}


@contextmanager
def planted_with(beta_slow: float) -> Iterator[None]:
    """Inside, planted images are small and have this slow contrast."""
    with pytest.MonkeyPatch.context() as patch:
        config = functools.partial(SMALL, beta_slow=beta_slow)
        patch.setattr("empirical.datasets.registry.PlantedConfig", config)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What is found where features differ much, and the folder that holds it."""
    out = tmp_path_factory.mktemp("found") / "stability"
    settings = changed(presets.base("planted-small", None), **SMALLER)
    with planted_with(beta_slow=0.02):
        return stability(settings, out, seeds=2, data_seeds=1), out


def test_slow_examples_are_found(found: tuple[dict[str, Any], Path]) -> None:
    selected = found[0]["truth"]["selected"]
    assert selected["precision"]["mean"] >= LEVEL
    assert selected["recall"]["mean"] >= LEVEL
    assert json.loads((found[1] / "stability.json").read_text()) == found[0]
    assert (found[1] / "truth.png").read_bytes().startswith(b"\x89PNG")


def test_the_curves_are_what_select_finds(found: tuple[dict[str, Any], Path]) -> None:
    """At the chosen epoch, for each seed; and means and standard errors are theirs."""
    truth, real = found[0]["truth"], is_slow(SMALL(beta_slow=0.02), 600)
    assert (len(truth["runs"]), len(truth["other_data"])) == (2, 1)
    for seed, own in enumerate(truth["runs"]):
        slow = json.loads((found[1] / f"seed-{seed}" / "selection.json").read_text())["slow"]
        assert own["precision"][CHOSEN - 1] == pytest.approx(real[slow].mean())
        assert own["recall"][CHOSEN - 1] == pytest.approx(real[slow].sum() / real.sum())
        assert all(len(own[name]) == EPOCHS for name in truth["by_epoch"])
        assert own["error_slow"][CHOSEN - 1] > 0.3 > 0.05 > own["error_fast"][CHOSEN - 1]
        assert 1 <= own["rule"] <= EPOCHS
    one, two = (np.array(own["precision"]) for own in truth["runs"])
    assert truth["by_epoch"]["precision"]["mean"] == pytest.approx((one + two) / 2)
    assert truth["by_epoch"]["precision"]["standard_error"] == pytest.approx(abs(one - two) / 2)
    at_rule = [own["recall"][own["rule"] - 1] for own in truth["runs"]]
    assert truth["rule"]["recall"]["mean"] == pytest.approx(np.mean(at_rule))
    assert truth["other_data"][0]["error"] != truth["runs"][0]["error"]


def test_control_features_that_are_learned_together_are_not_told_apart(
    command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "stability"
    flags = ["--preset", "planted-small", "--outputs", "softmax", "--seeds", 2, "--out", out]
    flags += ["--separating-epoch", CHOSEN, "--separating-epochs", EPOCHS]
    with planted_with(beta_slow=0.29):
        code, said, err = command("stability", *flags)
    assert code == 0, err
    written = json.loads((out / "stability.json").read_text())
    assert written["command"].endswith("--seeds 2 --data-seeds 0")
    truth = written["truth"]
    assert max(truth["by_epoch"]["precision"]["mean"]) < 0.7
    for name, value in truth["selected"].items():
        assert value["mean"] < 0.7
        assert f"{name} {value['mean']:.3f} ± {value['standard_error']:.3f}" in said


def test_only_planted_images_have_further_data(command: Command, tmp_path: Path) -> None:
    code, _, err = command("stability", "--data-seeds", 1, "--out", tmp_path / "stability")
    assert (code, err) == (2, "error: --data-seeds 1: must be 0 for digits\n")


def test_the_preset_is_what_results_hold() -> None:
    """Precision and recall were measured with the preset and the planted images of now."""
    path = Path(__file__).parents[3] / "results" / "planted" / "stability.json"
    found = json.loads(path.read_text())
    now = presets.base("planted-small", None).record()
    measured = from_record(found["settings"], path).record()
    assert all(measured[name] == now[name] for name in SELECTION_DEPENDS_ON)
    assert found["truth"]["planted"] == asdict(PlantedConfig())
    for name in ("precision", "recall"):
        assert found["truth"]["selected"][name]["mean"] >= LEVEL
