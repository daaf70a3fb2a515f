"""Is a constant of the theory that is wrong by 10% caught at any seed? Measured over seeds.

Every number in the theory's formulas, a tenth larger and a tenth smaller, is judged by what the
checks measure at each of a few seeds, as in test_mutations.py, which does so at one.

    python -m tests.sim.power --seeds 20 --out results/theory/power.json
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import delayed
from scipy import stats

from common.files import write_json
from common.parallel import pool
from common.progress import progress
from common.provenance import versions
from tests.sim.test_mutations import EQUIVALENT, GROUPS, SEARCHES, by_code, caught, judged, of_group

_NUMBER = re.compile(r": `[\d.e+-]+` -> `[\d.e+-]+`")


def at_seed(group: str, seed: int) -> dict[str, bool]:
    """Whether each wrong constant of a group is caught by what is measured at this seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # of mutants: numbers out of all bounds
    through = by_code(judged(group, seed))
    found = {}
    for mutant in of_group(group):
        constant = _NUMBER.search(mutant.text) and "-> `1`" not in mutant.text
        left_out = mutant.text.split(":")[0] in SEARCHES
        if constant and not left_out and mutant.text not in EQUIVALENT.get(group, ()):
            tests = through.get(mutant.function.__code__, [])
            found[mutant.text] = caught(mutant, tests) is not None
    return found


def measure(first: int, seeds: int, jobs: int | None) -> dict[str, Any]:
    """All groups at all seeds: how often each wrong constant is caught, and in all."""
    tasks = [(group, seed) for group in GROUPS for seed in range(first, first + seeds)]
    counts: dict[str, int] = {}
    with progress("groups at seeds", len(tasks)) as advance:
        done: Any = pool(jobs)(delayed(at_seed)(*task) for task in tasks)
        for found in done:
            for text, is_caught in found.items():
                counts[text] = counts.get(text, 0) + is_caught
            advance()
    trials, hits = seeds * len(counts), sum(counts.values())
    interval = stats.binomtest(hits, trials).proportion_ci(0.95)
    return {
        "seeds": {"first": first, "number": seeds},
        "wrong_constants": len(counts),
        "caught": hits / trials,
        "caught_interval": [float(interval.low), float(interval.high)],
        "caught_least": float(np.min(list(counts.values()))) / seeds,
        "not_always_caught": {t: n for t, n in sorted(counts.items()) if n < seeds},
        "versions": versions("scipy"),
    }


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=7000)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    record = measure(given.first_seed, given.seeds, given.jobs)
    command = f"python -m tests.sim.power --seeds {given.seeds} --first-seed {given.first_seed}"
    write_json(given.out, record | {"command": f"{command} --out {given.out}"})
    print(f"{record['caught']:.4f} of {record['wrong_constants']} wrong constants caught")


if __name__ == "__main__":
    main()
