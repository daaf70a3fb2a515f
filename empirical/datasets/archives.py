"""Published files: downloaded whole or not at all, checked, and unpacked into a folder.

A file put there by hand is checked in the same way. What is damaged is named and left alone.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from common.errors import ParameterError, require
from common.files import whole_file, whole_folder
from common.progress import say

CHUNK = 2**20
TIMEOUT = 60.0
"""Seconds without a byte after which a download has failed."""


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it. urls: tried in this order."""

    name: str
    urls: tuple[str, ...]
    md5: str


def missing(
    dataset: str, folder: Path, files: Sequence[Published], why: str = ""
) -> ParameterError:
    """The error of a data set that is not on disk: one line with the two ways to get it."""
    by_hand = " and ".join(f"{file.urls[0]} (md5 {file.md5})" for file in files)
    said = f" (downloading failed: {why})" if why else ""
    return ParameterError(
        "dataset",
        dataset,
        f"on disk{said}: either allow the download (download=True), or put {by_hand} into {folder}",
    )


def md5_of(path: Path) -> str:
    """MD5 of a file, in hex: against damage, and not a proof of who made it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, md5: str) -> None:
    """Raise ParameterError, naming the file, unless it is there and has this MD5."""
    require(path.is_file(), "file", path, "present; remove its folder to unpack it again")
    found = md5_of(path)
    require(
        found == md5,
        "file",
        path,
        f"the published one (md5 {md5}, not {found}): it is damaged or another; remove it",
    )


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`; a killed one leaves the lock open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def obtain(dataset: str, file: Published, folder: Path, download: bool) -> Path:
    """The checked path of a published file in `folder`, downloaded if it may be.

    Raises:
        ParameterError: it is damaged; or it is not there and must not or cannot be downloaded.
    """
    path = folder / file.name
    if not path.is_file():
        if not download:
            raise missing(dataset, folder, [file])
        with alone(path):
            if not path.is_file():
                _download(dataset, file, path)
                return path
    check_md5(path, file.md5)
    return path


def _download(dataset: str, file: Published, path: Path) -> None:
    why = ""
    for url in file.urls:
        say(f"downloading {url}")
        try:
            with whole_file(path) as part:
                _fetch(url, part)
                check_md5(part, file.md5)
            return
        except (OSError, http.client.HTTPException, ParameterError) as error:
            why = why or str(error) or type(error).__name__
    raise missing(dataset, path.parent, [file], why)


def _fetch(url: str, path: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "tada-companion"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, CHUNK)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the zip or tar file whose only top folder is named like `folder`, to there.

    Every name is checked before the first file is written, and the folder is whole or absent.

    Raises:
        ParameterError: the archive is cut short or damaged, or holds a name that leaves the folder.
    """
    try:
        with ExitStack() as stack, alone(folder):
            if folder.is_dir():
                return  # by another process, meanwhile
            entries = _entries(archive, stack)
            places = [(_inside(archive, name, folder.name), open_) for name, open_ in entries]
            with whole_folder(folder) as part:
                for place, open_ in places:
                    target = part / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open_() as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file, CHUNK)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise ParameterError("archive", archive, f"whole ({error}); remove it") from error


def _entries(archive: Path, stack: ExitStack) -> list[tuple[str, Callable[[], IO[bytes]]]]:
    """Name and opener of every regular file; links and devices are refused."""
    if archive.suffix == ".zip":
        packed = stack.enter_context(zipfile.ZipFile(archive))
        infos = [info for info in packed.infolist() if not info.is_dir()]
        return [(info.filename, lambda info=info: packed.open(info)) for info in infos]
    tar = tarfile.open(archive)  # noqa: SIM115
    stack.enter_context(tar)
    entries: list[tuple[str, Callable[[], IO[bytes]]]] = []
    for member in tar.getmembers():
        if member.isdir():
            continue
        require(member.isfile(), "archive", archive, f"of plain files, which {member.name} is not")

        def open_member(member: tarfile.TarInfo = member) -> IO[bytes]:
            opened = tar.extractfile(member)
            assert opened is not None  # a regular file, as checked
            return opened

        entries.append((member.name, open_member))
    return entries


def _inside(archive: Path, name: str, top: str) -> PurePosixPath:
    """The place of an entry below the top folder."""
    path = PurePosixPath(name)
    parts = path.parts
    plain = len(parts) > 1 and parts[0] == top and ".." not in parts
    plain = plain and not any(character in name for character in "\\:\0")
    require(plain, "archive", archive, f"one whose files all lie in {top}/, unlike {name!r}")
    return path.relative_to(top)
