"""Bad input by kind, each of which a command turns into one line and exit code 2 (`common.cli`).

All are kinds of `ParameterError`; a diverged training (`common.divergence`) and a lack of memory
(`common.memory`) are two more.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FILES = ("archive", "cell", "checkpoint", "file", "image", "result")
"""Names of parameters whose value is a path that was found, not one that was given."""


class ParameterError(ValueError):
    """A parameter has a value that is not allowed.

    The message names the parameter, its value and what would be allowed, on one line; a command
    names the flag as it was typed instead (`common.cli.in_flags`).
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        # of a file the path says enough
        shown = value if name in FILES else f"{name} = {value}"
        super().__init__(f"{shown}: must be {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[ParameterError], tuple[str, object, str]]:
        # so that it can cross between processes: pickling would call it with its message alone
        return type(self), (self.name, self.value, self.allowed)


class DamagedFileError(ParameterError):
    """A file is cut short, was changed, or is not what it should be. value: its path."""

    def __str__(self) -> str:
        return f"{self.value} is not {self.allowed}"


class BusyError(ParameterError):
    """Another run is writing to a folder. name: of its flag; value: the folder."""

    def __str__(self) -> str:
        return f"another run is writing to {self.value}: wait until it ends, or use {self.allowed}"


class MissingDependencyError(ParameterError):
    """A package is not installed. name: what needs it; value: the package; allowed: what to do."""

    def __str__(self) -> str:
        return f"{self.name} needs {self.value}, which is not installed: {self.allowed}"


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise `ParameterError(name, value, allowed)` unless `condition` holds."""
    if not condition:
        raise ParameterError(name, value, allowed)


def near(name: str, known: Iterable[str]) -> str:
    """The known names that look like this one, in brackets for the end of a message, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=3)
    return f" (near: {', '.join(found)})" if found else ""
