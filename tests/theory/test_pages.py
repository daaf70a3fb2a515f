"""theory/README.md and the code agree: labels, anchors, functions, checks."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from theory.claims import CLAIMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "theory" / "README.md").read_text(encoding="utf-8")
LABELS = set(re.findall(r"\\tag\{(M?\d+)\}", PAGE))
MODULES = ["moments", "sharpness", "amplification", "gradient_variance", "convergence"]


def _anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_labels_are_unique() -> None:
    assert len(re.findall(r"\\tag\{", PAGE)) == len(LABELS)


@pytest.mark.parametrize("module", MODULES)
def test_every_function_cites_an_equation_that_exists(module: str) -> None:
    loaded = importlib.import_module(f"theory.{module}")
    functions = [
        f
        for _, f in inspect.getmembers(loaded, inspect.isfunction)
        if f.__module__ == loaded.__name__
    ]
    assert functions
    for function in functions:
        text = inspect.getdoc(function) or ""
        cited = re.findall(r"equations? \((M?\d+)\)", text)
        assert cited or "The same for" in text, f"{function.__name__} cites no equation"
        assert set(cited) <= LABELS, function.__name__


def test_claims_point_at_headings_and_labels() -> None:
    anchors = {_anchor(h) for h in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)}
    for claim in CLAIMS.values():
        assert claim.anchor in anchors, claim.name
        assert set(re.findall(r"M?\d+", claim.equations)) <= LABELS, claim.name


def test_the_table_lists_every_claim_and_only_functions_that_exist() -> None:
    rows = re.findall(
        r"^\| ([\w-]+) \| .+? \| .+? \| (.+?) \| `sim verify --claims ([\w-]+)` \|$",
        PAGE,
        re.MULTILINE,
    )
    assert [name for name, _, _ in rows] == list(CLAIMS)
    for name, functions, check in rows:
        assert check == name
        for path in re.findall(r"`([\w.]+)`", functions):
            module, function = path.split(".")
            assert hasattr(importlib.import_module(f"theory.{module}"), function), path
