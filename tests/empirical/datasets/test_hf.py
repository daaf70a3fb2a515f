"""Data sets that the datasets library reads: Parquet folders as Hugging Face stores them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from common.errors import ParameterError
from empirical.datasets.registry import load

CLASSES = ("cat", "dog", "eel")


def parquet(
    path: Path,
    labels: Sequence[int],
    image: str = "img",
    label: str = "label",
    more: bool = False,
    first: int = 0,
) -> None:
    """A file of grey images, level first + row, as the hub has them."""

    def png(level: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (6, 4), (level, level, level)).save(buffer, "png")
        return buffer.getvalue()

    features = {image: {"_type": "Image"}, label: {"names": list(CLASSES), "_type": "ClassLabel"}}
    columns = {
        image: [{"bytes": png(first + row), "path": f"{row}.png"} for row in range(len(labels))],
        label: list(labels),
    }
    if more:
        features["fine"] = {"names": list(CLASSES), "_type": "ClassLabel"}
        columns["fine"] = list(labels)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    parquet(tmp_path / "animals" / "data" / "train-00000-of-00001.parquet", [0, 1, 2, 0, 1, 2])
    parquet(tmp_path / "animals" / "data" / "test-00000-of-00001.parquet", [2, 1], first=100)
    return tmp_path / "animals"


def test_a_folder_of_parquet_files(stored: Path, tmp_path: Path) -> None:
    images = load(f"hf:{stored}", tmp_path, side=8)
    assert images.classes == CLASSES
    assert images.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.test.labels.tolist() == [2, 1]
    assert images.train.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert images.test.pixels[:, 2, 7, 7].tolist() == [100, 101]
    assert images.files == (tuple(f"{n}.png" for n in range(6)), ("0.png", "1.png"))
    assert images.flips
    again = load(f"hf:{stored}", tmp_path, side=8)
    assert torch.equal(again.train.pixels, images.train.pixels)


def test_without_a_test_split_it_is_cut_in_the_classes_shares(tmp_path: Path) -> None:
    parquet(tmp_path / "one" / "train.parquet", [n % 3 for n in range(60)])
    images = load(f"hf:{tmp_path / 'one'}", tmp_path, side=4)
    assert images.train.labels.bincount().tolist() == [16, 16, 16]
    assert images.test.labels.bincount().tolist() == [4, 4, 4]
    levels = torch.cat([images.train.pixels, images.test.pixels])[:, 0, 0, 0]
    assert sorted(levels.tolist()) == list(range(60))


def test_a_split_without_labels_is_not_scored(tmp_path: Path) -> None:
    parquet(tmp_path / "one" / "train.parquet", [0, 1, 2])
    parquet(tmp_path / "one" / "test.parquet", [-1, -1], first=50)
    parquet(tmp_path / "one" / "validation.parquet", [1], first=90)
    images = load(f"hf:{tmp_path / 'one'}", tmp_path, side=4)
    assert images.test.pixels[:, 0, 0, 0].tolist() == [90]


def test_columns_are_chosen_where_there_are_several(tmp_path: Path) -> None:
    parquet(tmp_path / "one" / "train.parquet", [0, 1, 2] * 4, more=True)
    name = f"hf:{tmp_path / 'one'}"
    with pytest.raises(ParameterError, match=r"choose by --label-column among \['label', 'fine'\]"):
        load(name, tmp_path, side=4)
    assert load(name, tmp_path, side=4, columns=("img", "fine")).classes == CLASSES
    with pytest.raises(ParameterError, match="label_column = img: must be a column of kind Class"):
        load(name, tmp_path, side=4, columns=(None, "img"))


def test_a_folder_of_images(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for part in ("train", "test"):
        for name, level in (("a", 3), ("b", 9)):
            write_image(tmp_path / "images" / part / name / "one.png", (level,) * 3)
    images = load(f"hf:{tmp_path / 'images'}", tmp_path, side=4)
    assert images.classes == ("a", "b")
    assert images.train.pixels[:, 0, 0, 0].tolist() == [3, 9]


@pytest.mark.parametrize("damage", ["cut", "empty", "none", "no labels"])
def test_what_cannot_be_read_is_one_line(stored: Path, tmp_path: Path, damage: str) -> None:
    path = stored / "data" / "train-00000-of-00001.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "empty":
        (tmp_path / "nothing").mkdir()
        stored = tmp_path / "nothing"
    elif damage == "no labels":
        pq.write_table(pa.table({"a": np.arange(3)}), path)
        (stored / "data" / "test-00000-of-00001.parquet").unlink()
    else:
        stored = tmp_path / "there is none"
    with pytest.raises(ParameterError) as error:
        load(f"hf:{stored}", tmp_path / "root", download=False, side=4)
    assert str(error.value).startswith(f"dataset = hf:{stored}: must be ")
    assert "\n" not in str(error.value)


def test_an_image_that_is_none_is_named(stored: Path, tmp_path: Path) -> None:
    path = stored / "data" / "test-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table["img"].to_pylist()
    rows[1]["bytes"] = b"no image"
    damaged = table.set_column(0, table.schema.field("img"), pa.array(rows, table["img"].type))
    pq.write_table(damaged, path)
    with pytest.raises(ParameterError, match=r"row 1: must be a whole image file"):
        load(f"hf:{stored}", tmp_path / "root", side=4)
