"""Folders of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import ParameterError
from empirical.datasets import sizes
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


@pytest.mark.parametrize(
    ("train", "scored"),
    [
        *(("train", "test"), ("train", "val"), ("Train", "Test"), ("TRAIN", "valid")),
        *(("training", "validation"), ("train", "Val"), ("Training", "testing")),
    ],
)
def test_a_folder_with_parts(
    tmp_path: Path, write_image: Callable[..., Path], train: str, scored: str
) -> None:
    path = tmp_path / "images"
    for part, name, level in ((train, "a", 1), (train, "b", 2), (scored, "b", 3)):
        write_image(path / part / name / "one.png", level)
    (path / "notes").mkdir()
    (path / "notes" / "read.me").write_text("no image")
    images = load(f"folder:{path}", tmp_path, side=4, flips=False)
    assert images.classes == ("a", "b")
    assert images.train.labels.tolist() == [0, 1]
    assert images.test.labels.tolist() == [1]
    assert images.test.pixels.unique().tolist() == [3]
    assert not images.flips
    assert sizes.size(f"folder:{path}") == sizes.Size(2, 2, 3, 64)


@pytest.mark.parametrize(
    ("test_file", "level"), [("test/b/two.png", 4), ("test/two.png", 3), ("test/images/two.png", 3)]
)
def test_of_val_and_test_the_one_with_labels_is_scored_and_neither_trained_on(
    tmp_path: Path,
    write_image: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    test_file: str,
    level: int,
) -> None:
    path = tmp_path / "images"
    for file, own in (("train/a", 1), ("train/b", 2), ("val/b", 3)):
        write_image(path / file / "one.png", own)
    write_image(path / test_file, 4)
    images = load(f"folder:{path}", tmp_path, side=4)
    assert images.train.pixels.unique().tolist() == [1, 2]
    assert images.test.pixels.unique().tolist() == [level]
    scored = "test" if level == 4 else "val"
    assert f"scored on {scored}/; the other of test and val is not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "has"),
    [
        (["train/a/0.png", "train/b/0.png"], "train/"),
        (["train/0.png", "train/1.png"], "train/"),
        (["train/0.png", "test/1.png"], ""),
        (["val/a/0.png", "val/b/0.png", "test/a/0.png"], "test/, val/"),
        (["train/a/0.png", "train/b/0.png", "holdout/a/0.png"], "holdout/, train/"),
        (["train/a/0.png", "train/b/0.png", "test/a/0.png", "extra/a/0.png"], "extra/, test/"),
        (["train/a/0.png", "cat/0.png", "dog/0.png"], "cat/, dog/, train/"),
        (["train/a/0.png", "Train/a/0.png", "test/a/0.png"], "Train/, test/, train/"),
        (
            ["train/a/0.png", "train/b/0.png", "val/a/0.png", "valid/a/0.png"],
            "train/, val/, valid/",
        ),
        (["seg_train/a/0.png", "seg_test/a/0.png", "seg_pred/0.png"], "seg_pred/, seg_test/"),
        (["train2017/0.png", "val2017/0.png"], "train2017/, val2017/"),
    ],
)
def test_what_looks_like_splits_and_is_not_understood_is_refused(
    tmp_path: Path,
    write_image: Callable[..., Path],
    refusal: Callable[..., str],
    files: list[str],
    has: str,
) -> None:
    path = tmp_path / "images"
    for file in files:
        write_image(path / file, 0, side=4)
    said = refusal(f"folder:{path}", tmp_path)
    assert "must be one with a folder of images for each class" in said
    assert not has or "or with train/ and one or both of val/ (valid/" in said
    assert has in said
    assert not (tmp_path / "cache").exists()


def test_a_class_may_be_called_train(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = tmp_path / "vehicles"
    for name in ("bus", "car", "train"):
        for number in range(2):
            write_image(path / name / f"{number}.png", 0, side=4)
    assert load(f"folder:{path}", tmp_path, side=4).classes == ("bus", "car", "train")


def test_what_systems_put_into_folders_is_no_image(
    folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for place in (
        *("bird/.ipynb_checkpoints/0-checkpoint.png", "bird/.0.png", "__MACOSX/bird/1.png"),
        *("bird/__MACOSX/1.png", "bird/._0.png", ".ipynb_checkpoints/1.png", "@eaDir/cat/1.jpg"),
        *("bird/@eaDir/1.jpg", "$RECYCLE.BIN/1.png", "cat/.Trash-0/files/1.png"),
    ):
        write_image(folder / place, 255, side=4)
    for place in ("Thumbs.db", "bird/Thumbs.db", "bird/.DS_Store", "desktop.ini"):
        (folder / place).write_bytes(b"no image")
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert images.classes == ("bird", "cat")
    levels = torch.cat([images.train.pixels, images.test.pixels])[:, 0, 0, 0]
    assert sorted(levels.tolist()) == [*range(10), *range(100, 105)]


def test_links_are_followed(folder: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for number in range(3):
        write_image(tmp_path / "more" / "deep" / f"{number}.png", 50 + number, side=4)
        write_image(tmp_path / "dogs" / f"{number}.png", 200 + number, side=4)
    (folder / "bird" / "more").symlink_to(tmp_path / "more")
    (folder / "dog").symlink_to("../dogs")
    (folder / "cat" / "9.png").symlink_to(write_image(tmp_path / "one.png", 99, side=4))
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert images.classes == ("bird", "cat", "dog")
    levels = torch.cat([images.train.pixels, images.test.pixels])[:, 0, 0, 0]
    assert sorted(levels.tolist()) == [
        *(*range(10), *range(50, 53), 99),
        *(*range(100, 105), *range(200, 203)),
    ]


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("bird/loop", ".", "bird/loop: must be a new folder; a link leads back"),
        ("bird/deep/loop", "..", "must be a new folder; a link leads back"),
        ("bird/deep/loop", "../../cat", "must be one with each file once, unlike"),
        ("cat/7.png", "0.png", "must be one with each file once, unlike cat/0.png and cat/7.png"),
        ("dog", "cat", "must be one with each file once, unlike cat/0.png and dog/0.png"),
        ("dog", "nowhere", "dog: must be a link to something that is there"),
        ("cat/7.png", "nowhere.png", "cat/7.png: must be a link to something that is there"),
    ],
)
def test_links_that_lead_nowhere_or_back_are_refused(
    folder: Path,
    tmp_path: Path,
    refusal: Callable[..., str],
    link: str,
    target: str,
    message: str,
) -> None:
    (folder / "bird" / "deep").mkdir()
    (folder / link).symlink_to(target)
    assert message in refusal(f"folder:{folder}", tmp_path)


def test_two_links_that_lead_into_each_other_are_refused(
    folder: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (folder / "bird" / "to").symlink_to(folder / "cat")
    (folder / "cat" / "fro").symlink_to(folder / "bird")
    assert "must be a new folder; a link leads back" in refusal(f"folder:{folder}", tmp_path)


def test_images_outside_of_classes_are_left_out_with_a_word(
    folder: Path, tmp_path: Path, write_image: Callable[..., Path], capsys: Any
) -> None:
    write_image(folder / "preview.png", 77, side=4)
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert len(images.train.labels) + len(images.test.labels) == 15
    assert "left out, in no class's folder: 1 of the images" in capsys.readouterr().err


def test_a_single_class_is_refused(
    tmp_path: Path, write_image: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    path = tmp_path / "images"
    for number in range(5):
        write_image(path / "a" / f"{number}.png", number, side=4)
        write_image(path / "split" / "train" / "a" / f"{number}.png", number, side=4)
        write_image(path / "split" / "val" / "a" / f"{number}.png", number, side=4)
    shutil.move(path / "split", tmp_path / "split")
    message = "must be one with a folder of images for each of two classes or more; it has a/ alone"
    assert message in refusal(f"folder:{path}", tmp_path)
    assert message in refusal(f"folder:{tmp_path / 'split'}", tmp_path)


def test_a_changed_folder_is_read_anew(
    folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    load(f"folder:{folder}", tmp_path, side=8)
    write_image(folder / "cat" / "5.png", 105)
    images = load(f"folder:{folder}", tmp_path, side=8)
    assert len(images.train.labels) + len(images.test.labels) == 16


def test_pictures_are_turned_cut_and_brought_to_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "images"
    for name in "ab":
        (path / name).mkdir(parents=True)
    # 4 x 8 pixels, left half dark; a camera held sideways says: turn me by 90 degrees
    wide = np.zeros((4, 8, 3), dtype=np.uint8)
    wide[:, 4:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(2):
        Image.fromarray(wide).save(path / "a" / f"{number}.png", exif=exif)
        deep = np.full((4, 4), 51 * 257, dtype=np.uint16)
        Image.fromarray(deep).save(path / "b" / f"{number}.png")
    images = load(f"folder:{path}", tmp_path, side=4)
    turned, grey = images.train.pixels
    assert turned[0].tolist() == [[0] * 4] * 2 + [[200] * 4] * 2
    assert grey.unique().tolist() == [51]


def test_an_unreadable_image_is_named(
    folder: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    for raw in (b"", b"no image", (folder / "cat" / "1.bmp").read_bytes()[:100]):
        (folder / "cat" / "1.bmp").write_bytes(raw)
        said = refusal(f"folder:{folder}", tmp_path)
        assert said.startswith(f"{folder / 'cat' / '1.bmp'}: must be a whole image file (")


def test_what_a_folder_lacks_is_said(
    tmp_path: Path, refusal: Callable[..., str], write_image: Callable[..., Path]
) -> None:
    path = tmp_path / "images"
    assert "must be a folder that is there" in refusal(f"folder:{path}", tmp_path)
    path.mkdir()
    assert "must be a folder with one folder of images" in refusal(f"folder:{path}", tmp_path)
    write_image(path / "a" / "0.png", 0)
    write_image(path / "c" / "0.png", 0)
    assert "must be one with at least 2 images" in refusal(f"folder:{path}", tmp_path)
    (path / "b").mkdir()
    assert f"folder = {path / 'b'}: must be one with images" in refusal(f"folder:{path}", tmp_path)
    parts = tmp_path / "parts"
    for place in ("train/a", "train/b", "test/c"):
        write_image(parts / place / "0.png", 0)
    assert "must be of classes of train, unlike ['c']" in refusal(f"folder:{parts}", tmp_path)
    assert "side = 0: must be" in refusal(f"folder:{path}", tmp_path, side=0)


def test_names_of_files_and_of_classes(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text('cat,"a house cat"\n\n')
    images = load(f"folder:{folder}", tmp_path, side=8, class_names=str(names))
    assert images.classes == ("bird", "a house cat")
    assert images.files is not None
    train, test = images.files
    assert len(train) == 12
    assert test[-1].startswith("cat/")
    assert not set(train) & set(test)
    for line, said in (
        ("dog,hound", "class_names = dog"),
        ("cat", "line 1"),
        ("cat,a\ncat,b", "line 2"),
    ):
        names.write_text(line)
        with pytest.raises(ParameterError, match=said):
            load(f"folder:{folder}", tmp_path, side=8, class_names=str(names))


def test_images_that_are_not_square_are_cropped_or_padded(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), dtype=np.uint8)
    wide[:, :2] = 200
    for name in ("a", "b"):
        for number in range(2):
            (tmp_path / "wide" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide + number).save(tmp_path / "wide" / name / f"{number}.png")
    crop, pad = (
        load(f"folder:{tmp_path / 'wide'}", tmp_path, side=8, fit=fit) for fit in ("crop", "pad")
    )
    assert crop.train.pixels[..., 3:].max() <= 2  # the bright border is cut off
    assert pad.train.pixels[0, 0, 4, 0] >= 190
    assert (pad.train.pixels[:, :, 0] == 0).all()  # black above


def test_unreadable_files_are_listed_or_skipped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat/2.PNG", "bird/4.png", "bird/8.png"):
        (folder / name).write_bytes(b"not an image")
    with pytest.raises(ParameterError, match=r"a whole image file .*more (is|are) not, as"):
        load(f"folder:{folder}", tmp_path, side=8)
    images = load(f"folder:{folder}", tmp_path, side=8, skip_unreadable=True)
    assert len(images.train.labels) + len(images.test.labels) == 12
    said = capsys.readouterr().err
    assert said.count("skipped: ") == 3
    assert "bird/4.png" in said
