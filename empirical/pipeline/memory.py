"""How much memory a run takes at its peak, said before the first of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from common.errors import ParameterError
from common.memory import require_memory
from empirical.config.arms import SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.datasets.base import ImageSet
from empirical.datasets.splits import Split, for_generator
from empirical.generation.recipe import Recipe
from empirical.runtime import Machine
from empirical.training import networks
from empirical.training.evaluate import BATCH_SIZE

EACH_SYNTHETIC = 1500
"""Bytes of a synthetic image beside its pixels: its pair, its place in the store and in the bank,
a tensor of its own."""

TWO = 2
"""Images of a trial on the meta device: group norm refuses a single value."""

EACH_EXAMPLE = 160
"""Bytes of a training example: its pair and its row."""

ASSUMED_SLOW = 0.35
"""Share of slow examples before it is measured."""


@dataclass(frozen=True)
class Sizes:
    """What a run's memory depends on beside its settings.

    n_train: training images of the split, n_test: test images, n_pool: those that a generator is
    trained on; then the shape of an image and the classes.
    """

    n_train: int
    n_test: int
    n_pool: int
    channels: int
    side: int
    n_classes: int


def counts(settings: Settings, n: int, share: float = ASSUMED_SLOW) -> tuple[int, int]:
    """Training examples of the settings' arm on n originals, and the synthetic images of them."""
    slow = round(share * n)
    added = {"original": 0, "syn-all": n, "boomerang": n}.get(settings.arm, (settings.k - 1) * slow)
    return n + added, added if settings.arm in SYNTHETIC_ARMS else 0


