"""The console script `tada`: the commands of the three packages under one name."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

PACKAGES = {
    "theory": ("list", "predict"),
    "sim": ("verify", "calibrate", "claims", "sweep", "figure"),
    "empirical": (
        *("run", "select", "generate", "train", "train-generator", "diagnose", "recommend"),
        *("export", "grid", "stability", "difficulty", "compare", "tune", "reproduce"),
    ),
}
"""Commands that need no package before them. The others (sim run, sim bench, ...) need it."""

HELP = f"""usage: tada COMMAND ...  or  tada PACKAGE COMMAND ...

{__doc__}

  theory     {", ".join(PACKAGES["theory"])}
  sim        {", ".join(PACKAGES["sim"])}; and with the package: run, bench, version
  empirical  {", ".join(PACKAGES["empirical"])};
             and with the package: bench

examples:
  tada predict gradient-variance --k 5 --batch-size 64
  tada verify --claims gradient-variance
  tada run --dataset digits --arm tada --k 2 --out runs/tada
  tada sim run --arm tada --k 5
  tada run --help"""


def main() -> None:
    """Pass the command line on to the package that has the command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return
    package = words[0] if words[0] in PACKAGES else _package_of(words[0])
    if package is None:
        print(
            f"error: {words[0]} is not a command: use one that tada --help lists", file=sys.stderr
        )
        sys.exit(2)
    rest = words[1:] if words[0] in PACKAGES else words
    sys.argv = [f"python -m {package}", *rest]
    try:
        module = importlib.import_module(f"{package}.__main__")
    except ModuleNotFoundError as error:
        _refuse(f"{package} needs {error.name}: pip install 'tada-companion[{package}]'")
    from common.cli import run

    run(module.main)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _package_of(command: str) -> str | None:
    return next((name for name, known in PACKAGES.items() if command in known), None)


if __name__ == "__main__":
    main()
