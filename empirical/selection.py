"""Slow examples: per class, two clusters of an early network's outputs (Algorithm 1, step 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans


@dataclass(frozen=True)
class Clusters:
    """The two clusters of every class.

    slow: bool (n,), which of the clustered examples are slow;
    centres: float64 (classes, 2, outputs), fast then slow; NaN where a class has no two clusters.
    """

    slow: np.ndarray
    centres: np.ndarray


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each example, shape (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, shape (n, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cluster(
    outputs: np.ndarray, losses: np.ndarray, labels: np.ndarray, n_classes: int, seed: int
) -> Clusters:
    """Split each class by k-means with two clusters; the one with the higher mean loss is slow.

    A class with fewer than two different outputs has no slow examples.
    outputs: (n, d); losses, labels: (n,); seed: of k-means' restarts.
    """
    slow = np.zeros(len(labels), dtype=bool)
    centres = np.full((n_classes, 2, outputs.shape[1]), np.nan)
    for label in range(n_classes):
        members = np.flatnonzero(labels == label)
        own = outputs[members].astype(np.float64)
        if len(np.unique(own, axis=0)) < 2:
            continue
        means = KMeans(2, n_init=10, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
        group = means.fit_predict(own).astype(bool)
        second_is_slow = losses[members[group]].mean() > losses[members[~group]].mean()
        slow[members] = group == second_is_slow
        centres[label] = own[~slow[members]].mean(axis=0), own[slow[members]].mean(axis=0)
    return Clusters(slow, centres)


def assign(clusters: Clusters, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which further examples (of known class) lie nearer to their class's slow centre: bool (n,).

    Used to report errors on slow and fast test images; it takes no part in training.
    """
    distances = np.linalg.norm(outputs[:, None, :] - clusters.centres[labels], axis=2)
    return distances[:, 1] < distances[:, 0]  # False where NaN
