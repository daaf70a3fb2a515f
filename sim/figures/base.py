"""What a figure is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.seeding import torch_stream
from sim.arms import ARMS, augmented
from sim.data import DataConfig, Dataset, sample
from sim.network import init

Json = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """An independent piece of a figure's computation: function(seed, *arguments) -> Json."""

    function: Callable[..., Json]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One experiment and its plot.

    parts: computed in any order, in other processes; merge: their results, in order, to the
    figure's data; draw: that data, as JSON holds it, to a plot. settings: what was run, for
    the record. about: what is to be seen, one sentence.
    """

    name: str
    about: str
    settings: Json
    parts: Sequence[Part]
    merge: Callable[[list[Json]], Json]
    draw: Callable[[Json], Canvas]


SEEDS = 20
"""Data sets and initialisations behind every error bar, unless a figure says otherwise."""

WORLD = DataConfig(n_examples=100, dim=315, beta_slow=0.45, sigma_noise=0.1)
"""Where U(5) memorises the slow examples' noise and G(5) learns their feature."""

FILTERS, SIGMA_INIT, LR, STEPS, K = 40, 0.05, 0.4, 600, 5
TEST_EXAMPLES = 4000
"""Fresh examples of each kind behind a test error of one seed."""

ARM_LABELS = {
    "original": "Original",
    "upsample": "Upsample U(k)",
    "tada": "TADA G(k)",
    "syn-rand": "Syn-rand",
    "syn-all": "Syn-all",
}


@dataclass(frozen=True)
class Draw:
    """Independent originals and initial filters, the same for every arm of a figure."""

    config: DataConfig
    data: Dataset
    W: Tensor
    seed: int

    def arm(self, arm: str, k: int = K, **synthetic: float) -> Dataset:
        """The arm's training set; its synthetic examples depend on arm and k."""
        generator = torch_stream(self.seed, 3, ARMS.index(arm), k)
        return augmented(arm, self.data, k, generator, **synthetic)

    def test_stream(self) -> torch.Generator:
        """The same fresh examples wherever a test error is taken."""
        return torch_stream(self.seed, 4)


def draw(
    seed: int,
    config: DataConfig = WORLD,
    filters: int = FILTERS,
    sigma_init: float = SIGMA_INIT,
    seeds: int = SEEDS,
    dtype: torch.dtype = torch.float32,
) -> Draw:
    """Draw data (seeds, ...) and filters (seeds, J, d)."""
    data = sample(config, torch_stream(seed, 1), (seeds,), dtype)
    W = init(filters, config.dim, sigma_init, torch_stream(seed, 2), (seeds,), dtype)
    return Draw(config, data, W, seed)


def band(samples: Tensor) -> Json:
    """Mean and standard error over the last dimension (seeds), as nested lists."""
    samples = samples.double()
    n = samples.shape[-1]
    return {
        "mean": numbers(samples.mean(-1)),
        "standard_error": numbers(samples.std(-1) / n**0.5),
    }


def numbers(values: Tensor) -> Any:
    """Nested lists with five significant digits; None for what is not a number."""
    if values.dim() == 0:
        value = float(values)
        return float(f"{value:.5g}") if value == value and abs(value) != float("inf") else None
    return [numbers(v) for v in values]


def spaced(steps: int, count: int) -> list[int]:
    """About `count` whole steps from 0 to `steps`, evenly spaced."""
    return sorted({round(i * steps / (count - 1)) for i in range(count)})


def together(parts: list[Json]) -> Json:
    """Merge parts with different keys."""
    return {key: value for part in parts for key, value in part.items()}
