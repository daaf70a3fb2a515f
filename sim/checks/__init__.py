"""One check for each claim of `theory`: measure it in the simulation, with a negative control.

A check measures without knowing the prediction, and predicts from the inputs alone, so that
a wrong constant in `theory` cannot leak into its own test.
"""

from sim.checks import amplification, convergence, gradient_variance, learning, moments, sharpness

CHECKS = {
    check.name: check
    for module in (moments, sharpness, amplification, gradient_variance, convergence, learning)
    for check in module.CHECKS
}
"""Every check by its claim's name, in the order of the paper."""
