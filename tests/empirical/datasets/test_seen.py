"""Nothing trains on what another command scores, and models that have are refused."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import ParameterError
from empirical.config.presets import DIGITS
from empirical.config.settings import changed
from empirical.datasets import seen
from empirical.datasets.base import to_levels
from empirical.datasets.digits import whole
from empirical.datasets.planted import PlantedConfig
from empirical.datasets.seen import check_unseen, image_digests, read_seen, write_seen
from empirical.datasets.splits import for_generator, make_split, open_set
from empirical.generation.recipe import Recipe
from empirical.generation.train import _Training, train_generator
from empirical.training import batched, evaluate
from empirical.training.engine import Loop

Command = Callable[..., tuple[int, str, str]]

# --- what every command trains on, and what it scores ---------------------------------------------


@dataclass
class Witness:
    """Digests of the images that anything was trained on, and of those whose errors are reported,
    by who did it."""

    trained: dict[str, set[int]] = field(default_factory=dict)
    scored: set[int] = field(default_factory=set)

    def trains(self, who: str, pixels: torch.Tensor) -> None:
        self.trained.setdefault(who, set()).update(image_digests(pixels.cpu()).tolist())

    def scores(self, pixels: torch.Tensor) -> None:
        self.scored.update(image_digests(pixels.cpu()).tolist())


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    """Sees every training of the project, whatever command begins it, and every reported score."""
    found = Witness()
    begin, steps, generator = Loop.__init__, batched.train_stacked, _Training.run
    score = evaluate.evaluate

    def loop(self: Loop, network: Any, data: Any, *rest: Any) -> None:
        found.trains("engine", data.pixels[data.rows])
        begin(self, network, data, *rest)

    def stacked(
        network: Any, start: Any, pixels: Any, labels: Any, plan: Any, *rest: Any, **named: Any
    ) -> Any:
        found.trains("batched", to_levels(pixels[plan.rows[plan.weights > 0].unique()]))
        return steps(network, start, pixels, labels, plan, *rest, **named)

    def diffusion(self: _Training, pixels: Any, *rest: Any) -> None:
        found.trains("generator", pixels)
        generator(self, pixels, *rest)

    def evaluated(network: Any, images: Any, *rest: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        reports = ("pipeline.run", "experiments.compare", "experiments.tune")
        if caller.removeprefix("empirical.") in reports:  # the judge's are no result
            found.scores(images.pixels)
        return score(network, images, *rest, **named)

    monkeypatch.setattr(Loop, "__init__", loop)
    monkeypatch.setattr(batched, "train_stacked", stacked)
    monkeypatch.setattr(_Training, "run", diffusion)
    monkeypatch.setattr(evaluate, "evaluate", evaluated)
    for name in ("compare", "tune"):
        monkeypatch.setattr(f"empirical.experiments.{name}.evaluate", evaluated)
    for name in ("compare", "tune"):  # whose other processes would see nothing of this
        monkeypatch.setattr(f"empirical.experiments.{name}.run_all", _here)
    return found


def _here(_what: str, tasks: Any, _jobs: int) -> None:
    for function, arguments in tasks:
        function(*arguments)


@pytest.fixture
def sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> dict[str, list[str]]:
    """Digits, a folder and planted images, all small: the flags that name each."""
    small = functools.partial(
        PlantedConfig, n_train=60, n_test=30, n_classes=3, side=16, beta_slow=0.15
    )
    monkeypatch.setattr("empirical.datasets.registry.PlantedConfig", small)
    for label, level in (("bright", 170), ("dark", 80)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(16):
            pixels = rng.normal(level, 30, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{index}.png")
    own = "--generator-data train --network conv4 --batch-size 6 --k 2".split()
    return {
        "digits": ["--dataset", "digits"],
        "folder": ["--dataset", f"folder:{tmp_path / 'images'}", *own],
        "planted": ["--dataset", "planted", *own],
    }


SMALL = "--epochs 1 --separating-epoch 1 --separating-epochs 2 --denoising-steps 2".split()
GENERATOR = ["--generator", "pixel", "--generator-steps", "2", "--no-trajectory"]


@pytest.mark.parametrize("name", ["digits", "folder", "planted"])
def test_no_command_trains_on_what_another_scores(
    name: str, sets: dict[str, list[str]], command: Command, witness: Witness, tmp_path: Path
) -> None:
    flags, data = sets[name], ["--data", tmp_path / "data"]

    def do(*words: object) -> None:
        code, _, err = command(*words)
        assert code == 0, err

    where, settings = tmp_path / "run", [*flags, *SMALL, *data]
    model = tmp_path / "model"
    tiles = 4 if name == "folder" else 1  # its images have 64 pixels of a side
    made = ["--steps", 2, "--widths", 8, 8, "--shuffle", tiles]
    do("train-generator", *flags[:2], *data, *made, "--out", model)
    given = [*settings, "--generator", f"pixel:{model}"]
    own = [*settings, *GENERATOR, "--generator-shuffle", tiles, "--generator-widths", 8, 8]
    do("run", *given, "--arm", "tada", "--out", where / "model")
    do("run", *own, "--arm", "syn-all", "--out", where / "syn-all")
    do("select", *settings, "--selection", "loss", "--out", where / "select")
    do("stability", *settings, "--seeds", 2, "--out", where / "stability")
    do("diagnose", "store", where / "model" / "synthetic", *data, "--epochs", 1, "--cpu")
    probe = ["--strengths", 0.5, 1, "--ks", 2, "--out", where / "advice"]
    # a judge of so few images may be blind, which ends the command after all of its trainings
    command("recommend", *own, *probe, "--sources", 5, "--copies", 1, "--judge-epochs", 1)
    do("grid", *own, *probe, "--seeds", 1)
    if name == "digits":
        few = ["--generator-steps", 2, "--jobs", 1]
        small = ["--splits", 1, "--seeds", 2, "--epochs", 1, "--control-splits", 1]
        do("compare", *few, *small, "--control-generator-steps", 2, "--out", where / "compare")
    assert {"engine", "generator"} <= witness.trained.keys()
    assert len(witness.scored) > 5
    for who, images in witness.trained.items():
        assert not images & witness.scored, who


def test_another_split_of_digits_is_its_own(
    command: Command, witness: Witness, tmp_path: Path
) -> None:
    flags = ["--dataset", "digits", *SMALL, *GENERATOR, "--split", 3]
    where = tmp_path / "run"
    for data in ("pool", "train"):
        words = [*flags, "--generator-data", data, "--out", where / data]
        assert command("run", *words)[0] == 0
        store = where / data / "synthetic"
        assert command("diagnose", "store", store, "--epochs", 1, "--cpu")[0] == 0
    probe = ["--strengths", 0.7, "--ks", 2, "--out", where / "advice"]
    command("recommend", *flags, *probe, "--sources", 5, "--copies", 1, "--judge-epochs", 1)
    assert len(witness.scored) == 1000
    for who, images in witness.trained.items():
        assert not images & witness.scored, who


def test_tuning_scores_validation_images_that_nothing_is_trained_on(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empirical.experiments.settings import Tuning
    from empirical.experiments.tune import tune

    for name, grid in (("LRS", (0.05,)), ("EPOCHS", (1,)), ("RHOS", (0.1,))):
        monkeypatch.setattr(f"empirical.experiments.tune.{name}", grid)
    monkeypatch.setattr("empirical.experiments.tune.STRENGTHS", (0.7,))
    monkeypatch.setattr("empirical.experiments.tune.GUIDANCES", (1.0,))
    tune(Tuning(splits=2, seeds=2, generator_steps=2), tmp_path / "tune", jobs=1)
    assert len(witness.scored) == 197
    assert {"batched", "generator"} <= witness.trained.keys()
    for images in witness.trained.values():
        assert not images & witness.scored


# --- models that have seen what is scored ---------------------------------------------------------

RECIPE = Recipe(steps=1, batch_size=2, widths=(8, 8))


def model_of(rows: np.ndarray, folder: Path) -> Path:
    digits = whole().train
    index = torch.from_numpy(rows)
    train_generator(digits.pixels[index], digits.labels[index], 10, RECIPE, 0, folder)
    return folder


@pytest.mark.parametrize(
    "words",
    [["run"], ["select"], ["generate"], ["recommend"], ["grid", "--ks", "2"]],
    ids=lambda words: words[0],
)
def test_a_model_of_test_images_is_refused(
    words: list[str], command: Command, tmp_path: Path
) -> None:
    """As train-generator made them when it cut the digits in a way of its own."""
    split = make_split(open_set(DIGITS.data, tmp_path), DIGITS.data)
    model = model_of(np.concatenate([split.pool[:20], split.test[:7]]), tmp_path / "model")
    out = tmp_path / "run"
    flags = ["--dataset", "digits", "--generator", f"pixel:{model}", "--out", out]
    code, said, err = command(*words, *flags)
    assert (code, said) == (2, "")
    assert err == (
        f"error: --generator pixel:{model}: must be made without the images that are scored; its "
        f"generator was trained on 7 of these 1197 of digits: train one that has not seen them\n"
    )
    assert not out.exists()
    # the same model is right for a data set that it has not seen the test of
    assert read_seen(model) is not None


def test_a_model_of_another_splits_training_images_is_refused(
    command: Command, tmp_path: Path
) -> None:
    data = open_set(DIGITS.data, tmp_path)
    model = model_of(make_split(data, changed(DIGITS, split=1).data).train, tmp_path / "model")
    words = [*SMALL, "--generator", f"pixel:{model}", "--out", tmp_path / "run"]
    code, _, err = command("generate", *words)
    assert (code, "100 of these" in err) == (2, True)
    assert command("generate", *words, "--split", 1)[0] == 0
    about = json.loads((tmp_path / "run" / "synthetic" / "store.json").read_text())
    kept = read_seen(tmp_path / "run" / "synthetic")
    assert kept is not None
    assert len(kept) == 100
    assert (about["split"], about["trained_on"]) == (1, seen.seen_digest(kept))


@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "unnamed"])
def test_a_model_that_does_not_say_what_it_saw_is_refused(
    damage: str, command: Command, tmp_path: Path
) -> None:
    split = make_split(open_set(DIGITS.data, tmp_path), DIGITS.data)
    model = model_of(split.pool[:20], tmp_path / "model")
    path = model / seen.SEEN
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        write_seen(model, np.arange(3, dtype=np.uint64))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        about = json.loads((model / "training.json").read_text())
        del about["trained_on"]
        (model / "training.json").write_text(json.dumps(about))
    code, _, err = command("run", "--generator", f"pixel:{model}", "--out", tmp_path / "run")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert seen.SEEN in err


def test_a_store_of_test_images_is_refused(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = [*SMALL, *GENERATOR, "--out", out]
    assert command("generate", *flags)[0] == 0
    store = out / "synthetic"
    assert command("diagnose", "store", store, "--epochs", 1, "--cpu")[0] == 0
    digits = open_set(DIGITS.data, tmp_path)
    scored = digits.test.pixels[make_split(digits, DIGITS.data).test[:5]]
    about = json.loads((store / "store.json").read_text())
    made_with = image_digests(scored)
    write_seen(store, made_with)
    code, _, err = command("diagnose", "store", store, "--epochs", 1, "--cpu")
    assert (code, len(err.splitlines())) == (2, 1)
    assert about["trained_on"] != seen.seen_digest(read_seen(store))
    with pytest.raises(ParameterError, match=r"synthetic = .*trained on 5 of these 1197 of digits"):
        check_unseen("synthetic", store, made_with, digits, make_split(digits, DIGITS.data))


def test_an_image_that_stands_in_both_parts_does_not_count(tmp_path: Path) -> None:
    """As some of CIFAR's do: having seen the training image is no fault."""
    from dataclasses import replace

    data = open_set(DIGITS.data, tmp_path)
    split = make_split(data, DIGITS.data)
    twice = data.test.pixels.clone()
    twice[split.test[0]] = data.train.pixels[split.pool[0]]
    doubled = replace(data, test=replace(data.test, pixels=twice))
    known = np.unique(image_digests(data.train.pixels[for_generator(split)]))
    check_unseen("generator", "x", known, doubled, split)
    with pytest.raises(ParameterError, match="trained on 1 of these"):
        check_unseen("generator", "x", image_digests(twice[split.test[1:2]]), doubled, split)
    check_unseen("generator", "x", None, doubled, split)
