"""Strength and k by rule: known curves against theory's closed forms, and the two commands."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ParameterError
from empirical.config.settings import Settings
from empirical.datasets.planted import PlantedConfig
from empirical.diagnosis.evidence import LEVELS
from empirical.diagnosis.faithfulness import Observations
from empirical.recommendation import grid as grid_module
from empirical.recommendation.grid import Cell, against_best, cells, grid, summary
from empirical.recommendation.probe import learning_times_of, resamples
from empirical.recommendation.recommend import recommend as recommend_run
from empirical.recommendation.rule import (
    LearningTimes,
    MeasuredStrength,
    choose,
    recommend,
    relative_time,
    soonest,
)
from tests.messages import says
from theory.amplification import k_star
from theory.family import best_k, best_strength, family_k_star, family_memorisation, least_k
from theory.world import World

Tiny = Callable[..., Settings]
Command = Callable[..., tuple[int, str, str]]
Contents = Callable[[Path], dict[str, bytes]]

STRENGTHS = [i / 20 for i in range(1, 21)]


def fading(strength: float, fidelity: float = 1.0) -> MeasuredStrength:
    """A curve like a diffusion model's: noise goes evenly, the feature late."""
    return MeasuredStrength(strength, fidelity * math.sqrt(1 - strength**4), 1 - strength, 1.0)


FADING = [fading(strength) for strength in STRENGTHS]
UNFAITHFUL = [MeasuredStrength(t, 0.8 * (1 - t), 1 - t, 1.0) for t in STRENGTHS]
COPIES = [MeasuredStrength(t, 1.0, 1.0, 1.0) for t in STRENGTHS]


@pytest.mark.parametrize("k", [2, 5, 10])
@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_strength_is_that_of_least_memorisation_in_any_world(k: int, sigma: float) -> None:
    """(F8) in full: noise level, sizes and contrasts cancel."""
    world = World(n_examples=60, dim=315, beta_slow=0.62, sigma_noise=sigma)
    times = [family_memorisation(world, own.member(k)) for own in FADING]
    found = recommend(FADING, [k], alpha=0.8)
    assert found.choice.strength == STRENGTHS[int(np.argmin(times))]
    assert 0.05 < found.choice.strength < 1
    base = family_memorisation(world, replace(FADING[0].member(k), k=1))
    assert [base * value for value in found.criterion[k]] == pytest.approx(times)


@pytest.mark.parametrize(("ratio", "noise"), [(2.5, 0.4), (3.7, 0.4), (1.0, 2.5), (1.0, 4.0)])
def test_k_is_the_least_that_theory_asks_for(ratio: float, noise: float) -> None:
    ks = list(range(2, 40))
    choice = recommend(FADING, ks, 0.8, LearningTimes(ratio, noise)).choice
    own = next(own for own in FADING if own.strength == choice.strength)
    assert choice.enough
    # the same from theory, in a world with these ratios
    beta = (0.8 / 0.2 / ratio) ** (1 / 3) if ratio > 1 else 0.999
    world = World(n_examples=100, dim=400, alpha=0.8, beta_slow=min(beta, 0.999))
    unit = family_memorisation(world, own.member(1))
    world = replace(world, sigma_noise=world.sigma_noise * (noise / unit) ** (1 / 3))
    wanted = max(least_k(world, own.member(choice.k)), 2)
    if ratio > 1:
        wanted = max(wanted, math.ceil(family_k_star(0.8, 1.0, beta, own.fidelity)))
    assert choice.k == wanted


@pytest.mark.parametrize("noise", [0.4, 1.5])
def test_the_strength_of_f12_is_theorys(noise: float) -> None:
    world = World(alpha=0.8, beta_slow=0.9)
    ratio = k_star(world.alpha, world.beta_fast, world.beta_slow)
    unit = family_memorisation(world, FADING[0].member(1))
    world = replace(world, sigma_noise=world.sigma_noise * (noise / unit) ** (1 / 3))
    theirs = best_strength(world, [own.member(4) for own in FADING], 4)
    assert theirs.memorisation < 1
    assert soonest(FADING, 4, 0.8, LearningTimes(ratio, noise)) == STRENGTHS[theirs.index]
    assert soonest(FADING, 4, 0.8, LearningTimes(ratio, noise, at_least=True)) is None
    assert soonest(FADING, 4, 0.8, LearningTimes(ratio, 1e6)) is None


