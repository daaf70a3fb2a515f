"""How every command here ends: 0, 1 (a claim failed), or 2 with one line on stderr.

Standard library only, so that all three packages share it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
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
            text = re.sub(r"For full helptext.*", "", text, flags=re.DOTALL)
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


def check_writable(file: Path) -> None:
    """Raise OSError now, before long work, if `file` could not be written at its end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        raise IsADirectoryError(21, "is a folder, a file name is needed", str(file))
    with tempfile.NamedTemporaryFile(dir=file.parent):
        pass


def write_json(file: Path, content: object) -> None:
    """Write JSON whole or not at all: to a temporary name beside `file`, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile(
        "w", dir=file.parent, prefix=file.name, suffix=".tmp", delete=False, encoding="utf-8"
    ) as temporary:
        try:
            temporary.write(text)
            temporary.flush()
            Path(temporary.name).replace(file)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise
