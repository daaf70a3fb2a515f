"""Several processes of one run: the first writes, the others wait and read."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch

T = TypeVar("T")


def start(cpu: bool = False) -> None:
    """Meet the other processes of `accelerate launch` or torchrun; nothing when alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        # a generator may be trained by the first process while the others wait
        patience = timedelta(days=1)
        PartialState(cpu=cpu or not torch.accelerator.is_available(), timeout=patience)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def first_does(work: Callable[[], T]) -> T | None:
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
            failure = [error]
    torch.distributed.broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]
    return result
