"""Small planted images, whose truth is known, and a judge of them."""

from __future__ import annotations

import pytest
import torch

from empirical.datasets.planted import PlantedConfig, PlantedSet
from empirical.datasets.registry import load
from empirical.diagnosis.classifier import Judge, train_judge
from empirical.generation.base import Originals
from empirical.runtime import Machine
from empirical.training.recipes import Recipe

CONFIG = PlantedConfig(
    n_train=600, n_test=10, n_classes=3, side=16, beta_fast=0.2, beta_slow=0.15, sigma_noise=0.1
)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedSet:
    found = load("planted", tmp_path_factory.mktemp("data"), planted=CONFIG)
    assert isinstance(found, PlantedSet)
    return found


@pytest.fixture(scope="session")
def judge(planted: PlantedSet) -> Judge:
    recipe = Recipe(epochs=20, batch_size=32, lr=0.05, schedule="cosine")
    return train_judge(planted, "conv4", recipe, machine=Machine(cpu=True))


@pytest.fixture(scope="session")
def sources(planted: PlantedSet) -> Originals:
    indices = torch.arange(360)
    return Originals(planted.train.pixels[indices], planted.train.labels[indices], indices)
