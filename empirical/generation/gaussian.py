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
TOLERANCE = 0.04
"""By how much mean and spread may miss: 2% of black to white. Samplers that end at the first
timestep, one short of the image, keep a noise of 0.01 or less."""


def law(shape: Sequence[int], stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images, noise, and the spread at each place: float32 of this shape.

    Places have the two spreads in turn; of either, the images have that spread and the noise unit
    variance exactly, both their means, and no correlation: what comes out is no matter of luck.
    """
    n = math.prod(shape)
    which = torch.arange(n) % len(SPREADS)
    clean, noise = torch.empty(n), torch.empty(n)
    for number, spread in enumerate(SPREADS):
        here = which == number
        draws = torch.randn(2, int(here.sum()), generator=stream, dtype=torch.float64)
        draws = draws - draws.mean(dim=1, keepdim=True)
        image = draws[0] / draws[0].pow(2).mean().sqrt()
        rest = draws[1] - (draws[1] * image).mean() * image
        clean[here] = (MEAN + spread * image).float()
        noise[here] = (rest / rest.pow(2).mean().sqrt()).float()
    spreads = torch.tensor(SPREADS)[which]
    return clean.reshape(*shape), noise.reshape(*shape), spreads.reshape(*shape)


def best_guess(noisy: Tensor, a: float, b: float, spread: Tensor) -> Tensor:
    """The expected clean image: what an ideal network says. Shapes as `noisy`."""
    return MEAN + a * spread**2 / (a**2 * spread**2 + b**2) * (noisy - a * MEAN)


def way_end(noisy: Tensor, a: float, b: float, spread: Tensor) -> Tensor:
    """Where the exact flow down ends: what an ideal consistency model says (Song et al. 2023)."""
    return MEAN + spread / (a**2 * spread**2 + b**2).sqrt() * (noisy - a * MEAN)


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


def wrong(found: Tensor, spreads: Tensor, levels: Sequence[tuple[float, float]]) -> str | None:
    """What is wrong with images from an ideal network, in some words; None if they are right.

    found, spreads: any shape, the same; levels: (a, b) where each step began. A sampler that draws
    noise is allowed four standard errors more.
    """
    for spread in SPREADS:
        here = found[spreads == torch.tensor(spread)].double()
        luck = 4 * spread / math.sqrt(here.numel())
        mean, width = float(here.mean()), float(here.std(correction=0))
        if not abs(mean - MEAN) <= TOLERANCE + luck:  # also where it is no number
            return f"a mean of {mean:.3g} instead of {MEAN:g}"
        least = least_spread(levels, spread)
        if not least - TOLERANCE - luck <= width <= spread + TOLERANCE + luck:
            between = f"{least:.3g} to {spread:g}" if spread - least > 0.01 else f"{spread:g}"
            return f"a standard deviation of {width:.3g} instead of {between}"
    return None
