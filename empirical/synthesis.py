"""Synthetic images of a run: which generator makes them, and the store that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from empirical import algorithm
from empirical.arms import Pair
from empirical.data import Split
from empirical.datasets.base import Images
from empirical.datasets.planted import PlantedSet
from empirical.generator import Generator
from empirical.settings import Settings
from empirical.store import Row, read_store, write_store
from theory.files import digest
from theory.parameters import require

Advance = Callable[[], None]


@dataclass(frozen=True)
class Maker:
    """A way to make synthetic images, and the digest of what it depends on.

    make: pairs (source, copy) to images, uint8 (n, channels, side, side); told of each.
    """

    digest: str
    make: Callable[[list[Pair], Advance], Tensor]


def generator_data(images: Images, split: Split, settings: Settings) -> tuple[Tensor, Tensor]:
    """The images that the generator is trained on, and their labels.

    Raises:
        ParameterError: the data set has no pool.
    """
    pool = settings.generator_data == "pool"
    require(
        not pool or len(split.pool) > 0,
        "generator_data",
        settings.generator_data,
        f"train: {settings.dataset} keeps no images apart for a generator",
    )
    rows = torch.from_numpy(split.pool if pool else split.train)
    return images.pixels[rows], images.labels[rows]


def store_rows(
    images: Images, pairs: Sequence[Pair], settings: Settings, generator: str, seed: int
) -> list[Row]:
    """The metadata of a store: everything that its images depend on. generator: its digest."""
    return [
        {
            "source": source,
            "copy": copy,
            "label": int(images.labels[source]),
            "class": images.classes[int(images.labels[source])],
            "strength": settings.arm_strength,
            "steps": settings.denoising_steps,
            "sampler": settings.sampler,
            "guidance": settings.guidance,
            "seed": seed,
            "generator": generator,
        }
        for source, copy in pairs
    ]


def diffusion(images: Images, settings: Settings, generator: Generator, seed: int) -> Maker:
    """Noise a real image part of the way and denoise it (`empirical.sdedit`)."""

    def make(pairs: list[Pair], advance: Advance) -> Tensor:
        return algorithm.generate(images, pairs, settings, generator, seed, advance)

    return Maker(generator.digest, make)


def ideal(planted: PlantedSet, settings: Settings, seed: int) -> Maker:
    """The same feature at the same place with fresh noise; boomerang keeps most of the noise."""
    kept = 1 - settings.boomerang_strength if settings.arm == "boomerang" else 0.0

    def make(pairs: list[Pair], advance: Advance) -> Tensor:
        made = []
        for source, copy in pairs:
            made.append(planted.regenerate([source], [copy], seed, kept_noise=kept))
            advance()
        return torch.cat(made)

    return Maker(digest({"ideal": repr(planted.config), "kept_noise": kept}), make)


def stored_images(
    images: Images,
    pairs: list[Pair],
    settings: Settings,
    maker: Maker,
    seed: int,
    folder: Path,
    advance: Advance = lambda: None,
) -> dict[Pair, Tensor]:
    """The synthetic images of `pairs` from the store in `folder`, made first if it is missing."""
    rows = store_rows(images, pairs, settings, maker.digest, seed)
    if not folder.exists():
        write_store(folder, maker.make(pairs, advance), rows)
    return dict(zip(pairs, read_store(folder, rows), strict=True))
