"""What is measured before a recommendation: a few copies at every strength, and learning times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import ParameterError, require
from common.progress import progress
from common.seeding import numpy_stream
from common.threads import one_thread
from empirical.config.settings import Settings, changed
from empirical.datasets.base import Images, ImageSet, take
from empirical.datasets.splits import Split
from empirical.diagnosis.classifier import DEFAULT, Judge, halves, train_judge
from empirical.diagnosis.evidence import fidelity
from empirical.diagnosis.faithfulness import (
    PASSES,
    Faithfulness,
    Observations,
    observe,
    summarise,
)
from empirical.generation.base import Backend, Originals
from empirical.pipeline.synthesis import seen_by, stored_images
from empirical.recommendation.rule import LearningTimes, MeasuredStrength
from empirical.runtime import HERE, Machine
from empirical.selection.early_training import early_job
from empirical.training import evaluate
from empirical.training.engine import train
from empirical.training.recipes import Recipe

DRAWS = 200
"""Resamples of the sources."""


def check_grid(settings: Settings, strengths: Sequence[float]) -> None:
    """Raise ParameterError unless strength and k are to be chosen here, among these strengths.

    They are for TADA's copies of the original with noise of their own: along one denoising run
    copies differ in more than their noise, and from noise there is no strength.
    """
    require(settings.arm == "tada", "arm", settings.arm, "tada, whose strength and k are chosen")
    for name in ("trajectory", "from_noise"):
        value = getattr(settings.generation, name)
        require(not value, name, value, "off: copies have noise of their own and an original")
    require(len(strengths) > 0, "strengths", "none", "at least one")
    each = len(set(strengths)) == len(strengths)
    require(each, "strengths", list(strengths), "each once")
    changed(settings, strengths=tuple(strengths))  # refuses those that are none


@dataclass(frozen=True)
class Probe:
    """What the copies of each strength keep, in the order of rising strengths.

    faithfulness: of copies of slow sources; fast: of fast ones, None where they were not needed;
    kept: what the rule is given: fidelity from `fast` if that is there, all else from the slow;
    resamples: `kept` again, each from resampled sources; judge: its error and training.
    """

    faithfulness: list[Faithfulness]
    fast: list[Faithfulness] | None
    kept: list[MeasuredStrength]
    resamples: list[list[MeasuredStrength]]
    judge: dict[str, Any]


def probe(
    data: ImageSet,
    split: Split,
    slow: np.ndarray,
    settings: Settings,
    backend: Backend,
    strengths: Sequence[float],
    out: Path,
    sources: int = 256,
    copies: int = 2,
    network: str = "conv4",
    recipe: Recipe = DEFAULT,
    machine: Machine = HERE,
) -> Probe:
    """Make copies of some slow sources at every strength, in OUT/probe, and measure them.

    slow: bool (n_train,); strengths: rising; sources: at most so many, drawn at random; copies: of
    each at each strength; network, recipe: of the judge, kept in OUT/judge. It is trained on the
    images that a run uses anyway, those of the training and of the pool; never on test images.

    Slow examples are those that a network learns late, and a judge that has no more images may not
    see their class at all. Then fidelity is measured on as many fast sources instead. That is what
    the generator keeps of a feature that is easy to see, and it may keep less of a faint one.

    Raises:
        ParameterError: sources or copies is below 1; there are no slow images; or the judge sees
            the class neither in slow nor in fast images, so that there is no fidelity.
    """
    for name, value in (("sources", sources), ("copies", copies)):
        require(value >= 1, name, value, "at least 1")
    rows = np.union1d(split.train, split.pool)
    known = take(data.train, rows)
    seen_by_judge = ImageSet(data.name, known, data.test, data.flips, data.mean, data.std)
    judge: Judge | None = None

    def measured(group: np.ndarray) -> tuple[list[Faithfulness], list[list[MeasuredStrength]]]:
        nonlocal judge
        chosen, of_copy, pixels = probe_copies(
            data, split, group, settings, backend, strengths, out, sources, copies, machine
        )
        judge = judge or train_judge(seen_by_judge, network, recipe, out / "judge", machine)
        index = torch.from_numpy(chosen)
        place = torch.from_numpy(np.searchsorted(rows, chosen))
        originals = Originals(data.train.pixels[index], data.train.labels[index], place)
        of = torch.arange(len(chosen)).repeat_interleave(len(of_copy))
        every = torch.tensor(of_copy, dtype=torch.float64).repeat(len(chosen))
        masks = [every == strength for strength in strengths]
        shown = progress("passes over sources", PASSES * len(chosen))
        with one_thread(), shown as advance:
            seen = observe(originals, pixels.flatten(0, 1), of, judge, settings.seed, advance)
            found = [
                summarise(seen, mask, strength, settings.seed, distances=False)
                for strength, mask in zip(strengths, masks, strict=True)
            ]
        rng = numpy_stream("recommendation resamples", settings.seed)
        return found, resamples(seen, [mask.numpy() for mask in masks], strengths, rng)

    found, drawn = measured(slow)
    fast = None
    if any(own.fidelity is None for own in found) and not slow.all():
        fast, others = measured(~slow)
        drawn = [
            [replace(own, fidelity=other.fidelity) for own, other in zip(*both, strict=True)]
            for both in zip(drawn, others, strict=True)
        ]
    assert judge is not None
    kept = [_kept(own, other) for own, other in zip(found, fast or found, strict=True)]
    about = {**judge.about, "error": judge.error, "images": len(rows)}
    return Probe(found, fast, kept, drawn, about)


def _kept(own: Faithfulness, seen: Faithfulness) -> MeasuredStrength:
    """seen: where fidelity comes from."""
    if seen.fidelity is None:
        allowed = "more, or --judge-epochs larger: the judge does not see the class of these images"
        raise ParameterError("sources", seen.sources, allowed)
    # an image without noise has none to keep, and no amplitude
    tau = 0.0 if own.kept_noise is None else own.kept_noise.value
    amplitude = 0.0 if own.amplitude is None else own.amplitude.value
    assert own.strength is not None
    return MeasuredStrength(own.strength, seen.fidelity.value, tau, amplitude)


def probe_copies(
    data: ImageSet,
    split: Split,
    group: np.ndarray,
    settings: Settings,
    backend: Backend,
    strengths: Sequence[float],
    out: Path,
    sources: int,
    copies: int,
    machine: Machine,
) -> tuple[np.ndarray, list[float], Tensor]:
    """Sources (indices, rising), the strength of each of a source's m copies, and the copies.

    group: bool (n_train,), whose copies. They are uint8 (n, m, C, H, W), made once and kept in
    OUT/probe.
    """
    every = split.train[group]
    require(len(every) > 0, "selection", "no slow images", "another: there are none to copy")
    order = numpy_stream("recommendation sources", settings.seed).permutation(every)
    chosen = np.sort(order[:sources])
    m = len(strengths) * copies
    asked = changed(settings, k=m + 1, strengths=tuple(strengths))
    pairs = [(int(source), copy) for source in chosen for copy in range(1, m + 1)]
    folder, batch = out / "probe", machine.generation_batch
    seen = seen_by(settings, out / "generator")
    made = stored_images(data.train, pairs, asked, backend, settings.seed, folder, batch, seen=seen)
    pixels = torch.stack([made[pair] for pair in pairs])
    of_copy = [strengths[(number - 1) % len(strengths)] for number in range(1, m + 1)]
    return chosen, of_copy, pixels.reshape(len(chosen), m, *pixels.shape[1:])


def resamples(
    seen: Observations,
    masks: Sequence[np.ndarray],
    strengths: Sequence[float],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[list[MeasuredStrength]]:
    """c, τ and a of every strength, from the same resampled sources at all strengths.

    masks: bool (N,), the copies of each strength; each source has as many at every strength.
    """
    n = len(seen.gram)
    squares = np.concatenate([np.diag(own) for own in seen.gram])  # |r|² of each copy, as `rows`
    per_copy = {**seen.per_copy, "self": squares}
    number = np.stack([np.bincount(seen.rows[mask], minlength=n) for mask in masks])
    require(bool((number > 0).all()), "copies", "none of a source", "at least one of each strength")

    def averaged(name: str) -> np.ndarray:
        """Mean over a source's copies: (strengths, n)."""
        values = per_copy[name]
        sums = [np.bincount(seen.rows[m], weights=values[m], minlength=n) for m in masks]
        return np.stack(sums) / number

    copy = {name: averaged(name) for name in ("evidence", "inner", "self")}
    found = []
    for _ in range(draws):
        weight = np.bincount(rng.integers(n, size=n), minlength=n) / n
        mean = {name: values @ weight for name, values in copy.items()}
        source = {name: float(seen.per_source[name] @ weight) for name in ("evidence", "self")}
        mixed = (weight @ seen.mixed).tolist()
        here = []
        for row, strength in enumerate(strengths):
            own = {name: float(values[row]) for name, values in mean.items()}
            c = fidelity(own["evidence"], source["evidence"], mixed)
            both = own["self"] * source["self"]
            tau = own["inner"] / both**0.5 if both > 0 else 0.0
            a = (own["self"] / source["self"]) ** 0.5 if source["self"] > 0 else 0.0
            here.append(MeasuredStrength(strength, c if np.isfinite(c) else 0.0, tau, a))
        found.append(here)
    return found


