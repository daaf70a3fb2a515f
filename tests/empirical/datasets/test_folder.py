"""Folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from empirical.datasets.registry import load


@pytest.fixture
def folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """bird: 10 images, grey levels 0 to 9; cat: 5 images, 100 to 104; of several formats."""
    path = tmp_path / "images"
    kinds = ("png", "bmp", "PNG", "tiff")
    for name, first, n in (("bird", 0, 10), ("cat", 100, 5)):
        for number in range(n):
            file = path / name / f"{number}.{kinds[number % 4]}"
            write_image(file, (first + number,) * 3, side=10 + number)
    (path / "bird" / "notes.txt").write_text("no image")
    (path / ".hidden").mkdir()
    return path


def test_a_folder_without_parts_is_cut_in_each_class(folder: Path, tmp_path: Path) -> None:
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert images.classes == ("bird", "cat")
    assert images.train.labels.bincount().tolist() == [8, 4]
    assert images.test.labels.bincount().tolist() == [2, 1]
    assert images.train.pixels.shape == (12, 3, 8, 8)
    levels = torch.cat([images.train.pixels, images.test.pixels])
    assert (levels == levels[:, :1, :1, :1]).all()
    assert sorted(levels[:, 0, 0, 0].tolist()) == [*range(10), *range(100, 105)]
    again = load(f"folder:{folder}", tmp_path / "elsewhere", side=8)
    assert torch.equal(again.test.pixels, images.test.pixels)


def test_a_folder_with_parts(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = tmp_path / "images"
    for part, name, level in (("train", "a", 1), ("train", "b", 2), ("test", "b", 3)):
        write_image(path / part / name / "one.png", level)
    images = load(f"folder:{path}", tmp_path, side=4, flips=False)
    assert images.train.labels.tolist() == [0, 1]
    assert images.test.labels.tolist() == [1]
    assert images.test.pixels.unique().tolist() == [3]
    assert not images.flips


def test_a_changed_folder_is_read_anew(
    folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    load(f"folder:{folder}", tmp_path, side=8)
    write_image(folder / "cat" / "5.png", 105)
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert len(images.train.labels) + len(images.test.labels) == 16


def test_pictures_are_turned_cut_and_brought_to_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "images"
    (path / "a").mkdir(parents=True)
    # 4 x 8 pixels, left half dark; a camera held sideways says: turn me by 90 degrees
    wide = np.zeros((4, 8, 3), dtype=np.uint8)
    wide[:, 4:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(path / "a" / "0.png", exif=exif)
    Image.fromarray(np.full((4, 4), 51 * 257, dtype=np.uint16)).save(path / "a" / "1.png")
    images = load(f"folder:{path}", tmp_path, side=4)
    both = torch.cat([images.train.pixels, images.test.pixels])
    turned, grey = sorted(both, key=lambda image: float(image.float().std()), reverse=True)
    assert turned[0].tolist() == [[0] * 4] * 2 + [[200] * 4] * 2
    assert grey.unique().tolist() == [51]


def test_an_unreadable_image_is_named(
    folder: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    for raw in (b"", b"no image", (folder / "cat" / "1.bmp").read_bytes()[:100]):
        (folder / "cat" / "1.bmp").write_bytes(raw)
        said = refusal(f"folder:{folder}", tmp_path)
        assert said.startswith(f"image = {folder / 'cat' / '1.bmp'}: must be a whole image file (")


def test_what_a_folder_lacks_is_said(
    tmp_path: Path, refusal: Callable[..., str], write_image: Callable[..., Path]
) -> None:
    path = tmp_path / "images"
    assert "must be a folder that is there" in refusal(f"folder:{path}", tmp_path)
    path.mkdir()
    assert "must be a folder with one folder of images" in refusal(f"folder:{path}", tmp_path)
    write_image(path / "a" / "0.png", 0)
    assert "must be one with at least 2 images" in refusal(f"folder:{path}", tmp_path)
    (path / "b").mkdir()
    assert f"folder = {path / 'b'}: must be one with images" in refusal(f"folder:{path}", tmp_path)
    write_image(path / "train" / "a" / "0.png", 0)
    write_image(path / "test" / "c" / "0.png", 0)
    assert "must be of classes of train, unlike ['c']" in refusal(f"folder:{path}", tmp_path)
    assert "side = 0: must be" in refusal(f"folder:{path}", tmp_path, side=0)
