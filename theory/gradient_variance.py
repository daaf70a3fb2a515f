"""Theorem 4.3: the variance of a mini-batch gradient on original, upsampled and generated data.

Variance is E‖ĝ − Eĝ‖²_F over data noise, labels and the batch. Counts are fixed
(N_e fast, N_d slow of N), logits frozen at l, noise independent and Gaussian; every patch
but one holds noise. `batch_size` is B. Equation numbers refer to theory/gradient_variance.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import require
from theory.moments import patch_moment, squared_norm_moments
from theory.parameters import Prediction
from theory.world import both_kinds, check_batch, check_betas


@dataclass(frozen=True)
class Filters:
    """What the variance needs to know of W (J filters).

    `noise_quartic` = Σ_j ‖w_j‖⁴ with w_j restricted off the features;
    `fast_quartic` = Σ_j ⟨w_j,v_fast⟩⁴; `slow_quartic` = Σ_j ⟨w_j,v_slow⟩⁴.
    """

    noise_quartic: float
    fast_quartic: float
    slow_quartic: float


def expected_filters(filters: int, dim: int, sigma_init: float) -> Filters:
    """`Filters` in expectation over W⁽⁰⁾ ~ N(0, sigma_init² I) in R^dim, equation (27)."""
    norm, projection = squared_norm_moments(dim - 2, sigma_init)
    return Filters(filters * norm, filters * projection, filters * projection)


def single_sample_noise(
    sigma: float, logit: float, filters: Filters, dim: int, n_patches: int = 2
) -> float:
    """S(sigma) = (P − 1) × `patch_noise`, equation (21)."""
    return (n_patches - 1) * patch_noise(sigma, logit, filters.noise_quartic, dim - 2)


def patch_noise(
    sigma: float,
    logit: float,
    power_sum: float,
    dim_noise: int,
    power: int = 3,
    rectified: bool = False,
) -> float:
    """The squared gradient of one noise patch, 27 l² sigma⁶ (d' + 4) Σ_j ‖w_j‖⁴, equation (21).

    S_q(sigma) = q² l² sigma^(2q) M_(2q−2) (d' + 2q − 2) Σ_j ‖w_j‖^(2q−2) for z^q, half of it for
    ReLU^q, equation (E5). power_sum is the last sum. With it (24) holds for the noise of every
    activation here, and (25) for odd z^q; for the others (25) needs
    `extensions.shared_label_variance` besides.
    """
    moment = sigma ** (2 * power) * patch_moment(2 * power - 2, 1, dim_noise)
    return power**2 * logit**2 * moment * power_sum / (2 if rectified else 1)


def feature_variance(
    logit: float, beta_fast: float, beta_slow: float, share_fast: float, filters: Filters
) -> float:
    """F = p_e(1 − p_e)(A_e + A_d), A_v = 9 l² beta_v⁶ Σ_j⟨w_j,v⟩⁴, equation (22).

    `share_fast` is p_e = N_e/N', the share of fast examples in the augmented data set.
    """
    a_fast = 9 * logit**2 * beta_fast**6 * filters.fast_quartic
    a_slow = 9 * logit**2 * beta_slow**6 * filters.slow_quartic
    return share_fast * (1 - share_fast) * (a_fast + a_slow)


def same_noise_probability(n_fast: int, n_slow: int, k: int, replacement: bool) -> float:
    """Probability that two draws of a batch from U(k) hold the same noise patch, equation (23).

    Without replacement N_d k(k−1) / (N'(N'−1)); with replacement (N_e + k² N_d) / N'².
    """
    n = n_fast + k * n_slow
    if replacement:
        return (n_fast + k**2 * n_slow) / n**2
    return n_slow * k * (k - 1) / (n * (n - 1))


def batch_variance(
    n_fast: int,
    n_slow: int,
    k: int,
    batch_size: int,
    noise: float,
    noise_synthetic: float,
    features: float,
    generated: bool,
    replacement: bool = False,
) -> float:
    """Var of the mini-batch gradient on U(k), or on G(k) if `generated`; equations (24), (25).

    k = 1 is the original data. `noise` = S(sigma_noise), `noise_synthetic` =
    S(sigma_synthetic) of equation (21), `features` = F of equation (22) at p_e = N_e/N'.
    Raises ParameterError for a batch that does not fit, see `world.check_batch`.
    """
    n = n_fast + k * n_slow
    check_batch(batch_size, n, replacement)
    b = batch_size
    feature_part = features / b if replacement else features / b * (n - b) / (n - 1)
    if generated:
        originals = n_fast + n_slow
        mean_noise = (originals * noise + (n - originals) * noise_synthetic) / n
        # every noise patch is its own: only drawing the very same example again repeats it
        repeated = 1 / n if replacement else 0.0
    else:
        mean_noise = noise
        repeated = same_noise_probability(n_fast, n_slow, k, replacement)
    return feature_part + mean_noise / b * (1 + (b - 1) * repeated)


def upsampling_extra_term(alpha: float, k: float, batch_size: int, n_examples: int) -> float:
    """The paper's extra term, [k(k−1)(1−alpha) / (alpha + k(1−alpha))²] B/N, equation (26).

    In units of S(sigma_noise)/B. The limit of (B−1) × equation (23) for large B and N, and
    exactly equal to it at the full batch B = N'.
    """
    share = k * (k - 1) * (1 - alpha) / (alpha + k * (1 - alpha)) ** 2
    return share * batch_size / n_examples


def gradient_variance(
    n_examples: int,
    dim: int,
    filters: Filters,
    alpha: float,
    beta_fast: float,
    beta_slow: float,
    sigma_noise: float,
    sigma_synthetic: float,
    k: int,
    batch_size: int,
    logit: float = 0.5,
    n_patches: int = 2,
    replacement: bool = False,
) -> dict[str, float]:
    """Theorem 4.3 whole: variances "original", "upsampled", "generated"; equations (24), (25).

    N_e by `world.n_fast`; k = 1 for the original, which is left out where N < B ≤ N' without
    replacement: no such batch can be drawn from it. Raises ParameterError for B above N', and
    where fast or slow examples are missing.
    """
    n_fast, n_slow = both_kinds(n_examples, alpha)
    check_batch(batch_size, n_fast + k * n_slow, replacement)
    noise = single_sample_noise(sigma_noise, logit, filters, dim, n_patches)
    synthetic = single_sample_noise(sigma_synthetic, logit, filters, dim, n_patches)
    result = {}
    for arm, copies in (("original", 1), ("upsampled", k), ("generated", k)):
        if batch_size > n_fast + copies * n_slow and not replacement:
            continue
        share_fast = n_fast / (n_fast + copies * n_slow)
        features = feature_variance(logit, beta_fast, beta_slow, share_fast, filters)
        result[arm] = batch_variance(
            n_fast,
            n_slow,
            copies,
            batch_size,
            noise,
            synthetic,
            features,
            generated=arm == "generated",
            replacement=replacement,
        )
    return result


def variance_tolerance(k: float, batch_size: int, n_augmented: float) -> float:
    """The sigma_synthetic/sigma_noise below which V_G < V_U, equation (30); without replacement.

    (1 + k (B − 1)/(N' − 1))^(1/6): 1 at B = 1, (k + 1)^(1/6) at the full batch B = N'. Raises
    ParameterError for k = 1, where there is no synthetic example, and for B above N'.
    """
    require(k > 1, "k", k, "above 1 (at k = 1 there are no synthetic examples)")
    check_batch(batch_size, n_augmented, replacement=False)
    return (1 + k * (batch_size - 1) / (n_augmented - 1)) ** (1 / 6)


def check_varies(variance: float, sigma_noise: float) -> None:
    """Raise ParameterError for a variance of 0, by which no other can be divided."""
    allowed = "positive at the full batch, where nothing else varies"
    require(variance > 0, "sigma_noise", sigma_noise, allowed)


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_gradient_variance(
    n_examples: int = 400,
    dim: int = 400,
    filters: int = 10,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    sigma_noise: float = 0.1,
    sigma_synthetic: float = 0.1,
    sigma_init: float = 0.05,
    k: int = 5,
    batch_size: int = 32,
    logit: float = 0.5,
    n_patches: int = 2,
    replacement: bool = False,
) -> Prediction:
    """Mini-batch gradient variances in expectation over W(0); ratio = upsampled / generated.

    Without "original" where batch_size > n_examples without replacement: no such batch is there.
    """
    check_betas(beta_fast, beta_slow)
    variances = gradient_variance(
        n_examples,
        dim,
        expected_filters(filters, dim, sigma_init),
        alpha,
        beta_fast,
        beta_slow,
        sigma_noise,
        sigma_synthetic,
        k,
        batch_size,
        logit,
        n_patches,
        replacement,
    )
    check_varies(variances["generated"], sigma_noise)
    return {**variances, "ratio": variances["upsampled"] / variances["generated"]}


def predict_variance_tolerance(
    n_examples: int = 400, alpha: float = 0.8, k: float = 5, batch_size: int = 32
) -> Prediction:
    """The sigma_synthetic/sigma_noise below which G(k)'s gradient varies less than U(k)'s."""
    n_fast, n_slow = both_kinds(n_examples, alpha)
    size = n_fast + k * n_slow
    return {"sigma_ratio": variance_tolerance(k, batch_size, size)}


def predict_more_patches(
    n_patches: int = 3,
    sigma_noise: float = 0.1,
    logit: float = 0.5,
    filters: int = 10,
    dim: int = 400,
    sigma_init: float = 0.05,
) -> Prediction:
    """S, the squared noise gradient of one example, with P patches and over that with two."""
    sizes = expected_filters(filters, dim, sigma_init)
    noise, own, two = (
        single_sample_noise(sigma, logit, sizes, dim, patches)
        for sigma, patches in ((sigma_noise, n_patches), (1.0, n_patches), (1.0, 2))
    )
    return {"noise": noise, "over_two_patches": own / two}
