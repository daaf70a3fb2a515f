"""Bad input: one line on stderr that names parameter, value and what is allowed; exit code 2."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import zeros

from empirical.generation.train import WEIGHTS
from tests.messages import says

Command = Callable[..., tuple[int, str, str]]
Contents = Callable[[Path], dict[str, bytes]]


def one_line(result: tuple[int, str, str], *parts: str) -> None:
    code, out, err = result
    assert code == 2
    assert out == ""
    done = [line for line in err.splitlines() if line.startswith("early steps: ")]
    errors = [line for line in err.splitlines() if line not in done]
    assert [line[:7] for line in errors] == ["error: "], err
    assert "Traceback" not in err
    for part in parts:
        assert says(err, part)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--dataset", "cifar11", "dataset = cifar11: must be digits"),
        ("--network", "huge", "network = huge: must be small"),
        (
            *("--arm", "upsampel"),
            "arm = upsampel: must be original or upsample or tada or syn-rand or syn-all",
        ),
        ("--optimizer", "adam", "optimizer = adam: must be sgd or sam"),
        ("--budget", "time", "budget = time: must be epochs or steps"),
        ("--outputs", "features", "outputs = features: must be logits or softmax"),
        ("--sampler", "magic", "scheduler = magic: must be ddpm, ddim, pndm, euler"),
        ("--generator-data", "test", "generator_data = test: must be pool or train"),
        ("--k", "0", "k = 0: must be a whole number of at least 1"),
        ("--k", "-2", "k = -2: must be a whole number of at least 1"),
        ("--k", "1.5", "--k"),
        ("--strength", "0", "strength = 0.0: must be in (0, 1]"),
        ("--strength", "1.1", "strength = 1.1: must be in (0, 1]"),
        ("--strength", "nan", "strength = nan: must be in (0, 1]"),
        ("--strength", "1e-308", "strength = 1e-308: must be at least 0.002"),
        ("--strength", "0.0001", "strength = 0.0001: must be at least 0.002"),
        ("--denoising-steps", "0", "denoising_steps = 0: must be a whole number of at least 1"),
        ("--batch-size", "101", "batch_size = 101: must be at most n_train = 100"),
        ("--batch-size", "0", "batch_size = 0: must be a whole number of at least 1"),
        ("--n-train", "99", "n_train = 99: must be between 100 and 300 for digits"),
        ("--n-train", "2000", "n_train = 2000: must be between 100 and 300 for digits"),
        ("--split", "11", "split = 11: must be between 0 and 10 with n_train = 100"),
        ("--split", "-1", "split = -1: must be a whole number of at least 0"),
        ("--seed", "-1", "seed = -1: must be a whole number of at least 0"),
        ("--epochs", "0", "epochs = 0: must be a whole number of at least 1"),
        ("--dataset", "cifar1", "dataset = cifar1: must be digits"),
        ("--dataset", "folder:", "dataset = folder:: must be digits"),
        ("--network", "resnet", "network = resnet: must be small, conv4, resnet18"),
        ("--optimizer", "lion", "optimizer = lion: must be sgd or sam"),
        ("--arm", "all", "arm = all: must be original"),
        ("--selection", "magic", "selection = magic: must be cluster or loss"),
        ("--clusters", "1", "clusters = 1: must be a whole number of at least 2"),
        ("--theta", "1", "theta = 1.0: must be inside (0, 1)"),
        ("--outputs", "input", "outputs = input: must be logits or softmax or penultimate"),
        ("--augmentation", "cutout", "augmentation = cutout: must be none"),
        ("--mixing", "blend", "mixing = blend: must be none or mixup or cutmix"),
        ("--schedule", "linear", "schedule = linear: must be step or cosine or constant"),
        ("--warmup-epochs", "100", "warmup_epochs = 100.0: must be between 0 and epochs"),
        ("--precision", "fp8", "precision = fp8: must be no or bf16 or fp16"),
        ("--precision", "fp16", "precision = fp16: must be no or bf16 on a CPU"),
        (
            "--generator",
            "ideal",
            "generator = ideal: must be a trained one for digits: only planted",
        ),
        ("--generator", "gan", "generator = gan: must be pixel, glide, ideal"),
        ("--generator", "hub:", "generator = hub:: must be pixel, glide, ideal"),
        ("--generator-dtype", "int8", "generator_dtype = int8: must be float32 or"),
        ("--generator-widths", "12", "widths = (12,): must be multiples of 8"),
        ("--generation-batch", "0", "generation_batch = 0: must be at least 1"),
        ("--strengths", "1.5", "strengths = 1.5: must be in (0, 1]"),
        ("--boomerang-strength", "0", "boomerang_strength = 0.0: must be in (0, 1]"),
        ("--threads", "0", "threads = 0: must be at least 1"),
        ("--checkpoint-every", "-1", "checkpoint_every = -1.0: must be 0 or more seconds"),
        ("--trackers", "abacus", "trackers = abacus: must be one that is installed"),
        ("--preset", "cifar", "preset = cifar: must be one of digits-small"),
        ("--separating-epoch", "-1", "separating_epoch = -1: must be a whole number of at least 0"),
        ("--generator-steps", "0", "generator_steps = 0: must be a whole number of at least 1"),
        ("--lr", "0", "lr = 0.0: must be a number above 0"),
        ("--lr", "inf", "lr = inf: must be a number above 0"),
        ("--separating-lr", "nan", "separating_lr = nan: must be a number above 0"),
        ("--rho", "-0.1", "rho = -0.1: must be a number above 0"),
        ("--momentum", "1", "momentum = 1.0: must be in [0, 1)"),
        ("--weight-decay", "-1", "weight_decay = -1.0: must be at least 0"),
        ("--guidance", "0", "guidance = 0.0: must be a number above 0"),
        ("--beta", "0", "--beta"),
    ],
)
def test_settings(
    command: Command, tiny_flags: list[str], tmp_path: Path, flag: str, value: str, message: str
) -> None:
    out = tmp_path / "run"
    one_line(command("run", *tiny_flags, f"{flag}={value}", "--out", out), message)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--splits", "12"], "splits = 12: must be at most 11 with n_train = 100"),
        (["compare", "--splits", "0"], "splits = 0: must be a whole number of at least 1"),
        (["compare", "--seeds", "0"], "seeds = 0: must be a whole number of at least 1"),
        (
            ["compare", "--control-splits", "9"],
            "control_splits = 9: must be at most splits = 6",
        ),
        (["compare", "--strength", "2"], "strength = 2.0: must be in (0, 1]"),
        (["compare", "--jobs", "0"], "jobs = 0: must be a whole number of at least 1"),
        (["compare", "--n-train", "500"], "n_train = 500: must be between 100 and 300 for digits"),
        (["tune", "--splits", "4"], "splits = 4: must be at most 3 with first_split = 8"),
        (["tune", "--dataset", "mnist"], "dataset = mnist: must be digits"),
        (
            ["run", "--generator", "hub:x/y", "--fixed-steps"],
            "fixed_steps = True: must be off (--no-fixed-steps) for hub",
        ),
        (["run", "--guidance", "None"], "guidance = None: must be a number above 0"),
        (
            ["run", "--denoising-steps", "None"],
            "denoising_steps = None: must be a whole number of at least 1",
        ),
        (["tune", "--jobs", "0"], "jobs = 0: must be a whole number of at least 1"),
    ],
)
def test_counts(command: Command, tmp_path: Path, words: list[str], message: str) -> None:
    one_line(command(*words, "--out", tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


def test_unknown_command_and_missing_folder(command: Command) -> None:
    one_line(command("runn"), "runn")
    one_line(command("run"), "--out")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "4"], "seed = 4: must be 0 as in"),
        (["--arm", "syn-all"], "arm = syn-all: must be tada as in"),
        (["--optimizer", "sam"], "lr = "),
        (["--strength", "0.25"], "strength = 0.25: must be"),
    ],
)
def test_a_folder_of_other_settings(
    command: Command,
    tiny_flags: list[str],
    finished: Path,
    contents: Contents,
    flags: list[str],
    message: str,
) -> None:
    before = contents(finished)
    for stage in ("run", "select", "generate", "train"):
        result = command(stage, *tiny_flags, *flags, "--out", finished)
        if message == "lr = ":  # the two optimizers may have the same tuned learning rate
            message = "optimizer = sam: must be sgd" if "lr = " not in result[2] else message
        one_line(result, message, "settings.json")
    assert contents(finished) == before


def test_a_folder_that_holds_files_of_an_unknown_run(
    command: Command, tiny_flags: list[str], finished: Path, contents: Contents
) -> None:
    (finished / "settings.json").unlink()
    before = contents(finished)
    one_line(command("run", *tiny_flags, "--out", finished), f"out = {finished}: must be a new")
    assert contents(finished) == before


def test_a_folder_of_another_command(
    command: Command, tiny_flags: list[str], finished: Path, contents: Contents
) -> None:
    before = contents(finished)
    one_line(command("compare", "--out", finished), "settings.json")
    one_line(command("tune", "--out", finished), "settings.json")
    assert contents(finished) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_tensors(path: Path) -> None:
    save_file({"w": zeros(3)}, path)


def not_an_object(path: Path) -> None:
    path.write_text("[1, 2]", encoding="utf-8")


def other_bytes(path: Path) -> None:
    path.write_bytes(b"\x00\x01 something else \xff")


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("settings.json", cut),
        ("settings.json", not_an_object),
        ("settings.json", other_bytes),
        ("selection.json", cut),
        ("selection.json", not_an_object),
        (f"generator/{WEIGHTS}", cut),
        (f"generator/{WEIGHTS}", other_tensors),
        (f"generator/{WEIGHTS}", other_bytes),
        (f"generator/{WEIGHTS}", flipped),
        (f"generator/{WEIGHTS}", Path.unlink),
        ("generator/training.json", cut),
        ("generator/training.json", Path.unlink),
        ("synthetic/manifest.json", cut),
        ("synthetic/store.json", other_bytes),
        ("synthetic/store.json", cut),
        ("timings.json", cut),
    ],
)
def test_damaged_files(
    command: Command,
    tiny_flags: list[str],
    finished: Path,
    contents: Contents,
    file: str,
    damage: Callable[[Path], Any],
) -> None:
    (finished / "result.json").unlink()  # so that the stages before it are needed
    damage(finished / file)
    before = contents(finished)
    one_line(command("run", *tiny_flags, "--out", finished), str(finished / file))
    after = contents(finished)
    assert after.get(file) == before.get(file)
    assert "result.json" not in after


@pytest.mark.parametrize("damage", [cut, not_an_object, other_bytes])
def test_damaged_result(
    command: Command,
    tiny_flags: list[str],
    finished: Path,
    contents: Contents,
    damage: Callable[[Path], Any],
) -> None:
    damage(finished / "result.json")
    before = contents(finished)
    one_line(command("run", *tiny_flags, "--out", finished), str(finished / "result.json"))
    assert contents(finished) == before


@pytest.mark.parametrize("damage", [cut, other_tensors, other_bytes])
def test_damaged_checkpoint(
    command: Command, tiny_flags: list[str], tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    out = tmp_path / "run"
    path = out / "generator.checkpoint" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"w": zeros(300)}, path)
    damage(path)
    before = path.read_bytes()
    one_line(command("run", *tiny_flags, "--out", out), f"{path}")
    assert path.read_bytes() == before


def test_a_folder_below_a_file(command: Command, tiny_flags: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    one_line(command("run", *tiny_flags, "--out", file / "run"), str(file))
    one_line(command("run", *tiny_flags, "--out", file), str(file))
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_read_only_folder(
    command: Command,
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As PermissionError where the system would raise it: root may write anywhere."""
    out = tmp_path / "run"
    whole_open, whole_mkdir = builtins.open, os.mkdir

    def refuse(path: Any) -> None:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))

    def mkdir(path: Any, *values: Any, **named: Any) -> None:
        refuse(path)
        whole_mkdir(path, *values, **named)

    def opened(path: Any, mode: str = "r", *values: Any, **named: Any) -> Any:
        if "r" not in mode:
            refuse(path)
        return whole_open(path, mode, *values, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        result = command("run", *tiny_flags, "--out", out)
    one_line(result, "Permission denied", str(out))
    assert not out.exists()

    out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("io.open", opened)
        result = command("run", *tiny_flags, "--out", out)
    one_line(result, "Permission denied", str(out / "settings.json"))
    assert not list(out.iterdir())
