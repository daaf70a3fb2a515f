"""Theorem 4.2: amplifying slow examples k-fold, by copies U(k) or by generation G(k).

Equation numbers refer to theory/amplification.md.
"""

from __future__ import annotations

from math import exp, expm1, inf, log, sqrt

from common.errors import require
from theory.moments import absolute_moment, noise_strength, patch_moment
from theory.parameters import Prediction
from theory.world import both_kinds, check_betas


def n_augmented(n_examples: float, alpha: float, k: float) -> float:
    """N' = alpha N + k (1 − alpha) N, the size of U(k) and of G(k), equation (12)."""
    return n_examples * (alpha + k * (1 - alpha))


def feature_gradient(
    beta: float, share: float, logit: float, projection: float, n_over_n_augmented: float = 1.0
) -> float:
    """⟨−∇_{w_j}L, v⟩ = 3 l beta_v³ share ⟨w_j,v⟩², equation (13).

    `share` is the part of the *original* data that counts towards v: alpha for the fast
    feature, k (1 − alpha) for the slow one; `n_over_n_augmented` is N/N'. The same for U(k)
    and G(k), so the slow feature's weight against the fast one's rises k-fold.
    """
    return 3 * logit * beta**3 * share * projection**2 * n_over_n_augmented


def k_star(alpha: float, beta_fast: float, beta_slow: float, power: int = 3) -> float:
    """k* = alpha beta_fast³ / ((1 − alpha) beta_slow³), equation (14).

    The k at which both features grow equally fast from matched filters
    (⟨w,v_fast⟩ = ⟨w,v_slow⟩); q in place of 3 for z^q with odd q and ReLU^q, equation (E2).
    """
    return alpha * beta_fast**power / ((1 - alpha) * beta_slow**power)


def learning_time(
    beta: float,
    share: float,
    logit: float,
    projection: float,
    lr: float,
    target: float = inf,
) -> float:
    """Steps until ⟨w_j,v⟩ grows to `target`, equation (32).

    (1/⟨w_j,v⟩ − 1/target) / (3 lr l beta_v³ p_v), by gradient flow from (13) with frozen logits,
    for `projection` = ⟨w_j,v⟩ > 0 at the start; `share` p_v is the part of the data set in use
    that carries v. The filter of the largest projection learns first; growth is so sudden that
    the target hardly matters. At matched filters the slow/fast ratio is k*/k.
    """
    return (1 / projection - 1 / target) / (3 * lr * logit * beta**3 * share)


def memorisation_ratio(
    sigma_noise: float,
    dim: float,
    alpha: float,
    n_examples: int,
    beta_slow: float,
    power: int = 3,
    rectified: bool = False,
    label_noise: float = 0.0,
) -> float:
    """μ, learning time of the slow feature over that of one slow example's noise, equation (33).

    sigma_noise³ d^1.5 / (N_d beta_slow³), N_d by `world.n_fast`, at matched filters, on the
    originals or on U(k) for any k; on G(k) it is divided by k. Above 1 the noise is memorised
    first. Equation (E4): q in place of 3 for z^q; twice that for ReLU^q, of which a filter sees
    one class only; divided by 1 − 2η, η the share of wrong labels among slow examples. Raises
    ParameterError for z^q with even q, which learns neither, and where fast or slow examples are
    missing.
    """
    odd = "odd, unless rectified: even powers do not see the label"
    require(rectified or power % 2 == 1, "power", power, odd)
    n_slow = both_kinds(n_examples, alpha)[1]
    seen = n_slow * (1 - 2 * label_noise) / (2 if rectified else 1)
    return (sigma_noise * dim**0.5 / beta_slow) ** power / seen


def noise_alignment(
    arm: str,
    alpha: float,
    k: float,
    n_examples: int,
    logit: float,
    sigma_noise: float,
    sigma_synthetic: float,
    w_norm: float,
    dim_noise: int,
) -> float:
    """E NoiseAlign_j over the arm's examples, equations (15) to (17); orthogonal noise, equal l.

    arm "original" | "upsampled" | "generated". The common factor is (3 l/N') E[⟨w,ξ⟩²‖ξ‖²];
    U(k) multiplies it by (alpha + k²(1−alpha)) / (alpha + k(1−alpha)), G(k) by
    (alpha + (1−alpha)(1 + (k−1) r)) / (alpha + k(1−alpha)).
    Raises KeyError for another arm.
    """
    size = n_augmented(n_examples, alpha, 1 if arm == "original" else k)
    base = 3 * logit / size * noise_strength(sigma_noise, w_norm, dim_noise)
    weight = {
        "original": 1.0,
        "upsampled": upsampled_weight(alpha, k),
        "generated": generated_weight(alpha, k, noise_ratio(sigma_noise, sigma_synthetic)),
    }[arm]
    return base * weight


def upsampled_weight(alpha: float, k: float) -> float:
    """(alpha + k²(1 − alpha)) / (alpha + k(1 − alpha)), equation (16)."""
    return (alpha + k**2 * (1 - alpha)) / n_augmented(1, alpha, k)


def generated_weight(alpha: float, k: float, r: float) -> float:
    """(alpha + (1 − alpha)(1 + (k − 1) r)) / (alpha + k(1 − alpha)), equation (17)."""
    return (alpha + (1 - alpha) * (1 + (k - 1) * r)) / n_augmented(1, alpha, k)


