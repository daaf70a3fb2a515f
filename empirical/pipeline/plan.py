"""What a run would do, before it is done: `empirical run --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from common.errors import ParameterError, require
from common.files import read_json
from empirical.config.arms import RUN_ARMS, SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.config.strength import grid
from empirical.datasets import sizes
from empirical.datasets.splits import make_split, open_set
from empirical.pipeline.memory import counts
from empirical.runtime import HERE, Machine
from empirical.training import networks
from empirical.training.recipes import epoch_steps

SLOW_SHARE = {"cifar10": 0.3, "cifar100": 0.4}
"""Shares that the paper found; elsewhere 35% is assumed until the selection is done."""
ASSUMED = 0.35
BYTES = {"no": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Arm:
    """One arm's cost: its training images, how many of them are made and in how many denoising
    steps of single images (None: not known, or none is left), and the optimizer's steps."""

    images: int
    synthetic: int
    denoising_steps: int | None
    steps: int


def slow_share(settings: Settings, out: Path) -> tuple[float, str]:
    """The share of slow examples, and where it comes from."""
    path = out / "selection.json"
    if path.exists():
        return float(read_json(path, "selection", ("slow_fraction",))["slow_fraction"]), "measured"
    known = settings.data.dataset in SLOW_SHARE
    return SLOW_SHARE.get(settings.data.dataset, ASSUMED), "the paper's" if known else "assumed"


def every_arm(
    settings: Settings, n: int, share: float, tried: Mapping[float, int] | None = None
) -> dict[str, Arm]:
    """Every arm at these settings, on n original images.

    tried: denoising steps at strengths that were tried.
    """
    found = {}
    for name in RUN_ARMS:
        images, made = counts(replace(settings, arm=name), n, share)
        counted = images if settings.budget == "epochs" else n
        steps = settings.training.epochs * epoch_steps(counted, settings.training.batch_size)
        try:
            denoising = denoising_steps(replace(settings, arm=name), made, tried)
        except ParameterError:  # another arm's strength leaves no step
            denoising = None
        found[name] = Arm(images, made, denoising, steps)
    return found


def denoising_steps(
    settings: Settings, synthetic: int, tried: Mapping[float, int] | None = None
) -> int | None:
    """Denoising steps of single images for the synthetic images of the settings' arm.

    tried: those at strengths that were tried. None: a pipeline has yet to say.
    """
    copies = settings.k - 1 if settings.arm in ("tada", "syn-rand") else 1
    used = settings.arm_strengths[: max(1, copies)]
    known, wanted = tried or {}, settings.generation.denoising_steps
    fixed = settings.generation.fixed_steps
    if any(s not in known for s in used) and wanted is None:
        return None
    steps = [known[s] if s in known or wanted is None else grid(wanted, fixed, s)[1] for s in used]
    if settings.generation.trajectory:  # all copies cost what its last one costs
        return round(synthetic * steps[0] / max(1, copies))
    rounds, rest = divmod(max(1, copies), len(steps))
    return round(synthetic * (rounds * sum(steps) + sum(steps[:rest])) / max(1, copies))


