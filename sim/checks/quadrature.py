"""Expectations over Gaussian noise without drawing: Gauss quadrature, exact for polynomials.

Frozen logits make gradients polynomials in the noise, so over a tiny data set, of a few coordinates
in all, every mean is a finite sum: then a claim about a mean is tested to rounding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import gamma
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
    """Exact for a polynomial of degree 2n − 1 on either side of 0: 2n nodes (Golub and Welsch)."""
    p = np.add.outer(np.arange(n + 1), np.arange(n + 1))
    moments = 2 ** (p / 2) * gamma((p + 1) / 2) / math.sqrt(math.pi)  # of |z|
    r = np.linalg.cholesky(moments).T
    diagonal = np.diff(r.diagonal(1) / r.diagonal()[:-1], prepend=0.0)
    beside = (r.diagonal()[1:] / r.diagonal()[:-1])[: n - 1]
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    weights = vectors[0] ** 2 / 2
    return Rule(np.concatenate([nodes, -nodes]), np.concatenate([weights, weights]))


def planted(data: Dataset, first: Rule, others: Rule) -> tuple[Dataset, Tensor]:
    """The data set with each combination of nodes as its noise (Q, ...), and their weights (Q,).

    data: one data set; only its noise is replaced, by independent patches of variance sigma_noise²
    in every coordinate that noise fills: `first` for the first of them, `others` for the rest.
    """
    start = data.config.noise_from
    m, free = int(data.is_noise.sum()), data.config.dim - start
    rules = [others if c % free else first for c in range(m * free)]
    points = torch.tensor(list(itertools.product(*(rule.nodes for rule in rules))))
    weight = torch.tensor(list(itertools.product(*(rule.weights for rule in rules)))).prod(-1)
    x = data.x.repeat(len(weight), 1, 1, 1)
    x[..., data.is_noise, start:] = data.config.sigma_noise * points.unflatten(-1, (m, free))
    return replace(data, x=x, y=data.y.expand(len(weight), -1)), weight
