"""In memory or mapped: the same images; caches that are whole or made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import ParameterError
from empirical.datasets.base import Contents, ImageSet, Source, channel_statistics
from empirical.datasets.memory import hold

MAPPED = 1e-12


class Some:
    """A source that counts how often it is read."""

    def __init__(self, seed: int = 0) -> None:
        self.reads = 0
        self.seed = seed
        self.broken = False
        self.source = Source("some", {"seed": seed}, (2, 3, 3), (7, 4), True, self.read)

    def read(self, train: np.ndarray, test: np.ndarray) -> Contents:
        self.reads += 1
        rng = np.random.default_rng(self.seed)
        train[:] = rng.integers(0, 256, train.shape)
        if self.broken:
            raise RuntimeError
        test[:] = rng.integers(0, 256, test.shape)
        return Contents(np.arange(7) % 2, np.arange(4) % 2, ("a", "b"))


@pytest.fixture
def some() -> Some:
    return Some()


def same(one: ImageSet, other: ImageSet) -> bool:
    parts = ((one.train, other.train), (one.test, other.test))
    return (one.mean, one.std, one.classes) == (other.mean, other.std, other.classes) and all(
        torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels) for a, b in parts
    )


def test_a_mapped_set_equals_the_one_in_memory(some: Some, tmp_path: Path) -> None:
    plain = hold(some.source, tmp_path, 1.0)
    assert not list(tmp_path.iterdir())
    mapped = hold(some.source, tmp_path, MAPPED)
    assert same(plain, mapped)
    assert plain.train.pixels.dtype == mapped.train.pixels.dtype == torch.uint8
    assert same(plain, hold(some.source, tmp_path, MAPPED))
    assert some.reads == 2


def test_writing_into_mapped_pixels_does_not_reach_the_cache(some: Some, tmp_path: Path) -> None:
    first = hold(some.source, tmp_path, MAPPED)
    first.train.pixels.zero_()
    assert same(hold(some.source, tmp_path, MAPPED), hold(some.source, tmp_path, 1.0))
    assert some.reads == 2


def test_a_read_that_fails_leaves_no_cache(some: Some, tmp_path: Path) -> None:
    some.broken = True
    with pytest.raises(RuntimeError):
        hold(some.source, tmp_path, MAPPED)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("file", ["train.npy", "test.npy", "test-labels.npy", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_cache_is_made_anew(some: Some, tmp_path: Path, file: str, damage: str) -> None:
    plain = hold(some.source, tmp_path, 1.0)
    hold(some.source, tmp_path, MAPPED)
    (path,) = tmp_path.glob(f"some-*/{file}")
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-5] if damage == "cut" else raw.replace(raw[-2:], b"??"))
    assert same(plain, hold(some.source, tmp_path, MAPPED))
    assert some.reads == 3


def test_what_a_killed_process_left_is_thrown_away(some: Some, tmp_path: Path) -> None:
    hold(some.source, tmp_path, MAPPED)
    (folder,) = tmp_path.glob("some-*/")
    left = folder.rename(folder.with_name(f"{folder.name}.part"))
    (left / "about.json").unlink()
    hold(some.source, tmp_path, MAPPED)
    assert some.reads == 2
    assert folder.is_dir()
    assert not left.exists()


def test_another_version_has_another_cache(some: Some, tmp_path: Path) -> None:
    other = Some(seed=1)
    hold(some.source, tmp_path, MAPPED)
    assert not same(hold(other.source, tmp_path, MAPPED), hold(some.source, tmp_path, MAPPED))
    assert (some.reads, other.reads) == (1, 1)


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(some: Some, tmp_path: Path, share: float) -> None:
    with pytest.raises(ParameterError, match=r"memory_share = .*: must be in \(0, 1\]"):
        hold(some.source, tmp_path, share)


def test_statistics_are_those_of_all_pixels_and_never_divide_by_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2, 5, 5), dtype=np.uint8)
    pixels[:, 1] = 51
    mean, std = channel_statistics(pixels)
    assert mean == pytest.approx((pixels[:, 0].mean() / 255, 0.2))
    assert std == pytest.approx((pixels[:, 0].std() / 255, 1 / 255))
