"""Every claim: its name, where it stands and is proved, and its prediction from parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from theory import amplification, convergence, gradient_variance, moments, sharpness
from theory.parameters import require

Prediction = dict[str, float]


@dataclass(frozen=True)
class Claim:
    """One claim of the theory.

    name: also the name of its check in `sim verify`.
    number: the paper's, e.g. "Theorem 4.3".
    equations: labels in theory/README.md.
    anchor: the section of theory/README.md that proves it.
    predict: keyword parameters to numbers; what `python -m theory predict` calls.
    """

    name: str
    number: str
    title: str
    statement: str
    equations: str
    anchor: str
    predict: Callable[..., Prediction]

    @property
    def source(self) -> str:
        """Where it is proved, in one line."""
        return f"{self.number}, equations {self.equations}; theory/README.md#{self.anchor}"


def _positive(**values: float) -> None:
    for name, value in values.items():
        require(value > 0, name, value, "positive")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        require(value >= 0, name, value, "0 or more")


def _share(alpha: float) -> None:
    require(0 < alpha < 1, "alpha", alpha, "inside (0, 1)")


def _betas(beta_fast: float, beta_slow: float) -> None:
    _positive(beta_slow=beta_slow)
    require(beta_slow < beta_fast, "beta_slow", beta_slow, f"below beta_fast = {beta_fast}")


def _amplified(k: float) -> None:
    require(k >= 1, "k", k, "at least 1")


def predict_moments(
    sigma_noise: float = 0.1, dim_noise: int = 398, kept_noise: float = 0.0, amplitude: float = 1.0
) -> Prediction:
    """Moments of one noise patch and of a pair, for ‖w‖ = 1."""
    _not_negative(sigma_noise=sigma_noise, amplitude=amplitude)
    require(dim_noise >= 1, "dim_noise", dim_noise, "at least 1")
    require(0 <= kept_noise <= 1, "kept_noise", kept_noise, "inside [0, 1]")
    return {
        "noise_strength": moments.noise_strength(sigma_noise, 1.0, dim_noise),
        "noise_second_moment": moments.noise_second_moment(sigma_noise, dim_noise),
        "shared_noise_covariance": moments.shared_noise_covariance(
            sigma_noise, kept_noise, amplitude, dim_noise
        ),
    }


def predict_sam_feature(
    rho: float = 0.05,
    beta: float = 1.0,
    mean_logit: float = 0.4,
    gradient_norm: float = 1.0,
    projection: float = 0.1,
) -> Prediction:
    """SAM's gradient along a feature over GD's, for a filter with ⟨w,v⟩ = projection."""
    _not_negative(rho=rho)
    _positive(beta=beta, gradient_norm=gradient_norm)
    require(0 <= mean_logit <= 1, "mean_logit", mean_logit, "inside [0, 1]")
    kappa = sharpness.feature_kappa(rho, beta, mean_logit, gradient_norm)
    return {"kappa": kappa, "factor": float(sharpness.feature_factor(kappa, projection))}


def predict_sam_noise(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    projection: float = 0.01,
    squared_norm: float = 2.5,
) -> Prediction:
    """SAM's gradient along an orthogonal noise patch over GD's, for y⟨w,ξ⟩ = projection."""
    _not_negative(rho=rho, squared_norm=squared_norm)
    _positive(gradient_norm=gradient_norm)
    require(0 <= logit <= 1, "logit", logit, "inside [0, 1]")
    require(n_examples >= 1, "n_examples", n_examples, "at least 1")
    lam = sharpness.noise_lambda(rho, logit, n_examples, gradient_norm)
    return {"lambda": lam, "factor": float(sharpness.noise_factor(lam, projection, squared_norm))}


def predict_sam_noise_gaussian(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    sigma_noise: float = 0.05,
    w_norm: float = 0.3,
    dim_noise: int = 1998,
) -> Prediction:
    """NoiseAlign(SAM)/NoiseAlign(GD) over Gaussian noise, frozen logits, and the cross terms."""
    _not_negative(rho=rho, sigma_noise=sigma_noise)
    _positive(gradient_norm=gradient_norm, w_norm=w_norm)
    require(0 <= logit <= 1, "logit", logit, "inside [0, 1]")
    require(n_examples >= 1, "n_examples", n_examples, "at least 1")
    require(dim_noise >= 1, "dim_noise", dim_noise, "at least 1")
    lam = sharpness.noise_lambda(rho, logit, n_examples, gradient_norm)
    typical = sigma_noise * dim_noise**0.5
    deviation = sharpness.cross_term_deviation(
        logit, sigma_noise, n_examples, w_norm, typical, sigma_noise * w_norm
    )
    return {
        "damping_orthogonal": sharpness.mean_noise_damping(lam, sigma_noise, w_norm, dim_noise),
        "slope_orthogonal": sharpness.independent_damping_slope(dim_noise, 1),
        "slope_independent": sharpness.independent_damping_slope(dim_noise, n_examples),
        "cross_term_deviation": float(deviation),
    }


def predict_boundary(
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
    _not_negative(rho=rho)
    _positive(gradient_norm=gradient_norm, beta=beta, projection=projection)
    require(0 <= logit <= 1, "logit", logit, "inside [0, 1]")
    require(n_examples >= 1, "n_examples", n_examples, "at least 1")
    shift = sharpness.logit_shift(
        rho, gradient_norm, beta, mean_logit, feature_quartic, logit, noise_quartic, n_examples
    )
    ratio = sharpness.moving_logit_ratio(
        rho, gradient_norm, n_examples, [logit], shift, projection, squared_norm
    )
    return {"margin_drop": float(shift), "sam_over_gd": ratio}


def predict_amplification(
    alpha: float = 0.8, beta_fast: float = 1.0, beta_slow: float = 0.3, k: float = 5
) -> Prediction:
    """The k that equalises early growth, and slow over fast growth at this k (matched filters)."""
    _share(alpha)
    _betas(beta_fast, beta_slow)
    _amplified(k)
    slow = amplification.feature_gradient(beta_slow, k * (1 - alpha), 1.0, 1.0)
    fast = amplification.feature_gradient(beta_fast, alpha, 1.0, 1.0)
    return {
        "k_star": amplification.k_star(alpha, beta_fast, beta_slow),
        "slow_over_fast": slow / fast,
    }


def predict_noise_alignment(
    alpha: float = 0.8, k: float = 5, sigma_noise: float = 0.1, sigma_synthetic: float = 0.1
) -> Prediction:
    """E NoiseAlign(G(k)) / E NoiseAlign(U(k)) and the tolerance in r = (σ_syn/σ_noise)⁴."""
    _share(alpha)
    _amplified(k)
    _positive(sigma_noise=sigma_noise)
    _not_negative(sigma_synthetic=sigma_synthetic)
    return {
        "generated_over_upsampled": amplification.generated_over_upsampled(
            alpha, k, sigma_noise, sigma_synthetic
        ),
        "tolerance": amplification.noise_tolerance(k),
        "noise_ratio": amplification.noise_ratio(sigma_noise, sigma_synthetic),
    }


def predict_noise_tolerance(k: float = 5) -> Prediction:
    """The largest r, and sigma_synthetic/sigma_noise, at which G(k) aligns less with noise."""
    require(k > 1, "k", k, "above 1 (at k = 1 there are no synthetic examples)")
    return {
        "tolerance": amplification.noise_tolerance(k),
        "sigma_ratio": amplification.sigma_tolerance(k),
    }


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
    """Mini-batch gradient variances in expectation over W⁽⁰⁾; ratio = upsampled / generated."""
    require(n_examples >= 2, "n_examples", n_examples, "at least 2")
    require(dim >= 3, "dim", dim, "at least 3 (two features and noise)")
    require(filters >= 1, "filters", filters, "at least 1")
    _share(alpha)
    _betas(beta_fast, beta_slow)
    _amplified(k)
    _not_negative(sigma_noise=sigma_noise, sigma_synthetic=sigma_synthetic)
    _positive(sigma_init=sigma_init)
    require(0 < logit <= 1, "logit", logit, "inside (0, 1]")
    require(n_patches >= 2, "n_patches", n_patches, "at least 2")
    require(
        batch_size >= 1 and (replacement or batch_size <= n_examples),
        "batch_size",
        batch_size,
        f"between 1 and n_examples = {n_examples}",
    )
    variances = gradient_variance.gradient_variance(
        n_examples,
        dim,
        gradient_variance.expected_filters(filters, dim, sigma_init),
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
    return {**variances, "ratio": variances["upsampled"] / variances["generated"]}


def predict_convergence(
    loss_initial: float = 0.6931,
    loss_final: float = 0.0,
    lr: float = 0.1,
    smoothness: float = 1.0,
    variance: float = 0.01,
    steps: int = 1000,
) -> Prediction:
    """The bound on the mean squared gradient norm over `steps` steps of SGD."""
    _positive(lr=lr, smoothness=smoothness)
    _not_negative(variance=variance)
    require(steps >= 1, "steps", steps, "at least 1")
    require(lr * smoothness <= 1, "lr", lr, f"at most 1/smoothness = {1 / smoothness:.6g}")
    return {
        "mean_squared_gradient_norm": convergence.stationarity_bound(
            loss_initial, loss_final, lr, smoothness, variance, steps
        )
    }


def predict_test_error(alpha: float = 0.8) -> Prediction:
    """Test error of a network that has learned the fast feature only, as on U(k)."""
    _share(alpha)
    return {"upsampled": convergence.error_without_slow_feature(alpha)}


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "gaussian-moments",
            "Lemma 1",
            "Gaussian moments",
            "The moments of one noise patch and of a pair that shares a part tau.",
            "(M1) to (M6)",
            "1-gaussian-moments",
            predict_moments,
        ),
        Claim(
            "sam-feature-factor",
            "Theorem 4.1",
            "SAM slows fast features more",
            "With frozen logits SAM multiplies the gradient along v by (1 - kappa_v <w,v>)^2.",
            "(4), (5)",
            "3-theorem-41-sam-against-gd",
            predict_sam_feature,
        ),
        Claim(
            "sam-noise-damping",
            "Theorem 4.1",
            "SAM damps noise",
            "With frozen logits and orthogonal noise patches SAM multiplies the gradient along "
            "xi_i by (1 - lambda_i y<w,xi>|xi|^2)^2, below 1 on I_{j,+}.",
            "(6), (7)",
            "3-theorem-41-sam-against-gd",
            predict_sam_noise,
        ),
        Claim(
            "sam-noise-damping-gaussian",
            "Theorem 4.1",
            "SAM damps Gaussian noise in distribution",
            "Mean damping over Gaussian noise, orthogonal (exact) and independent (first order in "
            "rho), and the spread of what other examples add.",
            "(8), (9), (31)",
            "3-theorem-41-sam-against-gd",
            predict_sam_noise_gaussian,
        ),
        Claim(
            "sam-boundary",
            "Theorem 4.1",
            "Where SAM's noise claim stops",
            "With real logits SAM raises every logit; the ratio's slope in rho is negative for "
            "small initialisation and positive outside.",
            "(10), (11)",
            "3-theorem-41-sam-against-gd",
            predict_boundary,
        ),
        Claim(
            "amplification",
            "Theorem 4.2",
            "U(k) and G(k) learn features alike",
            "Slow over fast feature growth rises k-fold in both; they are equal at k*.",
            "(12) to (14), (32), (33)",
            "4-theorem-42-upsampling-against-generation",
            predict_amplification,
        ),
        Claim(
            "noise-alignment",
            "Theorem 4.2",
            "G(k) aligns less with noise than U(k)",
            "E NoiseAlign(G)/E NoiseAlign(U) = (alpha + (1-alpha)(1+(k-1)r)) / "
            "(alpha + k^2(1-alpha)).",
            "(15) to (19)",
            "4-theorem-42-upsampling-against-generation",
            predict_noise_alignment,
        ),
        Claim(
            "noise-tolerance",
            "Theorem 4.2",
            "Generation tolerates k + 1",
            "E NoiseAlign(G) < E NoiseAlign(U) exactly when r < k + 1 (k > 1).",
            "(20)",
            "4-theorem-42-upsampling-against-generation",
            predict_noise_tolerance,
        ),
        Claim(
            "gradient-variance",
            "Theorem 4.3",
            "Copies share noise, so batches of U(k) vary more",
            "Exact mini-batch gradient variance of original, U(k) and G(k), with and without "
            "replacement.",
            "(21) to (27)",
            "5-theorem-43-mini-batch-gradient-variance",
            predict_gradient_variance,
        ),
        Claim(
            "convergence",
            "Corollary 4.4",
            "The rate of SGD on G(k) and on U(k)",
            "Mean squared gradient norm <= 2(L_0 - L_T)/(lr T) + lr L_s V, attained by isotropic "
            "quadratics; V over data and batch is smaller on G(k) (fresh data at every step).",
            "(28)",
            "6-corollary-44-convergence",
            predict_convergence,
        ),
        Claim(
            "test-error",
            "Corollary 4.4",
            "A whole run: copies memorise, faithful images teach",
            "U(5) leaves slow test examples at chance, error (1-alpha)/2; G(5) is below it.",
            "(29)",
            "6-corollary-44-convergence",
            predict_test_error,
        ),
    )
}
"""Every claim by name, in the order of theory/README.md."""
