"""How slow examples are found. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.checks import check_number, whole_number
from common.errors import near, require

SCORES = ("forgetting", "first-learned", "el2n", "confidence", "variability")
"""Difficulty scores of all epochs of the early training (`empirical.selection.scores`)."""
METHODS = ("cluster", "loss", "misclassified", *SCORES, "scores")
OUTPUTS = ("logits", "softmax", "penultimate")


@dataclass(frozen=True)
class SelectionSettings:
    """The early network, and what is done with its outputs.

    Raises:
        ParameterError: a value is not allowed.
    """

    selection: str = "cluster"
    """cluster, loss (the theta of highest loss), misclassified; by a score of all epochs:
    forgetting, first-learned, el2n, confidence or variability; or scores (of a file)"""
    scores: str | None = None
    """file with a difficulty score of each training image, high is difficult: .npy or .csv"""
    scores_column: str | None = None
    """column of that .csv; None: the last one"""
    clusters: int = 2
    """clusters of each class"""
    theta: float = 0.35
    """share of the examples that loss and every score take"""
    outputs: str = "logits"
    """what is clustered: logits, softmax or penultimate (what the last layer sees)"""
    separating_epoch: int = 4
    """epochs of the early network whose outputs are clustered; 0: by rule, the knee of its error"""
    separating_epochs: int = 20
    """epochs among which the rule looks for the knee"""
    separating_lr: float = 0.05
    """learning rate of the early network, plain SGD for every optimizer"""

    def __post_init__(self) -> None:
        for name, known in (("selection", METHODS), ("outputs", OUTPUTS)):
            value = getattr(self, name)
            require(value in known, name, value, " or ".join(known) + near(value, known))
        for name, least in (("clusters", 2), ("separating_epoch", 0), ("separating_epochs", 2)):
            whole_number(name, getattr(self, name), least)
        both = (self.selection == "scores") == (self.scores is not None)
        allowed = "given with --selection scores, and with it alone"
        require(both, "scores", self.scores, allowed)
        require(0 < self.theta < 1, "theta", self.theta, "inside (0, 1)")
        check_number("separating_lr", self.separating_lr)
