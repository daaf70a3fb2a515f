"""The command train-generator."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from common.errors import ParameterError
from empirical.commands.generator import train_generator
from empirical.generation.pixel import load_pixel

TINY = "--steps 2 --batch-size 2 --widths 8 8".split()


def run(*words: object) -> None:
    """The command line, parsed as the program does."""
    flat = (tyro.conf.OmitArgPrefixes,)
    tyro.cli(train_generator, args=[*TINY, *map(str, words)], config=flat)


def test_a_data_set_becomes_a_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--dataset", "digits", "--out", tmp_path / "one", "--data", tmp_path, "--count", 50)
    assert capsys.readouterr().out.startswith("trained on 50 images in ")
    assert load_pixel(tmp_path / "one", 1, 8, 10).null_class == 10


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [("--first", 5000, "first = 5000: must be between 0 and"), ("--count", 0, "count = 0: must")],
)
def test_bad_input_is_refused(tmp_path: Path, flag: str, value: int, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        run("--dataset", "digits", "--out", tmp_path / "one", "--data", tmp_path, flag, value)
    with pytest.raises(ParameterError, match="dataset = "):
        run("--dataset", "nonsense", "--out", tmp_path / "one")


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParameterError, match="processes = 2: must be 1"):
        run("--dataset", "digits", "--out", tmp_path / "one")
    assert not (tmp_path / "one").exists()
