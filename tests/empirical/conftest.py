"""Shared by these tests: the data, settings that take a second, and a finished run."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from empirical.__main__ import main
from empirical.config.presets import DIGITS
from empirical.config.settings import Settings, changed
from empirical.datasets.base import Images
from empirical.datasets.digits import whole
from empirical.pipeline.run import run

TINY: dict[str, Any] = {
    "epochs": 2,
    "separating_epoch": 2,
    "generator_steps": 2,
    "denoising_steps": 2,
}


# pytest-xdist runs one process for each core; threads of their own would only get in their way.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Images:
    return whole().train


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Settings]:
    """Settings of a run of about a second."""
    return lambda **values: changed(DIGITS, **(TINY | values))


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """The same on the command line."""
    return [
        word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]


@pytest.fixture(scope="session")
def _finished(tiny: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run(tiny(), out)
    return out


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with the tiny settings, to damage at will."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`python -m empirical ...` in this process: exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["empirical", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder with its bytes."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def stored() -> Callable[..., list[np.ndarray]]:
    """The images of a store, those of one copy if it is named."""

    def read(folder: Path, copy: str = "*") -> list[np.ndarray]:
        shards = sorted((folder / "data").glob(f"*-copy-{copy}-*.parquet"))
        rows = parquet.read_table(shards)["image"].to_pylist()
        return [np.array(Image.open(io.BytesIO(own["bytes"]))) for own in rows]

    return read
