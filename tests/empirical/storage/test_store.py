"""The sharded store: form, resume to the byte, extension, shared work, damage, full disk."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from common.errors import ParameterError
from empirical.storage import request as requests
from empirical.storage import store
from empirical.storage.request import ImageSpec, Request
from empirical.storage.store import (
    make_store,
    missing,
    read_shards,
    read_store,
)

Contents = Callable[[Path], dict[str, bytes]]

CLASSES = ("cat", "dog", "tree frog")
COMMON: dict[str, Any] = {
    "classes": CLASSES,
    "shape": (3, 8, 8),
    "data": "planted-1",
    "backend": "ideal",
    "model": "a1b2",
    "seed": 5,
    "settings": {"sampler": "ddim", "guidance": 2.0},
}
SOURCES = (*range(0, 60, 2), 101)

repair_store = partial(make_store, repair=True)


def wanted(sources: Sequence[int], k: int = 3, strengths: Sequence[float] = (0.6,)) -> Any:
    return tuple(
        ImageSpec(source, copy, strength, source % 3, round(50 * strength))
        for source in sources
        for copy in range(1, k)
        for strength in strengths
    )


def request_of(*args: Any, **changes: Any) -> Request:
    return Request(wanted(*args), **(COMMON | changes))


def picture(own: ImageSpec, shape: Sequence[int] = (3, 8, 8)) -> torch.Tensor:
    rng = np.random.default_rng([own.source, own.copy, round(1000 * own.strength)])
    return torch.from_numpy(rng.integers(256, size=tuple(shape), dtype=np.uint8))


def make(batch: Sequence[ImageSpec]) -> torch.Tensor:
    """Unlike a real one it shows which images it was asked for together."""
    pixels = torch.stack([picture(own) for own in batch])
    pixels[:, 0, 0, 0] = len(batch)
    pixels[:, 0, 0, 1] = batch[0].source
    return pixels


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "SHARD_IMAGES", 16)


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").iterdir())


def png_place(path: Path, row: int) -> int:
    """Where in a shard the PNG file of a row begins."""
    png = pq.read_table(path)["image"].to_pylist()[row]["bytes"]
    return path.read_bytes().index(png)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def forked(work: Callable[[], None]) -> int:
    """Another process that does it, and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where threads run
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(60)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


# form


def test_written_and_read(tmp_path: Path) -> None:
    request = request_of(SOURCES, 3, (0.6, 0.9))
    told: list[None] = []
    make_store(tmp_path, request, make, 5, lambda: told.append(None))
    assert len(told) == len(request.images) == 4 * len(SOURCES)
    pixels = read_store(tmp_path, request)
    expected = torch.stack([picture(own) for own in request.images])
    assert torch.equal(pixels[:, :, 1:], expected[:, :, 1:])
    # 31 sources in 5 blocks of 16 indices, of which 2 are empty; 2 copies; 2 strengths
    assert len(shards(tmp_path)) == 5 * 2 * 2
    assert shards(tmp_path)[0].name.startswith("strength-0.6-copy-01-block-00000-")
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {
        *("README.md", "data", "manifest.json", "store.json")
    }
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    make_store(tmp_path, request, pytest.fail)
    assert {path: path.stat().st_mtime_ns for path in shards(tmp_path)} == before


