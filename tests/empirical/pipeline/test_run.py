"""The whole of Algorithm 1 in a folder: same bytes, reuse, resume after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker

from common.errors import ParameterError
from empirical.config.arms import ARMS
from empirical.config.settings import Settings
from empirical.pipeline import run as module
from empirical.pipeline.finished import RESULT_KEYS
from empirical.pipeline.run import generate, run, select
from empirical.runtime import Machine

Tiny = Callable[..., Settings]
Contents = Callable[[Path], dict[str, bytes]]
Command = Callable[..., tuple[int, str, str]]

WITH_TIMES = {"result.json", "timings.json", "generator/training.json"}


def same_but_times(one: Path, other: Path, contents: Contents) -> None:
    """The two folders hold the same bytes, up to noted seconds and the folder's own name."""
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    for name in left:
        if name not in WITH_TIMES:
            assert left[name] == right[name], name
    for name in ("result.json", "generator/training.json"):
        if name in left:
            ours, theirs = json.loads(left[name]), json.loads(right[name])
            for key in ("seconds", "command"):
                ours.pop(key, None), theirs.pop(key, None)
            assert ours == theirs


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_every_arm_gives_the_same_bytes_twice(
    tiny: Tiny, tmp_path: Path, contents: Contents, arm: str, optimizer: str
) -> None:
    results = [
        run(tiny(arm=arm, optimizer=optimizer, k=3, seed=3), tmp_path / name)
        for name in ("one", "two")
    ]
    same_but_times(tmp_path / "one", tmp_path / "two", contents)
    result = results[0]
    assert set(RESULT_KEYS) <= set(result)
    assert result == json.loads((tmp_path / "one" / "result.json").read_text(encoding="utf-8"))
    n_slow = round(100 * result["slow_fraction"])
    assert 0 < n_slow < 100
    assert result["n_original"] == 100
    synthetic = {"tada": 2 * n_slow, "syn-rand": 2 * n_slow, "syn-all": 100}.get(arm, 0)
    assert result["n_synthetic"] == synthetic
    assert result["n_training"] == 100 + (2 * n_slow if arm == "upsample" else synthetic)
    assert (tmp_path / "one" / "generator").exists() == (synthetic > 0)
    if synthetic:
        manifest = (tmp_path / "one" / "synthetic" / "manifest.json").read_text(encoding="utf-8")
        assert json.loads(manifest)["images"] == synthetic
    slow = result["slow_fraction_test"]
    mixed = slow * result["test_error_slow"] + (1 - slow) * result["test_error_fast"]
    assert mixed == pytest.approx(result["test_error"])


def test_budgets(tiny: Tiny, tmp_path: Path) -> None:
    by_epochs = run(tiny(arm="syn-all"), tmp_path / "epochs")
    by_steps = run(tiny(arm="syn-all", budget="steps"), tmp_path / "steps")
    assert by_epochs["steps"] == 2 * 8  # 200 images in batches of 25
    assert by_steps["steps"] == 2 * 4  # as many as Original's 100 images need


def test_a_second_run_touches_nothing(
    finished: Path, tiny: Tiny, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished)
    times = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    for name in ("find_slow", "stored_images", "train"):
        monkeypatch.delattr(module, name)
    result = run(tiny(), finished)
    assert result == json.loads(before["result.json"])
    assert contents(finished) == before
    assert times == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


@pytest.mark.parametrize(
    "missing", ["result.json", "network.safetensors", "synthetic", "generator"]
)
def test_what_is_missing_is_made_again_from_the_rest(
    finished: Path, tiny: Tiny, contents: Contents, tmp_path: Path, missing: str
) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "whole")
    path = finished / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (finished / "result.json").unlink(missing_ok=True)
    run(tiny(), finished)
    same_but_times(finished, tmp_path / "whole", contents)


def test_a_damaged_network_beside_a_finished_result_is_named_and_kept(
    finished: Path, tiny: Tiny
) -> None:
    path = finished / "network.safetensors"
    damaged = path.read_bytes()[:100]
    path.write_bytes(damaged)
    with pytest.raises(ParameterError, match=r"^network = .*network\.safetensors"):
        run(tiny(), finished)
    assert path.read_bytes() == damaged


