"""Steps 1 and 2 of Algorithm 1 with any network: train briefly, then find the slow examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.seeding import seed_for
from empirical.config.selection import SCORES
from empirical.config.settings import Settings
from empirical.datasets.base import Images, ImageSet, take
from empirical.datasets.planted import PlantedSet
from empirical.datasets.splits import Split
from empirical.runtime import HERE, Machine
from empirical.selection import scores, slow_sets
from empirical.selection.slow_sets import Slow
from empirical.training import networks
from empirical.training.batches import TrainingSet
from empirical.training.engine import Evaluate, Job, Trained, train
from empirical.training.evaluate import outputs as outputs_of
from empirical.training.recipes import early_recipe


@dataclass(frozen=True)
class Found:
    """The slow training and test images, the epoch that separates them, and what is known of it.

    about: JSON values: the early network's training error, whether it is at chance, notes on that
    in words, and on planted images precision and recall against the truth.
    losses, group: float64 and int (n_train,), each training image's loss and cluster, as of
    `slow_sets.Clusters`; -1 without clusters; network: the early one.
    """

    slow: Slow
    epoch: int
    about: dict[str, Any]
    losses: np.ndarray
    group: np.ndarray
    network: nn.Module


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
    key = (f"{purpose} network", settings.data.dataset, settings.data.split, settings.seed)
    size = (data.channels, data.side, len(data.classes))
    return networks.build(settings.network, *size, key, settings.pretrained)


def early_job(
    data: ImageSet, split: Split, settings: Settings, epochs: int, purpose: str = "early"
) -> Job:
    """The early network's training for so many epochs; those of fewer epochs lie on its way.

    purpose: keys the network's weights.
    """
    key = ("early", settings.data.dataset, settings.data.split, settings.seed)
    lr = settings.selection.separating_lr
    return Job(
        fresh_network(data, settings, purpose),
        training_set(data, split.train),
        early_recipe(settings.training, epochs, lr, seed_for(*key)),
        "the early training",
        f"lower --separating-lr {lr:g}",
    )


def find_slow(
    data: ImageSet,
    split: Split,
    settings: Settings,
    folder: Path | None = None,
    machine: Machine = HERE,
) -> Found:
    """Steps 1 and 2: train to the separating epoch with plain SGD, for every optimizer, and select.

    folder: for checkpoints.
    """
    epoch = settings.selection.separating_epoch
    if epoch == 0:
        place = None if folder is None else folder / "rule"
        most = settings.selection.separating_epochs
        looked = _train(early_job(data, split, settings, most), place, machine)
        epoch = _by_rule(data, looked)
    if settings.selection.selection in SCORES:
        return _by_score(data, split, settings, epoch, machine)
    trained = _train(early_job(data, split, settings, epoch), folder, machine)
    return select(trained, data, split, settings)


def logits_by_epoch(
    data: ImageSet, split: Split, settings: Settings, epochs: int, machine: Machine = HERE
) -> tuple[Trained, np.ndarray, np.ndarray]:
    """An early training with its logits after each epoch, (epochs, n, classes), on training and on
    test images. Without checkpoints: a killed one starts again."""
    on_train: list[np.ndarray] = []
    on_test: list[np.ndarray] = []
    parts = (take(data.train, split.train), take(data.test, split.test))

    def evaluate(network: nn.Module) -> dict[str, float]:
        for kept, images in zip((on_train, on_test), parts, strict=True):
            kept.append(outputs_of(network, images.pixels, data.mean, data.std).numpy())
        return {}

    trained = _train(early_job(data, split, settings, epochs), None, machine, evaluate)
    return trained, np.stack(on_train), np.stack(on_test)


def _by_score(
    data: ImageSet, split: Split, settings: Settings, epochs: int, machine: Machine
) -> Found:
    """Step 2 by a difficulty score of all epochs. Test images are slow from the least difficult
    slow training image on."""
    trained, on_train, on_test = logits_by_epoch(data, split, settings, epochs, machine)
    labels, own = data.train.labels.numpy()[split.train], settings.selection
    difficulty = scores.score(own.selection, on_train, labels)
    slow = slow_sets.most_difficult(difficulty, own.theta)
    test_labels = data.test.labels.numpy()[split.test]
    others = scores.score(own.selection, on_test, test_labels)
    found = Slow(slow, others >= difficulty[slow].min(initial=np.inf))
    losses = slow_sets.cross_entropy(on_train[-1], labels)
    about = _about(found, on_train[-1], labels, trained, data, split)
    return Found(found, epochs, about, losses, np.full(len(slow), -1), trained.network)


def select(trained: Trained, data: ImageSet, split: Split, settings: Settings) -> Found:
    """Step 2: the slow images, by what an early network says of them.

    Test images are slow if they lie nearest to a slow cluster of their class (selection cluster),
    above the loss of the last one taken (loss), or are misclassified; for reporting only.
    """
    on_train, on_test = _outputs(trained.network, data, split, settings)
    if settings.selection.selection == "scores":
        assert settings.selection.scores is not None
        files = None if data.files is None else data.files[0]
        path = Path(settings.selection.scores).expanduser()
        given = scores.read(path, settings.selection.scores_column, split.train.tolist(), files)
        # of test images nothing is known
        none = np.zeros(len(split.test), dtype=bool)
        slow = Slow(slow_sets.most_difficult(given, settings.selection.theta), none)
        group = np.full(len(slow.train), -1)
    else:
        slow, group = _select(on_train, on_test, data, settings)
    about = _about(slow, on_train.logits, on_train.labels, trained, data, split)
    return Found(slow, len(trained.history), about, on_train.losses, group, trained.network)


def _about(
    slow: Slow,
    logits: np.ndarray,
    labels: np.ndarray,
    trained: Trained,
    data: ImageSet,
    split: Split,
) -> dict[str, Any]:
    """What is known of a selection, as `Found` has it."""
    about: dict[str, Any] = {"early_error": trained.history[-1]["error"]}
    right = int((logits.argmax(axis=1) == labels).sum())
    about["at_chance"] = slow_sets.at_chance(right, labels)
    about["notes"] = []
    if about["at_chance"]:
        about["notes"].append(
            f"the early network's training error, {100 - 100 * right / len(labels):.0f}%, "
            "is at chance: the slow set means nothing; train it longer (--separating-epoch) or "
            "faster (--separating-lr)"
        )
    if isinstance(data, PlantedSet):
        about["train"] = slow_sets.against_truth(slow.train, data.train_slow[split.train])
        about["test"] = slow_sets.against_truth(slow.test, data.test_slow[split.test])
    return about


def truth_by_epoch(
    data: PlantedSet,
    split: Split,
    settings: Settings,
    folder: Path | None = None,
    machine: Machine = HERE,
) -> dict[str, Any]:
    """What `find_slow` would find after each of `separating_epochs` epochs, against the truth.

    Lists of one number for each epoch: precision and recall on the training images; error_fast and
    error_slow, the shares of truly fast and slow ones that the network has wrong; error, over the
    batches as they were trained on. rule: the epoch that the knee of error chooses.
    """
    truth = data.train_slow[split.train]
    images = take(data.train, split.train)

    def evaluate(network: nn.Module) -> dict[str, float]:
        slow = _select(*_outputs(network, data, split, settings), data, settings)[0].train
        logits = outputs_of(network, images.pixels, data.mean, data.std).numpy()
        wrong = logits.argmax(axis=1) != images.labels.numpy()
        errors = {"error_fast": wrong[~truth].mean(), "error_slow": wrong[truth].mean()}
        return slow_sets.against_truth(slow, truth) | {k: float(v) for k, v in errors.items()}

    job = early_job(data, split, settings, settings.selection.separating_epochs)
    trained = _train(job, folder, machine, evaluate)
    found: dict[str, Any] = {
        name: [epoch["evaluation"][name] for epoch in trained.history]
        for name in ("precision", "recall", "error_fast", "error_slow")
    }
    found["error"] = [epoch["error"] for epoch in trained.history]
    return found | {"rule": _by_rule(data, trained)}


def _train(
    job: Job, folder: Path | None, machine: Machine, evaluate: Evaluate | None = None
) -> Trained:
    return train(
        job.network,
        job.data,
        job.recipe,
        folder,
        evaluate=evaluate,
        name=job.name,
        advice=job.advice,
        show="early steps",
        **machine.options,
    )


def _by_rule(data: ImageSet, trained: Trained) -> int:
    chance = 1 - 1 / len(data.classes)
    return slow_sets.separating_epoch([chance, *(e["error"] for e in trained.history)])


def _outputs(
    network: nn.Module, data: ImageSet, split: Split, settings: Settings
) -> tuple[Outputs, Outputs]:
    """What an early network says of training and of test images."""
    on_train, on_test = (
        Outputs.of(network, own, data, settings.selection.outputs)
        for own in (take(data.train, split.train), take(data.test, split.test))
    )
    return on_train, on_test


def _select(
    on_train: Outputs, on_test: Outputs, data: ImageSet, settings: Settings
) -> tuple[Slow, np.ndarray]:
    """The slow images by what an early network says of them, and the training images' clusters."""
    seed = seed_for("clusters", settings.data.dataset, settings.data.split, settings.seed)
    n_classes = len(data.classes)
    if settings.selection.selection == "cluster":
        clusters = slow_sets.cluster(
            on_train.clustered,
            on_train.losses,
            on_train.labels,
            n_classes,
            seed,
            settings.selection.clusters,
        )
        slow_test = slow_sets.assign(clusters, on_test.clustered, on_test.labels)
        return Slow(clusters.slow, slow_test), clusters.group
    slow = slow_sets.slow_by(
        settings.selection.selection,
        on_train.clustered,
        on_train.logits,
        on_train.labels,
        n_classes,
        seed,
        settings.selection.theta,
    )
    if settings.selection.selection == "loss":
        slow_test = on_test.losses >= on_train.losses[slow].min(initial=np.inf)
    else:
        slow_test = on_test.logits.argmax(axis=1) != on_test.labels
    return Slow(slow, slow_test), np.full(len(slow), -1)


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
        logits = outputs_of(network, *given).numpy()
        clustered = {
            "logits": lambda: logits,
            "softmax": lambda: slow_sets.softmax(logits),
            "penultimate": lambda: outputs_of(network, *given, layer="penultimate").numpy(),
        }[kind]()
        labels = images.labels.numpy()
        return Outputs(logits, clustered, slow_sets.cross_entropy(logits, labels), labels)