def test_rows_and_manifest(tmp_path: Path) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    path = shards(tmp_path)[1]
    row = pq.read_table(path).to_pylist()[2]
    image = row.pop("image")
    own = ImageSpec(20, 1, 0.6, 2, 30)
    assert row == {
        **own._asdict(),
        "class": "tree frog",
        "seed": 5,
        "backend": "ideal",
        "model": "a1b2",
        "sha256": hashlib.sha256(image["bytes"]).hexdigest(),
    }
    assert image["path"] == "000020-1-0.6.png"
    array = np.array(Image.open(io.BytesIO(image["bytes"])))
    assert np.array_equal(array[1:], picture(own).permute(1, 2, 0)[1:])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["images"] == 62
    assert manifest["shards"][path.name] == {
        "bytes": path.stat().st_size,
        "images": len(pq.read_table(path)),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    about = json.loads((tmp_path / "store.json").read_text())
    assert (about["model"], about["sampler"], about["shape"]) == ("a1b2", "ddim", [3, 8, 8])


def test_datasets_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    request = request_of(SOURCES, 3)
    make_store(tmp_path / "store", request, make)
    read = datasets.load_dataset(
        str(tmp_path / "store"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(read) == len(request.images)
    assert isinstance(read.features["image"], datasets.Image)
    assert read.features["label"].names == list(CLASSES)
    pixels = read_store(tmp_path / "store", request)
    place = {own.key: row for row, own in enumerate(request.images)}
    for row in read:
        expected = pixels[place[row["source"], row["copy"], row["strength"]]].permute(1, 2, 0)
        assert np.array_equal(np.array(row["image"]), expected)
        assert read.features["label"].int2str(row["label"]) == row["class"]


def test_stores_of_one_name_are_told_apart_in_one_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` keeps what it has read under the last name of the folder: every run's is equal."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    def check(folder: Path, request: Request) -> None:
        given = {"split": "train", "cache_dir": str(tmp_path / "cache")}
        read = datasets.load_dataset(str(folder), **given)
        pixels = read_store(folder, request)
        place = {own.key: row for row, own in enumerate(request.images)}
        assert len(read) == len(request.images)
        assert set(read["model"]) == {request.model}
        for row in read:
            expected = pixels[place[row["source"], row["copy"], row["strength"]]]
            assert np.array_equal(np.array(row["image"]), expected.permute(1, 2, 0))

    def brighter(by: int) -> Callable[[Sequence[ImageSpec]], torch.Tensor]:
        return lambda batch: (make(batch) // 2) + by

    requests = {
        name: (replace(request_of(range(0, 90, 9), 2), model=name), brighter(by))
        for name, by in (("one", 0), ("two", 50), ("three", 100))
    }
    for name, (request, made) in requests.items():
        make_store(tmp_path / name / "synthetic", request, made)
    for _ in range(2):
        for name, (request, _made) in requests.items():
            check(tmp_path / name / "synthetic", request)
    # a store that has got more images is another one too
    more = replace(request_of(range(0, 90, 9), 3), model="two")
    make_store(tmp_path / "two" / "synthetic", more, brighter(50))
    check(tmp_path / "two" / "synthetic", more)
    check(tmp_path / "one" / "synthetic", requests["one"][0])


def test_grey_images(tmp_path: Path) -> None:
    request = request_of(SOURCES, shape=(1, 5, 7))
    make_store(tmp_path, request, lambda own: torch.stack([picture(o, (1, 5, 7)) for o in own]))
    expected = torch.stack([picture(own, (1, 5, 7)) for own in request.images])
    assert torch.equal(read_store(tmp_path, request), expected)


def test_order_is_the_request_s_and_changes_no_file(tmp_path: Path, contents: Contents) -> None:
    request = request_of(SOURCES)
    backwards = replace(request, images=request.images[::-1])
    make_store(tmp_path / "a", request, make)
    make_store(tmp_path / "b", backwards, make)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert torch.equal(
        read_store(tmp_path / "a", backwards), read_store(tmp_path / "b", request).flip(0)
    )


def test_large_ones_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    in_memory = read_store(tmp_path, request)
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(store, "available", lambda: 1000)
    mapped = read_store(tmp_path, request)
    assert torch.equal(mapped, in_memory)
    assert {path.name for path in tmp_path.iterdir()} == before

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        read_store(tmp_path, request)


def test_shards_are_bounded_for_large_images() -> None:
    request = request_of(SOURCES, shape=(3, 512, 512))
    assert request.block == 16
    requests.SHARD_IMAGES = 1024  # undone by the fixture
    assert request.block == 256
    assert request_of(SOURCES).block == 1024


def test_copies_of_one_trajectory_are_made_together(tmp_path: Path, contents: Contents) -> None:
    request = request_of(SOURCES, 4)
    seen: list[int] = []

    def one_run(batch: Sequence[ImageSpec]) -> torch.Tensor:
        seen.append(len({own.source for own in batch}))
        assert len(batch) == 3 * seen[-1]
        return torch.stack([picture(own) for own in batch])

    make_store(tmp_path / "together", replace(request, together=True), one_run, 4)
    assert max(seen) == 4
    make_store(tmp_path / "apart", request, lambda own: torch.stack([picture(o) for o in own]))
    assert contents(tmp_path / "together") == contents(tmp_path / "apart")


# resumed, extended


def test_resumed_to_the_byte(tmp_path: Path, contents: Contents) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path / "whole", request, make, 5)
    calls = 0

    def interrupted(batch: Sequence[ImageSpec]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt
        return make(batch)

    folder = tmp_path / "resumed"
    stops = 0
    assert missing(folder, request) == 62
    while not (folder / "manifest.json").exists():
        try:
            make_store(folder, request, interrupted, 5)
        except KeyboardInterrupt:
            stops += 1
            assert stops < 9
    assert stops > 1
    assert missing(folder, request) == 0
    assert contents(folder) == contents(tmp_path / "whole")


@forks
def test_killed_at_any_moment(tmp_path: Path, contents: Contents) -> None:
    request = request_of(SOURCES, 4)
    make_store(tmp_path / "whole", request, make, 5)
    folder = tmp_path / "killed"
    write = Path.write_bytes

    def torn(path: Path, raw: bytes) -> int:
        """A write that takes a while, so that many kills come in the middle of it."""
        write(path, raw[: len(raw) // 2])
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.004)
        return write(path, raw)

    def slowly() -> None:
        Path.write_bytes = torn  # in the child alone
        make_store(folder, request, make, 5)

    rng = random.Random(0)
    kills = parts = 0
    while True:
        deadly = kills == 0
        child = forked(slowly)
        if 0 < kills < 12:
            time.sleep(rng.uniform(0.0, 0.05))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        parts += len(list(folder.rglob("*.part")))
    assert kills >= 3
    assert parts >= 1
    assert contents(folder) == contents(tmp_path / "whole")


def test_more_copies_and_strengths_keep_what_is_there(tmp_path: Path, contents: Contents) -> None:
    make_store(tmp_path / "grown", request_of(SOURCES, 3), make, 5)
    before = contents(tmp_path / "grown" / "data")
    asked: list[ImageSpec] = []

    def noting(batch: Sequence[ImageSpec]) -> torch.Tensor:
        asked.extend(batch)
        return make(batch)

    larger = request_of(SOURCES, 5, (0.6, 0.9))
    assert missing(tmp_path / "grown", larger) == len(SOURCES) * 6
    make_store(tmp_path / "grown", larger, noting, 5)
    assert {own.key for own in asked} == {
        own.key for own in larger.images if own.copy > 2 or own.strength == 0.9
    }
    assert before.items() <= contents(tmp_path / "grown" / "data").items()
    make_store(tmp_path / "at once", larger, make, 5)
    assert contents(tmp_path / "grown") == contents(tmp_path / "at once")


def test_arms_share_images(tmp_path: Path) -> None:
    """TADA's are made first, those of all examples next; random ones are then all there."""
    make_store(tmp_path, request_of(SOURCES), make)
    everything = request_of(range(110))
    asked = []

    def noting(batch: Sequence[ImageSpec]) -> torch.Tensor:
        asked.extend(batch)
        return make(batch)

    make_store(tmp_path, everything, noting)
    assert len(asked) == 2 * (110 - len(SOURCES))
    assert not {own.source for own in asked} & set(SOURCES)
    some = request_of((3, 2, 99))
    make_store(tmp_path, some, pytest.fail)
    place = {own: row for row, own in enumerate(everything.images)}
    rows = [place[own] for own in some.images]
    assert torch.equal(read_store(tmp_path, some), read_store(tmp_path, everything)[rows])
    assert sum(len(pixels) for _, pixels in read_shards(tmp_path, some)) == 6


def test_an_interrupted_extension_ends_the_same(tmp_path: Path, contents: Contents) -> None:
    make_store(tmp_path / "a", request_of(SOURCES), make, 5)
    make_store(tmp_path / "b", request_of(SOURCES), make, 5)
    calls = 0

    def failing(batch: Sequence[ImageSpec]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return make(batch)

    larger = request_of(range(110))
    make_store(tmp_path / "a", larger, make, 5)
    with pytest.raises(KeyboardInterrupt):
        make_store(tmp_path / "b", larger, failing, 5)
    assert torch.equal(
        read_store(tmp_path / "b", request_of(SOURCES)),
        read_store(tmp_path / "a", request_of(SOURCES)),
    )
    make_store(tmp_path / "b", larger, make, 5)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


# several processes


def test_two_writers_are_refused(tmp_path: Path) -> None:
    request = request_of(SOURCES)
    busy, done = threading.Event(), threading.Event()

    def slow(batch: Sequence[ImageSpec]) -> torch.Tensor:
        busy.set()
        assert done.wait(30)
        return make(batch)

    first = threading.Thread(target=make_store, args=(tmp_path, request, slow))
    first.start()
    assert busy.wait(30)
    try:
        with pytest.raises(ParameterError, match="that no other process writes; one does now"):
            make_store(tmp_path, request, make)
    finally:
        done.set()
        first.join()
    make_store(tmp_path, request, pytest.fail)


@forks
def test_ranks_share_the_work(tmp_path: Path, contents: Contents) -> None:
    request = request_of(SOURCES, 4)
    make_store(tmp_path / "alone", request, make, 5)

    def failing(batch: Sequence[ImageSpec]) -> torch.Tensor:
        if any(own.source == 36 for own in batch):
            raise ValueError("no image of source 36")
        return make(batch)

    def rank(number: int) -> None:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meeting", rank=number, world_size=3
        )
        with pytest.raises(ValueError, match="no image of source 36"):
            make_store(tmp_path / "failed", request, failing, 5)
        told: list[None] = []
        made: list[ImageSpec] = []

        def noting(batch: Sequence[ImageSpec]) -> torch.Tensor:
            made.extend(batch)
            return make(batch)

        make_store(tmp_path / "shared", request, noting, 5, lambda: told.append(None))
        (tmp_path / f"{number}.json").write_text(json.dumps([len(made), len(told)]))
        make_store(tmp_path / "failed", request, make, 5)

    for child in [forked(lambda number=number: rank(number)) for number in range(3)]:
        assert os.waitpid(child, 0)[1] == 0
    made, told = zip(
        *(json.loads((tmp_path / f"{n}.json").read_text()) for n in range(3)), strict=True
    )
    assert sum(made) == len(request.images) == told[0]
    assert min(made) > 20
    whole = contents(tmp_path / "alone")
    assert contents(tmp_path / "shared") == whole
    assert contents(tmp_path / "failed") == whole


# another store, damage, a full disk


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "ffff"}, "model = ffff: must be a1b2 as in "),
        ({"data": "planted-2"}, "data = planted-2: must be planted-1 as in "),
        ({"seed": 6}, "seed = 6: must be 5 as in "),
        ({"settings": {"sampler": "dpm++", "guidance": 2.0}}, "sampler = dpm++: must be ddim as"),
        ({"settings": {"sampler": "ddim"}}, "guidance = None: must be 2.0 as in "),
        ({"shape": (3, 8, 9)}, "shape = [3, 8, 9]: must be [3, 8, 8] as in "),
        (
            {"images": (ImageSpec(0, 1, 0.6, 1, 30),)},
            "label = 1: must be 0 for the image of source 0",
        ),
        (
            {"images": (ImageSpec(0, 1, 0.6, 0, 9),)},
            "steps = 9: must be 30 for the image of source 0",
        ),
    ],
)
def test_another_store_is_refused(
    tmp_path: Path, contents: Contents, change: dict[str, Any], named: str
) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    before = contents(tmp_path)
    for call in (
        lambda other: make_store(tmp_path, other, pytest.fail),
        lambda other: read_store(tmp_path, other),
        lambda other: missing(tmp_path, other),
        lambda other: repair_store(tmp_path, other, pytest.fail),
    ):
        with pytest.raises(ParameterError) as error:
            call(replace(request, **change))
        assert named in str(error.value)
        assert "\n" not in str(error.value)
    assert contents(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for call in (make_store, repair_store):
        with pytest.raises(ParameterError, match=r"an empty folder or a store .*thesis\.tex"):
            call(tmp_path, request_of(SOURCES), make)
    with pytest.raises(ParameterError, match=r"a folder with store\.json"):
        read_store(tmp_path / "none", request_of(SOURCES))


def test_a_shard_of_another_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path / "a", replace(request, seed=1), make)
    make_store(tmp_path / "b", request, make)
    foreign = shards(tmp_path / "b")[0]
    (tmp_path / "b" / "manifest.json").unlink()
    foreign.write_bytes((tmp_path / "a" / "data" / foreign.name).read_bytes())
    for call in (make_store, repair_store):
        with pytest.raises(ParameterError, match="a shard of this store; it is of another one"):
            call(tmp_path / "b", request, make)
    assert foreign.exists()


def flip_image(path: Path) -> None:
    flip(path, png_place(path, 3) + 60)


def flip_label(path: Path) -> None:
    raw = path.read_bytes()
    flip(path, raw.index(b"tree frog"))


def swap(path: Path) -> None:
    path.write_bytes(shards(path.parent.parent)[1].read_bytes())


DAMAGE = [
    (flip_image, r"is not as it was written, but for the image of source 6, copy 1, "),
    (flip_label, r"is not as it was written, but for its metadata"),
    (lambda path: flip(path, -3), "is not a whole shard"),
    (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is not a whole shard"),
    (lambda path: path.write_bytes(b""), "is not a whole shard"),
    (lambda path: path.write_bytes(b"PAR1 no PAR1"), "is not a whole shard"),
    (swap, "is not as it was written"),
    (lambda path: path.unlink(), "is not there"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGE)
def test_damage_is_named_left_alone_and_repaired(
    tmp_path: Path, damage: Callable[[Path], Any], named: str, contents: Contents
) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make, 5)
    whole = contents(tmp_path)
    path = shards(tmp_path)[0]
    assert missing(tmp_path, request) == 0
    damage(path)
    before = contents(tmp_path)
    for call in (read_store, missing, lambda *given: make_store(*given, pytest.fail)):
        with pytest.raises(ParameterError, match=named) as error:
            call(tmp_path, request)
        assert str(error.value).startswith(f"{path} is not")
        assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    repair_store(tmp_path, request, make, 5)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(("damage", "named"), DAMAGE[:-2])
def test_damage_before_the_manifest_is_found_too(
    tmp_path: Path, damage: Callable[[Path], Any], named: str
) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    (tmp_path / "manifest.json").unlink()
    damage(shards(tmp_path)[0])
    with pytest.raises(ParameterError, match=named):
        make_store(tmp_path, request, pytest.fail)


def test_any_flipped_byte_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    path = shards(tmp_path)[0]
    raw = path.read_bytes()
    for place in rng.integers(len(raw), size=60):
        flip(path, int(place))
        with pytest.raises(ParameterError) as damaged:
            missing(tmp_path, request)
        assert damaged.value.value == path
        path.write_bytes(raw)
    pixels = read_store(tmp_path, request)
    (tmp_path / "manifest.json").unlink()
    for place in rng.integers(len(raw), size=60):  # named, or of no consequence
        flip(path, int(place))
        try:
            assert torch.equal(read_store(tmp_path, request), pixels)
        except ParameterError as error:
            assert error.value == path  # noqa: PT017
        path.write_bytes(raw)


@pytest.mark.parametrize("name", ["store.json", "manifest.json"])
@pytest.mark.parametrize("cut", [True, False])
def test_damaged_records_are_named_and_repaired(
    tmp_path: Path, name: str, cut: bool, contents: Contents
) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path, request, make)
    whole = contents(tmp_path)
    text = (tmp_path / name).read_text()
    digit = text.rindex('"digest"') - 20
    flipped = f"{text[:digit]}{'0' if text[digit] != '0' else '1'}{text[digit + 1 :]}"
    (tmp_path / name).write_text(text[:-9] if cut else flipped)
    assert (tmp_path / name).read_text() != text
    for call in (read_store, missing):
        with pytest.raises(ParameterError, match=f"{tmp_path / name} is not a"):
            call(tmp_path, request)
    repair_store(tmp_path, request, pytest.fail)
    assert contents(tmp_path) == whole
    (tmp_path / name).unlink()
    repair_store(tmp_path, request, pytest.fail)
    assert contents(tmp_path) == whole


def test_images_that_were_not_made_are_named(tmp_path: Path) -> None:
    make_store(tmp_path, request_of(SOURCES), make)
    more = request_of((*SOURCES, 7))
    with pytest.raises(ParameterError, match="2 are not made, as the image of source 7, copy 1"):
        read_store(tmp_path, more)


def test_a_full_disk_leaves_a_store_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    request = request_of(SOURCES)
    make_store(tmp_path / "whole", request, make, 5)
    folder = tmp_path / "full"
    write = Path.write_bytes

    def full(path: Path, raw: bytes) -> int:
        if "copy-02-block-00002" in path.name:
            write(path, raw[: len(raw) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, raw)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left on device") as error:
            make_store(folder, request, make, 5)
    assert error.value.errno == errno.ENOSPC
    assert "copy-02-block-00002" in str(error.value.filename)
    assert 0 < missing(folder, request) < 62
    assert all(path.suffix == ".parquet" for path in shards(folder))
    make_store(folder, request, make, 5)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (torch.zeros(1, 3, 8, 8), "make = torch.float32 (1, 3, 8, 8): must be uint8 (1, 3, 8, 8)"),
        (torch.zeros(1, 3, 9, 8, dtype=torch.uint8), "must be uint8 (1, 3, 8, 8)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "must be uint8 (1, 3, 8, 8)"),
    ],
)
def test_what_is_made_must_fit(tmp_path: Path, pixels: torch.Tensor, named: str) -> None:
    with pytest.raises(ParameterError) as error:
        make_store(tmp_path, request_of(SOURCES), lambda batch: pixels, 1)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": ()}, "images = none"),
        ({"images": (ImageSpec(1, 1, 0.6, 0, 1),) * 2}, "wanted once, not twice"),
        ({"images": (ImageSpec(1, 0, 0.6, 0, 1),)}, "copy = 0"),
        ({"images": (ImageSpec(1, 1, 0.6, np.int64(0), 1),)}, "whole Python numbers"),
        ({"images": (ImageSpec(-1, 1, 0.6, 0, 1),)}, "source = -1"),
        ({"images": (ImageSpec(1, 1, 0.6, 3, 1),)}, "label = 3"),
        ({"images": (ImageSpec(1, 1, float("nan"), 0, 1),)}, "strength = nan"),
        ({"shape": (2, 8, 8)}, r"shape = \(2, 8, 8\)"),
        ({"seed": 2**63}, "seed = 9223372036854775808"),
        ({"settings": {"model": "x"}}, r"settings = \['model'\]"),
    ],
)
def test_requests_are_checked(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        replace(request_of(SOURCES), **change)
