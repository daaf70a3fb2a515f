"""How much memory a simulated run needs, said before the first of it is taken."""

from __future__ import annotations

import os
from collections.abc import Sequence

from common import memory
from sim.backends.span import FEATURES
from sim.measure import FRESH_CHUNK
from sim.settings import RunSettings
from sim.train import choose_backend


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
        backend = choose_backend(total, P, d, rows, S, batch, P - 1)
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
    memory.require_memory("sim run", needed, _described(settings), _lower(settings))


def check_runs(cells: Sequence[RunSettings], jobs: int | None) -> int:
    """How many of these runs this machine does at once: `jobs`, or as many as cores and memory say.

    Raises TooLargeError where there is no memory for that many, or for a single one.
    """
    largest = sorted(cells, key=run_bytes, reverse=True)
    count = min(jobs or os.cpu_count() or 1, len(cells))

    def needed(count: int) -> int:
        return sum(run_bytes(cell) for cell in largest[:count]) + (count - 1) * memory.PROCESS

    there = memory.available()
    while jobs is None and count > 1 and needed(count) > there:
        count -= 1
    made_of, lower = _described(largest[0]), _lower(largest[0])
    if count > 1:
        made_of = f"{count} cells at once, one of them {made_of}"
        lower = f"--jobs, {lower}"
    memory.require_memory("sim sweep", needed(count), made_of, lower, there)
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
