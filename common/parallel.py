"""Processes for independent pieces of work, one thread each."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import joblib
from joblib import Parallel

from common.errors import ParameterError, require
from common.memory import PROCESS, require_memory
from common.progress import say, use_plain_lines
from common.threads import one_thread

MOST_EACH_CORE = 32
"""Processes for each core: more would only wait."""


def check_jobs(jobs: int | None, tasks: int = 1) -> None:
    """Raise ParameterError unless so many processes can do so many tasks here; None: as it fits."""
    if jobs is None:
        return
    most = MOST_EACH_CORE * (os.cpu_count() or 1)
    require(jobs >= 1, "jobs", jobs, "a whole number of at least 1")
    require(jobs <= most, "jobs", jobs, f"at most {most}, {MOST_EACH_CORE} for each core")
    count = min(jobs, tasks)
    require_memory("--jobs", count * PROCESS, f"{count} processes", "--jobs")


def pool(
    jobs: int | None = None, tasks: int | None = None, batch_size: int | str = "auto"
) -> Parallel:
    """joblib's processes, whose results come as they are ready.

    jobs: how many, all cores by default; tasks: how many there are to do, so that none is idle;
    batch_size: tasks that are handed to a process at once.
    """
    # joblib replaces a worker whose memory has grown, and warns of it. As an error that warning
    # would end the thread that hands out the work, and the call would wait for ever.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    wanted = jobs or os.cpu_count() or 1
    return Parallel(
        n_jobs=wanted if tasks is None else min(wanted, max(tasks, 1)),
        return_as="generator_unordered",
        batch_size=batch_size,  # type: ignore[arg-type]
    )


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
