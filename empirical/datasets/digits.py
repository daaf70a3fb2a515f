"""scikit-learn's digits: 1797 handwritten digits of 8x8 pixels, part of the library."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from empirical.datasets.base import Images, ImageSet


def digits() -> Images:
    """All of scikit-learn's digits (UCI optdigits test set): grey values 0 to 16 over 0 to 255."""
    raw, labels = load_digits(return_X_y=True)
    pixels = np.rint(raw.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Images(
        torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), tuple("0123456789")
    )


def whole() -> ImageSet:
    """All digits, as training and as test images: `splits.cut` alone says which are which.

    Levels are normalised around 1/2.
    """
    every = digits()
    return ImageSet("digits", every, every, flips=False, mean=(0.5,), std=(0.5,))
