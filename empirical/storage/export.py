"""Real and synthetic images in forms that other tools read: folders, tar shards, Parquet.

imagefolder: PATH/SPLIT/CLASS/NAME.png, for torchvision, timm and this project; webdataset:
PATH/SPLIT-000000.tar with NAME.png, NAME.cls and NAME.json; huggingface: PATH/data/SPLIT.parquet,
for `load_dataset(PATH)`. Names of real images are their files'; synthetic ones say what they are.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from common.errors import near, require
from common.files import whole_file, whole_folder
from empirical.datasets.base import Images
from empirical.storage.shards import encode

FORMATS = ("imagefolder", "webdataset", "huggingface")
SHARD_IMAGES = 10_000


@dataclass(frozen=True, eq=False)
class Example:
    """An image as it is exported. pixels: uint8 (C, H, W); copy: 0 for the real image."""

    name: str
    pixels: Tensor
    label: int
    source: int
    copy: int

    @property
    def synthetic(self) -> bool:
        """Whether a generator made it."""
        return self.copy > 0


def real(images: Images, rows: Sequence[int], files: Sequence[str] | None) -> Iterator[Example]:
    """Some real images, by the names of their files where they have any."""
    for row in rows:
        name = f"{row:06d}" if files is None else _plain(files[row])
        yield Example(name, images.pixels[row], int(images.labels[row]), row, 0)


def synthetic(images: Images, made: Mapping[tuple[int, int], Tensor]) -> Iterator[Example]:
    """Synthetic images by (source, copy)."""
    for (source, copy), pixels in made.items():
        name = f"synthetic-{source:06d}-{copy}"
        yield Example(name, pixels, int(images.labels[source]), source, copy)


def export(
    kind: str, path: Path, classes: Sequence[str], splits: Mapping[str, Iterable[Example]]
) -> Path:
    """Write the examples of each split under `path`, whole or not at all; returns `path`.

    Raises:
        ParameterError: another format, or `path` is there already.
        OSError: it cannot be written.
    """
    check(kind, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = {"imagefolder": _folders, "webdataset": _tars, "huggingface": _parquet}[kind]
    with whole_folder(path) as part:
        for split, examples in splits.items():
            write(part, split, _once(examples), classes)
    return path


def check(kind: str, path: Path) -> None:
    """Raise ParameterError for another format, or a path that is there already."""
    require(kind in FORMATS, "to", kind, " or ".join(FORMATS) + near(kind, FORMATS))
    require(not path.exists(), "out", path, "a new folder")


def _once(examples: Iterable[Example]) -> Iterator[Example]:
    """The examples with a number after a name that was there before, as of upsampled images."""
    used: set[tuple[str, int]] = set()
    for own in examples:
        numbered = (f"{own.name}-{number}" for number in itertools.count(1))
        names = itertools.chain([own.name], numbered)
        name = next(name for name in names if (name, own.label) not in used)
        used.add((name, own.label))
        yield Example(name, own.pixels, own.label, own.source, own.copy)


def _plain(file: str) -> str:
    """A file's name without folders and ending: those of other folders keep theirs in it."""
    stem = file.rsplit(".", 1)[0] if "." in file.rsplit("/", 1)[-1] else file
    parts = stem.split("/")
    return re.sub(r"[^\w-]", "_", parts[-1])  # no point: the first one ends a key of webdataset


def class_folders(classes: Sequence[str]) -> list[str]:
    """Names of folders for the classes: what no folder can be called is replaced.

    Raises:
        ParameterError: two classes would then share a folder.
    """
    names = [re.sub(r"[/\\:\0]", "_", name) or "_" for name in classes]
    apart = len(set(names)) == len(names)
    require(apart, "classes", ", ".join(classes), "names that make a folder each")
    return names


def _folders(path: Path, split: str, examples: Iterator[Example], classes: Sequence[str]) -> None:
    names = class_folders(classes)
    for name in names:
        (path / split / name).mkdir(parents=True, exist_ok=True)
    for own in examples:
        (path / split / names[own.label] / f"{own.name}.png").write_bytes(encode(own.pixels))


def _tars(path: Path, split: str, examples: Iterator[Example], classes: Sequence[str]) -> None:
    number, tar = 0, None
    for count, own in enumerate(examples):
        if count % SHARD_IMAGES == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(path / f"{split}-{number:06d}.tar", "w")  # noqa: SIM115
            number += 1
        assert tar is not None
        about = {
            "class": classes[own.label],
            "source": own.source,
            "copy": own.copy,
            "synthetic": own.synthetic,
        }
        key = f"{own.label:04d}-{own.name}"
        for ending, raw in (
            ("png", encode(own.pixels)),
            ("cls", str(own.label).encode()),
            ("json", json.dumps(about).encode()),
        ):
            info = tarfile.TarInfo(f"{key}.{ending}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    if tar is not None:
        tar.close()


def _parquet(path: Path, split: str, examples: Iterator[Example], classes: Sequence[str]) -> None:
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
        "file": {"dtype": "string", "_type": "Value"},
        "synthetic": {"dtype": "bool", "_type": "Value"},
        "source": {"dtype": "int64", "_type": "Value"},
        "copy": {"dtype": "int64", "_type": "Value"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [
            ("image", image),
            *(("label", pa.int64()), ("file", pa.string()), ("synthetic", pa.bool_())),
            *(("source", pa.int64()), ("copy", pa.int64())),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    (path / "data").mkdir(exist_ok=True)
    with (
        whole_file(path / "data" / f"{split}.parquet") as part,
        pq.ParquetWriter(part, schema, compression="none") as writer,
    ):
        block: list[dict[str, Any]] = []
        for own in examples:
            png = {"bytes": encode(own.pixels), "path": f"{own.name}.png"}
            block.append(
                {"image": png, "label": own.label, "file": own.name, "synthetic": own.synthetic}
                | {"source": own.source, "copy": own.copy}
            )
            if len(block) == 1000:
                writer.write_table(pa.Table.from_pylist(block, schema))
                block = []
        if block:
            writer.write_table(pa.Table.from_pylist(block, schema))
