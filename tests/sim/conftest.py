"""What the simulation's tests share.

One thread: the arrays are small, and several test processes share the cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from common import cli
from sim.__main__ import main

torch.set_num_threads(1)

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`python -m sim ...` in this process: exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.run(main)
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call
