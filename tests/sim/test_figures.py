"""`sim figure`: committed results are the present code's; making is whole, resumable, seeded."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure as Canvas

from common.errors import ParameterError
from common.plotting import STYLE
from sim.backends.span import Span
from sim.data import DataConfig
from sim.figures import (
    FIGURES,
    amplification,
    base,
    convergence,
    family,
    maps,
    sam_validity,
    training,
    variance,
)
from sim.figures import make as making
from sim.figures.base import Figure, Part, band, draw, numbers, spaced, together
from sim.figures.training import learning_times
from tests.messages import says
from theory.amplification import learning_time

RESULTS = Path(__file__).parents[2] / "results" / "sim"


def _double(seed: int, value: int) -> dict:
    return {str(value): float(torch.rand(1, generator=torch.Generator().manual_seed(seed + value)))}


def _canvas(data: dict) -> Canvas:
    canvas = Canvas(figsize=(2, 2))
    canvas.subplots().plot(sorted(data.values()))
    return canvas


def _figure(name: str, function=_double) -> Figure:
    parts = [Part(function, (i,)) for i in range(4)]
    return Figure(name, "a test", {"data": DataConfig()}, parts, together, _canvas)


@pytest.fixture
def two_figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    figures = {name: _figure(name) for name in ("one", "two")}
    monkeypatch.setattr(making, "FIGURES", figures)
    return figures


@pytest.mark.parametrize("name", list(FIGURES))
def test_committed_results_are_of_the_present_settings_and_can_be_drawn(name: str) -> None:
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    settings = FIGURES[name].settings
    plain = {k: asdict(v) if is_dataclass(v) else v for k, v in settings.items()}
    assert found["settings"] == json.loads(json.dumps(plain))
    assert found["command"] == f"python -m sim figure {name} --seed 0"
    assert (RESULTS / f"{name}.png").stat().st_size > 10_000
    with mpl.rc_context(STYLE):
        assert isinstance(FIGURES[name].draw(found["data"]), Canvas)


def test_at_least_ten_seeds_and_maps_of_thirty_cells_a_side() -> None:
    assert base.SEEDS >= 10
    assert maps.SEEDS >= 10
    assert sam_validity._SEEDS >= 10
    for side in (sam_validity._INITS, sam_validity._NOISES, sam_validity._SIZES):
        assert len(set(side)) >= 30
    for side in (
        sam_validity._GROWTH_INITS,
        sam_validity._COUNTS,
        maps._MAP_NOISES,
        maps._MAP_BETAS,
    ):
        assert len(set(side)) >= 30
    assert len(maps._FACTORS) >= 30
    assert len(maps._AMPLITUDES) >= 30


_SHORT_WORLDS = {name: how | {"steps": 6} for name, how in convergence._WORLDS.items()}


@pytest.mark.parametrize(
    ("module", "figure", "shorter"),
    [
        (training, "alignment", {"_ALIGNMENT_STEPS": 4}),
        (training, "learning-time", {"_TIME_STEPS": 40}),
        (training, "arms", {"STEPS": 6}),
        (convergence, "convergence", {"_POINTS": 3, "_WORLDS": _SHORT_WORLDS}),
        (amplification, "test-error", {"STEPS": 4, "_KS": [1, 2]}),
        (amplification, "best-k", {"_FACTORS": (0.8, 1.0, 1.3), "_BEST_STEPS": 300}),
        (variance, "gradient-variance", {"_STEPS": 4, "_DRAWS": 10, "_MOMENTS": 2}),
        (sam_validity, "sam-map", {"_INITS": [0.01, 0.1]}),
        (family, "family", {"_STEPS": 4, "_SHARES": [0.2, 0.9]}),
        (maps, "generation-map", {"_MAP_STEPS": 4, "_MAP_BETAS": [0.4, 0.8]}),
    ],
)
def test_a_part_of_each_figure_depends_on_its_seed_alone(
    module, figure: str, shorter: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shorter.items():
        monkeypatch.setattr(module, name, value)
    part = FIGURES[figure].parts[-1 if figure == "best-k" else 0]
    first, again, other = (json.dumps(part.function(s, *part.arguments)) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert "NaN" not in first


def test_making_writes_json_and_png_and_reuses_them(
    two_figures: dict[str, Figure], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = making.make(["all"], tmp_path, seed=3, jobs=1)
    assert [p.name for p in plots] == ["one.png", "two.png"]
    found = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert sorted(found["data"]) == ["0", "1", "2", "3"]
    assert found["made_by"]["seed"] == 3
    assert found["settings"]["data"]["n_examples"] == 400
    first = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(first) == 4
    (tmp_path / "two.json").write_text("{", encoding="utf-8")  # damaged: computed anew
    making.make(["one", "two"], tmp_path, seed=3, jobs=2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == first
    assert "one.json: measured before" in capsys.readouterr().err
    making.make(["one"], tmp_path, seed=4, jobs=1)
    assert (tmp_path / "one.json").read_bytes() != first["one.json"]


def test_other_code_measures_again(
    two_figures: dict[str, Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making.make(["one"], tmp_path, jobs=1)
    monkeypatch.setattr(making, "sources", lambda *packages: "other")
    making.make(["one"], tmp_path, jobs=1)
    found = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert found["made_by"]["sources"] == "other"


def _fails(seed: int, value: int) -> dict:
    raise RuntimeError("stopped")


def test_a_failing_figure_leaves_the_finished_one_and_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures = {"one": _figure("one"), "two": _figure("two", _fails)}
    monkeypatch.setattr(making, "FIGURES", figures)
    with pytest.raises(RuntimeError, match="stopped"):
        making.make(["all"], tmp_path, jobs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]


def test_a_killed_command_goes_on_with_the_first_unfinished_figure(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from sim.figures import make as making
from sim.figures.base import Figure, Part, together
from matplotlib.figure import Figure as Canvas
def quick(seed): return {{"a": 1.0}}
def slow(seed): time.sleep(0 if os.environ.get("FAST") else 60); return {{"b": 2.0}}
def draw(data): c = Canvas(); c.subplots(); return c
making.FIGURES = {{
    "one": Figure("one", "", {{}}, [Part(quick)], together, draw),
    "two": Figure("two", "", {{}}, [Part(slow)], together, draw),
}}
making.make(["all"], Path({str(tmp_path)!r}), jobs=1)
"""
    command = [sys.executable, "-c", script]
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    waited = time.monotonic() + 60
    while not (tmp_path / "one.json").exists() and time.monotonic() < waited:
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]
    again = subprocess.run(
        command, env=os.environ | {"FAST": "1"}, capture_output=True, text=True, check=True
    )
    assert "one.json: measured before" in again.stderr
    assert "two.json: measured before" not in again.stderr
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("match", "names", "how"),
    [
        ("^figure = none", [], {}),
        ("^figure = nope: must be one of alignment", ["nope"], {}),
        ("^seed = -1", ["arms"], {"seed": -1}),
        ("^jobs = 0", ["arms"], {"jobs": 0}),
    ],
)
def test_bad_input(match: str, names: list[str], how: dict, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=match):
        making.make(names, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_learning_times_follow_equation_32() -> None:
    start = draw(0, DataConfig(n_examples=20, dim=30, sigma_noise=0.001), 4, 0.05, seeds=6)
    space = Span.of(start.data, start.W)
    time_taken = learning_times(space, torch.tensor([1.0, 0.3]), 0.2, 1500)
    predicted = torch.tensor(
        [learning_time(1.0, 0.8, 0.5, float(w), 0.2) for w in start.W[..., 0].amax(-1)]
    )
    assert torch.allclose(time_taken[:, 0].float(), predicted, rtol=0.12)
    assert time_taken[:, 1].isnan().all(), "1500 steps do not suffice for the slow feature"


def test_crossing_and_argmin_find_what_was_planted() -> None:
    ks = [2, 4, 8, 16, 32]
    log_k = torch.tensor(ks).double().log()
    planted = torch.tensor([6.0, 7.0, 9.0]).double().log()
    found = amplification._crossing(ks, planted - log_k.unsqueeze(1))
    assert found["mean"] == pytest.approx(float(planted.mean().exp()), rel=1e-4)
    beyond = amplification._crossing(ks, (planted + 3) - log_k.unsqueeze(1))
    assert beyond["mean"] == pytest.approx(float((planted + 3).mean().exp()), rel=1e-4)
    bowl = ((log_k.unsqueeze(1) - planted) ** 2).exp()
    assert amplification._argmin(ks, bowl)["mean"] == pytest.approx(7.2, rel=0.01)


def test_border_of_a_map_is_found_where_it_was_planted() -> None:
    x = [0.01, 0.02, 0.04, 0.08]
    planted = torch.tensor([0.025, 0.030, 0.036]).double().log()
    samples = torch.tensor(x).double().log().unsqueeze(1) - planted
    found = sam_validity.crossing(x, samples)
    assert found["mean"] == pytest.approx(float(planted.mean().exp()), rel=1e-4)
    error = float(planted.std() / 3**0.5 * planted.mean().exp())
    assert found["standard_error"] == pytest.approx(error, rel=1e-4)
    assert sam_validity.crossing(x, -samples) == found
    assert sam_validity.crossing(x, samples + 9) == {"mean": None, "standard_error": None}


def test_border_of_a_feature_row_is_the_predicted_one_at_equal_h_and_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sam_validity, "_GROWTH_INITS", [0.2, 0.25, 0.3, 0.35])
    row = sam_validity._feature_row(5, 20)
    found = row["at equal h and logits"]
    assert abs(found["mean"] - row["predicted"]) < 4 * found["standard_error"]
    assert found["standard_error"] < 0.03 * row["predicted"]
    assert row["measured"]["mean"] > found["mean"]


