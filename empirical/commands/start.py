"""What a command line of a run starts from: a preset, or a file of settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from common.files import read_json
from empirical.config import presets
from empirical.config.presets import PRESETS
from empirical.config.settings import Settings, from_record


@dataclass(frozen=True)
class Start:
    """Where the values come from that no flag names."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """start from these values; None: from those of the data set's own preset"""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """start from a file of settings, as every run keeps one: OUT/settings.json"""


Start.__doc__ = f"{Start.__doc__} Presets: {', '.join(PRESETS)}."

NO_START = Start()

Flat = Annotated[Settings, tyro.conf.arg(name="")]
"""Settings whose values are flags of the command itself, grouped by their part."""


def settings_before_flags(arguments: Sequence[str]) -> Settings:
    """The settings that a command line starts from, by its preset or file, data set and generator.

    Raises:
        ParameterError: there is no such preset, or the file is not one of settings.
        OSError: the file cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--config", "--dataset", "--arm", "--generator"):
        parser.add_argument(flag, nargs="?")
    known, _ = parser.parse_known_args(arguments)
    if known.config is not None:
        path = Path(known.config)
        return from_record(read_json(path, "config"), path)
    return presets.base(known.preset, known.dataset, known.generator)
