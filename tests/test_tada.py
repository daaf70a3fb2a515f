"""The public face: its names, its console script, and that it costs nothing to import."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import tada
from tada.__main__ import PACKAGES, main


@pytest.mark.parametrize("name", [own for own in tada.__all__ if own != "__version__"])
def test_every_name_is_there_and_described(name: str) -> None:
    value = getattr(tada, name)
    assert name in dir(tada)
    assert isinstance(value, dict) or inspect.getdoc(value)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        tada.nonsense  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, tada; print(sorted({'torch', 'numpy', 'scipy', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def call(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tada", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_lists_every_command(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for commands in PACKAGES.values():
        for command in commands:
            assert command in done.stdout


def test_commands_are_passed_on() -> None:
    done = call("predict", "amplification", "--alpha", ".7")
    assert done.returncode == 0, done.stderr
    assert '"claim": "amplification"' in done.stdout
    assert call("theory", "predict", "amplification", "--alpha", ".7").stdout == done.stdout


def test_an_unknown_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tada", "nonsense"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "nonsense" in said.err
    assert len(said.err.splitlines()) == 1


def test_the_packages_have_these_commands() -> None:
    from empirical.__main__ import COMMANDS

    assert set(PACKAGES["empirical"]) == set(COMMANDS) - {"bench"}
    for command in PACKAGES["sim"]:
        done = call(command, "--help")
        assert done.returncode == 0, done.stderr
