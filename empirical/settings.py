"""The settings of one run, their defaults, and what is allowed. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from theory.parameters import require

DATASETS = ("digits",)
NETWORKS = ("small",)
ARMS = ("original", "upsample", "tada", "syn-rand", "syn-all")
OPTIMIZERS = ("sgd", "sam")
BUDGETS = ("epochs", "steps")
OUTPUTS = ("logits", "softmax")
SYNTHETIC_ARMS = ("tada", "syn-rand", "syn-all")
"""The arms that need a generator."""
SAMPLERS = ("ddim", "dpm++")
GENERATOR_DATA = ("pool", "train")

# Chosen by `python -m empirical tune` on validation images only: results/digits/tune.json.
TUNED_LR = {"sgd": 0.05, "sam": 0.02}
TUNED_RHO = 0.2
TUNED_EPOCHS = 60
TUNED_STRENGTH = 0.9
TUNED_GUIDANCE = 1.0

TRAIN_TIMESTEPS = 1000
"""Steps of the diffusion that the generator is trained on."""


@dataclass(frozen=True)
class Settings:
    """Everything that the result of one run depends on.

    Raises:
        ParameterError: a value is not allowed (sizes against the data: `empirical.data`).
    """

    dataset: str = "digits"
    """digits (scikit-learn's 1797 handwritten digits of 8x8 pixels)"""
    network: str = "small"
    """small (two convolutions and a linear layer, no batch norm)"""
    arm: str = "tada"
    """original, upsample, tada, syn-rand or syn-all"""
    k: int = 2
    """amplification: a slow example counts k times (upsample, tada; syn-rand makes as many)"""
    optimizer: str = "sgd"
    """sgd or sam"""
    budget: str = "epochs"
    """epochs: every arm the same epochs; steps: every arm the steps of original"""
    seed: int = 0
    """seed of the networks, batches, clusters and synthetic images"""
    n_train: int = 100
    """training images"""
    split: int = 0
    """which of the disjoint training chunks"""
    epochs: int = TUNED_EPOCHS
    """epochs of the final training"""
    batch_size: int = 25
    """largest mini-batch; an epoch is cut into nearly equal ones"""
    lr: float | None = None
    """learning rate, divided by 10 at 50% and 75%; None: the tuned one of the optimizer"""
    momentum: float = 0.9
    """momentum of SGD, also below SAM"""
    weight_decay: float = 5e-4
    """weight decay of SGD, also below SAM"""
    rho: float = TUNED_RHO
    """radius of SAM's ascent step"""
    separating_epoch: int = 4
    """epochs of the early network whose outputs are clustered"""
    separating_lr: float = TUNED_LR["sgd"]
    """learning rate of the early network, plain SGD for every optimizer"""
    outputs: str = "logits"
    """what is clustered: logits or softmax"""
    strength: float = TUNED_STRENGTH
    """share of the diffusion trajectory that is re-noised, in (0, 1]"""
    denoising_steps: int = 8
    """steps of the sampler from strength down to an image"""
    sampler: str = "ddim"
    """ddim or dpm++ (DPM-Solver++, second order)"""
    guidance: float = TUNED_GUIDANCE
    """classifier-free guidance scale; 1 is none"""
    generator_data: str = "pool"
    """pool (images apart from all others, for a pretrained model) or train (the training set)"""
    generator_steps: int = 1000
    """training steps of the generator"""
    generator_seed: int = 0
    """seed of the generator's own training, apart from seed"""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("dataset", DATASETS),
            ("network", NETWORKS),
            ("arm", ARMS),
            ("optimizer", OPTIMIZERS),
            ("budget", BUDGETS),
            ("outputs", OUTPUTS),
            ("sampler", SAMPLERS),
            ("generator_data", GENERATOR_DATA),
        ):
            value = getattr(self, name)
            require(value in allowed, name, value, " or ".join(allowed))
        for name, least in (
            ("k", 1),
            ("seed", 0),
            ("n_train", 1),
            ("split", 0),
            ("epochs", 1),
            ("batch_size", 1),
            ("separating_epoch", 1),
            ("denoising_steps", 1),
            ("generator_steps", 1),
            ("generator_seed", 0),
        ):
            _whole_number(self, name, least)
        require(
            self.batch_size <= self.n_train,
            "batch_size",
            self.batch_size,
            f"at most n_train = {self.n_train}",
        )
        for name in ("lr", "separating_lr", "rho", "guidance"):
            value = getattr(self, name)
            ok = 0 < value < float("inf") if value is not None else name == "lr"
            require(ok, name, value, "a number above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(
            0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0"
        )
        require(0 < self.strength <= 1, "strength", self.strength, "in (0, 1]")
        require(
            round(self.denoising_steps / self.strength) <= TRAIN_TIMESTEPS,
            "strength",
            self.strength,
            f"at least {self.denoising_steps / TRAIN_TIMESTEPS:g}: below it {self.denoising_steps} "
            f"denoising steps do not fit into that share of {TRAIN_TIMESTEPS} timesteps",
        )

    @property
    def tuned_lr(self) -> float:
        """`lr`, or the optimizer's tuned one where it is None."""
        return TUNED_LR[self.optimizer] if self.lr is None else self.lr

    def record(self) -> dict[str, Any]:
        """All settings as JSON values, with the learning rate that will be used."""
        return asdict(self) | {"lr": self.tuned_lr}

    def command(self, stage: str, out: object) -> str:
        """The command line of these settings: what differs from the defaults, and the basics."""
        basics = ("dataset", "network", "arm", "k", "optimizer", "seed")
        return _command(self, stage, out, basics)


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
    strength: float = TUNED_STRENGTH
    """strength of the synthetic images"""
    guidance: float = TUNED_GUIDANCE
    """classifier-free guidance scale of the synthetic images"""
    epochs: int = TUNED_EPOCHS
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
            _whole_number(self, name, least)
        require(
            self.control_splits <= self.splits,
            "control_splits",
            self.control_splits,
            f"at most splits = {self.splits}",
        )
        self.settings("train")  # checks the rest

    def settings(self, generator_data: str, **values: Any) -> Settings:
        """The settings of one cell."""
        shared = {"dataset", "network", "n_train", "k", "strength", "guidance", "epochs"}
        steps = self.generator_steps if generator_data == "pool" else self.control_generator_steps
        return Settings(
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
            for arm in (SYNTHETIC_ARMS if control else ARMS)
            for budget in BUDGETS
            if arm != "original" or budget == "epochs"
        ]

    def command(self, out: object) -> str:
        """The command line of this comparison."""
        return _command(self, "compare", out)


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
            _whole_number(self, name, least)
        self.settings(split=self.first_split)  # checks the rest

    def settings(self, **values: Any) -> Settings:
        """The settings of one point of a grid."""
        shared = {"dataset", "network", "n_train", "generator_steps"}
        return Settings(**{name: getattr(self, name) for name in shared} | values)

    def command(self, out: object) -> str:
        """The command line of this tuning."""
        return _command(self, "tune", out)


def _whole_number(settings: object, name: str, least: int) -> None:
    value = getattr(settings, name)
    ok = isinstance(value, int) and value >= least
    require(ok, name, value, f"a whole number of at least {least}")


def _command(
    settings: Settings | Comparison | Tuning, name: str, out: object, always: tuple[str, ...] = ()
) -> str:
    """A command line with what differs from the defaults, and what is always said."""
    words = ["python -m empirical", name]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in always or value != field.default:
            words.append(f"--{field.name.replace('_', '-')} {value}")
    return " ".join([*words, f"--out {out}"])
