"""Which synthetic images are wanted, what they all depend on, and how they are cut into shards."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.errors import require
from common.files import digest

FORMAT = 1
SHARD_BYTES = 2**28
"""A shard takes at most so much memory as raw pixels (256 MiB)."""
SHARD_IMAGES = 1024
"""A shard has at most so many images."""


class Key(NamedTuple):
    """Which image: its original's index, which of the original's copies, and how strong."""

    source: int
    copy: int
    strength: float


class ImageSpec(NamedTuple):
    """A synthetic image that is wanted. steps: denoising steps done for it."""

    source: int
    copy: int
    strength: float
    label: int
    steps: int

    @property
    def key(self) -> Key:
        return Key(self.source, self.copy, self.strength)


@dataclass(frozen=True)
class Shard:
    """Images of one file: of one strength, one copy and one block of sources, by source."""

    group: str
    images: tuple[ImageSpec, ...]

    @property
    def name(self) -> str:
        """Says which images these are, so that another set of them is another file."""
        return f"{self.group}-{digest([wanted.source for wanted in self.images])[:8]}.parquet"


@dataclass(frozen=True)
class Request:
    """Synthetic images that are wanted, each once, and all that they depend on.

    images: in the order in which they will be read; classes: names of the labels;
    shape: (channels, height, width) of every image, channels 1 or 3;
    data: fingerprint of the real images; backend, model: name and digest of the generator;
    seed: keys their noise, with source, copy and strength;
    settings: a JSON value for each other setting that they depend on;
    together: all copies of a source at one strength are asked for in one batch, as where they are
    kept along one trajectory. Changes no file.

    Raises:
        ParameterError: no image is wanted, or one twice, or the parts do not fit each other.
    """

    images: tuple[ImageSpec, ...]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    data: str
    backend: str
    model: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    together: bool = False

    def __post_init__(self) -> None:
        require(len(self.images) > 0, "images", "none", "at least one")
        seen: set[Key] = set()
        fits = -(2**63) <= self.seed < 2**63
        require(fits, "seed", self.seed, "a whole number of 64 bits")
        for wanted in self.images:
            numbers = (wanted.source, wanted.copy, wanted.label, wanted.steps)
            whole = all(isinstance(number, int) for number in numbers)  # numpy's are no JSON
            require(whole, "images", wanted, "whole Python numbers, but for strength")
            require(wanted.source >= 0, "source", wanted.source, "an index, 0 or more")
            require(wanted.copy >= 1, "copy", wanted.copy, "1 or more: copy 0 is the original")
            finite = math.isfinite(wanted.strength)
            require(finite, "strength", wanted.strength, "a finite number")
            fits = 0 <= wanted.label < len(self.classes)
            require(fits, "label", wanted.label, f"below {len(self.classes)}, the classes")
            require(wanted.key not in seen, "images", describe(wanted), "wanted once, not twice")
            seen.add(wanted.key)
        fits = len(self.shape) == 3 and self.shape[0] in (1, 3) and min(self.shape) > 0
        require(fits, "shape", self.shape, "(1 or 3, height, width)")
        both = sorted(set(self.settings) & set(self._own()))
        require(not both, "settings", both, "names that a store does not have already")

    def _own(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "data": self.data,
            "backend": self.backend,
            "model": self.model,
            "seed": self.seed,
            "shape": self.shape,
            "classes": self.classes,
        }

    def identity(self) -> dict[str, Any]:
        """What all images of one store share, as JSON has it."""
        return json.loads(json.dumps(self._own() | dict(self.settings)))

    @property
    def block(self) -> int:
        """Sources whose images stand in one shard: a power of two."""
        return min(SHARD_IMAGES, 2 ** int(math.log2(max(1, SHARD_BYTES // math.prod(self.shape)))))

    def group(self, key: Key | ImageSpec) -> str:
        """Where an image belongs, whatever else is wanted: the beginning of its file's name."""
        block = key.source // self.block
        return f"strength-{float(key.strength)!r}-copy-{key.copy:02d}-block-{block:05d}"

    def shards(self, there: Collection[Key] = ()) -> list[Shard]:
        """The images that are not `there`, as shards in the order of their names.

        A group whose images are there in part gets one more file. So what is made does not depend
        on which other groups are finished.
        """
        groups: dict[str, list[ImageSpec]] = {}
        for wanted in self.images:
            if wanted.key not in there:
                groups.setdefault(self.group(wanted), []).append(wanted)
        return [Shard(group, tuple(sorted(groups[group]))) for group in sorted(groups)]

    def units(self, there: Collection[Key] = ()) -> list[tuple[Shard, ...]]:
        """The same shards, those that are made at once in one tuple; the largest units first."""
        units: dict[Any, list[Shard]] = {}
        for shard in self.shards(there):
            first = shard.images[0]
            block = (first.strength, first.source // self.block)
            units.setdefault(block if self.together else shard.group, []).append(shard)
        in_order = sorted(units.values(), key=lambda unit: -sum(len(own.images) for own in unit))
        return [tuple(unit) for unit in in_order]


def batches(unit: tuple[Shard, ...], batch_size: int) -> list[list[ImageSpec]]:
    """A unit's images, `batch_size` sources at a time, whatever was made of other units."""
    by_source: dict[int, list[ImageSpec]] = {}
    for wanted in sorted(wanted for shard in unit for wanted in shard.images):
        by_source.setdefault(wanted.source, []).append(wanted)
    own = list(by_source.values())
    pieces = (own[first : first + batch_size] for first in range(0, len(own), batch_size))
    return [[wanted for source in piece for wanted in source] for piece in pieces]


def describe(wanted: Key | ImageSpec) -> str:
    """An image in words."""
    return f"image of source {wanted.source}, copy {wanted.copy}, strength {wanted.strength:g}"
