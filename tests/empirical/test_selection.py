"""Slow examples on outputs where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from empirical.selection import assign, cluster, cross_entropy, softmax


def planted(rng: np.random.Generator, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two classes; the slow quarter of each is near the boundary."""
    labels = np.repeat([0, 1], n)
    slow = np.tile(np.arange(n) < n // 4, 2)
    margin = np.where(slow, 0.2, 4.0) + rng.normal(0, 0.1, 2 * n)
    logits = np.zeros((2 * n, 2))
    logits[np.arange(2 * n), labels] = margin
    return logits, labels, slow


def test_the_cluster_with_the_higher_loss_is_slow(rng: np.random.Generator) -> None:
    logits, labels, slow = planted(rng)
    for outputs in (logits, softmax(logits)):
        found = cluster(outputs, cross_entropy(logits, labels), labels, 2, seed=0)
        assert np.array_equal(found.slow, slow)
        assert np.array_equal(assign(found, outputs, labels), slow)


def test_high_loss_decides_not_the_size_of_the_cluster(rng: np.random.Generator) -> None:
    logits, labels, slow = planted(rng)
    found = cluster(logits, np.where(slow, 0.1, 0.9), labels, 2, seed=0)
    assert np.array_equal(found.slow, ~slow)


def test_tiny_classes_have_no_slow_examples(rng: np.random.Generator) -> None:
    """No example, one example, several equal ones; two different ones are told apart."""
    labels = np.array([1, 2, 2, 2, 3, 3])
    outputs = np.array([[1.0], [5.0], [5.0], [5.0], [0.0], [1.0]])
    losses = np.array([9.0, 1.0, 2.0, 3.0, 0.5, 0.1])
    found = cluster(outputs, losses, labels, 4, seed=0)
    assert found.slow.tolist() == [False, False, False, False, True, False]
    assert np.isnan(found.centres[:3]).all()
    assert found.centres[3].tolist() == [[1.0], [0.0]]
    assert assign(found, np.array([[0.0], [0.1], [0.9]]), np.array([0, 3, 3])).tolist() == [
        *(False, True, False)
    ]


def test_losses_and_probabilities(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(0, 30, (20, 5)), rng.integers(0, 5, 20)
    expected = -log_softmax(logits, axis=1)[np.arange(20), labels]
    assert cross_entropy(logits, labels) == pytest.approx(expected)
    assert softmax(logits) == pytest.approx(scipy_softmax(logits, axis=1))
