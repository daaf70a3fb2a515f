"""Independent pieces of work in several one-thread processes."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import joblib

from empirical.training import one_thread
from sim.pool import pool
from sim.progress import say, use_plain_lines
from theory.parameters import ParameterError

Task = tuple[Callable[..., None], tuple[Any, ...]]


def run_all(what: str, tasks: Sequence[Task], jobs: int) -> None:
    """Do every task, `jobs` at a time, in order of the list; say how many are done.

    Two one-thread processes beat one process with two threads for networks this small.

    Raises:
        ParameterError, OSError: as a task raised it; what other tasks finished is kept.
    """
    work = (joblib.delayed(_attempt)(function, arguments) for function, arguments in tasks)
    ends: Any = pool(jobs, len(tasks))(work)
    try:
        for done, error in enumerate(ends, start=1):
            if error is not None:
                raise error
            say(f"{what}: {done} of {len(tasks)} done")
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it stops the other tasks
            ends.close()


def _attempt(function: Callable[..., None], arguments: tuple[Any, ...]) -> Exception | None:
    # Returned instead of raised: joblib would print the other process's traceback above ours.
    use_plain_lines()
    try:
        with one_thread():
            function(*arguments)
    except (ParameterError, OSError) as error:
        return error
    except Exception as error:
        return RuntimeError(f"{error!r} in another process:\n{traceback.format_exc()}")
    return None