def test_the_largest_k_where_none_is_enough_or_nothing_is_known() -> None:
    slow = recommend(FADING, [2, 4], 0.8, LearningTimes(50.0, 0.5))
    assert (slow.choice.k, slow.choice.enough) == (4, False)
    assert "a larger one would help more" in " ".join(slow.reason)
    # lower bounds say of no k that it is enough
    never = recommend(FADING, [2, 4], 0.8, LearningTimes(1.5, 0.5, at_least=True))
    assert (never.choice.k, never.choice.enough) == (4, False)
    assert recommend(FADING, [2, 4], 0.8, LearningTimes(1.5, 0.5)).choice.k == 2
    assert "at least 1.5 times" in " ".join(never.reason)
    assert "not known how many would be enough" in " ".join(never.reason)
    unknown = recommend(FADING, [2, 4], 0.8)
    assert (unknown.choice.k, unknown.choice.enough) == (4, True)
    assert unknown.wanted_k is None
    assert "nothing was measured" in " ".join(unknown.reason)


def test_at_equal_steps_k_is_that_of_f11() -> None:
    """Below the fidelity (1 - alpha)^(1/3) none; above it (F2), up to whole numbers."""
    for c in (0.5, 0.58, 0.6, 0.8, 1.0):
        alpha, ratio = 0.8, 3.0
        beta = (alpha / (1 - alpha) / ratio) ** (1 / 3)
        wanted = best_k(alpha, 1.0, min(beta, 0.9999999), c) if beta < 1 else None
        alpha = 0.8 if wanted is not None else 0.7
        beta = (alpha / (1 - alpha) / ratio) ** (1 / 3)
        wanted = best_k(alpha, 1.0, beta, c) if beta < 1 else best_k_by_hand(alpha, ratio, c)
        found = recommend(
            [MeasuredStrength(0.5, c, 0.0, 1.0)],
            list(range(2, 60)),
            alpha,
            LearningTimes(ratio, 0.1),
            "steps",
        )
        assert found.choice.k == pytest.approx(wanted, abs=1)
        assert (found.choice.strength is None) == (c**3 <= 1 - alpha)


def best_k_by_hand(alpha: float, ratio: float, fidelity: float) -> float:
    return 1 + (ratio - 1) / fidelity**3 if fidelity**3 > 1 - alpha else 1.0


def test_control_an_unfaithful_generator_helps_at_no_k() -> None:
    """a tau >= c at every strength: (F9) says that no k lets the feature gain on its noise."""
    found = recommend(UNFAITHFUL, [2, 5, 1000], 0.8, LearningTimes(4.0, 3.0))
    assert (found.choice.strength, found.choice.k) == (None, 1)
    assert not any(found.helps)
    assert min(min(own) for own in found.criterion.values()) >= 1
    assert found.reason[0].startswith("No k helps")
    # with a little more of the feature it does
    better = [replace(own, fidelity=1.5 * own.fidelity) for own in UNFAITHFUL]
    assert recommend(better, [2, 5, 1000], 0.8).choice.strength is not None


def test_copies_do_not_help_and_are_all_alike() -> None:
    found = recommend(COPIES, [2, 8], 0.8, LearningTimes(4.0, 3.0))
    assert (found.choice.strength, found.choice.k) == (None, 1)
    assert all(value == pytest.approx(1) for own in found.criterion.values() for value in own)


