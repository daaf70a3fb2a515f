"""The ideal generator: strength moves what is left of the feature and of the noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import ParameterError
from empirical.datasets.planted import PlantedConfig, PlantedSet
from empirical.datasets.registry import load
from empirical.generation.base import Backend, Originals
from empirical.generation.ideal import Curve, Ideal, ideal
from empirical.generation.variants import Variants, generate

CURVE = Curve((0.2, 0.6, 1.0), (1.0, 1.0, 0.0), (1.0, 0.5, 0.0))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedSet:
    config = PlantedConfig(n_train=40, n_test=10, side=16)
    found = load("planted", tmp_path_factory.mktemp("data"), planted=config)
    assert isinstance(found, PlantedSet)
    return found


@pytest.fixture(scope="module")
def originals(planted: PlantedSet) -> Originals:
    chosen = torch.tensor([3, 17, 25])
    return Originals(planted.train.pixels[chosen], planted.train.labels[chosen], chosen)


def test_the_curve_is_straight_between_its_points() -> None:
    assert CURVE.at(0.2) == CURVE.at(0.01) == (1, 1)
    assert CURVE.at(0.4) == (1, pytest.approx(0.75))
    assert CURVE.at(0.8) == (pytest.approx(0.5), pytest.approx(0.25))
    assert CURVE.at(1.0) == (0, 0)


def test_it_hands_the_numbers_on(originals: Originals) -> None:
    calls: list[tuple[object, ...]] = []

    def regenerate(indices: list[int], copies: list[int], **values: float) -> torch.Tensor:
        calls.append((indices, copies, values["fidelity"], values["kept_noise"], values["seed"]))
        return torch.zeros(1, 3, 16, 16, dtype=torch.uint8)

    backend: Backend = Ideal(regenerate, {"name": "test"}, CURVE)
    made = generate(backend, originals, Variants(3, (0.6, 1.0)), seed=0)
    assert made.shape == (3, 2, 3, 16, 16)
    assert [call[0] for call in calls] == [[3], [17], [25]] * 2
    assert [call[2:4] for call in calls] == [(1.0, 0.5)] * 3 + [(0.0, 0.0)] * 3
    assert len({call[4] for call in calls}) == 6
    assert backend.denoising_steps(0.6) == 1


def test_a_weak_noising_gives_the_original_back(planted: PlantedSet, originals: Originals) -> None:
    made = generate(ideal(planted, CURVE), originals, Variants(2, (0.2,)), seed=0)[:, 0]
    assert torch.equal(made, originals.pixels)


def test_fresh_noise_in_every_copy(planted: PlantedSet, originals: Originals) -> None:
    backend = ideal(planted, CURVE)
    made = generate(backend, originals, Variants(3, (1.0,)), seed=0).float()
    assert torch.equal(made, generate(backend, originals, Variants(3, (1.0,)), 0, batch=1).float())
    pairs = [(made[:, 0], made[:, 1]), (made[:, 0], originals.pixels.float())]
    for one, other in pairs:
        for a, b in zip(one, other, strict=True):
            together = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
            assert abs(together) < 0.5


def test_the_digest_tells_data_and_curves_apart(planted: PlantedSet) -> None:
    first = ideal(planted, CURVE)
    flat = Curve((0.5,), (1.0,), (0.0,))
    others = [ideal(planted, flat), Ideal(planted.regenerate, {"other": 1}, CURVE)]
    assert len({backend.digest for backend in [first, *others]}) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (((), (), ()), "strengths"),
        (((0.5, 0.4), (1.0, 1.0), (1.0, 1.0)), "strengths"),
        (((0.0, 0.4), (1.0, 1.0), (1.0, 1.0)), "strengths"),
        (((0.5,), (1.0, 1.0), (1.0,)), "fidelity"),
        (((0.5,), (-1.0,), (1.0,)), "fidelity"),
        (((0.5,), (1.0,), (1.1,)), "kept_noise"),
    ],
)
def test_impossible_curves_are_refused(values: tuple[tuple[float, ...], ...], said: str) -> None:
    with pytest.raises(ParameterError, match=f"{said} = "):
        Curve(*values)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_strength_out_of_range_is_refused(
    planted: PlantedSet, tmp_path: Path, strength: float
) -> None:
    with pytest.raises(ParameterError, match="strength = "):
        ideal(planted, CURVE).denoising_steps(strength)
