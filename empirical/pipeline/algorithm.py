"""Algorithm 1 in memory: its four steps for one seed, or for several seeds at once.

`pipeline.run` puts one seed of it into a folder; `experiments.compare` and `experiments.tune` do
many together, with the same results up to rounding.

    slow = find_slow_together(data, split, every_seed)       # steps 1 and 2
    pairs = arm_pairs(split, settings, slow[0].train)        # what the arm trains on
    synthetic = stored_images(...)                           # step 3
    trained = train_together([final_job(...), ...])          # step 4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.seeding import numpy_stream, seed_for
from empirical.config.settings import Settings
from empirical.datasets.base import ImageSet
from empirical.datasets.splits import Split
from empirical.pipeline import arms
from empirical.pipeline.arms import Pair
from empirical.selection.early_training import early_job, fresh_network, select
from empirical.selection.slow_sets import Slow, check_some
from empirical.training.batched import train_together
from empirical.training.batches import TrainingSet
from empirical.training.engine import Job
from empirical.training.recipes import Recipe, final_recipe


def find_slow_together(data: ImageSet, split: Split, seeds: Sequence[Settings]) -> list[Slow]:
    """Steps 1 and 2 for several seeds: one batched training of their early networks.

    seeds: settings that differ in their seed alone, with a separating epoch.

    Raises:
        NoSlowError: a seed has no slow example.
    """
    epoch = seeds[0].selection.separating_epoch
    trained = train_together([early_job(data, split, own, epoch) for own in seeds])
    found = []
    for own, done in zip(seeds, trained, strict=True):
        slow = select(done, data, split, own).slow
        check_some(slow.train, f"cluster of seed {own.seed}")
        found.append(slow)
    return found


def arm_pairs(split: Split, settings: Settings, slow: np.ndarray) -> list[Pair]:
    """The training set of the settings' arm, as (source, copy)."""
    key = ("syn-rand", settings.data.dataset, settings.data.split, settings.seed)
    return arms.training_set(settings.arm, settings.k, split.train, slow, numpy_stream(*key))


def final_set(
    data: ImageSet,
    split: Split,
    pairs: list[Pair],
    synthetic: Mapping[Pair, Tensor],
    shown: float = 1.0,
) -> TrainingSet:
    """An arm's training set: the bank is its real images and its synthetic ones, each once.

    shown: the probability with which an epoch shows a synthetic image, and not its source again.
    """
    real = torch.from_numpy(split.train)
    whole = len(real) == len(data.train.labels)
    place = {(int(source), 0): row for row, source in enumerate(split.train)}
    place |= {pair: len(real) + row for row, pair in enumerate(synthetic)}
    labels = [data.train.labels[real]]
    bank = [data.train.pixels if whole else data.train.pixels[real]]
    if synthetic:
        labels.append(data.train.labels[torch.tensor([source for source, _ in synthetic])])
        bank.append(torch.stack(list(synthetic.values())))
    return TrainingSet(
        pixels=torch.cat(bank) if len(bank) > 1 else bank[0],
        labels=torch.cat(labels),
        rows=torch.tensor([place[pair] for pair in pairs]),
        n_classes=len(data.classes),
        mean=data.mean,
        std=data.std,
        flips=data.flips,
        sources=torch.tensor([place[source, 0] for source, _ in pairs]) if shown < 1 else None,
        shown=shown,
    )


def recipe_of(settings: Settings, n_original: int) -> Recipe:
    """How the final network of a run is trained. n_original: its original training images."""
    seed = seed_for("final", settings.data.dataset, settings.data.split, settings.seed)
    return final_recipe(settings.training, seed, settings.budget == "steps", n_original)


def final_job(
    data: ImageSet,
    split: Split,
    settings: Settings,
    pairs: list[Pair],
    synthetic: Mapping[Pair, Tensor],
) -> Job:
    """Step 4: a fresh network and the arm's training set. synthetic: images by pair, uint8."""
    training = settings.training
    more = "" if training.ascent == "none" else f" or --rho {training.rho:g}"
    return Job(
        fresh_network(data, settings, "final"),
        final_set(data, split, pairs, synthetic, settings.generation.synthetic_probability),
        recipe_of(settings, len(split.train)),
        f"the training of {settings.arm} with {training.optimizer}",
        f"lower --lr {training.base_lr:g}{more}",
    )
