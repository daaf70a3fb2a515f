"""`python -m theory list` and `python -m theory predict CLAIM --parameter value ...`."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from theory.claims import CLAIMS, Claim
from theory.cli import parse_or_exit, run
from theory.files import check_writable, write_json

_TYPES = {"int": int, "float": float}


def main() -> int:
    """Parse the command line and run it."""
    arguments = vars(parse_or_exit(_parser().parse_args))
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
            "proved": f"theory/README.md#{c.anchor}",
            "equations": c.equations,
            "check": f"python -m sim verify --claims {c.name}",
            "parameters": _parameters(c),
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


def _parameters(claim: Claim) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(claim.predict).parameters.values()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m theory",
        description="The paper's results as closed forms.",
        epilog="example: python -m theory predict gradient-variance --k 5 --batch-size 64",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="every claim, where it is proved, which check")
    listing.add_argument("--json", type=Path, metavar="FILE", help="write the list to FILE")
    predict = commands.add_parser("predict", help="one claim's numbers as a JSON object")
    claims = predict.add_subparsers(dest="claim", required=True, metavar="CLAIM")
    for claim in CLAIMS.values():
        doc = inspect.getdoc(claim.predict) or ""
        one = claims.add_parser(
            claim.name,
            help=doc,
            description=f"{doc} {claim.source}.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for parameter in inspect.signature(claim.predict).parameters.values():
            flag = f"--{parameter.name.replace('_', '-')}"
            if parameter.annotation == "bool":
                one.add_argument(
                    flag, action=argparse.BooleanOptionalAction, default=parameter.default, help=" "
                )
            else:
                kind = _TYPES[parameter.annotation]
                one.add_argument(flag, type=kind, default=parameter.default, help=" ")
    return parser


if __name__ == "__main__":
    run(main)
