"""Theorem 4.1 with real logits: where SAM's two claims truly hold, to first order in rho.

SAM's ascent lengthens every filter by h = rho/‖∇L(W)‖_F times the gradient. To first order in h it
damps, as with frozen logits, and it raises the logit terms, which works the other way. Damping
grows with σ_0, the rise with σ_0⁴: each claim holds below one σ_0 and fails above it. Equation
numbers refer to theory/sam_validity.md. l is the logit term of an example whose output is 0: 1/2
for the network of Definition 2. (B2) to (B6) take all logit terms at W to equal it; the functions
that speak of a loss say what their differences change, (B7) to (B12).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import require
from theory.moments import absolute_moment, patch_moment, squared_norm_moments
from theory.parameters import Prediction
from theory.sam import independent_damping_slope
from theory.world import World, check_betas, two_kinds


@dataclass(frozen=True)
class Slope:
    """d log(ratio)/dh at h = 0 is rise − damping, of one filter or of each, shape () or (J,)."""

    rise: NDArray[np.float64]
    damping: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """rise − damping: below 0 the claim holds."""
        return self.rise - self.damping


def logit_change(logit: ArrayLike, tangent_kernel: ArrayLike) -> NDArray[np.float64]:
    """dl_i/dh under SAM's ascent = l_i (1 − l_i) (1/n) Σ_m l_m K_im, equation (B1).

    logit (n,); tangent_kernel (n, n): K_im = ⟨∇(y_i f(x_i)), ∇(y_m f(x_m))⟩. Exact for any network
    and any data. One example's may fall, and so may their sum; weighed by 1/(1 − l_i) their sum
    does not, as the loss does not fall along its gradient.
    """
    l, K = np.asarray(logit, dtype=float), np.asarray(tangent_kernel, dtype=float)
    return l * (1 - l) * (K @ l) / len(l)


def noise_slope(
    world: World,
    gram: ArrayLike,
    fast_quartic: float,
    slow_quartic: float,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> Slope:
    """NoiseAlign_j(SAM)/NoiseAlign_j(GD) = 1 + h (rise_j − damping_j) + O(h²), equation (B2).

    For given filters, in expectation over the data's noise and labels. gram (J, J): inner products
    of the filters off the features; fast_quartic, slow_quartic: Σ_j⟨w_j,v⟩⁴. orthogonal: noise
    patches are a random orthogonal frame with independent χ lengths instead of independent. Exact
    where all l_i equal `logit` at W.
    """
    _check_world(world, logit, orthogonal)
    lengths, cosine = _shape(gram)
    rise = _feature_rise(world, fast_quartic, slow_quartic, logit)
    rise = rise + _noise_rise(world, cosine**2, logit, orthogonal) @ lengths**4
    return Slope(rise, _noise_damping(world, logit, orthogonal) * lengths)


def expected_noise_slope(
    world: World,
    filters: int,
    sigma_init: float,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> Slope:
    """The same in expectation over W⁽⁰⁾ ~ N(0, sigma_init² I) with J = `filters`, equation (B3).

    rise is proportional to sigma_init⁴, damping to sigma_init. h is given: an average over W of
    measured ratios weighs each W by its own h = rho/‖∇L(W)‖, which is small where rise is large.
    """
    _check_world(world, logit, orthogonal)
    d = world.dim_noise
    quartic, projection = squared_norm_moments(d, sigma_init)
    rise = _feature_rise(world, filters * projection, filters * projection, logit)
    # squared cosines: 1 with itself, 1/d' on average with each other filter
    own, other = (_noise_rise(world, np.array(c), logit, orthogonal) for c in (1.0, 1 / d))
    rise += (own + (filters - 1) * other) * quartic
    damping = _noise_damping(world, logit, orthogonal) * sigma_init * mean_length(d)
    return Slope(np.asarray(rise), np.asarray(damping))


def sigma_init_boundary(
    world: World, filters: int, logit: float = 0.5, orthogonal: bool = False
) -> float:
    """The sigma_init below which SAM aligns less with noise than GD, equation (B4)."""
    at_one = expected_noise_slope(world, filters, 1.0, logit, orthogonal)
    return float(at_one.damping / at_one.rise) ** (1 / 3)


def alignment_loss(
    world: World,
    gram: ArrayLike,
    fast_cubes: float,
    slow_cubes: float,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> NDArray[np.float64]:
    """What GD's own alignment loses as logit terms differ at W, shape (J,), equation (B7).

    E NoiseAlign_j(GD) = (15) × (1 − this + O(‖W‖⁶)): an example that is right counts less, and on
    I_{j,+} the noise helps it to be. For given filters: gram (J, J): inner products off the
    features; fast_cubes, slow_cubes: Σ_j⟨w_j,v⟩³. Raises ParameterError as `noise_slope`.
    """
    _check_world(world, logit, orthogonal)
    lengths, cosine = _shape(gram)
    noise = lengths**3 * _alignment_moment(world, cosine, orthogonal)
    margin = _mean_margin(world, fast_cubes, slow_cubes)
    return (1 - logit) * (margin + world.sigma_noise**3 * noise.sum(-1))


def damping_loss(
    world: World,
    gram: ArrayLike,
    fast_cubes: float,
    slow_cubes: float,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> NDArray[np.float64]:
    """What the damping of (B2) loses as logit terms differ at W, shape (J,), equation (B8).

    The expected derivative of NoiseAlign_j(SAM) in h, over (15), is rise − (damping − this) +
    O(‖W‖⁷): of the order of the rise. Arguments and exceptions as `alignment_loss`.
    """
    _check_world(world, logit, orthogonal)
    lengths, cosine = _shape(gram)
    own = _noise_damping(world, logit, orthogonal) * lengths
    margin = _mean_margin(world, fast_cubes, slow_cubes)
    noise = lengths[:, None] * lengths**3 * _damping_moment(world, cosine, orthogonal)
    scale = 6 * logit * (1 - logit) / world.n_examples * world.sigma_noise**6
    return 2 * (1 - logit) * margin * own + scale * noise.sum(-1)


@dataclass(frozen=True)
class Loss:
    """What logit terms that differ at W take from (15), and from (B3)'s damping and rise."""

    alignment: float
    damping: float
    rise: float


