"""Arrays for a grid of slow, fast and synthetic images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from empirical.config.settings import Settings
from empirical.datasets.base import Images
from empirical.datasets.digits import whole
from empirical.datasets.splits import make_split
from empirical.experiments.gallery import run_gallery
from empirical.report.gallery import gallery


def test_columns_belong_together(digits: Images, tiny: Callable[..., Settings]) -> None:
    train = make_split(whole(), tiny().data).train
    labels = digits.labels.numpy()[train]
    slow = np.arange(100) % 3 == 0
    slow[labels == 7] = False  # a class without slow examples has no column
    synthetic = {(int(source), 1): 255 - digits.pixels[source] for source in train[slow]}
    shown = gallery(digits, train, slow, synthetic, per_class=2)
    assert shown.slow.shape == shown.fast.shape == shown.synthetic.shape == (18, 8, 8)
    assert shown.classes == tuple(name for name in "012345689" for _ in range(2))
    assert np.array_equal(shown.synthetic, 255 - shown.slow)
    pixels = digits.pixels[train].squeeze(1).numpy()
    for column, name in enumerate(shown.classes):
        for kind, which in ((shown.slow, slow), (shown.fast, ~slow)):
            own = pixels[which & (labels == int(name))]
            assert (own == kind[column]).all(axis=(1, 2)).any()


def test_gallery_of_a_run(
    finished: Path, tiny: Callable[..., Settings], stored: Callable[..., list[np.ndarray]]
) -> None:
    shown = run_gallery(tiny(), finished)
    made = stored(finished / "synthetic")
    assert len(shown.classes) >= 5
    assert all(any((image == one).all() for one in made) for image in shown.synthetic)


def test_colour(digits: Images) -> None:
    colour = Images(digits.pixels[:20].repeat(1, 3, 1, 1), digits.labels[:20], digits.classes)
    train, slow = np.arange(20), np.arange(20) < 10
    synthetic = {(source, 1): torch.zeros(3, 8, 8, dtype=torch.uint8) for source in range(10)}
    assert gallery(colour, train, slow, synthetic).synthetic.shape == (10, 8, 8, 3)
