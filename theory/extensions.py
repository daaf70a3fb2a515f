"""Beyond the paper's setting: other activations, label noise, unequal classes, other noise.

What survives of each theorem, and by how much; what does not is a measured counterexample.
Activations are z^q (odd or even q ≥ 2) and ReLU^q = max(z, 0)^q. Equation numbers refer to
theory/extensions.md.
"""

from __future__ import annotations

from math import copysign, hypot, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike

from common.errors import require
from theory.amplification import k_star, sigma_tolerance
from theory.gradient_variance import same_noise_probability
from theory.moments import absolute_moment, cross_term_variance, patch_moment
from theory.parameters import Prediction
from theory.world import both_kinds, check_betas

# --- activations ---------------------------------------------------------------------------------


def power_noise_mean(
    sigma: float, logit: float, power_sum: float, power: int, rectified: bool
) -> float:
    """‖mean of one noise patch's gradient given its label‖², equation (E6).

    q² l² sigma^(2q) M_q² Σ_j ‖w_j‖^(2q−2) for even z^q, a quarter of it for ReLU^q, 0 for odd z^q:
    these gradients lean along w_j, towards the side that the label chooses.
    """
    if power % 2 and not rectified:
        return 0.0
    m = power**2 * logit**2 * sigma ** (2 * power) * absolute_moment(power) ** 2 * power_sum
    return m / 4 if rectified else m


def shared_label_variance(
    n_fast: int,
    n_slow: int,
    k: int,
    batch_size: int,
    mean: float,
    mean_synthetic: float,
    replacement: bool = False,
) -> float:
    """What G(k)'s variance has beyond (25), P = 2, equation (E7).

    (B−1)/B × N_d (k−1)[2 √(m m') + (k−2) m'] / (N'(N'−1)), with replacement / N'²; m = `mean` and
    m' = `mean_synthetic`: `power_noise_mean` at sigma_noise and sigma_synthetic. Synthetic examples
    have fresh noise but their source's label, towards which all of them lean.
    """
    n = n_fast + k * n_slow
    pairs = n_slow * (k - 1) * (2 * sqrt(mean * mean_synthetic) + (k - 2) * mean_synthetic)
    together = pairs / (n**2 if replacement else n * (n - 1))
    return (batch_size - 1) / batch_size * together


def label_parts(power: int, rectified: bool, label_noise: float = 0.0) -> tuple[float, float]:
    """How one example's feature gradient splits into a mean and a part random in its label, (E8).

    Shares (s_0, s_y) of A_v, equation (E8): the squared mean over labels, and the rest, which all
    copies and synthetic examples of a source share. z^q: (1, 0) for odd q and (0, 1) for even q;
    ReLU^q: (1/4, 1/4). label_noise: a share η of wrong labels, odd q: ((1−2η)², 1 − (1−2η)²).
    """
    if rectified:
        return 1 / 4, 1 / 4
    if power % 2 == 0:
        return 0.0, 1.0
    kept = (1 - 2 * label_noise) ** 2
    return kept, 1 - kept


def feature_part_variance(
    n_fast: int,
    n_slow: int,
    k: int,
    batch_size: int,
    squares: tuple[float, float],
    parts: tuple[float, float],
    replacement: bool = False,
    exact_counts: bool = False,
) -> float:
    """The features' part of the mini-batch gradient variance, U(k) and G(k) alike, equation (E9).

    squares: (A_fast, A_slow), A_v = q² l² beta_v^(2q) Σ_j⟨w_j,v⟩^(2q−2); parts: of `label_parts`.
    Fixed counts; labels random, one for each source, independent. exact_counts: of the fast and of
    the slow sources exactly a share η has a wrong label. Then only the batch is random:
    F = p_e A_e + p_d A_d − (1−2η)² (p_e² A_e + p_d² A_d), over B and times φ as in (24).
    """
    n, B = n_fast + k * n_slow, batch_size
    share = n_fast / n
    mean, shared = parts
    finite = 1.0 if replacement else (n - B) / (n - 1)
    spread = share * (1 - share) * sum(squares) * finite * mean
    own = share * squares[0] + (1 - share) * squares[1]
    if exact_counts:
        return (spread + shared * own * finite) / B
    if replacement:
        together = (n_fast * squares[0] + k**2 * n_slow * squares[1]) / n**2
    else:
        together = same_noise_probability(n_fast, n_slow, k, False) * squares[1]
    return (spread + shared * (own + (B - 1) * together)) / B


# --- labels --------------------------------------------------------------------------------------


def label_noise_growth(label_noise: float) -> float:
    """Growth of a feature of which a share η of the examples has a wrong label: 1 − 2η, (E10).

    It also multiplies κ_v of (4), η then being the share in the data at hand. Noise results do not
    change: a wrong label is as random as a right one.
    """
    return 1 - 2 * label_noise


def label_noise_k_star(
    alpha: float,
    beta_fast: float,
    beta_slow: float,
    noise_fast: float,
    noise_slow: float,
) -> float:
    """k* with shares of wrong labels among fast and slow examples, equation (E11).

    k* (1 − 2η_fast)/(1 − 2η_slow): unchanged where they are equal. η < 1/2.
    """
    growth = label_noise_growth(noise_fast) / label_noise_growth(noise_slow)
    return k_star(alpha, beta_fast, beta_slow) * growth


