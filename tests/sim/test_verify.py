"""`python -m sim verify`: verdicts, exit codes, the JSON contract, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sim.checks import CHECKS
from sim.checks.base import Check, Quantity, judge
from sim.verify import verify
from theory import amplification
from theory.claims import CLAIMS
from theory.parameters import ParameterError

FAST = ["sam-feature-factor", "sam-noise-damping", "amplification"]


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments], capture_output=True, text=True, check=False
    )


def _check(predicted: float) -> Check:
    return Check("x", "nothing", lambda _: [], lambda _: predicted)


@pytest.mark.parametrize(
    ("relation", "measured", "error", "holds", "refuted"),
    [
        ("=", 1.01, 0.01, True, False),
        ("=", 1.10, 0.01, False, True),
        ("=", 1.01, 0.10, False, False),  # too coarse to tell
        ("=", 1.0 + 1e-12, 0.0, True, False),
        ("=", 1.0 + 1e-6, 0.0, False, True),
        ("=", float("nan"), 0.01, False, True),
        ("<", 0.90, 0.01, True, False),
        ("<", 0.99, 0.01, False, True),
        ("<", 1.10, 0.01, False, True),
        (">", 1.10, 0.01, True, False),
        (">", float("nan"), 0.01, False, True),
    ],
)
def test_judge(relation: str, measured: float, error: float, holds: bool, refuted: bool) -> None:
    verdict = judge(_check(1.0), Quantity("q", {}, measured, error, relation))
    assert (verdict.holds, verdict.refuted) == (holds, refuted)


def test_few_degrees_of_freedom_widen_the_margin() -> None:
    wide = judge(_check(1.0), Quantity("q", {}, 1.05, 0.01, "=", dof=5))
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