# --- learning times ------------------------------------------------------------------------------


def measure_learning_times(
    data: ImageSet,
    split: Split,
    slow: np.ndarray,
    settings: Settings,
    folder: Path | None = None,
    machine: Machine = HERE,
) -> tuple[LearningTimes, dict[str, list[float]]]:
    """How long slow examples take against fast ones, and against their own noise.

    A network like the early one is trained on one half of the training images for
    `separating_epochs`. Its accuracy on the fast and slow images of the *other* half shows when
    their features are learned, that on its own slow images when these are, by feature or by noise.
    Returns the pace and the three curves, accuracies after every epoch.
    """
    labels = data.train.labels[split.train]
    half = halves(labels, "pace", settings.data.dataset, settings.data.split, settings.seed).numpy()
    groups = {
        "fast": (half == 1) & ~slow,
        "slow": (half == 1) & slow,
        "slow_seen": (half == 0) & slow,
    }
    images = {name: take(data.train, split.train[own]) for name, own in groups.items() if own.any()}

    def evaluate(network: nn.Module) -> Mapping[str, float]:
        return {name: _accuracy(network, own, data) for name, own in images.items()}

    mine = replace(split, train=split.train[half == 0])
    job = early_job(data, mine, settings, settings.selection.separating_epochs, "pace")
    trained = train(
        job.network,
        job.data,
        replace(job.recipe, batch_size=min(job.recipe.batch_size, len(mine.train))),
        folder,
        evaluate=evaluate,
        name="the training for the pace",
        advice=job.advice,
        show="steps of the pace",
        **machine.options,
    )
    curves = {name: [epoch["evaluation"][name] for epoch in trained.history] for name in images}
    return learning_times_of(curves, 1 / len(data.classes)), curves


