"""Where images are Gaussian the ideal network is known, and so is what a way down must give back.

For clean images N(mu, s^2) and noisy = a clean + b noise, the best guess of the clean image is
mu + a s^2 / (a^2 s^2 + b^2) (noisy - a mu). A sampler that follows it must end at mean mu and
spread s; a few steps of first order end at less, which `least_spread` gives exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MEAN, SPREADS = 0.1, (0.3, 0.03)
"""Two laws: as wide as images are, and as narrow as an image that the network is sure of. Both lie
within black and white, -1 and 1, so that clipping changes nothing."""
LATENT_SPREADS = (1.0, 0.03)
"""Latents are scaled to about unit variance, and a sampler that clips them shows."""
TOLERANCE = 0.04
"""By how much mean and spread may miss: 2% of black to white. Samplers that end at the first
timestep, one short of the image, keep a noise of 0.01 or less."""


def law(shape: Sequence[int], spread: float, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clean images and noise: float32 of this shape.

    Over all places the images have this spread and the noise unit variance exactly, both their
    means, and no correlation: what comes out is no matter of luck.
    """
    image, noise = torch.randn(2, math.prod(shape), generator=stream, dtype=torch.float64)
    image = _standardised(image)
    noise = _standardised(noise - noise.mean() - (noise * image).mean() * image)
    return (MEAN + spread * image).float().reshape(*shape), noise.float().reshape(*shape)


def _standardised(values: Tensor) -> Tensor:
    values = values - values.mean()
    return values / values.pow(2).mean().sqrt()


def best_guess(noisy: Tensor, a: float, b: float, spread: float) -> Tensor:
    """The expected clean image: what an ideal network says. Shapes as `noisy`."""
    return MEAN + a * spread**2 / (a**2 * spread**2 + b**2) * (noisy - a * MEAN)


def way_end(noisy: Tensor, a: float, b: float, spread: float) -> Tensor:
    """Where the exact flow down ends: what an ideal consistency model says (Song et al. 2023)."""
    return MEAN + spread / math.hypot(a * spread, b) * (noisy - a * MEAN)


def least_spread(levels: Sequence[tuple[float, float]], spread: float) -> float:
    """The spread after first-order steps down these (a, b), and one to the clean image.

    The lower one of DDIM (nothing is drawn) and DDPM (as much is drawn as the ideal posterior has),
    by their recursions on the variance. Steps of higher order end between this and the true spread.
    """
    a, b = levels[0]
    drawn = still = a**2 * spread**2 + b**2
    for (a, b), (later_a, later_b) in zip(levels, [*levels[1:], (1.0, 0.0)], strict=True):
        share = a * spread**2 / (a**2 * spread**2 + b**2)
        fresh = 0.0
        if later_b > 0:
            fresh = (later_b / b) ** 2 * max(0.0, b**2 - (a / later_a * later_b) ** 2)
        noise = (1 - a * share) / b
        still *= (later_a * share + later_b * noise) ** 2
        kept = math.sqrt(max(0.0, later_b**2 - fresh))
        drawn = drawn * (later_a * share + kept * noise) ** 2 + fresh
    return math.sqrt(min(still, drawn))


def wrong(
    found: Tensor, spread: float, levels: Sequence[tuple[float, float]], drawn: bool
) -> str | None:
    """What is wrong with images from an ideal network, in some words; None if they are right.

    found: any shape; levels: (a, b) where each step began; drawn: whether noise was drawn on the
    way, for which four standard errors more are allowed.
    """
    found = found.double()
    luck = 4 * spread / math.sqrt(found.numel()) if drawn else 0.0
    mean, width = float(found.mean()), float(found.std(correction=0))
    if not abs(mean - MEAN) <= TOLERANCE + luck:  # also where it is no number
        return f"a mean of {mean:.3g} instead of {MEAN:g}"
    least = least_spread(levels, spread)
    if not least - TOLERANCE - luck <= width <= spread + TOLERANCE + luck:
        expected = f"{least:.3g} to {spread:g}" if spread - least > 0.01 else f"{spread:g}"
        return f"a standard deviation of {width:.3g} instead of {expected}"
    return None
