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
SAMPLERS = ("ddim", "dpm++")
GENERATOR_DATA = ("pool", "train")

# Chosen by `python -m empirical tune` on validation images only: results/digits/tune.json.
TUNED_LR = {"sgd": 0.05, "sam": 0.05}
TUNED_RHO = 0.1
TUNED_EPOCHS = 40
TUNED_STRENGTH = 0.7

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
    """small (three convolutions and a linear layer, no batch norm)"""
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
    outputs: str = "logits"
    """what is clustered: logits or softmax"""
    strength: float = TUNED_STRENGTH
    """share of the diffusion trajectory that is re-noised, in (0, 1]"""
    denoising_steps: int = 8
    """steps of the sampler from strength down to an image"""
    sampler: str = "ddim"
    """ddim or dpm++ (DPM-Solver++, second order)"""
    guidance: float = 1.0
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
            value = getattr(self, name)
            require(value >= least, name, value, f"a whole number of at least {least}")
        require(
            self.batch_size <= self.n_train,
            "batch_size",
            self.batch_size,
            f"at most n_train = {self.n_train}",
        )
        require(self.lr is None or 0 < self.lr < float("inf"), "lr", self.lr, "above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(
            0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0"
        )
        require(0 < self.rho < float("inf"), "rho", self.rho, "above 0")
        require(0 < self.guidance < float("inf"), "guidance", self.guidance, "above 0")
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
        words = ["python -m empirical", stage]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in basics or value != field.default:
                words.append(f"--{field.name.replace('_', '-')} {value}")
        return " ".join([*words, f"--out {out}"])
