"""Work shared by the processes of one job; a process alone is a job of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from common import distributed

T = TypeVar("T")


def place() -> tuple[int, int]:
    """This process among those of the job: (rank, world)."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def told_by_first(work: Callable[[], T]) -> T:
    """What the first process finds, in all of them."""
    found: list[Any] = [distributed.run_on_main(work)]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(found)
    return found[0]


def exchange(own: T | Exception) -> list[T | Exception]:
    """What each process has to say, by rank: a result, or why there is none."""
    if not torch.distributed.is_initialized():
        return [own]
    if isinstance(own, Exception):
        own = distributed.portable(own)
    all_of_them: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(all_of_them, own)
    return all_of_them
