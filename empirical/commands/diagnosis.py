"""The command `diagnose`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from common.errors import require

_COLUMNS = (
    ("c", "fidelity", 3),
    ("τ", "kept_noise", 3),
    ("layout", "kept_layout", 3),
    ("a", "amplitude", 3),
    ("agrees", "agreement", 2),
    ("label", "consistency", 2),
    ("diversity", "diversity", 3),
)


def diagnose(
    kind: tyro.conf.Positional[Literal["store"]],
    folder: tyro.conf.Positional[Path],
    data: Path = Path("data"),
    download: bool = True,
    network: str = "conv4",
    epochs: int = 20,
    sources: int = 2000,
    seed: int = 0,
    cpu: bool = False,
    out: Path | None = None,
) -> None:
    """How faithful the synthetic images of a store are, in the theory's terms, by strength.

    Fidelity c, kept noise tau, amplitude a (theory/family.md), label consistency, diversity among
    copies, FID and KID, each with its standard error; empirical/diagnosis/README.md defines them.
    Writes OUT.json and OUT.png, by default diagnosis.json and diagnosis.png beside FOLDER. The
    classifiers that judge are kept in FOLDER.diagnosis; the same command does not train again.

    For example: python -m empirical diagnose store runs/tada/synthetic

    Args:
        kind: what is diagnosed.
        folder: the store.
        data: folder with the published data sets.
        download: download a data set that is not there.
        network: of the two classifiers that judge.
        epochs: of their training.
        sources: at most so many, drawn at random.
        seed: of the classifiers, sources, mixtures and bootstrap.
        cpu: do not use a GPU.
        out: the files that are written, without .json and .png.
    """
    from common.files import check_writable, nothing_left, write_json
    from common.plotting import write_figure
    from empirical.diagnosis.classifier import DEFAULT
    from empirical.diagnosis.figure import draw
    from empirical.diagnosis.stores import diagnose_store
    from empirical.generation.ideal import Curve
    from empirical.runtime import Machine

    require(folder.is_dir(), "folder", folder, "a folder with a store of synthetic images")
    stem = folder.resolve().parent / "diagnosis" if out is None else out
    pages = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "png")]
    recipe = replace(DEFAULT, epochs=epochs, seed=seed)
    machine = Machine(data=data, download=download, cpu=cpu)
    with nothing_left(pages[0].parent):
        for page in pages:
            check_writable(page)
        found = diagnose_store(folder, data, network, recipe, sources, seed, machine)
    found["command"] = (
        f"python -m empirical diagnose {kind} {folder} --network {network} "
        f"--epochs {epochs} --sources {sources} --seed {seed}"
    )
    write_json(pages[0], found)
    curve = found["curve"]
    truth = None if curve is None else Curve(**{name: tuple(own) for name, own in curve.items()})
    write_figure(pages[1], draw(found, truth))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(table(found))
    for note in found["notes"]:
        console.print(note, markup=False, soft_wrap=True)
    console.print(str(pages[0]), markup=False, soft_wrap=True)


def table(found: Mapping[str, Any]) -> Table:
    """Strengths as rows, the last row all together."""
    judge, every = found["judge"], found["overall"]
    title = (
        f"{found['dataset']}, generator {found['backend']}; judge {judge['network']}, error "
        f"{100 * judge['error']:.1f}%; sources' own label {_cell(every['source_consistency'], 2)}"
    )
    if "judge" in every["distances"]:
        title += f", FID of real images {_cell(every['distances']['judge']['fid_real'], 1)}"
    shown = Table(
        title=title,
        caption="c fidelity, τ kept noise, layout: τ without whitening, a amplitude, agrees: same "
        "prediction as the source, label: predicted class is the label, FID in the judge's "
        "features; ± standard error over sources",
    )
    for name in ("strength", *(name for name, _, _ in _COLUMNS), "FID"):
        shown.add_column(name, justify="right")
    for own in (*found["strengths"], every):
        cells = ["all" if own["strength"] is None else f"{own['strength']:g}"]
        cells += [_cell(own[name], digits) for _, name, digits in _COLUMNS]
        space = own["distances"].get("judge")
        shown.add_row(*cells, "–" if space is None else _cell(space["fid"], 1))
    return shown


def _cell(estimate: Mapping[str, Any] | None, digits: int = 3) -> str:
    if estimate is None:
        return "–"
    error = estimate["standard_error"]
    spread = "" if error is None else f" ± {error:.{digits}f}"
    return f"{estimate['value']:.{digits}f}{spread}"
