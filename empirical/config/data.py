"""Which images a run uses, and the names of the data sets. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.checks import whole_number
from common.errors import near, require

NAMES = (
    *("digits", "fashion-mnist", "cifar10", "cifar100", "tinyimagenet", "planted"),
    *("hf:NAME", "folder:PATH"),
)
OWN = ("folder:", "hf:")
"""Beginnings of names of the user's own images."""
FITS = ("crop", "pad")
READING = (
    *("image_size", "image_fit", "class_names", "skip_unreadable", "image_column", "label_column"),
)
"""Settings that the pixels, labels or class names of own images depend on."""
SIDE = 64
"""Pixels of a side of the user's own images, where nothing else is said."""


def check_name(name: str) -> None:
    """Raise ParameterError unless `name` is one of NAMES, with a path or name for PATH and NAME."""
    known = name in NAMES or name.startswith(OWN)
    known = known and name not in (*OWN, "folder:PATH", "hf:NAME")
    require(known, "dataset", name, f"{', '.join(NAMES[:-1])} or {NAMES[-1]}{near(name, NAMES)}")


@dataclass(frozen=True)
class DataSettings:
    """The images of a run.

    Raises:
        ParameterError: a value is not allowed (sizes against the data: `datasets.splits`).
    """

    dataset: str
    """digits, fashion-mnist, cifar10, cifar100, tinyimagenet, planted, folder:PATH (a folder for
    each class) or hf:NAME (a data set of Hugging Face, or a folder that its library reads)"""
    n_train: int | None = None
    """training images; None: 100 of digits, all of another data set"""
    split: int = 0
    """which of the disjoint training chunks of n_train"""
    image_size: int = SIDE
    """pixels of a side that images of folder: and hf: are brought to"""
    image_fit: str = "crop"
    """images that are not square: crop (the central square) or pad (with black)"""
    flips: str = "auto"
    """may images be turned left to right: auto (as the data set is; own images: yes), yes or no"""
    class_names: str | None = None
    """file with a line NAME,SHOWN for each class that prompts and reports should call otherwise"""
    skip_unreadable: bool = False
    """leave out files of folder: that are no whole images, and say which"""
    image_column: str | None = None
    """column of hf: with the images; None: the only one"""
    label_column: str | None = None
    """column of hf: with the classes; None: the only one"""

    def __post_init__(self) -> None:
        check_name(self.dataset)
        whole_number("split", self.split, 0)
        whole_number("image_size", self.image_size, 1)
        fits, most = self.image_fit in FITS, 2**15
        require(fits, "image_fit", self.image_fit, " or ".join(FITS) + near(self.image_fit, FITS))
        known = self.flips in ("auto", "yes", "no")
        require(known, "flips", self.flips, "auto, yes or no")
        require(self.image_size <= most, "image_size", self.image_size, f"at most {most}")
        if self.n_train is not None:
            whole_number("n_train", self.n_train, 1)

    @property
    def train_images(self) -> int | None:
        """`n_train`, or 100 for digits; None: all there are."""
        return 100 if self.n_train is None and self.dataset == "digits" else self.n_train

    @property
    def turned(self) -> bool | None:
        """`flips`; None: as the data set is."""
        return None if self.flips == "auto" else self.flips == "yes"

    @property
    def is_own(self) -> bool:
        """Whether these are the user's own images, whose size can be chosen."""
        return self.dataset.startswith(OWN)

    @property
    def reading(self) -> dict[str, object]:
        """How own images are read, by the names of these settings; nothing for other data sets."""
        return {name: getattr(self, name) for name in READING} if self.is_own else {}
