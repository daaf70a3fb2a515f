"""`python -m theory list` and `python -m theory predict CLAIM --parameter value ...`."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import re
import sys
from pathlib import Path

from common.cli import parse_or_exit, run
from common.files import check_writable, write_json
from theory.claims import CLAIMS
from theory.parameters import PARAMETERS

_TYPES = {"int": (int, None), "float": (float, None), "Sequence[float]": (float, "+")}


def main() -> int:
    """Parse the command line and run it."""
    arguments = vars(parse_or_exit(lambda: _parser().parse_args(_joined(sys.argv[1:]))))
    if arguments.pop("command") == "list":
        return _list(arguments["json"])
    claim = CLAIMS[arguments.pop("claim")]
    predicted = claim.predict(**arguments)
    json.dump({"claim": claim.name, "inputs": arguments, "predicted": predicted}, sys.stdout)
    print()
    return 0


def _list(file: Path | None) -> int:
    rows = [
        {
            "name": c.name,
            "number": c.number,
            "title": c.title,
            "statement": c.statement,
            "proved": c.proved,
            "equations": c.equations,
            "check": f"python -m sim verify --claims {c.name}",
            "parameters": {name: p.default for name, p in c.parameters.items()},
        }
        for c in CLAIMS.values()
    ]
    if file is not None:
        check_writable(file)
        write_json(file, {"claims": rows})
        return 0
    for row in rows:
        print(f"{row['name']}  ({row['number']}, equations {row['equations']})")
        print(f"    {row['title']}: {row['statement']}")
        print(f"    proved: {row['proved']}   check: {row['check']}")
        print("    predict: " + " ".join(f"--{k.replace('_', '-')}" for k in row["parameters"]))
    return 0


_NEGATIVE = re.compile(r"-[.\d]")


def _joined(words: list[str]) -> list[str]:
    """Negative values joined to their options, as argparse takes `-1e-3` for an option."""
    joined: list[str] = []
    for word in words:
        if _NEGATIVE.match(word) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


@functools.cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m theory",
        description="The paper's results as closed forms.",
        epilog="example: python -m theory predict gradient-variance --k 5 --batch-size 64",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser(
        "list",
        help="every claim, where it is proved, which check",
        epilog="example: python -m theory list --json claims.json",
    )
    listing.add_argument("--json", type=Path, metavar="FILE", help="write the list to FILE")
    predict = commands.add_parser(
        "predict",
        help="one claim's numbers as a JSON object",
        epilog="example: python -m theory predict noise-alignment --alpha .8 --k 5",
    )
    claims = predict.add_subparsers(dest="claim", required=True, metavar="CLAIM")
    for claim in CLAIMS.values():
        doc = inspect.getdoc(claim.formula) or ""
        one = claims.add_parser(
            claim.name,
            help=doc,
            description=f"{doc} {claim.source}.",
            epilog=f"example: python -m theory predict {claim.name}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for parameter in claim.parameters.values():
            flag = f"--{parameter.name.replace('_', '-')}"
            known = PARAMETERS[parameter.name]
            if parameter.annotation == "bool":
                switch = argparse.BooleanOptionalAction
                one.add_argument(flag, action=switch, default=parameter.default, help=known.meaning)
                continue
            kind, several = _TYPES[parameter.annotation]
            meaning = f"{known.meaning}; {known.allowed}"
            one.add_argument(
                flag, type=kind, nargs=several, default=parameter.default, help=meaning
            )
    return parser


if __name__ == "__main__":
    run(main)