def test_a_k_that_would_help_but_is_not_on_offer() -> None:
    """aτ < c, but two near-copies turn towards each other: one more needs a larger k."""
    kept = MeasuredStrength(0.5, 0.55, 0.5, 1.0)
    found = recommend([kept], [2], 0.8)
    assert found.helps == [True]
    assert (found.choice.strength, relative_time(kept, 2) > 1) == (None, True)
    assert "A larger k would help" in found.reason[0]
    assert recommend([kept], [2, 1000], 0.8).choice.k == 1000


def test_a_single_strength() -> None:
    found = recommend([fading(0.6)], [4], 0.8, LearningTimes(3.0, 1.5))
    assert found.choice.strength == 0.6
    assert "no other strength was tried" in found.reason[0]


def test_reason_says_what_is_worse_on_both_sides_and_how_sure_it_is() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        [replace(own, kept_noise=own.kept_noise + 0.1 * rng.standard_normal()) for own in FADING]
        for _ in range(50)
    ]
    errors = [(0.02, 0.03)] * len(FADING)
    found = recommend(FADING, [4], 0.8, LearningTimes(3.0, 1.5), resamples=drawn, errors=errors)
    text = found.reason[0]
    assert text.startswith(f"At strength {found.choice.strength:g} copies keep ")
    assert "± 2% of the feature" in text
    assert "below it they repeat more noise" in text
    assert "above it they lose more of the feature" in text
    own = choose(FADING, [4], 0.8, LearningTimes(3.0, 1.5), "epochs")
    shares = [choose(d, [4], 0.8, LearningTimes(3.0, 1.5), "epochs").strength for d in drawn]
    assert own == found.choice
    assert found.by_strength[own.strength] == pytest.approx(shares.count(own.strength) / 50)
    assert sum(found.by_strength.values()) == pytest.approx(1)
    assert 0 < found.by_strength[own.strength] < 1


def test_measured_numbers_outside_the_family_are_cut() -> None:
    assert relative_time(MeasuredStrength(0.5, 1.2, -0.1, 1.0), 3) == relative_time(
        MeasuredStrength(0.5, 1, 0, 1.0), 3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measured": []}, "strengths = none: must be at least one"),
        ({"measured": [FADING[3], FADING[3]]}, "each once"),
        ({"ks": []}, "ks = .*: must be different whole numbers of at least 2"),
        ({"ks": [1, 2]}, "ks = "),
        ({"ks": [2, 2]}, "ks = "),
        ({"alpha": 1.0}, "alpha = 1.0"),
        ({"budget": "hours"}, "budget = hours"),
    ],
)
def test_bad_input_of_the_rule(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"measured": FADING, "ks": [2], "alpha": 0.8} | change
    with pytest.raises(ParameterError, match=message):
        recommend(**given)


# --- learning times, resamples -------------------------------------------------------------------


def test_pace_of_known_curves() -> None:
    curves = {
        "fast": [0.55, 0.9, 1.0, 1.0],  # midway, .55, exactly at the first epoch
        "slow": [0.1, 0.1, 0.1, 0.55],
        "slow_seen": [0.1, 0.55, 1.0, 1.0],
    }
    pace = learning_times_of(curves, 0.1)
    assert (pace.slow_over_fast, pace.slow_over_noise) == (pytest.approx(4), pytest.approx(1))
    assert not pace.at_least
    never = learning_times_of(curves | {"slow": [0.1] * 4}, 0.1)
    assert never.at_least
    assert never.slow_over_fast == pytest.approx(4)
    assert learning_times_of(curves | {"fast": [0.1] * 4}, 0.1).slow_over_fast is None
    assert learning_times_of({"fast": curves["fast"]}, 0.1) == LearningTimes()


