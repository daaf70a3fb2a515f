"""Checks that many settings share."""

from __future__ import annotations

import math

from common.errors import require

LARGEST = 1e30
"""Of a rate or radius: networks compute in float32, which ends at 3e38."""


def whole_number(name: str, value: object, least: int) -> None:
    """Raise ParameterError unless value is a whole number of at least `least` that 64 bits hold."""
    ok = type(value) is int and value >= least
    require(ok, name, value, f"a whole number of at least {least}")
    assert isinstance(value, int)
    require(value < 2**63, name, value, f"at most {2**63 - 1}, which 64 bits hold")


def check_number(name: str, value: float | None) -> None:
    """Raise ParameterError unless value lies above 0 and at most at LARGEST."""
    ok = value is not None and 0 < value < math.inf
    require(ok, name, value, "a number above 0")
    assert value is not None
    require(value <= LARGEST, name, value, f"at most {LARGEST:g}")
