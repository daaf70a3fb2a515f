"""How much the engine adds to the network's own work, and what SAM costs, as ratios.

Baseline: forward, backward and step in plain torch on one batch that is there already. Baseline,
engine and engine with SAM are timed alternately in one process, so that what else the machine does
falls on all alike, and each ratio is taken inside a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from common.progress import progress
from common.seeding import torch_stream
from empirical.training import networks
from empirical.training.batches import Normalisation, TrainingSet
from empirical.training.devices import training_context
from empirical.training.engine import train
from empirical.training.recipes import Recipe

Json = dict[str, Any]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
INSIDE, SAM = 0.95, 2.1
"""Goals: share of the engine's time that the baseline takes; a SAM step over one of SGD."""


@dataclass(frozen=True)
class Case:
    """A network on images of 3 x side x side, and how long it is measured.

    steps: of each kind in a round.
    """

    network: str = "resnet18"
    side: int = 32
    batch_size: int = 8
    precision: str = "no"
    channels_last: bool = False
    augmentation: str = "crop+flip"
    steps: int = 2
    rounds: int = 7


ON_CPU = Case()
ON_GPU = Case(batch_size=128, precision="bf16", channels_last=True, steps=100)
SMALL = Case(network="small", side=8, steps=2, rounds=2)


def training_set(case: Case) -> TrainingSet:
    """Random images for one epoch of the case's steps."""
    n, stream = case.batch_size * case.steps, torch_stream("bench engine")
    shape = (n, 3, case.side, case.side)
    return TrainingSet(
        pixels=torch.randint(256, shape, dtype=torch.uint8, generator=stream),
        labels=torch.randint(10, (n,), generator=stream),
        rows=torch.arange(n),
        n_classes=10,
        mean=MEAN,
        std=STD,
    )


def recipe(case: Case) -> Recipe:
    """Plain SGD; a learning rate at which random labels do no harm."""
    return Recipe(
        epochs=1,
        batch_size=case.batch_size,
        lr=0.001,
        precision=case.precision,
        channels_last=case.channels_last,
        augmentation=case.augmentation,
    )


def _network(case: Case) -> nn.Module:
    return networks.build(case.network, 3, case.side, 10, ("bench engine",))


def bare(case: Case, device: torch.device) -> Callable[[], float]:
    """Seconds a step of plain torch on one batch, as the engine trains (cuDNN, threads, layout)."""
    data, how = training_set(case), recipe(case)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    network = _network(case).to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(
        network.parameters(), lr=how.base_lr, momentum=how.momentum, weight_decay=how.weight_decay
    )
    pixels = data.pixels[: case.batch_size].to(device)
    x = Normalisation.of(MEAN, STD, device)(pixels).contiguous(memory_format=layout)
    y = data.labels[: case.batch_size].to(device)

    def autocast() -> Any:
        if case.precision == "no":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def run() -> float:
        loss = torch.zeros(())
        with training_context(device, 1):
            began = time.monotonic()
            for _ in range(case.steps):
                optimizer.zero_grad()
                with autocast():
                    logits = network(x)
                loss = cross_entropy(logits.float(), y)
                loss.backward()
                optimizer.step()
            loss.item()  # waits for the device
            return (time.monotonic() - began) / case.steps

    return run


def engine(case: Case, cpu: bool, **changes: Any) -> Callable[[], float]:
    """Seconds a step of the engine: gathering, augmenting and everything else included."""
    data, how = training_set(case), replace(recipe(case), **changes)
    network = _network(case)

    def run() -> float:
        return train(network, data, how, show="", cpu=cpu).seconds / case.steps

    return run


def measure(case: Case, cpu: bool, advance: Callable[[], None] = lambda: None) -> Json:
    """Times and ratios of one case, the median over rounds with the least and the most."""
    on_gpu = torch.accelerator.is_available() and not cpu
    device = torch.accelerator.current_accelerator() if on_gpu else None
    device = device or torch.device("cpu")
    runs = {
        "bare": bare(case, device),
        "engine": engine(case, cpu),
        "engine, SAM": engine(case, cpu, optimizer="sam"),
    }
    for run in runs.values():
        run()  # kernels are chosen, memory is taken
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(case.rounds):
        for name, run in runs.items():
            times[name].append(run())
        advance()

    def ratio(one: str, other: str) -> Json:
        return spread([a / b for a, b in zip(times[one], times[other], strict=True)])

    return {
        **asdict(case),
        "device": device.type,
        "seconds_a_step": {name: spread(own) for name, own in times.items()},
        "bare_over_engine": ratio("bare", "engine"),
        "sam_over_sgd": ratio("engine, SAM", "engine"),
    }


def spread(values: Sequence[float]) -> Json:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def bench_engine(small: bool = False, cpu: bool = False) -> Json:
    """Measure the engine; small: tiny sizes that only show that it works; cpu: not the GPU.

    Returns "goals" (as `benchmarks.simulation`: name, measured, relation, goal, met), and "engine",
    the case behind them. About 40 s on one core.
    """
    on_gpu = torch.accelerator.is_available() and not cpu
    case = SMALL if small else ON_GPU if on_gpu else ON_CPU
    with progress("rounds", case.rounds) as advance:
        found = measure(case, cpu, advance)
    inside, sam = (found[key]["median"] for key in ("bare_over_engine", "sam_over_sgd"))
    what = f"{case.network}, batch {case.batch_size}"
    goals = [
        {
            "name": f"{what}: bare forward, backward and step / engine step",
            "measured": inside,
            "relation": ">=",
            "goal": INSIDE,
            "met": inside >= INSIDE,
        },
        {
            "name": f"{what}: SAM step / SGD step",
            "measured": sam,
            "relation": "<=",
            "goal": SAM,
            "met": sam <= SAM,
        },
    ]
    return {"goals": goals, "engine": found}