def test_resamples_spread_as_the_sources_do_and_centre_on_what_is_measured() -> None:
    rng = np.random.default_rng(0)
    n, copies, d = 400, 2, 60
    source, fresh = rng.standard_normal((n, d)), rng.standard_normal((n, copies, d))
    strengths, taus = [0.4, 0.8], [0.6, 0.1]
    gram, inner = [], []
    for row in range(n):
        made = [
            tau * source[row] + (1 - tau**2) ** 0.5 * fresh[row, c]
            for tau in taus
            for c in range(copies)
        ]
        gram.append(np.array(made) @ np.array(made).T)
        inner += [own @ source[row] for own in made]
    of = np.tile(np.repeat([0, 1], copies), n)
    evidence = np.where(of == 0, 0.9, 0.3) + 0.1 * rng.standard_normal(len(of))
    seen = Observations(
        np.repeat(np.arange(n), 2 * copies),
        {"evidence": np.ones(n), "self": (source**2).sum(1)},
        {"evidence": evidence, "inner": np.array(inner)},
        np.tile(LEVELS, (n, 1)),
        gram,
        [],
    )
    drawn = resamples(seen, [of == 0, of == 1], strengths, rng)
    for row, (c, tau) in enumerate(zip((0.9, 0.3), taus, strict=True)):
        each = np.array([[o[row].fidelity, o[row].kept_noise, o[row].amplitude] for o in drawn])
        mean, spread = each.mean(0), each.std(0)
        assert (np.abs(mean - [c, tau, 1]) < 5 * spread + 0.005).all()
        assert spread[0] == pytest.approx(0.1 / (n * copies) ** 0.5, rel=0.4)
        assert 0.001 < spread[1] < 0.02


# --- the commands --------------------------------------------------------------------------------

PROBE: dict[str, Any] = {"sources": 10, "copies": 1, "judge": "small", "judge_epochs": 8}


def probed(tiny: Tiny, out: Path, **values: Any) -> dict[str, Any]:
    settings = tiny(strengths=(0.3, 0.6, 0.9), separating_epochs=2, **values)
    return recommend_run(settings, out, (2, 3), **PROBE)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recommended") / "run"
    probed(tiny, out)
    return out


@pytest.fixture
def recommended(whole: Path, tmp_path: Path) -> Path:
    """A copy of a finished recommendation for tiny digits, to resume."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_recommendation_holds_what_the_rule_says_of_what_was_measured(whole: Path) -> None:
    found = json.loads((whole / "recommendation.json").read_text())
    rows = found["strengths"]
    names = ("fidelity", "kept_noise", "amplitude")
    kept = [
        MeasuredStrength(row["strength"], *(row[name]["value"] for name in names)) for row in rows
    ]
    pace = {name: own for name, own in found["pace"].items() if name != "accuracy"}
    again = recommend(kept, [2, 3], found["alpha"], LearningTimes(**pace))
    assert (again.choice.strength, again.choice.k) == (found["strength"], found["k"])
    for row, own in zip(rows, kept, strict=True):
        assert [each["value"] for each in row["criterion"]] == [
            relative_time(own, k) for k in (2, 3)
        ]
    assert 0 < found["alpha"] < 1
    assert sum(own["share"] for own in found["chosen"]["by_strength"]) == pytest.approx(1)
    assert all(row[name]["standard_error"] > 0 for row in rows for name in names)
    assert (whole / "recommendation.png").read_bytes().startswith(b"\x89PNG")
    assert found["sources"] == 10
    manifest = json.loads((whole / "probe" / "manifest.json").read_text())
    assert manifest["images"] == 10 * 3


def test_the_same_call_finds_everything_again(
    recommended: Path, tiny: Tiny, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(recommended)
    monkeypatch.delattr("empirical.pipeline.run.find_slow")
    probed(tiny, recommended)
    after = contents(recommended)
    again, once = (json.loads(own.pop("recommendation.json")) for own in (after, before))
    for own in (again, once):
        own.pop("command"), own.pop("go_on", None)
    assert again == once
    assert after == before


def test_stopped_between_any_two_writes_and_resumed(
    whole: Path, tiny: Tiny, tmp_path: Path, contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every rename that finishes a file or folder fails once; each time the next call goes on."""
    replace_file, done = os.replace, set()

    def replaced(source: Any, target: Any) -> None:
        if Path(target).name not in done:
            done.add(Path(target).name)
            raise OSError(28, "No space left on device", str(target))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    out = tmp_path / "again"
    for _ in range(40):
        try:
            probed(tiny, out)
            break
        except OSError:
            continue
    assert {"selection.json", "generator", "store.json", "recommendation.json"} <= done
    one, other = (
        json.loads((folder / "recommendation.json").read_text()) for folder in (out, whole)
    )
    for own in (one, other):
        own.pop("command"), own.pop("go_on", None)
    assert one == other


