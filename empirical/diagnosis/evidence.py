"""Feature fidelity c: how much of its class an image shows a network, on a scale that is linear.

The evidence is a logit, which is not linear in the contrast of a feature. So it is compared with
that of mixtures in which the source's own contrast is known: see README.md, fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor

LEVELS = tuple(level / 10 for level in range(1, 10))
"""Shares of the source in the mixtures."""
DRAWS = 2
"""Mixtures of each source at each level."""


def evidence(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """The label's logit minus the classes' mean, weighted by their shares among the sources: (n,).

    Images that do not depend on the label have mean 0 exactly, also where classes are unequal.
    """
    logits = logits.double()
    return logits.gather(1, labels[:, None])[:, 0] - logits @ shares.double()


def mixtures(pixels: Tensor, level: float, centre: Tensor, stream: torch.Generator) -> Tensor:
    """Every image mixed with another one of them, drawn at random: uint8 (n, C, H, W).

    centre + level (x - centre) + √(1 - level²) (x' - centre): the contrast of all that is in x
    times `level`, with as much noise as before. centre: float (C, H, W), in levels. A single
    image has no other and is mixed with the centre.
    """
    x = pixels.float() - centre
    order = torch.randperm(len(x), generator=stream)
    other = torch.empty_like(x)
    other[order] = x[order.roll(1)]  # one ring: nobody is its own partner
    if len(x) == 1:
        other.zero_()
    mixed = centre + level * x + (1 - level**2) ** 0.5 * other
    return mixed.round().clamp(0, 255).to(torch.uint8)


def fidelity(copies: float, sources: float, mixed: Sequence[float]) -> float:
    """The share c of the sources at which mixtures show as much evidence as the copies do.

    Arguments are mean evidence; mixed: at LEVELS. NaN where the sources show none. The curve of
    the mixtures is made monotone and starts from 0 at level 0; above 1 it is extended linearly, and
    below 0 the plain ratio is returned.
    """
    if not sources > 0:
        return float("nan")
    ratio = copies / sources
    if ratio <= 0:
        return ratio
    levels = np.array([0.0, *LEVELS, 1.0])
    curve = np.array([0.0, *(value / sources for value in mixed), 1.0])
    # heavy ends: there the curve is known
    curve = isotonic_regression(curve, sample_weight=np.r_[1e6, np.ones(len(LEVELS)), 1e6])
    curve[0], curve[-1] = 0.0, 1.0
    curve = np.clip(curve, 0, 1)
    if ratio <= 1:
        # a flat piece gets a slope, or its inverse would be no function
        return float(np.interp(ratio, curve + 1e-9 * levels, levels))
    slope = (1 - curve[-3]) / (levels[-1] - levels[-3])
    return float(1 + (ratio - 1) / slope) if slope > 0 else float("nan")
