"""`python -m sim`: the theory's claims checked; figures, runs and sweeps of the simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional

from common.cli import benchmark, parse_or_exit, run
from common.files import check_writable, read_json, whole_file, write_json
from sim.settings import RunSettings

# torch takes a second to import: each command imports what it needs when it is called

FIGURES = (
    *("activations", "alignment", "arms", "best-k", "convergence", "family", "generation-map"),
    *("gradient-variance", "learning-time", "sam-map", "test-error"),
)
"""Names of the figures, in alphabetical order."""

Flat = Annotated[RunSettings, tyro.conf.arg(name="")]
"""Its fields are flags of the command itself."""


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

    def __call__(self) -> int:
        from sim.verify import as_json, reasons, selected, table, verify_with_progress

        selected(self.claims or None, self.seed, self.jobs)
        if self.json is not None:
            check_writable(self.json)
        results, elapsed = verify_with_progress(
            self.claims or None, self.seed, self.full, self.jobs
        )
        console = Console()
        console.print(table(results, self.verbose))
        for line in reasons(results):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        passed = sum(r.passed for r in results)
        console.print(f"{passed} of {len(results)} claims hold with a failing control; {elapsed} s")
        if self.json is not None:
            write_json(self.json, as_json(results, elapsed, self.seed, self.full))
        return 0 if passed == len(results) else 1


@dataclass(frozen=True)
class Calibrate:
    """Verify at many seeds: failures, and whether the standard errors are right. Examples:

      python -m sim calibrate --out runs/seeds

      python -m sim calibrate --seeds 20 --first-seed 5000 --claims family best-k --out runs/few

    Takes about 40 s of one core a seed. --out keeps what was measured: the same command
    resumes, and more --seeds add to it. Exit code 1 when a seed fails, a quantity is
    not measurable, or the law that a test assumes is rejected.
    """

    out: Path
    """Folder for the measurements, seeds.json and seeds.png."""

    seeds: int = 200
    """Number of seeds."""

    first_seed: int = 1000
    """The first of them; the others follow."""

    claims: tuple[str, ...] = ()
    """Names of the claims to check (see `python -m theory list`); all by default."""

    jobs: int | None = None
    """Processes to use; the result does not depend on it. All cores by default."""

    def __call__(self) -> int:
        from common.plotting import write_figure
        from sim import calibrate

        record = calibrate.calibrate(
            self.out, self.seeds, self.first_seed, self.claims or None, self.jobs
        )
        write_json(self.out / "seeds.json", record | {"command": self._command()})
        write_figure(self.out / "seeds.png", calibrate.draw(record))
        print(calibrate.in_words(record))
        print(f"{self.out / 'seeds.json'}, {self.out / 'seeds.png'}")
        return 0 if calibrate.passed(record) else 1

    def _command(self) -> str:
        seeds = f"--seeds {self.seeds} --first-seed {self.first_seed}"
        claims = f" --claims {' '.join(self.claims)}" if self.claims else ""
        return f"python -m sim calibrate {seeds}{claims} --out {self.out}"


@dataclass(frozen=True)
class Claims:
    """Draw and tabulate what `verify --json` wrote. Examples:

    python -m sim claims results/verify.json --plot tables.png

    python -m sim claims results/verify.json --markdown tables.md
    """

    file: Positional[Path]
    """What verify wrote."""

    plot: Path | None = None
    """Write measured over predicted of every quantity to this PNG file."""

    markdown: Path | None = None
    """Write a table of the claims to this file."""

    def __call__(self) -> int:
        from common.plotting import write_figure
        from sim import tables

        record = read_json(self.file, "file", ("claims", "level", "seed"))
        for path in (self.plot, self.markdown):
            if path is not None:
                check_writable(path)
        if self.plot is not None:
            write_figure(self.plot, tables.draw(record))
        text = tables.markdown(record)
        if self.markdown is not None:
            with whole_file(self.markdown) as part:
                part.write_text(text, encoding="utf-8")
        if self.plot is None and self.markdown is None:
            print(text, end="")
        return 0


@dataclass(frozen=True)
class Run:
    """Train on one setting, several seeds at once, and measure. Examples:

      python -m sim run

      python -m sim run --arm upsample --k 5 --out runs/upsample

      python -m sim run --arm syn-all --rho .1 --batch-size 25 --steps 2000 --out runs/all

    With --out, the same command resumes a stopped run; it computes in one thread, so that
    the same seed gives the same bytes on any number of cores.
    """

    settings: Flat = field(default_factory=RunSettings)

    out: Path | None = None
    """Folder for result.json and curves.png; without it, results are only shown."""

    def __call__(self) -> int:
        import torch

        from sim import run as single

        torch.set_num_threads(1)
        if self.out is None:
            result = single.simulate(self.settings, show="training steps", curves=False)
        else:
            result = single.run_in(self.out, self.settings)
        Console().print(single.table(result))
        if self.out is not None:
            print(f"{self.out / 'result.json'}, {self.out / 'curves.png'}")
        return 0


@dataclass(frozen=True)
class Sweep:
    """Run every combination of some parameters' values; all others are those of the flags.

    Writes OUT/sweep.parquet, a row for each cell, and OUT/sweep.png for one or two parameters.
    The same command resumes; one with more values keeps finished cells; the
    table does not depend on where it was computed. Examples:

      python -m sim sweep --grid arm=upsample,tada k=1,2,3,5 --out runs/k

      python -m sim sweep --grid beta_slow=.3,.45 rho=0,.1 --arm tada --seeds 20 --jobs 4
      --out runs/sam --plot test_error

      python -m sim sweep --grid seed=0,1,2 dim=300,1000 --cluster dask://host:8786 --out runs/dim

      python -m sim sweep --grid k=1,5 --cluster ray --out runs/ray
    """

    grid: tuple[str, ...]
    """Parameters and their values, NAME=VALUE,VALUE,...; `none` where a parameter may be None."""

    out: Path
    """Folder of the sweep."""

    settings: Flat = field(default_factory=RunSettings)

    jobs: int | None = None
    """Processes to use, one thread each. All cores by default."""

    cluster: str | None = None
    """dask://HOST:PORT, ray://HOST:PORT, or ray (RAY_ADDRESS if set, else this machine)."""

    plot: str | None = None
    """What sweep.png shows: a measured column of the table, test_error_slow by default."""

    def __call__(self) -> int:
        from sim import sweep as many

        rows = many.sweep(self.settings, self.grid, self.out, self.jobs, self.cluster, self.plot)
        print(f"{len(rows)} cells: {self.out / many.TABLE}")
        return 0


