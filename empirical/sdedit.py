"""Faithful synthetic images: noise a real image part of the way, denoise from there (SDEdit).

Meng et al. 2022. `strength` is the share of the diffusion trajectory that is re-noised; unlike in
diffusers' pipelines, the number of denoising steps does not shrink with it (no silent zero).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,  # pyright: ignore[reportPrivateImportUsage]
    DPMSolverMultistepScheduler,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor

from empirical.data import to_float, to_levels
from empirical.generator import Generator, ddpm
from empirical.settings import SAMPLERS, TRAIN_TIMESTEPS
from theory.parameters import require


def make_sampler(name: str, strength: float, steps: int) -> tuple[Any, Tensor]:
    """A diffusers scheduler and the `steps` timesteps that it denoises over, high to low.

    The whole trajectory is cut into round(steps / strength) steps with trailing spacing, and the
    last `steps` of them are kept. So the first kept timestep is near strength * 1000.

    Raises:
        ParameterError: strength is outside (0, 1], or leaves no room for the steps.
    """
    require(name in SAMPLERS, "sampler", name, " or ".join(SAMPLERS))
    require(0 < strength <= 1, "strength", strength, "in (0, 1]")
    grid = round(steps / strength)
    least = steps / TRAIN_TIMESTEPS
    require(grid <= TRAIN_TIMESTEPS, "strength", strength, f"at least {least:g} ({steps} steps)")
    # Both clip the predicted image to [-1, 1] (DPM-Solver++ by thresholding at 1): without it the
    # first steps near strength 1 divide by almost nothing.
    kind = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}[name]
    clip = {"clip_sample": True} if name == "ddim" else {"thresholding": True}
    scheduler = kind.from_config(ddpm().config, timestep_spacing="trailing", **clip)
    scheduler.set_timesteps(grid)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(len(scheduler.timesteps) - steps)
    return scheduler, scheduler.timesteps[-steps:]


@torch.no_grad()
def edit(
    generator: Generator,
    pixels: Tensor,
    labels: Tensor,
    strength: float,
    streams: list[torch.Generator],
    steps: int,
    sampler: str = "ddim",
    guidance: float = 1.0,
) -> Tensor:
    """One synthetic image for each real one.

    pixels: uint8 (n, channels, side, side); labels: int64 (n,); streams: one for each image, so
    that an image does not depend on the others made with it. Returns uint8 like pixels. Both
    samplers are deterministic after the first noise.
    """
    scheduler, timesteps = make_sampler(sampler, strength, steps)
    noise = torch.stack([torch.randn(pixels.shape[1:], generator=stream) for stream in streams])
    images = scheduler.add_noise(to_float(pixels), noise, timesteps[:1].expand(len(labels)))
    null = torch.full_like(labels, generator.null_class)
    for timestep in timesteps:
        predicted = generator.unet(images, timestep, class_labels=labels).sample
        if guidance != 1:
            without = generator.unet(images, timestep, class_labels=null).sample
            predicted = without + guidance * (predicted - without)
        images = scheduler.step(predicted, timestep, images).prev_sample
    return to_levels(images)
