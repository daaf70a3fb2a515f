"""Slow examples from an early network's outputs (Algorithm 1, step 2).

The paper's way: in each class, k-means into two clusters; the one of higher mean loss is slow.
Its alternatives: the examples of highest loss, the misclassified ones, more clusters, other
layers. And how stable a selection is between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binom
from sklearn.cluster import KMeans

from common.errors import ParameterError, require

METHODS = ("cluster", "loss", "misclassified")
"""By the outputs of one epoch."""


@dataclass(frozen=True)
class Slow:
    """Which training images (n_train,) and which test images (n_test,) of a split are slow."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Clusters:
    """The clusters of every class.

    slow: bool (n,), which of the clustered examples are slow;
    centres: float64 (classes, clusters, outputs), by rising mean loss; NaN where a class has too
        few different outputs;
    n_slow: of the centres of a class, the last n_slow are slow: int (classes,);
    group: int (n,), which of the clusters of its class each example is in, by rising mean loss; -1
        where a class was not clustered.
    """

    slow: np.ndarray
    centres: np.ndarray
    n_slow: np.ndarray
    group: np.ndarray


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each example, shape (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, shape (n, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def select_slow(
    outputs: Any,
    losses_or_logits: Any,
    labels: Any,
    method: str = "cluster",
    *,
    theta: float = 0.35,
    clusters: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Which examples are slow, of what your own network says after a few epochs (steps 1 and 2).

    Args:
        outputs: (n, d), what is clustered: logits, or what the last layer is given.
        losses_or_logits: losses (n,), or logits (n, classes), which "misclassified" needs.
        labels: whole numbers from 0, (n,).
        method: "cluster" (the paper's), "loss" or "misclassified".
        theta: the share that "loss" takes.
        clusters: of each class.
        seed: of k-means' restarts.

    Arrays are numpy's, torch's (on any device) or lists. Returns bool (n,).

    Raises:
        ParameterError: shapes or values do not fit.
    """
    own, given, whole = (_array(one) for one in (outputs, losses_or_logits, labels))
    n = len(whole)
    fits = whole.ndim == 1 and n > 0 and np.issubdtype(whole.dtype, np.integer)
    require(fits, "labels", f"{whole.dtype} {whole.shape}", "whole numbers (n,)")
    require(int(whole.min()) >= 0, "labels", int(whole.min()), "0 or more")
    require(own.ndim == 2 and len(own) == n, "outputs", own.shape, f"({n}, d)")
    fits = given.ndim in (1, 2) and len(given) == n
    require(fits, "losses_or_logits", given.shape, f"({n},) or ({n}, classes)")
    classes = int(whole.max()) + 1
    if given.ndim == 2:
        enough = given.shape[1] >= classes
        require(enough, "losses_or_logits", given.shape, f"logits of {classes} classes or more")
        return slow_by(method, own, given, whole, classes, seed, theta, clusters)
    require(method != "misclassified", "method", method, "given logits, not losses")
    if method == "cluster":
        return cluster(own, given, whole, classes, seed, clusters).slow
    return most_difficult(given, theta)


def _array(values: Any) -> np.ndarray:
    """numpy's form of an array; of torch's, wherever it is and whatever needs its gradient."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def slow_by(
    method: str,
    outputs: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    seed: int,
    theta: float = 0.35,
    n_clusters: int = 2,
) -> np.ndarray:
    """Which examples are slow, bool (n,), by "cluster", "loss" or "misclassified".

    outputs: (n, d), what is clustered; logits: (n, classes), for losses and predictions; theta: the
    share that "loss" takes, over all classes together. Raises ParameterError for another method, a
    theta outside (0, 1) or fewer than two clusters.
    """
    require(method in METHODS, "selection", method, " or ".join(METHODS))
    require(0 < theta < 1, "theta", theta, "inside (0, 1)")
    losses = cross_entropy(logits, labels)
    if method == "cluster":
        return cluster(outputs, losses, labels, n_classes, seed, n_clusters).slow
    if method == "misclassified":
        return logits.argmax(axis=1) != labels
    return most_difficult(losses, theta)


def most_difficult(losses: np.ndarray, theta: float) -> np.ndarray:
    """The share theta of highest loss, or score; ties (such as copies) go to the first examples."""
    slow = np.zeros(len(losses), dtype=bool)
    slow[np.argsort(-losses, kind="stable")[: round(theta * len(losses))]] = True
    return slow


def cluster(
    outputs: np.ndarray,
    losses: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    seed: int,
    n_clusters: int = 2,
) -> Clusters:
    """Split each class by k-means; of two clusters the one with the higher mean loss is slow.

    With more clusters, those whose mean loss lies above the mean of the class. A class with fewer
    than `n_clusters` different outputs has no slow examples.
    outputs: (n, d); losses, labels: (n,); seed: of k-means' restarts. Raises ParameterError for
    fewer than two clusters.
    """
    require(n_clusters >= 2, "clusters", n_clusters, "at least 2")
    slow = np.zeros(len(labels), dtype=bool)
    centres = np.full((n_classes, n_clusters, outputs.shape[1]), np.nan)
    n_slow = np.zeros(n_classes, dtype=int)
    placed = np.full(len(labels), -1)
    for label in range(n_classes):
        members = np.flatnonzero(labels == label)
        own = outputs[members].astype(np.float64)
        if len(np.unique(own, axis=0)) < n_clusters:
            continue
        means = KMeans(n_clusters, n_init=10, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
        group = means.fit_predict(own)
        mean_loss = np.array([losses[members[group == c]].mean() for c in range(n_clusters)])
        order = np.argsort(mean_loss, kind="stable")
        above = mean_loss[order] > losses[members].mean()
        n_slow[label] = 1 if n_clusters == 2 else int(above.sum())
        if mean_loss[order[0]] == mean_loss[order[-1]]:
            n_slow[label] = 0
        of_slow = order[n_clusters - n_slow[label] :]
        slow[members] = np.isin(group, of_slow)
        placed[members] = np.argsort(order)[group]
        centres[label] = [own[group == c].mean(axis=0) for c in order]
    return Clusters(slow, centres, n_slow, placed)


def assign(clusters: Clusters, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which further examples (of known class) lie nearest to a slow centre of theirs: bool (n,).

    Used to report errors on slow and fast test images; it takes no part in training.
    """
    nearest = np.full(len(labels), -1)
    for label in np.unique(labels):
        if not np.isnan(clusters.centres[label]).any():
            own = np.flatnonzero(labels == label)
            gaps = outputs[own][:, None, :] - clusters.centres[label]
            nearest[own] = np.linalg.norm(gaps, axis=2).argmin(axis=1)
    return nearest >= clusters.centres.shape[1] - clusters.n_slow[labels]


# --- what is no selection ---------------------------------------------------------------------

CHANCE_LEVEL = 0.001
"""A network has left chance if guessing would be right so often with at most this probability."""


class NoSlowError(ParameterError):
    """No example is slow, and the arm needs some."""


def at_chance(right: int, labels: np.ndarray) -> bool:
    """Whether a classifier with so many right answers may have learned nothing.

    The best guess is the largest class: of n examples it has Binomial(n, its share) right. labels:
    (n,), those of the examples.
    """
    n = len(labels)
    share = np.bincount(labels).max() / n
    return bool(binom.sf(right - 1, n, share) > CHANCE_LEVEL)


def check_clusters(n_clusters: int, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise ParameterError unless every class has as many training images as clusters."""
    counts = np.bincount(labels, minlength=len(classes))
    least = int(counts.argmin())
    allowed = (
        f"at most {counts[least]}, the training images of class {classes[least]} (or another "
        "selection, as loss)"
    )
    require(n_clusters <= counts[least], "clusters", n_clusters, allowed)


def check_some(slow: np.ndarray, method: str) -> None:
    """Raise NoSlowError where no example is slow. method: that found none."""
    if not slow.any():
        allowed = (
            f"one that finds slow examples; it finds none of {len(slow)}: another --selection, or "
            "another --separating-epoch"
        )
        raise NoSlowError("selection", method, allowed)


# --- when, and how stable ------------------------------------------------------------------------


def separating_epoch(errors: Sequence[float]) -> int:
    """The epoch after which the training error stops falling fast: the knee of its curve, from 1.

    errors: training error before the first epoch and after each one. The knee is the point farthest
    below the straight line from the first to the last (Satopaa et al. 2011). What is learned
    before it is fast, what is not is slow. Raises ParameterError for fewer than two epochs.
    """
    require(len(errors) >= 3, "separating_epochs", len(errors) - 1, "at least 2")
    curve = np.asarray(errors, dtype=float)
    chord = np.linspace(curve[0], curve[-1], len(curve))
    return max(1, int(np.argmax(chord - curve)))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Common share of two selections, |a ∩ b| / |a ∪ b|; 1 for two empty ones."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def stability(selections: Sequence[np.ndarray]) -> dict[str, float]:
    """How alike selections of several seeds are, over all pairs of them.

    share: mean share of slow examples; jaccard, overlap: mean over pairs, overlap being
    |a ∩ b| / min(|a|, |b|); chance: the Jaccard index of independent random sets of those sizes, in
    expectation. Raises ParameterError for fewer than two.
    """
    require(len(selections) >= 2, "seeds", len(selections), "at least 2")
    pairs = list(combinations(selections, 2))
    shares = [float(s.mean()) for s in selections]

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        smaller = int(min(a.sum(), b.sum()))
        return int((a & b).sum()) / smaller if smaller else 1.0

    def chance(a: np.ndarray, b: np.ndarray) -> float:
        p, q = float(a.mean()), float(b.mean())
        return p * q / (p + q - p * q) if p or q else 1.0

    return {
        "share": float(np.mean(shares)),
        "jaccard": float(np.mean([jaccard(a, b) for a, b in pairs])),
        "overlap": float(np.mean([overlap(a, b) for a, b in pairs])),
        "chance": float(np.mean([chance(a, b) for a, b in pairs])),
    }


def against_truth(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Precision and recall of a selection where the slow examples are known; 1 where undefined."""
    hits = int((found & truth).sum())
    return {
        "precision": hits / int(found.sum()) if found.any() else 1.0,
        "recall": hits / int(truth.sum()) if truth.any() else 1.0,
    }