def expected_loss(
    world: World,
    filters: int,
    sigma_init: float,
    logit: float = 0.5,
    orthogonal: bool = False,
) -> Loss:
    """The losses in expectation over W⁽⁰⁾ ~ N(0, sigma_init² I), equation (B9).

    alignment is a share of (15) and grows with sigma_init³; damping, with sigma_init⁴, and rise,
    with sigma_init⁷, are in the units of `expected_noise_slope`, so that the expected derivative of
    NoiseAlign(SAM) in h, over (15), is (rise − its loss) − (damping − its loss): to first order in
    the margins. Raises ParameterError as `noise_slope`.
    """
    _check_world(world, logit, orthogonal)
    d, n = world.dim_noise, world.n_examples
    length = mean_length(d) * sigma_init
    cube = (d + 1) * length * sigma_init**2  # E‖w‖³
    seventh = (d + 3) * (d + 5) * cube * sigma_init**4
    quartic, projection = squared_norm_moments(d, sigma_init)
    one = np.ones(())
    strength = world.sigma_noise**3 * float(_alignment_moment(world, one, orthogonal)) * cube
    damping = world.sigma_noise**6 * float(_damping_moment(world, one, orthogonal)) * quartic
    # E c² and E c⁴ of the cosine to another filter
    c2, c4 = 1 / d, 3 / (d * (d + 2))
    noise = _rise_moment(world, 1.0, 1.0, logit, orthogonal) * seventh
    noise += (filters - 1) * _rise_moment(world, c2, c4, logit, orthogonal) * cube * quartic
    features = sum(
        _feature_share(share, beta, logit) * ((1 - logit) / n + (1 - 2 * logit) * share)
        for share, beta in world.features
    )
    scale = logit * (1 - logit) / n
    return Loss(
        alignment=(1 - logit) * strength,
        damping=6 * scale * damping,
        rise=features * filters * projection * strength + 9 * scale * world.sigma_noise**9 * noise,
    )


def feature_spread(
    world: World, filters: int, sigma_init: float, logit: float = 0.5
) -> tuple[float, float]:
    """What the features' part of the margins changes at second order, equation (B10).

    As shares of (B3)'s damping and of the features' part of its rise, in expectation over W⁽⁰⁾;
    both grow with sigma_init⁶. (To first order it changes nothing there: positive and negative
    margins are as likely.)
    """
    variance = _feature_variance(world, filters) * sigma_init**6
    # E[Σ u⁴ (Σ u³)²] over E[Σ u⁴], and the second derivatives of l² and of l²(1 − l) in the margin
    spread = absolute_moment(10) + (filters - 1) * absolute_moment(4) * absolute_moment(6)
    weighted = sum(share**2 * beta**12 for share, beta in world.features)
    rise = weighted / sum(share**2 * beta**6 for share, beta in world.features)
    rise *= spread / absolute_moment(4) * sigma_init**6
    return (1 - logit) * (2 - 3 * logit) * variance, (2 - 7.5 * logit + 6 * logit**2) * rise


