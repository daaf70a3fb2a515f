"""The names of the data sets. Standard library only, so that settings can be checked at once."""

from __future__ import annotations

from common.errors import near, require

NAMES = ("digits", "fashion-mnist", "cifar10", "cifar100", "tinyimagenet", "folder:PATH", "planted")


def check_name(name: str) -> None:
    """Raise ParameterError unless `name` is one of NAMES, with a path for PATH."""
    known = name in NAMES or name.startswith("folder:")
    known = known and name not in ("folder:", "folder:PATH")
    require(known, "dataset", name, f"{', '.join(NAMES[:-1])} or {NAMES[-1]}{near(name, NAMES)}")
