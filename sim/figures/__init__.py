"""Experiments in the paper's setting, each one command (`python -m sim figure NAME`), one plot."""

from sim.figures import (
    activation,
    amplification,
    convergence,
    family,
    maps,
    sam_validity,
    training,
    variance,
)
from sim.figures.base import Figure

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for module in (
        training,
        convergence,
        amplification,
        variance,
        sam_validity,
        maps,
        family,
        activation,
    )
    for figure in module.FIGURES
}
