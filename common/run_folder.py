"""The folder of a run: begun with settings that stay, resumed with the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import require
from common.files import read_json, write_json

DIVERGED = "diverged.json"
"""Settings of a run whose training diverged, in place of settings.json."""


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
    """Let `out`, in which a training diverged, be resumed with other settings.

    Its settings become diverged.json, with the message; what is finished stays.
    """
    path = out / "settings.json"
    if path.exists():
        write_json(out / DIVERGED, read_json(path, "settings") | {"diverged": message})
        path.unlink()
