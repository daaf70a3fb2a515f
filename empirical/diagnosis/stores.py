"""A whole store against the real images that it was made from: `diagnose_store`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import require
from common.files import digest
from common.locks import writing
from common.progress import progress
from common.seeding import numpy_stream
from common.threads import one_thread
from empirical.config.data import READING, DataSettings
from empirical.datasets.base import ImageSet, fingerprint, take
from empirical.datasets.planted import PlantedSet
from empirical.datasets.seen import SEEN, check_unseen, read_seen, seen_digest
from empirical.datasets.splits import make_split, open_set
from empirical.diagnosis import distances as distance
from empirical.diagnosis.classifier import DEFAULT, Judge, train_judge
from empirical.diagnosis.faithfulness import PASSES, observe, summarise
from empirical.generation.base import Originals
from empirical.generation.ideal import ideal
from empirical.pipeline.synthesis import CURVES
from empirical.runtime import HERE, Machine
from empirical.storage.folder import read_identity, read_manifest, shard_paths
from empirical.storage.request import ImageSpec
from empirical.storage.shards import pixels_of, read_shard
from empirical.training.recipes import Recipe
from empirical.versions import versions

AT_MOST = 2000
"""Sources that are looked at, unless more are asked for: c ± 0.01, or better."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Copies of some sources as a store has them, sorted by source, copy and strength.

    every: the indices of all sources of the store, rising; pixels: uint8 (N, C, H, W); rows: int64
    (N,), the place of each copy's source in `sources`; strengths: float64 (N,); identity: what the
    store says that all its images share.
    """

    every: np.ndarray
    sources: Originals
    pixels: Tensor
    rows: Tensor
    strengths: Tensor
    identity: dict[str, Any]


def data_of(folder: Path) -> DataSettings:
    """The images that a store is of.

    Raises:
        ParameterError: `folder` is no store, is damaged, or does not say.
    """
    identity = read_identity(folder)
    allowed = "a store whose settings name its data set (dataset); make it with this version"
    require(isinstance(identity.get("dataset"), str), "synthetic", folder, allowed)
    return data_settings(identity)


def data_settings(identity: Mapping[str, Any]) -> DataSettings:
    """Of what a store says that all its images share, the part on the real images."""
    names = ("dataset", *READING, "split", "n_train")
    return DataSettings(**{name: identity[name] for name in names if name in identity})


def read_copies(folder: Path, data: ImageSet, at_most: int = AT_MOST, seed: int = 0) -> Stored:
    """The copies of at most so many sources, drawn at random by seed; every shard is checked.

    Raises:
        ParameterError: `folder` is no store, one of another data set, or damaged; or at_most is
            below 1.
    """
    require(at_most >= 1, "sources", at_most, "at least 1")
    identity, noted = read_identity(folder), read_manifest(folder)
    own = fingerprint(data.train)
    allowed = f"a store of these images of {data.name}; it is of others (data = {own[:16]}…)"
    require(identity.get("data") == own, "synthetic", folder, allowed)
    store = digest(identity)
    channels, height, width = data.train.pixels.shape[1:]
    paths = shard_paths(folder, noted)
    indices: set[int] = set()
    for path in paths:
        indices |= {
            wanted.source for wanted in read_shard(path, store, noted.get(path.name)).images
        }
    require(len(indices) > 0, "synthetic", folder, "a store with images; it has none yet")
    every = np.array(sorted(indices))
    rng = numpy_stream("diagnosis sources", seed)
    kept = np.sort(rng.permutation(every)[:at_most])
    wanted_ones = set(kept.tolist())
    images: list[ImageSpec] = []
    pieces: list[Tensor] = []
    for path in paths:
        found = read_shard(path, store, noted.get(path.name))
        some, pixels = pixels_of(
            found, (channels, height, width), lambda one: one.source in wanted_ones
        )
        images += some
        pieces.append(pixels)
    order = sorted(range(len(images)), key=images.__getitem__)
    chosen = torch.from_numpy(kept)
    labels = data.train.labels[chosen]
    place = {index: row for row, index in enumerate(kept.tolist())}
    rows = [place[images[number].source] for number in order]
    same = all(int(labels[row]) == images[at].label for row, at in zip(rows, order, strict=True))
    require(same, "synthetic", folder, f"a store with the labels of {data.name}; it has others")
    return Stored(
        every,
        Originals(data.train.pixels[chosen], labels, chosen),
        torch.cat(pieces)[torch.tensor(order)],
        torch.tensor(rows),
        torch.tensor([images[number].strength for number in order], dtype=torch.float64),
        identity,
    )


def diagnose_store(
    folder: Path,
    root: Path = HERE.data,
    network: str = "conv4",
    recipe: Recipe = DEFAULT,
    at_most: int = AT_MOST,
    seed: int = 0,
    machine: Machine = HERE,
) -> dict[str, Any]:
    """What `python -m empirical diagnose store` writes: a JSON value, each strength and all.

    The judge is kept beside the store, in FOLDER.diagnosis, and found again there. root: of the
    data sets. seed: of the choice of sources, of mixtures and bootstrap.

    Raises:
        ParameterError: see `read_copies` and `train_judge`.
    """
    folder = Path(folder)
    images = data_of(folder)
    data = open_set(images, root, machine.download)
    stored = read_copies(folder, data, at_most, seed)
    known = for_judge(folder, data, stored)
    place = torch.from_numpy(np.searchsorted(known, stored.sources.indices.numpy()))
    sources = replace(stored.sources, indices=place)
    judge = judge_of(folder, replace(data, train=take(data.train, known)), network, recipe, machine)
    with one_thread(), progress("images judged", PASSES * len(sources)) as advance:
        seen = observe(sources, stored.pixels, stored.rows, judge, seed, advance)
    strengths = sorted(set(stored.strengths.tolist()))
    with one_thread(), progress("strengths", len(strengths) + 1) as advance:
        each = []
        for strength in strengths:
            each.append(summarise(seen, stored.strengths == strength, strength, seed))
            advance()
        overall = summarise(seen, torch.ones(len(stored.rows), dtype=torch.bool), None, seed)
        advance()
    found, notes = _inception(stored, strengths)
    records = [asdict(own) for own in (*each, overall)]
    for record, own in zip(records, found, strict=True):
        record["distances"] |= own
    if distance.library() is None:
        notes = [f"FID and KID left out: {distance.REMEDY}"]
    return {
        "dataset": images.dataset,
        "store": digest(stored.identity),
        "backend": stored.identity["backend"],
        "model": stored.identity["model"],
        "curve": _curve(stored.identity, data),
        "seed": seed,
        "judge": {**judge.about, "error": judge.error},
        "strengths": records[:-1],
        "overall": records[-1],
        "notes": notes,
        "versions": versions(),
    }


def for_judge(folder: Path, data: ImageSet, stored: Stored) -> np.ndarray:
    """The images that a store may be judged with, rising: never one that its split scores.

    Where test images are apart, all training images; of digits the store's own training images and
    those that are kept for a generator.

    Raises:
        ParameterError: the store, or its generator, was made with images that its split scores.
    """
    about = stored.identity
    with_split = "split" in about and "n_train" in about
    split = make_split(data, data_settings(about))
    noted, there = about.get("trained_on"), read_seen(folder)
    allowed = f"a store with the {SEEN} that it was written with; repair it"
    require(noted is None or noted == seen_digest(there), "synthetic", folder, allowed)
    if with_split:
        check_unseen("synthetic", folder, there, data, split)
    if data.test is not data.train:
        return np.arange(len(data.train.labels))
    if not with_split:  # nothing says which split it is of
        return np.union1d(split.pool, stored.every)
    scored = np.intersect1d(stored.every, np.union1d(split.test, split.validation))
    allowed = f"made without the images that are scored; {len(scored)} of its sources are"
    require(len(scored) == 0, "synthetic", folder, allowed)
    return np.union1d(split.pool, np.union1d(split.train, stored.every))


def _curve(identity: dict[str, Any], data: ImageSet) -> dict[str, Any] | None:
    """The truth, for an ideal generator of this project; or what the store itself says."""
    if isinstance(data, PlantedSet):
        for curve in CURVES.values():
            if ideal(data, curve).digest == identity["model"]:
                return json.loads(json.dumps(asdict(curve)))
    return identity.get("curve")


def _inception(stored: Stored, strengths: list[float]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """FID and KID in Inception's features, for each strength and for all, if they can be had."""
    nothing: list[Mapping[str, Any]] = [{} for _ in (*strengths, None)]
    path = distance.inception_file()
    if distance.library() is None or not path.exists():
        where = "checkpoints of torch's hub folder (torch.hub.get_dir())"
        return nothing, [f"FID and KID of Inception left out: no {path.name} in {where}"]
    real = distance.inception_features(stored.sources.pixels, path)
    made = distance.inception_features(stored.pixels, path)
    found: list[Mapping[str, Any]] = []
    for strength in (*strengths, None):
        chosen = torch.ones(len(made), dtype=torch.bool)
        if strength is not None:
            chosen = stored.strengths == strength
        left, of = torch.unique(stored.rows[chosen], return_inverse=True)
        space = distance.Features(real[left], made[chosen], of, left.numpy())
        here = distance.judged_distances([space], scale=False)
        found.append({} if here is None else {"inception": asdict(here)})
    return found, []


def judge_of(folder: Path, data: ImageSet, network: str, recipe: Recipe, machine: Machine) -> Judge:
    """The judge that is kept beside a store, trained first if it is not there."""
    made_by = digest([network, asdict(recipe), fingerprint(data.train)])
    cache = folder.resolve().with_name(f"{folder.resolve().name}.diagnosis")
    with writing(cache, "folder", folder):
        return train_judge(data, network, recipe, cache / f"classifier-{made_by}", machine)
