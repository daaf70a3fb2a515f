"""Padding and pixel-unshuffle go back to the same pixels, and wrong models are told apart."""

from __future__ import annotations

import pytest
import torch

from common.errors import ParameterError
from empirical.generation.framing import Framing, framing_for, framing_of


@pytest.mark.parametrize("side", [8, 9, 15, 28, 32, 63, 64])
@pytest.mark.parametrize("factor", [1, 2, 8])
@pytest.mark.parametrize("shuffle", [1, 2, 4])
def test_there_and_back(side: int, factor: int, shuffle: int) -> None:
    framing = framing_for(side, factor, shuffle)
    images = torch.rand(2, 3, side, side)
    inside = framing.wrap(images)
    assert inside.shape == (2, 3 * shuffle**2, *[framing.padded // shuffle] * 2)
    assert inside.shape[-1] % factor == 0
    assert framing.padded - side < factor * shuffle
    assert torch.equal(framing.unwrap(inside), images)
    assert framing_of("", 3, side, 3 * shuffle**2, inside.shape[-1], factor) == framing


def test_padding_repeats_the_border() -> None:
    images = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert Framing(3, 4).wrap(images)[0, 0].tolist() == [
        [0, 1, 2, 2],
        [3, 4, 5, 5],
        [6, 7, 8, 8],
        [6, 7, 8, 8],
    ]


@pytest.mark.parametrize(
    ("channels", "side", "inside", "size"),
    [(1, 32, 3, 32), (3, 32, 1, 32), (3, 32, 4, 32), (3, 64, 3, 32), (3, 8, 3, 32), (1, 32, 4, 32)],
)
def test_models_for_other_images_are_refused(
    channels: int, side: int, inside: int, size: int
) -> None:
    with pytest.raises(ParameterError, match="model = that: must be one for"):
        framing_of("that", channels, side, inside, size, 4)
