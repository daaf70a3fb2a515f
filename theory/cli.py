"""How every command here ends: 0, 1 (a claim failed), or 2 with one line on stderr.

Standard library only, so that all three packages share it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from theory.parameters import ParameterError

T = TypeVar("T")


def parse_or_exit(parse: Callable[[], T]) -> T:
    """Return `parse()`; where it exits with an error, leave one line on stderr and exit 2.

    Works for argparse (usage line, then `prog: error: ...`) and for tyro (a box of lines).
    `--help` (exit code 0) passes through untouched.
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return parse()
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = captured.getvalue()
        if ": error: " in text:
            text = text.rsplit(": error: ", 1)[1]
        else:
            text = re.sub(r"(Argument helptext:|For full helptext).*", "", text, flags=re.DOTALL)
            text = re.sub(r"╭[^\n]*╮|[│╭╮╰╯─]", " ", text)
        fail(" ".join(text.split()))


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit: bad input and unusable files give one line and exit code 2."""
    try:
        sys.exit(main() or 0)
    except ParameterError as error:
        fail(str(error))
    except BrokenPipeError:
        # the reader of our output (head, less) has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        name = error.filename if error.filename is not None else "input/output"
        fail(f"{name}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail("interrupted; the same command continues from the last finished stage", code=130)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print `error: message` as one line on stderr and exit."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
