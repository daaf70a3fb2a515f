"""The ideal generator, for planted images: the same feature, as much fresh noise as one likes.

A diffusion model's strength moves two numbers together: how much of the feature is left (fidelity)
and how much of the original's noise (kept noise). Here the curve is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import require
from common.files import digest
from empirical.config.strength import check_strength
from empirical.datasets.planted import PlantedSet
from empirical.generation.base import Originals


@dataclass(frozen=True)
class Curve:
    """fidelity c and kept noise tau at rising strengths, straight lines in between.

    Before the first strength and behind the last one both stay as they are there.

    Raises:
        ParameterError: the strengths do not rise within (0, 1], or a value is not allowed.
    """

    strengths: tuple[float, ...]
    fidelity: tuple[float, ...]
    kept_noise: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.strengths)
        rises = all(a < b for a, b in zip(self.strengths, self.strengths[1:], strict=False))
        inside = all(0 < strength <= 1 for strength in self.strengths)
        allowed = "at least one, rising within (0, 1]"
        require(n > 0 and rises and inside, "strengths", self.strengths, allowed)
        for name, most in (("fidelity", float("inf")), ("kept_noise", 1)):
            values = getattr(self, name)
            ok = len(values) == n and all(0 <= value <= most for value in values)
            limit = "at least 0" if most > 1 else "in [0, 1]"
            require(ok, name, values, f"one number for each strength, {limit}")

    def at(self, strength: float) -> tuple[float, float]:
        """(fidelity, kept noise) at a strength."""
        check_strength(strength)
        values = (self.fidelity, self.kept_noise)
        c, tau = (float(np.interp(strength, self.strengths, value)) for value in values)
        return c, tau


@dataclass(frozen=True, eq=False)
class Ideal:
    """A generator that knows the truth.

    regenerate: called as regenerate(indices, copies, seed=, fidelity=, kept_noise=), and gives
    uint8 (n, channels, height, width); about: a JSON value that tells which images it knows.
    """

    regenerate: Callable[..., Tensor]
    about: Mapping[str, Any]
    curve: Curve
    name: str = "ideal"

    @property
    def digest(self) -> str:
        return digest({"ideal": dict(self.about), "curve": asdict(self.curve)})

    def denoising_steps(self, strength: float) -> int:
        """One: there is no diffusion, an image is made at once."""
        check_strength(strength)
        return 1

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        fidelity, kept_noise = self.curve.at(strength)
        made = [originals.pixels[:0]]
        for index, stream in zip(originals.indices.tolist(), streams, strict=True):
            # the stream already tells copies and seeds apart
            seed = int(torch.randint(2**62, (), generator=stream))
            known = {"seed": seed, "fidelity": fidelity, "kept_noise": kept_noise}
            made.append(self.regenerate([index], [1], **known))
        return torch.cat(made)


def ideal(planted: PlantedSet, curve: Curve) -> Ideal:
    """The ideal generator of a planted data set's training images."""
    return Ideal(planted.regenerate, asdict(planted.config), curve)
