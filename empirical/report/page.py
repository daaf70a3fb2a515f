"""The report: one HTML file with its plots inside, and the same plots as PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from importlib.resources import files as resource
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from common.files import whole_file
from common.plotting import STYLE
from empirical.report import plots
from empirical.report.gallery import Gallery
from empirical.report.tables import points
from sim import tables


def write_report(results: dict[str, Any], gallery: Gallery, out: Path) -> Path:
    """Write out/report.html and out/figures/*.png from `reproduce`'s results; returns the page.

    The page needs no other file and no network.
    """
    with mpl.rc_context(STYLE):
        drawn = {
            "claims": tables.draw(results["theory"]),
            "test_errors": plots.test_errors(results["empirical"]),
            "orderings": plots.orderings(results["empirical"]),
            "images": plots.images(gallery),
        }
        figures = embedded(drawn, out / "figures")
    return render("report.html", figures=figures, **results)(out / "report.html")


def embedded(figures: dict[str, Figure], folder: Path) -> dict[str, str]:
    """Write the figures as PNG files into a folder; returns them as addresses for a page."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, figure in figures.items():
        png = _png(figure)
        with whole_file(folder / f"{name}.png") as part:
            part.write_bytes(png)
        found[name] = "data:image/png;base64," + base64.b64encode(png).decode()
    return found


def render(template: str, **values: Any) -> Callable[[Path], Path]:
    """A page of a template and these values; call it with the path to write it to."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"points": points, "signed": lambda share: points(share, sign=True)}
    environment.filters["number"] = number
    environment.filters["by_label"] = lambda quantities: {q["label"]: q for q in quantities}
    text = resource("empirical.report").joinpath(template).read_text(encoding="utf-8")
    page = environment.from_string(text).render(**values)

    def write(path: Path) -> Path:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
        return path

    return write


def number(value: float | None) -> str:
    """Four digits; in words where a quantity could not be formed from its draws."""
    return "not measurable" if value is None else f"{value:.4g}"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # without the software's version in the file, the same plot has the same bytes
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
