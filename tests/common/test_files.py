"""Whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import ParameterError
from common.files import digest, read_json, whole_file, whole_folder, write_json
from common.seeding import seed_for, torch_stream
from common.tensors import read_tensors, write_tensors


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path, "value", ("a",)) == {"a": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["value.json"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "folder") as part:
            (part / "file").write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_tensors_have_the_same_bytes_and_must_fit(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.zeros(2)}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, _ = read_tensors(tmp_path / "one", "weights", tensors)
    assert torch.equal(found["b"], tensors["b"])
    for like in ({"a": torch.zeros(2)}, tensors | {"a": torch.zeros(3)}):
        with pytest.raises(ParameterError, match="one is not "):
            read_tensors(tmp_path / "one", "weights", like)


def test_fingerprints_ignore_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_streams_are_keyed() -> None:
    assert seed_for("batches", 1, 2) == seed_for("batches", 1, 2)
    seeds = {
        seed_for(purpose, one, two) for purpose in "abc" for one in range(9) for two in range(9)
    }
    assert len(seeds) == 3 * 81
    assert torch.equal(
        torch.rand(3, generator=torch_stream("x", 1)), torch.rand(3, generator=torch_stream("x", 1))
    )
