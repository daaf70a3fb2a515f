"""A folder has one writer; a second one is told so, and a dead one is in nobody's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.cli import run
from common.errors import BusyError
from common.locks import one_writer, writing

HOLD = "from pathlib import Path; from common.locks import writing; import sys, time\n"
HOLD += "with writing(Path(sys.argv[1])):\n    print('has it', flush=True); time.sleep(600)"

COMMANDS = {
    "empirical run": ["--arm", "original"],
    "empirical select": [],
    "empirical generate": [],
    "empirical train": [],
    "empirical recommend": ["--strengths", "1"],
    "empirical grid": ["--strengths", "1"],
    "empirical stability": [],
    "empirical compare": [],
    "empirical tune": [],
    "sim run": [],
    "sim sweep": ["--grid", "k=1,2"],
}


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes into the folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "has it\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def called(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """A command line in this process: exit code, stderr."""
    from importlib import import_module

    main = import_module(f"{words[0]}.__main__").main
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            run(main)
    return int(stop.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_writer_is_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with held(out):
        before = sorted(out.iterdir())
        code, err = called([*name.split(), *COMMANDS[name], "--out", str(out)], capsys)
        assert sorted(out.iterdir()) == before
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"error: another run is writing to {out}: ")


def test_a_second_training_of_a_generator_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"empirical train-generator --dataset digits --steps 1 --out {tmp_path / 'm'}".split()
    with held(tmp_path / "m.checkpoint"):
        code, err = called(words, capsys)
    assert code == 2
    assert err.startswith(f"error: another run is writing to {tmp_path / 'm'}: ")
    assert called(words, capsys)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_second_run_beside_a_real_one(tmp_path: Path) -> None:
    """Two processes of one command; the first goes on and ends as alone."""
    out = tmp_path / "run"
    words = "sim run --seeds 200 --steps 20000 --test-examples 100 --out".split()
    command = [sys.executable, "-m", *words, str(out)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        while not (out / "settings.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
        second = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert first.poll() is None
        assert second.returncode == 2
        assert "another run is writing to " in second.stderr
        assert len(second.stderr.splitlines()) == 1
    finally:
        first.kill()
        first.communicate()


def test_a_dead_writer_is_in_nobodys_way(tmp_path: Path) -> None:
    with held(tmp_path / "run") as process:
        with pytest.raises(BusyError, match="another run is writing to "):
            writing(tmp_path / "run").__enter__()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (tmp_path / "run" / ".lock").exists()
        with writing(tmp_path / "run"):
            pass


def test_a_command_may_call_another_one_on_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"

    @one_writer
    def inner(number: int, out: Path) -> int:
        (out / "file").write_text("x")
        return number

    @one_writer
    def outer(out: Path) -> int:
        return inner(3, out) + inner(4, out=out)

    assert outer(out) == 7
    assert [path.name for path in out.iterdir()] == ["file"]


def test_a_folder_that_stays_empty_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(KeyError), writing(out):
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []
