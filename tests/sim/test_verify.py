"""`python -m sim verify`: verdicts, exit codes, the JSON contract, bad input."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import norm

from common.errors import ParameterError
from sim import tables as claims_plot
from sim.checks import CHECKS
from sim.checks.activation import _factors
from sim.checks.base import (
    LEVEL,
    RESOLUTION,
    Check,
    Plan,
    Quantity,
    _interval,
    _unskewed,
    combine,
    judge,
)
from sim.checks.steps import _noisy_quadratic
from sim.network import Activation
from sim.verify import verify
from theory import amplification
from theory.claims import CLAIMS

FAST = ["sam-feature-factor", "sam-noise-damping", "amplification"]


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("relation", "measured", "error", "holds", "refuted"),
    [
        ("=", 1.01, 0.01, True, False),
        ("=", 1.10, 0.01, False, True),
        ("=", 1.01, 0.10, False, False),  # too coarse to tell
        ("=", 1.0 + 1e-12, 0.0, True, False),
        ("=", 1.0 + 1e-6, 0.0, False, True),
        ("<", 0.90, 0.01, True, False),
        ("<", 0.99, 0.01, False, True),
        ("<", 1.10, 0.01, False, True),
        (">", 1.10, 0.01, True, False),
    ],
)
def test_judge(relation: str, measured: float, error: float, holds: bool, refuted: bool) -> None:
    verdict = judge(Quantity("q", measured, error, 1.0, relation))
    assert (verdict.holds, verdict.refuted) == (holds, refuted)


@pytest.mark.parametrize("relation", ["=", "<", ">"])
@pytest.mark.parametrize(
    ("measured", "error"), [(float("nan"), 0.01), (1.0, float("nan")), (float("inf"), 0.01)]
)
def test_what_is_not_a_number_is_not_measurable(
    relation: str, measured: float, error: float
) -> None:
    verdict = judge(Quantity("q", measured, error, 1.0, relation))
    assert (verdict.holds, verdict.refuted) == (False, False)
    assert verdict.missing


def test_a_prediction_that_theory_refuses_is_said() -> None:
    def refuse() -> float:
        raise ParameterError("k", 0, "at least 1")

    verdict = judge(Quantity("q", 1.0, 0.1, refuse))
    assert (verdict.holds, verdict.refuted) == (False, False)
    assert "k = 0" in verdict.missing


def test_a_wrong_constant_is_caught_whatever_the_draw() -> None:
    """At the largest standard error that is accepted: level, and power against 10%."""
    quantile = float(norm.isf(LEVEL / 2))
    error = RESOLUTION / quantile
    assert judge(Quantity("q", 1.0, 0.999 * error, 1.0)).holds
    assert not judge(Quantity("q", 1.0, 1.001 * error, 1.0)).holds
    assert norm.sf((RESOLUTION - 0.1) / error) > 0.99
    assert 250 * LEVEL < 1e-3


def _failing(plan: Plan) -> list[Quantity]:
    raise IndexError("no time at which the target is passed")


def _good(plan: Plan) -> list[Quantity]:
    return [Quantity("good", 1.5 if plan.broken else 1.0, 0.001, lambda: 1.0)]


def _nan(plan: Plan) -> list[Quantity]:
    return [Quantity("nan", float("nan"), 0.0, 1.0)]


def test_a_quantity_that_cannot_be_formed_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sim.__main__ import main

    broken = Check("family", "nothing", combine(_failing, _good, _nan))
    wholly = Check("best-k", "nothing", _failing)
    monkeypatch.setitem(CHECKS, "family", broken)
    monkeypatch.setitem(CHECKS, "best-k", wholly)
    file = tmp_path / "verify.json"
    claims = ["family", "best-k", "sam-feature-factor"]
    arguments = ["sim", "verify", "--verbose", "--jobs", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--claims", *claims])
    assert main() == 1
    shown = capsys.readouterr().out
    assert "not measurable" in shown
    assert "IndexError: no time at which" in " ".join(shown.split())
    assert "1 of 3 claims hold" in shown
    written = json.loads(file.read_text())
    assert "NaN" not in file.read_text()
    family, best, other = written["claims"]
    assert (family["holds"], best["holds"], other["holds"]) == (False, False, True)
    failing, good, nan = family["quantities"]
    assert failing["missing"].startswith("IndexError: no time")
    assert (failing["measured"], failing["predicted"], failing["holds"]) == (None, None, False)
    assert good["holds"]
    assert "missing" not in good
    assert nan["missing"]
    assert claims_plot.markdown(written)
    claims_plot.draw(written)


@pytest.mark.parametrize("seed", range(5050, 5070))
def test_what_once_could_not_be_measured_at_some_seeds(seed: int) -> None:
    """Factors of features that one sign of ReLU sees, and steps to a level."""
    activation = Plan(seed, claim="activation")
    quantities = [
        *(q for power in (2, 3, 4) for q in _factors(activation, Activation(power, True))),
        *_noisy_quadratic(replace(Plan(seed, claim="steps-to-target"), broken=True)),
    ]
    for q in quantities:
        assert math.isfinite(q.measured), q.label
        assert math.isfinite(q.standard_error), q.label


def test_few_degrees_of_freedom_widen_the_margin() -> None:
    wide = judge(Quantity("q", 1.05, 0.01, 1.0, "=", dof=5))
    assert not wide.refuted
    assert not wide.holds


def test_every_claim_has_a_check_and_the_other_way_round() -> None:
    assert list(CLAIMS) == list(CHECKS)


def test_json_contract(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "verify.json"
    done = sim("verify", "--claims", *FAST, "--json", str(file), "--seed", "3")
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    assert [c["name"] for c in written["claims"]] == FAST
    assert written["elapsed_s"] > 0
    for claim in written["claims"]:
        assert claim["holds"] is True
        assert claim["control"]["holds"] is False
        assert claim["control"]["broken_assumption"]
        assert {"source", "predicted", "measured", "standard_error"} <= set(claim)
    assert "3 of 3 claims hold" in done.stdout


def test_a_wrong_constant_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sim.__main__ import main

    right = amplification.k_star
    monkeypatch.setattr(amplification, "k_star", lambda *a: 1.1 * right(*a))
    monkeypatch.setattr(sys, "argv", ["sim", "verify", "--claims", "amplification"])
    assert main() == 1
    assert "FAILS" in capsys.readouterr().out


def test_same_seed_same_result_whatever_the_number_of_processes() -> None:
    one = verify(FAST, seed=2, jobs=1)
    two = verify(FAST, seed=2, jobs=2)
    assert [r.verdicts for r in one] == [r.verdicts for r in two]
    assert [r.control for r in one] == [r.control for r in two]


def test_unknown_claim() -> None:
    with pytest.raises(ParameterError, match=r"^claims = nonsense: must be one of"):
        verify(["nonsense"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["verify", "--claims", "nonsense"], "claims"),
        (["verify", "--seed", "-1"], "seed"),
        (["verify", "--seed", "many"], "seed"),
        (["verify", "--jobs", "0"], "jobs"),
        (["verify", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], named: str) -> None:
    done = sim(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_result_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    done = sim("verify", "--json", str(blocked / "verify.json"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert blocked.read_text() == "kept"
    done = sim("verify", "--json", str(tmp_path))
    assert done.returncode == 2


def test_what_is_nothing_and_should_be_agrees() -> None:
    verdict = judge(Quantity("q", 0.0, 0.0, 0.0))
    assert (verdict.holds, verdict.refuted, verdict.deviation) == (True, False, 0.0)
    verdict = judge(Quantity("q", 1e-9, 0.0, 0.0))
    assert (verdict.holds, verdict.refuted, verdict.deviation) == (False, True, float("inf"))


def test_skewed_measurements_are_tested_at_the_level() -> None:
    """Means of squares of few normal numbers: t fails ten times too often on one side."""
    draws = torch.randn(200_000, 60, generator=torch.Generator().manual_seed(0)).square()
    t = (draws.mean(1) - 1) / (draws.std(1) / 60**0.5)
    third = ((draws - draws.mean(1, keepdim=True)) ** 3).mean(1) / draws.std(1) ** 3 / 60**0.5
    z = [_unskewed(a, b) for a, b in zip(t.tolist(), third.tolist(), strict=True)]
    for side in (1, -1):
        level = 200_000 * float(norm.sf(3))
        plain = float((side * t > 3).sum()) / level
        freed = sum(side * value > 3 for value in z) / level
        assert abs(math.log(freed)) < abs(math.log(plain)), side
        assert 1 / 3 < freed < 3, side


def test_the_margin_is_wider_where_the_tail_is() -> None:
    skewed = Quantity("q", 1.0, 0.01, 1.0, skewness=0.05)
    below, above = _interval(skewed)
    assert below < 4.9 < above
    assert _unskewed(below, 0.05) == pytest.approx(-_unskewed(-above, 0.05))
    assert judge(replace(skewed, measured=1 - 0.01 * (above - 0.01))).refuted is False
    assert judge(replace(skewed, measured=1 - 0.01 * (above + 0.01))).refuted is True
    assert judge(replace(skewed, measured=1 + 0.01 * (below + 0.01))).refuted is True
