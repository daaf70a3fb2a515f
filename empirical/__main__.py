"""Algorithm 1 on real images, whole or stage by stage, and the comparison of its arms."""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from common.cli import benchmark, parse_or_exit
from common.cli import run as run_command
from empirical.commands.diagnosis import diagnose
from empirical.commands.generator import train_generator
from empirical.commands.recommendation import grid, recommend
from empirical.config import presets
from empirical.config.presets import PRESETS
from empirical.config.settings import Comparison, Settings, Tuning
from empirical.runtime import HERE, Machine

Flat = Annotated[Settings, tyro.conf.arg(name="")]
FlatMachine = Annotated[Machine, tyro.conf.arg(name="")]
FlatComparison = Annotated[Comparison, tyro.conf.arg(name="")]
FlatTuning = Annotated[Tuning, tyro.conf.arg(name="")]
Preset = Annotated[
    str | None, tyro.conf.arg(help=f"start from the values of {', '.join(PRESETS)}", metavar="NAME")
]


def after_parsing(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Let the parser's call give back the work instead of doing it.

    So only the parser's own complaints are folded into one line, not what the work prints.
    """

    @functools.wraps(command)
    def bind(*values: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **named)

    return bind


def starting_from(settings: Settings, command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these settings as the parser's defaults."""
    signature = inspect.signature(command)
    if "settings" in signature.parameters:
        parameters = dict(signature.parameters)
        parameters["settings"] = parameters["settings"].replace(default=settings)
        command.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    return command


def start(arguments: Sequence[str]) -> Settings:
    """The settings that a command line starts from, by its preset, data set, arm and generator."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--dataset", "--arm", "--generator"):
        parser.add_argument(flag, nargs="?")
    known, _ = parser.parse_known_args(arguments)
    return presets.base(known.preset, known.dataset, known.arm, known.generator)


def select(
    settings: Flat, *, out: Path, machine: FlatMachine = HERE, preset: Preset = None
) -> None:
    """Find the slow examples (Algorithm 1, steps 1 and 2) and write OUT/selection.json.

    For example: python -m empirical select --dataset digits --seed 3 --out runs/tada

    or with the highest losses: python -m empirical select --preset cifar10-resnet18
    --selection loss --theta .3 --out runs/loss
    """
    from common import distributed
    from empirical.pipeline.run import select

    slow = select(settings, out, machine)
    if distributed.is_first():
        print(f"{int(slow.train.sum())} of {len(slow.train)} slow: {out / 'selection.json'}")


def stability(
    settings: Flat,
    *,
    out: Path,
    seeds: int = 5,
    data_seeds: int = 0,
    machine: FlatMachine = HERE,
    preset: Preset = None,
) -> None:
    """How alike the slow examples of several seeds are: Jaccard index, overlap, and chance.

    Writes OUT/stability.json and OUT/stability.png, and each seed's selection in a folder. On
    planted images also how true they are, by epoch, with OUT/truth.png; --data-seeds says on how
    many further planted data sets.

    For example: python -m empirical stability --dataset digits --seeds 5 --out runs/stability

    or against the truth: python -m empirical stability --preset planted-small --data-seeds 3
    --out runs/planted

    Args:
        out: folder of the result.
        seeds: how many seeds, from --seed on.
        data_seeds: on how many further planted data sets.
    """
    from empirical.experiments.stability import stability

    found = stability(settings, out, seeds, machine, data_seeds)
    for name, value in found.get("truth", {}).get("selected", {}).items():
        print(f"{name} {value['mean']:.3f} ± {value['standard_error']:.3f}")
    print(
        f"slow {100 * found['share']:.0f}%, Jaccard {found['jaccard']:.2f} "
        f"(by chance {found['chance']:.2f}), overlap {found['overlap']:.2f}: "
        f"{out / 'stability.json'}"
    )


def generate(
    settings: Flat,
    *,
    out: Path,
    machine: FlatMachine = HERE,
    repair: bool = False,
    preset: Preset = None,
) -> None:
    """Make the synthetic images (steps 1 to 3) in OUT/synthetic, with a generator trained or named.

    --repair makes damaged files of the store again.

    For example: python -m empirical generate --arm tada --k 2 --strength .7 --out runs/tada

    or with any image-to-image pipeline of diffusers: python -m empirical generate --preset
    cifar10-resnet18 --generator hub:stabilityai/sd-turbo --out runs/hub
    """
    from common import distributed
    from empirical.pipeline.run import generate

    made = generate(settings, out, machine, repair)
    if distributed.is_first():
        print(f"{len(made)} synthetic images: {machine.synthetic or out / 'synthetic'}")


def train(
    settings: Flat,
    *,
    out: Path,
    machine: FlatMachine = HERE,
    preset: Preset = None,
    dry_run: bool = False,
) -> None:
    """Train and score the network (step 4), and do first what OUT lacks of the steps before.

    For example: python -m empirical train --arm tada --k 2 --strength .7 --out runs/tada
    """
    run(settings, out=out, machine=machine, preset=preset, dry_run=dry_run)


def run(
    settings: Flat,
    *,
    out: Path,
    machine: FlatMachine = HERE,
    preset: Preset = None,
    dry_run: bool = False,
) -> None:
    """The whole of Algorithm 1; the result is OUT/result.json.

    For example: python -m empirical run --dataset digits --arm tada --k 2 --optimizer sam
    --seed 3 --out runs/tada. The same command goes on where it was stopped, and gives the same
    bytes in another folder.

    The paper's experiment, planned only: python -m empirical run --preset cifar10-resnet18
    --arm tada --optimizer sam --out runs/cifar --dry-run. On several GPUs: accelerate launch -m
    empirical run ... or torchrun -m empirical run ...
    """
    console = Console(highlight=False, soft_wrap=True)
    if dry_run:
        from empirical.pipeline.plan import plan, tables

        found = plan(settings, out, machine)
        for table in tables(found):
            console.print(table)
        for line in found["generator"]:
            console.print(line, markup=False)
        return
    from common import distributed
    from empirical.pipeline.run import run

    result = run(settings, out, machine)
    if distributed.is_first():
        console.print(
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
    from empirical.experiments.compare import compare
    from empirical.report.tables import show_comparison

    show_comparison(compare(comparison, out, jobs))
    print(out / "results.json")


def tune(tuning: FlatTuning, out: Path, jobs: int = 2) -> None:
    """Choose learning rates, epochs, rho, strength and guidance on validation images alone.

    Writes OUT/tune.json. Its choice is the default of the other commands.

    For example: python -m empirical tune --out runs/tune
    """
    from empirical.experiments.tune import tune

    for name, value in tune(tuning, out, jobs)["chosen"].items():
        print(f"{name}: {value}")
    print(out / "tune.json")


def reproduce(comparison: FlatComparison, out: Path, jobs: int | None = None) -> None:
    """Everything at laptop scale: the theory's claims, the comparison, and one report.

    Writes OUT/report.html and OUT/results.json; exit code 1 if a claim of the theory fails.

    For example: python -m empirical reproduce --out results/reproduce
    """
    from empirical.experiments.reproduce import all_claims_pass, reproduce
    from empirical.report.tables import show_comparison

    results = reproduce(out, comparison, jobs=jobs)
    show_comparison(results["empirical"])
    print(f"open {out / 'report.html'}; the numbers: {out / 'results.json'}")
    if not all_claims_pass(results):
        sys.exit(1)


def bench(out: Path | None = None, cpu: bool = False, small: bool = False) -> None:
    """Measure speed as ratios: engine, SAM, augmentation, selection. About three minutes.

    The machine should do nothing else. --small only shows that it works.

    For example: python -m empirical bench --out results/bench-empirical.json
    """
    from common.files import check_writable, write_json

    if out is not None:
        check_writable(out)
    speed = benchmark("images")
    record = speed.bench(small, cpu)
    Console().print(speed.table(record))
    if out is not None:
        write_json(out, record)


COMMANDS: dict[str, Any] = {
    "run": run,
    "select": select,
    "recommend": recommend,
    "stability": stability,
    "train-generator": train_generator,
    "generate": generate,
    "train": train,
    "grid": grid,
    "diagnose": diagnose,
    "compare": compare,
    "tune": tune,
    "reproduce": reproduce,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit."""

    def command() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        begin = parse_or_exit(lambda: start(words))
        commands = {
            name: starting_from(begin, after_parsing(function))
            for name, function in COMMANDS.items()
        }
        work: Callable[[], None] = parse_or_exit(
            lambda: tyro.extras.subcommand_cli_from_dict(
                commands, prog="python -m empirical", description=__doc__, args=words
            )
        )
        work()
        if "common.distributed" in sys.modules:  # else nothing of several processes was begun
            from common import distributed

            distributed.finish()

    run_command(command)


if __name__ == "__main__":
    sys.exit(main())
