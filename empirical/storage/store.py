"""A store of synthetic images: made by several processes, resumed, extended, checked, repaired.

A folder with store.json (what all its images depend on), README.md (a dataset card) and data/, the
shards. manifest.json, with their digests, is written when all that was asked for is there. It is
read without our code by `load_dataset(folder)` of Hugging Face `datasets`, or any Parquet reader.

    request = Request(images, classes, shape, data, backend, model, seed, settings)
    make_store(folder, request, make, batch_size=50)
    pixels = read_store(folder, request)  # uint8 (images, C, H, W), in the request's order

A killed process leaves whole shards; the same call makes the others, with the same bytes as if
nothing had happened. Another request adds its missing images and leaves the shards as they are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import distributed
from common.errors import DamagedFileError, ParameterError, require
from common.files import digest
from common.memory import available
from empirical.storage.folder import (
    DATA,
    STORE,
    About,
    check_identity,
    lock,
    open_store,
    read_manifest,
    shard_paths,
    write_manifest,
)
from empirical.storage.request import ImageSpec, Key, Request, Shard, batches, describe
from empirical.storage.shards import encode, pixels_of, read_shard, write_shard
from empirical.storage.sharing import exchange, place, told_by_first

__all__ = [
    "ImageSpec",
    "Key",
    "Request",
    "make_store",
    "missing",
    "read_shards",
    "read_store",
]

Make = Callable[[Sequence[ImageSpec]], Tensor]
"""Specifications to pixels, uint8 (n, C, H, W). An image must not depend on the others of a batch,
but for rounding: it is asked for the same batches whatever happened before."""
Advance = Callable[[], None]
Present = dict[Key, ImageSpec]


def make_store(
    folder: Path,
    request: Request,
    make: Make,
    batch_size: int = 50,
    advance: Advance = lambda: None,
    repair: bool = False,
) -> None:
    """Make the images of a request that `folder` does not have yet.

    All processes of an `accelerate launch` or torchrun call this together: they share the work,
    and each writes its own shards. advance: called once for each image that is made, in the first
    process for those of all. batch_size: sources whose images are asked for at once. repair:
    damaged shards are removed, and made again as far as they are wanted.

    Raises:
        ParameterError: another process writes into the folder; it is a store of another model,
            data set or settings (the first that differs is named), or holds something else; a
            shard is damaged; or `make` returned something else than was asked for.
        OSError: it cannot be written; what is finished is kept.
    """
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    with ExitStack() as held:

        def start() -> tuple[About, list[tuple[Shard, ...]]]:
            held.enter_context(lock(folder))
            open_store(folder, request, repair)
            about, there, damaged = _survey(folder, request, repair)
            for path in damaged:
                path.unlink(missing_ok=True)
            return about, request.units(there)

        about, units = told_by_first(start)
        rank, world = place()
        for first in range(0, len(units), world):
            # In rounds, so that no process is ahead by more than one unit, and all stop together.
            made: About | Exception = {}
            if first + rank < len(units):
                try:
                    made = _make(folder, request, units[first + rank], make, batch_size, advance)
                except Exception as error:
                    made = error
            for other, result in enumerate(exchange(made)):
                if isinstance(result, Exception):
                    raise distributed.of_all(result)
                about |= result
                if rank == 0 != other:
                    for _ in range(sum(own["images"] for own in result.values())):
                        advance()
        distributed.run_on_main(lambda: write_manifest(folder, request, about))


def missing(folder: Path, request: Request, repair: bool = False) -> int:
    """How many images of a request `make_store` has still to make; nothing is changed.

    repair: those of damaged shards are among them.

    Raises:
        ParameterError: as `make_store`.
    """
    if not (folder / STORE).exists():
        return len(request.images)
    try:
        check_identity(folder, request)
    except DamagedFileError:
        if not repair:
            raise
    there = _survey(folder, request, repair)[1]
    return sum(wanted.key not in there for wanted in request.images)


def read_shards(folder: Path, request: Request) -> Iterator[tuple[list[ImageSpec], Tensor]]:
    """The images of a request, shard by shard, checked: what they are, and uint8 (n, C, H, W).

    Raises:
        ParameterError: `folder` is no store, or one of another model, data set or settings; a
            shard is damaged; or, at the end, images are missing.
    """
    check_identity(folder, request)
    store, noted = digest(request.identity()), read_manifest(folder)
    left = {wanted.key: wanted for wanted in request.images}
    groups = {request.group(wanted) for wanted in request.images}
    for path in shard_paths(folder, noted):
        if path.name.rpartition("-")[0] in groups:
            found = read_shard(path, store, noted.get(path.name))
            _check_same(path, left, found.images)
            images, pixels = pixels_of(found, request.shape, lambda own: own.key in left)
            for wanted in images:
                del left[wanted.key]
            yield images, pixels
    if left:
        first = describe(next(iter(left)))
        allowed = f"a store with all images wanted; {len(left)} are not made, as the {first}"
        raise ParameterError("synthetic", folder, allowed)


def read_store(folder: Path, request: Request, memory_share: float = 0.5) -> Tensor:
    """The images of a request in its order: uint8 (images, C, H, W).

    Those that would take more than `memory_share` of the free memory are mapped from a file in
    `folder` that has no name, and goes with the process.

    Raises:
        ParameterError: as `read_shards`; or memory_share is not in (0, 1].
        OSError: there is no space for the mapped file.
    """
    require(0 < memory_share <= 1, "memory_share", memory_share, "in (0, 1]")
    check_identity(folder, request)
    rows = {wanted.key: row for row, wanted in enumerate(request.images)}
    shape = (len(rows), *request.shape)
    fits = np.prod(shape, dtype=np.int64) <= memory_share * available()
    pixels = np.empty(shape, dtype=np.uint8) if fits else _mapped(folder, shape)
    for images, some in read_shards(folder, request):
        pixels[[rows[wanted.key] for wanted in images]] = some.numpy()
    return torch.from_numpy(pixels)


def _make(
    folder: Path,
    request: Request,
    unit: tuple[Shard, ...],
    make: Make,
    batch_size: int,
    advance: Advance,
) -> About:
    """Make and write the shards of a unit. Only encoded images are kept until then."""
    encoded: dict[Key, bytes] = {}
    for batch in batches(unit, batch_size):
        pixels = make(batch)
        shape = (len(batch), *request.shape)
        fits = pixels.dtype == torch.uint8 and tuple(pixels.shape) == shape
        require(fits, "make", f"{pixels.dtype} {tuple(pixels.shape)}", f"uint8 {shape}")
        for wanted, image in zip(batch, pixels.cpu(), strict=True):
            encoded[wanted.key] = encode(image)
            advance()
    return {
        shard.name: write_shard(
            folder / DATA / shard.name,
            request,
            shard.images,
            [encoded.pop(wanted.key) for wanted in shard.images],
        )
        for shard in unit
    }


def _survey(folder: Path, request: Request, repair: bool) -> tuple[About, Present, list[Path]]:
    """All shards that are there, checked, and their images; those to `repair`, which are not."""
    store, noted = digest(request.identity()), read_manifest(folder, repair)
    wanted = {own.key: own for own in request.images}
    about: About = {}
    there: Present = {}
    damaged: list[Path] = []
    for path in shard_paths(folder, noted):
        try:
            found = read_shard(path, store, noted.get(path.name))
        except DamagedFileError:
            if not repair:
                raise
            damaged.append(path)
            continue
        _check_same(path, wanted, found.images)
        about[path.name] = found.about()
        there |= {own.key: own for own in found.images}
    return about, there, damaged


def _check_same(path: Path, wanted: Present, there: Sequence[ImageSpec]) -> None:
    """Refuse an image that was made with another label, or in other steps, than is wanted."""
    for own in there:
        other = wanted.get(own.key, own)
        for name in ("label", "steps"):
            had, has = getattr(own, name), getattr(other, name)
            allowed = f"{had} for the {describe(own)}, as in {path}, or another folder"
            require(had == has, name, has, allowed)


def _mapped(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    n_bytes = int(np.prod(shape, dtype=np.int64))
    with tempfile.TemporaryFile(dir=folder) as file:
        # now, as an error: writing into a mapping on a full disk would kill the process
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from error
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
