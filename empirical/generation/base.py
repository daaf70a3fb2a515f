"""What a generator is: real images, a strength and random streams in; synthetic images out.

A synthetic image depends on its original, on the strength, on its own stream and on the generator,
never on the images that are made with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from common.errors import ParameterError, require
from common.seeding import torch_stream

_DIFFUSERS = tuple(int(part) for part in version("diffusers").split(".")[:2])
DTYPE = "dtype" if _DIFFUSERS >= (0, 40) else "torch_dtype"
"""What this diffusers calls the type of numbers to load; it passes over the other word."""

Kept = Literal["prediction", "image"]
"""What is kept along a trajectory: the clean image predicted so far, or the noisy one itself."""


@dataclass(frozen=True, eq=False)
class Originals:
    """Real images to start from.

    pixels: uint8 (n, channels, height, width); labels: int64 (n,); indices: int64 (n,), the place
    of each in its data set, by which its noise is keyed.

    Raises:
        ParameterError: the shapes do not fit together, or pixels are no levels.
    """

    pixels: Tensor
    labels: Tensor
    indices: Tensor

    def __post_init__(self) -> None:
        require(
            self.pixels.dtype == torch.uint8 and self.pixels.dim() == 4,
            "pixels",
            f"{self.pixels.dtype} {tuple(self.pixels.shape)}",
            "uint8 (n, channels, height, width)",
        )
        for name in ("labels", "indices"):
            value = getattr(self, name)
            require(
                value.dtype == torch.int64 and value.shape == self.pixels.shape[:1],
                name,
                f"{value.dtype} {tuple(value.shape)}",
                f"int64 ({len(self.pixels)},)",
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, rows: slice | Tensor) -> Originals:
        """Some of them."""
        return Originals(self.pixels[rows], self.labels[rows], self.indices[rows])


class Backend(Protocol):
    """A generator. digest: of its weights, configuration, prompts and sampler."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def denoising_steps(self, strength: float) -> int:
        """Denoising steps that are really done at a strength.

        Raises:
            ParameterError: strength is outside (0, 1], or so low that no step would be left.
        """
        ...

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        """One synthetic image for each original, with its own stream: uint8 like `pixels`."""
        ...


@runtime_checkable
class HasTrajectory(Protocol):
    """A generator that shows the images on its way."""

    def trajectory(
        self,
        originals: Originals,
        strength: float,
        streams: Sequence[torch.Generator],
        keep: Sequence[int],
        kept: Kept = "prediction",
    ) -> Tensor:
        """The images after so many steps (1 to denoising_steps): uint8 (n, len(keep), C, H, W).

        After the last step it is the finished image, whatever `kept`.
        """
        ...


@runtime_checkable
class HasSample(Protocol):
    """A generator that also makes images from pure noise."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def denoising_steps(self, strength: float) -> int: ...

    def sample(
        self, labels: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator]
    ) -> Tensor:
        """One image for each label, without an original: uint8 (n, *shape)."""
        ...


def noise_stream(
    generator_digest: str, index: int, copy: int, strength: float, seed: int
) -> torch.Generator:
    """The stream of one synthetic image."""
    return torch_stream("synthetic", generator_digest, index, copy, repr(float(strength)), seed)


def standard_normal(shape: Sequence[int], streams: Sequence[torch.Generator]) -> Tensor:
    """Noise for each image from its own stream: float32 (n, *shape)."""
    return torch.stack([torch.randn(*shape, generator=stream) for stream in streams])


def check_keep(keep: Sequence[int], steps: int) -> None:
    """Raise ParameterError unless `keep` are step numbers that rise from 1 to at most `steps`."""
    rises = all(a < b for a, b in zip([0, *keep], keep, strict=False))
    allowed = f"rising numbers between 1 and {steps}, the denoising steps done"
    require(rises and len(keep) > 0 and max(keep) <= steps, "keep", list(keep), allowed)


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise ParameterError unless every label is one of n_classes."""
    if len(labels):
        wrong = int(labels.max()) if int(labels.min()) >= 0 else int(labels.min())
        require(0 <= wrong < n_classes, "label", wrong, f"below {n_classes}, and at least 0")


def prompts(template: str, classes: Sequence[str]) -> list[str]:
    """The prompt of every class: its first synonym in place of {class}.

    Raises:
        ParameterError: the template does not contain {class}, or a class has no name.
    """
    require("{class}" in template, "prompt", repr(template), "a text that contains {class}")
    named = len(classes) > 0 and all(name.split(",")[0].strip() for name in classes)
    require(named, "classes", list(classes), "names, at least one and none of them empty")
    names = [name.split(",")[0].strip().replace("_", " ") for name in classes]
    return [template.replace("{class}", name) for name in names]


def module_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a module's weights, in hex.

    Unlike that of a file it is the same for every way to store them.
    """
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(raw.numpy().data)
    return found.hexdigest()


def plain_config(config: str) -> dict[str, Any]:
    """A library's configuration (JSON text) without what says who wrote it, when and where."""
    said = {"transformers_version", "name_or_path"}
    values = json.loads(config)
    return {key: value for key, value in values.items() if key[:1] != "_" and key not in said}


@contextmanager
def made_by(model: object, kind: str) -> Iterator[None]:
    """Say in one line what goes wrong inside a network or a pipeline of somebody else.

    Raises:
        ParameterError: for whatever is raised inside, but for want of memory.
    """
    try:
        yield
    except (ParameterError, MemoryError):
        raise
    except Exception as error:
        allowed = f"one that works here; its {kind} ended in {type(error).__name__}"
        raise ParameterError("model", model, f"{allowed}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first line of an error's message, cut to a readable length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0].strip()
    return line if len(line) <= 200 else f"{line[:197]}..."


def check_dtype(module: Any, asked: torch.dtype) -> None:
    """Refuse what a library loaded in another type than it was asked for, without a word."""
    found = getattr(module, "dtype", asked)
    name = str(asked).removeprefix("torch.")
    require(found == asked, "dtype", name, f"one that this diffusers loads: it gave {found}")
