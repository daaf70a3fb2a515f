"""Theorem 4.1 with real logits: where SAM's two claims truly hold, to first order in rho.

SAM's ascent lengthens every filter by h = rho/‖∇L(W)‖_F times the gradient. To first order in h it
damps, as with frozen logits, and it raises every logit term, which works the other way. Damping
grows with σ_0, the rise with σ_0⁴: each claim holds below one σ_0 and fails above it. Equation
numbers refer to theory/boundary.md. l is the logit term at W (1/2 early in training).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.moments import absolute_moment, patch_moment, squared_norm_moments
from theory.parameters import require
from theory.sharpness import independent_damping_slope
from theory.world import World


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
    """dl_i/dh under SAM's ascent = l_i (1 − l_i) (1/n) Σ_m l_m K_im ≥ 0 on average, equation (B1).

    logit (n,); tangent_kernel (n, n): K_im = ⟨∇(y_i f(x_i)), ∇(y_m f(x_m))⟩. Exact for any network
    and any data.
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
    _check(world, logit, orthogonal)
    gram = np.asarray(gram, dtype=float)
    norms = np.sqrt(np.diag(gram))
    cosine2 = gram**2 / np.outer(norms**2, norms**2)
    rise = _feature_rise(world, fast_quartic, slow_quartic, logit)
    rise = rise + _noise_rise(world, cosine2, logit, orthogonal) @ norms**4
    return Slope(rise, _noise_damping(world, logit, orthogonal) * norms)


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
    _check(world, logit, orthogonal)
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

    For expected growths over W⁽⁰⁾, at given h. Does not depend on N, d or the noise. 0 where SAM
    does not even the features out at any sigma_init (k* ≤ 1). For k* > 1 the rise always favours
    the fast one: p_e β_e³ > p_d β_d³ and β_e > β_d give p_e β_e⁶ > p_d β_d⁶.
    """
    require(0 < logit < 1, "logit", logit, "inside (0, 1)")
    (p_fast, b_fast), (p_slow, b_slow) = world.features
    evening = 6 * logit * (p_fast * b_fast**3 - p_slow * b_slow**3) * _cube_over_square()
    rise = _feature_share(p_fast, b_fast, logit) - _feature_share(p_slow, b_slow, logit)
    # Σ_j u_j⁴ seen from a filter, weighted by its u²: 15 from itself, 3 from each other one
    rise *= 15 + 3 * (filters - 1)
    return (evening / rise) ** (1 / 3) if evening > 0 else 0.0


def mean_length(dim: int) -> float:
    """E‖w‖ = √2 Γ((m+1)/2)/Γ(m/2) of a standard normal in m = `dim` dimensions, equation (B3)."""
    from scipy.special import poch  # Γ(a + b)/Γ(a), to all digits in any dimension

    return sqrt(2) * float(poch(dim / 2, 1 / 2))


def _check(world: World, logit: float, orthogonal: bool) -> None:
    """Raise ParameterError where NoiseAlign or its slope is not defined, for (B2) to (B4)."""
    require(world.sigma_noise > 0, "sigma_noise", world.sigma_noise, "positive")
    require(0 < logit < 1, "logit", logit, "inside (0, 1)")
    patches = world.n_examples * (world.n_patches - 1)
    allowed = f"at least {patches + 2}, for {patches} orthogonal noise patches off two features"
    require(not orthogonal or patches <= world.dim_noise, "dim", world.dim, allowed)


def _cube_over_square() -> float:
    """E|z|³/E z², equation (M1)."""
    return absolute_moment(3) / absolute_moment(2)


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
    elif rest > 0:
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