def _accuracy(network: nn.Module, images: Images, data: ImageSet) -> float:
    return 1 - evaluate.evaluate(network, images, data.mean, data.std)["error"]


def learning_times_of(curves: Mapping[str, Sequence[float]], chance: float) -> LearningTimes:
    """Ratios of learning times from accuracies by epoch of fast, slow and slow_seen images.

    A time is when the accuracy is first midway between `chance` (before the first epoch) and 1,
    by straight lines between epochs. slow_over_noise is halved: the network saw half of the images,
    and (33) goes as 1/N. Where slow images are not learned, times are at least the last epoch.
    """
    times = {name: _time(curves.get(name, ()), chance) for name in ("fast", "slow", "slow_seen")}
    fast, slow, seen = (times[name] for name in ("fast", "slow", "slow_seen"))
    if "slow" not in curves:
        return LearningTimes()
    last = float(len(curves["slow"]))
    feature = last if slow is None else slow
    return LearningTimes(
        None if fast is None else feature / fast,
        None if seen is None else feature / seen / 2,
        at_least=slow is None,
    )


def _time(curve: Sequence[float], chance: float) -> float | None:
    level, before = (1 + chance) / 2, chance
    for epoch, accuracy in enumerate(curve):
        if accuracy >= level:
            return epoch + (level - before) / (accuracy - before)
        before = accuracy
    return None
