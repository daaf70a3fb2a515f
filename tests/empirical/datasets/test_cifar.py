"""CIFAR files exactly as published: pickles of Python 2, which are only opened with their MD5."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from empirical.datasets import cifar
from empirical.datasets.registry import load

N_BATCH = 4


def pickled(value: object) -> bytes:
    """The operations with which Python 2 and its numpy pickled such a value, protocol 2."""
    if isinstance(value, dict):
        items = b"".join(pickled(part) for pair in value.items() for part in pair)
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + pickled("b")
        dtype = b"cnumpy\ndtype\n" + pickled("u1") + b"K\0K\x01\x87R(K\x03" + pickled("|")
        dtype += b"NNN" + pickled(-1) * 2 + b"K\0tb"
        shape = b"".join(map(pickled, value.shape)) + b"\x86"
        return empty + b"\x87R(K\x01" + shape + dtype + b"\x89" + pickled(value.tobytes()) + b"tb"
    raw = value.encode() if isinstance(value, str) else value
    assert isinstance(raw, bytes)
    if len(raw) < 256:
        return b"U" + bytes([len(raw)]) + raw
    return b"T" + struct.pack("<i", len(raw)) + raw


def batch(rng: np.random.Generator, n: int, labels: dict[str, int]) -> dict[str, object]:
    """n random images, and labels of so many classes under each key."""
    return {
        "data": rng.integers(0, 256, size=(n, 3072), dtype=np.uint8),
        **{key: rng.integers(0, most, size=n).tolist() for key, most in labels.items()},
        "batch_label": "training batch",
        "filenames": [f"image_{number}.png" for number in range(n)],
    }


Written = dict[str, dict[str, object]]


def write(folder: Path, files: Written) -> None:
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_bytes(b"\x80\x02" + pickled(value) + b".")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def cifar10(
    tmp_path: Path,
    rng: np.random.Generator,
    md5: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Written:
    """Small CIFAR-10 files in tmp_path, whose MD5 are taken for the published ones."""
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files: Written = {name: batch(rng, N_BATCH, {"labels": 10}) for name in names}
    words = [f"animal {number}" for number in range(10)]
    meta = {"num_cases_per_batch": N_BATCH, "label_names": words, "num_vis": 3072}
    folder = tmp_path / "cifar-10-batches-py"
    write(folder, files | {"batches.meta": meta})
    sums = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    monkeypatch.setattr(cifar, "COUNTS", (5 * N_BATCH, N_BATCH))
    return files


@pytest.fixture
def archive(
    cifar10: Written, tmp_path: Path, md5: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The same files as the published archive, in a folder apart."""
    path = tmp_path / "elsewhere" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(path))
    monkeypatch.setattr(CIFAR10, "url", path.as_uri())
    return path


def test_cifar10(cifar10: Written, tmp_path: Path) -> None:
    images = load("cifar10", tmp_path, download=False)
    parts = [cifar10[f"data_batch_{number}"] for number in range(1, 6)]
    data = np.concatenate([np.asarray(part["data"]) for part in parts])
    assert np.array_equal(images.train.pixels.numpy(), data.reshape(-1, 3, 32, 32))
    assert images.train.labels.tolist() == [
        label for part in parts for label in list(part["labels"])
    ]
    assert images.test.labels.tolist() == cifar10["test_batch"]["labels"]
    assert images.train.pixels.dtype == torch.uint8
    assert images.train.labels.dtype == torch.int64
    assert images.classes[3] == "animal 3"
    assert images.flips
    assert images.mean == pytest.approx(data.reshape(-1, 3, 1024).mean(axis=(0, 2)) / 255)
    assert images.std == pytest.approx(data.reshape(-1, 3, 1024).std(axis=(0, 2)) / 255)


def test_cifar100_has_its_fine_labels(
    tmp_path: Path,
    rng: np.random.Generator,
    md5: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = {"fine_labels": 100, "coarse_labels": 20}
    files: Written = {"train": batch(rng, 6, labels), "test": batch(rng, 3, labels)}
    words = {"fine_label_names": [f"fine {n}" for n in range(100)], "coarse_label_names": ["x"]}
    folder = tmp_path / "cifar-100-python"
    write(folder, files | {"meta": words})
    for name in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{name}_list", [[name, md5(folder / name)]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5(folder / "meta")})
    monkeypatch.setattr(cifar, "COUNTS", (6, 3))
    images = load("cifar100", tmp_path, download=False)
    assert images.train.labels.tolist() == files["train"]["fine_labels"]
    test = np.asarray(files["test"]["data"]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images.test.pixels.numpy(), test)
    assert images.classes[99] == "fine 99"


@pytest.mark.parametrize("name", ["data_batch_5", "test_batch", "batches.meta"])
def test_a_pickle_with_another_md5_is_not_run(
    cifar10: Written, tmp_path: Path, refusal: Callable[..., str], name: str
) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / "cifar-10-batches-py" / name
    path.write_bytes(f"cos\nmkdir\n(V{ran}\ntR.".encode())
    said = refusal("cifar10", tmp_path)
    assert f"{path}: must be the published one (md5 " in said
    assert not ran.exists()


def test_a_missing_file_is_named(
    cifar10: Written, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.unlink()
    assert f"{path}: must be present" in refusal("cifar10", tmp_path)


def test_an_archive_is_downloaded_and_unpacked_or_put_there_by_hand(
    archive: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    first = load("cifar10", tmp_path, download=False)
    there = load("cifar10", tmp_path / "downloaded", download=True)
    by_hand = load("cifar10", archive.parent, download=False)
    for images in (there, by_hand):
        assert torch.equal(images.train.pixels, first.train.pixels)
        assert torch.equal(images.test.labels, first.test.labels)
    said = refusal("cifar10", tmp_path / "nothing", download=False)
    assert said.startswith("dataset = cifar10: must be on disk: either allow the download")
    assert CIFAR10.url in said


def test_a_damaged_archive_is_named_and_left_alone(
    archive: Path, refusal: Callable[..., str]
) -> None:
    archive.write_bytes(archive.read_bytes()[:-10])
    said = refusal("cifar10", archive.parent)
    assert f"{archive}: must be the published one" in said
    assert archive.exists()
    assert not (archive.parent / "cifar-10-batches-py").exists()


def test_a_download_that_comes_damaged_leaves_nothing(
    archive: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    archive.write_bytes(archive.read_bytes()[:-10])
    root = tmp_path / "root"
    said = refusal("cifar10", root)
    assert "must be on disk (downloading failed: " in said
    assert [path.name for path in root.iterdir() if not path.name.endswith(".lock")] == []
