"""Algorithm 1 on real images, whole or stage by stage, and the comparison of its arms."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from empirical.settings import Comparison, Settings, Tuning
from theory.cli import parse_or_exit
from theory.cli import run as run_command

Flat = Annotated[Settings, tyro.conf.arg(name="")]
FlatComparison = Annotated[Comparison, tyro.conf.arg(name="")]
FlatTuning = Annotated[Tuning, tyro.conf.arg(name="")]


def after_parsing(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Let the parser's call give back the work instead of doing it.

    So only the parser's own complaints are folded into one line, not what the work prints.
    """

    @functools.wraps(command)
    def bind(*values: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **named)

    return bind


def select(settings: Flat, out: Path) -> None:
    """Find the slow examples (Algorithm 1, steps 1 and 2) and write OUT/selection.json.

    For example: python -m empirical select --dataset digits --seed 3 --out runs/tada
    """
    from empirical.run import select

    slow = select(settings, out)
    print(f"{int(slow.train.sum())} of {len(slow.train)} slow: {out / 'selection.json'}")


def generate(settings: Flat, out: Path) -> None:
    """Train the generator and make the synthetic images (steps 1 to 3) in OUT/synthetic.

    For example: python -m empirical generate --arm tada --k 2 --strength .7 --out runs/tada
    """
    from empirical.run import generate

    print(f"{len(generate(settings, out))} synthetic images: {out / 'synthetic'}")


def train(settings: Flat, out: Path) -> None:
    """Train and score the network (step 4), and do first what OUT lacks of the steps before.

    For example: python -m empirical train --arm tada --k 2 --strength .7 --out runs/tada
    """
    run(settings, out)


def run(settings: Flat, out: Path) -> None:
    """The whole of Algorithm 1; the result is OUT/result.json.

    For example: python -m empirical run --dataset digits --arm tada --k 2 --optimizer sam
    --seed 3 --out runs/tada. The same command goes on where it was stopped, and gives the same
    bytes in another folder.
    """
    from empirical.run import run

    result = run(settings, out)
    Console(highlight=False, soft_wrap=True).print(
        f"{result['arm']}, {result['optimizer']}, seed {result['seed']}: "
        f"test error {100 * result['test_error']:.2f}%, "
        f"slow {100 * result['slow_fraction']:.0f}%, "
        f"{result['n_original']} real + {result['n_synthetic']} synthetic images: "
        f"{out / 'result.json'}",
        markup=False,
    )


def compare(comparison: FlatComparison, out: Path, jobs: int = 2) -> None:
    """The default experiment: all arms, both optimizers, both budgets, over splits and seeds.

    Writes OUT/results.json: every error, their means, and for each of the paper's orderings the
    paired difference with its standard error and a verdict.

    For example: python -m empirical compare --out runs/compare

    or in a minute: python -m empirical compare --splits 2 --seeds 2 --control-splits 0
    --generator-steps 300 --out runs/quick
    """
    from empirical.compare import compare
    from empirical.tables import show_comparison

    show_comparison(compare(comparison, out, jobs))
    print(out / "results.json")


def tune(tuning: FlatTuning, out: Path, jobs: int = 2) -> None:
    """Choose learning rates, epochs, rho, strength and guidance on validation images alone.

    Writes OUT/tune.json. Its choice is the default of the other commands.

    For example: python -m empirical tune --out runs/tune
    """
    from empirical.tune import tune

    for name, value in tune(tuning, out, jobs)["chosen"].items():
        print(f"{name}: {value}")
    print(out / "tune.json")


def reproduce(comparison: FlatComparison, out: Path, jobs: int | None = None) -> None:
    """Everything at laptop scale: the theory's claims, the comparison, and one report.

    Writes OUT/report.html and OUT/results.json; exit code 1 if a claim of the theory fails.

    For example: python -m empirical reproduce --out results/reproduce
    """
    from empirical.reproduce import all_claims_pass, reproduce
    from empirical.tables import show_comparison

    results = reproduce(out, comparison, jobs=jobs)
    show_comparison(results["empirical"])
    print(f"open {out / 'report.html'}; the numbers: {out / 'results.json'}")
    if not all_claims_pass(results):
        sys.exit(1)


COMMANDS: dict[str, Any] = {
    "run": run,
    "select": select,
    "generate": generate,
    "train": train,
    "compare": compare,
    "tune": tune,
    "reproduce": reproduce,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit."""

    def command() -> None:
        commands = {name: after_parsing(function) for name, function in COMMANDS.items()}
        work: Callable[[], None] = parse_or_exit(
            lambda: tyro.extras.subcommand_cli_from_dict(
                commands, prog="python -m empirical", description=__doc__, args=arguments
            )
        )
        work()

    run_command(command)


if __name__ == "__main__":
    sys.exit(main())
