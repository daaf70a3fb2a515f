"""The comparison on any data set: its statistics, warnings, time, and a whole one."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from common.errors import ParameterError
from empirical.config.presets import PRESETS
from empirical.config.settings import changed
from empirical.config.study import Study, duration
from empirical.datasets.base import Images, ImageSet
from empirical.datasets.splits import Split
from empirical.experiments import notices, timing, verdicts
from empirical.experiments.timing import Speed

Command = Callable[..., tuple[int, str, str]]


# --- differences ---------------------------------------------------------------------------------


def test_a_difference_by_hand() -> None:
    wrong = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    others = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], dtype=bool)
    found = verdicts.difference(wrong, others)
    assert found.mean == pytest.approx(-3 / 8)
    images, seeds = np.array([0, -0.5, -1, 0]), np.array([-0.25, -0.5])
    assert found.from_images == pytest.approx(images.std(ddof=1) / 2)
    assert found.from_seeds == pytest.approx(seeds.std(ddof=1) / np.sqrt(2))


def test_intervals_cover_the_truth_where_images_and_seeds_are_random() -> None:
    """500 comparisons with effects of images, of seeds and of both; expected 95%."""
    rng, covered = np.random.default_rng(5), 0
    n, seeds, times = 400, 5, 500
    for _ in range(times):
        base = rng.normal(0, 1, n)
        arms = []
        for shift in (0.0, -0.25):
            own = base + 0.5 * rng.normal(0, 1, n) + shift
            level = 0.12 * rng.normal(0, 1, (seeds, 1))
            arms.append(own + level + rng.normal(0, 1, (seeds, n)) > 1)
        # the truth, over images and seeds
        spread = np.sqrt(1 + 0.25 + 0.12**2 + 1)
        truth = stats.norm.sf((1 + 0.25) / spread) - stats.norm.sf(1 / spread)
        found = verdicts.difference(arms[1], arms[0])
        covered += found.low <= truth <= found.high
    # binomial(500, .95): below 455 with probability 3e-4, and wider is allowed
    assert covered >= 455


def test_no_difference_is_undecided() -> None:
    same = np.zeros((3, 10), dtype=bool)
    found = verdicts.difference(same, same)
    assert (found.mean, found.low, found.high, found.decided) == (0, 0, 0, False)
    assert verdicts.sentence(found).startswith("undecided")


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_large_difference_is_decided_with_any_number_of_seeds(seeds: int) -> None:
    rng = np.random.default_rng(1)
    found = verdicts.difference(rng.random((seeds, 500)) < 0.1, rng.random((seeds, 500)) < 0.3)
    assert found.high < 0
    assert found.more_seeds == 0


def made(mean: float, error: float, more: int | None = 3) -> verdicts.Difference:
    low, high = mean - 2 * error, mean + 2 * error
    decided = low > 0 or high < 0
    return verdicts.Difference(mean, error, low, high, error, error, 3, 60, 0 if decided else more)


def test_verdicts_in_words() -> None:
    helps, hurts, open_ = made(-0.02, 0.004), made(0.02, 0.004), made(-0.004, 0.01)
    said = verdicts.verdict({"epochs": helps, "steps": helps}, [])
    assert said.startswith("TADA helps: -2.0 ± 0.4 points")
    assert "at equal epochs, and -2.0 ± 0.4 at equal optimizer steps" in said
    said = verdicts.verdict({"epochs": helps, "steps": open_}, [])
    assert said.startswith("TADA helps: -2.0 ± 0.4")
    assert "at equal optimizer steps, undecided" in said
    assert verdicts.verdict({"epochs": hurts}, []).startswith("do not use these images: TADA hurts")
    said = verdicts.verdict({"epochs": open_}, ["they are static"])
    assert said.startswith("do not use these images: they are static; undecided")
    assert "about 3 more seeds (--seeds 6)" in verdicts.verdict({"epochs": open_}, [])
    few = verdicts.verdict({"epochs": made(-0.004, 0.01, None)}, [])
    assert "more test images might" in few


def test_the_seeds_that_are_advised_would_decide_it() -> None:
    rng = np.random.default_rng(3)
    n = 3000

    def arm(seeds: int, share: float) -> np.ndarray:
        level = 0.02 * rng.normal(0, 1, (seeds, 1))
        return rng.random((seeds, n)) < share + level

    first = verdicts.difference(arm(2, 0.2), arm(2, 0.225))
    assert first.more_seeds is not None
    found = verdicts.difference(arm(60, 0.2), arm(60, 0.225))
    assert found.decided


# --- warnings ------------------------------------------------------------------------------------


def image_set(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> tuple[ImageSet, Split]:
    classes = ("cat", "dog")
    own = [
        Images(torch.from_numpy(pixels), torch.from_numpy(labels[: len(pixels)]), classes)
        for pixels in (train, test)
    ]
    files = tuple(tuple(f"{part}/{n}.png" for n in range(99)) for part in ("train", "test"))
    data = ImageSet("folder", *own, True, (0.5,) * 3, (0.2,) * 3, files=files)  # type: ignore[arg-type]
    none = np.zeros(0, dtype=np.int64)
    return data, Split(np.arange(len(train)), none, np.arange(len(test)), none)


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return tuple(rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for n in (40, 12))  # type: ignore[return-value]


def test_small_classes_are_said(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    labels = np.array([0] * 35 + [1] * 5)
    (line,) = notices.of_data(*image_set(*pictures, labels))
    assert "fewer than 10 training images in dog (5)" in line
    assert not notices.of_data(*image_set(*pictures, np.arange(40) % 2))


def test_duplicates_are_said(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = pictures
    test[3] = train[8]
    test[5] = np.clip(train[9].astype(int) + 1, 0, 255).astype(np.uint8)
    flat = np.full((3, 16, 16), 90, dtype=np.uint8)
    test[7], train[1] = flat, flat + 1
    data, split = image_set(train, test, np.arange(40) % 2)
    same, near = notices.duplicates(data, split)
    assert same == [(8, 3)]
    assert near == [(9, 5)]
    lines = notices.of_data(data, split)
    assert "train/8.png and test/3.png" in lines[0]
    assert "look like a training image, as train/9.png and test/5.png" in lines[1]


def overall(**values: float) -> dict[str, dict[str, float]]:
    usual = {"amplitude": 1.0, "kept_noise": 0.3, "relative_consistency": 0.9}
    return {name: {"value": value} for name, value in (usual | values).items()}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"amplitude": 18.4}, "18.4 times the noise of their sources: static"),
        ({"amplitude": 0.2}, "0.20 times the detail of their sources: too smooth"),
        ({"relative_consistency": 0.4}, "only 40% as many"),
        ({"kept_noise": 0.99}, "nearly copies of their sources (99%"),
    ],
)
def test_images_that_are_no_use_are_said(values: dict[str, float], said: str) -> None:
    (line,) = notices.of_images(overall(**values))
    assert said in line
    assert not notices.of_images(overall())
    assert not notices.of_images(None)


def test_networks_at_chance_and_strange_slow_sets_are_said() -> None:
    labels = np.arange(100) % 2
    guessing, learned = np.arange(100)[None] % 4 < 2, np.zeros((1, 100), dtype=bool)
    (line,) = notices.of_networks({"tada": guessing, "original": learned}, labels)
    assert "the networks of tada are at chance" in line
    assert "only 1.0%" in notices.of_selection(0.01, [])[0]
    assert "90% of the training images are slow" in notices.of_selection(0.9, [])[0]
    assert notices.of_selection(0.3, ["said before"]) == ["said before"]


# --- time ----------------------------------------------------------------------------------------

FOLDER = PRESETS["folder-small"]
ARMS = ("original", "upsample", "tada")
SPEED = Speed(step=0.1, generator_step=0.2, image=0.05)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "-3m", "1d", "", "5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ParameterError, match="time_budget"):
        Study(time_budget=text)


def test_without_a_budget_it_is_as_asked() -> None:
    plan = timing.fit(FOLDER, ARMS, 3, ("epochs", "steps"), 240, SPEED, None)
    assert (plan.settings, plan.seeds, plan.budgets, plan.dropped) == (
        FOLDER, 3, ("epochs", "steps"), (),
    )  # fmt: skip
    # 240 images: 8 steps; original 8, upsample and tada 11 at equal epochs and 8 at equal steps
    assert plan.seconds["training"] == pytest.approx(3 * 40 * (8 + 2 * 11 + 2 * 8) * 0.1)
    assert plan.seconds["generator"] == pytest.approx(1500 * 0.2)
    assert plan.seconds["selection"] == pytest.approx(3 * 5 * 8 * 0.1)


@pytest.mark.parametrize("budget", [60, 120, 300, 600, 5000])
def test_what_is_planned_fits_the_budget(budget: float) -> None:
    try:
        plan = timing.fit(FOLDER, ARMS, 3, ("epochs", "steps"), 240, SPEED, budget)
    except ParameterError as error:
        assert budget <= 120
        assert "time_budget" in str(error)  # noqa: PT017
        return
    assert plan.total <= budget
    assert plan.seeds >= 2
    assert plan.settings.training.epochs >= 10
    assert bool(plan.dropped) == (budget < 1100)


def test_what_is_asked_for() -> None:
    with pytest.raises(ParameterError, match="arms"):
        Study(arms=("original", "upsample"))
    with pytest.raises(ParameterError, match="near: syn-rand"):
        Study(arms=("original", "tada", "syn-random"))
    with pytest.raises(ParameterError, match="seeds"):
        Study(seeds=0)


# --- a whole one ---------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two classes of noise around a dark and a bright grey."""
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            levels = np.clip(rng.normal(level, 40, (9, 9, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(levels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


FLAGS = [
    *("--image-size", 8, "--network", "small", "--epochs", 2, "--batch-size", 8, "--seeds", 2),
    *("--separating-epoch", 2, "--generator-steps", 3, "--denoising-steps", 2, "--strength", 0.5),
    *("--generator-shuffle", 1, "--cpu"),
]


def test_a_folder_of_images_from_end_to_end(
    command: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--dataset", f"folder:{photos}", *FLAGS]
    code, said, err = command(*words, "--out", "plan", "--dry-run")
    assert code == 0, err
    assert said.startswith("about ")
    assert not Path("plan").exists()
    code, said, err = command(*words, "--out", "out")
    assert code == 0, err
    assert said.splitlines()[-1] == str(Path("out") / "report.html")
    found = json.loads(Path("out/results.json").read_text())
    assert [row["arm"] for row in found["table"]] == ["original", *["upsample"] * 2, *["tada"] * 2]
    by_cell = {(row["arm"], row["budget"]): row for row in found["table"]}
    original = by_cell["original", "both"]
    assert by_cell["tada", "steps"]["steps"] == original["steps"]
    assert by_cell["tada", "epochs"]["steps"] > original["steps"]
    assert by_cell["tada", "epochs"]["n_synthetic"] > 0
    assert found["verdict"] in said
    for line in found["warnings"]:
        assert f"warning: {line}" in said
    rows = list(csv.DictReader(Path("out/slow.csv").read_text().splitlines()))
    assert len(rows) == 32
    assert {row["class"] for row in rows} == {"dark", "light"}
    assert (photos / rows[0]["file"]).is_file()
    assert {row["slow"] for row in rows} == {"slow", "fast"}
    page = Path("out/report.html").read_text()
    assert found["verdict"].split(":")[0][1:] in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # needs no other file
    # and again: nothing is trained, the numbers are the same
    code, again, err = command(*words, "--out", "out")
    assert (code, again) == (0, said)
    assert "training steps" not in err
    code, _, err = command(*words, "--seeds", 3, "--out", "out")
    assert code == 2
    assert "--seeds 3: must be 2 as in out/settings.json, or another --out" in err


def test_a_generator_of_ten_lines(
    command: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ten_lines.py").write_text(
        "import torch\n\n"
        "def lighter(originals, strength, streams):\n"
        "    images = originals.pixels.float()\n"
        "    for image, stream in zip(images, streams):\n"
        "        image += 40 * strength * torch.rand((), generator=stream)\n"
        "    return images.clamp(0, 255).round().to(torch.uint8)\n"
    )
    words = [*("compare", "--dataset", f"folder:{photos}"), *FLAGS, "--budgets", "epochs"]
    generator = ["--generator", "python:ten_lines:lighter", "--keep", "agreeing"]
    code, _, err = command(*words, *generator, "--synthetic-probability", 0.5, "--out", "out")
    assert code == 0, err
    found = json.loads(Path("out/results.json").read_text())
    assert found["plan"]["settings"]["generator"] == "python:ten_lines:lighter"
    code, _, err = command(*words, "--generator", "python:ten_lines:darker", "--out", "other")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "a name in ten_lines" in err
    assert not Path("other").exists()


def test_the_settings_of_earlier_versions_are_read() -> None:
    from empirical.config.settings import from_record

    record = FOLDER.record()
    later = ("image_size", "flips", "keep", "label_smoothing", "scores", "pretrained")
    before = {name: value for name, value in record.items() if name not in later}
    assert from_record(before, "x") == changed(FOLDER, image_size=64)
    with pytest.raises(ParameterError, match="settings of a run; it differs in k"):
        from_record({name: v for name, v in record.items() if name != "k"}, "x")


def test_two_copies_of_a_plan_are_one() -> None:
    plan = timing.fit(FOLDER, ARMS, 3, ("epochs",), 240, SPEED, None)
    assert replace(plan).record() == plan.record()
