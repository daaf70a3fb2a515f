"""One shard: a Parquet file of PNG images with their metadata, which says itself what it must hold.

Its schema has what `datasets` needs to show images and class names, the digest of the store and
that of its rows; each row has the SHA-256 of its PNG file. Nothing is compressed but the PNG files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from common.errors import DamagedFileError, ParameterError, require
from common.files import digest, whole_file
from empirical.storage.request import ImageSpec, Key, Request, describe

REMEDY = "repair the store to make it again"
FEATURES, STORE, ROWS = b"huggingface", b"store", b"rows"
_KINDS = {
    **{"label": pa.int64(), "class": pa.string(), "source": pa.int64(), "copy": pa.int64()},
    **{"strength": pa.float64(), "steps": pa.int64(), "seed": pa.int64()},
    **{"backend": pa.string(), "model": pa.string(), "sha256": pa.string()},
}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema([("image", _IMAGE), *_KINDS.items()])
_DISTINCT = ("source", "sha256")


@dataclass(frozen=True)
class Found:
    """A shard as it was read and checked. sha256, bytes: of the file; encoded: PNG files."""

    path: Path
    images: tuple[ImageSpec, ...]
    encoded: Sequence[bytes]
    sha256: str
    bytes: int

    def about(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "images": len(self.images), "sha256": self.sha256}


def encode(pixels: Tensor) -> bytes:
    """A PNG file of uint8 (C, H, W), C 1 or 3."""
    array = pixels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, format="png")
    return buffer.getvalue()


def decode(raw: bytes) -> np.ndarray:
    """uint8 (C, H, W) of a PNG file."""
    array = np.asarray(Image.open(io.BytesIO(raw)))
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)


def write_shard(
    path: Path, request: Request, images: Sequence[ImageSpec], encoded: Sequence[bytes]
) -> dict[str, Any]:
    """Write a shard whole or not at all; returns what the manifest says of it.

    Raises:
        OSError: it cannot be written; names the file.
    """
    rows = {
        "label": [wanted.label for wanted in images],
        "class": [request.classes[wanted.label] for wanted in images],
        "source": [wanted.source for wanted in images],
        "copy": [wanted.copy for wanted in images],
        "strength": [float(wanted.strength) for wanted in images],
        "steps": [wanted.steps for wanted in images],
        "seed": [request.seed] * len(images),
        "backend": [request.backend] * len(images),
        "model": [request.model] * len(images),
        "sha256": [hashlib.sha256(raw).hexdigest() for raw in encoded],
    }
    pictures = [
        {"bytes": raw, "path": f"{wanted.source:06d}-{wanted.copy}-{wanted.strength:g}.png"}
        for wanted, raw in zip(images, encoded, strict=True)
    ]
    features = json.dumps({"info": {"features": _features(request)}})
    store = digest(request.identity())
    metadata = {FEATURES: features, STORE: store, ROWS: digest([store, features, rows])}
    dictionary: Any = [name for name in _KINDS if name not in _DISTINCT]  # the stubs want a bool
    sink = io.BytesIO()  # so that a full disk is Python's own error, with its number
    columns = [pa.array(pictures, _IMAGE)]
    columns += [pa.array(rows[name], kind) for name, kind in _KINDS.items()]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata)),
        sink,
        compression="none",
        use_dictionary=dictionary,
        row_group_size=len(images),
    )
    raw = sink.getvalue()
    try:
        with whole_file(path) as part:
            part.write_bytes(raw)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return Found(path, tuple(images), encoded, hashlib.sha256(raw).hexdigest(), len(raw)).about()


def _features(request: Request) -> dict[str, Any]:
    """The columns as `datasets` names their types."""
    kinds = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _KINDS.items()}
    kinds["strength"]["dtype"] = "float64"  # which Arrow calls double
    label = {"names": list(request.classes), "_type": "ClassLabel"}
    return {"image": {"_type": "Image"}, **kinds, "label": label}


def read_shard(path: Path, store: str, about: dict[str, Any] | None = None) -> Found:
    """Read a shard and check everything in it, but decode no image.

    store: digest of the identity of the store; about: what the manifest says of this shard.

    Raises:
        DamagedFileError: it is missing, cut short or changed; a changed image is named.
        ParameterError: it is of another store.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedFileError("synthetic", path, f"there; {REMEDY}") from error
    try:
        # not threaded: damaged files come here, and processes that fork
        table = pq.ParquetFile(io.BytesIO(raw)).read(use_threads=False)
        if not table.schema.equals(_SCHEMA):
            raise ValueError("other columns")
        metadata = {name: text.decode() for name, text in (table.schema.metadata or {}).items()}
        rows: dict[str, list[Any]] = {name: table[name].to_pylist() for name in _KINDS}
        encoded = [picture["bytes"] for picture in table["image"].to_pylist()]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError("synthetic", path, f"a whole shard; {REMEDY}") from error
    names = zip(rows["source"], rows["copy"], rows["strength"], strict=True)
    for number, (key, png, sha256) in enumerate(zip(names, encoded, rows["sha256"], strict=True)):
        if hashlib.sha256(png or b"").hexdigest() != sha256:
            what = f"the {describe(Key(*key))} (row {number}), which has changed"
            raise DamagedFileError(
                "synthetic", path, f"as it was written, but for {what}; {REMEDY}"
            )
    sha256 = hashlib.sha256(raw).hexdigest()
    same = about is None or about["sha256"] == sha256
    made_as = digest([metadata.get(STORE), metadata.get(FEATURES), rows])
    if made_as != metadata.get(ROWS) or not same:
        what = "its metadata, which have changed"
        raise DamagedFileError("synthetic", path, f"as it was written, but for {what}; {REMEDY}")
    ours = metadata.get(STORE) == store
    require(ours, "synthetic", path, "a shard of this store; it is of another one")
    columns = (rows[name] for name in ImageSpec._fields)
    images = tuple(ImageSpec(*values) for values in zip(*columns, strict=True))
    return Found(path, images, encoded, sha256, len(raw))


def pixels_of(
    found: Found, shape: tuple[int, int, int], kept: Callable[[ImageSpec], bool]
) -> tuple[list[ImageSpec], Tensor]:
    """The images of a shard that are `kept`, decoded: uint8 (n, *shape).

    Raises:
        ParameterError: one is no image of this shape.
    """
    pairs = zip(found.images, found.encoded, strict=True)
    rows = [(wanted, raw) for wanted, raw in pairs if kept(wanted)]
    pixels = np.empty((len(rows), *shape), dtype=np.uint8)
    for number, (wanted, raw) in enumerate(rows):
        try:
            image = decode(raw)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            allowed = f"a shard of PNG files ({describe(wanted)} is none)"
            raise ParameterError("synthetic", found.path, allowed) from error
        fits = image.shape == shape and image.dtype == np.uint8
        allowed = f"a shard of images {shape} ({describe(wanted)} is {image.shape})"
        require(fits, "synthetic", found.path, allowed)
        pixels[number] = image
    return [wanted for wanted, _ in rows], torch.from_numpy(pixels)
