"""Trainings that leave the floating-point numbers: noticed where it happens, said in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from common.errors import ParameterError

LOOK_EVERY = 50
"""Steps between two looks at the losses on a GPU, where each look waits for it."""


class DivergenceError(ParameterError):
    """A training diverged. The message says which one, at which step (from 1), and what to lower.

    training: what diverged; step: of the optimizer, the first with a loss that is not finite, or
    after which weights are not; seen: that loss, or those weights, in words; advice: what to do.
    """

    def __init__(self, training: str, step: int, seen: str, advice: str) -> None:
        ValueError.__init__(self, f"{training} diverged at step {step} ({seen}): {advice}")
        self.name, self.value, self.allowed = training, step, advice
        self.seen = seen

    def __reduce__(self) -> Any:
        return type(self), (self.name, self.value, self.seen, self.allowed)


class Watch:
    """Looks at the losses of a training, at once on a CPU and every LOOK_EVERY steps elsewhere."""

    def __init__(self, training: str, advice: str) -> None:
        self.training, self.advice = training, advice
        self._seen: list[tuple[int, Tensor]] = []

    def see(self, step: int, loss: Tensor) -> None:
        """Note the loss of step number `step`, from 1; of several networks, (networks,).

        Raises:
            DivergenceError: it, or one noted before, is not finite.
        """
        self._seen.append((step, loss.detach()))
        if loss.device.type == "cpu" or len(self._seen) >= LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Look at the losses noted since the last look. Raises DivergenceError."""
        if not self._seen:
            return
        steps, self._seen, seen = [step for step, _ in self._seen], [], self._seen
        losses = torch.stack([loss for _, loss in seen]).reshape(len(steps), -1)
        wrong = ~losses.isfinite()
        if bool(wrong.any()):
            row = int(wrong.any(1).int().argmax())
            place = int(wrong[row].int().argmax())
            named = self._named(place, losses.shape[1])
            seen_there = f"loss {float(losses[row, place]):g}"
            raise DivergenceError(named, steps[row], seen_there, self.advice)

    def weights(self, step: int, weights: Iterable[Tensor], stacked: bool = False) -> None:
        """Check weights after step number `step`, which later losses would show or nothing would.

        stacked: their first axis counts networks. Raises DivergenceError.
        """
        self.look()
        every = list(weights)
        if not every:
            return
        finite = torch.stack(
            [(own.flatten(1) if stacked else own.reshape(1, -1)).isfinite().all(1) for own in every]
        ).all(0)
        if not bool(finite.all()):
            place = int((~finite).int().argmax())
            seen = "its weights are not finite"
            raise DivergenceError(self._named(place, len(finite)), step, seen, self.advice)

    def _named(self, place: int, of: int) -> str:
        return self.training if of == 1 else f"{self.training} (network {place + 1} of {of})"