def corrected_sigma_init_boundary(
    world: World, filters: int, logit: float = 0.5, orthogonal: bool = False
) -> float:
    """`sigma_init_boundary` as the network's own logit terms move it, equation (B11).

    To first order in the correction, which is exact as sigma_noise → 0. To be trusted where
    `margin_size` is far below 1 at that sigma_init, and the correction small.
    """
    border = sigma_init_boundary(world, filters, logit, orthogonal)
    slope = expected_noise_slope(world, filters, border, logit, orthogonal)
    loss = expected_loss(world, filters, border, logit, orthogonal)
    gain, change = feature_spread(world, filters, border, logit)
    quartic = filters * squared_norm_moments(world.dim_noise, border)[1]
    features = _feature_rise(world, quartic, quartic, logit)
    # more damping takes the border up, more rise brings it down
    up = gain - loss.damping / float(slope.damping)
    up -= (features * change - loss.rise) / float(slope.rise)
    return border * (1 + abs(up)) ** copysign(1 / 3, up)


def margin_size(
    world: World, filters: int, sigma_init: float, logit: float = 0.5, orthogonal: bool = False
) -> float:
    """The small parameter of (B2) to (B11): they need it to be far below 1, equation (B12).

    The larger of the standard deviation of an output at W⁽⁰⁾ and of the share that GD's alignment
    loses. Where noise is the larger part it is, up to constants, (sigma_noise sigma_init √d')³
    times the larger of √(filters × noise patches of an example) and noise patches of all examples
    over d'.
    """
    d, patches = world.dim_noise, world.n_patches - 1
    noise = absolute_moment(6) * filters * patches * d * (d + 2) * (d + 4) * world.sigma_noise**6
    deviation = sqrt(_feature_variance(world, filters) + noise) * sigma_init**3
    return max(deviation, expected_loss(world, filters, sigma_init, logit, orthogonal).alignment)


def feature_slope(
    world: World, fast: ArrayLike, slow: ArrayLike, logit: float = 0.5
) -> tuple[float, float]:
    """(slow/fast)(SAM) / (slow/fast)(GD) = 1 + h (evening − rise) + O(h²): both, equation (B5).

    slow/fast: growth of the slow feature over the fast one's, each summed over the filters with a
    positive projection on it. fast, slow (J,): ⟨w_j,v⟩. evening > rise: SAM learns more evenly.
    For equal logits at W; exact without noise, else in expectation over it: what noise adds to the
    rise of a feature's examples has the same mean for both.
    """
    require(0 < logit < 1, "logit", logit, "inside (0, 1)")
    evening, rise = 0.0, 0.0
    for sign, (share, beta), u in zip((1, -1), world.features, (fast, slow), strict=True):
        u = np.asarray(u, dtype=float)
        positive = u[u > 0]
        cubes = float(np.sum(positive**3) / np.sum(positive**2))
        evening += sign * 6 * logit * share * beta**3 * cubes
        rise += sign * _feature_share(share, beta, logit) * float(np.sum(np.abs(u) ** 4))
    return evening, rise


def feature_sigma_boundary(world: World, filters: int, logit: float = 0.5) -> float:
    """The sigma_init below which SAM learns features more evenly than GD, equation (B6).

    For expected growths over W⁽⁰⁾, at given h. Does not depend on N, d or the noise. 0 for k* ≤ 1:
    the damping then does not hold back the fast feature more, and SAM evens out below no
    sigma_init. (For k* < 1 and p_e β_e⁶ > p_d β_d⁶ it does not at any; for k* < 1 and
    p_e β_e⁶ < p_d β_d⁶ the rise favours the slow feature, and SAM does *above* one.) For k* > 1 the
    rise always favours the fast one: p_e β_e³ > p_d β_d³ and β_e > β_d give p_e β_e⁶ > p_d β_d⁶.
    """
    require(0 < logit < 1, "logit", logit, "inside (0, 1)")
    (p_fast, b_fast), (p_slow, b_slow) = world.features
    evening = 6 * logit * (p_fast * b_fast**3 - p_slow * b_slow**3) * absolute_moment(3)
    rise = _feature_share(p_fast, b_fast, logit) - _feature_share(p_slow, b_slow, logit)
    # Σ_j u_j⁴ seen from a filter, weighted by its u²: 15 from itself, 3 from each other one
    rise *= 15 + 3 * (filters - 1)
    return (evening / rise) ** (1 / 3) if evening > 0 else 0.0


