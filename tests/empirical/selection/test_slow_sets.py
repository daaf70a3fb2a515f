"""Slow examples on outputs where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from common.errors import ParameterError
from empirical.selection.slow_sets import (
    against_truth,
    assign,
    cluster,
    cross_entropy,
    select_slow,
    separating_epoch,
    slow_by,
    softmax,
    stability,
)


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


def test_alternatives(rng: np.random.Generator) -> None:
    logits, labels, slow = planted(rng)
    given = (logits, logits, labels, 2, 0)
    assert np.array_equal(slow_by("cluster", *given), slow)
    assert np.array_equal(slow_by("loss", *given, theta=0.25), slow)
    most = slow_by("loss", *given, theta=0.5)
    assert most.sum() == 40
    assert most[slow].all()
    wrong = logits.copy()
    wrong[[3, 50]] = wrong[[3, 50]][:, ::-1]
    assert np.flatnonzero(slow_by("misclassified", wrong, wrong, labels, 2, 0)).tolist() == [
        3,
        50,
    ]


def test_theta_counts_over_all_classes(rng: np.random.Generator) -> None:
    logits = np.array([[5.0, 0], [4, 0], [0, 1], [0, 0.5]])
    found = slow_by("loss", logits, logits, np.array([0, 0, 1, 1]), 2, 0, theta=0.5)
    assert found.tolist() == [False, False, True, True]


def test_more_clusters_are_slow_above_the_mean_loss(rng: np.random.Generator) -> None:
    """Three groups with losses 0, 1 and 5 of 10, 10 and 4 examples: the mean is 1.25."""
    outputs = np.repeat([[0.0], [10.0], [20.0]], [10, 10, 4], axis=0) + rng.normal(0, 0.1, (24, 1))
    losses = np.repeat([0.0, 1.0, 5.0], [10, 10, 4])
    found = cluster(outputs, losses, np.zeros(24, dtype=int), 1, seed=0, n_clusters=3)
    assert np.array_equal(found.slow, losses == 5)
    losses[10:20] = 4.0
    found = cluster(outputs, losses, np.zeros(24, dtype=int), 1, seed=0, n_clusters=3)
    assert np.array_equal(found.slow, losses >= 4)
    further = np.array([[-1.0], [9.0], [30.0]])
    assert assign(found, further, np.zeros(3, dtype=int)).tolist() == [False, True, True]


def test_equal_losses_give_no_slow_examples() -> None:
    outputs = np.array([[0.0], [0.1], [5.0], [5.1]])
    found = cluster(outputs, np.ones(4), np.zeros(4, dtype=int), 1, seed=0)
    assert not found.slow.any()
    assert not assign(found, outputs, np.zeros(4, dtype=int)).any()


def test_the_separating_epoch_is_the_knee() -> None:
    assert separating_epoch([0.9, 0.5, 0.2, 0.18, 0.16, 0.14, 0.12]) == 2
    assert separating_epoch([0.9, 0.3, 0.29, 0.28]) == 1
    assert separating_epoch([0.9, 0.9, 0.9]) == 1
    with pytest.raises(ParameterError, match="at least 2"):
        separating_epoch([0.9, 0.5])


def test_stability_against_chance(rng: np.random.Generator) -> None:
    same = rng.random(1000) < 0.4
    found = stability([same, same, same])
    assert (found["jaccard"], found["overlap"]) == (1, 1)
    independent = [rng.random(200_000) < 0.4 for _ in range(3)]
    found = stability(independent)
    assert found["jaccard"] == pytest.approx(found["chance"], abs=0.005)
    assert found["chance"] == pytest.approx(0.16 / 0.64, abs=0.005)
    nested = stability([np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool)])
    assert nested["overlap"] == 1
    assert nested["jaccard"] == pytest.approx(1 / 3)
    empty = np.zeros(5, bool)
    assert stability([empty, empty])["jaccard"] == 1


def test_against_the_truth() -> None:
    truth = np.array([1, 1, 1, 0, 0], bool)
    found = against_truth(np.array([1, 0, 0, 1, 0], bool), truth)
    assert found == {"precision": 0.5, "recall": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "magic"}, "selection"),
        ({"method": "loss", "theta": 0.0}, "theta"),
        ({"n_clusters": 1}, "clusters"),
    ],
)
def test_bad_input(change: dict, named: str) -> None:
    logits = np.eye(4)
    given = {"method": "cluster", "outputs": logits, "logits": logits} | change
    with pytest.raises(ParameterError, match=f"^{named} "):
        slow_by(labels=np.arange(4), n_classes=4, seed=0, **given)


@pytest.mark.parametrize("kind", ["numpy", "torch", "lists"])
def test_the_public_selection_takes_any_arrays(kind: str, rng: np.random.Generator) -> None:
    labels = np.arange(40) % 2
    sure = np.where(np.arange(40) < 28, 4.0, 0.2)[:, None]
    logits = (np.eye(2)[labels] - 0.5) * sure + 0.05 * rng.standard_normal((40, 2))
    losses = cross_entropy(logits, labels)
    change = {"numpy": lambda x: x, "torch": torch.from_numpy, "lists": lambda x: x.tolist()}[kind]
    own, given, of_each = change(logits), change(labels), change(losses)
    if kind == "torch":
        own = own.requires_grad_()
    late = [False] * 28 + [True] * 12
    assert select_slow(own, own, given).tolist() == late
    assert select_slow(own, of_each, given).tolist() == late
    assert select_slow(own, of_each, given, "loss", theta=0.3).tolist() == late
    assert select_slow(own, own, given, "misclassified").sum() <= 12
    for wrong, said in (
        (
            ((own, of_each, given, "misclassified"), "given logits"),
            ((own, of_each[:3], given), "losses_or_logits"),
            ((of_each, of_each, given), "outputs"),
            ((own, own, of_each), "labels"),
            ((own, own[:, :1], given), "logits of 2 classes"),
            ((own, own, given, "magic"), "selection = magic"),
        )
        if kind != "lists"
        else ()
    ):
        with pytest.raises(ParameterError, match=said):
            select_slow(*wrong)
