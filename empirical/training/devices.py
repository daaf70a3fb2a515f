"""What a training runs on: accelerate's devices and trackers, threads, torch's random streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin
from threadpoolctl import threadpool_limits

from common.errors import ParameterError, require
from empirical.training.recipes import Recipe


def check_device(name: str) -> None:
    """Raise ParameterError unless torch can compute on the device of this name here."""
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        known = "cpu"
        if torch.accelerator.is_available():
            known += f" or {torch.accelerator.current_accelerator()}"
        raise ParameterError("device", name, f"{known}: torch finds no other here") from None


TOLD = ("loss", "error", "lr", "steps")
"""What trackers are told of an epoch, beside its evaluation."""


@contextmanager
def accelerated(
    recipe: Recipe, cpu: bool, trackers: Sequence[str], folder: Path | None
) -> Iterator[Accelerator]:
    """An accelerator as the recipe wants it, whatever another training used before.

    Raises:
        ParameterError: the device cannot do what the recipe asks for, or a tracker is missing.
    """
    _check_trackers(trackers, folder)
    # accelerate keeps one state for the process, and refuses another precision or device
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        # without this, several processes on CPUs would train one by one
        cpu=cpu or not torch.accelerator.is_available(),
        mixed_precision=recipe.precision,
        # given like this it wins over the environment: micro-batches are the recipe's
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=list(trackers) or None,
        project_dir=None if folder is None else str(folder),
    )
    kinds = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    kind = accelerator.distributed_type
    require(kind not in kinds, "distributed_type", kind.value, "DistributedDataParallel")
    on_cpu = accelerator.device.type == "cpu"
    require(recipe.precision != "fp16" or not on_cpu, "precision", "fp16", "no or bf16 on a CPU")
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


@contextmanager
def training_context(device: torch.device, threads: int) -> Iterator[None]:
    """Threads, cuDNN's choice of kernels by trial, and random streams; all as before afterwards."""
    before, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    devices = [] if device.type == "cpu" else [device.index or 0]
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    try:
        with (
            threadpool_limits(threads),
            torch.random.fork_rng(devices, device_type=device.type if devices else None),
        ):
            yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.benchmark = benchmark


def seed_streams(device: torch.device, seed: int) -> None:
    """Seed torch's global streams that a network on `device` draws from."""
    # not torch.manual_seed, which takes a good part of a small network's step without a GPU
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _check_trackers(trackers: Sequence[str], folder: Path | None) -> None:
    known = [str(own) for own in get_available_trackers()]
    for name in trackers:
        allowed = f"one that is installed ({', '.join(known) or 'none is'})"
        require(name in known, "trackers", name, allowed)
        require(
            name != "tensorboard" or folder is not None, "trackers", name, "given with a folder"
        )


@dataclass(frozen=True)
class Tracked:
    """How trackers know a training: project and name of its run, and the settings it is of.

    name: tells it apart from others of the project, and is a folder's name; settings: JSON values,
    none: those of the recipe.
    """

    project: str = "tada"
    name: str = "training"
    settings: Mapping[str, Any] = field(default_factory=dict)


NAMED_BY = {
    **{"wandb": "name", "mlflow": "run_name", "trackio": "name"},
    **{"swanlab": "experiment_name", "clearml": "task_name"},
}
"""What trackers call the name of a run; the others have only the project, or the folder."""


def start_trackers(accelerator: Accelerator, recipe: Recipe, run: Tracked) -> None:
    """Open the trackers, and tell them the settings, each a flat value."""
    plain = (bool, int, float, str)
    config = {
        name: own if isinstance(own, plain) else str(own)
        for name, own in (run.settings or asdict(recipe)).items()
    }
    named = {tracker: {word: run.name} for tracker, word in NAMED_BY.items()}
    accelerator.init_trackers(run.project, config, named)


def tell_trackers(accelerator: Accelerator, record: Mapping[str, Any]) -> None:
    """Log the numbers of an epoch's record, those of its evaluation as evaluation/NAME."""
    named = {name: record[name] for name in TOLD}
    named |= {f"evaluation/{name}": own for name, own in record.get("evaluation", {}).items()}
    numbers = {name: own for name, own in named.items() if isinstance(own, int | float)}
    accelerator.log(numbers, step=record["epoch"])
