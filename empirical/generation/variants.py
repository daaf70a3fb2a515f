"""The k - 1 synthetic images of every original: at one strength, at several, or of one run.

The paper keeps images along one denoising run; noise of their own makes them independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import require
from common.threads import one_thread
from empirical.generation.base import Backend, HasTrajectory, Kept, Originals, noise_stream


@dataclass(frozen=True)
class Variants:
    """How the k - 1 images of an original differ.

    strengths: copy 1 is made at the first, copy 2 at the second, ..., and then cyclically;
    trajectory: the copies are kept along one denoising run at the only strength, evenly spaced, the
    last of them at its end;
    kept: along a trajectory, the clean image predicted so far or the noisy one itself.

    Raises:
        ParameterError: k is below 2; or strengths are missing, or several for one trajectory.
    """

    k: int
    strengths: tuple[float, ...]
    trajectory: bool = False
    kept: Kept = "prediction"

    def __post_init__(self) -> None:
        ok = isinstance(self.k, int) and self.k >= 2
        require(ok, "k", self.k, "a whole number of at least 2")
        require(len(self.strengths) > 0, "strengths", self.strengths, "at least one")
        fits = not self.trajectory or len(self.strengths) == 1
        require(fits, "strengths", self.strengths, "one strength for one trajectory")
        require(self.kept in ("prediction", "image"), "kept", self.kept, "prediction or image")


@dataclass(frozen=True)
class Copy:
    """A copy as it will be made. steps: denoising steps done until it is kept."""

    number: int
    strength: float
    steps: int


def plan(backend: Backend, variants: Variants) -> tuple[Copy, ...]:
    """The copies 1 to k - 1, checked before the first of them is made.

    Raises:
        ParameterError: a strength leaves no step; or no such trajectory.
    """
    numbers = range(1, variants.k)
    if not variants.trajectory:
        cycle = [variants.strengths[(n - 1) % len(variants.strengths)] for n in numbers]
        return tuple(
            Copy(number, strength, backend.denoising_steps(strength))
            for number, strength in zip(numbers, cycle, strict=True)
        )
    name = backend.name
    require(isinstance(backend, HasTrajectory), "generator", name, "one that shows its trajectory")
    strength, wanted = variants.strengths[0], variants.k - 1
    steps = backend.denoising_steps(strength)
    allowed = f"at most {steps + 1}: one image for each denoising step at strength {strength:g}"
    require(wanted <= steps, "k", variants.k, allowed)
    return tuple(Copy(n, strength, math.ceil(n * steps / wanted)) for n in numbers)


def generate(
    backend: Backend,
    originals: Originals,
    variants: Variants,
    seed: int,
    batch: int = 50,
    advance: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """All copies of all originals: uint8 (n, k - 1, channels, height, width).

    batch: images denoised together, which changes nothing else; advance: called with the number
    of images after each batch. The noise of an image is keyed by the generator, its original's
    index, its copy, its strength and the seed; a trajectory is the run of its copy 1.

    Raises:
        ParameterError: batch is below 1; or see `plan`.
    """
    require(batch >= 1, "batch", batch, "at least 1")
    copies = plan(backend, variants)
    made = torch.zeros(len(originals), len(copies), *originals.pixels.shape[1:], dtype=torch.uint8)
    pieces = [slice(first, first + batch) for first in range(0, len(originals), batch)]
    if variants.trajectory:
        for piece in pieces:
            made[piece] = one_run(backend, originals.rows(piece), copies, seed, variants.kept)
            advance(made[piece].shape[0] * len(copies))
        return made
    for copy in copies:
        for piece in pieces:
            made[piece, copy.number - 1] = one_copy(backend, originals.rows(piece), copy, seed)
            advance(made[piece].shape[0])
    return made


def one_copy(backend: Backend, originals: Originals, copy: Copy, seed: int) -> Tensor:
    """One copy of each original, all in one batch: uint8 (n, channels, height, width)."""
    with one_thread():
        return backend.generate(originals, copy.strength, _streams(backend, originals, copy, seed))


def one_run(
    backend: Backend, originals: Originals, copies: Sequence[Copy], seed: int, kept: Kept
) -> Tensor:
    """All copies of each original along one trajectory: uint8 (n, copies, channels, ...)."""
    assert isinstance(backend, HasTrajectory)  # `plan` saw to it
    keep, first = [copy.steps for copy in copies], copies[0]
    with one_thread():
        streams = _streams(backend, originals, first, seed)
        return backend.trajectory(originals, first.strength, streams, keep, kept)


def _streams(
    backend: Backend, originals: Originals, copy: Copy, seed: int
) -> Sequence[torch.Generator]:
    key = (copy.number, copy.strength, seed)
    return [noise_stream(backend.digest, index, *key) for index in originals.indices.tolist()]
