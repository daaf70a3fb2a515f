"""Fashion-MNIST from IDX files, gzipped as published or as Debian has them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from empirical.datasets import fashion
from empirical.datasets.registry import load

Arrays = dict[str, np.ndarray]


def idx(array: np.ndarray) -> bytes:
    sizes = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Arrays:
    """A small data set, nowhere on disk yet."""
    rng = np.random.default_rng(0)
    found = {}
    for part, n in (("train", 12), ("t10k", 5)):
        found[f"{part}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        found[f"{part}-labels-idx1-ubyte.gz"] = rng.integers(0, 10, n, dtype=np.uint8)
    monkeypatch.setattr(fashion, "COUNTS", (12, 5))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "none")
    return found


def write(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(gzip.compress(idx(array)))


@pytest.fixture
def published(
    arrays: Arrays, tmp_path: Path, md5: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder in which torchvision would have the files."""
    folder = tmp_path / "FashionMNIST" / "raw"
    write(folder, arrays)
    sums = [(name, md5(folder / name)) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["file:///nowhere/", f"{folder.as_uri()}/"])
    return folder


def check(root: Path, arrays: Arrays, download: bool = False) -> None:
    images = load("fashion-mnist", root, download)
    for part, found in (("train", images.train), ("t10k", images.test)):
        pixels, labels = (
            arrays[f"{part}-{kind}-ubyte.gz"] for kind in ("images-idx3", "labels-idx1")
        )
        assert np.array_equal(found.pixels.numpy(), pixels[:, None])
        assert np.array_equal(found.labels.numpy(), labels)
    assert images.classes[9] == "Ankle boot"


def test_the_published_files_there_or_downloaded_from_the_second_mirror(
    published: Path, arrays: Arrays, tmp_path: Path
) -> None:
    check(tmp_path, arrays)
    check(tmp_path / "other", arrays, download=True)


def test_the_files_of_debian(
    arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    folder = tmp_path / "debian"
    write(folder, arrays)
    monkeypatch.setattr(fashion, "DEBIAN", folder)
    sums = {
        name: hashlib.md5(idx(array), usedforsecurity=False).hexdigest()
        for name, array in arrays.items()
    }
    monkeypatch.setattr(fashion, "CONTENT_MD5", sums)
    check(tmp_path / "root", arrays)
    name = "t10k-labels-idx1-ubyte.gz"
    monkeypatch.setitem(sums, name, "0" * 32)
    assert f"{folder / name}: must be of the content" in refusal("fashion-mnist", tmp_path)


@pytest.mark.parametrize("number", range(4))
def test_another_md5_is_refused(
    published: Path, tmp_path: Path, refusal: Callable[..., str], number: int
) -> None:
    path = published / FashionMNIST.resources[number][0]
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal("fashion-mnist", tmp_path)
    assert f"{path}: must be the published one (md5 " in said
    assert path.exists()


@pytest.mark.parametrize(
    "damage", [b"\0\0\x09\x01\0\0\0\x01a", b"\0\0", b"\0\0\x08\x01\0\0\0\x05abc"]
)
def test_other_content_is_refused(
    published: Path,
    tmp_path: Path,
    md5: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
    damage: bytes,
) -> None:
    name = FashionMNIST.resources[0][0]
    (published / name).write_bytes(gzip.compress(damage))
    sums = [(name, md5(published / name)), *FashionMNIST.resources[1:]]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    assert "must be an IDX file" in refusal("fashion-mnist", tmp_path)


def test_all_four_files_are_asked_for(
    arrays: Arrays, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    said = refusal("fashion-mnist", tmp_path, download=False)
    assert said.startswith("dataset = fashion-mnist: must be on disk: either allow the download")
    assert all(f"{name} (md5 {md5})" in said for name, md5 in FashionMNIST.resources)
    assert said.endswith(f"into {tmp_path / 'FashionMNIST' / 'raw'}")
