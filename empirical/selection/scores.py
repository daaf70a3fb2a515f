"""How difficult each example is, by scores of one early training; high is difficult.

forgetting: forgetting events, epochs after which a right answer becomes wrong (Toneva et al. 2019);
one that is never right counts as many as there are epochs. first-learned: the first epoch with a
right answer, one past the last for none. el2n: length of the error vector, softmax minus label, at
the last epoch (Paul et al. 2021). confidence: minus the mean probability of the label over epochs,
and variability, its standard deviation (Swayamdipta et al. 2020).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import ParameterError, near, require
from empirical.config.selection import SCORES
from empirical.selection.slow_sets import softmax


def score(name: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A difficulty score of each example, float64 (n,).

    name: one of SCORES; logits: (epochs, n, classes), after each epoch; labels: (n,).
    Raises ParameterError for another name.
    """
    require(name in SCORES, "selection", name, " or ".join(SCORES) + near(name, SCORES))
    epochs, n = logits.shape[:2]
    right = logits.argmax(axis=2) == labels
    own = np.stack([softmax(one.astype(np.float64)) for one in logits])
    probability = own[:, np.arange(n), labels]
    if name == "forgetting":
        events = (right[:-1] & ~right[1:]).sum(axis=0).astype(float)
        return np.where(right.any(axis=0), events, float(epochs))
    if name == "first-learned":
        return np.where(right.any(axis=0), right.argmax(axis=0) + 1.0, epochs + 1.0)
    if name == "el2n":
        error = own[-1].copy()
        error[np.arange(n), labels] -= 1
        return np.linalg.norm(error, axis=1)
    return -probability.mean(axis=0) if name == "confidence" else probability.std(axis=0)


def read(
    path: Path, column: str | None, rows: Sequence[int], files: Sequence[str] | None
) -> np.ndarray:
    """Scores of somebody else for the images at `rows`, float64 (n,).

    path: .npy with one number for each image, or .csv with a header. column: of the scores; None is
    the last one. A column "index" or "file" says which image a line is about; without either there
    is a line for each image, in their order.

    Raises:
        ParameterError: the file is not like that, or lacks an image.
        OSError: it cannot be read.
    """
    if path.suffix == ".npy":
        try:
            given = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ParameterError("scores", path, f"a .npy file of numbers ({error})") from error
        return _in_order(path, given, rows)
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    require(len(table) > 0, "scores", path, "a .npy file, or a .csv file with a header and lines")
    names = [name for name in table[0] if name is not None]
    chosen = column or names[-1]
    allowed = f"one of {', '.join(names)}{near(chosen, names)}"
    require(chosen in names, "scores_column", chosen, allowed)
    values: list[float] = []
    for number, line in enumerate(table, start=2):
        try:
            values.append(float(line[chosen]))
        except (TypeError, ValueError):
            said = f"numbers in {chosen} (line {number} has {line[chosen]!r})"
            require(False, "scores", path, said)
    key = next((name for name in ("index", "file") if name in names and name != chosen), None)
    if key is None:
        return _in_order(path, np.array(values), rows)
    require(
        key == "index" or files is not None, "scores", path, "by index: these images are no files"
    )
    known = dict(zip((line[key] for line in table), values, strict=True))
    wanted = [str(row) if key == "index" else str((files or ())[row]) for row in rows]
    missing = [name for name in wanted if name not in known]
    allowed = f"with every training image; it lacks {len(missing)}, as {key} {missing[:1]}"
    require(not missing, "scores", path, allowed)
    return _finite(path, np.array([known[name] for name in wanted]))


def _in_order(path: Path, values: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    fits = values.ndim == 1 and len(values) > max(rows)
    allowed = f"one number for each training image, at least {max(rows) + 1}"
    require(fits, "scores", path, f"{allowed}; it has {values.shape}")
    return _finite(path, values[np.asarray(rows)].astype(float))


def _finite(path: Path, values: np.ndarray) -> np.ndarray:
    require(bool(np.isfinite(values).all()), "scores", path, "of finite numbers")
    return values