def test_bands_and_numbers() -> None:
    samples = torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, float("nan")]])
    found = band(samples)
    assert found["mean"] == [2.0, None]
    assert found["standard_error"] == [pytest.approx(3**-0.5, rel=1e-4), None]
    assert numbers(torch.tensor(1 / 3)) == 0.33333
    assert spaced(10, 3) == [0, 5, 10]
    assert spaced(2, 100) == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("figure", "figure = none: must be one of alignment"),
        ("figure arms nope", "figure = nope: must be one of alignment"),
        ("figure arms --seed -1", "seed = -1: must be 0 or more"),
        ("figure arms --seed x", "seed"),
        ("figure arms --jobs 0", "jobs = 0: must be a whole number of at least 1"),
        ("figure arms --out FILE/folder", "FILE"),
        ("bench --out FOLDER", "is a folder, a file name is needed"),
        ("bench --fast", "fast"),
    ],
)
def test_bad_commands_are_one_line_and_exit_2(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable
) -> None:
    (tmp_path / "FILE").write_text("precious", encoding="utf-8")
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says(err, said)
    assert (tmp_path / "FILE").read_text(encoding="utf-8") == "precious"


def test_a_target_is_reached_when_the_curve_stays_below() -> None:
    steps = [0, 10, 20, 30, 40]
    assert convergence._reached(steps, [None, 3.0, 0.5, 2.0, 0.0], 1.0) == 35
    assert convergence._reached(steps, [None, 0.9, 0.5, 0.1, 0.0], 1.0) == 10
    assert convergence._reached(steps, [None, 3.0, 2.0, 2.0, 1.5], 1.0) is None
    assert convergence._reached(steps, [2.0, 1.0, 0.5, 0.2, 0.1], 1.0) == 10
