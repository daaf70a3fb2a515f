"""Every numeric constant in the theory's formulas, changed by 10%, is caught by its check.

Measurements do not depend on the theory, so each is made once and judged again for every
mutant: exactly what `sim verify` would have said had the constant been wrong.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType

import pytest

from sim.checks import CHECKS
from sim.checks.base import Check, Plan, judge

MODULES = {
    "moments": ["gaussian-moments"],
    "sharpness": [
        "sam-feature-factor",
        "sam-noise-damping",
        "sam-noise-damping-gaussian",
        "sam-boundary",
    ],
    "boundary": ["moving-logits", "sam-noise-boundary", "sam-feature-boundary"],
    "amplification": [
        "amplification",
        "noise-alignment",
        "noise-tolerance",
        "alignment-distribution",
    ],
    "family": ["family", "family-variance", "family-memorisation", "best-k"],
    "gradient_variance": ["gradient-variance", "variance-tolerance", "more-patches"],
    "convergence": ["convergence", "smoothness", "steps-to-target", "reused-data", "test-error"],
    "extensions": ["activation", "label-noise", "class-imbalance", "isotropic-noise"],
}


class _Change(ast.NodeTransformer):
    """Multiply the `index`-th non-zero number of a function's body by `factor`."""

    def __init__(self, index: int, factor: float) -> None:
        self.index, self.factor, self.seen, self.line = index, factor, 0, 0

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if type(node.value) not in (int, float) or node.value == 0:
            return node
        self.seen += 1
        if self.seen - 1 != self.index:
            return node
        self.line = node.lineno
        return ast.copy_location(ast.Constant(node.value * self.factor), node)


def _mutants(module: str) -> Iterator[tuple[str, FunctionType, CodeType]]:
    """(description, function, its code with one constant changed) for a module of theory."""
    loaded = importlib.import_module(f"theory.{module}")
    source = inspect.getsource(loaded)
    for definition in ast.parse(source).body:
        if not isinstance(definition, ast.FunctionDef):
            continue
        for factor in (1.1, 0.9):
            for index in range(1000):
                fresh = next(
                    d
                    for d in ast.parse(source).body
                    if isinstance(d, ast.FunctionDef) and d.name == definition.name
                )
                change = _Change(index, factor)
                fresh.body = [change.visit(statement) for statement in fresh.body]
                if change.seen <= index:
                    break
                namespace: dict[str, FunctionType] = {}
                tree = ast.Module([fresh], [])
                exec(compile(tree, f"<{module} mutated>", "exec"), vars(loaded) | {}, namespace)
                line = source.splitlines()[change.line - 1].strip()
                yield (
                    f"{definition.name}: number {index} times {factor} in `{line}`",
                    getattr(loaded, definition.name),
                    namespace[definition.name].__code__,
                )


@pytest.mark.parametrize("module", MODULES)
def test_every_wrong_constant_is_caught(module: str) -> None:
    checks = [CHECKS[name] for name in MODULES[module]]
    measured = {check.name: check.measure(Plan(seed=1, claim=check.name)) for check in checks}

    def holds(check: Check) -> bool:
        try:
            return all(judge(check, q).holds for q in measured[check.name])
        except (TypeError, ValueError):
            # a count that is no longer whole, a share above 1: the command would have stopped
            return False

    def failing() -> set[str]:
        return {check.name for check in checks if not holds(check)}

    assert failing() == set(), "the unchanged theory must hold"
    catches: set[str] = set()
    missed = []
    for description, function, code in _mutants(module):
        original = function.__code__
        function.__code__ = code
        try:
            caught = failing()
        finally:
            function.__code__ = original
        catches |= caught
        if not caught:
            missed.append(description)
    assert not missed, "\n".join(missed)
    assert catches == set(MODULES[module]), "every check must catch some wrong constant"


def test_every_claim_is_covered() -> None:
    covered = [name for names in MODULES.values() for name in names]
    assert sorted(covered) == sorted(CHECKS)