def run_bytes(settings: Settings, sizes: Sizes, generation_batch: int) -> dict[str, int]:
    """Bytes that each stage of a run takes beside the data set's own images.

    Right within a factor of 2 where it is large. The settings must be allowed; a generator that
    is not made here (hub, glide, pixel:MODEL) is not counted, since nobody has read it yet.
    Networks are made on the meta device, without memory.
    """
    shape = (sizes.channels, sizes.side, sizes.side)
    image = sizes.channels * sizes.side**2
    examples, made = counts(settings, sizes.n_train)
    network = _meta(lambda: networks.make(settings.network, *shape[:2], sizes.n_classes))
    parameters, kept, widest = _sizes_of(network, shape)
    batch = -(-settings.training.batch_size // settings.training.accumulation)
    in_training = 4 * (2 * kept + 3 * image) * batch
    in_scoring = 4 * (2 * widest + 2 * image) * min(BATCH_SIZE, max(sizes.n_train, sizes.n_test))
    scored = 12 * sizes.n_classes * (sizes.n_train + sizes.n_test)
    found = {
        "early network": 4 * 3 * parameters + max(in_training, in_scoring) + scored,
    }
    if made and settings.generation.generator == "pixel":
        # a batch is of one copy of each source, or of the trajectories of some
        sources = made if settings.arm in ("syn-all", "boomerang") else made // (settings.k - 1)
        found |= _generator_bytes(settings, sizes, min(generation_batch, sources))
    bank = image * (sizes.n_train + 4 * made) + EACH_SYNTHETIC * made
    bank += EACH_EXAMPLE * examples
    states = 2 if "adamw" in settings.training.optimizer else 1
    ascent = 0 if settings.training.optimizer in ("sgd", "adamw") else 1
    # a checkpoint is written from a copy of the weights and the optimizer's state
    weights = 4 * parameters * (2 + states + ascent + 2 * (1 + states))
    found["training set"] = bank
    found["final network"] = bank + weights + max(in_training, in_scoring)
    return found


def _generator_bytes(settings: Settings, sizes: Sizes, together: int) -> dict[str, int]:
    """Bytes to train the generator `pixel`, and to make so many images together with it."""
    from empirical.pipeline.synthesis import recipe_of  # diffusers takes seconds to import

    doubled = 1 if settings.generation.guidance == 1 else 2
    return generator_bytes(recipe_of(settings, flips=False), sizes, together * doubled)


def generator_bytes(recipe: Recipe, sizes: Sizes, together: int = 0) -> dict[str, int]:
    """Bytes to train a generator, and to pass so many images through it at once."""
    from empirical.generation.framing import framing_for
    from empirical.generation.train import make_unet

    framing = framing_for(sizes.side, 2 ** (len(recipe.widths) - 1), recipe.shuffle)
    unet = _meta(lambda: make_unet(sizes.channels, framing, sizes.n_classes, recipe, 0))
    inner = framing.padded // framing.shuffle
    shape = (sizes.channels * framing.shuffle**2, inner, inner)
    told = {"timestep": torch.zeros(TWO, device="meta", dtype=torch.int64)}
    if recipe.conditional:
        told["class_labels"] = torch.zeros(TWO, device="meta", dtype=torch.int64)
    parameters, kept, widest = _sizes_of(unet, shape, told)
    image = sizes.channels * framing.padded**2
    # weights, gradient, Adam's two, the average; what is written is copied first
    written = 6 if recipe.steps > recipe.checkpoint_every else 1
    trained = 4 * parameters * (5 + written) + 4 * recipe.batch_size * (2 * kept + 6 * image)
    making = 4 * parameters + 4 * together * (kept / 4 + 2 * widest + 6 * image)
    return {"generator": trained + sizes.n_pool * image, "synthetic images": round(making)}


def _meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory. Raises ParameterError where torch cannot count so many numbers."""
    try:
        with torch.device("meta"):
            return make()
    except ParameterError:
        raise
    except (RuntimeError, OverflowError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ParameterError(
            "network", "larger than torch can count", f"smaller ({first})"
        ) from None


def _sizes_of(
    network: nn.Module, shape: tuple[int, int, int], told: dict[str, torch.Tensor] | None = None
) -> tuple[int, int, int]:
    """Parameters, numbers that a forward pass of one image leaves behind, and its widest layer's.

    told: what the network is given beside the image.
    """
    outputs: list[int] = []

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append(output.numel())

    leaves = [m for m in network.modules() if not any(m.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        network.eval()(torch.empty(TWO, *shape, device="meta"), **(told or {}))
    for hook in hooks:
        hook.remove()
    parameters = sum(p.numel() for p in network.parameters())
    return parameters, sum(outputs) // TWO, max(outputs) // TWO


def check_split(settings: Settings, data: ImageSet, split: Split, machine: Machine) -> None:
    """`check_run` of a run on this split of a data set."""
    pool = len(for_generator(split, settings.generation.generator_data == "pool"))
    counted = (len(split.train), len(split.test), pool)
    sizes = Sizes(*counted, data.channels, data.side, len(data.classes))
    check_run(settings, sizes, machine)


def check_run(settings: Settings, sizes: Sizes, machine: Machine) -> None:
    """Raise TooLargeError unless this machine has the memory for the run.

    Where a GPU computes, its own memory holds the networks; the images are still the machine's.
    """
    stages = run_bytes(settings, sizes, machine.generation_batch)
    device = torch.device(machine.device)
    examples, made = counts(settings, sizes.n_train)
    own = settings.generation
    network = f"{settings.network} in batches of {settings.training.batch_size}"
    described = {
        "early network": (network, _NETWORK),
        "generator": (
            f"a generator of widths {' '.join(map(str, own.generator_widths))} with tiles of "
            f"{own.generator_shuffle}",
            "--generator-widths or --generator-shuffle",
        ),
        "synthetic images": (
            f"{min(machine.generation_batch, made)} images of {sizes.channels} x {sizes.side} x "
            f"{sizes.side} made together",
            "--generation-batch or --generator-widths",
        ),
        "training set": (
            f"{examples} training examples, about {made} of them synthetic images of "
            f"{sizes.channels} x {sizes.side} x {sizes.side}",
            "--k or --n-train",
        ),
    }
    described["final network"] = (
        f"{network} on {described['training set'][0]}",
        f"--k, {_NETWORK}",
    )
    for stage, needed in stages.items():
        made_of, lower = described[stage]
        on_gpu = device.type == "cuda" and stage != "training set"
        there = torch.cuda.mem_get_info(device)[0] if on_gpu else None
        require_memory("empirical run", needed, made_of, lower, there)


def check_generator(recipe: Recipe, sizes: Sizes, device: str) -> None:
    """Raise TooLargeError unless this machine has the memory for `train-generator`."""
    needed = generator_bytes(recipe, sizes)["generator"]
    on_gpu = torch.device(device).type == "cuda"
    there = torch.cuda.mem_get_info(device)[0] if on_gpu else None
    made_of = (
        f"a generator of widths {' '.join(map(str, recipe.widths))} with tiles of "
        f"{recipe.shuffle}, in batches of {recipe.batch_size}"
    )
    lower = "--widths, --batch-size or --layers"
    require_memory("empirical train-generator", needed, made_of, lower, there)


def check_seeds(command: str, settings: Settings, seeds: int) -> None:
    """Raise TooLargeError unless so many seeds of digits can be trained as one program here."""
    stages = run_bytes(replace(settings, arm="upsample"), _digits(settings), 50)
    needed = seeds * max(stages["early network"], stages["final network"])
    require_memory(command, needed, f"{seeds} seeds trained together", "--seeds")


def _digits(settings: Settings) -> Sizes:
    n = settings.data.train_images or 100
    return Sizes(n, 1797 - 500 - 197 - n, 500, 1, 8, 10)


_NETWORK = "--batch-size or --network, or raise --accumulation"
