"""How a generator is trained; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import require

MOST_LEVELS = 16
"""Resolutions of a generator: each halves the one before."""


@dataclass(frozen=True)
class Recipe:
    """How a generator is trained; lr rises over `warmup` steps and falls to 0 as a cosine.

    Raises:
        ParameterError: a value is not allowed.
    """

    steps: int = 1000
    """training steps"""
    batch_size: int = 32
    """images of a step, drawn with replacement"""
    lr: float = 1e-3
    """largest learning rate of AdamW"""
    warmup: int = 50
    """steps over which the learning rate rises"""
    ema: float = 0.99
    """what the averaged weights keep of themselves in a step"""
    class_dropout: float = 0.1
    """share of images without their class, for guidance"""
    conditional: bool = True
    """whether the model is told the class"""
    flips: bool = False
    """turn half of the images left to right"""
    widths: tuple[int, ...] = (32, 64)
    """channels at each resolution, from the full one down; multiples of 8"""
    layers: int = 1
    """residual blocks at each resolution"""
    attention: int = 0
    """how many of the lowest resolutions have attention (the middle always has)"""
    shuffle: int = 1
    """side of the pixel tiles that become channels: 2 makes 28x28 into 4 times 14x14"""
    checkpoint_every: int = 20
    """steps between checkpoints, which change nothing else"""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "warmup", "layers", "shuffle", "checkpoint_every"):
            value = getattr(self, name)
            ok = isinstance(value, int) and value >= 1
            require(ok, name, value, "a whole number of at least 1")
            require(value < 2**63, name, value, f"at most {2**63 - 1}, which 64 bits hold")
        # above it float32 has no numbers left
        require(0 < self.lr <= 1e30, "lr", self.lr, "a number above 0 and at most 1e+30")
        require(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")
        require(0 <= self.class_dropout < 1, "class_dropout", self.class_dropout, "in [0, 1)")
        fits = len(self.widths) > 0 and all(width > 0 and width % 8 == 0 for width in self.widths)
        require(fits, "widths", self.widths, "multiples of 8, at least one")
        levels = len(self.widths)
        require(levels <= MOST_LEVELS, "widths", f"{levels} of them", f"at most {MOST_LEVELS}")
        ok = 0 <= self.attention <= levels
        require(ok, "attention", self.attention, f"between 0 and {levels}, the number of widths")
