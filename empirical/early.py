"""Steps 1 and 2 of Algorithm 1 with any network: train briefly, then find the slow examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from empirical import networks, scoring, selection
from empirical.algorithm import Slow
from empirical.batches import TrainingSet
from empirical.data import Split
from empirical.datasets.base import Images, ImageSet
from empirical.datasets.planted import PlantedSet
from empirical.engine import train
from empirical.machine import HERE, Machine
from empirical.recipes import Recipe
from empirical.settings import Settings
from empirical.streams import seed_for


@dataclass(frozen=True)
class Found:
    """The slow training and test images, the epoch that separates them, and what is known of it.

    about: JSON values: the early network's training error, and on planted images precision and
    recall against the truth.
    """

    slow: Slow
    epoch: int
    about: dict[str, Any]


def training_set(data: ImageSet, rows: np.ndarray) -> TrainingSet:
    """Some of the training images of a data set, as they are."""
    return TrainingSet(
        pixels=data.train.pixels,
        labels=data.train.labels,
        rows=torch.from_numpy(rows),
        n_classes=len(data.classes),
        mean=data.mean,
        std=data.std,
        flips=data.flips,
    )


def fresh_network(data: ImageSet, settings: Settings, purpose: str) -> nn.Module:
    """An untrained network of a run; its weights depend on purpose, data set, split and seed."""
    key = (f"{purpose} network", settings.dataset, settings.split, settings.seed)
    return networks.build(settings.network, data.channels, data.side, len(data.classes), key)


def find_slow(
    data: ImageSet,
    split: Split,
    settings: Settings,
    folder: Path | None = None,
    machine: Machine = HERE,
) -> Found:
    """Train to the separating epoch with plain SGD, for every optimizer, and select.

    Test images are slow if they lie nearest to a slow cluster of their class (selection cluster),
    above the loss of the last one taken (loss), or are misclassified; for reporting only. folder:
    for checkpoints.
    """
    sees = training_set(data, split.train)
    epoch = settings.separating_epoch
    if epoch == 0:
        network = fresh_network(data, settings, "early")
        place = None if folder is None else folder / "rule"
        recipe = _recipe(settings, settings.separating_epochs)
        looked = train(network, sees, recipe, place, show="rule steps", **machine.options)
        chance = 1 - 1 / len(data.classes)
        epoch = selection.separating_epoch([chance, *(e["error"] for e in looked.history)])
    network = fresh_network(data, settings, "early")
    recipe = _recipe(settings, epoch)
    trained = train(network, sees, recipe, folder, show="early steps", **machine.options)
    train_images = take(data.train, split.train)
    test_images = take(data.test, split.test)
    on_train, on_test = (
        Outputs.of(network, own, data, settings.outputs) for own in (train_images, test_images)
    )
    seed = seed_for("clusters", settings.dataset, settings.split, settings.seed)
    n_classes = len(data.classes)
    clusters = None
    if settings.selection == "cluster":
        clusters = selection.cluster(
            on_train.clustered,
            on_train.losses,
            on_train.labels,
            n_classes,
            seed,
            settings.clusters,
        )
        slow = clusters.slow
        slow_test = selection.assign(clusters, on_test.clustered, on_test.labels)
    else:
        slow = selection.select(
            settings.selection,
            on_train.clustered,
            on_train.logits,
            on_train.labels,
            n_classes,
            seed,
            settings.theta,
        )
        if settings.selection == "loss":
            slow_test = on_test.losses >= on_train.losses[slow].min(initial=np.inf)
        else:
            slow_test = on_test.logits.argmax(axis=1) != on_test.labels
    about: dict[str, Any] = {"early_error": trained.history[-1]["error"]}
    if isinstance(data, PlantedSet):
        about["train"] = selection.against_truth(slow, data.train_slow[split.train])
        about["test"] = selection.against_truth(slow_test, data.test_slow[split.test])
    return Found(Slow(slow, slow_test), epoch, about)


@dataclass(frozen=True)
class Outputs:
    """What the early network says of n images: logits, what is clustered, losses, labels."""

    logits: np.ndarray
    clustered: np.ndarray
    losses: np.ndarray
    labels: np.ndarray

    @staticmethod
    def of(network: nn.Module, images: Images, data: ImageSet, kind: str) -> Outputs:
        """kind: logits, softmax or penultimate, what is clustered."""
        given = (images.pixels, data.mean, data.std)
        logits = scoring.outputs(network, *given).numpy()
        clustered = {
            "logits": lambda: logits,
            "softmax": lambda: selection.softmax(logits),
            "penultimate": lambda: scoring.outputs(network, *given, layer="penultimate").numpy(),
        }[kind]()
        labels = images.labels.numpy()
        return Outputs(logits, clustered, selection.cross_entropy(logits, labels), labels)


def _recipe(settings: Settings, epochs: int) -> Recipe:
    """The early training: no schedule, and no mixing, which would blur what is learned when."""
    return Recipe(
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=seed_for("early", settings.dataset, settings.split, settings.seed),
        optimizer="sgd",
        lr=settings.separating_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        schedule="constant",
        augmentation="none" if settings.augmentation == "none" else "crop+flip",
        precision=settings.precision,
        accumulation=settings.accumulation,
        channels_last=settings.channels_last,
    )


def take(images: Images, rows: np.ndarray) -> Images:
    """Some images of a set; the set itself where these are all."""
    if np.array_equal(rows, np.arange(len(images.labels))):
        return images
    index = torch.from_numpy(rows)
    return Images(images.pixels[index], images.labels[index], images.classes)
