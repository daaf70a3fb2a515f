"""Which images a run uses, and the names of the data sets. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.checks import whole_number
from common.errors import near, require

NAMES = ("digits", "fashion-mnist", "cifar10", "cifar100", "tinyimagenet", "folder:PATH", "planted")


def check_name(name: str) -> None:
    """Raise ParameterError unless `name` is one of NAMES, with a path for PATH."""
    known = name in NAMES or name.startswith("folder:")
    known = known and name not in ("folder:", "folder:PATH")
    require(known, "dataset", name, f"{', '.join(NAMES[:-1])} or {NAMES[-1]}{near(name, NAMES)}")


@dataclass(frozen=True)
class DataSettings:
    """The images of a run.

    Raises:
        ParameterError: a value is not allowed (sizes against the data: `datasets.splits`).
    """

    dataset: str
    """digits, fashion-mnist, cifar10, cifar100, tinyimagenet, planted or folder:PATH"""
    n_train: int | None = None
    """training images; None: 100 of digits, all of another data set"""
    split: int = 0
    """which of the disjoint training chunks of n_train"""

    def __post_init__(self) -> None:
        check_name(self.dataset)
        whole_number("split", self.split, 0)
        if self.n_train is not None:
            whole_number("n_train", self.n_train, 1)

    @property
    def train_images(self) -> int | None:
        """`n_train`, or 100 for digits; None: all there are."""
        return 100 if self.n_train is None and self.dataset == "digits" else self.n_train
