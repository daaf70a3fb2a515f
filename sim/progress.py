"""Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 10.0
"""Seconds between two plain lines of one piece of work."""

_plain = False


def use_plain_lines() -> None:
    """Print lines even on a terminal: for processes that share one, where bars would collide."""
    global _plain
    _plain = True


def say(message: str) -> None:
    """Print one plain line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show progress of `total` steps, `done` of them already; gives `advance()`, one step each."""
    console = Console(stderr=True)
    if console.is_terminal and not _plain:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        with bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda: bar.advance(task)
        return

    start = shown = time.monotonic()
    first = done

    def advance() -> None:
        nonlocal done, shown
        done += 1
        now = time.monotonic()
        if now - shown >= LINE_EVERY:
            shown = now
            left = (now - start) / (done - first) * (total - done)
            say(f"{what}: {done} of {total}, about {left:.0f} s left")

    yield advance
    if total > first:
        say(f"{what}: {total} of {total} in {time.monotonic() - start:.1f} s")
