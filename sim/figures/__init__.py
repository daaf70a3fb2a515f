"""Experiments in theory's own world, each one command (`python -m sim figure NAME`), one plot."""

from sim.figures import amplification, boundary, maps, training, variance
from sim.figures.base import Figure

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for module in (training, amplification, variance, boundary, maps)
    for figure in module.FIGURES
}
