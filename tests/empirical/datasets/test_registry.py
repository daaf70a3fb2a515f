"""Names, the digits, and how a planted set is mapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from empirical.datasets.digits import digits
from empirical.datasets.planted import PlantedConfig, PlantedSet
from empirical.datasets.registry import NAMES, load


@pytest.mark.parametrize("name", ["mnist", "", "folder", "folder:", "folder:PATH", "cifar-10"])
def test_an_unknown_name_is_refused_with_the_known_ones(
    name: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    said = refusal(name, tmp_path)
    assert said.startswith(f"dataset = {name}: must be digits, ")
    assert all(known in said for known in NAMES)


def test_digits_come_whole_to_be_cut_in_one_place(tmp_path: Path) -> None:
    images = load("digits", tmp_path)
    assert images.train is images.test
    assert torch.equal(images.train.pixels, digits().pixels)
    assert (images.channels, images.side, len(images.classes)) == (1, 8, 10)
    assert not images.flips


def test_a_mapped_planted_set_knows_the_same(tmp_path: Path) -> None:
    config = PlantedConfig(n_train=20, n_test=10)
    plain = load("planted", tmp_path, planted=config)
    mapped = load("planted", tmp_path, planted=config, memory_share=1e-12)
    assert isinstance(mapped, PlantedSet)
    assert isinstance(plain, PlantedSet)
    assert torch.equal(mapped.train.pixels, plain.train.pixels)
    assert torch.equal(mapped.regenerate([3], [1]), plain.regenerate([3], [1]))
    assert mapped.train_slow.tolist() == plain.train_slow.tolist()
