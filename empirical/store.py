"""The synthetic store: PNG files and metadata.jsonl, which Hugging Face `datasets` reads as is.

`load_dataset("imagefolder", data_dir=folder)`. Written whole or not at all, verified when read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from empirical.files import whole_folder
from theory.parameters import ParameterError, require

METADATA = "metadata.jsonl"

Row = dict[str, Any]


def file_name(source: int, copy: int) -> str:
    return f"{source:05d}_{copy}.png"


def _encode(pixels: Tensor) -> bytes:
    array = pixels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, format="png")
    return buffer.getvalue()


def _decode(raw: bytes) -> Tensor:
    array = np.array(Image.open(io.BytesIO(raw)))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)


def write_store(folder: Path, pixels: Tensor, rows: Sequence[Row]) -> None:
    """Write images (uint8 (n, channels, side, side)) with one row of metadata each.

    A row has at least `source` and `copy`; file_name and sha256 are added.
    """
    with whole_folder(folder) as part:
        lines = []
        for image, row in zip(pixels, rows, strict=True):
            name = file_name(row["source"], row["copy"])
            raw = _encode(image)
            (part / name).write_bytes(raw)
            about = {"file_name": name, **row, "sha256": hashlib.sha256(raw).hexdigest()}
            lines.append(json.dumps(about) + "\n")
        (part / METADATA).write_text("".join(lines), encoding="utf-8")


def read_store(folder: Path, rows: Sequence[Row]) -> Tensor:
    """Read the images of a store that must hold exactly `rows`, in their order: uint8 (n, ...).

    Raises:
        ParameterError: a file is missing, cut short or changed, or the store is another one.
    """
    path = folder / METADATA
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise ParameterError("synthetic", path, "there; remove the folder to make it anew") from (
            error
        )
    except ValueError as error:
        raise ParameterError("synthetic", path, f"whole JSON lines ({error})") from error
    require(
        len(found) == len(rows),
        "synthetic",
        path,
        f"of {len(rows)} images, not {len(found)}; remove the folder to make it anew",
    )
    images = []
    for about, row in zip(found, rows, strict=True):
        name = file_name(row["source"], row["copy"])
        for key, value in {"file_name": name, **row}.items():
            has = about.get(key) if isinstance(about, dict) else None
            require(
                has == value,
                "synthetic",
                path,
                f"a store with {key} = {value} for {name}, not {has}; remove the folder to make "
                "it anew",
            )
        image = folder / name
        try:
            raw = image.read_bytes()
            pixels = _decode(raw)
        except (FileNotFoundError, UnidentifiedImageError, OSError, SyntaxError) as error:
            if isinstance(error, PermissionError):
                raise
            raise ParameterError("synthetic", image, "a whole PNG file of the store") from error
        require(
            hashlib.sha256(raw).hexdigest() == about.get("sha256"),
            "synthetic",
            image,
            f"the file with the SHA-256 in {METADATA}; remove the folder to make it anew",
        )
        images.append(pixels)
    return torch.stack(images)
