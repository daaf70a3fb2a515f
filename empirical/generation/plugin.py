"""A generator of yours: a function of ten lines, or an object with the three parts of `Backend`.

    # in mine.py, then: --generator python:mine:brighten
    def brighten(originals, strength, streams):
        images = originals.pixels.float()
        for image, stream in zip(images, streams):
            image += 255 * strength * (torch.rand((), generator=stream) - 0.5)
        return images.clamp(0, 255).round().to(torch.uint8)

It is given real images (`Originals`: pixels uint8 (n, channels, height, width), labels, indices), a
strength in (0, 1] and a random stream for each image, and gives as many images of the same shape.
An image must depend on its own stream alone, so that it is the same in any batch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import ParameterError, near, require
from empirical.config.strength import check_strength
from empirical.generation.base import Backend, Originals, one_line

Generate = Callable[[Originals, float, Sequence[torch.Generator]], Tensor]


@dataclass(frozen=True)
class Plugin:
    """A function as a generator. digest: of the file that it is written in."""

    name: str
    digest: str
    function: Generate

    def denoising_steps(self, strength: float) -> int:
        """One: what it does inside is its own."""
        check_strength(strength)
        return 1

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """Its images, checked.

        Raises:
            ParameterError: it raised, or gave something else than as many images of that shape.
        """
        try:
            made = self.function(originals, strength, streams)
        except Exception as error:  # whatever somebody else's code raises
            allowed = f"one that works; it raised {type(error).__name__}: {one_line(error)}"
            raise ParameterError("generator", self.name, allowed) from error
        return checked(self.name, made, originals)


def checked(name: str, made: Any, originals: Originals) -> Tensor:
    """What a generator made, if it is images like the originals. Raises ParameterError."""
    shape = tuple(originals.pixels.shape)
    said = f"{getattr(made, 'dtype', type(made).__name__)} {tuple(getattr(made, 'shape', ()))}"
    fits = isinstance(made, Tensor) and made.dtype == torch.uint8 and tuple(made.shape) == shape
    require(fits, "generator", name, f"one that gives a torch.uint8 tensor {shape}, not {said}")
    return made


def as_backend(generator: Backend | Generate, name: str | None = None) -> Backend:
    """A generator given in Python: an object with name, digest and generate, or a function."""
    if all(hasattr(generator, part) for part in ("name", "digest", "generate")):
        return generator  # type: ignore[return-value]
    require(callable(generator), "generator", generator, "a function, or an object with generate")
    called = name or getattr(generator, "__qualname__", type(generator).__name__)
    return Plugin(called, _digest(generator), generator)  # type: ignore[arg-type]


def load_plugin(path: str) -> Backend:
    """The generator MODULE:NAME. The module is looked for in the current folder too.

    Raises:
        ParameterError: there is no such module or name in it, or it cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    full = f"python:{path}"
    fits = bool(module_name and attribute)
    require(fits, "generator", full, "python:MODULE:FUNCTION, such as python:mine:brighten")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises when it is imported
        allowed = f"in a module that can be imported ({type(error).__name__}: {one_line(error)})"
        raise ParameterError("generator", full, allowed) from error
    names = [name for name in vars(module) if not name.startswith("_")]
    allowed = f"a name in {module_name}{near(attribute, names)}"
    require(hasattr(module, attribute), "generator", full, allowed)
    return as_backend(getattr(module, attribute), full)


def _digest(function: Any) -> str:
    try:
        text = Path(inspect.getfile(function)).read_bytes()
    except (TypeError, OSError):  # of a console or a notebook
        text = inspect.getsource(function).encode() if inspect.isfunction(function) else b""
    return hashlib.sha256(text).hexdigest()
