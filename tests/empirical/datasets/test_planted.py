"""Planted images: what is known of them is true, and the ideal generator is faithful."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import ParameterError
from empirical.datasets.planted import (
    PlantedConfig,
    PlantedSet,
    feature,
    is_slow,
    labels,
    noise,
    patterns,
)
from empirical.datasets.registry import load

CONFIG = PlantedConfig(n_train=200, n_test=50)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedSet:
    images = load("planted", tmp_path_factory.mktemp("root"), planted=CONFIG)
    assert isinstance(images, PlantedSet)
    return images


def contrasts(images: torch.Tensor) -> np.ndarray:
    return images.numpy() / 255 - 0.5


def features(indices: range) -> np.ndarray:
    return np.stack([feature(CONFIG, "train", index) for index in indices])


def test_an_image_depends_on_its_own_index_alone(planted: PlantedSet, tmp_path: Path) -> None:
    fewer = load("planted", tmp_path, planted=replace(CONFIG, n_train=37, n_test=11))
    assert torch.equal(fewer.train.pixels, planted.train.pixels[:37])
    assert torch.equal(fewer.test.labels, planted.test.labels[:11])
    other = load("planted", tmp_path, planted=replace(CONFIG, seed=1))
    assert not torch.equal(other.train.pixels[0], planted.train.pixels[0])


def test_a_regenerated_image_depends_on_its_own_pair_alone(planted: PlantedSet) -> None:
    some = planted.regenerate([5, 3, 5], [1, 1, 2], seed=4, kept_noise=0.5)
    assert torch.equal(planted.regenerate([5], [2], seed=4, kept_noise=0.5), some[2:])
    assert torch.equal(planted.regenerate([3, 5], [1, 1], seed=4, kept_noise=0.5), some[[1, 0]])
    assert not torch.equal(some[0], some[2])
    assert not torch.equal(planted.regenerate([5], [2], seed=5, kept_noise=0.5), some[2:])


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8, 0.83])
@pytest.mark.parametrize("n", [10, 57, 1000, 4999])
def test_shares_are_exact_in_each_class(alpha: float, n: int) -> None:
    config = PlantedConfig(alpha=alpha)
    members, slow = labels(config, n), is_slow(config, n)
    for label in range(10):
        own = slow[members == label]
        assert (~own).sum() == np.floor(alpha * len(own) + 0.5)
    assert np.array_equal(is_slow(config, 2 * n)[:n], slow)


def test_patterns_are_orthogonal_and_of_contrast_one() -> None:
    for n_classes, patch in ((10, 8), (94, 8), (2, 4)):
        flat = patterns(n_classes, patch, 0).reshape(2 * n_classes, -1)
        assert np.allclose(flat @ flat.T / flat.shape[1], np.eye(len(flat)), atol=1e-10)


def test_the_mask_is_true(planted: PlantedSet) -> None:
    for index in range(40):
        found = feature(CONFIG, "train", index)
        contrast = np.sqrt((found**2).sum() / (3 * 8 * 8))
        slow = planted.train_slow[index]
        assert contrast == pytest.approx(CONFIG.beta_slow if slow else CONFIG.beta_fast)
    assert planted.train_slow.sum() == 40
    assert planted.test_slow.sum() == 10


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("amplitude", [1.0, 0.5])
def test_noise_correlates_with_its_source_by_what_is_kept(
    planted: PlantedSet, kept: float, amplitude: float
) -> None:
    indices = range(200)
    made = planted.regenerate(indices, [1] * 200, kept_noise=kept, amplitude=amplitude)
    fresh = (contrasts(made) - features(indices)).ravel()
    own = (contrasts(planted.train.pixels) - features(indices)).ravel()
    assert np.corrcoef(fresh, own)[0, 1] == pytest.approx(kept, abs=0.03)
    assert fresh.std() == pytest.approx(amplitude * CONFIG.sigma_noise, rel=0.03)


def test_copies_have_independent_noise(planted: PlantedSet) -> None:
    indices = range(200)
    one, two = (planted.regenerate(indices, [copy] * 200) for copy in (1, 2))
    pair = [(contrasts(images) - features(indices)).ravel() for images in (one, two)]
    assert abs(np.corrcoef(*pair)[0, 1]) < 0.03


@pytest.mark.parametrize("fidelity", [0.0, 0.5, 1.0])
def test_the_feature_stays_at_its_place_times_the_fidelity(
    planted: PlantedSet, fidelity: float
) -> None:
    indices = range(60)
    made = planted.regenerate(indices, [1] * 60, fidelity=fidelity, amplitude=0.0)
    wanted = features(indices)
    found = contrasts(made)
    # up to rounding to 255 levels, and the few pixels of a strong pattern that clip
    assert np.abs(found - np.clip(fidelity * wanted, -0.5, 0.5)).max() <= 0.5 / 255 + 1e-9 + 1 / 510
    shares = (found * wanted).sum(axis=(1, 2, 3)) / (wanted**2).sum(axis=(1, 2, 3))
    assert shares == pytest.approx(fidelity, abs=0.06)
    assert shares[planted.train_slow[:60]] == pytest.approx(fidelity, abs=0.01)


def test_the_spectrum_of_the_noise_is_one_over_f() -> None:
    power = np.zeros((32, 32))
    for number in range(300):
        power += np.abs(np.fft.fft2(noise(CONFIG, "test of the spectrum", number)[0])) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    where = f > 0
    slope, _ = np.polyfit(np.log(f[where]), np.log(power[where]), 1)
    assert slope == pytest.approx(-2, abs=0.03)


def test_few_pixels_clip(planted: PlantedSet) -> None:
    pixels = planted.train.pixels
    assert ((pixels == 0) | (pixels == 255)).float().mean() < 0.003


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_train": 9}, "n_train = 9: must be a whole number of at least n_classes = 10"),
        ({"side": 8}, "side = 8: must be a whole number of at least 16"),
        ({"n_classes": 95, "side": 32}, "n_classes = 95: must be at most 94"),
        ({"alpha": 1.0}, "alpha = 1.0: must be inside (0, 1)"),
        ({"beta_slow": 0.3}, "beta_slow = 0.3: must be above 0 and below beta_fast = 0.2"),
        ({"beta_fast": float("nan")}, "beta_fast = nan: must be in (0, 1]"),
        ({"sigma_noise": -1.0}, "sigma_noise = -1.0: must be in [0, 1]"),
        ({"seed": -1}, "seed = -1: must be a whole number of at least 0"),
    ],
)
def test_bad_configurations_are_one_line(values: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        PlantedConfig(**values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"indices": [200]}, "index = 200: must be between 0 and 199"),
        ({"indices": [-1]}, "index = -1: must be between 0 and 199"),
        ({"copies": [1, 2]}, "copies = 2: must be as many as indices: 1"),
        ({"fidelity": -1.0}, "fidelity = -1.0: must be a number of at least 0"),
        ({"kept_noise": 1.1}, "kept_noise = 1.1: must be in [-1, 1]"),
        ({"amplitude": float("inf")}, "amplitude = inf: must be a number of at least 0"),
    ],
)
def test_bad_orders_to_the_generator_are_one_line(
    planted: PlantedSet, values: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ParameterError) as error:
        planted.regenerate(**({"indices": [0], "copies": [1]} | values))
    assert str(error.value) == message
