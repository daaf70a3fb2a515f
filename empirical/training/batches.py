"""Training sets, and the batches of an epoch: gathered, augmented and normalised whole.

What an epoch is made of is drawn at once, keyed by (seed, epoch) and indexed by example. So a
batch is the same wherever a training was stopped and resumed, and however many ranks share it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import require
from common.seeding import torch_stream
from empirical.training.augment import Augmentation, Mixing
from empirical.training.recipes import Recipe

SAMPLED_BYTES = 2**30
"""Banks larger than this (1 GiB) are fingerprinted by that much of them: memory-mapped ones."""


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on: rows of a bank, in which a row may stand any number of times.

    pixels: uint8 (bank, C, side, side), in memory or memory-mapped; labels: int64 (bank,);
    rows: int64 (n,), the bank's row of each training example, so that copies cost nothing;
    mean, std: of each channel, in units where white is 1;
    flips: whether an image turned left to right keeps its label;
    sources: int64 (n,), the row that an example has in its place, with probability 1 - `shown` in
    each epoch: of a synthetic image its source, of others their own; None: never.

    Raises:
        ParameterError: the parts do not fit each other.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor
    n_classes: int
    mean: Sequence[float]
    std: Sequence[float]
    flips: bool = True
    sources: Tensor | None = None
    shown: float = 1.0

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        require(
            self.pixels.dtype == torch.uint8 and len(shape) == 4,
            "pixels",
            f"{self.pixels.dtype} {shape}",
            "uint8 (bank, channels, height, width)",
        )
        parts = [("labels", (len(self.pixels),)), ("rows", (len(self.rows),))]
        for name, shape in parts + [("sources", (len(self.rows),))] * (self.sources is not None):
            value = getattr(self, name)
            require(
                value.dtype == torch.int64 and value.shape == shape,
                name,
                f"{value.dtype} {tuple(value.shape)}",
                f"int64 {shape}",
            )
        require(len(self.rows) > 0, "rows", "none", "at least one")
        _within("rows", self.rows, len(self.pixels))
        _within("labels", self.labels[self.rows], self.n_classes)
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(
                len(value) == self.pixels.shape[1],
                name,
                value,
                f"one number for each of {self.pixels.shape[1]} channels",
            )
        require(all(value > 0 for value in self.std), "std", self.std, "above 0")

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """SHA-256 of everything here; of a large bank only every so-many-th image is read."""
        bank = self.pixels.numel()
        some = self.pixels[:: max(1, -(-bank // SAMPLED_BYTES))]
        found = hashlib.sha256(repr((tuple(self.pixels.shape), self.n_classes)).encode())
        found.update(repr((list(self.mean), list(self.std), self.flips)).encode())
        if self.sources is not None:
            found.update(repr(self.shown).encode())
        own = (self.labels, self.rows) + (() if self.sources is None else (self.sources,))
        for part in (*own, *some.split(4096)):
            found.update(part.cpu().contiguous().numpy().data)
        return found.hexdigest()


def _within(name: str, values: Tensor, end: int) -> None:
    least, most = int(values.min()), int(values.max())
    require(0 <= least <= most < end, name, f"{least} to {most}", f"between 0 and {end - 1}")


@dataclass(frozen=True)
class Normalisation:
    """Levels to float32 with mean 0 and standard deviation 1. mean, std: levels, (C, 1, 1)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def of(
        mean: Sequence[float], std: Sequence[float], device: torch.device | None = None
    ) -> Normalisation:
        """mean, std: of each channel, in units where white is 1."""
        levels = [torch.tensor(list(own), device=device) * 255 for own in (mean, std)]
        return Normalisation(*(own[:, None, None] for own in levels))

    def __call__(self, pixels: Tensor) -> Tensor:
        """pixels: levels, uint8 or float32 (n, C, H, W)."""
        return pixels.float().sub(self.mean).div_(self.std)


