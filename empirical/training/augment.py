"""Data augmentation of whole batches: crops and flips, TrivialAugment, RandAugment, mixup, cutmix.

Everything random about an example is one row of uniform numbers, drawn for a whole epoch at once:

    augmentation = Augmentation("trivialaugment")
    draws = augmentation.draw(n, torch_stream("augment", seed, epoch))  # one row for each of n
    batch = augmentation.apply(pixels[rows], draws[rows])

So what happens to an example depends on the stream's key and its own index alone: not on the batch
or the rank it lands in, not on the batch size, nor on how many examples follow it, and a resumed
run gives the same bytes.

The operations are torchvision's, called on tables instead of images wherever they act alike on
every image: one that moves pixels is asked once where each pixel comes from, one that changes
levels what becomes of each of the 256. A batch in which every image has its own operation and
magnitude is then a few gathers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torchvision.transforms.v2 import functional

from common.errors import require

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
LEVELS = ("Brightness", "Posterize", "Solarize")
BLENDS = ("Color", "Contrast", "Sharpness")
WHOLE = ("AutoContrast", "Equalize")
OPERATIONS = ("Identity", *MOVES, *LEVELS, *BLENDS, *WHOLE)
"""Those of both policies (as torchvision has them), grouped by how a batch of them is computed."""

UNSIGNED = ("Identity", "Posterize", "Solarize", *WHOLE)
"""Operations whose magnitude is never negated; Identity and WHOLE ignore it altogether."""

BINS = 31
SETTINGS = 2 * BINS
"""An operation has 31 magnitudes, each as it is (setting 2 bin) and negated (2 bin + 1)."""


@dataclass(frozen=True)
class Policy:
    """Which random operations an image gets, one after the other, and their largest magnitudes.

    bin: the magnitude of all of them, or None for a uniform one of the 31; translate: pixels, to
    which translate_share of the image's side is added; rotate: degrees; bits: that Posterize
    takes away.
    """

    rounds: int
    bin: int | None
    shear: float
    translate: float
    translate_share: float
    rotate: float
    colour: float
    bits: int

    def magnitudes(self, operation: str, side: int) -> Tensor:
        """Magnitudes of an operation's settings on square images, float32 (SETTINGS,)."""
        translate = self.translate + self.translate_share * side
        if operation == "Posterize":
            found = (8 - torch.arange(BINS) / ((BINS - 1) / self.bits)).round()
        elif operation == "Solarize":
            found = torch.linspace(1.0, 0.0, BINS)
        else:
            moves: dict[str, float] = {"Rotate": self.rotate}
            moves |= dict.fromkeys(("ShearX", "ShearY"), self.shear)
            moves |= dict.fromkeys(("TranslateX", "TranslateY"), translate)
            most = moves.get(operation, self.colour)
            found = torch.linspace(0.0, most, BINS)
        negated = found if operation in UNSIGNED else -found
        return torch.stack([found, negated], dim=1).flatten()


TRIVIALAUGMENT = Policy(
    rounds=1,
    bin=None,
    shear=0.99,
    translate=32.0,
    translate_share=0.0,
    rotate=135.0,
    colour=0.99,
    bits=6,
)
"""TrivialAugment Wide (Müller and Hutter 2021), as torchvision's `TrivialAugmentWide`."""

RANDAUGMENT = Policy(
    rounds=2,
    bin=9,
    shear=0.3,
    translate=0.0,
    translate_share=150.0 / 331.0,
    rotate=30.0,
    colour=0.9,
    bits=4,
)
"""RandAugment (Cubuk et al. 2020), as torchvision's with its defaults."""

_POLICIES = {"trivialaugment": TRIVIALAUGMENT, "randaugment": RANDAUGMENT}
AUGMENTATIONS = ("none", "crop+flip", *_POLICIES)
MIXINGS = ("none", "mixup", "cutmix")

_CROP = 3
"""Columns of an example's draws: row and column of its crop, its flip, and 3 for each round."""
_COLUMNS = _CROP + 3 * max(policy.rounds for policy in _POLICIES.values())


