"""The arms that are compared, by name."""

from __future__ import annotations

ARMS = ("original", "upsample", "tada", "syn-rand", "syn-all")
"""The paper's arms."""
RUN_ARMS = (*ARMS, "boomerang")
SYNTHETIC_ARMS = ("tada", "syn-rand", "syn-all", "boomerang")
"""The arms that need a generator."""
SLOW_ARMS = ("upsample", "tada", "syn-rand")
"""The arms that depend on which examples are slow, or how many."""
