"""The ranks of a distributed run: rank 0 writes, the others wait and read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch

from common.cli import reported_elsewhere

T = TypeVar("T")

WORLDS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where accelerate looks for the number of processes: of torchrun, and of the kinds of MPI."""


def start(cpu: bool = False) -> None:
    """Meet the other processes of `accelerate launch` or torchrun; nothing when alone."""
    several = any(int(os.environ.get(name, "1")) > 1 for name in WORLDS)
    if several and not torch.distributed.is_initialized():
        from accelerate import PartialState

        # a generator may be trained by the first process while the others wait
        patience = timedelta(days=1)
        PartialState(cpu=cpu or not torch.accelerator.is_available(), timeout=patience)


def finish() -> None:
    """Leave the other processes when all have done their work; nothing when alone."""
    if torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def world() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def run_on_main(work: Callable[[], T]) -> T | None:
    """Let the first process do something while the others wait; None in the others.

    An error in the first is raised in all of them, so that no process waits for ever.
    """
    if not torch.distributed.is_initialized():
        return work()
    result: T | None = None
    failure: list[Exception | None] = [None]
    if is_first():
        try:
            result = work()
        except Exception as error:
            failure = [portable(error)]
    torch.distributed.broadcast_object_list(failure)
    if failure[0] is not None:
        raise of_all(failure[0])
    return result


def run_on_all(work: Callable[[], T]) -> T:
    """Let every process do something in which none waits for another.

    An error in one is raised in all of them.
    """
    if not torch.distributed.is_initialized():
        return work()
    result: list[T] = []
    failure: Exception | None = None
    try:
        result = [work()]
    except Exception as error:
        failure = portable(error)
    failures: list[Exception | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(failures, failure)
    for error in failures:
        if error is not None:
            raise of_all(error)
    return result[0]


def portable(error: Exception) -> Exception:
    """The error, or one with the same words where it cannot cross between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(repr(error))
    return error


def of_all(error: Exception) -> Exception:
    """An error that is raised in all processes: the first alone is to say it."""
    return error if is_first() else reported_elsewhere(error)
