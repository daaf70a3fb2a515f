"""One family of synthetic examples between copies and faithful ones, and what to choose from it.

A synthetic example keeps a share c of its source's feature (*fidelity*) and has noise
γ = a(τξ + √(1−τ²) ξ') (*kept noise* τ, *amplitude* a). U(k) is (1, 1, 1), G(k) is
(1, 0, σ_γ/σ_p). `orthogonal`: the fresh parts ξ' are orthogonal to one another and to every
original's noise, which is what `sim` draws for noise="orthogonal"; else all are independent.
Equation numbers refer to theory/family.md.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, hypot, inf, isfinite, sqrt

from common.errors import require
from theory.amplification import k_star, memorisation_ratio, n_augmented
from theory.gradient_variance import (
    Filters,
    check_varies,
    expected_filters,
    single_sample_noise,
)
from theory.moments import noise_second_moment, noise_strength, shared_noise_covariance
from theory.parameters import Prediction
from theory.world import World, both_kinds, check_batch, check_betas, two_kinds


@dataclass(frozen=True)
class FamilyMember:
    """k − 1 synthetic examples for each slow one: fidelity c, kept noise τ, amplitude a.

    Raises ParameterError for k below 1, c or τ outside [0, 1], or a below 0.
    """

    k: float = 5
    fidelity: float = 1.0
    kept_noise: float = 0.0
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "at least 1")
        require(0 <= self.fidelity <= 1, "fidelity", self.fidelity, "inside [0, 1]")
        require(0 <= self.kept_noise <= 1, "kept_noise", self.kept_noise, "inside [0, 1]")
        require(self.amplitude >= 0, "amplitude", self.amplitude, "0 or more")

    @staticmethod
    def copies(k: float) -> FamilyMember:
        """U(k): (c, τ, a) = (1, 1, 1), effective k = k, equation (F1)."""
        return FamilyMember(k, 1.0, 1.0, 1.0)


# --- one step: features, noise alignment, gradient variance --------------------------------------


def effective_k(member: FamilyMember) -> float:
    """1 + (k − 1) c³: how often a slow example counts for its feature, equation (F1)."""
    return 1 + (member.k - 1) * member.fidelity**3


def family_k_star(alpha: float, beta_fast: float, beta_slow: float, fidelity: float) -> float:
    """The k at which both features grow alike, 1 + (k* − 1)/c³, equation (F2).

    k* of equation (14). Below 1 where the slow feature already grows faster (minus infinity for
    c = 0); infinite for c = 0 where k* > 1.
    """
    missing = k_star(alpha, beta_fast, beta_slow) - 1
    if fidelity == 0:
        return inf if missing > 0 else -inf
    return 1 + missing / fidelity**3


def feature_shares(
    world: World, member: FamilyMember, random_counts: bool = False
) -> tuple[float, float]:
    """What counts towards the fast and the slow feature in the mean gradient, equation (F1).

    E[N_e/N'] and E[(N_d + (k−1) N_d c³)/N']: the growth of v is 3 l beta_v³ share ⟨w_j,v⟩².
    random_counts: the number of fast examples is binomial (N, alpha), not `world.n_fast`.
    """
    fast = slow = 0.0
    for p, n_fast in _counts(world, random_counts):
        shares = _shares(world, member, n_fast)
        fast, slow = fast + p * shares[0], slow + p * shares[1]
    return fast, slow


def noise_weight(
    alpha: float, member: FamilyMember, orthogonal: bool = False, dim_noise: int | None = None
) -> float:
    """E NoiseAlign = (3 l/N') E[⟨w,ξ⟩²‖ξ‖²] × this weight, equation (F3).

    [alpha + (1−alpha)(1 + (k−1)(aτ + a³τ D + a⁴ D' + (k−2) a⁴τ² D))] / (alpha + k(1−alpha)), in
    which D = D' = 1 for independent noise, and for orthogonal noise in `dim_noise` = d' dimensions
    D = (d'+2τ²)/(d'+2), D' = 1 − 4τ²(1−τ²)/(d'+2). The inner sum makes k² for copies and
    1 + (k−1) a⁴ for fresh noise of either kind. Raises ParameterError where orthogonal noise is
    given no dim_noise, or one that cannot hold the k directions of a slow example's group.
    """
    own = _alignments(member, orthogonal, dim_noise)
    return (alpha + (1 - alpha) * own) / n_augmented(1, alpha, member.k)


def family_alignment(
    world: World,
    member: FamilyMember,
    w_norm: float,
    logit: float = 0.5,
    random_counts: bool = False,
    orthogonal: bool = False,
) -> float:
    """E NoiseAlign_j of a member, equation (F3), at fixed or binomial counts of fast examples.

    (expected sum over I_{j,+}) / (expected size of I_{j,+}); w_norm = ‖w_j‖ off the features.
    """
    total = size = 0.0
    own = _alignments(member, orthogonal, world.dim_noise)
    for p, n_fast in _counts(world, random_counts):
        n_slow = world.n_examples - n_fast
        n = n_fast + member.k * n_slow
        total += p * (n_fast + n_slow * own) / n
        size += p * n
    return 3 * logit * noise_strength(world.sigma_noise, w_norm, world.dim_noise) * total / size


def family_variance(
    world: World,
    filters: Filters,
    member: FamilyMember,
    batch_size: int,
    logit: float = 0.5,
    replacement: bool = False,
    random_counts: bool = False,
    orthogonal: bool = False,
) -> float:
    """Mini-batch gradient variance of a member, equations (F4) to (F6); k a whole number.

    Over data noise, labels and batch, and with random_counts over the number of fast examples.
    filters: of given W, or `gradient_variance.expected_filters` for the mean over W⁽⁰⁾.
    orthogonal: of noise that is, whose kind counts in (F5) for 0 < τ < 1 only.
    """
    require(member.k == int(member.k), "k", member.k, "a whole number")
    means = feature_shares(world, member, random_counts)
    squares = _squares(world, filters, logit)
    total = 0.0
    for p, n_fast in _counts(world, random_counts):
        total += p * _given_counts(
            world, filters, member, batch_size, logit, replacement, n_fast, orthogonal
        )
        # law of total variance: the mean gradient moves with the two features' shares
        shares = _shares(world, member, n_fast)
        total += p * sum(
            (share - mean) ** 2 * a for share, mean, a in zip(shares, means, squares, strict=True)
        )
    return total


_MOST_COUNTS = 10_000
"""Each possible number of fast examples is gone through."""


def _counts(world: World, random_counts: bool) -> list[tuple[float, int]]:
    """Numbers of fast examples with their probabilities, equation (F6)."""
    n = world.n_examples
    if not random_counts:
        return [(1.0, both_kinds(n, world.alpha)[0])]
    require(n <= _MOST_COUNTS, "n_examples", n, f"at most {_MOST_COUNTS} with random counts")
    from scipy.stats import binom  # half a second to import, and seldom needed

    return [(float(p), i) for i, p in enumerate(binom.pmf(range(n + 1), n, world.alpha))]


def _shares(world: World, member: FamilyMember, n_fast: int) -> tuple[float, float]:
    """The two features' shares of the mean gradient at n_fast fast examples, equation (F1)."""
    n_slow = world.n_examples - n_fast
    n = n_fast + member.k * n_slow
    return n_fast / n, n_slow * effective_k(member) / n


def _alignments(member: FamilyMember, orthogonal: bool, dim_noise: int | None) -> float:
    """Alignments within the group of one slow example, in units of one patch's, equation (F3)."""
    k, tau, a = member.k, member.kept_noise, member.amplitude
    other = itself = 1.0
    if orthogonal:
        require(
            dim_noise is not None and dim_noise >= k,
            "dim_noise",
            dim_noise,
            f"at least k = {k:g} for orthogonal noise",
        )
        assert dim_noise is not None
        # fresh parts that cannot point along the source's noise lean along w a little less
        other = (dim_noise + 2 * tau**2) / (dim_noise + 2)
        itself = 1 - 4 * tau**2 * (1 - tau**2) / (dim_noise + 2)
    with_source = a * tau + a**3 * tau * other
    return 1 + (k - 1) * (with_source + a**4 * itself + (k - 2) * a**4 * tau**2 * other)


def _group_noise(
    world: World, filters: Filters, member: FamilyMember, logit: float, orthogonal: bool
) -> tuple[float, float, float]:
    """S of a synthetic example, and C of it with its source and with a sibling, equation (F5)."""
    sigma, d = world.sigma_noise, world.dim_noise
    tau, a = member.kept_noise, member.amplitude
    if orthogonal:
        keep, lose, patch = tau**2, 1 - tau**2, noise_second_moment(sigma, d)
        unit = sigma**6
        moments = (
            a**6 * (patch - 36 * unit * keep * lose),
            a**3 * tau * (keep * patch + lose * unit * d),
            a**6 * keep * (keep**2 * patch + unit * (2 * keep * d + lose * d**2 / (d + 2)) * lose),
        )
    else:
        moments = (
            noise_second_moment(a * sigma, d),
            shared_noise_covariance(sigma, tau, a, d),
            # two synthetics share τ²
            shared_noise_covariance(sigma, tau**2, a**2, d),
        )
    scale = 9 * logit**2 * (world.n_patches - 1) * filters.noise_quartic
    own, source, sibling = (scale * moment for moment in moments)
    return own, source, sibling


def _squares(world: World, filters: Filters, logit: float) -> tuple[float, float]:
    """A_v = 9 l² beta_v⁶ Σ_j⟨w_j,v⟩⁴ of the two features, equation (22)."""
    fast = 9 * logit**2 * world.beta_fast**6 * filters.fast_quartic
    return fast, 9 * logit**2 * world.beta_slow**6 * filters.slow_quartic


def _given_counts(
    world: World,
    filters: Filters,
    member: FamilyMember,
    batch_size: int,
    logit: float,
    replacement: bool,
    n_fast: int,
    orthogonal: bool,
) -> float:
    """Variance at n_fast fast examples, equations (F4) and (F5)."""
    B, k, n_slow = batch_size, member.k, world.n_examples - n_fast
    n = n_fast + k * n_slow
    check_batch(B, n, replacement)
    synthetic = (k - 1) * n_slow
    # a fast example has 1 along v_e, a slow one 1 or c³ along v_d: variances of that, which would
    # lose digits as means of squares less squares of means
    cube = member.fidelity**3
    spread = n_fast * (1 + (k - 1) * cube**2) + n_slow * (k - 1) * (1 - cube) ** 2
    fast, slow = _squares(world, filters, logit)
    features = (n_fast * k * fast + spread * slow) * n_slow / n**2
    finite = 1.0 if replacement else (n - B) / (n - 1)
    noise = single_sample_noise(world.sigma_noise, logit, filters, world.dim, world.n_patches)
    made, with_source, with_sibling = _group_noise(world, filters, member, logit, orthogonal)
    own = ((n - synthetic) * noise + synthetic * made) / n
    # pairs of draws that share a source: a synthetic with it, and two synthetics
    pairs = synthetic * (2 * with_source + (k - 2) * with_sibling)
    together = (n * own + pairs) / n**2 if replacement else pairs / (n * (n - 1))
    return (features * finite + own + (B - 1) * together) / B


# --- whole runs: what is learned first -----------------------------------------------------------


def noise_growth(member: FamilyMember) -> tuple[float, float]:
    """How fast noise starts to be memorised along an original's noise, and along a synthetic's.

    In units of one original alone: Σ_x ⟨ŵ,x⟩³/‖ξ‖³ over the group's noise patches x, for ŵ along ξ
    and along γ: 1 + (k−1)(aτ)³ and a³ + τ³ + (k−2) a³τ⁶, equation (F7), to leading order in 1/√d.
    Both are k for copies; for fresh noise 1 and a³. At k = 1 there is no synthetic example and the
    second is 0. For 0 < τ < 1 the filter then turns, and speeds up towards `fastest_growth`.
    """
    k, tau, a = member.k, member.kept_noise, member.amplitude
    original = 1 + (k - 1) * (a * tau) ** 3
    if k == 1:
        return original, 0.0
    return original, a**3 + tau**3 + (k - 2) * a**3 * tau**6


def fastest_growth(member: FamilyMember) -> float:
    """ν = max_ŵ Σ_x ⟨ŵ,x⟩³/‖ξ‖³: the rate in the direction in which it is fastest, equation (F8).

    A filter along that ŵ stays along it, so (32) with this rate is its learning time exactly, and
    no filter of its length is faster; one that starts along ξ or γ takes a time between those of
    (F7) and of ν. ν is 1 and a³, whichever is larger, at τ = 0; 1 + (k−1) a³ at τ = 1; for large k
    (k−1)(aτ)³ + 1 + (3/2) a³τ(1−τ²). Between whole numbers k: linear.
    """
    below, above = floor(member.k), ceil(member.k)
    rate = _fastest(below, member)
    if below == above:
        return rate
    return rate + (member.k - below) * (_fastest(above, member) - rate)


_ORIGINAL = (1.0, 0.0, 0.0)
"""ξ/‖ξ‖ in the three dimensions of `_fastest`."""


def _fastest(k: int, member: FamilyMember) -> float:
    """ν of equation (F8) at a whole k, by w ← Σ_x ⟨w,x⟩² x, which never lowers the rate.

    By symmetry in three dimensions: ξ, one synthetic's fresh part, and all others' together.
    """
    tau, a = member.kept_noise, member.amplitude
    others = max(k - 2, 0)
    one = k - 1 - others
    fresh = a * sqrt(1 - tau * tau)
    shared = fresh / sqrt(others) if others else 0.0
    best = 0.0
    for x, y, z in (_ORIGINAL, (a * tau, fresh, 0), (a * tau, 0, shared)):
        rate, before = 0.0, -inf
        while rate > before and (length := hypot(x, y, z)) > 0:
            along = (x, a * tau * x + fresh * y, a * tau * x + shared * z)
            own, first, rest = (value / length for value in along)
            before, rate = rate, own**3 + one * first**3 + others * rest**3
            x = own**2 + a * tau * (one * first**2 + others * rest**2)
            y, z = one * fresh * first**2, others * shared * rest**2
        best = max(best, rate)
    return best


def family_memorisation(world: World, member: FamilyMember) -> float:
    """Learning time of the slow feature over that of a slow example's noise, equation (F8).

    Equation (33) × `fastest_growth` / (F1): matched filters, the noise's along the direction of
    fastest growth. Above 1 the noise is memorised first. At least (33) × max of (F7) / (F1), with
    equality at τ = 0 and 1.
    """
    base = memorisation_ratio(
        world.sigma_noise, world.dim, world.alpha, world.n_examples, world.beta_slow
    )
    return base * fastest_growth(member) / effective_k(member)


def amplification_helps(member: FamilyMember) -> bool:
    """Whether enough synthetic examples let the feature gain on its noise: a τ < c, equation (F9).

    For large k (F8) tends to (aτ/c)³ times (33). Where a τ ≥ c it is at least (33) at every k.
    """
    return member.amplitude * member.kept_noise < member.fidelity


def least_k(world: World, member: FamilyMember) -> float:
    """The least whole k from which on the slow feature is learned before its noise, equation (F9).

    (F8) is below 1 at this k and at every larger one; member's k is not used. 1 where (F8) is below
    1 at every k. Infinite where it ends above, that is where μ(aτ)³ > c³ with μ = (33), even if
    μ < 1 and few synthetic examples do no harm. At least 1 + (μ − 1)/(c³ − μ(aτ)³), with equality
    for fresh noise of amplitude 1 but for the rounding up.
    """
    base = memorisation_ratio(
        world.sigma_noise, world.dim, world.alpha, world.n_examples, world.beta_slow
    )
    kept = member.amplitude * member.kept_noise
    gain = member.fidelity**3 - base * kept**3

    def excess(k: int) -> float:
        """μ D − 1, D = ν − (k−1)(aτ)³: (F8) is below 1 exactly where this is below (k−1) gain."""
        return base * (fastest_growth(replace(member, k=k)) - (k - 1) * kept**3) - 1

    if gain < 0 or (gain == 0 and max(excess(k) for k in (1, 2, 3, 10**6)) >= 0):
        return inf
    if gain == 0:
        return 1.0
    last = next((k for k in (3, 2, 1) if excess(k) >= (k - 1) * gain), None)
    if last is not None:  # (F8) ≥ 1 at consecutive k
        every = range(sys.maxsize)
        found = bisect_left(every, True, lo=last + 1, key=lambda k: excess(k) < (k - 1) * gain)
        return float(found) if found < len(every) else inf
    # It can still be 1 or more at some larger k, where D has risen. Go down from a k that is
    # certainly beyond: turning off ξ gains at most this much over (k−1)(aτ)³.
    fresh = member.amplitude**2 * (1 - member.kept_noise**2)
    most = 1 + (9 / 4 + 3) * kept * fresh + fresh**1.5
    k = floor(min(1 + (base * most - 1) / gain, sys.maxsize))
    while k > 3 and (above := excess(k)) < (k - 1) * gain:
        k = floor(1 + above / gain)  # as D does not fall, (F8) is below 1 between this k and that
    return k + 1.0 if k > 3 else 1.0


def time_to_learn_both(
    alpha: float, beta_fast: float, beta_slow: float, member: FamilyMember
) -> float:
    """Steps until both features are learned, over those of the fast one without synthetic examples.

    max(1, k*/(1 + (k−1)c³)) (alpha + k(1−alpha)), equation (F10), from (32) at matched filters.
    """
    slow = k_star(alpha, beta_fast, beta_slow) / effective_k(member)
    return max(1.0, slow) * n_augmented(1, alpha, member.k)


def best_k(alpha: float, beta_fast: float, beta_slow: float, fidelity: float) -> float:
    """The k at which both features are learned in the fewest steps, equation (F11).

    (F2) if c³ > 1 − alpha and k* > 1, else 1: each synthetic example dilutes the fast ones, which
    below that fidelity costs more than it gives. At equal epochs instead of equal steps it is
    (F2) whatever c > 0. Not a whole number in general: for that see `best_whole_k`.
    """
    if fidelity**3 <= 1 - alpha:
        return 1.0
    return max(1.0, family_k_star(alpha, beta_fast, beta_slow, fidelity))


def best_whole_k(alpha: float, beta_fast: float, beta_slow: float, fidelity: float) -> int:
    """The whole k at which both features are learned in the fewest steps, equation (F11).

    (F10) falls up to `best_k` and rises beyond it, so it is one of the two whole numbers around
    that: the one of the lesser (F10), which need not be the nearer one, and the lesser of equals.
    """
    best = best_k(alpha, beta_fast, beta_slow, fidelity)

    def time(k: int) -> float:
        return time_to_learn_both(alpha, beta_fast, beta_slow, FamilyMember(k, fidelity))

    return min(floor(best), ceil(best), key=time)


@dataclass(frozen=True)
class Choice:
    """A point of a curve of members: its index, its k, and the two numbers behind the choice."""

    index: int
    k: float
    memorisation: float
    time: float


def best_strength(world: World, curve: Sequence[FamilyMember], k: float | None = None) -> Choice:
    """The best point on a curve (c(θ), τ(θ), a(θ)) of strengths θ, equation (F12).

    At a given k, or at each point's own `best_k`. Among the points at which the slow feature is
    learned before its examples' noise, (F8) < 1, the one at which both features are learned first
    (F10); if there is none, the one of least (F8). From (1, 1, 1) to (0, 0, 1) it is inside if μ of
    (33) is at least 1 and (F8) is below μ at some point; it can be an end where μ < 1, and where
    every point's own k is 1 (k* ≤ 1). Raises ParameterError for an empty curve.
    """
    require(len(curve) > 0, "curve", "empty", "at least one point")
    choices = []
    for index, member in enumerate(curve):
        own = k
        if own is None:
            own = best_k(world.share_fast, world.beta_fast, world.beta_slow, member.fidelity)
        at = replace(member, k=own)
        time = time_to_learn_both(world.share_fast, world.beta_fast, world.beta_slow, at)
        choices.append(Choice(index, own, family_memorisation(world, at), time))
    learned = [c for c in choices if c.memorisation < 1]
    if learned:
        return min(learned, key=lambda c: (c.time, c.memorisation))
    return min(choices, key=lambda c: c.memorisation)


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_family(
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
    check_betas(beta_fast, beta_slow)
    require(fidelity > 0, "fidelity", fidelity, "inside (0, 1]")
    member = FamilyMember(k, fidelity, kept_noise, amplitude)
    noise = orthogonal, dim_noise
    weight = noise_weight(alpha, member, *noise)
    return {
        "effective_k": effective_k(member),
        "k_star": family_k_star(alpha, beta_fast, beta_slow, fidelity),
        "noise_weight": weight,
        "noise_over_upsampled": weight / noise_weight(alpha, FamilyMember.copies(k), *noise),
    }


def predict_family_variance(
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
        family_variance(
            world,
            expected_filters(filters, dim, sigma_init),
            member,
            batch_size,
            logit,
            replacement,
            random_counts,
            orthogonal,
        )
        for member in (FamilyMember(k, fidelity, kept_noise, amplitude), FamilyMember.copies(k))
    )
    check_varies(upsampled, sigma_noise)
    return {"variance": own, "upsampled": upsampled, "ratio": own / upsampled}


def predict_family_memorisation(
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
    world = two_kinds(n_examples, dim, 2, alpha, beta_fast, beta_slow, sigma_noise)
    member = FamilyMember(k, fidelity, kept_noise, amplitude)
    own, synthetic = noise_growth(member)
    least = least_k(world, member)
    return {
        "memorisation": family_memorisation(world, member),
        "noise_growth_original": own,
        "noise_growth_synthetic": synthetic,
        **({"least_k": least} if isfinite(least) else {}),
    }


def predict_best_k(
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
    world = two_kinds(n_examples, dim, 2, alpha, beta_fast, beta_slow, sigma_noise)
    pairs = len(fidelity_curve) == len(kept_noise_curve)
    allowed = f"as many numbers as fidelity_curve, {len(fidelity_curve)}"
    require(pairs, "kept_noise_curve", list(kept_noise_curve), allowed)
    curve = [
        FamilyMember(k, c, tau) for c, tau in zip(fidelity_curve, kept_noise_curve, strict=True)
    ]
    choice = best_strength(world, curve)
    features = world.share_fast, beta_fast, beta_slow
    return {
        "best_k": best_k(*features, fidelity),
        "best_whole_k": best_whole_k(*features, fidelity),
        "time": time_to_learn_both(*features, FamilyMember(k, fidelity)),
        "best_point": choice.index,
        "best_point_k": choice.k,
        "best_point_memorisation": choice.memorisation,
    }