def noise_ratio(sigma_noise: float, sigma_synthetic: float) -> float:
    """r = E[⟨w,γ⟩²‖γ‖²] / E[⟨w,ξ⟩²‖ξ‖²] = (sigma_synthetic/sigma_noise)⁴, equation (18).

    Raises ParameterError for sigma_noise = 0.
    """
    require(sigma_noise > 0, "sigma_noise", sigma_noise, "positive")
    return (sigma_synthetic / sigma_noise) ** 4


def generated_over_upsampled(
    alpha: float, k: float, sigma_noise: float, sigma_synthetic: float
) -> float:
    """E NoiseAlign(G(k)) / E NoiseAlign(U(k)), equation (19); below 1 exactly when r < k + 1."""
    r = noise_ratio(sigma_noise, sigma_synthetic)
    return generated_weight(alpha, k, r) / upsampled_weight(alpha, k)


def noise_tolerance(k: float) -> float:
    """Generation aligns less with noise while r is below this: k + 1, equation (20).

    Raises ParameterError for k = 1, where U(k) and G(k) are the same data whatever r.
    """
    require(k > 1, "k", k, "above 1 (at k = 1 there are no synthetic examples)")
    return k + 1


def sigma_tolerance(k: float, power: int = 3) -> float:
    """Equation (20) for standard deviations: sigma_synthetic/sigma_noise < (k + 1)^(1/4).

    (k + 1)^(1/(q+1)) for z^q with odd q and ReLU^q, equation (E3).
    """
    return noise_tolerance(k) ** (1 / (power + 1))


def mean_alignment(
    logit: float, sigma_noise: float, n_examples: int, w_norm: float, dim_noise: int, patches: int
) -> float:
    """E of the mean over I_{j,+} itself, where it is not empty, equation (A1); independent noise.

    (3 l/n) sigma⁴ ‖w‖² [ d' + 2 − (4/π)(1 − m/(2^m − 1)) ], m = `patches` distinct noise patches
    in all. (15) reads the mean as a ratio of expectations and lacks the last term: patches of
    I_{j,+} lean the same way along w, and how many there are is random.
    """
    # m/(2^m − 1), which for many patches is 0 and no overflow
    alone = patches * exp(-patches * log(2)) / -expm1(-patches * log(2))
    lean = absolute_moment(1) * absolute_moment(3) * (1 - alone)
    own = patch_moment(2, 1, dim_noise)
    return 3 * logit / n_examples * sigma_noise**4 * w_norm**2 * (own - lean)


def alignment_deviation(
    logit: float, sigma_noise: float, n_examples: int, w_norm: float, dim_noise: int, patches: int
) -> float:
    """Standard deviation of y_i⟨−∇_{w_j}L, ξ_i⟩ over data and labels, equation (A2).

    (3 l/n) sigma⁴ ‖w‖² √(3(d'+4)(d'+6) − (d'+2)² + 3(m−1)(d'+4)); independent noise, m = `patches`.
    """
    own = patch_moment(4, 2, dim_noise) - patch_moment(2, 1, dim_noise) ** 2
    others = (patches - 1) * patch_moment(4, 1, dim_noise)
    return 3 * logit / n_examples * sigma_noise**4 * w_norm**2 * sqrt(own + others)


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_amplification(
    alpha: float = 0.8, beta_fast: float = 1.0, beta_slow: float = 0.3, k: float = 5
) -> Prediction:
    """The k that equalises early growth, and slow over fast growth at this k (matched filters)."""
    check_betas(beta_fast, beta_slow)
    slow = feature_gradient(beta_slow, k * (1 - alpha), 1.0, 1.0)
    fast = feature_gradient(beta_fast, alpha, 1.0, 1.0)
    return {
        "k_star": k_star(alpha, beta_fast, beta_slow),
        "slow_over_fast": slow / fast,
    }


def predict_noise_alignment(
    alpha: float = 0.8, k: float = 5, sigma_noise: float = 0.1, sigma_synthetic: float = 0.1
) -> Prediction:
    """E NoiseAlign(G(k)) / E NoiseAlign(U(k)), and the tolerance in (sigma_syn/sigma_noise)^4."""
    return {
        "generated_over_upsampled": generated_over_upsampled(
            alpha, k, sigma_noise, sigma_synthetic
        ),
        "tolerance": noise_tolerance(k),
        "noise_ratio": noise_ratio(sigma_noise, sigma_synthetic),
    }


def predict_noise_tolerance(k: float = 5) -> Prediction:
    """The largest r, and sigma_synthetic/sigma_noise, at which G(k) aligns less with noise."""
    return {
        "tolerance": noise_tolerance(k),
        "sigma_ratio": sigma_tolerance(k),
    }


def predict_alignment_distribution(
    n_examples: int = 200,
    n_patches: int = 2,
    sigma_noise: float = 0.05,
    w_norm: float = 0.3,
    dim_noise: int = 1998,
    logit: float = 0.5,
) -> Prediction:
    """NoiseAlign of GD on independent noise: its mean, and one patch's standard deviation."""
    patches = n_examples * (n_patches - 1)
    given = (logit, sigma_noise, n_examples, w_norm, dim_noise, patches)
    return {
        "mean": mean_alignment(*given),
        "deviation_of_one": alignment_deviation(*given),
    }
