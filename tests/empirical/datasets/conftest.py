"""Shared by these tests: the MD5 of files, images on disk, and how a refusal reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ParameterError
from empirical.datasets.registry import load


@pytest.fixture(scope="session")
def md5() -> Callable[[Path], str]:
    return lambda path: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """The one line with which `load` refuses."""

    def call(*values: object, **named: object) -> str:
        with pytest.raises(ParameterError) as error:
            load(*values, **named)
        assert "\n" not in str(error.value)
        return str(error.value)

    return call


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Write an image of one colour, in the format that the name says."""

    def write(path: Path, colour: int | tuple[int, int, int], side: int = 64) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (side, side) if isinstance(colour, int) else (side, side, 3)
        Image.fromarray(np.full(shape, colour, dtype=np.uint8)).save(path)
        return path

    return write
