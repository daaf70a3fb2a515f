"""Augmentation: against torchvision image by image, uniform, and the same in any batch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchvision.transforms import v2

from benchmarks.augmentation import MEAN, SD, batches, bench_augment
from common.errors import ParameterError
from common.seeding import torch_stream
from empirical.training.augment import (
    AUGMENTATIONS,
    BINS,
    BLENDS,
    MIXINGS,
    OPERATIONS,
    RANDAUGMENT,
    SETTINGS,
    TRIVIALAUGMENT,
    Augmentation,
    Mixing,
    Policy,
    boxes,
    choices,
    operate,
)

POLICIES = {
    "trivialaugment": (TRIVIALAUGMENT, v2.TrivialAugmentWide()),
    "randaugment": (RANDAUGMENT, v2.RandAugment()),
}


def pictures(n: int, channels: int = 3, side: int = 32) -> Tensor:
    """Random levels in even places; few levels, and a single one, in the others."""
    found = torch.randint(
        256, (n, channels, side, side), dtype=torch.uint8, generator=torch_stream("pictures")
    )
    found[1::4] = found[1::4] // 4 + 90
    found[3::4] = 77
    return found


def by_torchvision(name: str, image: Tensor, operation: int, setting: int) -> Tensor:
    """What torchvision's own policy does to one image (C, side, side)."""
    policy = POLICIES[name][1]
    which = OPERATIONS[operation]
    function, signed = policy._AUGMENTATION_SPACE[which]
    magnitudes = function(BINS, *image.shape[1:])
    magnitude = 0.0 if magnitudes is None else float(magnitudes[setting // 2])
    return policy._apply_image_or_video_transform(
        image,
        which,
        -magnitude if signed and setting % 2 else magnitude,
        interpolation=policy.interpolation,
        fill=policy._fill,
    )


@pytest.mark.parametrize("side", [8, 20, 32])
@pytest.mark.parametrize("flip", [True, False])
def test_crop_and_flip_equal_a_loop(side: int, flip: bool) -> None:
    augmentation = Augmentation("crop+flip", flip=flip)
    draws = augmentation.draw(64, torch_stream("crops"))
    pixels = pictures(64, side=side)
    padding = side // 8
    expected = []
    for image, (u, v, w) in zip(pixels, draws[:, :3].tolist(), strict=True):
        top, left = (int(share * (2 * padding + 1)) for share in (u, v))
        padded = np.pad(image.numpy(), [(0, 0), (padding, padding), (padding, padding)])
        crop = padded[:, top : top + side, left : left + side]
        expected.append(crop[..., ::-1] if flip and w < 0.5 else crop)
    assert np.array_equal(augmentation.apply(pixels, draws), np.stack(expected))


def test_crops_are_uniform() -> None:
    """A white image tells where its crop was: all 81 places, and both ways round."""
    pixels = torch.zeros(20_000, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 16, 15] = 255  # off the axis: a mirrored image shows it in an own column
    augmentation = Augmentation()
    shown = augmentation.apply(pixels, augmentation.draw(20_000, torch_stream("uniform")))
    place = shown.flatten(1).float().argmax(dim=1)
    row, column = place // 32 - 12, place % 32 - 11
    assert row.unique().tolist() == list(range(9))
    assert column.unique().tolist() == list(range(10))
    assert stats.chisquare(row.bincount()).pvalue > 1e-4
    # the two ways round share all columns but the outermost
    expected = np.array([1, *[2] * 8, 1]) * 20_000 / 18
    assert stats.chisquare(column.bincount(), expected).pvalue > 1e-4


@pytest.mark.parametrize("name", POLICIES)
def test_the_space_is_torchvisions(name: str) -> None:
    policy, reference = POLICIES[name]
    space = reference._AUGMENTATION_SPACE
    assert set(space) == set(OPERATIONS)
    assert len(OPERATIONS) == len(space)
    assert reference.num_magnitude_bins == BINS
    assert policy.rounds == getattr(reference, "num_ops", 1)
    assert policy.bin == getattr(reference, "magnitude", None)
    for which, (function, signed) in space.items():
        for side in (8, 32, 64):
            expected = function(BINS, side, side)
            found = policy.magnitudes(which, side).view(BINS, 2)
            if expected is not None:
                assert torch.equal(found[:, 0], expected.float())
                assert torch.equal(found[:, 1], (-expected if signed else expected).float())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 32), (3, 8), (1, 8)])
