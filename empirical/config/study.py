"""What a comparison on any data set compares. Nothing heavy is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.checks import whole_number
from common.errors import near, require
from empirical.config.arms import ARMS
from empirical.config.settings import BUDGETS, MOST_SEEDS

REFERENCE = "original"
"""The arm without augmentation."""


@dataclass(frozen=True)
class Study:
    """What is compared."""

    arms: tuple[str, ...] = ("original", "upsample", "tada")
    """arms: original and tada always; upsample, syn-rand, syn-all"""
    seeds: int = 3
    """seeds, from --seed on"""
    budgets: tuple[str, ...] = BUDGETS
    """epochs (every arm the same epochs) and steps (every arm the optimizer steps of original)"""
    time_budget: str | None = None
    """such as 20m: epochs, seeds and the generator's training are fitted to it"""

    def __post_init__(self) -> None:
        for name, known in (("arms", ARMS), ("budgets", BUDGETS)):
            values = getattr(self, name)
            for value in values:
                require(value in known, name, value, " or ".join(known) + near(value, known))
            require(len(set(values)) == len(values) > 0, name, " ".join(values), "each once")
        both = {REFERENCE, "tada"} <= set(self.arms)
        require(both, "arms", " ".join(self.arms), "original, tada and any of the others")
        whole_number("seeds", self.seeds, 1)
        require(self.seeds <= MOST_SEEDS, "seeds", self.seeds, f"at most {MOST_SEEDS}")
        if self.time_budget is not None:
            duration(self.time_budget)

    @property
    def seconds(self) -> float | None:
        """The time budget in seconds."""
        return None if self.time_budget is None else duration(self.time_budget)


def duration(text: str) -> float:
    """Seconds of a time such as 90s, 20m or 1.5h. Raises ParameterError."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh])", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
    fits = 10 <= seconds <= 1e8
    require(fits, "time_budget", text, "a number with s, m or h, such as 20m; at least 10s")
    return seconds


STUDY = Study()