@dataclass(frozen=True)
class FigureCommand:
    """Compute an experiment and draw it: OUT/NAME.json and OUT/NAME.png.

    Figures: FIGURES, or all (in about ten minutes on 2 cores). What
    the same code computed before from the same seed is drawn again, not computed. Examples:

      python -m sim figure arms

      python -m sim figure sam-map generation-map --seed 7

      python -m sim figure all --out results/sim
    """

    name: tyro.conf.Positional[tuple[str, ...]]
    """Which figures."""

    out: Path = Path("runs/figures")
    """Folder for the figures."""

    seed: int = 0
    """Seed of every random draw."""

    jobs: int | None = None
    """Processes to use; the result does not depend on it. All cores by default."""

    def __call__(self) -> int:
        from sim.figures.make import make

        for path in make(self.name, self.out, self.seed, self.jobs):
            print(path)
        return 0


FigureCommand.__doc__ = (FigureCommand.__doc__ or "").replace("FIGURES", ", ".join(FIGURES))


@dataclass(frozen=True)
class Bench:
    """Measure speed as ratios: the engine against autograd, the dense form, matrix products.

    Takes about three minutes; the machine should do nothing else. Examples:

      python -m sim bench

      python -m sim bench --out results/bench.json
    """

    out: Path | None = None
    """Write everything measured to this file, with the machine and versions."""

    def __call__(self) -> int:
        if self.out is not None:
            check_writable(self.out)
        speed = benchmark("simulation")
        record = speed.bench()
        Console().print(speed.table(record))
        if self.out is not None:
            write_json(self.out, record | {"command": "python -m sim bench"})
        return 0


@dataclass(frozen=True)
class Version:
    """Print the version."""

    def __call__(self) -> int:
        print(version("tada-companion"))
        return 0


Command = (
    Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Claims, tyro.conf.subcommand("claims")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[FigureCommand, tyro.conf.subcommand("figure")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Version, tyro.conf.subcommand("version")]
)


def main() -> int:
    """Parse the command line and run it."""
    command = parse_or_exit(
        lambda: tyro.cli(
            Command,  # type: ignore[arg-type]
            prog="python -m sim",
            description="The theory's claims, figures and training runs in the two-layer CNN.",
        )
    )
    return command()


if __name__ == "__main__":
    run(main)
