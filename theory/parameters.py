"""The parameters of the theory's predictions: what each means, and its range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import require

Prediction = dict[str, float]
"""The numbers that a claim predicts, by name."""


@dataclass(frozen=True)
class Parameter:
    """What a parameter is, and which values it may have.

    Values lie between low and high, both included, beyond which no formula here would be sure to
    give a finite and accurate number. zero: 0 is allowed too; signed: so are minus these values.
    """

    meaning: str
    low: float = 1e-12
    high: float = 1e12
    zero: bool = False
    signed: bool = False

    @property
    def allowed(self) -> str:
        """The range in words."""
        low, high = f"{self.low:g}", f"{self.high:g}"
        between = f"between {low} and {high}"
        if self.signed:
            between += f", or between -{high} and -{low}"
        return f"0, or {between}" if self.zero else between

    def accepts(self, value: float) -> bool:
        """Whether the value is in the range."""
        if value == 0:
            return self.zero
        return self.low <= (abs(value) if self.signed else value) <= self.high


def _scale(meaning: str, zero: bool = False) -> Parameter:
    return Parameter(meaning, zero=zero)


def _signed(meaning: str, zero: bool = True) -> Parameter:
    return Parameter(meaning, zero=zero, signed=True)


def _beta(meaning: str) -> Parameter:
    return Parameter(meaning, 1e-6, 1e6)


def _quartic(meaning: str) -> Parameter:
    return Parameter(meaning, 1e-50, 1e50, zero=True)


def _count(low: int, meaning: str) -> Parameter:
    return Parameter(meaning, low, 1e12)


def _share(meaning: str) -> Parameter:
    return Parameter(meaning, high=1, zero=True)


def _minority(meaning: str) -> Parameter:
    return Parameter(meaning, high=0.499999, zero=True)


def _switch(meaning: str) -> Parameter:
    return Parameter(meaning, 1, 1, zero=True)


PARAMETERS = {
    "alpha": Parameter("share of fast examples", 1e-6, 0.999999),
    "amplitude": _scale("a: synthetic noise over original noise", zero=True),
    "batch_size": _count(1, "B, examples in a mini-batch"),
    "beta": _beta("strength of the feature"),
    "beta_fast": _beta("strength of the fast feature"),
    "beta_slow": _beta("strength of the slow feature, below beta_fast"),
    "dim": _count(3, "d, dimensions of a patch: two features and noise"),
    "dim_noise": _count(1, "d' = d - 2, dimensions of the noise"),
    "feature_quartic": _quartic("sum over filters of <w,v>^4"),
    "fidelity": _share("c, share of its source's feature that a synthetic example keeps"),
    "fidelity_curve": _share("c at each point of a curve of strengths"),
    "filters": _count(1, "J, number of filters"),
    "gradient_norm": _scale("Frobenius norm of the loss gradient"),
    "k": _count(1, "amplification: how often a slow example counts"),
    "kept_noise": _share("tau, share of the original's noise that is kept"),
    "kept_noise_curve": _share("tau at each point of that curve"),
    "label_noise": _minority("eta, share of wrong labels"),
    "label_noise_slow": _minority("eta, share of wrong labels among slow examples"),
    "logit": Parameter("logit term l, 1/2 early in training", high=1),
    "loss_final": _signed("loss at the end, or a lower bound"),
    "loss_gap": _scale("loss at the start minus a lower bound"),
    "loss_initial": _signed("loss at the start"),
    "lr": _scale("learning rate, at most 1/smoothness"),
    "mean_logit": _share("(1/n) times the sum of l over examples with this feature"),
    "n_examples": _count(1, "N, original examples"),
    "n_patches": _count(2, "P, patches of an example, one of them the feature"),
    "noise": _scale("S, squared noise gradient of one example, equation (21)", zero=True),
    "noise_quartic": _quartic("sum over filters of <w,xi>^4 |xi|^2"),
    "orthogonal": _switch("noise patches are orthogonal, not independent"),
    "patch_norm": _scale("largest norm of a patch"),
    "positive": _share("share of examples with label +1"),
    "power": Parameter("q of the activation z^q or ReLU^q", 2, 20),
    "projection": _signed("<w,v>, or y<w,xi> for noise"),
    "random_counts": _switch("the number of fast examples is binomial"),
    "rectified": _switch("the activation is ReLU^q"),
    "replacement": _switch("draw batches with replacement"),
    "rho": _scale("radius of SAM", zero=True),
    "sigma_init": _scale("standard deviation of the initial weights"),
    "sigma_noise": _scale("standard deviation of the noise", zero=True),
    "sigma_synthetic": _scale("standard deviation of synthetic noise", zero=True),
    "smoothness": _scale("L_s, Lipschitz constant of the gradient"),
    "squared_norm": _scale("|xi|^2"),
    "steps": _count(1, "T, number of steps"),
    "target": _scale("mean squared gradient norm to reach"),
    "variance": _scale("V, variance of the stochastic gradient", zero=True),
    "w_norm": _scale("norm of a filter off the features"),
    "weight_norm": _scale("Frobenius norm of all filters"),
}
"""Every parameter of every prediction, by name."""


def check_ranges(values: Mapping[str, float | Sequence[float]]) -> None:
    """Raise ParameterError for the first value that is not finite or out of its range."""
    for name, given in values.items():
        parameter = PARAMETERS[name]
        for value in given if isinstance(given, Sequence) else [given]:
            require(math.isfinite(value), name, value, "a finite number")
            require(parameter.accepts(value), name, value, parameter.allowed)
