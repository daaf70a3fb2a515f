"""Files that are whole or absent: written under a temporary name, renamed when finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import DamagedFileError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block succeeds."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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


def write_json(path: Path, value: object) -> None:
    """Write a JSON value whole or not at all; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def finite(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinity, which JSON has not; tuples as lists."""
    if isinstance(value, Mapping):
        return {name: finite(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, what: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a JSON object that has at least `keys`.

    Raises:
        DamagedFileError: the file is cut short or is not such an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(what, path, f"a whole JSON file ({error})") from error
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise DamagedFileError(what, path, f"a JSON object with the keys {', '.join(keys)}")
    return value


def digest(value: Any) -> str:
    """Fingerprint of a JSON value: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_writable(path: Path) -> None:
    """Make the folder of `path`; raise OSError now, before long work, if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder, a file name is needed", str(path))
    with tempfile.NamedTemporaryFile(dir=path.parent):
        pass


@contextmanager
def nothing_left(path: Path) -> Iterator[None]:
    """Where the block fails, remove the folders `path` and above that it made and left empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not there, or not empty
            for folder in made:
                folder.rmdir()
        raise
