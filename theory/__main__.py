"""`python -m theory list` and `python -m theory predict CLAIM --parameter value ...`."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from pathlib import Path
from typing import Any

from theory.claims import CLAIMS, Claim
from theory.cli import parse_or_exit, run
from theory.files import check_writable, write_json
from theory.parameters import require

_TYPES = {"int": int, "float": float}

_MEANINGS = {
    "alpha": "share of fast examples, inside (0, 1)",
    "amplitude": "a: synthetic noise over original noise",
    "batch_size": "B, examples in a mini-batch",
    "beta": "strength of the feature",
    "beta_fast": "strength of the fast feature",
    "beta_slow": "strength of the slow feature, below beta_fast",
    "dim": "d, dimensions of a patch",
    "dim_noise": "d' = d - 2, dimensions of the noise",
    "feature_quartic": "sum over filters of <w,v>^4",
    "filters": "J, number of filters",
    "gradient_norm": "Frobenius norm of the loss gradient",
    "k": "amplification: how often a slow example counts",
    "kept_noise": "tau, share of the original's noise that is kept, in [0, 1]",
    "logit": "logit term l, 1/2 early in training",
    "loss_final": "loss at the end, or a lower bound",
    "loss_initial": "loss at the start",
    "lr": "learning rate, at most 1/smoothness",
    "mean_logit": "(1/n) times the sum of l over examples with this feature",
    "n_examples": "N, original examples",
    "n_patches": "P, patches of an example, one of them the feature",
    "noise_quartic": "sum over filters of <w,xi>^4 |xi|^2",
    "projection": "<w,v>, or y<w,xi> for noise",
    "replacement": "draw batches with replacement",
    "rho": "radius of SAM",
    "sigma_init": "standard deviation of the initial weights",
    "sigma_noise": "standard deviation of the noise",
    "sigma_synthetic": "standard deviation of synthetic noise",
    "smoothness": "L_s, Lipschitz constant of the gradient",
    "squared_norm": "|xi|^2",
    "steps": "T, number of steps",
    "variance": "V, variance of the stochastic gradient",
    "w_norm": "norm of a filter off the features",
}


def main() -> int:
    """Parse the command line and run it."""
    arguments = vars(parse_or_exit(_parser().parse_args))
    if arguments.pop("command") == "list":
        return _list(arguments["json"])
    claim = CLAIMS[arguments.pop("claim")]
    for name, value in arguments.items():
        require(math.isfinite(value), name, value, "a finite number")
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
        doc = inspect.getdoc(claim.predict) or ""
        one = claims.add_parser(
            claim.name,
            help=doc,
            description=f"{doc} {claim.source}.",
            epilog=f"example: python -m theory predict {claim.name}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for parameter in inspect.signature(claim.predict).parameters.values():
            flag = f"--{parameter.name.replace('_', '-')}"
            meaning = _MEANINGS[parameter.name]
            if parameter.annotation == "bool":
                switch = argparse.BooleanOptionalAction
                one.add_argument(flag, action=switch, default=parameter.default, help=meaning)
            else:
                kind = _TYPES[parameter.annotation]
                one.add_argument(flag, type=kind, default=parameter.default, help=meaning)
    return parser


if __name__ == "__main__":
    run(main)
