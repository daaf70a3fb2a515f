"""One check for each claim of `theory`: measure it in the simulation, with a negative control.

A check measures without knowing the prediction, which each quantity carries as a call of `theory`,
so that a wrong constant in `theory` cannot leak into its own test.
"""

from itertools import chain

from sim.checks import (
    activation,
    alignment,
    amplification,
    convergence,
    extensions,
    family,
    gradient_variance,
    labels,
    learning,
    memorisation,
    moments,
    printed,
    reused_data,
    sam,
    sam_validity,
    smoothness,
    steps,
    variance_tolerance,
)
from sim.checks.base import Check
from theory.claims import CLAIMS

_MODULES = (
    *(moments, sam, sam_validity, amplification, alignment, family, memorisation),
    *(gradient_variance, variance_tolerance, convergence, smoothness, steps, reused_data),
    *(learning, activation, labels, extensions),
)
_FOUND = {check.name: check for check in chain(*(module.CHECKS for module in _MODULES))}

CHECKS: dict[str, Check] = {name: printed.extended(_FOUND[name]) for name in CLAIMS}
"""Every check by its claim's name, in the order of the pages."""
