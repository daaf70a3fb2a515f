"""Every notebook runs from top to bottom, and shows what it would show today."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), *_python_path()]))
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs or cell.execution_count for cell in cells), "committed unexecuted"
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    shown = "\n".join(
        text
        for cell in cells
        for output in cell.outputs
        for text in [output.get("text", ""), *output.get("data", {}).values()]
        if isinstance(text, str)
    )
    assert "claims" in shown or "claim" in shown, "the checks' table is shown"
    assert "FAILS" not in shown
    assert "HOLDS" not in shown, "a control holds"


def _python_path() -> list[str]:
    known = os.environ.get("PYTHONPATH")
    return [known] if known else []
