"""The synthetic store: form, verification, all or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from empirical import store
from empirical.store import read_store, write_store
from theory.parameters import ParameterError

ROWS = [{"source": 12, "copy": 1, "label": 3}, {"source": 1700, "copy": 2, "label": 4}]


def pixels(channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, channels, 8, 8), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_and_read(tmp_path: Path, channels: int) -> None:
    folder = tmp_path / "synthetic"
    write_store(folder, pixels(channels), ROWS)
    assert torch.equal(read_store(folder, ROWS), pixels(channels))
    assert sorted(path.name for path in folder.iterdir()) == [
        *("00012_1.png", "01700_2.png", "metadata.jsonl")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    for line, row in zip(lines, ROWS, strict=True):
        about = json.loads(line)
        raw = (folder / about["file_name"]).read_bytes()
        assert about == {
            "file_name": f"{row['source']:05d}_{row['copy']}.png",
            **row,
            "sha256": hashlib.sha256(raw).hexdigest(),
        }


def damage_image(folder: Path) -> None:
    path = folder / "00012_1.png"
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)


def cut_image(folder: Path) -> None:
    path = folder / "00012_1.png"
    path.write_bytes(path.read_bytes()[:40])


def swap_image(folder: Path) -> None:
    (folder / "00012_1.png").write_bytes((folder / "01700_2.png").read_bytes())


def cut_metadata(folder: Path) -> None:
    path = folder / "metadata.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8")


def shorten_metadata(folder: Path) -> None:
    path = folder / "metadata.jsonl"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")


def foreign_metadata(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text("[1]\n[2]\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_image, "00012_1.png"),
        (cut_image, "00012_1.png"),
        (swap_image, "00012_1.png"),
        (lambda folder: (folder / "00012_1.png").unlink(), "00012_1.png"),
        (cut_metadata, "metadata.jsonl"),
        (shorten_metadata, "metadata.jsonl"),
        (foreign_metadata, "metadata.jsonl"),
        (lambda folder: (folder / "metadata.jsonl").unlink(), "metadata.jsonl"),
    ],
)
def test_damage_is_named_and_left_alone(
    tmp_path: Path,
    damage: Callable[[Path], Any],
    named: str,
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    folder = tmp_path / "synthetic"
    write_store(folder, pixels(), ROWS)
    damage(folder)
    before = contents(folder)
    with pytest.raises(ParameterError) as error:
        read_store(folder, ROWS)
    assert f"synthetic = {folder / named}: must be" in str(error.value)
    assert contents(folder) == before


def test_another_store_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "synthetic", pixels(), ROWS)
    other = [ROWS[0] | {"label": 5}, ROWS[1]]
    with pytest.raises(ParameterError, match=r"label = 5 for 00012_1\.png, not 3"):
        read_store(tmp_path / "synthetic", other)


def test_a_full_disk_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store._encode

    def encode(image: torch.Tensor) -> bytes:
        if torch.equal(image, pixels()[1]):
            raise OSError(28, "No space left on device")
        return whole(image)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_encode", encode)
        with pytest.raises(OSError, match="No space left"):
            write_store(tmp_path / "synthetic", pixels(), ROWS)
    assert not list(tmp_path.iterdir())
    write_store(tmp_path / "synthetic", pixels(), ROWS)
    assert torch.equal(read_store(tmp_path / "synthetic", ROWS), pixels())


def test_remains_of_a_killed_writer_are_not_mixed_in(tmp_path: Path) -> None:
    remains = tmp_path / "synthetic.part"
    remains.mkdir()
    (remains / "00099_1.png").write_bytes(b"half")
    write_store(tmp_path / "synthetic", pixels(), ROWS)
    assert not remains.exists()
    assert not (tmp_path / "synthetic" / "00099_1.png").exists()
