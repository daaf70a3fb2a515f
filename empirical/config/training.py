"""How a network is trained, as a user says it. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.checks import LARGEST, check_number, whole_number
from common.errors import near, require

OPTIMIZERS = ("sgd", "sam")
"""The paper's optimizers."""
ALL_OPTIMIZERS = (*OPTIMIZERS, "asam", "adamw", "sam-adamw", "asam-adamw")
SCHEDULES = ("step", "cosine", "constant")
AUGMENTATIONS = ("none", "crop+flip", "trivialaugment", "randaugment")
MIXINGS = ("none", "mixup", "cutmix")
PRECISIONS = ("no", "bf16", "fp16")

# Chosen by `python -m empirical tune` on validation images only: results/digits/tune.json.
TUNED_LR = {"sgd": 0.05, "sam": 0.02}
ADAMW_LR = 1e-3


@dataclass(frozen=True)
class TrainingSettings:
    """The optimizer, its schedule, the augmentation, and how a step is computed.

    Raises:
        ParameterError: a value is not allowed.
    """

    optimizer: str = "sgd"
    """sgd, adamw, or sam or asam around sgd, or sam-adamw, asam-adamw"""
    epochs: int = 200
    """epochs of the final training"""
    batch_size: int = 128
    """largest batch of all processes together; an epoch is cut into nearly equal ones, and none has
    a single example (with 2, an odd number of examples makes one of 3)"""
    lr: float | None = 0.1
    """learning rate before the schedule; None: the tuned one of the optimizer on digits"""
    momentum: float = 0.9
    """momentum of sgd, also below SAM; adamw keeps its usual 0.9 and 0.999"""
    weight_decay: float = 5e-4
    """weight decay of all parameters, also below SAM"""
    rho: float = 0.05
    """radius of SAM's ascent step (asam wants about ten times as much)"""
    schedule: str = "step"
    """step (a tenth at 50% and 75%), cosine (down to 0) or constant"""
    warmup_epochs: float = 0
    """epochs over which the learning rate first rises; at equal steps the same share of these"""
    augmentation: str = "crop+flip"
    """none, crop+flip, trivialaugment or randaugment"""
    mixing: str = "none"
    """none, mixup or cutmix"""
    mixing_alpha: float = 1.0
    """weights of mixing are Beta(alpha, alpha)"""
    label_smoothing: float = 0.0
    """share of a label's weight that is spread over all classes"""
    clip_norm: float = 0.0
    """largest norm of a step's gradient, the longer ones cut to it; 0: none is"""
    weights_ema: float = 0.0
    """decay of an average of the weights over steps, which is what is scored; 0: none"""
    head_lr: float | None = None
    """learning rate of the last layer, for pretrained networks; None: as all others"""
    precision: str = "no"
    """no (float32), bf16 or fp16 (with a loss scale; not on a CPU)"""
    accumulation: int = 1
    """micro-batches that a process cuts its batch into, to save memory"""
    sam_accumulation: str = "full"
    """full (one ascent for the batch) or m-sam (one for each micro-batch)"""
    sam_ranks: str = "local"
    """several processes: local (each its own ascent) or synchronised"""
    channels_last: bool = False
    """channels innermost in memory: faster convolutions on a GPU in 16 bits"""
    compile: bool = False
    """run the network through torch.compile"""

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", ALL_OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augmentation", AUGMENTATIONS),
            ("mixing", MIXINGS),
            ("precision", PRECISIONS),
            ("sam_accumulation", ("full", "m-sam")),
            ("sam_ranks", ("local", "synchronised")),
        ):
            value = getattr(self, name)
            require(value in known, name, value, " or ".join(known) + near(value, known))
        for name in ("epochs", "batch_size", "accumulation"):
            whole_number(name, getattr(self, name), 1)
        if self.lr is not None:
            check_number("lr", self.lr)
        for name in ("rho", "mixing_alpha"):
            check_number(name, getattr(self, name))
        for name in ("label_smoothing", "weights_ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        fits = 0 <= self.clip_norm <= LARGEST
        require(fits, "clip_norm", self.clip_norm, f"at least 0 and at most {LARGEST:g}")
        if self.head_lr is not None:
            check_number("head_lr", self.head_lr)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        fits = 0 <= self.weight_decay <= LARGEST
        require(fits, "weight_decay", self.weight_decay, f"at least 0 and at most {LARGEST:g}")
        within = 0 <= self.warmup_epochs <= self.epochs
        allowed = f"between 0 and epochs = {self.epochs}"
        require(within, "warmup_epochs", self.warmup_epochs, allowed)

    @property
    def base_optimizer(self) -> str:
        """sgd or adamw: what takes the step."""
        return "adamw" if self.optimizer.endswith("adamw") else "sgd"

    @property
    def ascent(self) -> str:
        """none, sam or asam: where the gradient is taken."""
        name = self.optimizer.partition("-")[0]
        return name if name in ("sam", "asam") else "none"

    @property
    def base_lr(self) -> float:
        """`lr`, or the tuned one of the optimizer where it is None."""
        if self.lr is not None:
            return self.lr
        if self.base_optimizer == "adamw":
            return ADAMW_LR
        return TUNED_LR["sgd" if self.ascent == "none" else "sam"]
