"""Expectations over Gaussian noise without drawing: Gauss quadrature, exact for polynomials.

Frozen logits make gradients polynomials in the noise, so over a tiny data set, of a few coordinates
in all, every mean is a finite sum: then a claim about a mean is tested to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import beta, gamma
from torch import Tensor

from sim.data import Dataset


@dataclass(frozen=True)
class Rule:
    """Nodes and weights for a standard normal number."""

    nodes: np.ndarray
    weights: np.ndarray


def normal(n: int) -> Rule:
    """Exact for polynomials of degree 2n − 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return Rule(nodes, weights / math.sqrt(2 * math.pi))


def signed(n: int) -> Rule:
    """Exact for a polynomial of degree 2n − 1 on either side of 0: 2n nodes."""
    half = length(1, n)
    return Rule(
        np.concatenate([half.nodes, -half.nodes]), np.concatenate([half.weights, half.weights]) / 2
    )


def length(dim: int, n: int) -> Rule:
    """For the length of a standard normal vector in `dim` dimensions: degree 2n − 1 in it."""
    return gauss(lambda p: 2 ** (p / 2) * gamma((p + dim) / 2) / gamma(dim / 2), n)


def square(dim: int, n: int) -> Rule:
    """The same to degree 4n − 2 where only even powers of the length matter: in its square."""
    rule = gauss(lambda p: 2**p * gamma(p + dim / 2) / gamma(dim / 2), n)
    return Rule(np.sqrt(rule.nodes), rule.weights)


def height(dim: int, n: int) -> Rule:
    """For |first coordinate| of a random unit vector in `dim` dimensions: degree 2n − 1 in it."""
    return gauss(lambda p: beta((p + 1) / 2, (dim - 1) / 2) / beta(1 / 2, (dim - 1) / 2), n)


def tilt(dim: int, n: int) -> Rule:
    """For a coordinate of a random unit vector in `dim` dimensions: degree 2n − 1."""
    whole = height(dim, 2 * n)  # whose even moments are the coordinate's; its odd ones are 0

    def moment(p: np.ndarray) -> np.ndarray:
        return np.where(p % 2, 0.0, np.tensordot(whole.weights, whole.nodes[:, None, None] ** p, 1))

    return gauss(moment, n)


def gauss(moment: Callable[[np.ndarray], np.ndarray], n: int) -> Rule:
    """n nodes, exact for degree 2n − 1, from a law's moments (Golub and Welsch)."""
    r = np.linalg.cholesky(moment(np.add.outer(np.arange(n + 1), np.arange(n + 1)))).T
    diagonal = np.diff(r.diagonal(1) / r.diagonal()[:-1], prepend=0.0)
    beside = (r.diagonal()[1:] / r.diagonal()[:-1])[: n - 1]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return Rule(nodes, vectors[0] ** 2)


def planted(data: Dataset, *rules: Rule) -> tuple[Dataset, Tensor]:
    """The data set with each combination of nodes as its noise (Q, ...), and their weights (Q,).

    data: one data set; only its noise is replaced, by independent patches of variance sigma_noise²
    in every coordinate that noise fills: a rule for each, the last one for all that remain.
    """
    start = data.config.noise_from
    m, free = int(data.is_noise.sum()), data.config.dim - start
    each = [rules[min(c % free, len(rules) - 1)] for c in range(m * free)]
    points = torch.tensor(list(itertools.product(*(rule.nodes for rule in each))))
    weight = torch.tensor(list(itertools.product(*(rule.weights for rule in each)))).prod(-1)
    x = data.x.repeat(len(weight), 1, 1, 1)
    x[..., data.is_noise, start:] = data.config.sigma_noise * points.unflatten(-1, (m, free))
    return replace(data, x=x, y=data.y.expand(len(weight), -1)), weight
