"""Outputs and errors of trained networks against naive counts."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from common.errors import ParameterError
from empirical.datasets.base import Images
from empirical.training import networks
from empirical.training.evaluate import evaluate, outputs

MEAN, STD = [0.3], [0.4]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    made = networks.build("small", 1, 8, 10, ("test",))
    # batch statistics and dropout, which eval mode must not use
    made = nn.Sequential(nn.BatchNorm2d(1), *made[:-1], nn.Dropout(0.5), made[-1])  # pyright: ignore
    with torch.no_grad():
        made(torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return made


def test_outputs_are_those_of_eval_mode(network: nn.Module, digits: Images) -> None:
    pixels = digits.pixels[:50]
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = outputs(network, pixels, MEAN, STD, batch_size=7)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    with torch.no_grad():
        expected = network((pixels / 255 - 0.3) / 0.4)
    torch.testing.assert_close(found, expected)
    assert found.shape == (50, 10)
    assert not outputs(network, pixels, MEAN, STD).requires_grad
    assert not network.training


def test_penultimate(network: nn.Module, digits: Images) -> None:
    pixels = digits.pixels[:50]
    features = outputs(network, pixels, MEAN, STD, layer="penultimate")
    head = network[-1]  # pyright: ignore
    torch.testing.assert_close(head(features).detach(), outputs(network, pixels, MEAN, STD))
    assert features.shape == (50, head.in_features)


def test_an_unknown_layer(network: nn.Module, digits: Images) -> None:
    with pytest.raises(ParameterError, match="layer = first: must be logits or penultimate"):
        outputs(network, digits.pixels[:2], MEAN, STD, layer="first")


def test_errors_by_group(network: nn.Module, digits: Images) -> None:
    # one wrong name, so that a class is without images
    some = Images(digits.pixels[:60], digits.labels[:60], (*digits.classes, "ten"))
    slow = torch.arange(60) % 3 == 0
    found = evaluate(network, some, MEAN, STD, slow, batch_size=16)
    answers = outputs(network, some.pixels, MEAN, STD).argmax(1)
    wrong = [int(a != b) for a, b in zip(answers, some.labels, strict=True)]
    assert found["n"] == 60
    assert found["error"] == pytest.approx(sum(wrong) / 60)
    assert found["error_slow"] == pytest.approx(sum(wrong[::3]) / 20)
    assert found["error_fast"] == pytest.approx((sum(wrong) - sum(wrong[::3])) / 40)
    for label, share in enumerate(found["per_class"][:10]):
        own = [w for w, y in zip(wrong, some.labels.tolist(), strict=True) if y == label]
        assert share == pytest.approx(sum(own) / len(own))
    assert found["per_class"][10] is None
    logits = outputs(network, some.pixels, MEAN, STD)
    picked = logits.log_softmax(1)[torch.arange(60), some.labels]
    assert found["loss"] == pytest.approx(-float(picked.mean()), rel=1e-5)
    assert json.loads(json.dumps(found)) == found
    assert 0 < found["error"] < 1


def test_a_group_without_images(network: nn.Module, digits: Images) -> None:
    some = Images(digits.pixels[:6], digits.labels[:6], digits.classes)
    found = evaluate(network, some, MEAN, STD, torch.zeros(6, dtype=torch.bool))
    assert found["error_slow"] is None
    assert found["error_fast"] == found["error"]
    assert "error_slow" not in evaluate(network, some, MEAN, STD)


def test_bad_groups(network: nn.Module, digits: Images) -> None:
    some = Images(digits.pixels[:6], digits.labels[:6], digits.classes)
    for slow in (torch.zeros(6), torch.zeros(5, dtype=torch.bool)):
        with pytest.raises(ParameterError, match=r"slow = .*: must be bool \(6,\)"):
            evaluate(network, some, MEAN, STD, slow)
    with pytest.raises(ParameterError, match="images = none"):
        evaluate(network, Images(digits.pixels[:0], digits.labels[:0], digits.classes), MEAN, STD)
