"""`python -m sim verify`: check every claim of the theory against the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from sim.verify import as_json, table, verify_with_progress
from theory.cli import parse_or_exit, run
from theory.files import check_writable, write_json


@dataclass(frozen=True)
class Verify:
    """Check every claim of the theory by simulation, each with a control that must fail.

    Exit code 0 when every claim holds and every control fails, 1 otherwise. Examples:

      python -m sim verify

      python -m sim verify --claims gradient-variance convergence --seed 7

      python -m sim verify --full --json results/verify.json
    """

    claims: tuple[str, ...] = ()
    """Names of the claims to check (see `python -m theory list`); all by default."""

    seed: int = 0
    """Seed of every random draw."""

    full: bool = False
    """Ten times as many draws: minutes instead of about one."""

    verbose: bool = False
    """Show every quantity, not only the one closest to failing."""

    json: Path | None = None
    """Write predictions, measurements and verdicts to this file."""

    jobs: int | None = None
    """Processes to use; the result does not depend on it. All cores by default."""


Command = (
    Annotated[Verify, tyro.conf.subcommand("verify")]
    # a second member makes tyro show `verify` as a subcommand
    | Annotated[None, tyro.conf.subcommand("version", description="Print the version.")]
)


def main() -> int:
    """Parse the command line and run it."""
    command = parse_or_exit(
        lambda: tyro.cli(
            Command,  # type: ignore[arg-type]
            prog="python -m sim",
            description="The theory's claims, measured in the two-layer CNN.",
        )
    )
    if command is None:
        from importlib.metadata import version

        print(version("tada-companion"))
        return 0
    return _verify(command)


def _verify(command: Verify) -> int:
    if command.json is not None:
        check_writable(command.json)
    results, elapsed = verify_with_progress(
        command.claims or None, command.seed, command.full, command.jobs
    )
    console = Console()
    console.print(table(results, command.verbose))
    passed = sum(r.passed for r in results)
    console.print(f"{passed} of {len(results)} claims hold with a failing control; {elapsed} s")
    if command.json is not None:
        write_json(command.json, as_json(results, elapsed, command.seed, command.full))
    return 0 if passed == len(results) else 1


if __name__ == "__main__":
    run(main)