def test_stage_by_stage_is_the_whole(
    finished: Path, tiny: Tiny, tmp_path: Path, contents: Contents
) -> None:
    out = tmp_path / "stages"
    slow = select(tiny(), out)
    assert not (out / "generator").exists()
    images = generate(tiny(), out)
    assert len(images) == slow.train.sum()
    assert not (out / "network.safetensors").exists()
    run(tiny(), out)
    same_but_times(out, finished, contents)


def test_selection_is_the_same_for_both_optimizers_and_all_arms(tiny: Tiny, tmp_path: Path) -> None:
    slow = [
        select(tiny(arm=arm, optimizer=optimizer, lr=0.3), tmp_path / f"{arm}{optimizer}").train
        for arm in ("original", "tada")
        for optimizer in ("sgd", "sam")
    ]
    assert all(np.array_equal(slow[0], other) for other in slow)


def test_k_of_one_needs_no_generator(tiny: Tiny, tmp_path: Path) -> None:
    result = run(tiny(k=1), tmp_path / "run")
    assert result["n_synthetic"] == 0
    assert not (tmp_path / "run" / "generator").exists()


def test_generator_on_the_training_images_alone(finished: Path, tiny: Tiny, tmp_path: Path) -> None:
    run(tiny(generator_data="train"), tmp_path / "other")
    about = [
        json.loads((out / "generator" / "training.json").read_text(encoding="utf-8"))
        for out in (tmp_path / "other", finished)
    ]
    assert [one["images"] for one in about] == [100, 500]


def test_stopped_between_any_two_writes_and_resumed(
    finished: Path, tiny: Tiny, tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename that finishes a file or folder fails once; each time the next call goes on."""
    import os

    whole = os.replace
    done: set[str] = set()

    def replace(source: Any, target: Any) -> None:
        if Path(target).name not in done:
            done.add(Path(target).name)
            raise OSError(28, "No space left on device", str(target))
        whole(source, target)

    monkeypatch.setattr(os, "replace", replace)
    out = tmp_path / "again"
    for _ in range(25):
        try:
            run(tiny(), out)
            break
        except OSError:
            continue
    assert {"settings.json", "selection.json", "generator", "store.json", "result.json"} <= done
    same_but_times(out, finished, contents)


def test_killed_in_generator_training_and_resumed(tmp_path: Path, contents: Contents) -> None:
    words = ["--generator-steps", "30", "--epochs", "2", "--denoising-steps", "2", "--seed", "3"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "empirical", "run", *words, "--out", str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    checkpoint = tmp_path / "killed" / "generator.checkpoint" / "checkpoint.safetensors"
    undisturbed, killed = start(tmp_path / "whole"), start(tmp_path / "killed")
    until = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "generator").exists()
    resumed = start(tmp_path / "killed")
    for process in (undisturbed, resumed):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    same_but_times(tmp_path / "whole", tmp_path / "killed", contents)


def test_command_in_the_result_gives_the_result(
    finished: Path, command: Command, tmp_path: Path, contents: Contents
) -> None:
    line = json.loads((finished / "result.json").read_text(encoding="utf-8"))["command"]
    words = line.split()
    assert words[:4] == ["python", "-m", "empirical", "run"]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    code, said, _ = command(*words[3:])
    assert code == 0
    assert "test error" in said
    same_but_times(tmp_path / "again", finished, contents)


def test_stages_on_the_command_line(
    command: Command, tiny_flags: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for stage, file in (
        ("select", "selection.json"),
        ("generate", "synthetic/manifest.json"),
        ("train", "result.json"),
    ):
        assert not (out / file).exists()
        code, said, _ = command(stage, *tiny_flags, "--out", out)
        assert code == 0
        assert str(out) in said
        assert (out / file).exists()


@pytest.mark.parametrize(
    "stage", ["run", "select", "train-generator", "generate", "train", "compare", "tune"]
)
def test_help_has_an_example(command: Command, stage: str) -> None:
    code, said, _ = command(stage, "--help")
    assert code == 0
    assert f"python -m empirical {stage}" in " ".join(said.split())


class Fake(GeneralTracker):
    """A tracker that keeps what it is told; by name, as wandb's would be."""

    name = "wandb"
    requires_logging_directory = False
    told: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, project: str, **how: Any) -> None:
        super().__init__()
        self.told.append({"project": project, "how": how, "epochs": []})

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told[-1]["config"] = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.told[-1]["epochs"].append(step)


