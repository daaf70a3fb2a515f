"""Somebody's own generator, as a function or an object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import ParameterError
from empirical.generation.base import Originals
from empirical.generation.plugin import as_backend, load_plugin

GREY = Originals(
    torch.full((3, 1, 4, 4), 100, dtype=torch.uint8), torch.tensor([0, 1, 0]), torch.arange(3)
)

MINE = """
import torch

def brighten(originals, strength, streams):
    images = originals.pixels.float()
    for image, stream in zip(images, streams):
        image += 100 * strength * torch.rand((), generator=stream)
    return images.round().to(torch.uint8)

class Own:
    name, digest = "own", "1"
    def denoising_steps(self, strength):
        return 4
    def generate(self, originals, strength, streams):
        return originals.pixels

own = Own()
"""


def streams() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(3)]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"mine_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_of_a_module(mine: str) -> None:
    found = load_plugin(f"{mine}:brighten")
    made = found.generate(GREY, 0.5, streams())
    assert made.shape == GREY.pixels.shape
    assert made.min() > 100
    assert torch.equal(made, found.generate(GREY, 0.5, streams()))
    assert found.name == f"python:{mine}:brighten"
    assert found.denoising_steps(0.5) == 1
    with pytest.raises(ParameterError, match="strength = 0"):
        found.denoising_steps(0)


def test_its_digest_is_that_of_its_file(mine: str, tmp_path: Path) -> None:
    before = load_plugin(f"{mine}:brighten").digest
    (tmp_path / "other_mine.py").write_text(MINE.replace("100", "50"))
    assert load_plugin("other_mine:brighten").digest != before


def test_an_object_with_the_protocol_is_taken_as_it_is(mine: str) -> None:
    found = load_plugin(f"{mine}:own")
    assert (found.name, found.digest, found.denoising_steps(0.1)) == ("own", "1", 4)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda *_: GREY.pixels.float(),
            r"gives a torch.uint8 tensor \(3, 1, 4, 4\), not torch.fl",
        ),
        (lambda *_: GREY.pixels[:2], r"not torch.uint8 \(2, 1, 4, 4\)"),
        (lambda *_: [1], "not list"),
        (lambda *_: 1 / 0, "one that works; it raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_it_makes_is_checked(made: object, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        as_backend(made, "mine").generate(GREY, 0.5, streams())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "python:MODULE:FUNCTION"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("{mine}:brihten", "a name in .*near: brighten"),
    ],
)
def test_what_is_not_there_is_one_line(mine: str, path: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        load_plugin(path.format(mine=mine))


def test_what_is_no_generator() -> None:
    with pytest.raises(ParameterError, match="a function, or an object with generate"):
        as_backend(3)  # type: ignore[arg-type]


def typed(originals: Originals, strength: float, streams: Sequence[torch.Generator]) -> Tensor:
    return originals.pixels


def test_a_function_is_named_by_itself() -> None:
    assert as_backend(typed).name == "typed"
