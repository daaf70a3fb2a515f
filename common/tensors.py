"""Named tensors in safetensors files: whole or absent, and never pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.errors import DamagedFileError
from common.files import whole_file


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. One metadata key at most keeps the bytes reproducible."""
    with whole_file(path) as part:
        # Not save_file: it turns a full disk or a read-only folder into an error of its own.
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        part.write_bytes(save(contiguous, metadata or {"format": "pt"}))


def read_tensors(
    path: Path, what: str, like: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file that must hold the names and shapes of `like`, and its metadata.

    Raises:
        DamagedFileError: the file is cut short, is not safetensors, or holds other tensors.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise DamagedFileError(what, path, f"a whole safetensors file ({error})") from error
    for name in sorted(set(like) | set(found)):
        if name not in found or name not in like or found[name].shape != like[name].shape:
            raise DamagedFileError(what, path, f"a file of this network (differs at {name!r})")
    return found, metadata
