"""How much memory there is, said before more than that is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from common.errors import ParameterError

GIB = 2**30
PROCESS = 2**28
"""Bytes that a Python process with torch takes for itself."""


class TooLargeError(ParameterError):
    """More memory is needed than there is.

    name: what needs it; value: how much, and for what; allowed: how much there is, and what to do.
    """

    def __str__(self) -> str:
        return f"{self.name} needs about {self.value}; {self.allowed}"


def available() -> int:
    """Bytes that new work can take: what the kernel calls available, less where a limit is set.

    A limit is one of a control group, as containers have it.
    """
    return max(0, min(_of_machine(), *_of_groups()))


def require_memory(
    what: str, needed: float, made_of: str, lower: str, there: int | None = None
) -> None:
    """Raise TooLargeError unless so many bytes are there (None: on this machine, now).

    what: the command; made_of: what the bytes are for; lower: the flags that would help.
    """
    found = available() if there is None else there
    if needed > found:
        advice = f"this machine has {gib(found)}: lower {lower}"
        raise TooLargeError(what, f"{gib(needed)} for {made_of}", advice)


def gib(count: float) -> str:
    """Bytes as people read them."""
    size = count / GIB
    if size < 1:
        return f"{count / 2**20:.0f} MiB"
    return f"{size:.1f} GiB" if size < 1000 else f"{size:.1e} GiB"


def _of_machine() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass  # not Linux
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left below each limit of the control groups that this process is in, versions 1 and 2.

    Pages of files count as left: the kernel gives them up.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            top, files = root, ("memory.max", "memory.current", "file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
            top, files = root / "memory", names
        else:
            continue
        inside = top / name.lstrip("/")
        for group in (inside, *inside.parents):
            left = _left(group, *files)
            if left is not None:
                yield left
            if group == top:
                break


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """Bytes left in one group; None where it sets no limit or is not to be seen from here."""
    try:
        most = int((group / limit).read_text())
        used = int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return most - used + int(stat.get(cached, 0))
    except (OSError, ValueError):
        return None  # "max" is no number
