"""Trainings that diverge or learn nothing: one line says what to change, and the folder goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.divergence import DivergenceError
from common.errors import ParameterError
from empirical.config.presets import DIGITS
from empirical.config.settings import Settings, changed
from empirical.datasets.digits import whole
from empirical.datasets.splits import make_split, open_set
from empirical.diagnosis.classifier import DEFAULT, train_judge
from empirical.pipeline.algorithm import final_job, find_slow_together
from empirical.pipeline.run import run
from empirical.runtime import Machine
from empirical.selection import slow_sets
from empirical.training.batched import train_together
from tests.messages import says

Command = Callable[..., tuple[int, str, str]]
Tiny = Callable[..., Settings]


def one_line(result: tuple[int, str, str], said: str) -> None:
    code, out, err = result
    lines = [line for line in err.splitlines() if " steps: " not in line and "images: " not in line]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert says(lines[0], f"error: {said}")


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_a_final_training_that_diverges_and_a_better_one_in_its_folder(
    optimizer: str, command: Command, tiny_flags: list[str], tmp_path: Path
) -> None:
    flags = ["--arm", "original", "--optimizer", optimizer, *tiny_flags]
    for _ in range(2):
        result = command("run", *flags, "--lr", 1e30, "--out", tmp_path / "run")
        one_line(result, "the training of original with ")
        more = " or --rho 0.2" if optimizer == "sam" else ""
        assert result[2].rstrip().endswith(f": lower --lr 1e+30{more}")
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert "selection.json" in kept
    assert not {"settings.json", "result.json", "network.safetensors"} & kept
    assert command("run", *flags, "--lr", 0.05, "--out", tmp_path / "run")[0] == 0
    assert command("run", *flags, "--lr", 0.05, "--out", tmp_path / "new")[0] == 0
    one, other = ((tmp_path / name / "network.safetensors") for name in ("run", "new"))
    assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "run" / "diverged.json").exists()


def test_an_early_training_that_diverges(
    command: Command, tiny_flags: list[str], tmp_path: Path
) -> None:
    words = ["select", *tiny_flags, "--out", tmp_path / "run"]
    one_line(command(*words, "--separating-lr", 1e30), "the early training diverged at step ")
    assert not (tmp_path / "run" / "selection.json").exists()
    assert command(*words)[0] == 0
    advice = ["recommend", *tiny_flags, "--out", tmp_path / "advice", "--strengths", "1"]
    one_line(command(*advice, "--separating-lr", 1e30), "the early training diverged at step ")


def test_a_generator_that_diverges(command: Command, tmp_path: Path) -> None:
    words = ["train-generator", "--dataset", "digits", "--steps", 3, "--widths", 8, 8]
    words += ["--warmup", 1, "--out", tmp_path / "model"]
    result = command(*words, "--lr", 1e30)
    one_line(result, "the digits generator training diverged at step ")
    assert result[2].endswith("lower --lr 1e+30\n")
    assert list(tmp_path.iterdir()) == []
    assert command(*words)[0] == 0


def test_a_judge_that_diverges(tmp_path: Path) -> None:
    from dataclasses import replace

    data = open_set(DIGITS.data, tmp_path)
    with pytest.raises(DivergenceError, match=r"judge 1 of 2 diverged at step .*another network"):
        train_judge(data, "conv4", replace(DEFAULT, lr=1e30), tmp_path, Machine(cpu=True))
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_one_of_several_networks_that_diverges(tiny: Tiny) -> None:
    """The others are well; the message says which it is."""
    digits, settings = whole(), tiny(arm="original", lr=1e30)
    split = make_split(digits, settings.data)
    pairs = [(int(source), 0) for source in split.train]
    jobs = [final_job(digits, split, changed(settings, seed=seed), pairs, {}) for seed in (0, 1)]
    with pytest.raises(DivergenceError) as error:
        train_together(jobs)
    said = str(error.value)
    assert said.startswith("the training of original with sgd (network ")
    assert said.endswith(" of 2) diverged at step " + said.split(" step ")[1])
    assert said.endswith("lower --lr 1e+30")
    seeds = [tiny(separating_lr=1e30, seed=seed) for seed in (0, 1)]
    with pytest.raises(DivergenceError, match=r"the early training \(network 1 of 2\)"):
        find_slow_together(digits, split, seeds)


def test_a_point_of_the_tuning_that_diverges_is_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empirical.experiments import tune
    from empirical.experiments.settings import Tuning

    for name, grid in (("LRS", (1e30, 0.05)), ("EPOCHS", (1,)), ("RHOS", (0.1,))):
        monkeypatch.setattr(tune, name, grid)
    monkeypatch.setattr(tune, "STRENGTHS", (0.7,))
    monkeypatch.setattr(tune, "GUIDANCES", (1.0,))
    found = tune.tune(Tuning(splits=1, seeds=2, generator_steps=1), tmp_path, jobs=1)
    first, second = found["grids"]["sgd: lr, epochs"]
    assert first["validation_error"] == 1
    assert second["validation_error"] < 1
    assert found["chosen"]["lr_sgd"] == 0.05


# --- networks that have learned nothing, and sets that are empty ---------------------------------


def test_at_chance_is_a_binomial_bound() -> None:
    """Guesses of the largest class pass for chance nearly always, and half right never."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), [19, *[9] * 9])
    guesses = rng.binomial(100, 0.19, size=2000)
    noticed = np.array([slow_sets.at_chance(int(right), labels) for right in guesses])
    assert noticed.mean() > 0.985  # 0.999, but for chance in this test: 20 standard errors
    assert not slow_sets.at_chance(50, labels)
    assert slow_sets.at_chance(19, labels)
    assert slow_sets.at_chance(2, np.array([0, 1]))  # two examples say nothing


