"""What an archive may hold."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ParameterError
from empirical.datasets.archives import unpack


def make_zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, b"content of " + name.encode())
    return path


def make_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name in names:
            content = b"content of " + name.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


KINDS = [(make_zip, "some.zip"), (make_tar, "some.tar.gz")]
Maker = Callable[[Path, list[str]], Path]


def left(folder: Path, archive: Path) -> list[Path]:
    files = {path for path in folder.rglob("*") if path.suffix != ".lock"}
    return sorted(files - {archive, folder / "in"})


@pytest.mark.parametrize(("make", "name"), KINDS)
def test_the_files_of_the_top_folder(make: Maker, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / name, ["top/a", "top/below/b"])
    for _ in range(2):  # the second time it is there
        unpack(archive, tmp_path / "in" / "top")
    assert (tmp_path / "in" / "top" / "below" / "b").read_bytes() == b"content of top/below/b"


@pytest.mark.parametrize(("make", "name"), KINDS)
@pytest.mark.parametrize(
    "bad", ["../outside", "top/../../outside", "/outside", "other/a", "top", "top/..\\a", "C:/a"]
)
def test_a_name_outside_the_folder_is_refused_before_anything_is_written(
    make: Maker, name: str, bad: str, tmp_path: Path
) -> None:
    archive = make(tmp_path / name, ["top/a", bad])
    with pytest.raises(ParameterError, match=r"must be one whose files all lie in top/"):
        unpack(archive, tmp_path / "in" / "top")
    assert left(tmp_path, archive) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "some.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        member = tarfile.TarInfo("top/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(member)
    with pytest.raises(ParameterError, match="must be of plain files, which top/link is not"):
        unpack(archive, tmp_path / "in" / "top")
    assert left(tmp_path, archive) == []


@pytest.mark.parametrize(("make", "name"), KINDS)
def test_a_truncated_archive_leaves_nothing(make: Maker, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / name, [f"top/{number}" for number in range(50)])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(ParameterError, match="must be whole"):
        unpack(archive, tmp_path / "in" / "top")
    assert left(tmp_path, archive) == []


def test_a_damaged_file_within_a_zip_leaves_nothing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "some.zip", ["top/a", "top/b"])
    archive.write_bytes(archive.read_bytes().replace(b"content of top/b", b"CONTENT of top/b"))
    with pytest.raises(ParameterError, match="CRC"):
        unpack(archive, tmp_path / "in" / "top")
    assert left(tmp_path, archive) == []
