"""Processes for independent pieces of work, one thread each."""

from __future__ import annotations

import os
import warnings

from joblib import Parallel


def pool(jobs: int | None = None, batch_size: int | str = "auto") -> Parallel:
    """joblib's processes, whose results come as they are ready; all cores by default.

    batch_size: tasks that are handed to a process at once.
    """
    # joblib replaces a worker whose memory has grown, and warns of it. As an error that warning
    # would end the thread that hands out the work, and the call would wait for ever.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    return Parallel(
        n_jobs=jobs or os.cpu_count() or 1,
        return_as="generator_unordered",
        batch_size=batch_size,  # type: ignore[arg-type]
    )
