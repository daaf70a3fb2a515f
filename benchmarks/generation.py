"""How much of the time of making synthetic images is the network's, as ratios.

What is timed is what a run does: wanted images through a pixel generator into a store of its own,
with noise, scheduler, PNG files, digests and disk. The generator has random weights, and the
images are random, which is the worst case for PNG. Baseline: what a user of diffusers would write,
one image at a time into a PNG file. All are timed alternately, and each ratio is
taken inside a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,  # pyright: ignore[reportPrivateImportUsage]
    DDPMPipeline,  # pyright: ignore[reportPrivateImportUsage]
    DDPMScheduler,  # pyright: ignore[reportPrivateImportUsage]
)
from PIL import Image
from torch import nn

from benchmarks.training import spread
from common.progress import progress
from common.seeding import torch_stream
from common.threads import one_thread
from empirical.config.data import DataSettings
from empirical.config.generation import GenerationSettings
from empirical.config.settings import Settings
from empirical.config.strength import grid
from empirical.datasets.base import Images
from empirical.generation.framing import framing_for
from empirical.generation.pixel import Pixel, load_pixel
from empirical.generation.recipe import Recipe
from empirical.generation.sampling import Sampling
from empirical.generation.train import make_unet
from empirical.pipeline.arms import Pair
from empirical.pipeline.synthesis import maker, request
from empirical.runtime import Machine
from empirical.storage.store import make_store

Json = dict[str, Any]
CLASSES = tuple("abcdefghij")
INSIDE, OVER_SHARE = 0.95, 1.05
"""Goals: share of the time inside the network; the cost of TADA over what its images tell."""


@dataclass(frozen=True)
class Case:
    """A generator for 3 x side x side images, what is made of `images` originals, and how.

    slow: the share of them for which TADA makes an image; steps: denoising steps of an image;
    alone: images that the baseline makes in a round.
    """

    side: int = 32
    widths: tuple[int, ...] = (32, 64)
    images: int = 128
    slow: float = 0.35
    batch_size: int = 64
    steps: int = 8
    strength: float = 0.5
    alone: int = 16
    rounds: int = 3


ON_CPU = Case()
ON_GPU = Case(widths=(128, 256, 256), images=512, steps=50, alone=8)
"""Steps as the paper has them, and a network of the size of the public ones for CIFAR-10."""
SMALL = Case(side=8, widths=(8,), images=20, batch_size=8, steps=2, alone=2, rounds=2)


def settings(case: Case, model: Path) -> Settings:
    """Of a run with one synthetic image for each wanted original."""
    return Settings(
        data=DataSettings("cifar10"),
        k=2,
        generation=GenerationSettings(
            generator=f"pixel:{model}", strength=case.strength, denoising_steps=case.steps
        ),
    )


def originals(case: Case) -> Images:
    """Random images."""
    stream = torch_stream("bench generation")
    shape = (case.images, 3, case.side, case.side)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=stream)
    return Images(pixels, torch.arange(case.images) % len(CLASSES), CLASSES)


def generator(case: Case, folder: Path, device: str) -> Pixel:
    """A model with random weights, saved and loaded like any other."""
    framing = framing_for(case.side, 2 ** (len(case.widths) - 1))
    unet = make_unet(3, framing, len(CLASSES), Recipe(widths=case.widths), seed=0)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    DDPMPipeline(unet, scheduler).save_pretrained(folder)
    sampling = Sampling(steps=case.steps, fixed_steps=True)
    return load_pixel(folder, 3, case.side, len(CLASSES), sampling, True, device)


@contextmanager
def clocked(network: nn.Module, device: torch.device) -> Iterator[Callable[[], float]]:
    """Gives a function that tells the seconds spent in the network's forward passes so far.

    On a GPU they are those of the device: waiting for them after each pass would cost time.
    """
    marks: list[Any] = []

    def mark(*_: object) -> None:
        if device.type == "cpu":
            marks.append(time.perf_counter())
        else:
            marks.append(torch.get_device_module(device).Event(enable_timing=True))
            marks[-1].record()

    def told() -> float:
        pairs = zip(marks[::2], marks[1::2], strict=True)
        if device.type == "cpu":
            return sum(after - before for before, after in pairs)
        torch.get_device_module(device).synchronize()
        return sum(before.elapsed_time(after) for before, after in pairs) / 1000

    hooks = [network.register_forward_pre_hook(mark), network.register_forward_hook(mark)]
    try:
        yield told
    finally:
        for hook in hooks:
            hook.remove()


def arms(case: Case) -> dict[str, list[Pair]]:
    """What the arms ask for: of every original one image, or of the slow ones."""
    order = torch.randperm(case.images, generator=torch_stream("bench generation", "slow"))
    slow = sorted(order[: round(case.slow * case.images)].tolist())
    return {"syn-all": [(n, 1) for n in range(case.images)], "tada": [(n, 1) for n in slow]}


def stored(
    case: Case, backend: Pixel, images: Images, pairs: Sequence[Pair], folder: Path
) -> tuple[float, float]:
    """Seconds to make images into a new store, and those of them inside the network."""
    chosen = settings(case, folder)
    with clocked(backend.unet, backend.unet.device) as inside:
        began = time.perf_counter()
        wanted = request(images, pairs, chosen, backend, seed=0)
        make_store(folder, wanted, maker(images, pairs, chosen, backend, 0), case.batch_size)
        return time.perf_counter() - began, inside()


@torch.no_grad()
def one_by_one(case: Case, backend: Pixel, images: Images, count: int, folder: Path) -> float:
    """Seconds for some images as one would write it with diffusers: one after the other."""
    unet: Any = backend.unet
    whole, done = grid(case.steps, True, case.strength)
    folder.mkdir()
    began = time.perf_counter()
    config = dict(backend.schedule)
    scheduler: Any = DDIMScheduler.from_config(config, timestep_spacing="trailing")
    scheduler.set_timesteps(whole)
    for number in range(count):
        stream = torch.Generator().manual_seed(number)
        clean = images.pixels[number : number + 1].float() / 127.5 - 1
        label = images.labels[number : number + 1].to(unet.device)
        noise = torch.randn(clean.shape, generator=stream)
        timesteps = scheduler.timesteps[-done:]
        noisy = scheduler.add_noise(clean, noise, timesteps[:1]).to(unet.device)
        for timestep in timesteps:
            output = unet(noisy, timestep.to(unet.device), class_labels=label).sample
            noisy = scheduler.step(output, timestep, noisy).prev_sample
        levels = ((noisy[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        Image.fromarray(levels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return time.perf_counter() - began


def measure(case: Case, device: str, advance: Callable[[], None] = lambda: None) -> Json:
    """Times and ratios of one case, the median over rounds with the least and the most."""
    images, pairs = originals(case), arms(case)
    keys = ("inside", "tada_over_syn_all", "alone_over_here", "here", "alone")
    found: dict[str, list[float]] = {key: [] for key in keys}
    with TemporaryDirectory() as name, one_thread():
        root = Path(name)
        backend = generator(case, root / "model", device)
        # kernels are chosen, memory is taken
        stored(case, backend, images, pairs["syn-all"][: case.batch_size], root / "first")
        one_by_one(case, backend, images, 1, root / "first one")
        for number in range(case.rounds):
            took, inside = stored(case, backend, images, pairs["syn-all"], root / f"all {number}")
            tada, _ = stored(case, backend, images, pairs["tada"], root / f"tada {number}")
            alone = one_by_one(case, backend, images, case.alone, root / f"alone {number}")
            found["inside"].append(inside / took)
            found["tada_over_syn_all"].append(tada / took)
            found["here"].append(case.images / took)
            found["alone"].append(case.alone / alone)
            found["alone_over_here"].append(found["here"][-1] / found["alone"][-1])
            advance()
    return {
        **asdict(case),
        "widths": list(case.widths),
        "device": torch.device(device).type,
        "slow_images": len(pairs["tada"]),
        "inside_network": spread(found["inside"]),
        "tada_over_syn_all": spread(found["tada_over_syn_all"]),
        "one_by_one_over_batches": spread(found["alone_over_here"]),
        "images_a_second": {
            "here": spread(found["here"]),
            "one by one": spread(found["alone"]),
        },
    }


def bench_generation(small: bool = False, cpu: bool = False) -> Json:
    """Measure generation; small: tiny sizes that only show that it works; cpu: not the GPU.

    Returns "goals" (as `benchmarks.simulation`: name, measured, relation, goal, met), and
    "generation", the case behind them. About a minute on one core.
    """
    device = Machine(cpu=cpu).device
    case = SMALL if small else ON_CPU if device == "cpu" else ON_GPU
    with progress("rounds", case.rounds) as advance:
        found = measure(case, device, advance)
    inside = found["inside_network"]["median"]
    share = found["slow_images"] / case.images
    cost = found["tada_over_syn_all"]["median"] / share
    goals = [
        {
            "name": f"generation, batch {case.batch_size}: share of the time inside the network",
            "measured": inside,
            "relation": ">=",
            "goal": INSIDE,
            "met": inside >= INSIDE,
        },
        {
            "name": f"TADA / Syn-all in time, over {share:.0%}, its share of the images",
            "measured": cost,
            "relation": "<=",
            "goal": OVER_SHARE,
            "met": cost <= OVER_SHARE,
        },
    ]
    return {"goals": goals, "generation": found}
