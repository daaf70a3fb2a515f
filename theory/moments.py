"""Gaussian moments under every result: half-normal, one-patch, and two-patch moments.

Throughout, ξ ~ N(0, sigma² I) in d' dimensions (the noise space, d' = d − 2 for a noise
patch orthogonal to both features) and w is a filter restricted to that space. Equation
numbers refer to theory/moments.md.
"""

from __future__ import annotations

from math import gamma, pi, prod, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from theory.parameters import Prediction

Real = TypeVar("Real", float, NDArray[np.float64])


def absolute_moment(p: int) -> float:
    """E|z|^p of a standard normal z, equation (M1): 2^(p/2) Γ((p+1)/2) / √π."""
    return 2 ** (p / 2) * gamma((p + 1) / 2) / sqrt(pi)


def patch_moment(p: int, m: int, dim_noise: int) -> float:
    """E[|z|^p R^m], z = ⟨w,ξ⟩/(sigma ‖w‖) and R = ‖ξ‖²/sigma², equation (M2).

    E|z|^p (d' + p)(d' + p + 2) ... (m factors). The moment of one noise patch from which
    all others follow: E[|⟨w,ξ⟩|^p ‖ξ‖^(2m)] = sigma^(p+2m) ‖w‖^p times it.
    """
    return absolute_moment(p) * prod(dim_noise + p + 2 * i for i in range(m))


def noise_strength(sigma: float, w_norm: float, dim_noise: int) -> float:
    """E[⟨w,ξ⟩² ‖ξ‖²] = sigma⁴ ‖w‖² (d' + 2), equation (M3).

    What one noise patch contributes to its own alignment; `dim_noise` is d'.
    """
    return sigma**4 * w_norm**2 * patch_moment(2, 1, dim_noise)


def noise_second_moment(sigma: float, dim_noise: int) -> float:
    """E[⟨w,ξ⟩⁴ ‖ξ‖²] / ‖w‖⁴ = 3 sigma⁶ (d' + 4), equation (M3)."""
    return sigma**6 * patch_moment(4, 1, dim_noise)


def shared_noise_covariance(
    sigma: float, kept_noise: float, amplitude: float, dim_noise: int
) -> float:
    """E[⟨w,ξ⟩² ⟨w,γ⟩² ⟨ξ,γ⟩] / ‖w‖⁴ for γ = a (τ ξ + √(1 − τ²) ξ'), equation (M4).

    Equals a³ sigma⁶ τ [ 8 + 4τ² + d'(1 + 2τ²) ], with τ = `kept_noise` in [0, 1] and
    a = `amplitude`; the same as (9τ + 6τ³) + (d' − 1)(τ + 2τ³), along w and across it. At
    τ = a = 1 it is `noise_second_moment`; at τ = 0 it vanishes.
    """
    square = kept_noise * kept_noise
    shared = kept_noise * (8 + 4 * square + dim_noise * (1 + 2 * square))
    return amplitude**3 * sigma**6 * shared


def cross_term_variance(sigma: float, w_norm: float, x_norm: Real, w_dot_x: Real) -> Real:
    """Var[⟨w,ξ'⟩² ⟨ξ',x⟩] for fixed x and fresh ξ', equation (M5); its mean is 0.

    Equals sigma⁶ (3 ‖w‖⁴ ‖x‖² + 12 ‖w‖² ⟨w,x⟩²): what every other example adds to the
    alignment with a noise patch x when noise patches are not orthogonal. `x_norm` and
    `w_dot_x` are numbers or arrays of one shape.
    """
    return sigma**6 * (3 * w_norm**4 * x_norm**2 + 12 * w_norm**2 * w_dot_x**2)


def squared_norm_moments(dim: int, sigma_init: float) -> tuple[float, float]:
    """(E‖w‖⁴, E⟨w,v⟩⁴) for w ~ N(0, sigma_init² I) in `dim` dimensions, ‖v‖ = 1, equation (M6)."""
    return sigma_init**4 * dim * (dim + 2), 3 * sigma_init**4


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_gaussian_moments(
    sigma_noise: float = 0.1,
    dim_noise: int = 398,
    kept_noise: float = 0.0,
    amplitude: float = 1.0,
    w_norm: float = 1.0,
) -> Prediction:
    """Moments of one noise patch and of a pair that shares a part."""
    return {
        "noise_strength": noise_strength(sigma_noise, w_norm, dim_noise),
        "noise_second_moment": w_norm**4 * noise_second_moment(sigma_noise, dim_noise),
        "shared_noise_covariance": w_norm**4
        * shared_noise_covariance(sigma_noise, kept_noise, amplitude, dim_noise),
    }
