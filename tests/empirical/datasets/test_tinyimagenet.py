"""TinyImageNet from its official layout, packed and unpacked."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from empirical.datasets import memory, tinyimagenet
from empirical.datasets.registry import load

WNIDS = ("n02124075", "n01443537", "n03444034")
"""In the order of wnids.txt, which is not sorted."""
SORTED = tuple(sorted(WNIDS))


@pytest.fixture
def archive(
    tmp_path: Path,
    write_image: Callable[..., Path],
    md5: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A zip with the official layout: 3 classes, 11 training images each, 4 validation images.

    The grey level of a training image is 60 × label + 5 × number.
    """
    tree = tmp_path / "made" / "tiny-imagenet-200"
    for label, wnid in enumerate(SORTED):
        boxes = ""
        for number in range(11):
            level = 60 * label + 5 * number
            # one in three is grey, as in the original
            colour = level if number % 3 == 0 else (level,) * 3
            write_image(tree / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", colour)
            boxes += f"{wnid}_{number}.JPEG\t0\t0\t63\t63\n"
        (tree / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    lines = ""
    for number, wnid in enumerate((*WNIDS, WNIDS[0])):
        write_image(tree / "val" / "images" / f"val_{number}.JPEG", (200, 40, 40))
        lines += f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t61\n"
    (tree / "val" / "val_annotations.txt").write_text(lines)
    write_image(tree / "test" / "images" / "test_0.JPEG", 0)
    (tree / "wnids.txt").write_text("\n".join(WNIDS))
    words = {
        "n01443537": "goldfish, Carassius auratus",
        "n02124075": "Egyptian cat",
        "n1": "entity",
    }
    (tree / "words.txt").write_text("".join(f"{key}\t{word}\n" for key, word in words.items()))

    path = tmp_path / "made" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(tree.rglob("*")):
            packed.write(file, file.relative_to(tree.parent))
    shutil.rmtree(tree)
    published = replace(tinyimagenet.ARCHIVE, urls=(path.as_uri(),), md5=md5(path))
    monkeypatch.setattr(tinyimagenet, "ARCHIVE", published)
    monkeypatch.setattr(tinyimagenet, "COUNTS", (33, 4))
    return path


def test_images_labels_and_names(archive: Path, tmp_path: Path) -> None:
    images = load("tinyimagenet", tmp_path / "root")
    assert images.train.pixels.shape == (33, 3, 64, 64)
    assert images.train.labels.tolist() == [0] * 11 + [1] * 11 + [2] * 11
    # number 10 comes after number 9, grey images have three channels
    levels = torch.tensor([60 * label + 5 * n for label in range(3) for n in range(11)])
    assert (images.train.pixels - levels[:, None, None, None]).abs().max() <= 2
    assert images.test.labels.tolist() == [SORTED.index(wnid) for wnid in (*WNIDS, WNIDS[0])]
    assert images.test.pixels[0, :, 0, 0].tolist() == pytest.approx([200, 40, 40], abs=3)
    assert images.classes == ("goldfish, Carassius auratus", "Egyptian cat", "n03444034")


def test_the_second_load_needs_the_cache_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    first = load("tinyimagenet", root)
    shutil.rmtree(root / "tiny-imagenet-200")
    (root / "tiny-imagenet-200.zip").unlink()
    for free in (memory.available(), 1):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        again = load("tinyimagenet", root, download=False)
        assert torch.equal(again.train.pixels, first.train.pixels)
        assert torch.equal(again.test.labels, first.test.labels)
        assert (again.classes, again.mean, again.std) == (first.classes, first.mean, first.std)


def test_a_killed_first_load_leaves_nothing_half_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"

    def killed(*values: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tinyimagenet, "decode", killed)
        with pytest.raises(KeyboardInterrupt):
            load("tinyimagenet", root)
    assert [path for path in (root / "cache").iterdir() if path.suffix != ".lock"] == []
    # and what a kill without a clean-up leaves is thrown away
    left = root / "tiny-imagenet-200.part"
    shutil.move(root / "tiny-imagenet-200", left)
    assert len(load("tinyimagenet", root, download=False).train.labels) == 33
    assert not left.exists()


def test_a_truncated_zip_is_refused(archive: Path, refusal: Callable[..., str]) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    said = refusal("tinyimagenet", archive.parent, download=False)
    assert said.startswith(f"{archive}: must be the published one (md5 ")
    files = [path for path in archive.parent.rglob("*") if path.suffix not in (".lock", "")]
    assert files == [archive]


def test_an_unreadable_image_or_a_missing_one_is_named(
    archive: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    root = tmp_path / "root"
    load("tinyimagenet", root)
    shutil.rmtree(root / "cache")
    image = root / "tiny-imagenet-200" / "val" / "images" / "val_2.JPEG"
    image.write_bytes(image.read_bytes()[:300])
    assert f"{image}: must be a whole image file" in refusal("tinyimagenet", root)
    image.unlink()
    with pytest.raises(FileNotFoundError, match="val_2"):
        load("tinyimagenet", root)
    (root / "tiny-imagenet-200" / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_3.JPEG").unlink()
    assert "33 images where 32 are" in refusal("tinyimagenet", root)


@pytest.mark.parametrize(
    "line", ["../../wnids.txt\tn01443537\t0", "val_0.JPEG\tn9\t0", "val_0.JPEG"]
)
def test_annotations_of_other_files_or_classes_are_refused(
    archive: Path, tmp_path: Path, refusal: Callable[..., str], line: str
) -> None:
    root = tmp_path / "root"
    load("tinyimagenet", root)
    shutil.rmtree(root / "cache")
    table = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    table.write_text(line)
    assert refusal("tinyimagenet", root).startswith(f"{table}: must be of lines")


def test_it_is_asked_for(tmp_path: Path, refusal: Callable[..., str]) -> None:
    said = refusal("tinyimagenet", tmp_path, download=False)
    assert tinyimagenet.ARCHIVE.urls[0] in said
    assert "90528d7ca1a48142e341f4ef8d21d0de" in said