@dataclass(frozen=True)
class Augmentation:
    """A way to augment images; both policies come after crop and flip.

    flip: whether a mirrored image keeps its label.

    Raises:
        ParameterError: no augmentation has this name.
    """

    name: str = "crop+flip"
    flip: bool = True

    def __post_init__(self) -> None:
        _require_name("augmentation", self.name, AUGMENTATIONS)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """What is random about n examples: uniform in [0, 1), float64 (n, _COLUMNS), on the CPU.

        The same for every augmentation, so that two of them can be compared with the same crops.
        """
        return _rows(n, _COLUMNS, generator)

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Augmented images, uint8 (n, C, side, side), on the device of the images.

        pixels: the same, with 1 or 3 channels; draws: the examples' rows of `draw`. Draws stay
        on the CPU: what is done to whom is sorted out there, without waiting for the device.

        Raises:
            ParameterError: the images are not square or not uint8.
        """
        require(
            pixels.dtype == torch.uint8 and pixels.ndim == 4 and pixels.shape[2] == pixels.shape[3],
            "images",
            f"{pixels.dtype} {tuple(pixels.shape)}",
            "uint8 (n, channels, side, side)",
        )
        if self.name == "none":
            return pixels
        pixels = crop_and_flip(pixels, draws[:, :_CROP], self.flip)
        if self.name in _POLICIES:
            policy = _POLICIES[self.name]
            for first in range(_CROP, _CROP + 3 * policy.rounds, 3):
                operation, setting = choices(policy, draws[:, first : first + 3])
                pixels = operate(policy, pixels, operation, setting)
        return pixels


def crop_and_flip(pixels: Tensor, draws: Tensor, flip: bool) -> Tensor:
    """Pad each image with zeros (4 for 32 pixels), cut its size out of that anywhere, and mirror.

    pixels: uint8 (n, C, side, side); draws: (n, 3).
    """
    side = pixels.shape[-1]
    padding = side // 8
    corners = (draws[:, :2] * (2 * padding + 1)).long().to(pixels.device)
    mirrored = (draws[:, 2:] < 0.5).to(pixels.device)
    step = torch.arange(side, device=pixels.device)
    columns = torch.where(mirrored, step.flip(0), step) if flip else step
    rows, columns = step + corners[:, :1], columns + corners[:, 1:]
    numbers = (side + 2 * padding) * rows[:, :, None] + columns[:, None, :]
    return _taken(pad(pixels, [padding] * 4).flatten(2), numbers.flatten(1))


def choices(policy: Policy, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Operations (rows of OPERATIONS) and settings that uniform draws (n, 3) stand for, int64."""
    operation = (draws[:, 0] * len(OPERATIONS)).long()
    negated = draws[:, 1] < 0.5
    bins = (draws[:, 2] * BINS).long() if policy.bin is None else policy.bin
    return operation, 2 * bins + negated


def operate(policy: Policy, pixels: Tensor, operation: Tensor, setting: Tensor) -> Tensor:
    """Do to each image its own operation at its own setting.

    pixels: uint8 (n, C, side, side); operation, setting: int64 (n,), on the CPU. The same levels
    as torchvision's functions give an image alone, but for BLENDS: where a blend falls on a whole
    level, rounding may leave it one below.
    """
    out = pixels.clone()
    side, device = pixels.shape[-1], pixels.device

    def members(*names: str) -> tuple[Tensor, Tensor]:
        """Images with one of these operations (adjacent in OPERATIONS), and their table rows."""
        first = OPERATIONS.index(names[0])
        place = operation - first
        rows = ((place >= 0) & (place < len(names))).nonzero().squeeze(1)
        return rows.to(device), (place[rows] * SETTINGS + setting[rows]).to(device)

    rows, entries = members(*MOVES)
    blackened = pad(pixels[rows].flatten(2), [1, 0])
    out[rows] = _taken(blackened, _sources(policy, side, device)[entries])
    rows, entries = members(*LEVELS)
    mine = pixels[rows]
    levels = _levels(policy, device)[entries]
    out[rows] = levels.gather(1, mine.flatten(1).long()).view_as(mine)
    for name in BLENDS:
        rows, entries = members(name)
        magnitudes = policy.magnitudes(name, side).to(device)[entries]
        out[rows] = _blend(name, pixels[rows], magnitudes)
    for name, function in zip(WHOLE, (functional.autocontrast, functional.equalize), strict=True):
        rows, _ = members(name)
        out[rows] = function(pixels[rows])
    return out


def _blend(name: str, pixels: Tensor, magnitudes: Tensor) -> Tensor:
    """Images moved away from (or, at a negative magnitude, towards) their degenerate ones."""
    if name == "Contrast":
        degenerate = functional.rgb_to_grayscale(pixels).float().mean(dim=(1, 2, 3), keepdim=True)
    elif name == "Color":
        degenerate = functional.rgb_to_grayscale(pixels).float()
    else:
        degenerate = functional.adjust_sharpness(pixels, 0.0).float()
    # written so that a pixel equal to its degenerate one stays exactly what it is
    away = (pixels - degenerate) * magnitudes[:, None, None, None]
    return (pixels + away).clamp(0, 255).to(torch.uint8)


@cache
def _sources(policy: Policy, side: int, device: torch.device) -> Tensor:
    """Where MOVES take each pixel from: int64 (5 SETTINGS, side²), 0 for black, 1 + its number.

    They take the nearest pixel, so that an image of the pixels' numbers tells.
    """
    numbers = torch.arange(1.0, side**2 + 1).reshape(1, side, side)
    moved = [
        _move(numbers, name, magnitude)
        for name in MOVES
        for magnitude in policy.magnitudes(name, side).tolist()
    ]
    return torch.stack(moved).flatten(1).long().to(device)


