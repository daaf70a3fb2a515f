"""Algorithm 1 in memory, for several seeds at once: find the slow, train, score.

`pipeline.run` puts one seed of it into a folder; `experiments.compare` and `experiments.tune` run
many. Each function takes the `Settings` of the run and the seeds to do together, in place of
`settings.seed`; a seed's result is that of `pipeline.run`, alone and in company (up to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.seeding import numpy_stream, seed_for
from common.threads import one_thread
from empirical.config.settings import Settings
from empirical.datasets.base import Images, to_float
from empirical.datasets.splits import Split
from empirical.pipeline import arms
from empirical.pipeline.arms import Pair
from empirical.selection import slow_sets
from empirical.selection.slow_sets import Slow
from empirical.training import batched, networks
from empirical.training.optimizers import Optimizer, Parameters
from empirical.training.recipes import Recipe, early_recipe, final_recipe

Advance = Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """An arm trained for S seeds: stacked parameters, bool (S, scored images), steps of each."""

    parameters: Parameters
    wrong: np.ndarray
    steps: list[int]


def _start(images: Images, settings: Settings, purpose: str, seeds: Sequence[int]) -> Parameters:
    _, channels, side, _ = images.pixels.shape
    shape = (settings.network, channels, side, len(images.classes))
    return batched.stack(
        [
            networks.initial(*shape, (f"{purpose} network", settings.dataset, settings.split, seed))
            for seed in seeds
        ]
    )


def _network(images: Images, settings: Settings) -> torch.nn.Module:
    _, channels, side, _ = images.pixels.shape
    return networks.make(settings.network, channels, side, len(images.classes))


def _recipes(
    recipe: Callable[[Settings, int], Recipe], settings: Settings, size: int, seeds: Sequence[int]
) -> list[Recipe]:
    return [recipe(replace(settings, seed=seed), size) for seed in seeds]


def find_slow(images: Images, split: Split, settings: Settings, seeds: Sequence[int]) -> list[Slow]:
    """Steps 1 and 2: train to the separating epoch, cluster the outputs of each class.

    The early network is always trained with plain SGD, so that both optimizers get the same slow
    examples. Test images are assigned to the nearer cluster of their
    class for reporting only.
    """
    network = _network(images, settings)
    train = torch.from_numpy(split.train)
    labels = images.labels[train]
    recipes = _recipes(early_recipe, settings, settings.separating_epoch, seeds)
    with one_thread():
        plan = batched.make_plan([torch.arange(len(train))] * len(seeds), recipes)
        parameters = batched.train(
            network,
            _start(images, settings, "early", seeds),
            to_float(images.pixels[train]),
            labels,
            plan,
            Optimizer.of(recipes[0]),
            name="the early training",
            advice=f"lower its learning rate, {settings.separating_lr:g}",
        )
        on_train = batched.logits(network, parameters, to_float(images.pixels[train])).numpy()
        on_test = batched.logits(network, parameters, to_float(images.pixels[split.test])).numpy()
        shown = slow_sets.softmax if settings.outputs == "softmax" else lambda outputs: outputs
        found = []
        for seed, own, other in zip(seeds, on_train, on_test, strict=True):
            clusters = slow_sets.cluster(
                shown(own),
                slow_sets.cross_entropy(own, labels.numpy()),
                labels.numpy(),
                len(images.classes),
                seed_for("clusters", settings.dataset, settings.split, seed),
            )
            test_labels = images.labels[split.test].numpy()
            slow_sets.check_some(clusters.slow, f"cluster of seed {seed}")
            found.append(Slow(clusters.slow, slow_sets.assign(clusters, shown(other), test_labels)))
    return found


def arm_pairs(split: Split, settings: Settings, slow: np.ndarray, seed: int) -> list[Pair]:
    """The training set of the settings' arm for one seed, as (source, copy)."""
    rng = numpy_stream("syn-rand", settings.dataset, settings.split, seed)
    return arms.training_set(settings.arm, settings.k, split.train, slow, rng)


def train_arm(
    images: Images,
    split: Split,
    settings: Settings,
    seeds: Sequence[int],
    pairs: Sequence[Sequence[Pair]],
    synthetic: Sequence[dict[Pair, Tensor]],
    scored: np.ndarray,
    advance: Advance = lambda: None,
) -> Trained:
    """Step 4: train a fresh network for each seed on its own training set, and score it.

    pairs: for each seed its training set; synthetic: for each seed its images by pair (uint8);
    scored: indices of the images to score, test or validation.
    """
    rows: list[Tensor] = []
    bank, labels = [images.pixels[split.train]], [images.labels[split.train]]
    real: dict[Pair, int] = {(int(source), 0): row for row, source in enumerate(split.train)}
    size = len(real)
    for own_pairs, own_images in zip(pairs, synthetic, strict=True):
        made = arms.synthetic(list(own_pairs))
        place = real | {pair: size + row for row, pair in enumerate(made)}
        rows.append(torch.tensor([place[pair] for pair in own_pairs]))
        bank += [own_images[pair][None] for pair in made]
        labels.append(images.labels[torch.tensor([s for s, _ in made], dtype=torch.int64)])
        size += len(made)
    recipes = _recipes(final_recipe, settings, len(split.train), seeds)
    steps = [recipe.total_steps(len(own)) for recipe, own in zip(recipes, rows, strict=True)]
    network = _network(images, settings)
    with one_thread():
        plan = batched.make_plan(rows, recipes)
        parameters = batched.train(
            network,
            _start(images, settings, "final", seeds),
            to_float(torch.cat(bank)),
            torch.cat(labels),
            plan,
            Optimizer.of(recipes[0]),
            advance,
            name=f"the training of {settings.arm} with {settings.optimizer}",
            advice=f"lower its learning rate, {settings.tuned_lr:g}",
        )
        outputs = batched.logits(network, parameters, to_float(images.pixels[scored]))
    wrong = (outputs.argmax(dim=2) != images.labels[scored]).numpy()
    return Trained(parameters, wrong, steps)
