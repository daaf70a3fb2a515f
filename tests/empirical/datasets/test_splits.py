"""Sizes, values and the partition into pool, validation, training and test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ParameterError
from empirical.config.presets import DIGITS
from empirical.config.settings import Settings, changed
from empirical.datasets.base import Images, to_float, to_levels
from empirical.datasets.digits import whole
from empirical.datasets.splits import make_split, n_splits, stratified_order


def test_digits_are_uint8_images_over_the_whole_range(digits: Images) -> None:
    assert digits.pixels.shape == (1797, 1, 8, 8)
    assert digits.pixels.dtype == torch.uint8
    assert (int(digits.pixels.min()), int(digits.pixels.max())) == (0, 255)
    assert digits.labels.dtype == torch.int64
    assert len(digits.classes) == 10


@pytest.mark.parametrize("n_train", [100, 137, 300])
def test_partition_is_disjoint_and_whole(digits: Images, n_train: int) -> None:
    splits = [
        make_split(whole(), changed(DIGITS, n_train=n_train, split=split).data)
        for split in range(n_splits("digits", 1797, n_train))
    ]
    for split in splits:
        parts = np.concatenate([split.train, split.validation, split.test, split.pool])
        assert np.array_equal(np.sort(parts), np.arange(1797))
        assert [len(split.train), len(split.validation), len(split.pool)] == [n_train, 197, 500]
        assert np.array_equal(split.pool, splits[0].pool)
        assert np.array_equal(split.validation, splits[0].validation)
    for one, other in itertools.combinations(splits, 2):
        assert not np.intersect1d(one.train, other.train).size


def test_every_part_is_stratified(digits: Images) -> None:
    shares = np.bincount(digits.labels) / 1797
    for number in range(11):
        split = make_split(whole(), changed(DIGITS, split=number).data)
        for part in (split.train, split.validation, split.pool):
            counts = np.bincount(digits.labels[part], minlength=10)
            assert np.abs(counts - shares * len(part)).max() < 2


def test_the_order_of_a_class_within_the_data_does_not_matter() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    order = stratified_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(10))
    for half in (labels[order[:5]], labels[order[5:]]):
        assert 2 <= (half == 0).sum() <= 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_train": 99}, "n_train = 99: must be between 100 and 300 for digits"),
        ({"n_train": 301}, "n_train = 301: must be between 100 and 300 for digits"),
        ({"split": 11}, "split = 11: must be between 0 and 10 with n_train = 100"),
        ({"n_train": 300, "split": 3}, "split = 3: must be between 0 and 2 with n_train = 300"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    digits: Images, values: dict[str, int], message: str, tiny: Callable[..., Settings]
) -> None:
    with pytest.raises(ParameterError) as error:
        make_split(whole(), tiny(**values).data)
    assert str(error.value) == message


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_levels_survive_the_way_to_floats_and_back(levels: list[int]) -> None:
    pixels = torch.tensor(levels, dtype=torch.uint8)
    assert torch.equal(to_levels(to_float(pixels)), pixels)
    assert to_float(pixels).abs().max() <= 1