def _move(image: Tensor, name: str, magnitude: float) -> Tensor:
    """torchvision's operation, with the arguments that its policies give it."""
    if name == "Rotate":
        return functional.rotate(image, magnitude)
    horizontal = name.endswith("X")
    if name.startswith("Translate"):
        shift = float(int(magnitude))
        translate = [shift, 0.0] if horizontal else [0.0, shift]
        return functional.affine(image, angle=0.0, translate=translate, scale=1.0, shear=[0.0, 0.0])
    angle = math.degrees(math.atan(magnitude))
    shear = [angle, 0.0] if horizontal else [0.0, angle]
    return functional.affine(
        image, angle=0.0, translate=[0.0, 0.0], scale=1.0, shear=shear, center=[0.0, 0.0]
    )


@cache
def _levels(policy: Policy, device: torch.device) -> Tensor:
    """What LEVELS make of each level: uint8 (3 SETTINGS, 256)."""
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256)
    brightness, posterize, solarize = (policy.magnitudes(name, 1).tolist() for name in LEVELS)
    made = [
        *(functional.adjust_brightness(ramp, 1.0 + magnitude) for magnitude in brightness),
        *(functional.posterize(ramp, int(magnitude)) for magnitude in posterize),
        *(functional.solarize(ramp, 255 * magnitude) for magnitude in solarize),
    ]
    return torch.stack(made).flatten(1).to(device)


def _taken(flat: Tensor, numbers: Tensor) -> Tensor:
    """Square images (n, C, side, side) of pixels taken from others, the same in every channel.

    flat: uint8 (n, C, pixels); numbers: int64 (n, side²), of the pixels to take.
    """
    side = math.isqrt(numbers.shape[1])
    taken = flat.gather(2, numbers[:, None].expand(-1, flat.shape[1], -1))
    return taken.unflatten(2, (side, side))


@dataclass(frozen=True)
class Mixing:
    """Mixing an image and its label with a partner's: mixup (Zhang et al. 2018), cutmix (Yun
    et al. 2019), or none. Every image has its own weight and box.

    alpha: the own image's weight is Beta(alpha, alpha); for cutmix before its box is clipped.

    Raises:
        ParameterError: no mixing has this name, or alpha is not positive.
    """

    name: str = "none"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _require_name("mixing", self.name, MIXINGS)
        require(0 < self.alpha < math.inf, "alpha", self.alpha, "positive")

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Weight of the own image, and centre of the box as shares of the side: float64 (n, 3)."""
        draws = _rows(n, 3, generator)
        draws[:, 0] = torch.from_numpy(betaincinv(self.alpha, self.alpha, draws[:, 0].numpy()))
        return draws

    def apply(
        self,
        pixels: Tensor,
        labels: Tensor,
        draws: Tensor,
        classes: int,
        others: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mixed images, and targets float32 (n, classes) for `cross_entropy`.

        pixels: (n, C, side, side), uint8 or float; labels: int64 (n,); draws: the examples' rows
        of `draw`; others: images and labels of the partners, by default those of the image before
        in the batch (as in torchvision). With "none" images and labels come back as they are;
        mixup gives float32.
        """
        if self.name == "none":
            return pixels, labels
        others = others or (pixels.roll(1, 0), labels.roll(1, 0))
        if self.name == "mixup":
            own = draws[:, 0].float().to(pixels.device)
            weights = own[:, None, None, None]
            mixed = weights * pixels + (1 - weights) * others[0]
        else:
            boxed = boxes(draws, pixels.shape[-1]).to(pixels.device)
            mixed = torch.where(boxed[:, None], others[0], pixels)
            own = 1 - boxed.float().mean(dim=(1, 2))
        mine, theirs = (one_hot(of, classes).float() for of in (labels, others[1]))
        return mixed, own[:, None] * mine + (1 - own[:, None]) * theirs


def boxes(draws: Tensor, side: int) -> Tensor:
    """Where cutmix shows the partner, bool (n, side, side).

    draws: (n, 3), weight and centre. The box has the share 1 - weight of the image, and is
    clipped at its border; like torchvision's, its sides are even.
    """
    half = (0.5 * (1 - draws[:, :1]).sqrt() * side).long()
    step = torch.arange(side)
    rows, columns = (
        (step >= centre - half) & (step < centre + half)
        for centre in (draws[:, 1:] * side).long().split(1, 1)
    )
    return rows[:, :, None] & columns[:, None, :]


def _rows(n: int, columns: int, generator: torch.Generator) -> Tensor:
    # filled row by row, so that an example's numbers do not depend on n; float64, so that
    # a share of them is as uniform as an integer drawn
    return torch.rand(n, columns, dtype=torch.float64, generator=generator)


def _require_name(what: str, name: str, allowed: Sequence[str]) -> None:
    require(name in allowed, what, name, f"one of {', '.join(allowed)}")