def test_other_settings_are_refused(recommended: Path, tiny: Tiny) -> None:
    with pytest.raises(ParameterError, match=r"^seed = 1: must be 0 as in"):
        probed(tiny, recommended, seed=1)


@contextmanager
def small_planted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        config = functools.partial(
            PlantedConfig, n_train=300, n_test=60, n_classes=3, side=16, beta_slow=0.25,
            beta_fast=0.3, sigma_noise=0.05,
        )  # fmt: skip
        patch.setattr("empirical.datasets.registry.PlantedConfig", config)
        yield


def test_commands_on_planted_images(command: Command, tmp_path: Path) -> None:
    """Recommend; the recommended run goes on there; the grid in the same folder compares."""
    flags = "--preset planted-small --generator ideal:fading --epochs 2 --separating-epoch 1"
    flags += " --outputs softmax --separating-epochs 2"
    probe = "--sources 30 --copies 1 --judge-epochs 20"
    shared = [*flags.split(), "--strengths", "0.4", "1", "--ks", "2", "--out", tmp_path / "run"]
    with small_planted():
        for _ in range(2):
            code, said, err = command("recommend", *shared, *probe.split())
            assert code == 0, err
            assert said.startswith("recommended: k = 2 at strength 0.4")
            go_on = next(line for line in said.splitlines() if line.startswith("python -m"))
            before = {path.stat().st_mtime_ns for path in (tmp_path / "run").glob("selection.json")}
            code, _, err = command(*go_on.split()[3:])
            assert code == 0, err
        assert before == {
            path.stat().st_mtime_ns for path in (tmp_path / "run").glob("selection.json")
        }
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["k"], result["strengths"]) == (2, [0.4])
        for _ in range(2):
            code, said, err = command("grid", *shared, "--seeds", 2)
            assert code == 0, err
        assert "least slow test error" in said
    found = json.loads((tmp_path / "run" / "grid.json").read_text())
    assert [(row["k"], row["strength"]) for row in found["cells"]] == [
        (1, None), (2, 0.4), (2, 1.0),
    ]  # fmt: skip
    for seed in (0, 1):
        folder = tmp_path / "run" / "grid" / f"seed-{seed}"
        selections = {path.read_bytes() for path in folder.glob("*/selection.json")}
        assert len(selections) == 1
        for row in found["cells"]:
            name = Cell(row["k"], row["strength"]).name
            result = json.loads((folder / name / "result.json").read_text())
            assert row["test_error"]["seeds"][seed] == result["test_error"]
            assert row["test_error_slow"]["seeds"][seed] == result["test_error_slow"]
    recommendation = json.loads((tmp_path / "run" / "recommendation.json").read_text())
    assert found["recommended"] == {key: recommendation[key] for key in ("k", "strength")}
    assert found["recommended_against_best"]["test_error"]["mean"] >= 0


def test_grid_shares_one_generator(tiny: Tiny, tmp_path: Path) -> None:
    found = grid(tiny(strengths=(0.5, 0.9)), tmp_path / "run", (2,), seeds=1)
    assert len(list((tmp_path / "run").rglob("training.json"))) == 1
    assert found["recommended_against_best"] is None
    assert found["cells"][1]["test_error"]["standard_error"] is None


