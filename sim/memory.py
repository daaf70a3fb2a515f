"""How much memory a run needs and how much there is, said before the first of it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.engine import fewer_multiplications
from sim.measure import FRESH_CHUNK
from sim.span import FEATURES
from theory.parameters import ParameterError

if TYPE_CHECKING:
    from sim.run import RunSettings

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


def run_bytes(settings: RunSettings, checkpoint: bool = False) -> int:
    """Bytes that `sim.run.simulate` takes at its peak, within a factor of 2 where it is large.

    The settings must be allowed. The stages are those of `sim.run`: the originals are drawn, the
    augmentation is added, the rows and the Gram matrix are formed (backend span), and training and
    testing work on what is left. Each counts the large arrays that are there at the same time.
    """
    bytes_each = {"float32": 4, "float64": 8}[settings.dtype]
    S, P, d, J = settings.seeds, settings.n_patches, settings.dim, settings.filters
    n = settings.n_examples
    slow = n - round(settings.alpha * n)
    made = {"original": 0, "syn-all": n}.get(settings.arm, (settings.k - 1) * slow)
    total = n + made
    drawn, grown = n * P * d, total * P * d  # numbers of each seed
    noise, new_noise = n * (P - 1) * d, made * (P - 1) * d
    orthogonal = settings.noise == "orthogonal"

    first = drawn + (6 if orthogonal else 2) * noise
    filters = 2 * J * d
    second = drawn + grown
    if settings.arm not in ("original", "upsample"):
        second += grown + (6 * new_noise + 3 * noise if orthogonal else 4 * new_noise)
    distinct = n if makes_copies(settings) else total
    rows = FEATURES + distinct * (P - 1)
    batch = settings.batch_size
    passes = 6 if settings.rho > 0 else 4  # arrays of the size of all projections
    backend = settings.backend
    if backend == "auto":
        backend = fewer_multiplications(total, P, d, rows, S, batch, P - 1)
    if backend == "span":
        third = grown + max(2 * made * P * d, distinct * P * d + 2 * rows * d + rows**2)
        kept = rows * (d + J) + rows**2
        used = rows if batch is None else FEATURES + batch * (P - 1)
        # the filters' coordinates, and projections of all rows when errors are measured
        training = 3 * J * rows + passes * J * rows
        if batch is not None:  # the mini-batch's Gram matrix, and random numbers for its choice
            training += used * (rows + used) + 3 * total
        saved = rows**2
    else:
        third, kept = grown, grown
        training = 3 * J * d + passes * J * P * total
        if batch is not None:
            training += 2 * batch * P * d + 3 * total
        saved = grown
    chunk = min(FRESH_CHUNK, settings.test_examples)
    testing = 4 * J**2 + 6 * chunk * J
    # the fingerprint of a checkpoint is taken of a copy
    last = max(training, testing, saved if checkpoint else 0)
    each = filters + max(first, second, third, kept + last)
    shared = (P - 1) * chunk * J  # the same fresh noise for all seeds
    return bytes_each * (S * each + shared)


def makes_copies(settings: RunSettings) -> bool:
    """Whether every added example equals its source."""
    if settings.arm in ("original", "upsample"):
        return True
    same = settings.sigma_synthetic in (None, settings.sigma_noise)
    silent = settings.sigma_noise == 0
    return settings.fidelity == 1 and (silent or (same and settings.kept_noise == 1))


def check_run(settings: RunSettings, checkpoint: bool = False) -> None:
    """Raise TooLargeError unless this machine has the memory for such a run."""
    needed = run_bytes(settings, checkpoint)
    require_memory("sim run", needed, _described(settings), _lower(settings))


def check_runs(cells: Sequence[RunSettings], jobs: int | None) -> int:
    """How many of these runs this machine does at once: `jobs`, or as many as cores and memory say.

    Raises TooLargeError where there is no memory for that many, or for a single one.
    """
    largest = sorted(cells, key=run_bytes, reverse=True)
    count = min(jobs or os.cpu_count() or 1, len(cells))

    def needed(count: int) -> int:
        return sum(run_bytes(cell) for cell in largest[:count]) + (count - 1) * PROCESS

    there = available()
    while jobs is None and count > 1 and needed(count) > there:
        count -= 1
    made_of, lower = _described(largest[0]), _lower(largest[0])
    if count > 1:
        made_of = f"{count} cells at once, one of them {made_of}"
        lower = f"--jobs, {lower}"
    require_memory("sim sweep", needed(count), made_of, lower, there)
    return count


def _described(settings: RunSettings) -> str:
    """The sizes that the memory depends on."""
    s = settings
    return (
        f"{s.n_examples} examples of {s.n_patches} patches in {s.dim} dimensions, {s.arm} at "
        f"k = {s.k}, {s.filters} filters and {s.seeds} seeds"
    )


def _lower(settings: RunSettings) -> str:
    names = ["--n-examples", "--n-patches", "--dim", "--k", "--filters", "--seeds"]
    if settings.batch_size is not None:
        names.append("--batch-size")
    return f"{', '.join(names[:-1])} or {names[-1]}"
