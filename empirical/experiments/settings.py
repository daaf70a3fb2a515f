"""What the experiments compare, and where defaults are chosen. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from common.checks import whole_number
from common.errors import require
from empirical.config.arms import ARMS, SYNTHETIC_ARMS
from empirical.config.presets import DIGITS
from empirical.config.settings import BUDGETS, Settings, changed, command_line
from empirical.config.training import OPTIMIZERS


@dataclass(frozen=True)
class Comparison:
    """What is compared. Splits, seeds and control splits are counts, from 0 on."""

    dataset: str = "digits"
    """data set"""
    network: str = "small"
    """network"""
    n_train: int = 100
    """training images of a split"""
    k: int = 2
    """amplification of upsample, tada and syn-rand"""
    strength: float = DIGITS.generation.strength
    """strength of the synthetic images"""
    guidance: float = 1.0
    """classifier-free guidance scale of the synthetic images"""
    epochs: int = DIGITS.training.epochs
    """epochs of the final training"""
    splits: int = 6
    """disjoint training chunks"""
    seeds: int = 4
    """seeds of each split, trained together"""
    generator_steps: int = 1000
    """training steps of the generator on the pool"""
    control_splits: int = 3
    """splits of the control, where the generator sees only the training images; 0: no control"""
    control_generator_steps: int = 250
    """training steps of each control generator: fewer images, about as many epochs"""

    def __post_init__(self) -> None:
        for name, least in (("splits", 1), ("seeds", 1), ("control_splits", 0)):
            whole_number(name, getattr(self, name), least)
        require(
            self.control_splits <= self.splits,
            "control_splits",
            self.control_splits,
            f"at most splits = {self.splits}",
        )
        _small_digits(self)
        self.settings("train")  # checks the rest

    def settings(self, generator_data: str, **values: Any) -> Settings:
        """The settings of one cell."""
        shared = {"dataset", "network", "n_train", "k", "strength", "guidance", "epochs"}
        steps = self.generator_steps if generator_data == "pool" else self.control_generator_steps
        return changed(
            DIGITS,
            **{name: getattr(self, name) for name in shared},
            generator_data=generator_data,
            generator_steps=steps,
            **values,
        )

    def cells(self, generator_data: str, split: int) -> list[Settings]:
        """The cells of one split. original is the same at both budgets and is run once."""
        control = generator_data == "train"
        return [
            self.settings(generator_data, split=split, arm=arm, optimizer=optimizer, budget=budget)
            for optimizer in (("sgd",) if control else OPTIMIZERS)
            for arm in ARMS
            if arm in SYNTHETIC_ARMS or not control
            for budget in BUDGETS
            if arm != "original" or budget == "epochs"
        ]

    def command(self, out: object) -> str:
        """The command line of this comparison."""
        return command_line(asdict(self), "compare", out, asdict(Comparison()))


@dataclass(frozen=True)
class Tuning:
    """Where the defaults are chosen: on splits that the comparison does not use."""

    dataset: str = "digits"
    """data set"""
    network: str = "small"
    """network"""
    n_train: int = 100
    """training images of a split"""
    first_split: int = 8
    """the first split to use"""
    splits: int = 3
    """how many splits, from first_split on"""
    seeds: int = 6
    """seeds of each split, trained together"""
    generator_steps: int = 1000
    """training steps of the generator on the pool"""

    def __post_init__(self) -> None:
        for name, least in (("first_split", 0), ("splits", 1), ("seeds", 1)):
            whole_number(name, getattr(self, name), least)
        _small_digits(self)
        self.settings(split=self.first_split)  # checks the rest

    def settings(self, **values: Any) -> Settings:
        """The settings of one point of a grid."""
        shared = {"dataset", "network", "n_train", "generator_steps"}
        return changed(DIGITS, **{name: getattr(self, name) for name in shared} | values)

    def command(self, out: object) -> str:
        """The command line of this tuning."""
        return command_line(asdict(self), "tune", out, asdict(Tuning()))


def _small_digits(settings: Comparison | Tuning) -> None:
    """Many seeds are trained as one program, which is for the small network on digits."""
    require(settings.dataset == "digits", "dataset", settings.dataset, "digits")
    require(settings.network == "small", "network", settings.network, "small")
