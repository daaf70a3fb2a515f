"""`reproduce`: claims, comparison and report in one folder, reused on a second call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ParameterError
from empirical.__main__ import main
from empirical.experiments import reproduce as module
from empirical.experiments.reproduce import all_claims_pass, reproduce
from empirical.experiments.settings import Comparison
from empirical.report.gallery import Gallery
from empirical.report.page import write_report
from sim.verify import verify_with_progress
from theory import amplification

TINY = Comparison(
    **{"epochs": 2, "splits": 2, "seeds": 1, "control_splits": 1},
    **{"generator_steps": 2, "control_generator_steps": 1},
)
CLAIMS = ["sam-feature-factor", "amplification", "sam-boundary"]


def few_claims(**options: Any) -> Any:
    """The real verification, of the claims that take a moment."""
    return verify_with_progress(CLAIMS, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("reproduced") / "reproduce"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "verify_with_progress", few_claims)
        return out, reproduce(out, TINY)


def test_results_hold_claims_orderings_and_how_they_were_made(
    made: tuple[Path, dict[str, Any]],
) -> None:
    out, results = made
    assert json.loads((out / "results.json").read_text()) == results
    assert [c["name"] for c in results["theory"]["claims"]] == CLAIMS
    assert all_claims_pass(results)
    assert {"command", "versions", "machine", "theory", "empirical"} <= set(results)
    orderings = {o["ordering"] for o in results["empirical"]["orderings"]}
    assert orderings == {
        "tada < upsample",
        "tada < original",
        "tada <= syn-rand",
        "tada <= syn-all",
    }
    for ordering in results["empirical"]["orderings"]:
        assert ordering["verdict"] in ("agrees", "disagrees", "undecided at this scale")


def test_the_report_stands_alone(made: tuple[Path, dict[str, Any]]) -> None:
    out, results = made
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for claim in results["theory"]["claims"]:
        assert claim["name"] in page
    for ordering in results["empirical"]["orderings"]:
        assert ordering["ordering"].replace("<", "&lt;") in page
        assert f"{100 * ordering['difference']:+.2f}" in page
    assert sorted(p.name for p in (out / "figures").iterdir()) == [
        "claims.png",
        "images.png",
        "orderings.png",
        "test_errors.png",
    ]


def test_a_second_call_reuses_everything(
    made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = made

    def never(**_: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "verify_with_progress", never)
    before = {p: p.stat().st_mtime_ns for p in (out / "compare" / "cells").iterdir()}
    again = reproduce(out, TINY)
    assert {p: p.stat().st_mtime_ns for p in (out / "compare" / "cells").iterdir()} == before
    assert again["theory"] == results["theory"]
    assert again["empirical"]["orderings"] == results["empirical"]["orderings"]


def test_claims_measured_by_other_code_are_measured_again(
    made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = made
    monkeypatch.setattr(module, "sources", lambda *packages: "other code")

    def measured(**_: Any) -> Any:
        raise InterruptedError

    monkeypatch.setattr(module, "verify_with_progress", measured)
    with pytest.raises(InterruptedError):
        reproduce(out, TINY)


def test_a_failing_claim_is_shown_and_gives_exit_code_1(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = made
    fresh = tmp_path / "reproduce"
    fresh.mkdir()
    (fresh / "compare").symlink_to(out / "compare")
    right = amplification.k_star
    monkeypatch.setattr(amplification, "k_star", lambda *a: 1.1 * right(*a))
    monkeypatch.setattr(
        module, "verify_with_progress", lambda **_: verify_with_progress(["amplification"])
    )
    flags = ["--epochs", "2", "--splits", "2", "--seeds", "1", "--control-splits", "1"]
    flags += ["--generator-steps", "2", "--control-generator-steps", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--out", str(fresh), *flags])
    assert stop.value.code == 1
    assert "FAILS" in (fresh / "report.html").read_text(encoding="utf-8")


def test_a_damaged_verify_json_is_named_and_kept(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "verify.json").write_text('{"claims": [')
    with pytest.raises(ParameterError, match=r"verify\.json"):
        reproduce(tmp_path, TINY)
    assert (tmp_path / "verify.json").read_text() == '{"claims": ['


def test_an_output_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--out", str(blocked)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert blocked.read_text() == "kept"


def test_what_could_not_be_measured_is_shown_in_words(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A control may break its own measurement: the page once ended in a traceback there."""
    _, results = made
    claims = json.loads(json.dumps(results["theory"]["claims"]))
    broken = claims[0]["control"]["quantities"]
    broken[0] |= {"measured": None, "predicted": None, "deviation": None}
    images = np.zeros((1, 8, 8), dtype=np.uint8)
    gallery = Gallery(images, images, images, ("zero",))
    theory = results["theory"] | {"claims": claims}
    page = write_report(results | {"theory": theory}, gallery, tmp_path)
    assert "not measurable" in page.read_text(encoding="utf-8")
