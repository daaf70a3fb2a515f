"""The one exception for a parameter out of range, and the check that raises it.

Every package here reports bad input through `ParameterError`, so that a command can
turn it into one line on stderr and exit code 2 (see `common.cli`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ParameterError(ValueError):
    """A parameter has a value that is not allowed.

    The message names the parameter, its value and what would be allowed, on one line.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} = {value}: must be {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[ParameterError], tuple[str, object, str]]:
        # so that it can cross between processes: pickling would call it with its message alone
        return type(self), (self.name, self.value, self.allowed)


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise `ParameterError(name, value, allowed)` unless `condition` holds."""
    if not condition:
        raise ParameterError(name, value, allowed)


def near(name: str, known: Iterable[str]) -> str:
    """The known names that look like this one, in brackets for the end of a message, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=3)
    return f" (near: {', '.join(found)})" if found else ""
