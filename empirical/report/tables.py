"""Results as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def points(share: float | None, sign: bool = False) -> str:
    """A share in [0, 1] as percentage points with two digits."""
    return "" if share is None else f"{100 * share:{'+' if sign else ''}.2f}"


def show_comparison(results: dict[str, Any]) -> None:
    """Print the mean errors and the orderings of a comparison, in percentage points."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(title="Test error (%), with standard errors over splits")
    for name in ("generator", "optimizer", "budget", "arm", "splits", "all", "slow", "fast"):
        table.add_column(name)
    for row in results["summary"]:
        table.add_row(
            *(str(row[name]) for name in ("generator", "optimizer", "budget", "arm", "splits")),
            *(
                f"{points(row[key])} ± {points(row[f'{key}_standard_error'])}"
                for key in ("test_error", "test_error_slow", "test_error_fast")
            ),
        )
    console.print(table)
    table = Table(title="The paper's orderings: differences in points")
    for name in ("generator", "optimizer", "budget", "ordering", "difference", "verdict"):
        table.add_column(name)
    for row in results["orderings"]:
        table.add_row(
            *(row[name] for name in ("generator", "optimizer", "budget", "ordering")),
            f"{points(row['difference'], sign=True)} ± {points(row['standard_error'])}",
            row["verdict"],
        )
    console.print(table)
