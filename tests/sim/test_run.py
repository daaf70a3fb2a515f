"""`python -m sim run`: its numbers, its folder, resuming after a kill, bad input."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import ParameterError
from common.seeding import torch_stream
from sim import run as run_module
from sim import train
from sim.arms import ARMS, augmented
from sim.data import sample
from sim.measure import fresh_errors
from sim.network import init
from sim.run import METRICS, check, run_in, simulate
from sim.settings import RunSettings
from tests.messages import says

SMALL = RunSettings(
    n_examples=20, dim=30, filters=4, steps=30, seeds=3, sigma_init=0.3, test_examples=500
)
Command = Callable[..., tuple[int, str, str]]


def without_seconds(path: Path) -> dict[str, Any]:
    return {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, arm="syn-rand", rho=0.1, batch_size=8, seed=4, power=2, rectified=True),
        replace(SMALL, arm="upsample", backend="dense", variant="both", n_patches=3),
    ],
)
def test_the_numbers_are_the_engine_s(settings: RunSettings) -> None:
    draws = torch_stream(settings.seed, 0)
    data = sample(settings.data, draws, (3,))
    W = init(4, 30, 0.3, draws, (3,))
    data = augmented(settings.arm, data, 5, torch_stream(settings.seed, 1))
    space = train.prepare(W, data, settings.activation, settings.backend, settings.batch_size)
    end = train.train(
        space,
        settings.lr,
        30,
        settings.rho,
        batch_size=settings.batch_size,
        generator=torch_stream(settings.seed, 2),
    ).end
    test = fresh_errors(
        *(end.features, end.covariance, settings.data, 500, torch_stream(settings.seed, 3)),
        settings.activation,
    )
    result = simulate(settings)
    per_seed = {name: metric["per_seed"] for name, metric in result["metrics"].items()}
    assert per_seed["loss"] == end.loss().tolist()
    assert per_seed["train_error_slow"] == end.errors()["slow"].tolist()
    assert per_seed["test_error"] == test["all"].tolist()
    assert per_seed["test_error_fast"] == test["fast"].tolist()
    assert per_seed["alignment_slow"] == end.W[..., 1].amax(-1).tolist()
    assert result["n_training"] == data.n
    for metric in result["metrics"].values():
        values = np.array(metric["per_seed"])
        assert metric["mean"] == pytest.approx(values.mean())
        assert metric["standard_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(3))


def test_synthetic_examples_beat_copies() -> None:
    error = {}
    for arm in ("upsample", "tada"):
        metrics = simulate(RunSettings(arm=arm, seeds=4), curves=False)["metrics"]
        error[arm] = metrics["test_error_slow"]["mean"]
        assert metrics["train_error"]["mean"] == 0
        assert metrics["test_error_fast"]["mean"] == 0
    assert error["upsample"] > 0.4
    assert error["tada"] < 0.2


def test_arms_share_data_filters_and_test_examples() -> None:
    start = [simulate(replace(SMALL, arm=arm)) for arm in ARMS]
    for result in start[1:]:
        for name in ("alignment_fast", "alignment_slow", "test_error"):
            assert result["curves"][name]["mean"][0] == start[0]["curves"][name]["mean"][0]


def test_curves_go_from_the_start_to_the_end() -> None:
    result = simulate(replace(SMALL, steps=250))
    curves = result["curves"]
    assert curves["steps"][0] == 0
    assert curves["steps"][-1] == 250
    assert len(curves["steps"]) == 101
    assert set(curves) == {"steps", *METRICS}
    for name in METRICS:
        assert len(curves[name]["mean"]) == len(curves[name]["standard_error"]) == 101
        assert curves[name]["mean"][-1] == pytest.approx(result["metrics"][name]["mean"])
    assert "curves" not in simulate(SMALL, curves=False)
    assert simulate(SMALL, curves=False)["metrics"] == simulate(SMALL)["metrics"]


def test_float32_and_one_seed() -> None:
    result = simulate(replace(SMALL, dtype="float32", seeds=1))
    assert result["metrics"]["loss"]["standard_error"] is None
    assert len(result["metrics"]["loss"]["per_seed"]) == 1
    json.dumps(result, allow_nan=False)


def test_a_diverged_run_says_so(command: Command, tmp_path: Path) -> None:
    result = simulate(replace(SMALL, lr=1e150))
    assert result["diverged"] == 3
    assert result["metrics"]["loss"]["mean"] is None
    assert result["metrics"]["test_error"]["mean"] == 1
    assert result["curves"]["loss"]["mean"][0] is not None
    json.dumps(result, allow_nan=False)
    assert result["diverged_at"] == [2, 2, 2]
    out = tmp_path / "deep" / "run"
    for lr in (1e150, 1e120):
        words = [*replace(SMALL, lr=lr).flags, "--out", out]
        code, said, err = command("run", *words)
        assert (code, said) == (2, "")
        (line,) = err.splitlines()
        assert re.match(r"error: all 3 runs diverged at step \d+ \(filters not finite\): ", line)
        assert line.endswith(f"lower --lr {lr:g}")
        assert not (tmp_path / "deep").exists()
    assert command("run", *SMALL.flags, "--out", out)[0] == 0


def test_the_step_at_which_a_seed_diverges_is_the_first() -> None:
    """Against filters that are looked at after every step."""
    settings = replace(SMALL, lr=1000.0, power=5, steps=70, seeds=8)
    found = simulate(settings)["diverged_at"]
    assert any(found)
    space = run_module._prepared(settings)
    seen: list[torch.Tensor] = []
    train.train(space, 1000.0, 70, record=lambda point: (seen.append(point.W), {})[1])
    for seed, step in enumerate(found):
        bad = [t for t, W in enumerate(seen) if not W[seed].isfinite().all()]
        assert (bad[0] if bad else None) == step


def test_some_seeds_that_diverge_are_counted_and_named(command: Command, tmp_path: Path) -> None:
    for lr in (100.0, 300.0, 1000.0, 3000.0, 1e4):
        settings = replace(SMALL, lr=lr, power=5, seeds=8)
        diverged = simulate(settings, curves=False)["diverged"]
        if 0 < diverged < 8:
            code, out, _ = command("run", *settings.flags, "--out", tmp_path / str(lr))
            assert code == 0
            text = " ".join(out.split())
            assert f"{diverged} of 8 seeds diverged, the first at step" in text
            assert f"lower --lr {lr:g}" in text
            return
    pytest.fail("no learning rate at which some diverge and some do not")


def test_the_folder(command: Command, tmp_path: Path) -> None:
    words = ["run", *SMALL.flags, "--out", tmp_path / "deep"]
    code, out, _ = command(*words)
    assert code == 0
    assert "test_error_slow" in out
    names = {path.name for path in (tmp_path / "deep").iterdir()}
    assert names == {"settings.json", "result.json", "curves.png"}
    text = (tmp_path / "deep" / "result.json").read_bytes()
    result = json.loads(text)
    assert result["settings"] == asdict(SMALL)
    assert result["metrics"] == simulate(SMALL)["metrics"]
    assert result["command"].startswith("python -m sim run --n-examples 20")
    assert {"seconds", "versions"} <= set(result)
    (tmp_path / "deep" / "curves.png").unlink()
    code, _, err = command(*words)
    assert code == 0
    assert "finished before" in err
    assert (tmp_path / "deep" / "result.json").read_bytes() == text
    assert (tmp_path / "deep" / "curves.png").exists()
    code, _, err = command(*words, "--k", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --k 3: must be 5 as in ")
    assert (tmp_path / "deep" / "result.json").read_bytes() == text


def test_without_a_folder_it_only_prints(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("run", *SMALL.flags)
    assert code == 0
    assert "test_error_slow" in out
    assert not list(tmp_path.iterdir())


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SMALL, steps=2000, batch_size=8)
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    words = [sys.executable, "-m", "sim", "run", *settings.flags, "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path / "killed", stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed" / "run"
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()

    steps = 0
    step = train.step

    def counted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(train, "step", counted)
    for name in ("whole", "killed"):
        monkeypatch.chdir(tmp_path / name)
        steps = 0
        run_in(Path("run"), settings)
    assert 0 < steps < 2000
    whole, killed = (without_seconds(tmp_path / n / "run/result.json") for n in ("whole", "killed"))
    assert killed == whole
    assert not (folder / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--arm tadah", "arm = tadah: must be one of original, upsample, tada, syn-rand, syn-all"),
        ("--k 0", "k = 0: must be a whole number, at least 1"),
        ("--k 1.5", "--k"),
        ("--alpha 1", "alpha = 1.0: must be inside (0, 1)"),
        ("--alpha .999", "alpha = 0.999: must be such that some of the 100 examples are fast"),
        ("--beta-slow 2", "beta_slow = 2.0: must be below beta_fast = 1.0"),
        ("--beta-fast inf", "beta_fast = inf: must be finite"),
        ("--sigma-noise -1", "sigma_noise = -1.0: must be 0 or more"),
        ("--sigma-noise nan", "sigma_noise = nan: must be finite"),
        ("--sigma-synthetic -1", "sigma_synthetic = -1.0: must be 0 or more"),
        ("--fidelity 1.5", "fidelity = 1.5: must be inside [0, 1]"),
        ("--kept-noise -1", "kept_noise = -1.0: must be inside [0, 1]"),
        ("--variant neither", "variant = neither: must be one of"),
        ("--variant both", 'n_patches = 2: must be at least 3 for variant "both"'),
        ("--noise pink", "noise = pink: must be one of"),
        ("--noise orthogonal --dim 150", "dim = 150: must be at least 182 for that many"),
        ("--dim 2", "dim = 2: must be a whole number, at least 3"),
        ("--filters 0", "filters = 0: must be a whole number, at least 1"),
        ("--sigma-init -1", "sigma_init = -1.0: must be 0 or more"),
        ("--power 1", "power = 1: must be a whole number, at least 2"),
        ("--lr 0", "lr = 0.0: must be positive"),
        ("--steps 0", "steps = 0: must be a whole number, at least 1"),
        ("--rho -1", "rho = -1.0: must be 0 or more"),
        ("--batch-size 181", "batch_size = 181: must be a whole number between 1 and 180"),
        ("--batch-size 0", "batch_size = 0: must be a whole number between 1 and 180"),
        ("--arm original --batch-size 101", "batch_size = 101: must be a whole number between 1"),
        ("--seeds 0", "seeds = 0: must be a whole number, at least 1"),
        ("--seed -1", "seed = -1: must be a whole number, at least 0"),
        ("--seed 9223372036854775808", "seed = 9223372036854775808: must be"),
        ("--dtype float16", "dtype = float16: must be one of float32, float64"),
        ("--device tpu", "device = tpu: must be one of cpu, cuda"),
        ("--backend fast", "backend = fast: must be one of auto, dense, span"),
        ("--test-examples 0", "test_examples = 0: must be a whole number, at least 1"),
        ("--n-examples 100000000000", "sim run needs about 2.9e+07 GiB for 100000000000 examples"),
        ("--nonsense 3", "--nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, tmp_path: Path, words: str, line: str
) -> None:
    code, out, err = command("run", *words.split(), "--out", tmp_path / "run")
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says(err, line)
    assert not (tmp_path / "run" / "result.json").exists()


def test_every_size_that_check_allows_fits() -> None:
    for arm in ARMS:
        for variant, n_patches in (("either", 2), ("both", 3)):
            settings = replace(
                SMALL, arm=arm, variant=variant, n_patches=n_patches, noise="orthogonal", dim=200
            )
            settings = replace(settings, steps=1, k=2)
            with pytest.raises(ParameterError, match=r"^dim = 3: must be at least") as caught:
                check(replace(settings, dim=3))
            fewest = int(caught.value.allowed.split()[2])
            simulate(replace(settings, dim=fewest), curves=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_said_before_the_work() -> None:
    with pytest.raises(ParameterError, match=r"^device = cuda: must be cpu"):
        simulate(replace(SMALL, device="cuda"))


def test_unusable_folders(command: Command, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    for name, content in (("settings.json", "{"), ("result.json", '{"settings": 1}')):
        assert command("run", *SMALL.flags, "--out", tmp_path / name)[0] == 0
        (tmp_path / name / name).write_text(content)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text("{}")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "checkpoint.safetensors").write_text("not one")
    for folder, line in (
        (blocked / "run", "file"),
        (tmp_path / "settings.json", "settings.json is not a whole JSON file"),
        (tmp_path / "result.json", "result.json is not a JSON object with"),
        (tmp_path / "foreign", "must be another folder"),
        (tmp_path / "checkpoint", "must be a whole safetensors file"),
    ):
        code, out, err = command("run", *SMALL.flags, "--out", folder)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says(err, line)
    assert blocked.read_text() == "kept"
    assert (tmp_path / "foreign" / "result.json").read_text() == "{}"


def test_help_shows_examples(command: Command) -> None:
    for name in ("run", "sweep"):
        code, out, _ = command(name, "--help")
        assert code == 0
        assert out.count(f"python -m sim {name} --") >= 2
