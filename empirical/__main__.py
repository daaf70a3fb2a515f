"""Algorithm 1 on real images, whole or stage by stage, and the comparison of its arms."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from common.cli import parse_or_exit
from common.cli import run as run_command
from empirical.commands.diagnosis import diagnose
from empirical.commands.experiments import bench, compare, compare_arms, reproduce, tune
from empirical.commands.generator import train_generator
from empirical.commands.recommendation import grid, recommend
from empirical.commands.run import difficulty, export, generate, run, select, stability, train
from empirical.commands.start import settings_before_flags
from empirical.config.settings import Settings

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "select": select,
    "recommend": recommend,
    "stability": stability,
    "difficulty": difficulty,
    "train-generator": train_generator,
    "generate": generate,
    "train": train,
    "export": export,
    "grid": grid,
    "diagnose": diagnose,
    "compare": compare,
    "tune": tune,
    "reproduce": reproduce,
    "bench": bench,
}


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit."""

    def command() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        start = parse_or_exit(lambda: settings_before_flags(words))
        commands = {
            name: starting_from(start, after_parsing(function))
            for name, function in COMMANDS.items()
        }
        if start.data.dataset != "digits":  # of digits many splits are compared
            commands["compare"] = starting_from(start, after_parsing(compare_arms))
        work: Callable[[], None] = parse_or_exit(
            lambda: tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="python -m empirical",
                description=__doc__,
                args=words,
                config=(tyro.conf.OmitArgPrefixes,),
            )
        )
        work()
        if "common.distributed" in sys.modules:  # else nothing of several processes was begun
            from common import distributed

            distributed.finish()

    run_command(command)


if __name__ == "__main__":
    sys.exit(main())
