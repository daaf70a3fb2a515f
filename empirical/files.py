"""Files that are whole or absent: written under a temporary name, renamed when finished.

A file that cannot be used (cut short, or not ours) raises `ParameterError` with its path,
so that a command ends with one line that names it; the file itself is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from theory.files import read_json, whole_file, write_json
from theory.parameters import ParameterError, require

DIVERGED = "diverged.json"
"""Settings of a run whose training diverged, in place of settings.json."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; rename it to `path` when the block succeeds.

    What an earlier, killed attempt left under the temporary name is thrown away.
    """
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        ParameterError: the file is cut short, is not safetensors, or holds other tensors.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ParameterError(what, path, f"a whole safetensors file ({error})") from error
    for name in sorted(set(like) | set(found)):
        if name not in found or name not in like or found[name].shape != like[name].shape:
            raise ParameterError(what, path, f"a file of this network (differs at {name!r})")
    return found, metadata


def open_folder(out: Path, record: dict[str, Any], stages: tuple[str, ...]) -> None:
    """Make `out` the folder of the run with these settings, or check that it is.

    Raises:
        ParameterError: `out` was begun with other settings (the first that differs is named), or
            holds files of a run but no settings.
        OSError: it cannot be written.
    """
    path, diverged = out / "settings.json", out / DIVERGED
    if path.exists():
        found = read_json(path, "settings")
        for name in sorted(set(record) | set(found)):
            require(
                name in record and name in found and record[name] == found[name],
                name,
                record.get(name),
                f"{found.get(name)} as in {path}, or another --out",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    for stage in () if diverged.exists() else stages:
        require(
            not (out / stage).exists(),
            "out",
            out,
            f"a new folder or one with settings.json (it holds {stage} of another run)",
        )
    write_json(path, record)
    diverged.unlink(missing_ok=True)


def release_folder(out: Path, message: str) -> None:
    """Let `out`, in which a training diverged, be gone on with under other settings.

    Its settings become diverged.json, with the message; what is finished stays.
    """
    path = out / "settings.json"
    if path.exists():
        write_json(out / DIVERGED, read_json(path, "settings") | {"diverged": message})
        path.unlink()
