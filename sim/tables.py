"""What `verify` measured, as a plot and as Markdown, from its JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.plotting import BLUE, GREY, ORANGE, RED, canvas

Json = dict[str, Any]


def draw(verified: Json) -> Figure:
    """Measured over predicted for every quantity, a strip a claim, with its control.

    Equalities as points with ± 2 standard errors; bounds as triangles towards the side they must
    lie on: measured over the bound, their tightness.
    """
    strips = [
        (claim["name"], [q for q in claim["quantities"] if _drawable(q)], claim)
        for claim in verified["claims"]
    ]
    figure, axes = canvas(8.2, 1.1 + 0.34 * len(strips))
    axes.axvspan(0.9, 1.1, color=BLUE, alpha=0.08, lw=0)
    axes.axvline(1, color="black", lw=0.6)
    for height, (_, quantities, claim) in enumerate(strips):
        axes.axhline(height + 0.5, color=GREY, lw=0.3)
        broken = {q["label"]: q for q in claim["control"]["quantities"]}
        spread = (
            np.linspace(-0.34, 0.34, len(quantities))
            if len(quantities) > 1
            else [0.0] * len(quantities)
        )
        for offset, q in zip(spread, quantities, strict=True):
            y, ratio = height + offset, q["measured"] / q["predicted"]
            if q["relation"] == "=":
                error = q["standard_error"] / abs(q["predicted"])
                axes.errorbar(ratio, y, xerr=2 * error, fmt="o", ms=2, color=BLUE, lw=0.7)
            else:
                marker = "<" if q["relation"] == "<" else ">"
                axes.plot(np.clip(ratio, *_EDGES), y, marker, ms=3.5, color=ORANGE)
            control = broken.get(q["label"])
            if control is not None and control["refuted"] and _drawable(control):
                off = np.clip(control["measured"] / control["predicted"], *_EDGES)
                axes.plot(off, y, "x", ms=2.8, mew=0.7, color=RED)
    axes.set_yticks(range(len(strips)), [name for name, *_ in strips])
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.set_xlim(_EDGES[0] - 0.02, _EDGES[1] + 0.02)
    axes.set_xlabel("measured / predicted, ± 2 s.e.")
    axes.plot([], [], "o", ms=3, color=BLUE, label="equality")
    axes.plot([], [], "<", ms=4, color=ORANGE, label="bound: tightness (beyond the edge: on it)")
    axes.plot([], [], "x", ms=4, color=RED, label="its control, refuted")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


_EDGES = (0.31, 1.74)


def _drawable(quantity: Json) -> bool:
    """Whether it has a ratio: not where it could not be measured, or 0 is predicted."""
    return bool(quantity["predicted"]) and quantity["measured"] is not None


def markdown(record: Json) -> str:
    """A row for each claim: its headline quantity, and how many quantities, bounds, controls."""
    rows = [
        "| claim | quantities | closest to failing | predicted | measured ± s.e. | "
        "measured / bound | control: broken assumption | refuted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for claim in record["claims"]:
        quantities = claim["quantities"]
        holding = sum(q["holds"] for q in quantities)
        bounds = [q["tightness"] for q in quantities if "tightness" in q]
        tightness = f"{min(bounds):.3g} to {max(bounds):.3g}" if bounds else ""
        control = claim["control"]
        refuted = sum(q["refuted"] for q in control["quantities"])
        if claim["measured"] is None:
            numbers = ("", "not measurable")
        else:
            error = f" ± {claim['standard_error']:.1g}" if claim["standard_error"] else " (exact)"
            numbers = (
                f"{claim['relation']} {claim['predicted']:.5g}",
                f"{claim['measured']:.5g}{error}",
            )
        cells = (
            claim["name"],
            f"{holding} of {len(quantities)} hold",
            claim["label"],
            *numbers,
            tightness,
            control["broken_assumption"],
            f"{refuted} of {len(control['quantities'])}",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