def mean_length(dim: int) -> float:
    """E‖w‖ = √2 Γ((m+1)/2)/Γ(m/2) of a standard normal in m = `dim` dimensions, equation (B3)."""
    from scipy.special import poch  # Γ(a + b)/Γ(a), to all digits in any dimension

    return sqrt(2) * float(poch(dim / 2, 1 / 2))


def _check_world(world: World, logit: float, orthogonal: bool) -> None:
    """Raise ParameterError where NoiseAlign or its slope is not defined, for (B2) to (B12)."""
    require(world.sigma_noise > 0, "sigma_noise", world.sigma_noise, "positive")
    require(0 < logit < 1, "logit", logit, "inside (0, 1)")
    require(
        (patches := world.n_examples * (world.n_patches - 1)) <= world.dim_noise or not orthogonal,
        "dim",
        world.dim,
        f"at least {patches + 2}, for {patches} orthogonal noise patches off two features",
    )


def _feature_share(share: float, beta: float, logit: float) -> float:
    """(1 − l) 9 l p_v beta_v⁶: the rise that Σ_j⟨w_j,v⟩⁴ gives v's examples, equation (10)."""
    return 9 * (1 - logit) * logit * share * beta**6


def _feature_rise(world: World, fast: float, slow: float, logit: float) -> float:
    """The features' part of the rise, a share p_v of the examples each, equation (B2)."""
    return sum(
        share * _feature_share(share, beta, logit) * quartic
        for (share, beta), quartic in zip(world.features, (fast, slow), strict=True)
    )


def _noise_rise(
    world: World, cosine2: NDArray[np.float64], logit: float, orthogonal: bool
) -> NDArray[np.float64]:
    """What ‖w_j'‖⁴ adds to filter j's rise at squared cosine c² between them, equation (B2)."""
    d, n, patches = world.dim_noise, world.n_examples, world.n_patches - 1
    mixed = 3 + 12 * cosine2  # E[z_j² z_j'⁴]
    own = mixed * (d + 6) * (d + 8) / (d + 2)
    # the example's other patches, E[z_j'⁴R] each
    rest = (patches - 1) * patch_moment(4, 1, d)
    shared = 0.0
    if not orthogonal:
        # a pair of patches meets once between examples, twice (in either order) within one
        pairs = (n - 1) * patches + 2 * (patches - 1)
        shared = pairs * ((1 + 2 * cosine2) * (d + 4) + 2 * mixed) / (d + 2)
    else:
        # orthogonal patches share out the filters' directions: less where those are alike
        rest = rest * d * (d + 3 - 4 * cosine2) / ((d + 4) * (d - 1))
    return 9 * (1 - logit) * logit / n * world.sigma_noise**6 * (own + rest + shared)


def _noise_damping(world: World, logit: float, orthogonal: bool) -> float:
    """The damping of (8) or (31) divided by h ‖w_j‖, equation (B2)."""
    if orthogonal:
        slope = 2 * patch_moment(3, 2, world.dim_noise) / patch_moment(2, 1, world.dim_noise)
    else:
        patches = world.n_examples * (world.n_patches - 1)
        slope = independent_damping_slope(world.dim_noise, patches)
    return 3 * logit / world.n_examples * world.sigma_noise**3 * slope


