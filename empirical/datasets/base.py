"""What a data set is: images with labels, cut into training and test, and how to normalise them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """pixels: uint8 (n, channels, height, width); labels: int64 (n,); classes: their names."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ImageSet:
    """Training and test images of one data set, loaded once.

    flips: whether an image turned left to right keeps its label;
    mean, std: of each channel over all training pixels, in units where white is 1.
    """

    name: str
    train: Images
    test: Images
    flips: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[tuple[str, ...], tuple[str, ...]] | None = field(default=None, kw_only=True)
    """Names of the training and of the test images' files, where they have any."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def channels(self) -> int:
        return self.train.pixels.shape[1]

    @property
    def side(self) -> int:
        return self.train.pixels.shape[2]


@dataclass(frozen=True)
class Contents:
    """What a source tells when its pixels are read. labels: int64 (n,)."""

    train_labels: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set that has a known size, but is not read yet (see `empirical.datasets.memory`).

    version: a JSON value of all that the pixels depend on, apart from the name;
    shape: (channels, side, side) of every image; counts: of training and test images;
    read: finds the files (downloads them, where allowed) and fills two uint8 arrays
    (count, *shape), training and test;
    keep: reading takes so long that the pixels are kept in a cache file;
    files: names of the training and of the test images' files, where they have any.
    """

    name: str
    version: dict[str, Any]
    shape: tuple[int, int, int]
    counts: tuple[int, int]
    flips: bool
    read: Callable[[np.ndarray, np.ndarray], Contents]
    keep: bool = False
    files: tuple[tuple[str, ...], tuple[str, ...]] | None = None


def channel_statistics(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (n, channels, ...), in units of white.

    Exact, from a histogram, and in blocks, since the pixels may be larger than the memory. The
    standard deviation is at least one grey level, so that a flat channel can be divided by it.
    """
    channels = pixels.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    block = max(1, 2**22 // pixels[0].size)
    for start in range(0, len(pixels), block):
        for channel in range(channels):
            some = pixels[start : start + block, channel].ravel()
            counts[channel] += np.bincount(some, minlength=256)
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order in which every stretch holds the classes in (nearly) their shares.

    Within a class the order is random; example number r of a class with n stands at the
    share (r + u) / n of the whole, u uniform in [0, 1).
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(place, kind="stable")


def fingerprint(images: Images) -> str:
    """SHA-256 of pixels, labels and class names, in hex: which images these are."""
    found = hashlib.sha256(json.dumps([tuple(images.pixels.shape), images.classes]).encode())
    for part in (images.pixels, images.labels):
        found.update(part.contiguous().numpy().data)
    return found.hexdigest()


def take(images: Images, rows: np.ndarray) -> Images:
    """Some images of a set; the set itself where these are all."""
    if np.array_equal(rows, np.arange(len(images.labels))):
        return images
    index = torch.from_numpy(rows)
    return Images(images.pixels[index], images.labels[index], images.classes)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 levels to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_levels(pixels: Tensor) -> Tensor:
    """float32 in [-1, 1] to uint8 levels, clipped and rounded."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