def test_a_network_that_has_not_left_chance_is_said_and_noted(
    command: Command, tmp_path: Path
) -> None:
    words = ["run", "--arm", "original", "--epochs", 1, "--separating-epoch", 1]
    code, _, err = command(*words, "--separating-lr", 1e-9, "--out", tmp_path / "run")
    assert code == 0
    (line,) = [line for line in err.splitlines() if "chance" in line]
    assert line.startswith("the early network's training error, ")
    assert "is at chance: the slow set means nothing" in line
    assert "--separating-epoch" in line
    assert json.loads((tmp_path / "run" / "result.json").read_text())["notes"] == [line]
    assert json.loads((tmp_path / "run" / "selection.json").read_text())["at_chance"]
    code, _, err = command(*words[:-1], 10, "--out", tmp_path / "other")
    assert (code, "chance" in err) == (0, False)
    assert json.loads((tmp_path / "other" / "result.json").read_text())["notes"] == []


@pytest.mark.parametrize("arm", ["upsample", "tada", "syn-rand"])
def test_no_slow_example_at_all_is_refused_where_it_matters(
    arm: str, command: Command, tmp_path: Path
) -> None:
    flags = ["--epochs", 1, "--separating-epoch", 1, "--out", tmp_path / "run"]
    none = [*flags, "--selection", "loss", "--theta", 0.001]
    result = command("run", "--arm", arm, *none)
    one_line(result, "selection = loss: must be one that finds slow examples; it finds none of 100")
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert kept <= {"diverged.json", "timings.json", ".lock"}
    other = ["--generator-steps", 1, "--denoising-steps", 1]
    assert command("run", "--arm", arm, *flags, *other)[0] == 0


def test_no_slow_example_is_no_fault_of_arms_without_them(command: Command, tmp_path: Path) -> None:
    flags = ["--epochs", 1, "--separating-epoch", 1, "--selection", "loss", "--theta", 0.001]
    code, _, _ = command("run", "--arm", "original", *flags, "--out", tmp_path / "run")
    assert code == 0


def test_more_clusters_than_examples_of_a_class_are_refused(
    command: Command, tmp_path: Path
) -> None:
    split = make_split(open_set(DIGITS.data, tmp_path), DIGITS.data)
    least = int(torch.bincount(whole().train.labels[split.train]).min())
    out = tmp_path / "run"
    result = command("run", "--clusters", least + 1, "--out", out)
    one_line(result, f"clusters = {least + 1}: must be at most {least}, the training images of ")
    assert not out.exists()
    words = ["--clusters", least, "--separating-epoch", 1, "--out", out]
    assert command("select", *words)[0] == 0


@pytest.mark.parametrize(
    ("flag", "said"), [("--strengths", "strengths = "), ("--generator-widths", "widths = ()")]
)
def test_a_list_without_values_is_refused(
    flag: str, said: str, command: Command, tmp_path: Path
) -> None:
    code, out, err = command("run", "--out", tmp_path / "run", flag)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {said}"), err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ParameterError, match=r"^strengths = none: must be at least one number"):
        changed(DIGITS, strengths=())


def test_a_k_of_more_images_than_there_is_room_for_is_refused(
    command: Command, tmp_path: Path
) -> None:
    for arm in ("tada", "upsample", "syn-rand"):
        words = ["run", "--arm", arm, "--k", 100_000_000, "--out", tmp_path / "run"]
        code, _, err = command(*words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "--k" in err or "k = " in err
    assert not (tmp_path / "run").exists()


def test_the_message_crosses_between_processes() -> None:
    import pickle

    error = DivergenceError("training", 12, "loss nan", "lower --lr 1e+09")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "training diverged at step 12 (loss nan): lower --lr 1e+09"
    assert type(again) is DivergenceError


def test_from_python_too(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        run(tiny(arm="original", lr=1e30), tmp_path / "run")
    assert run(tiny(arm="original"), tmp_path / "run")["test_error"] < 1
