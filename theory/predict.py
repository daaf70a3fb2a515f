"""What `python -m theory predict` computes for each claim, and the range of every parameter.

Every function takes keyword parameters with defaults and returns numbers by name; ranges of single
parameters are in `PARAMETERS`, so that functions check only what depends on two of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import require
from theory import (
    amplification,
    convergence,
    extensions,
    family,
    gradient_variance,
    moments,
    sam,
    sam_validity,
)
from theory.world import World, both_kinds, check_batch

Prediction = dict[str, float]


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


def _betas(beta_fast: float, beta_slow: float) -> None:
    require(beta_slow < beta_fast, "beta_slow", beta_slow, f"below beta_fast = {beta_fast}")


def _varies(variance: float, sigma_noise: float) -> None:
    allowed = "positive at the full batch, where nothing else varies"
    require(variance > 0, "sigma_noise", sigma_noise, allowed)


def _world(
    n_examples: int,
    dim: int,
    n_patches: int,
    alpha: float,
    beta_fast: float,
    beta_slow: float,
    sigma_noise: float,
) -> World:
    """A world with fast and with slow examples."""
    world = World(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    both_kinds(n_examples, alpha)
    return world


# --- moments and one SAM step --------------------------------------------------------------------


def gaussian_moments(
    sigma_noise: float = 0.1,
    dim_noise: int = 398,
    kept_noise: float = 0.0,
    amplitude: float = 1.0,
    w_norm: float = 1.0,
) -> Prediction:
    """Moments of one noise patch and of a pair that shares a part."""
    return {
        "noise_strength": moments.noise_strength(sigma_noise, w_norm, dim_noise),
        "noise_second_moment": w_norm**4 * moments.noise_second_moment(sigma_noise, dim_noise),
        "shared_noise_covariance": w_norm**4
        * moments.shared_noise_covariance(sigma_noise, kept_noise, amplitude, dim_noise),
    }


def sam_feature_factor(
    rho: float = 0.05,
    beta: float = 1.0,
    mean_logit: float = 0.4,
    gradient_norm: float = 1.0,
    projection: float = 0.1,
) -> Prediction:
    """SAM's gradient along a feature over GD's, for a filter with <w,v> = projection."""
    kappa = sam.feature_kappa(rho, beta, mean_logit, gradient_norm)
    return {"kappa": kappa, "factor": float(sam.feature_factor(kappa, projection))}


def sam_noise_damping(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    projection: float = 0.01,
    squared_norm: float = 2.5,
) -> Prediction:
    """SAM's gradient along an orthogonal noise patch over GD's, for y<w,xi> = projection."""
    lam = sam.noise_lambda(rho, logit, n_examples, gradient_norm)
    return {"lambda": lam, "factor": float(sam.noise_factor(lam, projection, squared_norm))}


def sam_noise_damping_gaussian(
    rho: float = 0.05,
    logit: float = 0.5,
    n_examples: int = 200,
    gradient_norm: float = 0.01,
    sigma_noise: float = 0.05,
    w_norm: float = 0.3,
    dim_noise: int = 1998,
) -> Prediction:
    """NoiseAlign(SAM)/NoiseAlign(GD) over Gaussian noise, frozen logits, and the cross terms."""
    lam = sam.noise_lambda(rho, logit, n_examples, gradient_norm)
    typical = sigma_noise * dim_noise**0.5
    deviation = sam.cross_term_deviation(
        logit, sigma_noise, n_examples, w_norm, typical, sigma_noise * w_norm
    )
    return {
        "damping_orthogonal": sam.mean_noise_damping(lam, sigma_noise, w_norm, dim_noise),
        "slope_orthogonal": sam.independent_damping_slope(dim_noise, 1),
        "slope_independent": sam.independent_damping_slope(dim_noise, n_examples),
        "cross_term_deviation": float(deviation),
    }


def sam_boundary(
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
    shift = sam.logit_shift(
        rho, gradient_norm, beta, mean_logit, feature_quartic, logit, noise_quartic, n_examples
    )
    ratio = sam.moving_logit_ratio(
        rho, gradient_norm, n_examples, [logit], shift, projection, squared_norm
    )
    return {"margin_drop": float(shift), "sam_over_gd": ratio}


def moving_logits(
    n_examples: int = 200,
    dim: int = 1000,
    n_patches: int = 2,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    sigma_noise: float = 0.05,
    filters: int = 8,
    w_norm: float = 0.3,
    projection: float = 0.01,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> Prediction:
    """Slope of NoiseAlign(SAM)/NoiseAlign(GD) in h = rho/|grad L|: orthogonal filters alike."""
    world = _world(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    _orthogonal_filters(filters, world)
    gram = [[w_norm**2 * (i == j) for j in range(filters)] for i in range(filters)]
    quartic = filters * projection**4
    slope = sam_validity.noise_slope(world, gram, quartic, quartic, logit, orthogonal)
    return {
        "rise": float(slope.rise[0]),
        "damping": float(slope.damping[0]),
        "slope": float(slope.total[0]),
    }


def _orthogonal_filters(filters: int, world: World) -> None:
    most = min(world.dim_noise, 1000)
    require(filters <= most, "filters", filters, f"at most {most}: orthogonal off the features")


def sam_noise_boundary(
    n_examples: int = 200,
    dim: int = 2000,
    n_patches: int = 2,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    sigma_noise: float = 0.02,
    filters: int = 8,
    sigma_init: float = 0.05,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> Prediction:
    """The sigma_init below which SAM aligns less with noise; rise and damping at sigma_init.

    All of these for logit terms that are equal at W. Then, for the network's own, to first order in
    how they differ: the border corrected, what GD's own alignment loses at sigma_init, and how
    large the margins are there (validity: to be far below 1, for every number here).
    """
    world = _world(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    kind = logit, orthogonal
    slope = sam_validity.expected_noise_slope(world, filters, sigma_init, *kind)
    loss = sam_validity.expected_loss(world, filters, sigma_init, *kind)
    return {
        "sigma_init_boundary": sam_validity.sigma_init_boundary(world, filters, *kind),
        "rise": float(slope.rise),
        "damping": float(slope.damping),
        "sigma_init_boundary_corrected": sam_validity.corrected_sigma_init_boundary(
            world, filters, *kind
        ),
        "alignment_loss": loss.alignment,
        "validity": sam_validity.margin_size(world, filters, sigma_init, *kind),
    }


def sam_feature_boundary(
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    filters: int = 8,
    logit: float = 0.5,
) -> Prediction:
    """The sigma_init below which SAM learns features more evenly than GD; 0 for k* <= 1: none."""
    _betas(beta_fast, beta_slow)
    # the number of examples does not matter, if it is so large that alpha is not rounded
    world = World(10**18, alpha=alpha, beta_fast=beta_fast, beta_slow=beta_slow)
    return {"sigma_init_boundary": sam_validity.feature_sigma_boundary(world, filters, logit)}


# --- copies, generation, and between -------------------------------------------------------------


def amplification_(
    alpha: float = 0.8, beta_fast: float = 1.0, beta_slow: float = 0.3, k: float = 5
) -> Prediction:
    """The k that equalises early growth, and slow over fast growth at this k (matched filters)."""
    _betas(beta_fast, beta_slow)
    slow = amplification.feature_gradient(beta_slow, k * (1 - alpha), 1.0, 1.0)
    fast = amplification.feature_gradient(beta_fast, alpha, 1.0, 1.0)
    return {
        "k_star": amplification.k_star(alpha, beta_fast, beta_slow),
        "slow_over_fast": slow / fast,
    }


def noise_alignment(
    alpha: float = 0.8, k: float = 5, sigma_noise: float = 0.1, sigma_synthetic: float = 0.1
) -> Prediction:
    """E NoiseAlign(G(k)) / E NoiseAlign(U(k)), and the tolerance in (sigma_syn/sigma_noise)^4."""
    return {
        "generated_over_upsampled": amplification.generated_over_upsampled(
            alpha, k, sigma_noise, sigma_synthetic
        ),
        "tolerance": amplification.noise_tolerance(k),
        "noise_ratio": amplification.noise_ratio(sigma_noise, sigma_synthetic),
    }


def noise_tolerance(k: float = 5) -> Prediction:
    """The largest r, and sigma_synthetic/sigma_noise, at which G(k) aligns less with noise."""
    return {
        "tolerance": amplification.noise_tolerance(k),
        "sigma_ratio": amplification.sigma_tolerance(k),
    }


def alignment_distribution(
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
        "mean": amplification.mean_alignment(*given),
        "deviation_of_one": amplification.alignment_deviation(*given),
    }


def family_(
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.5,
    k: float = 5,
    fidelity: float = 0.9,
    kept_noise: float = 0.3,
    amplitude: float = 1.0,
    dim_noise: int = 398,
    orthogonal: bool = False,
) -> Prediction:
    """Features and noise alignment of a member of the family, and the k that equalises growth.

    dim_noise counts for orthogonal noise only.
    """
    _betas(beta_fast, beta_slow)
    require(fidelity > 0, "fidelity", fidelity, "inside (0, 1]")
    member = family.Family(k, fidelity, kept_noise, amplitude)
    noise = orthogonal, dim_noise
    weight = family.noise_weight(alpha, member, *noise)
    return {
        "effective_k": family.effective_k(member),
        "k_star": family.family_k_star(alpha, beta_fast, beta_slow, fidelity),
        "noise_weight": weight,
        "noise_over_upsampled": weight / family.noise_weight(alpha, family.copies(k), *noise),
    }


def family_variance(
    n_examples: int = 400,
    dim: int = 400,
    n_patches: int = 2,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    sigma_noise: float = 0.1,
    filters: int = 10,
    sigma_init: float = 0.05,
    k: int = 5,
    fidelity: float = 0.9,
    kept_noise: float = 0.3,
    amplitude: float = 1.0,
    batch_size: int = 32,
    logit: float = 0.5,
    replacement: bool = False,
    random_counts: bool = False,
    orthogonal: bool = False,
) -> Prediction:
    """Mini-batch gradient variance of a member of the family, and over that of U(k)."""
    world = World(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    own, upsampled = (
        family.family_variance(
            world,
            gradient_variance.expected_filters(filters, dim, sigma_init),
            member,
            batch_size,
            logit,
            replacement,
            random_counts,
            orthogonal,
        )
        for member in (family.Family(k, fidelity, kept_noise, amplitude), family.copies(k))
    )
    _varies(upsampled, sigma_noise)
    return {"variance": own, "upsampled": upsampled, "ratio": own / upsampled}


def family_memorisation(
    n_examples: int = 100,
    dim: int = 315,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.45,
    sigma_noise: float = 0.1,
    k: float = 5,
    fidelity: float = 0.9,
    kept_noise: float = 0.3,
    amplitude: float = 1.0,
) -> Prediction:
    """Slow feature's learning time over its noise's, and the k from which it is below 1.

    Without "least_k" where no k suffices.
    """
    world = _world(n_examples, dim, 2, alpha, beta_fast, beta_slow, sigma_noise)
    member = family.Family(k, fidelity, kept_noise, amplitude)
    own, synthetic = family.noise_growth(member)
    least_k = family.least_k(world, member)
    return {
        "memorisation": family.family_memorisation(world, member),
        "noise_growth_original": own,
        "noise_growth_synthetic": synthetic,
        **({"least_k": least_k} if math.isfinite(least_k) else {}),
    }


def best_k(
    n_examples: int = 100,
    dim: int = 315,
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.6,
    sigma_noise: float = 0.1,
    k: float = 5,
    fidelity: float = 0.9,
    fidelity_curve: Sequence[float] = (1.0, 0.97, 0.9, 0.7, 0.3),
    kept_noise_curve: Sequence[float] = (1.0, 0.8, 0.5, 0.2, 0.0),
) -> Prediction:
    """The k that learns both features first, the time at k; the best point of a curve, from 0."""
    world = _world(n_examples, dim, 2, alpha, beta_fast, beta_slow, sigma_noise)
    pairs = len(fidelity_curve) == len(kept_noise_curve)
    allowed = f"as many numbers as fidelity_curve, {len(fidelity_curve)}"
    require(pairs, "kept_noise_curve", list(kept_noise_curve), allowed)
    curve = [
        family.Family(k, c, tau) for c, tau in zip(fidelity_curve, kept_noise_curve, strict=True)
    ]
    choice = family.best_strength(world, curve)
    features = world.share_fast, beta_fast, beta_slow
    return {
        "best_k": family.best_k(*features, fidelity),
        "best_whole_k": family.best_whole_k(*features, fidelity),
        "time": family.time_to_learn_both(*features, family.Family(k, fidelity)),
        "best_point": choice.index,
        "best_point_k": choice.k,
        "best_point_memorisation": choice.memorisation,
    }


# --- gradient variance and convergence -----------------------------------------------------------


def gradient_variance_(
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
    _betas(beta_fast, beta_slow)
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
    _varies(variances["generated"], sigma_noise)
    return {**variances, "ratio": variances["upsampled"] / variances["generated"]}


def variance_tolerance(
    n_examples: int = 400, alpha: float = 0.8, k: float = 5, batch_size: int = 32
) -> Prediction:
    """The sigma_synthetic/sigma_noise below which G(k)'s gradient varies less than U(k)'s."""
    n_fast, n_slow = both_kinds(n_examples, alpha)
    size = n_fast + k * n_slow
    return {"sigma_ratio": gradient_variance.variance_tolerance(k, batch_size, size)}


def convergence_(
    loss_initial: float = 0.6931,
    loss_final: float = 0.0,
    lr: float = 0.1,
    smoothness: float = 1.0,
    variance: float = 0.01,
    steps: int = 1000,
) -> Prediction:
    """The bound on the mean squared gradient norm over `steps` steps of SGD."""
    return {
        "mean_squared_gradient_norm": convergence.stationarity_bound(
            loss_initial, loss_final, lr, smoothness, variance, steps
        )
    }


def smoothness(patch_norm: float = 1.5, n_patches: int = 2, weight_norm: float = 0.5) -> Prediction:
    """A bound on the Lipschitz constant of the gradient where |W| <= weight_norm."""
    return {"smoothness": convergence.smoothness_from_norms(patch_norm, n_patches, weight_norm)}


def steps_to_target(
    target: float = 0.01, loss_gap: float = 0.6931, smoothness: float = 1.0, variance: float = 0.1
) -> Prediction:
    """The learning rate that reaches a mean squared gradient norm first, and its steps."""
    lr = convergence.fastest_lr(target, smoothness, variance)
    steps = convergence.steps_to_target(target, loss_gap, smoothness, variance, lr)
    return {"lr": lr, "steps": steps}


def reused_data(
    n_examples: int = 400,
    alpha: float = 0.8,
    k: int = 5,
    batch_size: int = 32,
    noise: float = 1.0,
    lr: float = 0.1,
    smoothness: float = 1.0,
) -> Prediction:
    """Noise of U(k) and G(k) split into the data's part and the batch's; U(k)'s penalty."""
    n_fast, n_slow = both_kinds(n_examples, alpha)
    n = n_fast + k * n_slow
    check_batch(batch_size, n, replacement=False)
    q = gradient_variance.same_noise_probability(n_fast, n_slow, k, False)
    up = convergence.split_variance(noise, q, n, batch_size)
    made = convergence.split_variance(noise, 0.0, n, batch_size)
    return {
        "bias_upsampled": up[0],
        "bias_generated": made[0],
        "batch_variance_upsampled": up[1],
        "batch_variance_generated": made[1],
        "penalty": convergence.upsampling_penalty(noise, q, n, batch_size, lr, smoothness),
    }


