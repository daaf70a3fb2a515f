"""A wheel builds, holds everything, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


BLOCKER = """
import importlib.machinery as machinery, os
REFUSED = set(os.environ["REFUSED"].split())
found = machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in REFUSED else found(name, path, target)
machinery.PathFinder.find_spec = find_spec
"""
"""Hides modules, as if their packages were not installed."""

COMMANDS = {
    "": (
        ["-c", "import tada; print(tada.predict('amplification'))"],
        ["-m", "theory", "predict", "amplification"],
        ["-m", "tada", "list"],
    ),
    "sim": (
        ["-m", "sim", "verify", "--claims", "amplification", "--jobs", "1"],
        ["-m", "tada", "sim", "run", "--steps", "3", "--seeds", "2"],
    ),
    "empirical": (
        ["-m", "empirical", "run", "--dry-run", "--out", "runs/none"],
        ["-m", "tada", "run", "--help"],
    ),
}


def needed(extra: str) -> set[str]:
    """Distributions that tada-companion[extra] installs, by their normalised names."""
    found: set[str] = set()
    todo = [("tada-companion", extra)]
    while todo:
        name, own = todo.pop()
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not marker.evaluate({"extra": own}):
                continue
            known = canonicalize_name(requirement.name)
            for more in requirement.extras or {""}:
                if known not in found or more:
                    todo.append((requirement.name, more))
            found.add(known)
    return found


@pytest.mark.parametrize("extra", COMMANDS)
def test_the_wheel_works_without_the_checkout_and_with_nothing_else(
    wheel: Path, tmp_path: Path, extra: str
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (site / "sitecustomize.py").write_text(BLOCKER)
    allowed = {canonicalize_name(name) for name in needed(extra)} | {"tada-companion"}
    refused = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not allowed & {canonicalize_name(owner) for owner in owners}
    ]
    assert ("torch" in refused) == (extra == "")
    environment = {**os.environ, "PYTHONPATH": str(site), "REFUSED": " ".join(refused)}
    where = "import common, theory, tada as t; print(common.__path__, theory.__path__, t.__path__)"
    for arguments in (["-c", where], *COMMANDS[extra]):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if arguments[1] == where:
            assert done.stdout.count(str(site)) == 3, done.stdout


def test_an_extra_that_is_missing_is_named(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "REFUSED": "tyro torch"}
    command = [sys.executable, "-m", "tada", "sim", "verify"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tada-companion[sim]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
