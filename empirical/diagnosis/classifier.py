"""The judge: two networks, each trained on one half of the real images, for the other half.

So nobody judges an image that it was trained on, nor a copy of one, and every image is judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import require
from common.files import digest, read_json, write_json
from common.seeding import numpy_stream
from empirical.datasets.base import Images, ImageSet
from empirical.runtime import HERE, Machine
from empirical.training import evaluate, networks
from empirical.training.batches import TrainingSet
from empirical.training.engine import train
from empirical.training.recipes import Recipe

DEFAULT = Recipe(epochs=20, batch_size=64, lr=0.05, schedule="cosine")
"""Cosine decay to 0 and random crops; flips where the data set allows them."""


@dataclass(frozen=True, eq=False)
class Judge:
    """networks: in eval mode; network h judges the images of half h, and saw none of them.

    half: int64 (n,), 0 or 1 for each image of the data set; means: float32 (2, classes, C, H, W),
    in levels: the mean image of each class over what network h was trained on;
    mean, std: of each channel, as the networks were trained; error: share of all n images whose
    class the networks miss; about: a JSON value of what they were trained with.
    """

    networks: tuple[nn.Module, nn.Module]
    half: Tensor
    means: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    error: float
    about: dict[str, Any]


def halves(labels: Tensor, *key: str | int) -> Tensor:
    """Cut images at random into two halves, every class as evenly as can be: int64 (n,)."""
    rng = numpy_stream("diagnosis halves", *key)
    half = np.zeros(len(labels), dtype=np.int64)
    first = 0
    for label in np.unique(labels.numpy()):
        members = rng.permutation(np.flatnonzero(labels.numpy() == label))
        half[members] = (first + np.arange(len(members))) % 2
        first += len(members)  # so that the odd ones of all classes do not go the same way
    return torch.from_numpy(half)


def train_judge(
    data: ImageSet,
    network: str = "conv4",
    recipe: Recipe = DEFAULT,
    folder: Path | None = None,
    machine: Machine = HERE,
) -> Judge:
    """Train both networks on the training images of a data set, or find them in `folder`.

    folder: keeps the engine's checkpoints, from which a stopped call resumes; after a finished one
    nothing is trained again. It belongs to one data set, network and recipe. recipe.seed also
    keys the halves and the networks.

    Raises:
        ParameterError: an unknown network; a class has fewer than two images; or the checkpoints
            are damaged, or of another judge.
    """
    images, n_classes = data.train, len(data.classes)
    least = int(torch.bincount(images.labels, minlength=n_classes).min())
    require(least >= 2, "images", f"{least} of a class", "at least 2 of each, one in either half")
    half = halves(images.labels, data.name, recipe.seed)
    trained, means = [], []
    for own in (0, 1):
        sees = _without(data, half, own)
        key = ("diagnosis network", data.name, recipe.seed, own)
        net = networks.build(network, data.channels, data.side, n_classes, key)
        place = None if folder is None else folder / f"half-{own}"
        named = f"judge {own + 1} of 2"
        advice = "take another network as judge, or another seed"
        train(net, sees, recipe, place, name=named, advice=advice, show=named, **machine.options)
        trained.append(net.eval())
        means.append(class_means(sees))
    about = {"network": network, "recipe": asdict(recipe)}
    pair = (trained[0], trained[1])
    error = _error(pair, data, half, None if folder is None else folder / "judge.json", about)
    return Judge(pair, half, torch.stack(means), data.mean, data.std, error, about)


def _without(data: ImageSet, half: Tensor, own: int) -> TrainingSet:
    """The training images that are not of half `own`."""
    return TrainingSet(
        pixels=data.train.pixels,
        labels=data.train.labels,
        rows=torch.nonzero(half != own)[:, 0],
        n_classes=len(data.classes),
        mean=data.mean,
        std=data.std,
        flips=data.flips,
    )


def class_means(images: TrainingSet) -> Tensor:
    """The mean image of each class: float32 (classes, C, H, W), in levels."""
    shape = (images.n_classes, *images.pixels.shape[1:])
    total = torch.zeros(shape, dtype=torch.float64)
    for rows in images.rows.split(evaluate.BATCH_SIZE):
        total.index_add_(0, images.labels[rows], images.pixels[rows].double())
    counts = torch.bincount(images.labels[images.rows], minlength=images.n_classes)
    return (total / counts.clamp(min=1)[:, None, None, None]).float()


def _error(
    pair: tuple[nn.Module, nn.Module],
    data: ImageSet,
    half: Tensor,
    path: Path | None,
    about: dict[str, Any],
) -> float:
    """Share of the images that the network which did not see them gets wrong; noted in `path`."""
    made_by = digest([about, data.name, len(half)])
    if path is not None and path.exists():
        found = read_json(path, "judge", ("fingerprint", "error"))
        if found["fingerprint"] == made_by:
            return found["error"]
    wrong = 0.0
    for own, network in enumerate(pair):
        rows = torch.nonzero(half == own)[:, 0]
        images = Images(data.train.pixels[rows], data.train.labels[rows], data.classes)
        wrong += len(rows) * evaluate.evaluate(network, images, data.mean, data.std)["error"]
    error = wrong / len(half)
    if path is not None:
        write_json(path, {"fingerprint": made_by, "error": error, **about})
    return error
