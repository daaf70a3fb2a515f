"""Messages name the flag as it was typed."""

from __future__ import annotations

import pytest

from common.cli import in_flags
from common.errors import DamagedFileError, ParameterError


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("run --k 0", ("k", 0, "at least 1"), "--k 0: must be at least 1"),
        (
            "run --strength=1.50",
            ("strength", 1.5, "at most 1"),
            "--strength 1.50: must be at most 1",
        ),
        ("run --n-train 5", ("n_train", 5, "at least 9"), "--n-train 5: must be at least 9"),
        ("run --no-trajectory", ("trajectory", False, "on"), "--no-trajectory: must be on"),
        # an inner name is the end of its flag's, if the value is that one's
        ("run --generator-widths 7", ("widths", 7, "even"), "--generator-widths 7: must be even"),
        ("run --generator-widths 8", ("widths", 7, "even"), "widths = 7: must be even"),
        ("run --a-lr 1 --b-lr 1", ("lr", 1, "even"), "lr = 1: must be even"),
        ("run --generator hub:a/b", ("model", "a/b", "one"), "--generator hub:a/b: must be one"),
        ("run --k 2 --k 0", ("k", 0, "at least 1"), "--k 0: must be at least 1"),
        # of several values the wrong one
        ("sweep --grid k=1 k=3", ("grid", "k=3", "the only k"), "--grid k=3: must be the only k"),
        ("run --at 1 2", ("at", [1, 2], "one"), "--at 1 2: must be one"),
        # defaults that were not typed
        ("run --k 1", ("n_train", 5, "at least 9"), "n_train = 5: must be at least 9"),
        ("run --k 1", ("file", "a/b.png", "an image"), "a/b.png: must be an image"),
    ],
)
def test_flags(line: str, error: tuple[str, object, str], said: str) -> None:
    assert in_flags(ParameterError(*error), line.split()) == said


def test_other_kinds_say_it_their_own_way() -> None:
    damaged = DamagedFileError("out", "a/b.json", "a whole JSON file (cut short)")
    assert in_flags(damaged, ["--out", "a"]) == "a/b.json is not a whole JSON file (cut short)"
