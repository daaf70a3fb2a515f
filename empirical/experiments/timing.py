"""How long a comparison takes here, from a measurement of some seconds, and what fits a budget."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from common.errors import require
from common.threads import one_thread
from empirical.config.arms import SYNTHETIC_ARMS
from empirical.config.settings import Settings, changed
from empirical.datasets.base import ImageSet
from empirical.datasets.splits import Split
from empirical.generation.base import Originals
from empirical.generation.train import train_generator
from empirical.pipeline.memory import counts
from empirical.pipeline.plan import ASSUMED
from empirical.pipeline.synthesis import generator_data, load_backend, recipe_of
from empirical.runtime import Machine
from empirical.training import networks
from empirical.training.recipes import epoch_steps

JUDGE_EPOCHS = 10
"""Epochs of the two classifiers that judge the synthetic images."""
RESERVE = 0.85
"""Share of a time budget that is planned: machines are not always as fast."""
GENERATOR_SHARE = 0.35
"""Of the budget, at most so much for training a generator."""
LEAST_EPOCHS, LEAST_STEPS = 10, 200
"""Of a final training, and of a generator: fewer compare nothing."""


@dataclass(frozen=True)
class Speed:
    """Seconds here: of a training step of the network, of the generator, and of one image made."""

    step: float
    generator_step: float
    image: float


@dataclass(frozen=True)
class Plan:
    """What is compared, as it fits the time: settings, seeds, budgets, and seconds by stage.

    dropped: what did not fit, in words.
    """

    settings: Settings
    seeds: int
    budgets: tuple[str, ...]
    seconds: dict[str, float]
    dropped: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def record(self) -> dict[str, object]:
        """As JSON holds it."""
        return asdict(replace(self, settings=None)) | {"settings": self.settings.record()}  # type: ignore[arg-type]


def measure(settings: Settings, data: ImageSet, split: Split, machine: Machine) -> Speed:
    """Time some steps of each training, and one image of a generator of somebody else."""
    size = min(settings.training.batch_size, len(split.train))
    network = networks.make(settings.network, data.channels, data.side, len(data.classes))
    device = torch.device(machine.device)
    network = network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9)
    x = torch.randn(size, data.channels, data.side, data.side, device=device)
    y = torch.randint(len(data.classes), (size,), device=device)
    with torch.random.fork_rng(), one_thread():

        def step() -> None:
            optimizer.zero_grad()
            cross_entropy(network(x), y).backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        of_step = _time(step, 3)
    passes = 1 if settings.training.ascent == "none" else 2
    if settings.generation.generator != "pixel":
        own = replace(settings, arm="tada")
        backend = load_backend(data, split, own, Path(), machine)
        rows, one = split.train[:1], torch.zeros(1, dtype=torch.int64)
        real = Originals(data.train.pixels[rows], data.train.labels[rows], one)
        of_image = _time(
            lambda: backend.generate(real, own.arm_strengths[0], [torch.Generator()]), 1
        )
        return Speed(1.15 * passes * of_step, 0.0, of_image)
    pixels, labels = generator_data(data.train, split, settings)
    recipe = recipe_of(settings, data.flips)

    def train(steps: int) -> float:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            short = replace(recipe, steps=steps)
            given = (pixels, labels, len(data.classes), short, 0, Path(folder) / "generator")
            train_generator(*given, "timing", machine.device)
        return time.monotonic() - start

    of_generator = max((train(8) - train(2)) / 6, 1e-4)
    # a denoising step is a forward pass, a third of a training step
    image = of_generator / 3 / recipe.batch_size * (settings.generation.denoising_steps or 50)
    return Speed(1.15 * passes * of_step, of_generator, image)


def _time(work: Callable[[], object], times: int) -> float:
    work()
    start = time.monotonic()
    for _ in range(times):
        work()
    return (time.monotonic() - start) / times


def seconds(
    settings: Settings,
    arms: tuple[str, ...],
    seeds: int,
    budgets: tuple[str, ...],
    n: int,
    speed: Speed,
) -> dict[str, float]:
    """Seconds of every stage of a comparison on n training images."""
    batch = settings.training.batch_size
    early = settings.selection.separating_epoch or 2 * settings.selection.separating_epochs
    steps, images = 0, 0
    for arm in arms:
        own = replace(settings, arm=arm)
        size, made = counts(own, n, ASSUMED)
        images = max(images, made)
        for budget in budgets if arm != "original" else ("epochs",):
            steps += own.training.epochs * epoch_steps(size if budget == "epochs" else n, batch)
    synthetic = any(arm in SYNTHETIC_ARMS for arm in arms)
    trained = settings.generation.generator == "pixel" and synthetic
    return {
        "generator": settings.generation.generator_steps * speed.generator_step if trained else 0.0,
        "selection": seeds * early * epoch_steps(n, batch) * speed.step,
        "synthetic": seeds * images * speed.image if synthetic else 0.0,
        "training": seeds * steps * speed.step,
        "judge": 2 * JUDGE_EPOCHS * epoch_steps(n, 64) * speed.step if synthetic else 0.0,
    }


def fit(
    settings: Settings,
    arms: tuple[str, ...],
    seeds: int,
    budgets: tuple[str, ...],
    n: int,
    speed: Speed,
    budget: float | None,
) -> Plan:
    """The plan as asked for, or what of it fits `budget` seconds.

    Shortened in this order: the generator's training to a share of the time, the epochs, the
    comparison at equal steps, seeds down to two. Never the images.

    Raises:
        ParameterError: not even the least fits; it says how long that takes.
    """
    dropped: list[str] = []

    def needed(own: Settings, seeds: int, budgets: tuple[str, ...]) -> dict[str, float]:
        return seconds(own, arms, seeds, budgets, n, speed)

    took = needed(settings, seeds, budgets)
    if budget is None or sum(took.values()) <= RESERVE * budget:
        return Plan(settings, seeds, budgets, took)
    time_left = RESERVE * budget
    most = int(GENERATOR_SHARE * time_left / speed.generator_step) if speed.generator_step else 0
    wanted = settings.generation.generator_steps
    if took["generator"] and most < wanted:
        steps = max(LEAST_STEPS, most)
        settings = changed(settings, generator_steps=steps)
        dropped.append(f"the generator is trained {steps} steps instead of {wanted}")
    asked = seeds
    while True:
        took = needed(settings, seeds, budgets)
        others = sum(took.values()) - took["training"]
        share = (time_left - others) / took["training"] if took["training"] else 1.0
        epochs = int(settings.training.epochs * min(share, 1.0))
        if epochs >= min(LEAST_EPOCHS, settings.training.epochs):
            break
        if len(budgets) > 1:
            budgets = ("epochs",)
            dropped.append("the comparison at equal optimizer steps is left out")
        elif seeds > 2:
            seeds -= 1
        else:
            least = changed(settings, epochs=min(LEAST_EPOCHS, settings.training.epochs))
            total = sum(needed(least, seeds, budgets).values()) / RESERVE
            allowed = f"at least {clock(total)} for these {n} training images"
            require(False, "time_budget", clock(budget), allowed)
    if seeds < asked:
        dropped.append(f"{seeds} seeds instead of {asked}")
    if epochs < settings.training.epochs:
        before = settings.training.epochs
        dropped.append(f"networks are trained {epochs} epochs instead of {before}")
        warmup = min(settings.training.warmup_epochs, epochs)
        settings = changed(settings, epochs=epochs, warmup_epochs=warmup)
    return Plan(settings, seeds, budgets, needed(settings, seeds, budgets), tuple(dropped))


def clock(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5400 else f"{seconds / 3600:.1f}h"
