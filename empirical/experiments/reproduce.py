"""Everything at laptop scale in one folder: the claims, the comparison, and their report.

OUT/verify.json, OUT/compare/ and OUT/report.html with OUT/results.json and OUT/figures/. What is
already there and still valid is used again.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console

import common
import sim
import theory
from common.files import check_writable, read_json, write_json
from common.progress import say
from common.provenance import sources
from empirical.experiments.compare import check, compare
from empirical.experiments.gallery import comparison_gallery
from empirical.experiments.settings import Comparison
from empirical.report.page import write_report
from empirical.versions import versions
from sim.verify import as_json, table, verify_with_progress


def reproduce(
    out: Path, comparison: Comparison | None = None, seed: int = 0, jobs: int | None = None
) -> dict[str, Any]:
    """Verify the claims, run the comparison, write the report; returns OUT/results.json.

    comparison: the default experiment unless given. seed: of the claims' simulations.
    The JSON's "theory" is `sim verify --json`'s, "empirical" is `compare`'s without its cells.

    Raises:
        ParameterError: as `compare`, or a damaged verify.json.
        OSError: `out` cannot be written.
    """
    comparison = comparison or Comparison()
    check(comparison, jobs)
    jobs = jobs or os.cpu_count() or 1
    check_writable(out / "results.json")
    say("1 of 3: the theory's claims, by simulation")
    claims = _verified(out / "verify.json", seed, jobs)
    say("2 of 3: Algorithm 1 on real images, every arm (the generator's training comes first)")
    compared = compare(comparison, out / "compare", jobs)
    say("3 of 3: the report")
    results = {
        "command": f"python -m empirical reproduce --out {out}",
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpu_count": os.cpu_count(),
        },
        "theory": claims,
        "empirical": {key: value for key, value in compared.items() if key != "cells"},
    }
    gallery = comparison_gallery(comparison, out / "compare")
    write_report(results, gallery, out)
    write_json(out / "results.json", results)
    return results


def _verified(file: Path, seed: int, jobs: int) -> dict[str, Any]:
    """What `sim verify` finds, from `file` if that was measured by the same code."""
    made_by = {"seed": seed, "sources": sources(common, theory, sim), "torch": versions()["torch"]}
    if file.exists():
        found = read_json(file, "verify", ("claims", "made_by"))
        if found["made_by"] == made_by:
            say(f"{file}: measured before, used again")
            return found
    results, elapsed = verify_with_progress(seed=seed, jobs=jobs)
    Console().print(table(results))
    claims = as_json(results, elapsed, seed, full=False) | {"made_by": made_by}
    write_json(file, claims)
    return claims


def all_claims_pass(results: dict[str, Any]) -> bool:
    """Whether every claim holds and every control fails."""
    return all(c["holds"] and not c["control"]["holds"] for c in results["theory"]["claims"])
