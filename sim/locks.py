"""One writer for a folder: the others are told so, in one line.

The lock is the operating system's, so it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from theory.parameters import ParameterError

LOCK = ".lock"

_held: set[Path] = set()
"""Lock files that this process has: a command may call another one on its own folder."""


@contextmanager
def writing(folder: Path, name: str = "out", shown: Path | None = None) -> Iterator[None]:
    """Inside, no other process writes into `folder`, which is made if it is not there.

    A folder that the block leaves empty is removed again, with those above that were made for it.
    name, shown: what a message calls the flag that gives the folder, and the folder.

    Raises:
        ParameterError: another process writes there now.
        OSError: it cannot be made, or written.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        yield
        return
    made = [own for own in (folder, *folder.parents) if not own.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        allowed = "one that no other run writes to; another run is writing there now"
        raise ParameterError(name, shown or folder, allowed) from None
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with contextlib.suppress(OSError):  # it is not there, or not empty
            if [own.name for own in folder.iterdir()] == [LOCK]:
                path.unlink()
                for own in made:
                    own.rmdir()
        lock.release()