def class_share_growth(positive: float, projection: float, rectified: bool, power: int) -> float:
    """Growth of a feature over that of z^q with odd q, equation (E12).

    In units of q l beta_v^q p_v |u|^(q−1), u = ⟨w_j,v⟩ = `projection`, of which only the sign
    counts; p_+ = `positive` is the share of labels +1. z^q: 1 for odd q (labels cancel),
    (2p_+ − 1) sgn u for even q; ReLU^q: p_+ for u > 0 and 1 − p_+ for u < 0, because such a filter
    sees one class only. Raises ParameterError for u = 0, where nothing grows.
    """
    require(projection != 0, "projection", projection, "positive or negative: at 0 nothing grows")
    if rectified:
        return positive if projection > 0 else 1 - positive
    return 1.0 if power % 2 else (2 * positive - 1) * copysign(1, projection)


# --- noise that is not orthogonal to the features ------------------------------------------------


def feature_gradient_deviation(
    logit: float,
    sigma_noise: float,
    w_norm: float,
    projection: float,
    n_augmented: float,
    weight: float,
) -> float:
    """Standard deviation that isotropic noise gives ⟨−∇_{w_j}L, v⟩ around (13), equation (E13).

    (3 l/N') √(N_2 sigma⁶ (3‖w‖⁴ + 12‖w‖²⟨w,v⟩²)), ‖w‖ over all d dimensions; weight = N_2 = Σ over
    noise patches of multiplicity² × amplitude⁶, that is (P−1)(N_e + k² N_d) for U(k) and
    (P−1)(N + (k−1) N_d a⁶) for G(k). The mean is (13).
    """
    variance = cross_term_variance(sigma_noise, w_norm, 1.0, projection)
    return 3 * logit / n_augmented * sqrt(weight * variance)


def feature_lean(
    sigma_noise: float, w_norm: float, growth: ArrayLike, projection: ArrayLike
) -> float:
    """What isotropic noise adds to NoiseAlign_j of (15), taken with d in place of d', (E14).

    √(2/π) (sigma/‖w‖) Σ_v growth_v ⟨w,v⟩, equation (E14): on I_{j,+} noise leans along w_j, so it
    also points along a feature that w_j has learned. growth_v is (13), ‖w‖ is over all d
    dimensions, sigma the mean over noise patches. 0 on average over W⁽⁰⁾.
    """
    along = float(np.sum(np.asarray(growth, dtype=float) * np.asarray(projection, dtype=float)))
    return sqrt(2 / pi) * sigma_noise / w_norm * along


def isotropic_sam_slope(
    beta: float,
    share: float,
    projection: float,
    sigma_noise: float,
    w_norm: float,
    dim: int,
    n_augmented: float,
    weight: float,
) -> float:
    """How isotropic noise deepens SAM's damping along v, equation (E15).

    (mean SAM gradient along v)/(mean GD gradient) = 1 − h l slope + O(h²) at a given
    h = rho/‖∇L‖_F, slope = 6 beta³ p_v u + 18 sigma⁶ (d+4) ‖w‖² N_2/(N'² beta³ p_v u), u = ⟨w_j,v⟩.
    The first term is (5)'s. share p_v of the data set in use, weight N_2 as in (E13).
    """
    feature = beta**3 * share * projection
    noise = sigma_noise**6 * patch_moment(4, 1, dim) * w_norm**2 * weight / n_augmented**2
    return 6 * (feature + noise / feature)


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_activation(
    power: int = 3,
    rectified: bool = False,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.5,
    k: float = 5,
) -> Prediction:
    """z^q or ReLU^q: how much of the feature gradient survives the labels, k*, the tolerance.

    Even powers do not see the label: z^q with even q has no k* and no tolerance.
    """
    check_betas(beta_fast, beta_slow)
    mean, by_label = label_parts(power, rectified)
    parts = {"mean_part": mean, "label_part": by_label}
    if mean == 0:
        return parts
    return parts | {
        "k_star": k_star(alpha, beta_fast, beta_slow, power),
        "sigma_ratio": sigma_tolerance(k, power),
    }


def predict_label_noise(
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.5,
    label_noise: float = 0.1,
    label_noise_slow: float = 0.1,
) -> Prediction:
    """Growth of the fast and slow features with wrong labels, over that without, and k*."""
    check_betas(beta_fast, beta_slow)
    return {
        "growth_fast": label_noise_growth(label_noise),
        "growth_slow": label_noise_growth(label_noise_slow),
        "k_star": label_noise_k_star(alpha, beta_fast, beta_slow, label_noise, label_noise_slow),
    }


def predict_class_imbalance(
    positive: float = 0.8, projection: float = 1.0, power: int = 3, rectified: bool = False
) -> Prediction:
    """Growth of a feature when a share of the labels is +1, over the cube's."""
    return {"growth": class_share_growth(positive, projection, rectified, power)}


def predict_isotropic_noise(
    n_examples: int = 400,
    n_patches: int = 2,
    alpha: float = 0.8,
    k: int = 5,
    sigma_noise: float = 0.1,
    sigma_synthetic: float = 0.1,
    w_norm: float = 1.0,
    projection: float = 0.05,
    logit: float = 0.5,
) -> Prediction:
    """Noise that is not orthogonal to the features: deviation of the slow feature's gradient."""
    n_fast, n_slow = both_kinds(n_examples, alpha)
    size = n_fast + k * n_slow
    require(abs(projection) <= w_norm, "projection", projection, f"at most w_norm = {w_norm:g}")
    up, originals, synthetic = (
        feature_gradient_deviation(logit, sigma, w_norm, projection, size, (n_patches - 1) * count)
        for sigma, count in (
            (sigma_noise, n_fast + k**2 * n_slow),
            (sigma_noise, n_examples),
            (sigma_synthetic, (k - 1) * n_slow),
        )
    )
    return {"upsampled": up, "generated": hypot(originals, synthetic)}