def test_summary_of_a_grid_against_hand_made_numbers() -> None:
    errors = {Cell(1, None): [0.5, 0.7], Cell(2, 0.5): [0.2, 0.4], Cell(2, 0.9): [0.35, 0.35]}
    assert list(errors) == cells([0.5, 0.9], [2])
    found = {
        cell: [{"test_error": own, "test_error_slow": own, "n_synthetic": 3} for own in values]
        for cell, values in errors.items()
    }
    result = summary(found)
    best = result["best"]["test_error"]
    assert (best["k"], best["strength"], best["mean"]) == (2, 0.5, pytest.approx(0.3))
    assert best["standard_error"] == pytest.approx(0.1)
    over = result["cells"][0]["test_error"]["over_best"]
    assert (over["mean"], over["standard_error"]) == (pytest.approx(0.3), pytest.approx(0))
    for strength, mean in ((0.5, 0), (0.9, 0.05)):
        own = against_best(result | {"recommended": {"k": 2, "strength": strength}})
        assert own is not None
        assert own["test_error"]["mean"] == pytest.approx(mean)
    none = against_best(result | {"recommended": {"k": 1, "strength": None}})
    assert none is not None
    assert none["test_error"]["mean"] == pytest.approx(0.3)
    assert against_best(result | {"recommended": {"k": 4, "strength": 0.5}}) is None
    assert grid_module.draw(result | {"recommended": None}).axes


@pytest.mark.parametrize("stage", ["recommend", "grid"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--strengths 0.5 1.5", "strengths = 1.5: must be in (0, 1]"),
        ("--strengths 0", "strengths = 0.0: must be in (0, 1]"),
        ("--strengths 0.5 0.5", "strengths = [0.5, 0.5]: must be each once"),
        ("--arm original", "arm = original: must be tada"),
        ("--from-noise", "from_noise = True: must be off"),
        ("--trajectory", "trajectory = True: must be off"),
        ("--ks 1 2", "ks = [1, 2]: must be different whole numbers of at least 2"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, tmp_path: Path, stage: str, flags: str, message: str
) -> None:
    code, said, err = command(stage, *flags.split(), "--out", tmp_path / "run")
    assert (code, said) == (2, "")
    assert says(err, message), err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "flags", "message"),
    [
        ("recommend", "--sources 0", "sources = 0: must be at least 1"),
        ("recommend", "--copies 0", "copies = 0: must be at least 1"),
        ("recommend", "--judge-epochs 0", "judge_epochs = 0: must be at least 1"),
        ("recommend", "--judge none", "judge = none"),
        ("grid", "--seeds 0", "seeds = 0: must be at least 1"),
        ("grid", "--synthetic there", "synthetic = there: must be not given"),
    ],
)
def test_bad_input_of_one_command(
    command: Command, tmp_path: Path, stage: str, flags: str, message: str
) -> None:
    code, _, err = command(stage, *flags.split(), "--out", tmp_path / "run")
    assert code == 2
    assert says(err, message)


@pytest.mark.parametrize("stage", ["recommend", "grid"])
def test_help_has_an_example(command: Command, stage: str) -> None:
    code, said, _ = command(stage, "--help")
    assert code == 0
    assert f"python -m empirical {stage}" in " ".join(said.split())


def test_a_grid_without_slow_test_images_has_no_error_of_theirs() -> None:
    """As happens with few test images; a seed without any is left out of that error alone."""
    from empirical.recommendation.grid import draw as draw_grid

    def runs(*slow: float | None) -> list[dict[str, Any]]:
        return [{"test_error": 0.2, "test_error_slow": own, "n_synthetic": 3} for own in slow]

    found = {Cell(1, None): runs(0.5, None), Cell(2, 0.5): runs(0.3, None)}
    result = summary(found)
    assert result["best"]["test_error_slow"]["mean"] == 0.3
    assert result["cells"][0]["test_error_slow"]["over_best"]["mean"] == pytest.approx(0.2)
    none = summary({cell: runs(None, None) for cell in found}) | {"recommended": None}
    assert none["best"]["test_error_slow"]["mean"] is None
    assert none["best"]["test_error"]["mean"] == 0.2
    json.dumps(none, allow_nan=False)
    left, right = draw_grid(none).axes
    assert left.get_title() == "no test image is slow"
    assert right.has_data()
