"""How one training goes: its settings, seed and budget, and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from common.checks import whole_number
from empirical.config.training import TrainingSettings
from empirical.training.augment import Mixing
from empirical.training.sam import Sam

MILESTONES = (0.5, 0.75)
"""Shares of the training at which the learning rate is divided by 10 (the usual recipe)."""


def epoch_steps(n: int, batch_size: int) -> int:
    """Nearly equal batches that an epoch of n examples is cut into.

    None has a single example, unless batch_size is 1: networks with batch normalisation could not
    be trained on it. It joins another batch, whatever the network, so that arms and networks are
    treated alike, and no example is left out.
    """
    steps = -(-n // batch_size)
    single = batch_size > 1 and n // steps == 1
    return max(1, n // batch_size) if single else steps


@dataclass(frozen=True)
class Recipe(TrainingSettings):
    """Everything that a training depends on beside the network and the data.

    Raises:
        ParameterError: a value is not allowed.
    """

    seed: int = 0
    """seed of the order of examples, their augmentation, and dropout"""
    steps: int | None = None
    """train for so many steps instead of `epochs`, the schedule stretched over them"""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("seed", self.seed, 0)
        if self.steps is not None:
            whole_number("steps", self.steps, 1)

    @staticmethod
    def of(settings: TrainingSettings, **changes: Any) -> Recipe:
        """The recipe of these settings, with the learning rate that None stands for."""
        values: dict[str, Any] = {
            own.name: getattr(settings, own.name) for own in fields(TrainingSettings)
        }
        values["lr"] = settings.base_lr
        return Recipe(**(values | changes))

    @property
    def sam(self) -> Sam:
        """The ascent step; rho = 0, which is plain training, without one."""
        return Sam(
            rho=0.0 if self.ascent == "none" else self.rho,
            adaptive=self.ascent == "asam",
            accumulation=self.sam_accumulation,
            ranks=self.sam_ranks,
        )

    @property
    def mixed(self) -> Mixing:
        return Mixing(self.mixing, self.mixing_alpha)

    def epoch_steps(self, n: int) -> int:
        """Optimizer steps of an epoch of n examples, cut into nearly equal batches."""
        return epoch_steps(n, self.batch_size)

    def total_steps(self, n: int) -> int:
        """Optimizer steps of a training on n examples."""
        return self.steps or self.epochs * self.epoch_steps(n)

    def learning_rate(self, step: int, total: int) -> float:
        """Learning rate of step number `step`, from 0, of `total`.

        With a warm-up over W steps it is (step + 1) / W of what it rises to. The cosine begins
        after the warm-up; milestones are shares of all steps, as without one.
        """
        warmup = self.warmup_epochs / self.epochs * total
        if step < warmup:
            return self.base_lr * min(1.0, (step + 1) / warmup)
        if self.schedule == "cosine":
            return self.base_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        if self.schedule == "step":
            return self.base_lr * 0.1 ** sum(step >= share * total for share in MILESTONES)
        return self.base_lr


def early_recipe(settings: TrainingSettings, epochs: int, lr: float, seed: int) -> Recipe:
    """How the early network is trained: plain SGD for every optimizer, without a schedule.

    And without mixing, which would blur what is learned when.
    """
    return Recipe.of(
        settings,
        epochs=epochs,
        seed=seed,
        optimizer="sgd",
        lr=lr,
        schedule="constant",
        warmup_epochs=0,
        augmentation="none" if settings.augmentation == "none" else "crop+flip",
        mixing="none",
        label_smoothing=0.0,
        weights_ema=0.0,
        compile=False,
    )


def final_recipe(
    settings: TrainingSettings, seed: int, equal_steps: bool, n_original: int
) -> Recipe:
    """How the final network is trained.

    equal_steps: for as many steps as `epochs` epochs of the originals take, whatever the arm adds;
    n_original: original training images.
    """
    steps = settings.epochs * epoch_steps(n_original, settings.batch_size)
    return Recipe.of(settings, seed=seed, steps=steps if equal_steps else None)
