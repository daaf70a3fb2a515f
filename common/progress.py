"""Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 10.0
"""Seconds between two plain lines of one piece of work."""

ESTIMATE_FROM = 0.1
"""Share of the work after which the time left is estimated."""

_plain = False


def use_plain_lines() -> None:
    """Print lines even on a terminal: for processes that share one, where bars would collide."""
    global _plain
    _plain = True


def say(message: str) -> None:
    """Print one plain line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


@contextmanager
def progress(
    what: str, total: int, done: int = 0, cost: float | None = None
) -> Iterator[Callable[..., None]]:
    """Show progress of `total` steps, `done` of them already; gives `advance()`, one step each.

    cost: of all steps that are left, where they differ; each is then told by `advance(its cost)`,
    and the time left is estimated from the costs.
    """
    left = float(total - done) if cost is None else cost
    console = Console(stderr=True)
    if console.is_terminal and not _plain:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}/{task.fields[of]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        with bar:
            # what is done already has cost as much a step as what is left does on average
            before = done * left / max(total - done, 1)
            task = bar.add_task(what, total=before + left, steps=done, of=total)
            bar.update(task, completed=before)

            def step(cost: float = 1.0) -> None:
                nonlocal done
                done += 1
                bar.update(task, advance=cost, steps=done)

            yield step
        return

    start = shown = time.monotonic()
    first, spent = done, 0.0

    def advance(cost: float = 1.0) -> None:
        nonlocal done, shown, spent
        done, spent = done + 1, spent + cost
        now = time.monotonic()
        if now - shown >= LINE_EVERY:
            shown = now
            line = f"{what}: {done} of {total}"
            # what is under way has cost time, too, but is not counted: at first that misleads
            if spent >= ESTIMATE_FROM * left:
                remaining = (now - start) / spent * (left - spent)
                line += f", about {max(remaining, 0):.0f} s left"
            say(line)

    yield advance
    if total > first:
        say(f"{what}: {total} of {total} in {time.monotonic() - start:.1f} s")
