"""How fast batches are augmented, as ratios against what a user of torchvision would write.

Baseline: a `DataLoader` over PIL images with torchvision's transforms, in this process and with
worker processes, timed alternately with `empirical.training.augment` on the same images and batch
size. Both give shuffled, normalised float batches; this process computes on one thread, as in
training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.simulation import seconds_each
from common.seeding import torch_stream
from common.threads import one_thread
from empirical.training.augment import Augmentation

Json = dict[str, Any]
SIDE, BATCH = 32, 128
MEAN, SD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""CIFAR-10's, on the scale 0 to 1."""
GOAL = 3
EXTRA = {"crop+flip": [], "trivialaugment": [transforms.TrivialAugmentWide()]}
"""The augmentations measured, and what the baseline does between flipping and normalising."""


class Pictures(Dataset):
    """The same uint8 images (n, C, side, side) one by one through PIL."""

    def __init__(self, pixels: Tensor, name: str) -> None:
        self.array = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SIDE, padding=SIDE // 8),
                transforms.RandomHorizontalFlip(),
                *EXTRA[name],
                transforms.ToTensor(),
                transforms.Normalize(MEAN, SD),
            ]
        )

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.array[index]))


def batches(pixels: Tensor, name: str, epoch: int) -> Iterator[Tensor]:
    """One epoch of shuffled batches, augmented and normalised: float32 (n, C, side, side)."""
    augmentation = Augmentation(name)
    mean, sd = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, SD))
    stream = torch_stream("bench", epoch)
    draws = augmentation.draw(len(pixels), stream)
    for rows in torch.randperm(len(pixels), generator=stream).split(BATCH):
        batch = augmentation.apply(pixels[rows], draws[rows])
        yield batch.float().sub_(mean).div_(sd)


def _here(pixels: Tensor, name: str) -> Callable[[int], None]:
    epochs = itertools.count()

    def run(count: int) -> None:
        for _ in range(count):
            for _ in batches(pixels, name, next(epochs)):
                pass

    return run


def _loader(pixels: Tensor, name: str, workers: int) -> Callable[[int], None]:
    loader = DataLoader(
        Pictures(pixels, name),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,  # so that starting them is not timed
    )

    def run(count: int) -> None:
        for _ in range(count):
            for _ in loader:
                pass

    return run


def _case(name: str, n: int, workers: tuple[int, ...], rounds: int, least: float) -> Json:
    """Images a second here and with each number of workers, and ratios of time."""
    pixels = torch.randint(
        256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch_stream("bench")
    )
    loaders = {f"{count} workers": _loader(pixels, name, count) for count in workers}
    found = seconds_each({"here": _here(pixels, name), **loaders}, rounds, least)
    return {
        "augmentation": name,
        "images": n,
        "side": SIDE,
        "batch_size": BATCH,
        "images_a_second": {which: n / value["seconds"] for which, value in found.items()},
        "loader_over_here": {which: found[which]["over_first"] for which in loaders},
    }


def bench_augment(small: bool = False) -> Json:
    """Measure both augmentations; small: a few images, no worker processes, to show it works.

    Returns "goals" (as `benchmarks.simulation`: name, measured, relation, goal, met), and
    "against_loader", the cases behind them.
    """
    n, workers, rounds, least = (256, (0,), 2, 0.01) if small else (4096, (0, 2), 5, 0.3)
    with one_thread():
        cases = [_case(name, n, workers, rounds, least) for name in EXTRA]
    goals = [
        {
            "name": f"{case['augmentation']}, DataLoader with PIL and {which} / here",
            "measured": measured,
            "relation": ">=",
            "goal": GOAL,
            "met": measured >= GOAL,
        }
        for case in cases
        for which, measured in case["loader_over_here"].items()
    ]
    return {"goals": goals, "against_loader": cases}
