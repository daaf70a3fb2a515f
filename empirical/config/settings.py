"""The settings of one run, their defaults, and what is allowed; nothing heavy is imported."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import near, require
from empirical.datasets.names import check_name
from empirical.generation.steps import check_strength, grid

ARMS = ("original", "upsample", "tada", "syn-rand", "syn-all")
"""The paper's arms, which `compare` compares."""
NETWORKS = ("small", "conv4", "resnet18", "vgg19", "densenet121", "vit-s", "convnext-t", "swin-t")
RUN_ARMS = (*ARMS, "boomerang")
OPTIMIZERS = ("sgd", "sam")
"""The paper's optimizers, which `compare` compares."""
RUN_OPTIMIZERS = (*OPTIMIZERS, "asam", "adamw", "sam-adamw", "asam-adamw")
BUDGETS = ("epochs", "steps")
SELECTIONS = ("cluster", "loss", "misclassified")
OUTPUTS = ("logits", "softmax", "penultimate")
SCHEDULES = ("step", "cosine", "constant")
AUGMENTATIONS = ("none", "crop+flip", "trivialaugment", "randaugment")
MIXINGS = ("none", "mixup", "cutmix")
PRECISIONS = ("no", "bf16", "fp16")
SYNTHETIC_ARMS = ("tada", "syn-rand", "syn-all", "boomerang")
"""The arms that need a generator."""
SLOW_ARMS = ("upsample", "tada", "syn-rand")
"""The arms that depend on which examples are slow, or how many."""
GENERATORS = ("pixel", "glide", "ideal", "ideal:fading")
"""Generators without a model to name; pixel:MODEL and hub:MODEL have one."""
GENERATOR_DATA = ("pool", "train")
DTYPES = ("float32", "float16", "bfloat16")

LARGEST = 1e30
"""Of a rate or radius: networks compute in float32, which ends at 3e38."""

MOST_SEEDS = 10_000
"""Of one command that goes through them in turn: more would take years."""

# Chosen by `python -m empirical tune` on validation images only: results/digits/tune.json.
TUNED_LR = {"sgd": 0.05, "sam": 0.02}
TUNED_RHO = 0.2
TUNED_EPOCHS = 60
TUNED_STRENGTH = 0.7
TUNED_GUIDANCE = 1.0


