"""How a network is trained: every choice of `engine.train`, and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.errors import require
from common.seeding import seed_for
from empirical.config.settings import Settings
from empirical.training.augment import Augmentation, Mixing
from empirical.training.sam import Sam

MILESTONES = (0.5, 0.75)
"""Shares of the training at which the learning rate is divided by 10 (the usual recipe)."""
OPTIMIZERS = ("sgd", "adamw")
SHARPNESS = ("none", "sam", "asam")
SCHEDULES = ("step", "cosine", "constant")
PRECISIONS = ("no", "bf16", "fp16")


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
class Recipe:
    """Everything that a training depends on beside the network and the data.

    Raises:
        ParameterError: a value is not allowed.
    """

    epochs: int = 200
    """passes over the training set"""
    steps: int | None = None
    """train for so many steps instead (equal-steps budgets), the schedule stretched over them"""
    batch_size: int = 128
    """largest batch of all ranks together; an epoch is cut into nearly equal ones, and none has a
    single example (with 2, an odd number of examples makes one of 3)"""
    seed: int = 0
    """seed of the order of examples, their augmentation, and dropout"""
    optimizer: str = "sgd"
    """sgd or adamw"""
    lr: float = 0.1
    """learning rate before the schedule"""
    momentum: float = 0.9
    """momentum of sgd; adamw keeps its usual 0.9 and 0.999"""
    weight_decay: float = 5e-4
    """weight decay, of all parameters"""
    schedule: str = "step"
    """step (a tenth at 50% and 75%), cosine (down to 0) or constant"""
    warmup_epochs: float = 0
    """epochs over which the learning rate first rises; with `steps` the same share of these"""
    sharpness: str = "none"
    """none, sam or asam"""
    rho: float = 0.05
    """length of the ascent step of sam and asam (asam wants it about ten times as large)"""
    sam_accumulation: str = "full"
    """full or m-sam: see `empirical.training.sam`"""
    sam_ranks: str = "local"
    """local or synchronised: see `empirical.training.sam`"""
    accumulation: int = 1
    """micro-batches that a rank cuts its share of a batch into, to save memory"""
    augmentation: str = "crop+flip"
    """none, crop+flip, trivialaugment or randaugment"""
    mixing: str = "none"
    """none, mixup or cutmix"""
    mixing_alpha: float = 1.0
    """weights of mixing are Beta(alpha, alpha)"""
    precision: str = "no"
    """no (float32), bf16 or fp16 (with a loss scale; not on a CPU)"""
    channels_last: bool = False
    """channels innermost in memory: faster convolutions on a GPU in 16 bits"""
    compile: bool = False
    """run the network through torch.compile"""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("sharpness", SHARPNESS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            require(value in allowed, name, value, " or ".join(allowed))
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("accumulation", 1)):
            value = getattr(self, name)
            require(
                type(value) is int and value >= least, name, value, f"a whole number >= {least}"
            )
        require(
            self.steps is None or (type(self.steps) is int and self.steps >= 1),
            "steps",
            self.steps,
            "a whole number >= 1, or None",
        )
        require(0 < self.lr < math.inf, "lr", self.lr, "a number above 0")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")
        require(
            0 <= self.warmup_epochs <= self.epochs,
            "warmup_epochs",
            self.warmup_epochs,
            f"between 0 and epochs = {self.epochs}",
        )
        require(0 < self.rho < math.inf, "rho", self.rho, "a number above 0")
        # these check what they are given
        _ = self.sam, self.mixed, Augmentation(self.augmentation)

    @property
    def sam(self) -> Sam:
        """The ascent step; rho = 0, which is plain training, without one."""
        return Sam(
            rho=0.0 if self.sharpness == "none" else self.rho,
            adaptive=self.sharpness == "asam",
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
            return self.lr * min(1.0, (step + 1) / warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(step >= share * total for share in MILESTONES)
        return self.lr


def early_recipe(settings: Settings, epochs: int) -> Recipe:
    """How the early network is trained: plain SGD for every optimizer, without a schedule.

    And without mixing, which would blur what is learned when.
    """
    return Recipe(
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=seed_for("early", settings.dataset, settings.split, settings.seed),
        optimizer="sgd",
        lr=settings.separating_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        schedule="constant",
        augmentation="none" if settings.augmentation == "none" else "crop+flip",
        precision=settings.precision,
        accumulation=settings.accumulation,
        channels_last=settings.channels_last,
    )


def final_recipe(settings: Settings, n_original: int) -> Recipe:
    """How the final network is trained. n_original: training images, for the budget of steps."""
    ascent, _, base = settings.optimizer.partition("-")
    plain = settings.optimizer in ("sgd", "adamw")
    per_epoch = epoch_steps(n_original, settings.batch_size)
    return Recipe(
        epochs=settings.epochs,
        steps=None if settings.budget == "epochs" else settings.epochs * per_epoch,
        batch_size=settings.batch_size,
        seed=seed_for("final", settings.dataset, settings.split, settings.seed),
        optimizer=settings.optimizer if plain else base or "sgd",
        lr=settings.tuned_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup_epochs=settings.warmup_epochs,
        sharpness="none" if plain else ascent,
        rho=settings.rho,
        sam_accumulation=settings.sam_accumulation,
        sam_ranks=settings.sam_ranks,
        accumulation=settings.accumulation,
        augmentation=settings.augmentation,
        mixing=settings.mixing,
        mixing_alpha=settings.mixing_alpha,
        precision=settings.precision,
        channels_last=settings.channels_last,
        compile=settings.compile,
    )
