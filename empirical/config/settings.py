"""Everything that the result of one run depends on, in the parts that its stages take.

Nothing heavy is imported, so that a command line is checked at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from common.checks import whole_number
from common.errors import near, require
from empirical.config.arms import RUN_ARMS
from empirical.config.data import DataSettings
from empirical.config.generation import GenerationSettings
from empirical.config.selection import SelectionSettings
from empirical.config.strength import grid
from empirical.config.training import TrainingSettings

DATA_BEFORE = ("dataset", "n_train", "split")
NETWORKS = ("small", "conv4", "resnet18", "vgg19", "densenet121", "vit-s", "convnext-t", "swin-t")
LIBRARIES = ("timm:", "torchvision:", "python:")
"""Beginnings of names of other people's networks."""
BUDGETS = ("epochs", "steps")

MOST_SEEDS = 10_000
"""Of one command that runs them one after another: more would take years."""


@dataclass(frozen=True)
class Settings:
    """Everything that the result of one run depends on.

    A value's name is that of its flag, and unique among all parts: `make` and `changed` take them
    flat, `record` gives them flat.

    Raises:
        ParameterError: a value is not allowed, or two do not fit each other.
    """

    data: DataSettings
    network: str = "small"
    """small, conv4, resnet18, vgg19, densenet121, vit-s, convnext-t, swin-t, timm:NAME,
    torchvision:NAME or python:MODULE:FUNCTION"""
    pretrained: bool = False
    """start from the weights of timm or torchvision; the last layer is new"""
    arm: str = "tada"
    """original, upsample, tada, syn-rand, syn-all or boomerang (everyone, at low strength)"""
    k: int = 2
    """amplification: a slow example counts k times (upsample, for which the paper uses 2, and tada;
    syn-rand makes as many)"""
    budget: str = "epochs"
    """epochs: every arm the same epochs; steps: every arm the steps of original"""
    seed: int = 0
    """seed of the networks, batches, clusters and synthetic images"""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        known = self.network in NETWORKS or self.network.startswith(LIBRARIES)
        others = "timm:NAME, torchvision:NAME or python:MODULE:FUNCTION"
        allowed = f"{', '.join(NETWORKS)}, {others}{near(self.network, NETWORKS)}"
        require(known, "network", self.network, allowed)
        for name, names in (("arm", RUN_ARMS), ("budget", BUDGETS)):
            value = getattr(self, name)
            require(value in names, name, value, " or ".join(names) + near(value, names))
        whole_number("k", self.k, 1)
        whole_number("seed", self.seed, 0)
        least, batch_size = self.data.train_images, self.training.batch_size
        fits = least is None or batch_size <= least
        require(fits, "batch_size", batch_size, f"at most n_train = {least}")
        own, dataset = self.generation, self.data.dataset
        allowed = f"a trained one for {dataset}: only planted images have an ideal generator"
        require(own.kind != "ideal" or dataset == "planted", "generator", own.generator, allowed)
        if own.denoising_steps is not None and not own.is_hub:
            # a strength that is used must leave a step; a hub pipeline says itself what it does
            name = "strengths" if own.strengths else "strength"
            name = "boomerang_strength" if self.arm == "boomerang" else name
            for strength in self.arm_strengths:
                grid(own.denoising_steps, own.fixed_steps, strength, name=name)

    @property
    def arm_strengths(self) -> tuple[float, ...]:
        """The strengths of this arm's copies 1, 2, ..., cyclically."""
        if self.generation.from_noise:
            return (1.0,)
        if self.arm == "boomerang":
            return (self.generation.boomerang_strength,)
        return self.generation.strengths or (self.generation.strength,)

    @staticmethod
    def make(values: Mapping[str, Any]) -> Settings:
        """Settings with these values, by their flat names; the others are the defaults.

        Raises:
            ParameterError: a value is not allowed, or there is none of that name.
        """
        return Settings(**_own(values), **{n: PARTS[n](**_of(n, values)) for n in PARTS})

    def flat(self) -> dict[str, Any]:
        """Every value by its name."""
        return {name: getattr(part(self, name), name) for name in PART_OF}

    def record(self) -> dict[str, Any]:
        """Every value as JSON holds it, with what None stands for."""
        values = self.flat() | {
            "lr": self.training.base_lr,
            "n_train": self.data.train_images,
            "strengths": self.generation.strengths or (),
        }
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def command(self, stage: str, out: object) -> str:
        """The command line of these settings: the basics, and what differs from where it starts.

        A command line starts from the preset of its data set.
        """
        from empirical.config import presets  # which are settings

        basics = ("dataset", "network", "arm", "k", "optimizer", "seed")
        if self.generation.is_hub:  # from which a command line starts too
            basics += ("generator",)
        start = presets.base(None, self.data.dataset, self.generation.generator).flat()
        return command_line(self.flat(), stage, out, start, basics)