@dataclass(frozen=True)
class Settings:
    """Everything that the result of one run depends on. The defaults are those of digits.

    Raises:
        ParameterError: a value is not allowed (sizes against the data: `datasets.splits`).
    """

    dataset: str = "digits"
    """digits, fashion-mnist, cifar10, cifar100, tinyimagenet, planted or folder:PATH"""
    network: str = "small"
    """small, conv4, resnet18, vgg19, densenet121, vit-s, convnext-t, swin-t or timm:NAME"""
    arm: str = "tada"
    """original, upsample, tada, syn-rand, syn-all or boomerang (everyone, at low strength)"""
    k: int = 2
    """amplification: a slow example counts k times (upsample, tada; syn-rand makes as many)"""
    optimizer: str = "sgd"
    """sgd, adamw, or sam or asam around sgd, or sam-adamw, asam-adamw"""
    budget: str = "epochs"
    """epochs: every arm the same epochs; steps: every arm the steps of original"""
    seed: int = 0
    """seed of the networks, batches, clusters and synthetic images"""
    n_train: int | None = None
    """training images; None: 100 of digits, all of another data set"""
    split: int = 0
    """which of the disjoint training chunks of n_train"""
    epochs: int = TUNED_EPOCHS
    """epochs of the final training"""
    batch_size: int = 25
    """largest mini-batch; an epoch is cut into nearly equal ones"""
    lr: float | None = None
    """learning rate before the schedule; None: the tuned one of the optimizer on digits"""
    momentum: float = 0.9
    """momentum of SGD, also below SAM"""
    weight_decay: float = 5e-4
    """weight decay, also below SAM"""
    rho: float = TUNED_RHO
    """radius of SAM's ascent step (asam wants about ten times as much)"""
    schedule: str = "step"
    """step (a tenth at 50% and 75%), cosine or constant"""
    warmup_epochs: float = 0
    """epochs over which the learning rate first rises"""
    augmentation: str = "none"
    """none, crop+flip, trivialaugment or randaugment"""
    mixing: str = "none"
    """none, mixup or cutmix"""
    mixing_alpha: float = 1.0
    """weights of mixing are Beta(alpha, alpha)"""
    precision: str = "no"
    """no (float32), bf16 or fp16"""
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
    selection: str = "cluster"
    """cluster, loss (the theta of highest loss) or misclassified"""
    clusters: int = 2
    """clusters of each class"""
    theta: float = 0.35
    """share of the examples that selection = loss takes"""
    outputs: str = "logits"
    """what is clustered: logits, softmax or penultimate (what the last layer sees)"""
    separating_epoch: int = 4
    """epochs of the early network whose outputs are clustered; 0: by rule, the knee of its error"""
    separating_epochs: int = 20
    """epochs among which the rule looks for the knee"""
    separating_lr: float = TUNED_LR["sgd"]
    """learning rate of the early network, plain SGD for every optimizer"""
    strength: float = TUNED_STRENGTH
    """share of the diffusion trajectory that is re-noised, in (0, 1]"""
    strengths: tuple[float, ...] | None = None
    """copy 1 at the first, copy 2 at the second, ... in turn; None: all at strength"""
    boomerang_strength: float = 0.2
    """strength for arm boomerang"""
    trajectory: bool = False
    """copies are kept along one denoising run (the paper's way), not made of noise of their own"""
    from_noise: bool = False
    """the paper's ablation: images from pure noise and the class alone"""
    denoising_steps: int | None = 8
    """steps of the sampler: with fixed_steps those of every image, else of a whole trajectory;
    None: what suits a hub pipeline, and so with hub:MODEL where it is not said"""
    fixed_steps: bool = True
    """every image takes denoising_steps, whatever its strength (pixel); else strength's share"""
    sampler: str | None = None
    """ddim, dpm++, euler, ... or a class of diffusers; None: ddim, or a hub pipeline's own"""
    guidance: float | None = TUNED_GUIDANCE
    """classifier-free guidance scale; 1 is none; None: as denoising_steps"""
    prompt: str = "a photo of a {class}"
    """prompt of an image (hub, glide)"""
    generator: str = "pixel"
    """pixel (trained in OUT), pixel:MODEL, hub:MODEL, glide, ideal or ideal:fading (planted)"""
    generator_data: str = "pool"
    """what pixel is trained on: pool (images apart from all others) or train"""
    generator_steps: int = 1000
    """training steps of pixel"""
    generator_widths: tuple[int, ...] = (32, 64)
    """channels of pixel at each resolution, from the full one down"""
    generator_shuffle: int = 1
    """side of the pixel tiles that become channels of pixel: 2 makes 28x28 into 4 times 14x14"""
    generator_seed: int = 0
    """seed of pixel's own training, apart from seed"""
    generator_size: int | None = None
    """pixels of a side inside a hub pipeline; None: what its model was trained on"""
    generator_dtype: str = "float32"
    """numbers inside a named model: float32, float16 or bfloat16"""

    def __post_init__(self) -> None:
        check_name(self.dataset)
        known = self.network in NETWORKS or self.network.startswith("timm:")
        allowed = f"{', '.join(NETWORKS)} or timm:NAME{near(self.network, NETWORKS)}"
        require(known, "network", self.network, allowed)
        for name, allowed in (
            ("arm", RUN_ARMS),
            ("optimizer", RUN_OPTIMIZERS),
            ("budget", BUDGETS),
            ("schedule", SCHEDULES),
            ("augmentation", AUGMENTATIONS),
            ("mixing", MIXINGS),
            ("precision", PRECISIONS),
            ("sam_accumulation", ("full", "m-sam")),
            ("sam_ranks", ("local", "synchronised")),
            ("selection", SELECTIONS),
            ("outputs", OUTPUTS),
            ("generator_data", GENERATOR_DATA),
            ("generator_dtype", DTYPES),
        ):
            value = getattr(self, name)
            require(value in allowed, name, value, " or ".join(allowed) + near(value, allowed))
        for name, least in (
            ("k", 1),
            ("seed", 0),
            ("split", 0),
            ("epochs", 1),
            ("batch_size", 1),
            ("accumulation", 1),
            ("clusters", 2),
            ("separating_epoch", 0),
            ("separating_epochs", 2),
            ("generator_steps", 1),
            ("generator_shuffle", 1),
            ("generator_seed", 0),
        ):
            _whole_number(self, name, least)
        if self.n_train is not None:
            _whole_number(self, "n_train", 1)
        least = self.train_images
        require(
            least is None or self.batch_size <= least,
            "batch_size",
            self.batch_size,
            f"at most n_train = {least}",
        )
        hub = self.generator.startswith("hub:")
        if self.denoising_steps is not None or not hub:
            _whole_number(self, "denoising_steps", 1)
        for name in ("lr", "separating_lr", "rho", "guidance", "mixing_alpha"):
            value = getattr(self, name)
            unsaid = name == "lr" or (name == "guidance" and hub)
            ok = 0 < value < float("inf") if value is not None else unsaid
            require(ok, name, value, "a number above 0")
            require(value is None or value <= LARGEST, name, value, f"at most {LARGEST:g}")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        fits = 0 <= self.weight_decay <= LARGEST
        require(fits, "weight_decay", self.weight_decay, f"at least 0 and at most {LARGEST:g}")
        require(0 < self.theta < 1, "theta", self.theta, "inside (0, 1)")
        within = 0 <= self.warmup_epochs <= self.epochs
        require(
            within, "warmup_epochs", self.warmup_epochs, f"between 0 and epochs = {self.epochs}"
        )
        self._check_generator()

    def _check_generator(self) -> None:
        kind, _, model = self.generator.partition(":")
        hub = kind == "hub"
        known = self.generator in GENERATORS or (kind in ("pixel", "hub") and model != "")
        allowed = f"{', '.join(GENERATORS)}, pixel:MODEL or hub:MODEL{near(kind, GENERATORS)}"
        require(known, "generator", self.generator, allowed)
        if kind == "ideal":
            allowed = f"another for {self.dataset}: only planted images have an ideal generator"
            require(self.dataset == "planted", "generator", self.generator, allowed)
            allowed = f"without {self.generator}, which starts from an image"
            require(not self.from_noise, "from_noise", self.from_noise, allowed)
        fits = not self.fixed_steps or kind in ("pixel", "ideal")
        allowed = f"off (--no-fixed-steps) for {kind}, which cuts the whole trajectory"
        require(fits, "fixed_steps", self.fixed_steps, allowed)
        fits = not self.trajectory or kind in ("pixel", "glide")
        require(fits, "trajectory", self.trajectory, f"off for {kind}, which shows no trajectory")
        some = self.strengths is None or len(self.strengths) > 0
        require(some, "strengths", "none", "at least one number, or left out")
        one = not self.trajectory or len(self.strengths or ()) < 2
        require(one, "strengths", self.strengths, "one strength for one trajectory")
        require(
            not (self.trajectory and self.from_noise), "from_noise", True, "off on a trajectory"
        )
        named = [(name, getattr(self, name)) for name in ("strength", "boomerang_strength")]
        named += [("strengths", value) for value in self.strengths or ()]
        for name, value in named:
            check_strength(value, name)
            # another one leaves no image without a step; a hub pipeline says itself what it does
            if value in self.arm_strengths and self.denoising_steps is not None and not hub:
                grid(self.denoising_steps, self.fixed_steps, value, name=name)

    @property
    def train_images(self) -> int | None:
        """`n_train`, or 100 for digits; None: all there are."""
        return 100 if self.n_train is None and self.dataset == "digits" else self.n_train

    @property
    def tuned_lr(self) -> float:
        """`lr`, or the optimizer's tuned one where it is None."""
        if self.lr is not None:
            return self.lr
        if "adamw" in self.optimizer:
            return 1e-3
        return TUNED_LR["sgd" if self.optimizer == "sgd" else "sam"]

    @property
    def arm_strengths(self) -> tuple[float, ...]:
        """The strengths of this arm's copies 1, 2, ..., in turn."""
        if self.from_noise:
            return (1.0,)
        if self.arm == "boomerang":
            return (self.boomerang_strength,)
        return self.strengths or (self.strength,)

    def record(self) -> dict[str, Any]:
        """All settings as JSON values, with what None stands for."""
        values = asdict(self) | {"lr": self.tuned_lr, "n_train": self.train_images}
        values["strengths"] = self.strengths or ()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def command(self, stage: str, out: object) -> str:
        """The command line of these settings: the basics, and what differs from where it starts.

        A command line starts from the preset of its data set.
        """
        from empirical.config import presets  # which are settings

        basics = ("dataset", "network", "arm", "k", "optimizer", "seed")
        start = presets.base(None, self.dataset, self.arm, self.generator)
        return _command(self, stage, out, basics, start)


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
        _small_digits(self)
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
            for arm in ARMS
            if arm in SYNTHETIC_ARMS or not control
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
        _small_digits(self)
        self.settings(split=self.first_split)  # checks the rest

    def settings(self, **values: Any) -> Settings:
        """The settings of one point of a grid."""
        shared = {"dataset", "network", "n_train", "generator_steps"}
        return Settings(**{name: getattr(self, name) for name in shared} | values)

    def command(self, out: object) -> str:
        """The command line of this tuning."""
        return _command(self, "tune", out)


def _small_digits(settings: Comparison | Tuning) -> None:
    """Many seeds are trained as one program, which is for the small network on digits."""
    require(settings.dataset == "digits", "dataset", settings.dataset, "digits")
    require(settings.network == "small", "network", settings.network, "small")


def _whole_number(settings: object, name: str, least: int) -> None:
    value = getattr(settings, name)
    ok = isinstance(value, int) and value >= least
    require(ok, name, value, f"a whole number of at least {least}")
    require(value < 2**63, name, value, f"at most {2**63 - 1}, which 64 bits hold")


def _command(
    settings: Settings | Comparison | Tuning,
    name: str,
    out: object,
    always: tuple[str, ...] = (),
    start: Settings | None = None,
) -> str:
    """A command line with what differs from `start` or the defaults, and what is always said."""
    words = ["python -m empirical", name]
    for field in fields(settings):
        value = getattr(settings, field.name)
        default = field.default if start is None else getattr(start, field.name)
        if field.name in always or value != default:
            flag = f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, tuple):
                words.append(" ".join([flag, *map(str, value)]))
            elif isinstance(value, str):
                words.append(f"{flag} {shlex.quote(value)}")
            else:
                words.append(f"{flag} {value}")
    return " ".join([*words, f"--out {out}"])
