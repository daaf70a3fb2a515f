"""Images to the size and the three channels that a model takes, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from common.errors import require


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """float (n, C, height, width) to another size: bicubic, and antialiased when it shrinks."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return nn.functional.interpolate(images, tuple(size), mode="bicubic", antialias=True)


def to_rgb(images: Tensor) -> Tensor:
    """Grey images to three equal channels.

    Raises:
        ParameterError: the images have neither one channel nor three.
    """
    channels = images.shape[1]
    require(channels in (1, 3), "channels", channels, "1 or 3 for a model of coloured images")
    return images.expand(-1, 3, -1, -1)


def from_rgb(images: Tensor, channels: int) -> Tensor:
    """Back to `channels`, 1 or 3; grey is the mean of the colours."""
    return images if channels == 3 else images.mean(dim=1, keepdim=True)
