"""Tiny models on disk, in the layouts of the libraries, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from empirical.generation.base import Originals


def tiny_unet(**values: object) -> UNet2DModel:
    """A UNet of 8x8 or larger images with random weights."""
    config = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DModel(**(config | values))


@pytest.fixture(scope="session")
def make_originals() -> Callable[..., Originals]:
    """Random images, as many as wanted."""

    def make(n: int, channels: int = 3, side: int = 8, n_classes: int = 3) -> Originals:
        stream = torch.Generator().manual_seed(n + side)
        pixels = torch.randint(256, (n, channels, side, side), generator=stream)
        numbers = torch.arange(n)
        return Originals(pixels.to(torch.uint8), numbers % n_classes, 100 + numbers)

    return make


@pytest.fixture(scope="session")
def streams() -> Callable[..., list[torch.Generator]]:
    """Streams of these numbers."""
    return lambda numbers: [torch.Generator().manual_seed(number) for number in numbers]


@pytest.fixture(scope="session")
def save_pixel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a tiny pixel model as diffusers does; values change its UNet."""

    def save(schedule: DDPMScheduler | None = None, **values: object) -> Path:
        folder = tmp_path_factory.mktemp("pixel") / "model"
        scheduler = schedule or DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
        DDPMPipeline(tiny_unet(**values), scheduler).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def conditional(save_pixel: Callable[..., Path]) -> Path:
    """A model of three classes and none."""
    return save_pixel(num_class_embeds=4)


@pytest.fixture(scope="session")
def unconditional(save_pixel: Callable[..., Path]) -> Path:
    return save_pixel()


@pytest.fixture(scope="session")
def apart() -> Callable[[Tensor, Tensor], int]:
    """The largest difference of two images in levels."""
    return lambda one, other: int((one.int() - other.int()).abs().max())