def test_every_operation_equals_torchvisions(name: str, channels: int, side: int) -> None:
    """At several magnitudes of both signs, all of them in one batch."""
    settings = [s for b in (0, 1, 9, 16, 23, 30) for s in (2 * b, 2 * b + 1)]
    cells = [(o, s) for o in range(len(OPERATIONS)) for s in settings for _ in range(2)]
    operation, setting = torch.tensor(cells).unbind(1)
    pixels = pictures(len(cells), channels, side)
    found = operate(POLICIES[name][0], pixels, operation, setting)
    expected = torch.stack(
        [by_torchvision(name, *one) for one in zip(pixels, *zip(*cells, strict=True), strict=True)]
    )
    blended = torch.isin(operation, torch.tensor([OPERATIONS.index(which) for which in BLENDS]))
    assert torch.equal(found[~blended], expected[~blended])
    # see `operate`: rounding just below a whole level, in few pixels
    off = (found[blended].int() - expected[blended].int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 0.01


def test_a_blend_with_itself_changes_nothing() -> None:
    """A grey image has no colour to take away, a constant one no contrast."""
    grey = pictures(SETTINGS, channels=1)
    constant = torch.full((SETTINGS, 3, 32, 32), 77, dtype=torch.uint8)
    every = torch.arange(SETTINGS)
    for which, pixels in (("Color", grey), ("Contrast", constant[:, :1]), ("Sharpness", constant)):
        operation = torch.full((SETTINGS,), OPERATIONS.index(which))
        assert torch.equal(operate(TRIVIALAUGMENT, pixels, operation, every), pixels)


@pytest.mark.parametrize("policy", [TRIVIALAUGMENT, RANDAUGMENT])
def test_operations_and_magnitudes_are_uniform(policy: Policy) -> None:
    draws = Augmentation("randaugment").draw(100_000, torch_stream("uniform"))
    for first in (3, 6):
        operation, setting = choices(policy, draws[:, first : first + 3])
        cells = (operation * SETTINGS + setting).bincount(minlength=len(OPERATIONS) * SETTINGS)
        if policy.bin is not None:
            assert (setting // 2 == policy.bin).all()
            cells = cells.view(-1, BINS, 2)[:, policy.bin].flatten()
        assert stats.chisquare(cells).pvalue > 1e-4
    pairs = [choices(policy, draws[:, first : first + 3])[0] for first in (3, 6)]
    both = (pairs[0] * len(OPERATIONS) + pairs[1]).bincount(minlength=len(OPERATIONS) ** 2)
    assert stats.chisquare(both).pvalue > 1e-4


@pytest.mark.parametrize("name", POLICIES)
def test_policies_follow_crop_and_flip(name: str) -> None:
    augmentation, pixels = Augmentation(name), pictures(40)
    policy = POLICIES[name][0]
    draws = augmentation.draw(40, torch_stream("order"))
    expected = Augmentation("crop+flip").apply(pixels, draws)
    for first in range(3, 3 + 3 * policy.rounds, 3):
        cells = zip(*choices(policy, draws[:, first : first + 3]), strict=True)
        steps = [
            by_torchvision(name, image, int(operation), int(setting))
            for image, (operation, setting) in zip(expected, cells, strict=True)
        ]
        expected = torch.stack(steps)
    # a level that a blend left one below may be a whole step lower once posterized
    assert (augmentation.apply(pixels, draws) != expected).float().mean() < 0.01


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_example_is_the_same_in_any_batch(name: str) -> None:
    augmentation, pixels = Augmentation(name), pictures(60)
    before = pixels.clone()
    draws = augmentation.draw(60, torch_stream("augment", 0, 3))
    whole = augmentation.apply(pixels, draws)
    assert torch.equal(pixels, before)
    assert whole.dtype == torch.uint8
    order = torch.randperm(60, generator=torch_stream("order"))
    for rows in order.split([1, 2, 7, 20, 30]):
        assert torch.equal(augmentation.apply(pixels[rows], draws[rows]), whole[rows])
    # nor does it depend on how many follow it, and a resumed run draws the same
    assert torch.equal(augmentation.draw(17, torch_stream("augment", 0, 3)), draws[:17])
    other = augmentation.draw(60, torch_stream("augment", 0, 4))
    assert (name == "none") == torch.equal(augmentation.apply(pixels, other), whole)
    assert augmentation.apply(pixels[:0], draws[:0]).shape == (0, 3, 32, 32)


class Given:
    """Stands in for a distribution and for `torch.randint`: gives what is given."""

    def __init__(self, *values: float) -> None:
        self.values: Iterator[float] = iter(values)

    def sample(self, shape: tuple[int, ...]) -> float:
        return next(self.values)

    def __call__(self, *_: object, **__: object) -> Tensor:
        return torch.tensor([next(self.values)])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("channels", [1, 3])
def test_mixing_equals_torchvisions(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image by image, each with its own weight and box."""
    n, side = 40, 28
    mixing, pixels = Mixing(name), pictures(n, channels, side).float()
    labels = torch.arange(n) % 10
    draws = mixing.draw(n, torch_stream("mixing"))
    mixed, targets = mixing.apply(pixels, labels, draws, 10)
    reference = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[name](num_classes=10)
    for i in range(n):
        weight, row, column = draws[i].tolist()
        monkeypatch.setattr(reference, "_dist", Given(weight))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", Given(int(column * side), int(row * side)))
            both, shares = reference(pixels[[i, i - 1]], labels[[i, i - 1]])
        torch.testing.assert_close(mixed[i], both[0], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(targets[i], shares[0], rtol=0, atol=1e-6)


def test_targets_are_the_shares_of_the_pixels() -> None:
    """White images take black ones' pixels: what stays white is the own label's weight."""
    n = 500
    white, black = (torch.full((n, 1, 32, 32), level, dtype=torch.uint8) for level in (255, 0))
    labels, others = torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.int64)
    for name in ("mixup", "cutmix"):
        mixing = Mixing(name)
        draws = mixing.draw(n, torch_stream("shares"))
        mixed, targets = mixing.apply(white, labels, draws, 3, others=(black, others))
        shares = (mixed.double() / 255).mean(dim=(1, 2, 3))
        assert (targets[:, 2] == 0).all()
        if name == "cutmix":
            assert mixed.dtype == torch.uint8
            assert torch.equal(targets[:, 0].double(), shares)
            assert torch.equal(targets[:, 1].double(), 1 - shares)
            assert torch.equal(boxes(draws, 32), mixed.squeeze(1) == 0)
            assert len(shares.unique()) > 50
        else:
            assert mixed.dtype == torch.float32
            torch.testing.assert_close(targets[:, :2].double().sum(dim=1), torch.ones(n).double())
            torch.testing.assert_close(targets[:, 0].double(), shares, rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_weights_are_beta_distributed_and_an_examples_own(alpha: float) -> None:
    mixing = Mixing("mixup", alpha)
    draws = mixing.draw(5000, torch_stream("beta"))
    assert stats.kstest(draws[:, 0], stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    for centre in draws[:, 1:].T:
        assert stats.kstest(centre, stats.uniform.cdf).pvalue > 1e-4
    assert torch.equal(mixing.draw(13, torch_stream("beta")), draws[:13])


def test_one_loss_for_hard_and_soft_targets() -> None:
    """Without mixing everything comes back as it was, and both kinds of target mean the same."""
    pixels, labels = pictures(6), torch.arange(6)
    mixing = Mixing()
    mixed, targets = mixing.apply(pixels, labels, mixing.draw(6, torch_stream("none")), 6)
    assert torch.equal(mixed, pixels)
    assert torch.equal(targets, labels)
    logits = torch.randn(6, 6, generator=torch_stream("logits"))
    soft = cross_entropy(logits, one_hot(targets, 6).float(), reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets, reduction="none"), soft)


def test_bad_input_is_named_with_what_is_allowed() -> None:
    allowed = re.escape(", ".join(AUGMENTATIONS))
    with pytest.raises(ParameterError, match=f"augmentation = flips: must be one of {allowed}$"):
        Augmentation("flips")
    with pytest.raises(ParameterError, match=f"mixing = up: must be one of {', '.join(MIXINGS)}$"):
        Mixing("up")
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match=r"alpha = .*: must be positive"):
            Mixing("mixup", alpha)
    augmentation = Augmentation()
    draws = augmentation.draw(2, torch_stream("bad"))
    for pixels in (pictures(2).float(), pictures(2)[..., :9], pictures(2)[0]):
        with pytest.raises(ParameterError, match=r"must be uint8 \(n, channels, side, side\)"):
            augmentation.apply(pixels, draws)


def test_the_bench_measures_what_it_says() -> None:
    record = json.loads(json.dumps(bench_augment(small=True), allow_nan=False))
    assert [case["augmentation"] for case in record["against_loader"]] == [
        "crop+flip",
        "trivialaugment",
    ]
    for goal, case in zip(record["goals"], record["against_loader"], strict=True):
        assert goal["met"] == (goal["measured"] >= goal["goal"])
        assert set(case["images_a_second"]) == {"here", "0 workers"}
    pixels = pictures(200)
    (first, second) = batches(pixels, "crop+flip", 0)
    assert (len(first), len(second)) == (128, 72)
    for value, mean, sd in zip(first.amax(dim=(0, 2, 3)), MEAN, SD, strict=True):
        assert value == pytest.approx((1 - mean) / sd, rel=1e-5)
