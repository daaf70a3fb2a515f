"""scikit-learn's digits: 1797 handwritten digits of 8x8 pixels, part of the library."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from empirical.datasets.base import Contents, Images, Source, stratified_order
from sim.streams import numpy_stream

N_TEST = 500


def digits() -> Images:
    """All of scikit-learn's digits (UCI optdigits test set): grey values 0 to 16 over 0 to 255."""
    raw, labels = load_digits(return_X_y=True)
    pixels = np.rint(raw.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Images(
        torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), tuple("0123456789")
    )


def source() -> Source:
    """The digits cut once and for all: 500 test images, 1297 to train on.

    Apart from this, `empirical.data` cuts all 1797 into its own pool, validation and chunks.
    """
    images = digits()
    labels = images.labels.numpy()
    order = stratified_order(labels, numpy_stream("datasets", "digits"))
    test, train = np.sort(order[:N_TEST]), np.sort(order[N_TEST:])

    def read(train_pixels: np.ndarray, test_pixels: np.ndarray) -> Contents:
        train_pixels[:] = images.pixels[train].numpy()
        test_pixels[:] = images.pixels[test].numpy()
        return Contents(labels[train], labels[test], images.classes)

    return Source(
        name="digits",
        version={"images": len(labels), "test": N_TEST},
        shape=(1, 8, 8),
        counts=(len(train), len(test)),
        flips=False,
        read=read,
    )