PARTS = {
    "data": DataSettings,
    "training": TrainingSettings,
    "selection": SelectionSettings,
    "generation": GenerationSettings,
}

PART_OF: dict[str, str] = {own.name: "" for own in fields(Settings) if own.name not in PARTS} | {
    own.name: name for name, kind in PARTS.items() for own in fields(kind)
}
"""Every value's name, and the part of the settings that holds it; "" for none."""


def part(settings: Settings, name: str) -> Any:
    """What holds the value of this name: a part of the settings, or the settings."""
    return getattr(settings, PART_OF[name]) if PART_OF[name] else settings


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with other values, by their flat names.

    Raises:
        ParameterError: a value is not allowed, or there is none of that name.
    """
    own = _own(values)
    parts = {name: replace(getattr(settings, name), **_of(name, values)) for name in PARTS}
    return replace(settings, **parts, **own)


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some values that are in no part. Raises ParameterError for an unknown name."""
    for name in values:
        require(name in PART_OF, "setting", name, f"a known one{near(name, PART_OF)}")
    return _of("", values)


def _of(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if PART_OF[name] == part}


def command_line(
    values: Mapping[str, Any],
    stage: str,
    out: object,
    start: Mapping[str, Any],
    always: tuple[str, ...] = (),
) -> str:
    """A command line with what differs from `start`, and what is always said."""
    words = ["python -m empirical", stage]
    for name in dict.fromkeys((*always, *values)):
        value = values[name]
        if name in always or value != start[name]:
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, tuple):
                words.append(" ".join([flag, *map(str, value)]))
            elif isinstance(value, str):
                words.append(f"{flag} {shlex.quote(value)}")
            else:
                words.append(f"{flag} {value}")
    return " ".join([*words, f"--out {out}"])


_SINCE: dict[str, Any] = {
    own.name: own.default for own in fields(DataSettings) if own.name not in DATA_BEFORE
} | {
    **{"scores": None, "scores_column": None, "pretrained": False, "head_lr": None},
    **{"label_smoothing": 0.0, "clip_norm": 0.0, "weights_ema": 0.0, "safety_checker": False},
    **dict.fromkeys(("negative_prompt", "pipeline", "revision", "variant", "lora")),
    **{"keep": "all", "synthetic_probability": 1.0},
}
"""What records of earlier versions lack, with what it was then."""


def from_record(record: Mapping[str, Any], where: object) -> Settings:
    """The settings of which `record` is the record. where: what a message calls it.

    Raises:
        ParameterError: it has another name, lacks one, or a value is not allowed.
    """
    missing = sorted(set(PART_OF) - set(record) - set(_SINCE))
    differing = sorted(set(record) - set(PART_OF)) + missing
    allowed = f"settings of a run; it differs in {', '.join(differing)}"
    require(not differing, "config", where, allowed)
    values = {
        name: tuple(v) if isinstance(v, list) else v for name, v in {**_SINCE, **record}.items()
    }
    return Settings.make(values | {"strengths": values["strengths"] or None})
