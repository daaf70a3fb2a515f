"""A wheel builds, holds everything, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # from a copy, so that the build leaves nothing in the checkout
    source = tmp_path_factory.mktemp("source") / "tree"
    skipped = shutil.ignore_patterns(
        ".venv", ".git", "runs", "reproduce", "build", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, source, ignore=skipped)
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_all_packages_and_the_report_template(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "theory/claims.py",
        "sim/checks/base.py",
        "empirical/report/report.html",
        "common/cli.py",
    } <= names
    assert not any(name.startswith(("tests", "results", "benchmarks")) for name in names)


def test_the_installed_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = "import theory, sim, empirical as e; print(theory.__path__, sim.__path__, e.__path__)"
    for arguments in (
        ["-c", where],
        ["-m", "theory", "predict", "amplification"],
        ["-m", "sim", "verify", "--claims", "amplification", "--jobs", "1"],
        ["-m", "empirical", "run", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if arguments[0] == "-c":
            assert done.stdout.count(str(site)) == 3, done.stdout
