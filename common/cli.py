"""How every command here ends: 0, 1 (a claim failed), or 2 with one line on stderr.

Standard library only, so that all three packages share it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn, TypeVar

from common.errors import ParameterError

T = TypeVar("T")

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers put a process's number among those of its job."""

LONG = 80
"""Characters of a flag's values that a message does not repeat."""

PATIENCE = 30.0
"""Seconds in which the first process of a job says why it ends, and its launcher ends the others.

They must not end before: launchers end all when one fails."""


def reported_elsewhere(error: Exception) -> Exception:
    """Mark an error that another process of the same job reports: this one exits silently."""
    error.reported_elsewhere = True  # type: ignore[attr-defined]
    return error


def is_main_process() -> bool:
    """Whether this is the first process of a job, or alone."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def benchmark(name: str) -> ModuleType:
    """The module benchmarks.NAME. Raises ParameterError where there is no checkout to have it."""
    try:
        return importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        allowed = "called in a checkout of the repository: an installed package has no benchmarks"
        raise ParameterError("bench", name, allowed) from error


def parse_or_exit(parse: Callable[[], T]) -> T:
    """Return `parse()`; where it exits with an error, leave one line on stderr and exit 2.

    All processes of a job have the same command line: the first alone leaves that line.
    Works for argparse (usage line, then `prog: error: ...`) and for tyro (a box of lines).
    `--help` (exit code 0) passes through untouched.
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return parse()
    except ParameterError as error:
        if not is_main_process():
            reported_elsewhere(error)
        raise
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = captured.getvalue()
        if ": error: " in text:
            text = text.rsplit(": error: ", 1)[1]
        else:
            text = re.sub(r"(Argument helptext:|For full helptext).*", "", text, flags=re.DOTALL)
            # the box's frame with its title, in Unicode or ASCII
            text = re.sub(r"╭[^\n]*╮|[│╭╮╰╯─]", " ", text)
            text = re.sub(r"^[^\n]*-{3,}[^\n]*$|^\|?|\|$", " ", text, flags=re.MULTILINE)
        text = " ".join(text.split())
        # what a part of the settings says itself, in tyro's words of where it was
        text = re.sub(r"^(Value error )?Error parsing __tyro[\w.-]+: ", "", text)
        fail(text, silent=not is_main_process())


def in_flags(error: ParameterError, words: Sequence[str]) -> str:
    """The error's message, with the flag and its values as they stand in `words`, a command line.

    A parameter is called by the flag that ends in its name: `sampler`'s `steps` by
    --sampler-steps. Where no flag was given that fits, the message stays as it is.
    """
    if type(error) is not ParameterError:
        return str(error)
    # of a flag that is there twice the last counts
    found = {given[0]: given[1:] for given in _given(words) if _is_called(given, error)}
    if len(found) != 1:
        return str(error)
    ((flag, typed),) = found.items()
    # of several values the one that is wrong; of long ones, what is wrong with them
    if str(error.value) in typed or len(" ".join(typed)) > LONG:
        typed = [str(error.value)]
    return f"{' '.join([flag, *typed])}: must be {error.allowed}"


def _given(words: Sequence[str]) -> list[list[str]]:
    """Each flag of a command line with the values after it."""
    flags: list[list[str]] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            flags.append(word.split("=", 1))
        elif flags:
            flags[-1].append(word)
    return flags


def _is_called(given: list[str], error: ParameterError) -> bool:
    """Whether a flag, with its values, is what an error speaks of."""
    flag, *typed = given
    name = str(error.name).replace("_", "-")
    if flag in (f"--{name}", f"--no-{name}"):
        return True
    if typed != [str(error.value)]:
        return any(word.endswith(f":{error.value}") for word in typed)  # hub:MODEL, folder:PATH
    return flag.endswith(f"-{name}")


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit: bad input and unusable files give one line and exit code 2."""
    try:
        sys.exit(main() or 0)
    except ParameterError as error:
        fail(in_flags(error, sys.argv[1:]), silent=_is_reported_elsewhere(error))
    except BrokenPipeError:
        # the reader of our output (head, less) has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        name = error.filename if error.filename is not None else "input/output"
        fail(f"{name}: {error.strerror or error}", silent=_is_reported_elsewhere(error))
    except KeyboardInterrupt:
        message = "interrupted; the same command continues from the last finished stage"
        fail(message, code=130, silent=not is_main_process())


def fail(message: str, code: int = 2, silent: bool = False) -> NoReturn:
    """Print `error: message` as one line on stderr, and exit; or wait for the one who says it."""
    if silent:
        time.sleep(PATIENCE)
    else:
        print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _is_reported_elsewhere(error: BaseException) -> bool:
    return getattr(error, "reported_elsewhere", False)