def test_trackers_know_which_run_it_is(tiny: Tiny, tmp_path: Path) -> None:
    """One run for each training, with its settings and the real seed; names tell arms apart."""
    Fake.told.clear()
    runs = [{"arm": "tada"}, {"arm": "tada", "k": 3}, {"arm": "upsample"}, {"arm": "original"}]
    runs += [{"arm": "tada", "seed": 7, "strength": 0.9}, {"arm": "tada", "strengths": (0.5, 0.9)}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
        patch.setattr("accelerate.tracking.is_wandb_available", lambda: True)
        for module_name in (
            "accelerate.tracking",
            "accelerate.accelerator",
            "empirical.training.devices",
        ):
            found = sys.modules[module_name]
            if hasattr(found, "get_available_trackers"):
                patch.setattr(found, "get_available_trackers", lambda: ["wandb"])
        patch.setattr("accelerate.accelerator.filter_trackers", lambda *_: ["wandb"])
        machine = Machine(trackers=("wandb",), project="mine")
        for number, values in enumerate(runs):
            run(tiny(**values), tmp_path / str(number), machine)
    assert len(Fake.told) == len(runs)
    for told, values in zip(Fake.told, runs, strict=True):
        record = tiny(**values).record()
        assert told["project"] == "mine"
        assert told["epochs"] == [1, 2]
        assert told["config"].keys() == record.keys()
        for name in ("arm", "k", "dataset", "strength", "seed", "lr", "epochs"):
            assert told["config"][name] == record[name]
        assert all(isinstance(own, bool | int | float | str) for own in told["config"].values())
    assert len({told["how"]["name"] for told in Fake.told}) == len(runs)


def test_tensorboard_reads_the_settings_back(tiny: Tiny, tmp_path: Path) -> None:
    import yaml

    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    settings = tiny(arm="upsample", k=3, seed=5)
    run(settings, tmp_path / "run", Machine(trackers=("tensorboard",)))
    folder = tmp_path / "run" / "training" / "trackers"
    folder = folder / "digits-small-upsample-k3-sgd-epochs-split0-seed5" / "tada"
    (written,) = folder.rglob("hparams.yml")
    known = yaml.safe_load(written.read_text())
    assert [known[name] for name in ("arm", "k", "dataset", "seed")] == ["upsample", 3, "digits", 5]
    assert known["strength"] == settings.generation.strength
    values = []
    for file in folder.rglob("events.*"):
        found = EventAccumulator(str(file)).Reload()
        for name in (
            found.PluginTagToContent("hparams") if "hparams" in str(found.summary_metadata) else ()
        ):
            content = found.PluginTagToContent("hparams")[name]
            data = plugin_data_pb2.HParamsPluginData.FromString(content)
            values += [
                own.string_value
                for key, own in data.session_start_info.hparams.items()
                if key == "arm"
            ]
    assert values == ["upsample"]


@pytest.mark.parametrize("project", ["", "a/b", "..", "a b"])
def test_a_project_that_is_no_name_is_refused(project: str) -> None:
    with pytest.raises(ParameterError, match=r"^project = .*must be letters"):
        Machine(project=project)


def test_the_docstrings_example_names_what_exists() -> None:
    assert module.__doc__ is not None
    assert "run(Settings(" in module.__doc__


def test_a_finished_run_is_read_without_torch(finished: Path, tiny_flags: list[str]) -> None:
    code = "import sys\nfrom empirical.__main__ import main\ntry:\n    main(sys.argv[1:])\n"
    code += "finally:\n    print('torch' in sys.modules)"
    words = ["run", *tiny_flags, "--out", str(finished)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")
    assert "used again" in done.stderr