class MicroBatch(NamedTuple):
    """x: float32 (n, C, side, side); target: int64 (n,) or float32 (n, classes); weight of each
    example's loss in that of the step, 0 if the only example is there for company."""

    x: Tensor
    target: Tensor
    weight: float


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process computes, and in how many micro-batches."""

    rank: int = 0
    world: int = 1
    accumulation: int = 1


def bounds(n: int, pieces: int) -> list[tuple[int, int]]:
    """Starts and stops of nearly equal pieces of range(n), the larger ones first."""
    size, larger = divmod(n, pieces)
    stops = [size * piece + min(piece, larger) for piece in range(pieces + 1)]
    return list(itertools.pairwise(stops))


def order_of(recipe: Recipe, epoch: int, n: int) -> Tensor:
    """The order of n examples in an epoch, from 0 on: int64 (n,)."""
    return torch.randperm(n, generator=torch_stream("engine batches", recipe.seed, epoch))


class Epoch:
    """One pass over a training set, on a device.

    pixels: the bank, on the device or, where it is too large for that, on the host.
    """

    def __init__(
        self, data: TrainingSet, pixels: Tensor, recipe: Recipe, number: int, device: torch.device
    ) -> None:
        n = len(data)
        self.pixels, self.n_classes, self.device = pixels, data.n_classes, device
        self.augmentation = Augmentation(recipe.augmentation, data.flips)
        self.mixing, self.channels_last = recipe.mixed, recipe.channels_last
        self.normalise = Normalisation.of(data.mean, data.std, device)
        self.bounds = bounds(n, recipe.epoch_steps(n))

        def draw(what: str, of: Augmentation | Mixing) -> Tensor:
            """By example, not by place: an image's crop does not depend on the order."""
            if of.name == "none":
                return torch.empty(n, 0)
            return of.draw(n, torch_stream(f"engine {what}", recipe.seed, number))[order]

        order = order_of(recipe, number, n)
        rows = data.rows
        if data.sources is not None:
            shown = torch.rand(n, generator=torch_stream("engine shown", recipe.seed, number))
            rows = torch.where(shown < data.shown, rows, data.sources)
        rows = rows[order]
        # one transfer an epoch
        self.rows, self.labels = rows.to(pixels.device), data.labels[rows].to(device)
        self.draws = draw("augmentation", self.augmentation)
        self.mixing_draws = draw("mixing", self.mixing)

    def micro_batches(self, batch: int, share: Share) -> list[MicroBatch]:
        """What `share` computes of a batch.

        Losses summed with their weights over a process's micro-batches, and averaged over the
        processes (as DistributedDataParallel does), give the mean loss of the whole batch. All
        processes get equally many micro-batches, since they meet in them; where a batch has not
        enough examples for that, one stands in with weight 0.
        """
        start, stop = self.bounds[batch]
        size = stop - start
        first, last = bounds(size, share.world)[share.rank]
        weight = share.world / size if last > first else 0.0
        first, last = (first, last) if last > first else (0, 1)
        x, target = self._images(start, size, first, last)
        pieces = bounds(last - first, min(share.accumulation, -(-size // share.world)))
        return [
            MicroBatch(x[a:b], target[a:b], weight) if b > a else MicroBatch(x[:1], target[:1], 0.0)
            for a, b in pieces
        ]

    def _images(self, start: int, size: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Images [first, last) of the batch of `size` at `start`, and their targets."""
        places = slice(start + first, start + last)
        if self.mixing.name == "none":
            pixels, target = self._augmented(places), self.labels[places]
        else:
            # each is mixed with the one before it in the whole batch, which may be another rank's
            with_first = start + torch.arange(first - 1, last) % size
            pixels, labels = self._augmented(with_first), self.labels[with_first.to(self.device)]
            pixels, target = self.mixing.apply(
                pixels[1:],
                labels[1:],
                self.mixing_draws[places],
                self.n_classes,
                (pixels[:-1], labels[:-1]),
            )
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return self.normalise(pixels).contiguous(memory_format=layout), target

    def _augmented(self, places: slice | Tensor) -> Tensor:
        where = places.to(self.rows.device) if isinstance(places, Tensor) else places
        pixels = self.pixels[self.rows[where]]
        if pixels.device != self.device:
            if self.device.type == "cuda":
                pixels = pixels.pin_memory()  # so that nothing waits for the transfer
            pixels = pixels.to(self.device, non_blocking=True)
        return self.augmentation.apply(pixels, self.draws[places])


def resident(pixels: Tensor, device: torch.device) -> Tensor:
    """The bank on the device if it takes at most half of what is free there, else as it is."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**32
    return pixels.to(device) if pixels.nbytes <= free // 2 else pixels
