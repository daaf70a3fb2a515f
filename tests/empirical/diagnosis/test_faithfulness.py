"""Measured c, tau and a against the truth of planted images, and what must come out for sure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import ParameterError
from empirical.datasets.planted import PlantedSet
from empirical.diagnosis.classifier import Judge
from empirical.diagnosis.estimates import Estimate, resampled
from empirical.diagnosis.faithfulness import Faithfulness, measure, observe, summarise
from empirical.generation.base import Originals
from empirical.training import networks
from theory.family import FamilyMember

# (c, tau, a) by what stands for its strength
TRUTH = {
    0.1: (1.0, 0.9, 1.0),
    0.3: (1.0, 0.0, 1.0),
    0.5: (0.75, 0.5, 1.0),
    0.7: (0.5, 0.3, 1.3),
    0.9: (0.8, 0.6, 0.7),
    1.0: (0.0, 0.0, 1.0),
}
C_BIAS, REST = 0.05, 0.03
"""What README.md concedes: partners in mixtures; features that are left in residuals."""


@pytest.fixture(scope="module")
def copies(planted: PlantedSet, sources: Originals) -> Callable[..., Tensor]:
    def make(c: float, tau: float, a: float, number: int) -> Tensor:
        indices = sources.indices.tolist()
        return planted.regenerate(indices, [number] * len(indices), 0, c, tau, a)

    return make


@pytest.fixture(scope="module")
def measured(
    sources: Originals, judge: Judge, copies: Callable[..., Tensor]
) -> dict[float | None, Faithfulness]:
    made = [copies(*truth, number) for truth in TRUTH.values() for number in (1, 2)]
    strengths = [strength for strength in TRUTH for _ in (1, 2)]
    found = measure(sources, torch.stack(made, dim=1), strengths, judge)
    return {own.strength: own for own in found}


def value(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None
    assert estimate.standard_error is not None
    return estimate.value, estimate.standard_error


@pytest.mark.parametrize("strength", TRUTH)
def test_the_truth_is_found(measured: dict[float | None, Faithfulness], strength: float) -> None:
    own, (c, tau, a) = measured[strength], TRUTH[strength]
    assert (own.sources, own.copies) == (360, 720)
    found, error = value(own.kept_noise)
    assert error < 0.02
    assert found == pytest.approx(tau, abs=3 * error + REST)
    found, error = value(own.kept_layout)
    assert found == pytest.approx(tau, abs=3 * error + REST)
    found, error = value(own.amplitude)
    assert error < 0.02
    assert found == pytest.approx(a, abs=3 * error + REST)
    found, error = value(own.diversity)
    assert found == pytest.approx(1 - tau**2, abs=3 * error + REST)
    found, error = value(own.fidelity)
    if c:
        assert error < 0.035
        # at c = 1 the mixtures do not enter, so that there is no bias to concede
        assert found == pytest.approx(c, abs=3 * error + C_BIAS * (c < 1))
    else:
        assert abs(value(own.evidence)[0]) < 3 * value(own.evidence)[1]


def test_the_logit_alone_would_not_do(measured: dict[float | None, Faithfulness]) -> None:
    """The control of the calibration: the plain ratio is far from c."""
    for strength in (0.5, 0.7):
        ratio, error = value(measured[strength].evidence)
        assert TRUTH[strength][0] - ratio > 3 * error + C_BIAS / 2


def test_labels_follow_fidelity(measured: dict[float | None, Faithfulness]) -> None:
    full, half, none = (measured[strength] for strength in (0.3, 0.7, 1.0))
    assert value(full.source_consistency)[0] > 0.9
    assert value(full.relative_consistency)[0] == pytest.approx(1, abs=0.05)
    assert value(full.consistency)[0] > value(half.consistency)[0] > value(none.consistency)[0]
    assert value(none.consistency)[0] == pytest.approx(1 / 3, abs=0.1)
    assert value(none.feature_agreement)[0] == pytest.approx(0, abs=0.15)
    assert value(full.feature_agreement)[0] > 0.8


def test_distances_follow_fidelity(measured: dict[float | None, Faithfulness]) -> None:
    pytest.importorskip("torchmetrics")
    full, none = (measured[strength].distances["judge"] for strength in (0.3, 1.0))
    assert full.fid.value == pytest.approx(full.fid_real.value, rel=0.3)
    assert none.fid.value > 2 * none.fid_real.value
    assert none.kid.value > full.kid.value + 3 * value(full.kid)[1]
    assert abs(full.kid_real.value) < 3 * value(full.kid_real)[1] + 0.1


def test_members_of_the_family(measured: dict[float | None, Faithfulness]) -> None:
    member = measured[0.9].member(5)
    assert isinstance(member, FamilyMember)
    assert member.k == 5
    assert member.amplitude == value(measured[0.9].amplitude)[0]
    assert member.fidelity == value(measured[0.9].fidelity)[0]


def test_exact_copies(sources: Originals, judge: Judge) -> None:
    some = sources.rows(slice(0, 60))
    (own,) = measure(some, some.pixels[:, None].expand(-1, 2, -1, -1, -1), (0.5, 0.5), judge)
    for name in ("fidelity", "evidence", "kept_noise", "kept_layout", "amplitude", "agreement"):
        assert value(getattr(own, name)) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    assert own.consistency == own.source_consistency
    assert value(own.diversity)[0] == pytest.approx(0, abs=1e-9)
    assert value(own.nearest)[0] == pytest.approx(0, abs=1e-6)


def test_images_of_others_are_no_copies(sources: Originals, judge: Judge) -> None:
    """Of a random class c is 0, of always another class below 0; τ is 0 for both."""
    order = torch.randperm(len(sources), generator=torch.Generator().manual_seed(0))
    (own,) = measure(sources, sources.pixels[order][:, None], [0.5], judge, distances=False)
    ratio, error = value(own.evidence)
    assert ratio == pytest.approx(0, abs=3 * error)
    assert value(own.kept_noise)[0] == pytest.approx(0, abs=3 * value(own.kept_noise)[1] + 0.01)
    assert value(own.consistency)[0] == pytest.approx(1 / 3, abs=0.1)
    # labels are in turn: the image before is of another class, and an equal share of each
    (own,) = measure(sources, sources.pixels.roll(1, 0)[:, None], [0.5], judge, distances=False)
    assert value(own.evidence)[0] == pytest.approx(-1 / 2, abs=0.06)
    assert value(own.consistency)[0] < 0.1


def test_one_copy_and_two_strengths(
    sources: Originals, judge: Judge, copies: Callable[..., Tensor]
) -> None:
    """k = 2: no diversity. Strengths come sorted, each as it is alone."""
    some = sources.rows(slice(0, 90))
    pair = torch.stack([copies(1, 0, 1, 1)[:90], copies(1, 0.9, 1, 2)[:90]], dim=1)
    high, low = pair[:, :1], pair[:, 1:]
    both = measure(some, pair, (0.8, 0.2), judge)
    assert [own.strength for own in both] == [0.2, 0.8]
    assert all(own.diversity is None and own.nearest is None for own in both)
    for number, pixels, strength in ((1, high, 0.8), (0, low, 0.2)):
        (alone,) = measure(some, pixels, [strength], judge, distances=False)
        # but for rounding, which depends on the batch
        for name in ("fidelity", "kept_noise", "amplitude", "consistency"):
            own, other = value(getattr(alone, name)), value(getattr(both[number], name))
            assert own == pytest.approx(other, rel=1e-3)


def test_sources_with_different_numbers_of_copies(
    sources: Originals, judge: Judge, copies: Callable[..., Tensor]
) -> None:
    some = sources.rows(slice(0, 60))
    first, second = copies(1, 0, 1, 1)[:60], copies(1, 0.5, 1, 2)[:60]
    rows = torch.arange(60).repeat_interleave(2)[:-20]
    pixels = torch.stack([first, second], 1).flatten(0, 1)[:-20]
    seen = observe(some, pixels, rows, judge)
    own = summarise(seen, torch.ones(100, dtype=torch.bool), None)
    assert (own.sources, own.copies, own.strength) == (50, 100, None)
    assert own.diversity is not None
    alone = summarise(seen, torch.arange(100) % 2 == 0, 0.5)
    assert (alone.sources, alone.copies, alone.diversity) == (50, 50, None)


def test_a_judge_who_sees_nothing_says_nothing(sources: Originals, judge: Judge) -> None:
    blind = tuple(networks.build("conv4", 3, 16, 3, ("blind", own)).eval() for own in (0, 1))
    other = Judge(
        (blind[0], blind[1]), judge.half, judge.means, judge.mean, judge.std, 0.67, judge.about
    )
    some = sources.rows(slice(0, 60))
    (own,) = measure(some, some.pixels[:, None], [0.5], other, distances=False)
    assert own.fidelity is None
    assert own.evidence is None
    assert own.member(3) is None
    assert value(own.kept_noise)[0] == pytest.approx(1)


def test_bad_input(sources: Originals, judge: Judge) -> None:
    some = sources.rows(slice(0, 4))
    with pytest.raises(ParameterError, match=r"copies = torch\.uint8"):
        measure(some, some.pixels[:, None], (0.5, 0.6), judge)
    with pytest.raises(ParameterError, match=r"copies = torch\.float32"):
        measure(some, some.pixels[:, None].float(), [0.5], judge)
    beyond = Originals(some.pixels, some.labels, some.indices + 599)
    with pytest.raises(ParameterError, match="source = 602: must be below 600"):
        measure(beyond, some.pixels[:, None], [0.5], judge)
    small = Originals(some.pixels[..., :8, :8], some.labels, some.indices)
    with pytest.raises(ParameterError, match=r"sources = \(3, 8, 8\)"):
        measure(small, small.pixels[:, None], [0.5], judge)
    with pytest.raises(ParameterError, match="rows = falling"):
        observe(some, some.pixels[:2], torch.tensor([1, 0]), judge)
    with pytest.raises(ParameterError, match="copies = 0 of 4"):
        observe(some, some.pixels[:0], torch.zeros(0, dtype=torch.int64), judge)


def test_standard_errors_are_those_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    y = 2 + rng.standard_normal(400)
    x = y * 0.5 + 0.3 * rng.standard_normal(400)
    found = resampled({"x": x, "y": y}, lambda m: {"ratio": m["x"] / m["y"]}, rng, draws=2000)
    residual = x - found["ratio"].value * y
    expected = residual.std() / y.mean() / np.sqrt(400)
    assert found["ratio"].standard_error == pytest.approx(expected, rel=0.08)
    alone = resampled({"x": x[:1]}, lambda m: {"x": m["x"], "nan": float("nan")}, rng)
    assert alone == {"x": Estimate(float(x[0]), None)}