def _shape(gram: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths of filters off the features (J,), and cosines between them (J, J), as in (B2)."""
    gram = np.asarray(gram, dtype=float)
    lengths = np.sqrt(np.diag(gram))
    return lengths, gram / np.outer(lengths, lengths)


def _mean_margin(world: World, fast_cubes: float, slow_cubes: float) -> float:
    """Σ_v p_v beta_v³ Σ_j⟨w_j,v⟩³, the examples' mean margin by their features, equation (B7)."""
    return sum(
        share * beta**3 * cubes
        for (share, beta), cubes in zip(world.features, (fast_cubes, slow_cubes), strict=True)
    )


def _feature_variance(world: World, filters: int) -> float:
    """Of features' part of an output, over examples and W⁽⁰⁾ of sigma_init = 1, equation (B12)."""
    return absolute_moment(6) * filters * sum(share * beta**6 for share, beta in world.features)


def _alignment_moment(
    world: World, cosine: NDArray[np.float64], orthogonal: bool
) -> NDArray[np.float64]:
    """What filter j' at this cosine takes from (15), per sigma³‖w_j'‖³ (1 − l), equation (B7)."""
    d, patches = world.dim_noise, world.n_examples * (world.n_patches - 1)
    moment = (6 * cosine + 2 * cosine**3) * (d + 5)  # E[|z| z z'³ R]/E|z|
    if not orthogonal:
        moment = moment + (patches - 1) * (9 * cosine + 6 * cosine**3)  # E[z³z'³]
    return absolute_moment(1) * moment / (d + 2)


def _damping_moment(
    world: World, cosine: NDArray[np.float64], orthogonal: bool
) -> NDArray[np.float64]:
    """The same for the damping, per (6/n) l (1 − l) sigma⁶ ‖w_j‖ ‖w_j'‖³, equation (B8)."""
    d, patches = world.dim_noise, world.n_patches - 1
    moment = 2 * (9 + 6 * cosine**2) * (d + 6) * (d + 8)
    if not orthogonal:
        pairs = world.n_examples * patches + patches - 2
        moment = moment + (d + 4) * (pairs * (12 + 6 * cosine**2) + 18 * (patches - 1))
    return cosine * moment / (d + 2)


def _rise_moment(world: World, c2: float, c4: float, logit: float, orthogonal: bool) -> float:
    """The same for the rise, per (9/n) l (1 − l) sigma⁹ ‖w_j‖³ ‖w_j'‖⁴, equation (B9).

    c2, c4: c² and c⁴ of the cosine between the two, or their means.
    """
    d, own = world.dim_noise, world.n_patches - 1
    patches = world.n_examples * own
    # one patch in all places
    same = 8 * (3 + 30 * c2 + 15 * c4) * (d + 9) * (d + 11)
    if orthogonal:
        left = (d + 5) * (d + 7) - 2 * (1 + 5 * c2) * (d + 7) + 3 + 30 * c2 + 15 * c4
        lengths = d * (d + 2) * (d + 4) / ((d - 1) * (d + 1) * (d + 7))
        same += (own - 1) * 24 * left * lengths
        return absolute_moment(1) * (2 - 3 * logit) * same / (d + 2)
    same += (patches - 1) * (45 + 540 * c2 + 360 * c4) * (d + 10)
    # two patches, of which one is the patch that is looked at; or neither is
    crossed = (d + 5) * (8 + 76 * c2 + 60 * c4) + 28 + 344 * c2 + 204 * c4
    crossed += (patches - 2) * (9 + 108 * c2 + 108 * c4)
    apart = (d + 5) * (24 * (d + 4) + 15 * (3 + 6 * c2 - c4)) + (patches - 2) * 45 * (d + 4)
    through_others = same + (patches - 1) * crossed + (own - 1) * (crossed + apart)
    through_own = same + (own - 1) * (2 * crossed + apart)
    moment = (1 - logit) * through_others + (1 - 2 * logit) * through_own
    return absolute_moment(1) * moment / (d + 2)


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_moving_logits(
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
    world = two_kinds(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    _check_orthogonal(filters, world)
    gram = [[w_norm**2 * (i == j) for j in range(filters)] for i in range(filters)]
    quartic = filters * projection**4
    slope = noise_slope(world, gram, quartic, quartic, logit, orthogonal)
    return {
        "rise": float(slope.rise[0]),
        "damping": float(slope.damping[0]),
        "slope": float(slope.total[0]),
    }


def _check_orthogonal(filters: int, world: World) -> None:
    most = min(world.dim_noise, 1000)
    require(filters <= most, "filters", filters, f"at most {most}: orthogonal off the features")


def predict_sam_noise_boundary(
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
    world = two_kinds(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    kind = logit, orthogonal
    slope = expected_noise_slope(world, filters, sigma_init, *kind)
    loss = expected_loss(world, filters, sigma_init, *kind)
    return {
        "sigma_init_boundary": sigma_init_boundary(world, filters, *kind),
        "rise": float(slope.rise),
        "damping": float(slope.damping),
        "sigma_init_boundary_corrected": corrected_sigma_init_boundary(world, filters, *kind),
        "alignment_loss": loss.alignment,
        "validity": margin_size(world, filters, sigma_init, *kind),
    }


def predict_sam_feature_boundary(
    alpha: float = 0.8,
    beta_fast: float = 1.0,
    beta_slow: float = 0.3,
    filters: int = 8,
    logit: float = 0.5,
) -> Prediction:
    """The sigma_init below which SAM learns features more evenly than GD; 0 for k* <= 1: none."""
    check_betas(beta_fast, beta_slow)
    # the number of examples does not matter, if it is so large that alpha is not rounded
    world = World(10**18, alpha=alpha, beta_fast=beta_fast, beta_slow=beta_slow)
    return {"sigma_init_boundary": feature_sigma_boundary(world, filters, logit)}
