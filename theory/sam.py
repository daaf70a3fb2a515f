"""Theorem 4.1: what one SAM step does to features and to noise, against one GD step.

Frozen logits unless a function says otherwise. `rho` is SAM's radius, `gradient_norm` is
‖∇L(W)‖_F over all filters, `n_examples` is n. Equation numbers refer to theory/sam.md.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import require
from theory.moments import cross_term_variance, patch_moment
from theory.parameters import Prediction


def feature_kappa(
    rho: float, beta: float, mean_logit: float, gradient_norm: float, power: int = 3
) -> float:
    """κ_v = 3 rho beta_v³ l̄_v / ‖∇L‖_F, equation (4); q in place of 3 for z^q, (E1).

    `mean_logit` is l̄_v = (1/n) Σ l_i over the examples that carry feature v (so it
    includes their share: l̄_v = share × l for equal logits).
    """
    return power * rho * beta**power * mean_logit / gradient_norm


def feature_factor(kappa: float, projection: ArrayLike, power: int = 3) -> NDArray[np.float64]:
    """(SAM gradient along v) / (GD gradient along v) = (1 − κ_v ⟨w_j,v⟩)², equation (5). Exact.

    `projection` is u = ⟨w_j,v⟩, any shape. For z^q and ReLU^q, equation (E1):
    (1 − κ sgn(u)|u|^(q−2))^(q−1), for odd q (1 − κ u^(q−2))^(q−1). The same for noise patch i of
    an orthogonal data set with u = y_i⟨w_j,ξ_i⟩ and κ = q rho l_i ‖ξ_i‖²/(n ‖∇L‖_F). ReLU^q: for
    patches that are active, l̄_v that of the examples with label sgn(u), while the bracket is
    positive (else SAM's ascent silences the patch).
    """
    u = np.asarray(projection, dtype=float)
    return (1 - kappa * np.sign(u) * np.abs(u) ** (power - 2)) ** (power - 1)


def noise_lambda(rho: float, logit: float, n_examples: int, gradient_norm: float) -> float:
    """λ_i = 3 rho l_i / (n ‖∇L‖_F), equation (6): noise's counterpart of κ_v."""
    return 3 * rho * logit / (n_examples * gradient_norm)


def noise_factor(
    lam: float, signed_projection: ArrayLike, squared_norm: ArrayLike
) -> NDArray[np.float64]:
    """(SAM) / (GD) gradient along noise patch i, equation (7). Exact for orthogonal patches.

    (1 − λ_i y_i⟨w_j,ξ_i⟩ ‖ξ_i‖²)², below 1 on I_{j,+} while λ_i y_i⟨w_j,ξ_i⟩‖ξ_i‖² < 2.
    `signed_projection` is y_i⟨w_j,ξ_i⟩, `squared_norm` is ‖ξ_i‖²; shapes broadcast.
    """
    return (1 - lam * np.asarray(signed_projection) * np.asarray(squared_norm)) ** 2


def mean_noise_damping(lam: float, sigma_noise: float, w_norm: float, dim_noise: int) -> float:
    """E NoiseAlign(SAM) / E NoiseAlign(GD), orthogonal Gaussian noise, frozen logits, equation (8).

    With ψ = λ sigma³ ‖w‖ and the patch moments of (M2):
    1 − 2ψ E[|z|³R²]/E[z²R] + ψ² E[z⁴R³]/E[z²R]. Exact for orthogonal patches with Gaussian
    marginals, at a given λ; for independent patches see `independent_damping_slope`.
    """
    psi = lam * sigma_noise**3 * w_norm
    linear, quadratic = patch_moment(3, 2, dim_noise), patch_moment(4, 3, dim_noise)
    return 1 - (2 * psi * linear - psi**2 * quadratic) / patch_moment(2, 1, dim_noise)


def independent_damping_slope(dim_noise: int, n_examples: int) -> float:
    """The same ratio for independent patches is 1 − slope × ψ + O(ψ²), equation (31).

    slope = 2 (E[|z|³R²] + (n − 1) √(2/π) E[z⁴R]) / E[z²R], with ψ = λ sigma³ ‖w‖. The second
    term is what the other examples add: their noise shares the direction w.
    """
    own = patch_moment(3, 2, dim_noise)
    others = (n_examples - 1) * sqrt(2 / pi) * patch_moment(4, 1, dim_noise)
    return 2 * (own + others) / patch_moment(2, 1, dim_noise)


def cross_term_deviation(
    logit: float,
    sigma_noise: float,
    n_examples: int,
    w_norm: float,
    u_norm: ArrayLike,
    w_dot_u: ArrayLike,
) -> NDArray[np.float64]:
    """Standard deviation of what the n − 1 other examples add to y_i⟨−∇_{w_j}L, ξ_i⟩, equation (9).

    Independent Gaussian noise, given ξ_i = u; the mean is zero. GD with frozen logits.
    """
    u, wu = np.asarray(u_norm), np.asarray(w_dot_u)
    variance = (n_examples - 1) * cross_term_variance(sigma_noise, w_norm, u, wu)
    return 3 * logit / n_examples * np.sqrt(variance)


def logit_shift(
    rho: float,
    gradient_norm: float,
    beta: ArrayLike,
    mean_logit: ArrayLike,
    feature_quartic: ArrayLike,
    logit: ArrayLike,
    noise_quartic: ArrayLike,
    n_examples: int,
) -> NDArray[np.float64]:
    """Δ_i = −y_i⟨∇f(x_i), ε⟩ > 0: SAM's ascent lowers each margin by Δ_i, equation (10).

    (9 rho/‖∇L‖) [ beta_v⁶ l̄_v Σ_j⟨w_j,v⟩⁴ + (l_i/n) Σ_j⟨w_j,ξ_i⟩⁴‖ξ_i‖² ] for example i with
    feature v; first order in rho, orthogonal noise. Per example: `beta`, `mean_logit` and
    `feature_quartic` = Σ_j⟨w_j,v⟩⁴ of its feature, its `logit` l_i, and
    `noise_quartic` = Σ_j⟨w_j,ξ_i⟩⁴‖ξ_i‖². All broadcast to shape (n,).
    """
    feature = np.asarray(beta) ** 6 * np.asarray(mean_logit) * np.asarray(feature_quartic)
    noise = np.asarray(logit) / n_examples * np.asarray(noise_quartic)
    return 9 * rho / gradient_norm * (feature + noise)


def moving_logit_ratio(
    rho: float,
    gradient_norm: float,
    n_examples: int,
    logit: ArrayLike,
    shift: ArrayLike,
    signed_projection: ArrayLike,
    squared_norm: ArrayLike,
) -> float:
    """NoiseAlign_j(SAM) / NoiseAlign_j(GD) with real logits, to first order in rho, equation (11).

    1 + Σ c_i [ (1 − l_i) Δ_i − 2 λ_i y_i⟨w_j,ξ_i⟩‖ξ_i‖² ] / Σ c_i over I_{j,+}, with
    c_i = l_i ⟨w_j,ξ_i⟩² ‖ξ_i‖²: the logits' rise (`shift` = Δ_i of equation (10)) against the
    damping of equation (7). Above 1, Theorem 4.1's noise claim fails. All arrays have
    shape (n,); examples outside I_{j,+} are left out here.
    """
    logit, shift, s, norm2 = np.broadcast_arrays(logit, shift, signed_projection, squared_norm)
    on = s > 0
    weight = logit[on] * s[on] ** 2 * norm2[on]
    damping = 2 * noise_lambda(rho, 1.0, n_examples, gradient_norm) * logit * s * norm2
    change = (1 - logit[on]) * shift[on] - damping[on]
    return float(1 + np.sum(weight * change) / np.sum(weight))


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_sam_feature_factor(
    rho: float = 0.05,
    beta: float = 1.0,
    mean_logit: float = 0.4,
    gradient_norm: float = 1.0,
    projection: float = 0.1,
) -> Prediction:
    """SAM's gradient along a feature over GD's, for a filter with <w,v> = projection."""
    kappa = feature_kappa(rho, beta, mean_logit, gradient_norm)
    return {"kappa": kappa, "factor": float(feature_factor(kappa, projection))}


def predict_sam_noise_damping(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    projection: float = 0.01,
    squared_norm: float = 2.5,
) -> Prediction:
    """SAM's gradient along an orthogonal noise patch over GD's, for y<w,xi> = projection."""
    lam = noise_lambda(rho, logit, n_examples, gradient_norm)
    return {"lambda": lam, "factor": float(noise_factor(lam, projection, squared_norm))}


def predict_sam_noise_damping_gaussian(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    sigma_noise: float = 0.05,
    w_norm: float = 0.3,
    dim_noise: int = 1998,
) -> Prediction:
    """NoiseAlign(SAM)/NoiseAlign(GD) over Gaussian noise, frozen logits, and the cross terms."""
    lam = noise_lambda(rho, logit, n_examples, gradient_norm)
    typical = sigma_noise * dim_noise**0.5
    deviation = cross_term_deviation(
        logit, sigma_noise, n_examples, w_norm, typical, sigma_noise * w_norm
    )
    return {
        "damping_orthogonal": mean_noise_damping(lam, sigma_noise, w_norm, dim_noise),
        "slope_orthogonal": independent_damping_slope(dim_noise, 1),
        "slope_independent": independent_damping_slope(dim_noise, n_examples),
        "cross_term_deviation": float(deviation),
    }


def predict_sam_boundary(
    rho: float = 0.05,
    gradient_norm: float = 0.01,
    n_examples: int = 200,
    beta: float = 1.0,
    mean_logit: float = 0.4,
    feature_quartic: float = 1e-7,
    logit: float = 0.5,
    noise_quartic: float = 1e-7,
    projection: float = 0.01,
    squared_norm: float = 2.5,
) -> Prediction:
    """One example with moving logits: its margin's drop, and SAM/GD along its noise."""
    require(projection > 0, "projection", projection, "positive")
    shift = logit_shift(
        rho, gradient_norm, beta, mean_logit, feature_quartic, logit, noise_quartic, n_examples
    )
    ratio = moving_logit_ratio(
        rho, gradient_norm, n_examples, [logit], shift, projection, squared_norm
    )
    return {"margin_drop": float(shift), "sam_over_gd": ratio}
