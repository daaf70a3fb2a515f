"""The paper's ablation: images from pure noise, guided by the class alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import require
from common.files import digest
from empirical.generation.base import HasSample, Originals


@dataclass(frozen=True, eq=False)
class FromNoise:
    """A generator that gets the labels and shapes of its originals, and never their pixels."""

    backend: HasSample

    @property
    def name(self) -> str:
        return f"{self.backend.name} from noise"

    @property
    def digest(self) -> str:
        return digest({"from noise": self.backend.digest})

    def denoising_steps(self, strength: float) -> int:
        require(strength == 1, "strength", strength, "1 for images from pure noise")
        return self.backend.denoising_steps(1.0)

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        self.denoising_steps(strength)
        return self.backend.sample(originals.labels, originals.pixels.shape[1:], streams)
