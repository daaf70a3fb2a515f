"""Compute figures on all cores, and write each as JSON and PNG when its parts are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from joblib import delayed
from matplotlib.figure import Figure as Canvas

import common
import sim
import theory
from common.errors import require
from common.files import check_writable, read_json, write_json
from common.parallel import check_jobs, pool
from common.plotting import STYLE, write_figure
from common.progress import progress, say
from common.provenance import sources, versions
from sim.figures import FIGURES
from sim.figures.base import Figure, Json, Part


def make(names: Sequence[str], out: Path, seed: int = 0, jobs: int | None = None) -> list[Path]:
    """Write out/NAME.json and out/NAME.png for each figure; returns the plots' paths.

    names: figures, or "all". A JSON file made before by the same code from the same seed is used
    again, so a killed call resumes with the first unfinished figure. The result depends on the
    seed alone, not on jobs. Raises ParameterError for an unknown figure, a negative seed or
    jobs < 1, and OSError if out cannot be written, before anything is computed.
    """
    for name in names:
        known = [*FIGURES, "all"]
        require(name in known, "figure", name, f"one of {', '.join(known)}")
    require(len(names) > 0, "figure", "none", f"one of {', '.join(FIGURES)}, all")
    require(seed >= 0, "seed", seed, "0 or more")
    chosen = [f for n, f in FIGURES.items() if n in names or "all" in names]
    check_jobs(jobs, sum(len(f.parts) for f in chosen))
    for figure in chosen:
        check_writable(out / f"{figure.name}.json")
    made_by = {"seed": seed, "sources": sources(common, theory, sim), "versions": versions()}
    missing = [f for f in chosen if _found(out, f, made_by) is None]
    _compute(missing, out, made_by, jobs)
    for figure in chosen:
        if figure not in missing:
            say(f"{out / figure.name}.json: measured before, drawn again")
        result = _found(out, figure, made_by)
        if result is not None:
            _draw(figure, result["data"], out / f"{figure.name}.png")
    return [out / f"{figure.name}.png" for figure in chosen]


def _compute(figures: list[Figure], out: Path, made_by: Json, jobs: int | None) -> None:
    tasks = [(f.name, i, part) for f in figures for i, part in enumerate(f.parts)]
    if not tasks:
        return
    waiting: dict[str, dict[int, Json]] = {f.name: {} for f in figures}
    done: Any = pool(jobs, len(tasks))(delayed(_work)(made_by["seed"], *task) for task in tasks)
    with progress("parts of figures computed", len(tasks)) as advance:
        for name, index, data in done:
            figure, parts = FIGURES[name], waiting[name]
            parts[index] = data
            if len(parts) == len(figure.parts):
                merged = figure.merge([parts[i] for i in range(len(parts))])
                write_json(out / f"{name}.json", _record(figure, merged, made_by))
            advance()


def _work(seed: int, name: str, index: int, part: Part) -> tuple[str, int, Json]:
    torch.set_num_threads(1)
    return name, index, part.function(seed, *part.arguments)


def _record(figure: Figure, data: Json, made_by: Json) -> Json:
    settings = {k: asdict(v) if is_dataclass(v) else v for k, v in figure.settings.items()}  # type: ignore[arg-type]
    return {
        "figure": figure.name,
        "about": figure.about,
        "command": f"python -m sim figure {figure.name} --seed {made_by['seed']}",
        "settings": settings,
        "made_by": made_by,
        "data": data,
    }


def _found(out: Path, figure: Figure, made_by: Json) -> Json | None:
    """The figure's JSON, if it is there and was made by the same code from the same seed."""
    path = out / f"{figure.name}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["made_by"] == made_by else None
    except (ValueError, KeyError, TypeError):
        return None  # not one of ours, or damaged: it is recomputed and replaced whole


def saved(path: Path) -> Canvas:
    """The plot of a figure's JSON file, drawn from what it holds, whatever code computed it."""
    found = read_json(path, "figure", ("figure", "data"))
    name = found["figure"]
    require(name in FIGURES, "figure", name, f"one of {', '.join(FIGURES)}")
    with mpl.rc_context(STYLE):
        return FIGURES[name].draw(found["data"])


def _draw(figure: Figure, data: Json, path: Path) -> None:
    with mpl.rc_context(STYLE):
        write_figure(path, figure.draw(data))