def whole_run(alpha: float = 0.8) -> Prediction:
    """Test error of a network that has learned the fast feature only, as on U(k)."""
    return {"upsampled": convergence.error_without_slow_feature(alpha)}


# --- extensions ----------------------------------------------------------------------------------


def activation(
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
    _betas(beta_fast, beta_slow)
    mean, by_label = extensions.label_parts(power, rectified)
    parts = {"mean_part": mean, "label_part": by_label}
    if mean == 0:
        return parts
    return parts | {
        "k_star": extensions.power_k_star(alpha, beta_fast, beta_slow, power),
        "sigma_ratio": extensions.power_sigma_tolerance(k, power),
    }


def label_noise(
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.5,
    label_noise: float = 0.1,
    label_noise_slow: float = 0.1,
) -> Prediction:
    """Growth of the fast and slow features with wrong labels, over that without, and k*."""
    _betas(beta_fast, beta_slow)
    return {
        "growth_fast": extensions.label_noise_growth(label_noise),
        "growth_slow": extensions.label_noise_growth(label_noise_slow),
        "k_star": extensions.label_noise_k_star(
            alpha, beta_fast, beta_slow, label_noise, label_noise_slow
        ),
    }


def class_imbalance(
    positive: float = 0.8, projection: float = 1.0, power: int = 3, rectified: bool = False
) -> Prediction:
    """Growth of a feature when a share of the labels is +1, over the cube's."""
    return {"growth": extensions.class_share_growth(positive, projection, rectified, power)}


def isotropic_noise(
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
        extensions.feature_gradient_deviation(
            logit, sigma, w_norm, projection, size, (n_patches - 1) * count
        )
        for sigma, count in (
            (sigma_noise, n_fast + k**2 * n_slow),
            (sigma_noise, n_examples),
            (sigma_synthetic, (k - 1) * n_slow),
        )
    )
    return {"upsampled": up, "generated": math.hypot(originals, synthetic)}


def more_patches(
    n_patches: int = 3,
    sigma_noise: float = 0.1,
    logit: float = 0.5,
    filters: int = 10,
    dim: int = 400,
    sigma_init: float = 0.05,
) -> Prediction:
    """S, the squared noise gradient of one example, with P patches and over that with two."""
    sizes = gradient_variance.expected_filters(filters, dim, sigma_init)
    noise, own, two = (
        gradient_variance.single_sample_noise(sigma, logit, sizes, dim, patches)
        for sigma, patches in ((sigma_noise, n_patches), (1.0, n_patches), (1.0, 2))
    )
    return {"noise": noise, "over_two_patches": own / two}
