"""How images are laid into a network's input: padded to a side it can halve, pixels unshuffled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from common.errors import require


@dataclass(frozen=True)
class Framing:
    """Square images of `side` pixels, padded to `padded` on both axes, then cut into r × r tiles.

    shuffle: r; the r² pixels of a tile become channels (Shi et al. 2016), so that the network
    works on sides of padded / r.
    """

    side: int
    padded: int
    shuffle: int = 1

    def wrap(self, images: Tensor) -> Tensor:
        """(n, C, side, side) to (n, C r², padded / r, padded / r); the border is repeated."""
        extra = self.padded - self.side
        if extra:
            before, after = extra // 2, extra - extra // 2
            images = nn.functional.pad(images, (before, after) * 2, mode="replicate")
        return nn.functional.pixel_unshuffle(images, self.shuffle)

    def unwrap(self, inside: Tensor) -> Tensor:
        """The way back: the padding is cut off."""
        before = (self.padded - self.side) // 2
        images = nn.functional.pixel_shuffle(inside, self.shuffle)
        return images[..., before : before + self.side, before : before + self.side]


def framing_for(side: int, factor: int, shuffle: int = 1) -> Framing:
    """The least padding with which a network halves a side `factor`-fold without a remainder.

    Raises:
        ParameterError: shuffle is below 1, or a tile is larger than an image.
    """
    require(1 <= shuffle <= side, "shuffle", shuffle, f"at least 1 and at most {side}, the side")
    unit = factor * shuffle
    return Framing(side, math.ceil(side / unit) * unit, shuffle)


def framing_of(
    model: object, channels: int, side: int, in_channels: int, sample_size: int, factor: int
) -> Framing:
    """The framing with which a given network takes images of channels × side × side.

    in_channels = channels × r² gives r; the padding must be less than one more halving.

    Raises:
        ParameterError: the network is for other images; `model` is named.
    """
    shuffle = math.isqrt(in_channels // channels)
    require(
        shuffle >= 1 and channels * shuffle**2 == in_channels,
        "model",
        model,
        f"one for {channels} channels; it takes {in_channels}",
    )
    padded = sample_size * shuffle
    require(
        0 <= padded - side < factor * shuffle,
        "model",
        model,
        f"one for images of {side}x{side} pixels; it is for {padded}x{padded}",
    )
    return Framing(side, padded, shuffle)