def activations(network: nn.Module, channels: int, side: int) -> int:
    """Numbers that the forward pass of one image leaves behind: outputs of all layers."""
    total = 0

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel()

    leaves = [m for m in network.modules() if not any(m.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        network.eval()(torch.empty(1, channels, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def memory(settings: Settings, shape: sizes.Size, images: int) -> dict[str, int]:
    """Bytes on the device: images, weights with gradient and optimizer state, activations."""
    with torch.device("meta"):
        network = networks.make(settings.network, shape.channels, shape.side, shape.n_classes)
    parameters = sum(p.numel() for p in network.parameters())
    states = 2 if "adamw" in settings.training.optimizer else 1
    ascent = 0 if settings.training.optimizer in ("sgd", "adamw") else 1
    per_batch = -(-settings.training.batch_size // settings.training.accumulation)
    each = activations(network, shape.channels, shape.side) * BYTES[settings.training.precision]
    return {
        "images": images * shape.channels * shape.side**2,
        "network and optimizer": 4 * parameters * (2 + states + ascent),
        "activations": each * per_batch,
        "checkpoint": 4 * parameters * (1 + states),
    }


def plan(settings: Settings, out: Path, machine: Machine = HERE) -> dict[str, Any]:
    """Everything that `tables` shows, as JSON values.

    Nothing is read but OUT/selection.json and, where it is on this machine, a named generator,
    which makes one image. What depends on this machine, such as precision, is not checked: the run
    may be for another.

    Raises:
        ParameterError: the settings do not fit the data set, or no generator; or it does not work.
    """
    shape = _size_of(settings, machine)
    n = settings.data.train_images or shape.n_train
    if settings.data.dataset == "digits":
        make_split(open_set(settings.data, machine.data), settings.data)
    else:
        most = shape.n_train
        require(n <= most, "n_train", n, f"at most {most} for {settings.data.dataset}")
        allowed = f"below {most // n} with n_train = {n}"
        require(settings.data.split < most // n, "split", settings.data.split, allowed)
    generator, counted = [], {}
    if settings.arm in SYNTHETIC_ARMS:
        from empirical.pipeline import synthesis  # imports every generator's library

        synthesis.check_settings(settings)
        images = (shape.channels, shape.side, shape.n_classes)
        tried = synthesis.try_named(settings, *images, replace(machine, download=False))
        if tried is not None:
            generator, counted = list(tried.lines), tried.steps
        elif synthesis.is_named(settings):
            generator = [
                f"{settings.generation.generator} is not on this machine, so it was not tried"
            ]
    share, source = slow_share(settings, out)
    every = every_arm(settings, n, share, counted)
    own = every[settings.arm]
    return {
        "settings": settings.record(),
        "generator": generator,
        "n_original": n,
        "slow_share": share,
        "slow_share_is": source,
        "arms": {name: vars(arm) for name, arm in every.items()},
        "arm": settings.arm,
        "forward_passes_a_step": 1 if settings.training.optimizer in ("sgd", "adamw") else 2,
        "memory": memory(settings, shape, own.images),
        "out": str(out),
    }


def _size_of(settings: Settings, machine: Machine) -> sizes.Size:
    """The data set's size; hf:NAME has to be read for it."""
    if not settings.data.dataset.startswith("hf:"):
        return sizes.size(settings.data.dataset, settings.data.image_size)
    data = open_set(settings.data, machine.data, machine.download)
    return sizes.Size(len(data.train.labels), len(data.classes), data.channels, data.side)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """The plan as tables for a terminal."""
    settings = found["settings"]
    title = (
        f"{settings['dataset']}, {settings['network']}, {settings['optimizer']}, "
        f"{settings['epochs']} epochs; slow: {100 * found['slow_share']:.0f}% "
        f"({found['slow_share_is']})"
    )
    listed = Table(title=title, box=SIMPLE_HEAD)
    columns = ("arm", "training images", "of these made", "denoising steps", "optimizer steps")
    for column in columns:
        listed.add_column(column, justify="left" if column == "arm" else "right")
    for name, arm in found["arms"].items():
        chosen = f"[bold]{name}[/] *" if name == found["arm"] else name
        needs = [
            "?" if arm[what] is None else f"{arm[what]:,}"
            for what in ("synthetic", "denoising_steps")
        ]
        needs = needs if name in SYNTHETIC_ARMS else ["-", "-"]
        listed.add_row(chosen, f"{arm['images']:,}", *needs, f"{arm['steps']:,}")
    costs = Table(title=f"arm {found['arm']} into {found['out']}", box=SIMPLE_HEAD)
    costs.add_column("what")
    costs.add_column("how much", justify="right")
    costs.add_row("gradients a step", str(found["forward_passes_a_step"]))
    for name, size in found["memory"].items():
        costs.add_row(f"{name}, memory" if name != "checkpoint" else name, _size(size))
    return [listed, costs]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
