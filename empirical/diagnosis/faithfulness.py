"""How faithful copies are to their sources: `measure`. Every number is defined in README.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from common.errors import require
from common.seeding import numpy_stream, torch_stream
from empirical.diagnosis.classifier import Judge
from empirical.diagnosis.distances import Distances, Features, judged_distances
from empirical.diagnosis.estimates import Estimate, resampled
from empirical.diagnosis.evidence import DRAWS, LEVELS, evidence, fidelity, mixtures
from empirical.diagnosis.residuals import filtered, unused, whitening
from empirical.generation.base import Originals
from empirical.training import evaluate
from theory.family import FamilyMember

SEEN = 3.0
"""The sources' mean evidence must be so many standard errors above 0, or there is no fidelity."""
CHUNK = 64
"""Sources whose residuals are in memory at once."""
WHITENED_ON = 512
"""Sources that the whitening filter is made from, at most."""

PASSES = len(LEVELS) + 1
"""How often `advance` is called for each source."""

Advance = Callable[[], None]


@dataclass(frozen=True)
class Faithfulness:
    """Copies of one strength against their sources; strength None: of all strengths together.

    None where a number is not defined: fidelity if the judge does not see what the sources show,
    diversity and nearest without two copies of one source. distances: by feature space, empty
    without torchmetrics.
    """

    strength: float | None
    sources: int
    copies: int
    fidelity: Estimate | None
    evidence: Estimate | None
    kept_noise: Estimate | None
    kept_layout: Estimate | None
    amplitude: Estimate | None
    feature_agreement: Estimate | None
    agreement: Estimate | None
    consistency: Estimate | None
    source_consistency: Estimate | None
    relative_consistency: Estimate | None
    diversity: Estimate | None
    nearest: Estimate | None
    distances: Mapping[str, Distances] = field(default_factory=dict)

    def member(self, k: float) -> FamilyMember | None:
        """The member of theory's family with these c, τ and a, c and τ cut to [0, 1]."""
        if self.fidelity is None or self.kept_noise is None or self.amplitude is None:
            return None
        c, tau = (min(1.0, max(0.0, own.value)) for own in (self.fidelity, self.kept_noise))
        return FamilyMember(k, c, tau, self.amplitude.value)


def measure(
    sources: Originals,
    copies: Tensor,
    strengths: Sequence[float],
    judge: Judge,
    seed: int = 0,
    distances: bool = True,
    advance: Advance = lambda: None,
) -> list[Faithfulness]:
    """How faithful copies are at each strength, the weakest first.

    sources: training images of the judge's data set; copies: uint8 (n, m, C, H, W); strengths: of
    the m copies, some or all of them equal; seed: of mixtures and bootstrap; distances: FID and
    KID too; advance: called PASSES times for each source.

    Raises:
        ParameterError: the shapes do not fit together, or a source is not one of the judge's.
    """
    n, m = len(sources), len(strengths)
    shape = (n, m, *sources.pixels.shape[1:])
    fits = copies.dtype == torch.uint8 and tuple(copies.shape) == shape
    require(fits, "copies", f"{copies.dtype} {tuple(copies.shape)}", f"uint8 {shape}")
    rows = torch.arange(n).repeat_interleave(m)
    every = torch.tensor(strengths, dtype=torch.float64).repeat(n)
    seen = observe(sources, copies.flatten(0, 1), rows, judge, seed, advance)
    return [
        summarise(seen, every == strength, strength, seed, distances)
        for strength in sorted(set(strengths))
    ]


@dataclass(frozen=True, eq=False)
class Observations:
    """What the judge says of n sources and N copies, and their residuals' products.

    rows: int64 (N,), the source of each copy, rising; per_source, per_copy: float64 (n,) and (N,)
    by name; mixed: (n, levels); gram: for each source (m, m), of its copies' whitened residuals
    in the order of `rows`; features: of each half.
    """

    rows: np.ndarray
    per_source: dict[str, np.ndarray]
    per_copy: dict[str, np.ndarray]
    mixed: np.ndarray
    gram: list[np.ndarray]
    features: list[Features]


