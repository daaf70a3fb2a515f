"""What makes a comparison worthless, said before it is believed: one line each, with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from empirical.datasets.base import ImageSet
from empirical.datasets.splits import Split
from empirical.experiments.verdicts import Difference
from empirical.selection.slow_sets import at_chance

FEW = 10
"""Training images of a class below which its clusters mean little."""
AMPLITUDES = (0.5, 2.0)
"""Noise of synthetic images over that of their sources: below it smooth, above it static."""
OWN_LABEL = 0.6
"""Share of synthetic images of the right class, over that of their sources, that is too low."""
SAME = 0.97
"""Kept noise above which synthetic images are nearly copies."""
NEAR_SIDE = 8
NEAR = 0.01
"""Root mean square difference of thumbnails, in units of white, below which images look alike."""


def of_data(data: ImageSet, split: Split) -> list[str]:
    """Small classes; the same image, or nearly, in training and in test."""
    notices = []
    counts = np.bincount(data.train.labels.numpy()[split.train], minlength=len(data.classes))
    few = [f"{data.classes[own]} ({counts[own]})" for own in np.flatnonzero(counts < FEW)]
    if few:
        notices.append(
            f"fewer than {FEW} training images in {', '.join(few[:5])}"
            f"{', ...' if len(few) > 5 else ''}: slow ones are found by chance; add images"
        )
    same, near = duplicates(data, split)
    if same:
        notices.append(
            f"{len(same)} test images are training images too, as {_pair(data, same[0])}: the test "
            "error is too low; remove them from one side"
        )
    if near:
        notices.append(
            f"{len(near)} test images look like a training image, as {_pair(data, near[0])}: the "
            "test error may be too low; look at them"
        )
    return notices


def duplicates(data: ImageSet, split: Split) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(training, test) indices of equal images, and of images with nearly the same thumbnail."""
    train, test = data.train.pixels[split.train].numpy(), data.test.pixels[split.test].numpy()
    known: dict[bytes, int] = {}
    for row, image in zip(split.train.tolist(), train, strict=True):
        known.setdefault(image.tobytes(), row)
    same = [
        (known[image.tobytes()], row)
        for row, image in zip(split.test.tolist(), test, strict=True)
        if image.tobytes() in known
    ]
    exact = {row for _, row in same}
    small, others = _thumbnails(train), _thumbnails(test)
    squares = (small**2).mean(axis=1)
    near = []
    for row, own in zip(split.test.tolist(), others, strict=True):
        # flat images have no look
        if row in exact or own.std() < NEAR:
            continue
        distance = squares + (own**2).mean() - 2 * (small @ own) / len(own)
        nearest = int(distance.argmin())
        if distance[nearest] < NEAR**2:
            near.append((int(split.train[nearest]), row))
    return same, near


def _thumbnails(pixels: np.ndarray) -> np.ndarray:
    """float32 (n, channels × side × side), means over a coarse grid, in units of white."""
    n, height, width = len(pixels), *pixels.shape[2:]
    rows = np.linspace(0, height, min(NEAR_SIDE, height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(NEAR_SIDE, width) + 1).astype(int)[:-1]
    sums = np.add.reduceat(pixels.astype(np.float32), rows, axis=2)
    sums = np.add.reduceat(sums, columns, axis=3)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return (sums / sizes / 255).reshape(n, -1)


def _pair(data: ImageSet, pair: tuple[int, int]) -> str:
    train, test = pair
    if data.files is None:
        return f"number {train} and number {test}"
    return f"{data.files[0][train]} and {data.files[1][test]}"


def of_selection(share: float, notes: Sequence[str]) -> list[str]:
    """No, or nearly all, examples slow; and what the selection itself says."""
    notices = list(notes)
    if share < 0.02:
        notices.append(
            f"only {100 * share:.1f}% of the training images are slow: there is little to amplify; "
            "select earlier (--separating-epoch), or by --selection loss"
        )
    if share > 0.8:
        notices.append(
            f"{100 * share:.0f}% of the training images are slow: the early network has learned "
            "little; train it longer (--separating-epoch)"
        )
    return notices


def of_networks(wrong: Mapping[str, np.ndarray], labels: np.ndarray) -> list[str]:
    """Final networks that answer no better than by guessing. wrong: bool (seeds, images) by arm."""
    guessing = [
        arm for arm, own in wrong.items() if at_chance(int((~own).sum(axis=1).max()), labels)
    ]
    if not guessing:
        return []
    return [
        f"the networks of {', '.join(guessing)} are at chance on the test images: nothing can be "
        "compared; train longer (--epochs), or take more images"
    ]


def of_images(overall: Mapping[str, Any] | None) -> list[str]:
    """Static, smooth or mislabelled synthetic images, and near copies; `overall` of a diagnosis."""
    if overall is None:
        return []
    notices = []
    amplitude, kept = _value(overall, "amplitude"), _value(overall, "kept_noise")
    label = _value(overall, "relative_consistency")
    low, high = AMPLITUDES
    if amplitude is not None and amplitude > high:
        notices.append(
            f"the synthetic images have {amplitude:.1f} times the noise of their sources: static; "
            "train the generator longer (--generator-steps), or lower --strength"
        )
    if amplitude is not None and amplitude < low:
        notices.append(
            f"the synthetic images have {amplitude:.2f} times the detail of their sources: too "
            "smooth; use another generator, or lower --strength"
        )
    if label is not None and label < OWN_LABEL:
        notices.append(
            f"only {100 * label:.0f}% as many synthetic images as real ones are recognised as "
            "their class: lower --strength, or use another generator"
        )
    if kept is not None and kept > SAME:
        notices.append(
            f"the synthetic images are nearly copies of their sources ({100 * kept:.0f}% of the "
            "noise kept): raise --strength"
        )
    return notices


def of_difference(found: Difference) -> list[str]:
    """More chance in the test images than there is difference."""
    if found.decided or abs(found.mean) >= 2 * found.from_images:
        return []
    one = 100 / found.images
    return [
        f"{found.images} test images decide differences of {200 * found.from_images:.1f} points at "
        f"best (one image is {one:.2g} points): test on more images"
    ]


def _value(overall: Mapping[str, Any], name: str) -> float | None:
    estimate = overall.get(name)
    return None if estimate is None else float(estimate["value"])
