"""One writer for a folder: the others are told so, in one line.

The lock is the operating system's, so it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

from common.cli import is_main_process
from common.errors import BusyError

P = ParamSpec("P")
T = TypeVar("T")

LOCK = ".lock"

_held: set[Path] = set()
"""Lock files that this process has: a command may call another one on its own folder."""


@contextmanager
def writing(folder: Path, name: str = "out", shown: Path | None = None) -> Iterator[None]:
    """Inside, no other process writes into `folder`, which is made if it is not there.

    A folder that the block leaves empty is removed again, with those above that were made for it.
    name, shown: what a message calls the flag that gives the folder, and the folder.

    Raises:
        BusyError: another process writes there now.
        OSError: it cannot be made, or written.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        yield
        return
    made = [own for own in (folder, *folder.parents) if not own.exists()]
    lock = _acquired(path)
    if lock is None:
        raise BusyError(name, shown or folder, "another folder")
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with contextlib.suppress(OSError):  # it is not there, or not empty
            path.unlink()
            for own in made:
                own.rmdir()
        lock.release()


def _acquired(path: Path) -> FileLock | None:
    """The lock; None if another process has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lock = FileLock(path)
        try:
            number = path.stat().st_ino
            lock.acquire(timeout=0)
            if path.stat().st_ino == number:
                return lock
        except FileNotFoundError:
            pass
        except Timeout:
            return None
        lock.release()  # of a file that its last owner has removed meanwhile: once more


def one_writer(command: Callable[P, T]) -> Callable[P, T]:
    """Let no other process write into the folder `out` of a command while it works.

    Of the processes of one job the first alone writes, and has the lock.
    """
    signature = inspect.signature(command)

    @functools.wraps(command)
    def alone(*values: P.args, **named: P.kwargs) -> T:
        out = Path(signature.bind(*values, **named).arguments["out"])
        with writing(out) if is_main_process() else contextlib.nullcontext():
            return command(*values, **named)

    return alone