def observe(
    sources: Originals,
    pixels: Tensor,
    rows: Tensor,
    judge: Judge,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> Observations:
    """What `summarise` needs, of any number of copies of each source.

    pixels: uint8 (N, C, H, W); rows: int64 (N,), which of the sources each is a copy of; rising.

    Raises:
        ParameterError: there are none, `rows` fall, or a source is not one of the judge's images.
    """
    n, total = len(sources), len(rows)
    require(n > 0 and total > 0, "copies", f"{total} of {n} sources", "at least one")
    require(bool((rows.diff() >= 0).all()), "rows", "falling", "rising: a source's copies together")
    known, most = len(judge.half), int(sources.indices.max())
    fits = int(sources.indices.min()) >= 0 and most < known
    require(fits, "source", most, f"below {known}, the images that the judge knows")
    fits = sources.pixels.shape[1:] == judge.means.shape[2:]
    require(fits, "sources", tuple(sources.pixels.shape[1:]), f"{tuple(judge.means.shape[2:])}")
    half = judge.half[sources.indices]
    names = ("evidence", "right", "self", "self_pixels", "feature_self")
    per_source = {name: np.zeros(n) for name in names}
    names = ("evidence", "right", "agree", "inner", "inner_pixels", "self_pixels")
    per_copy = {name: np.zeros(total) for name in (*names, "feature_inner", "feature_self")}
    mixed = np.zeros((n, len(LEVELS)))
    gram: list[np.ndarray] = [np.zeros((0, 0))] * n
    features = []
    for own in (0, 1):
        here = torch.nonzero(half == own)[:, 0]
        if not len(here):
            continue
        some = sources.rows(here)
        mine = torch.nonzero(half[rows] == own)[:, 0]
        place = torch.full((n,), -1, dtype=torch.int64)
        place[here] = torch.arange(len(here))
        to, at = here.numpy(), mine.numpy()
        copies, of = pixels[mine], place[rows[mine]]

        network, labels = judge.networks[own], some.labels
        shares = torch.bincount(labels, minlength=judge.means.shape[1]) / len(labels)

        def ask(
            images: Tensor, layer: str = "logits", network: torch.nn.Module = network
        ) -> Tensor:
            return evaluate.outputs(network, images, judge.mean, judge.std, layer=layer)

        means = judge.means[own]
        centre = means.mean(0)
        stream = torch_stream("diagnosis mixtures", seed, own)
        for column, level in enumerate(LEVELS):
            for _ in range(DRAWS):
                images = mixtures(some.pixels, level, centre, stream)
                mixed[to, column] += evidence(ask(images), labels, shares).numpy() / DRAWS
            for _ in range(len(some)):
                advance()

        logits, made = ask(some.pixels), ask(copies)
        answers, answered = logits.argmax(1), made.argmax(1)
        per_source["evidence"][to] = evidence(logits, labels, shares).numpy()
        per_source["right"][to] = (answers == labels).numpy()
        per_copy["evidence"][at] = evidence(made, labels[of], shares).numpy()
        per_copy["right"][at] = (answered == labels[of]).numpy()
        per_copy["agree"][at] = (answered == answers[of]).numpy()

        real, synthetic = (ask(images, "penultimate") for images in (some.pixels, copies))
        features.append(Features(real, synthetic, of, to))
        middle = real.double().mean(0)
        real, synthetic = real.double() - middle, synthetic.double() - middle
        per_source["feature_self"][to] = real.square().sum(1).numpy()
        per_copy["feature_inner"][at] = (real[of] * synthetic).sum(1).numpy()
        per_copy["feature_self"][at] = synthetic.square().sum(1).numpy()

        step = max(1, len(some) // WHITENED_ON)
        kernel = whitening(some.pixels[::step].float() - means[labels[::step]])
        for first in range(0, len(some), CHUNK):
            piece = slice(first, min(first + CHUNK, len(some)))
            about = some.rows(piece)
            kept = unused(network, about.pixels, about.labels, judge.mean, judge.std)
            a, b = np.searchsorted(of.numpy(), (piece.start, piece.stop))
            whose = of[a:b] - first
            plain = about.pixels.float() - means[about.labels]
            plain_made = copies[a:b].float() - means[about.labels][whose]
            for name, x, y in (
                ("", filtered(plain, kernel), filtered(plain_made, kernel)),
                ("_pixels", plain, plain_made),
            ):
                x = (x * kept).flatten(1).double()
                y = (y * kept[whose]).flatten(1).double()
                per_source[f"self{name}"][to[piece]] = x.square().sum(1).numpy()
                per_copy[f"inner{name}"][at[a:b]] = (x[whose] * y).sum(1).numpy()
                if name:
                    per_copy["self_pixels"][at[a:b]] = y.square().sum(1).numpy()
                    continue
                for number in range(len(about)):
                    siblings = y[whose == number]
                    gram[to[first + number]] = (siblings @ siblings.T).numpy()
                    advance()
    return Observations(rows.numpy(), per_source, per_copy, mixed, gram, features)


def summarise(
    seen: Observations,
    chosen: Tensor,
    strength: float | None,
    seed: int = 0,
    distances: bool = True,
) -> Faithfulness:
    """The numbers of some copies. chosen: bool (N,), at least one of them."""
    picked = chosen.numpy()
    n = len(seen.gram)
    number = np.bincount(seen.rows[picked], minlength=n)
    there = number > 0
    require(bool(there.any()), "copies", "none", "at least one")

    def averaged(values: np.ndarray) -> np.ndarray:
        total = np.bincount(seen.rows[picked], weights=values[picked], minlength=n)
        return total[there] / number[there]

    columns = {f"source_{name}": own[there] for name, own in seen.per_source.items()}
    columns |= {f"copy_{name}": averaged(own) for name, own in seen.per_copy.items()}
    columns |= {f"mixed_{level}": own for level, own in enumerate(seen.mixed[there].T)}
    columns |= _among_copies(seen, picked, there)
    rng = numpy_stream("diagnosis bootstrap", seed)
    found = resampled(columns, _numbers, rng)
    spread = columns["source_evidence"].std(ddof=1) if there.sum() > 1 else math.inf
    if columns["source_evidence"].mean() < SEEN * spread / math.sqrt(there.sum()):
        found.pop("fidelity", None)
        found.pop("evidence", None)
    return Faithfulness(
        strength=strength,
        sources=int(there.sum()),
        copies=int(picked.sum()),
        distances=_distances(seen, picked) if distances else {},
        **{name: found.get(name) for name in _NAMES},
    )


def _among_copies(
    seen: Observations, picked: np.ndarray, there: np.ndarray
) -> dict[str, np.ndarray]:
    """For each source: its copies' mean |r|², and of pairs of copies the mean product and |r|².

    nearest: the mean over copies of the distance to the nearest other one, over √2 times the
    copies' root mean square; 0, like the pairs, for a source with a single copy.
    """
    n = len(seen.gram)
    starts = np.searchsorted(seen.rows, np.arange(n + 1))
    columns = {name: np.zeros(n) for name in ("copy_self", "pair", "pair_self", "near", "pairs")}
    for source in np.flatnonzero(there):
        mine = picked[starts[source] : starts[source + 1]]
        gram = seen.gram[source][np.ix_(mine, mine)]
        own = np.diag(gram)
        m = len(own)
        columns["copy_self"][source] = own.mean()
        if m > 1:
            columns["pairs"][source] = 1
            columns["pair"][source] = (gram.sum() - own.sum()) / (m * (m - 1))
            columns["pair_self"][source] = own.mean()
            apart = own[:, None] + own[None] - 2 * gram
            np.fill_diagonal(apart, np.inf)
            scale = math.sqrt(2 * own.mean()) or 1.0
            columns["near"][source] = np.sqrt(apart.min(axis=1).clip(0)).mean() / scale
    return {name: values[there] for name, values in columns.items()}


_NAMES = (
    *("fidelity", "evidence", "kept_noise", "kept_layout", "amplitude", "feature_agreement"),
    *("agreement", "consistency", "source_consistency", "relative_consistency"),
    *("diversity", "nearest"),
)


def _numbers(mean: Mapping[str, float]) -> dict[str, float]:
    """Everything of a strength that is a function of means over sources; NaN: not defined."""
    mixed = [mean[f"mixed_{level}"] for level in range(len(LEVELS))]
    copies, sources = mean["copy_evidence"], mean["source_evidence"]

    def correlation(inner: float, one: float, other: float) -> float:
        return _ratio(inner, math.sqrt(one * other))

    return {
        "fidelity": fidelity(copies, sources, mixed),
        "evidence": _ratio(copies, sources),
        "kept_noise": correlation(mean["copy_inner"], mean["copy_self"], mean["source_self"]),
        "kept_layout": correlation(
            mean["copy_inner_pixels"], mean["copy_self_pixels"], mean["source_self_pixels"]
        ),
        "amplitude": math.sqrt(_ratio(mean["copy_self"], mean["source_self"])),
        "feature_agreement": correlation(
            mean["copy_feature_inner"], mean["copy_feature_self"], mean["source_feature_self"]
        ),
        "agreement": mean["copy_agree"],
        "consistency": mean["copy_right"],
        "source_consistency": mean["source_right"],
        "relative_consistency": _ratio(mean["copy_right"], mean["source_right"]),
        "diversity": 1 - _ratio(mean["pair"], mean["pair_self"]),
        "nearest": _ratio(mean["near"], mean["pairs"]),
    }


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else float("nan")


def _distances(seen: Observations, picked: np.ndarray) -> dict[str, Distances]:
    """FID and KID in the judge's features; nothing without torchmetrics."""
    chosen = []
    for own in seen.features:
        # copies of a half stand in the order of `rows`
        mine = picked[np.isin(seen.rows, own.sources)]
        copies, of = own.copies[torch.from_numpy(mine)], own.of[torch.from_numpy(mine)]
        left, of = torch.unique(of, return_inverse=True)
        if len(left):
            chosen.append(Features(own.real[left], copies, of, own.sources[left.numpy()]))
    found = judged_distances(chosen)
    return {} if found is None else {"judge": found}
