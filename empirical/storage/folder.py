"""The folder of a store: its files, its lock, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from common.errors import DamagedFileError, ParameterError, require
from common.files import digest, read_json, whole_file, write_json
from empirical.datasets.seen import SEEN
from empirical.storage.request import Request
from empirical.storage.shards import REMEDY

STORE, MANIFEST, CARD, DATA, LOCK = "store.json", "manifest.json", "README.md", "data", ".lock"

About = dict[str, dict[str, Any]]
"""For each shard its bytes, images and SHA-256."""


def lock(folder: Path) -> FileLock:
    """The right to write into a folder; it ends with the process, however that ends.

    Raises:
        ParameterError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / LOCK)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        allowed = "a store that no other process writes; one does now"
        raise ParameterError("synthetic", folder, allowed) from error
    return held


def open_store(folder: Path, request: Request, repair: bool) -> None:
    """Make `folder` a store, or check that it is one for this request; tidy it up.

    Raises:
        ParameterError: it is another one, is damaged, or holds something else.
    """
    shards = folder / DATA
    remains = [folder / f"{name}.part" for name in (STORE, MANIFEST, CARD, SEEN)]
    remains += shards.glob("*.parquet.part")
    for part in remains:
        part.unlink(missing_ok=True)  # of a killed process
    if not (folder / STORE).exists():
        ours = {LOCK, CARD, DATA, *([MANIFEST, SEEN] if repair else [])}
        foreign = {path.name for path in folder.iterdir()} - ours
        if not repair:
            foreign |= {path.name for path in shards.glob("*.parquet")}
        allowed = f"an empty folder or a store with {STORE} (it has {min(foreign, default='')})"
        require(not foreign, "synthetic", folder, allowed)
        shards.mkdir(exist_ok=True)
        _write_card(folder, f"unfinished-{digest(request.identity())}", [f"{DATA}/*.parquet"])
        _write_signed(folder / STORE, request.identity())
    try:
        check_identity(folder, request)
    except DamagedFileError:
        if not repair:
            raise
        _write_signed(folder / STORE, request.identity())  # the shards know whose they are


def read_identity(folder: Path) -> dict[str, Any]:
    """What all images of the store share. Raises ParameterError if it is none, or damaged."""
    require((folder / STORE).is_file(), "synthetic", folder, f"a folder with {STORE}")
    return _read_signed(folder / STORE, ("format",))


def check_identity(folder: Path, request: Request) -> None:
    """Raise ParameterError, which names the first that differs, for a store of other images."""
    ours, theirs = request.identity(), read_identity(folder)
    for name in sorted(ours.keys() | theirs.keys()):
        same = name in ours and name in theirs and ours[name] == theirs[name]
        has, had = (_short(one.get(name)) for one in (ours, theirs))
        require(same, name, has, f"{had} as in {folder / STORE}, or another folder")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({digest(value)})"


def read_manifest(folder: Path, repair: bool = False) -> About:
    """What the manifest says; nothing where there is none, or a damaged one is to be repaired."""
    try:
        return _read_signed(folder / MANIFEST, ("store", "images", "shards"))["shards"]
    except FileNotFoundError:
        return {}
    except DamagedFileError:
        if not repair:
            raise
        return {}


def write_manifest(folder: Path, request: Request, about: About) -> None:
    """Say that all that was asked for is there, in these shards; in the card too."""
    manifest = {
        "store": digest(request.identity()),
        "images": sum(own["images"] for own in about.values()),
        "shards": dict(sorted(about.items())),
    }
    _write_signed(folder / MANIFEST, manifest)
    named = f"store-{digest(manifest)}"
    _write_card(folder, named, [f"{DATA}/{name}" for name in manifest["shards"]])


def _write_signed(path: Path, value: dict[str, Any]) -> None:
    write_json(path, value | {"digest": digest(value)})


def _read_signed(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object as `_write_signed` wrote it; DamagedFileError if it is no longer that."""
    try:
        value = read_json(path, "synthetic", (*keys, "digest"))
    except ParameterError as error:
        raise DamagedFileError(error.name, error.value, f"{error.allowed}; {REMEDY}") from error
    if value.pop("digest") != digest(value):
        raise DamagedFileError("synthetic", path, f"as it was written; {REMEDY}")
    return value


def shard_paths(folder: Path, noted: About) -> list[Path]:
    """Shards that are there and those that should be, by name."""
    there = {path.name for path in (folder / DATA).glob("*.parquet")}
    return [folder / DATA / name for name in sorted(there | noted.keys())]


def _write_card(folder: Path, name: str, files: list[str]) -> None:
    """Write the dataset card.

    name: of the only configuration. Hugging Face `datasets` keeps what it has read under the last
    name of the folder and this one, so that it must be another one for other images.
    """
    listed = "\n".join(f"  - {file}" for file in files)
    head = f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{listed}\n---\n"
    with whole_file(folder / CARD) as part:
        part.write_text(head + _CARD, encoding="utf-8")


_CARD = f"""
# Synthetic images

One row for each synthetic image: `image` (PNG), `label` and `class` of its original, `source`
(index of the original in its data set), `copy`, `strength`, `steps` (denoising steps done), `seed`,
`backend` and `model` (name and digest of the generator), `sha256` (of the PNG file).
`{STORE}` has what they all depend on, `{MANIFEST}` the digests of the files.

    from datasets import load_dataset

    images = load_dataset("PATH OF THIS FOLDER", split="train")
    images[0]["image"], images.features["label"].int2str(images[0]["label"])
"""
