"""What the `activations` figure measures."""

import json

import pytest
import torch

from sim.backends.span import Span
from sim.data import DataConfig, sample
from sim.figures import activation as figure
from sim.figures.activation import separation
from sim.network import CUBE, Activation, init, output
from sim.train import Point


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("activation", [CUBE, Activation(2), Activation(3, True)])
@pytest.mark.parametrize("noise", ["gaussian", "isotropic"])
def test_separation_is_that_of_sampled_outputs(activation: Activation, noise: str) -> None:
    config = DataConfig(4000, 12, 3, alpha=0.01, beta_slow=0.8, sigma_noise=0.3, noise=noise)
    W = init(4, config.dim, 0.4, rng(1))
    W[:, 1] += 0.7
    space = Span.of(sample(DataConfig(4, 12, 3, noise=noise), rng()), W, activation)
    found = separation(Point(space, space.initial), config, activation, torch.tensor(0.3), rng(2))
    data = sample(config, rng(3))
    slow = data.take(data.slow)
    f = output(W, slow.x, activation)
    positive, negative = f[slow.y > 0], f[slow.y < 0]
    wins = (positive[:, None] > negative).double() + (positive[:, None] == negative).double() / 2
    # 1000 pairs against all pairs of about 2000 and 2000
    assert float(found) == pytest.approx(float(wins.mean()), abs=0.065)
    assert abs(float(found) - 0.5) < 0.065 if activation.power == 2 else float(found) > 0.6


def test_separation_of_silent_and_of_perfect_filters() -> None:
    config = DataConfig(4, 6, sigma_noise=0.1)
    data = sample(config, rng())
    for value, expected in ((0.0, 0.5), (3.0, 1.0)):
        W = torch.zeros(1, 6, dtype=torch.float64)
        W[:, 1] = value
        space = Span.of(data, W, Activation(3, True))
        point = Point(space, space.initial)
        sigma = torch.tensor(0.1)
        assert float(separation(point, config, Activation(3, True), sigma, rng())) == expected


def test_a_part_depends_on_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "_RATIOS", [1.0, 5.0])
    monkeypatch.setattr(figure, "_SEEDS", 2)
    part = figure.FIGURES[0].parts[0]
    first, again, other = (json.dumps(part.function(s, *part.arguments)) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert "NaN" not in first
