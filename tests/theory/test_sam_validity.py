"""The border of Theorem 4.1: limits that can be checked by hand, and the moments behind it."""

from dataclasses import replace
from itertools import product
from math import pi, sqrt

import mpmath
import numpy as np
import pytest
import sympy as sp

from common.errors import ParameterError
from theory import sam_validity
from theory.amplification import k_star
from theory.sam_validity import (
    alignment_loss,
    corrected_sigma_init_boundary,
    damping_loss,
    expected_loss,
    expected_noise_slope,
    feature_sigma_boundary,
    feature_slope,
    logit_change,
    margin_size,
    mean_length,
    noise_slope,
    sigma_init_boundary,
)
from theory.world import World

TINY = World(n_examples=2, dim=5, alpha=0.5, beta_fast=0.6, beta_slow=0.4, sigma_noise=0.7)


def _gaussian(expression: sp.Expr, *variables: sp.Symbol) -> sp.Expr:
    """Expectation of a polynomial in independent standard normals."""
    total = sp.Integer(0)
    for powers, coefficient in sp.Poly(sp.expand(expression), *variables).terms():
        if all(p % 2 == 0 for p in powers):
            total += coefficient * sp.prod([sp.factorial2(p - 1) for p in powers])
    return sp.expand(total)


def _noise_rise(c: float, n: int = 2, patches: int = 2, orthogonal: bool = False, dim: int = 5):
    """What a filter of length 1 at cosine c adds, over 9 l (1 − l) sigma⁶/n: o + r + i of (B2)."""
    world = replace(TINY, n_examples=n, n_patches=patches, dim=dim)
    # in fewer dimensions than orthogonal patches would need, as algebra
    added = sam_validity._noise_rise(world, np.array(c * c), 0.5, orthogonal)
    return float(added) / (9 / 4 * world.sigma_noise**6 / n)


# --- moments -------------------------------------------------------------------------------------

Z, A, B, U, V, T = sp.symbols("z a b u v t")  # coordinates of two patches in three dimensions
ANGLES = [(1, 0), (0, 1), (sp.Rational(3, 5), sp.Rational(4, 5))]


@pytest.mark.parametrize(("c", "s"), ANGLES)
def test_own_patch(c: sp.Rational, s: sp.Rational) -> None:
    r = Z**2 + A**2 + B**2  # d' = 3
    other = c * Z + s * A  # correlation c with z
    assert _gaussian(Z**2 * other**4, Z, A) == 3 + 12 * c**2
    assert _gaussian(Z**2 * other**2 * r, Z, A, B) == (1 + 2 * c**2) * (3 + 4)
    own = _gaussian(Z**2 * other**4 * r**2, Z, A, B) / _gaussian(Z**2 * r, Z, A, B)
    assert own == (3 + 12 * c**2) * sp.Rational((3 + 6) * (3 + 8), 3 + 2)
    assert _noise_rise(float(c), orthogonal=True) == pytest.approx(float(own))


@pytest.mark.parametrize(("c", "s"), ANGLES)
def test_pair_of_patches(c: sp.Rational, s: sp.Rational) -> None:
    # ⟨w_j,x⟩² ⟨w_j',x⟩² ⟨w_j',u⟩² ⟨x,u⟩² over two independent patches
    inner = Z * U + A * V + B * T
    pair = _gaussian(
        Z**2 * (c * Z + s * A) ** 2 * (c * U + s * V) ** 2 * inner**2, Z, A, B, U, V, T
    )
    assert pair == (1 + 2 * c**2) * 7 + 2 * (3 + 12 * c**2)
    shared = float(pair) / 5  # over E[z²R] = d' + 2
    for n, patches in ((2, 2), (7, 2), (2, 3), (4, 5)):
        more = _noise_rise(float(c), n, patches)
        meets = (n - 1) * (patches - 1) + 2 * (patches - 2)
        own = _noise_rise(float(c), n, 2, orthogonal=True)
        assert more == pytest.approx(own + 3 * 7 * (patches - 2) + meets * shared)


@pytest.mark.parametrize(("c", "s"), ANGLES)
def test_second_patch_of_an_orthogonal_pair(c: sp.Rational, s: sp.Rational) -> None:
    # d' = 2: a random orthonormal pair is a random angle
    angle = sp.Symbol("angle")
    first, second = (sp.cos(angle), sp.sin(angle)), (-sp.sin(angle), sp.cos(angle))
    directions = first[0] ** 2 * (c * second[0] + s * second[1]) ** 4
    mean = sp.integrate(sp.expand(directions), (angle, 0, 2 * sp.pi)) / (2 * sp.pi)
    # E‖ξ‖⁴ E‖ξ'‖⁶ = 8 · 48, over E[z²R] = 4
    expected = sp.simplify(8 * 48 * mean / 4)
    two, one = (_noise_rise(float(c), patches=p, orthogonal=True, dim=4) for p in (3, 2))
    assert two - one == pytest.approx(float(expected))


def test_orthogonal_patches_of_an_example_are_as_independent_ones_on_average_over_filters() -> None:
    world = replace(TINY, n_patches=4, dim=12)
    d = world.dim_noise
    cosine = 1 / sqrt(d)  # E c² = 1/d'
    rises = [_noise_rise(cosine, patches=p, orthogonal=True, dim=world.dim) for p in (4, 2)]
    assert rises[0] - rises[1] == pytest.approx(2 * 3 * (d + 4))


# --- slopes --------------------------------------------------------------------------------------


def test_logits_of_two_examples_by_hand() -> None:
    change = logit_change([0.5, 0.2], [[4.0, -1.0], [-1.0, 3.0]])
    assert change == pytest.approx([0.25 * (2.0 - 0.2) / 2, 0.16 * (-0.5 + 0.6) / 2])


def test_logits_rise_on_average_with_the_weights_of_the_loss_and_not_with_others() -> None:
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 5, 3))
    for g, l in zip(gradients, rng.uniform(size=(20, 5)), strict=True):
        assert np.sum(logit_change(l, g @ g.T) / (1 - l)) > 0
    # the second example pulls the first one down by more than it rises itself, weighed by l
    l, g = np.array([0.551, 0.102]), np.array([[1.0], [-8.0]])
    change = logit_change(l, g @ g.T)
    assert change == pytest.approx([-0.0328, 0.0971], rel=0.01)
    assert np.sum(l * change) < 0 < np.sum(change / (1 - l))


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("patches", [2, 3])
def test_one_filter_in_expectation_is_a_filter_with_the_expected_powers(
    orthogonal: bool, patches: int
) -> None:
    world, sigma, d = replace(TINY, n_patches=patches, dim=8), 0.3, 6
    expected = expected_noise_slope(world, 1, sigma, 0.4, orthogonal)
    fourth = sigma * (d * (d + 2)) ** 0.25  # the length whose fourth power is E‖w‖⁴
    given = noise_slope(world, [[fourth**2]], 3 * sigma**4, 3 * sigma**4, 0.4, orthogonal)
    assert given.rise[0] == pytest.approx(float(expected.rise))
    length = sigma * mean_length(d)
    given = noise_slope(world, [[length**2]], 0, 0, 0.4, orthogonal)
    assert given.damping[0] == pytest.approx(float(expected.damping))


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_slope_changes_sign_at_the_border(orthogonal: bool) -> None:
    world = replace(TINY, n_patches=3, dim=8)
    border = sigma_init_boundary(world, 5, 0.3, orthogonal)
    for factor, sign in ((0.99, -1), (1.01, 1)):
        slope = expected_noise_slope(world, 5, factor * border, 0.3, orthogonal)
        assert np.sign(slope.total) == sign


def test_two_noise_dimensions_and_one_patch() -> None:
    assert _noise_rise(1.0, orthogonal=True, dim=4) == pytest.approx(15 * 8 * 10 / 4)


def test_what_cannot_be_is_refused() -> None:
    wanted = (
        (replace(TINY, dim=3), 0.5, "^dim = 3: must be at least 4, for 2 orthogonal noise patches"),
        (replace(TINY, sigma_noise=0.0), 0.5, "^sigma_noise = 0"),
        (TINY, 1.0, "^logit = 1"),
    )
    for world, logit, said in wanted:
        with pytest.raises(ParameterError, match=said):
            noise_slope(world, [[1.0]], 0.0, 0.0, logit, orthogonal=True)
        with pytest.raises(ParameterError, match=said):
            sigma_init_boundary(world, 4, logit, orthogonal=True)
    with pytest.raises(ParameterError, match=r"^logit = 1"):
        feature_sigma_boundary(TINY, 4, 1.0)
    with pytest.raises(ParameterError, match=r"^logit = 0"):
        feature_slope(TINY, [0.3], [0.2], 0.0)


def test_mean_lengths() -> None:
    assert mean_length(1) == pytest.approx(sqrt(2 / pi))
    assert mean_length(2) == pytest.approx(sqrt(pi / 2))
    assert mean_length(3) == pytest.approx(2 * sqrt(2 / pi))
    for d in (300, 301, 10**6, 10**12):  # in 40 digits: the logarithms of 1e12 share the first 25
        with mpmath.workdps(40):
            half = mpmath.mpf(d) / 2
            exact = mpmath.sqrt(2) * mpmath.exp(mpmath.loggamma(half + 0.5) - mpmath.loggamma(half))
        assert mean_length(d) == pytest.approx(float(exact), rel=1e-11)


# --- borders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "filters"), [(50, 8), (400, 40)])
def test_border_for_many_dimensions_and_little_noise(n: int, filters: int) -> None:
    world = World(n_examples=n, dim=50_002, sigma_noise=1e-4)
    s6 = sum(share**2 * beta**6 for share, beta in world.features)
    leading = 1e-4 * sqrt(50_000) * (0.709 / (n * filters * s6)) ** (1 / 3)
    assert sigma_init_boundary(world, filters, orthogonal=True) == pytest.approx(leading, rel=1e-3)
    independent = leading * (1 + 1.5 * n / 50_000) ** (1 / 3)
    assert sigma_init_boundary(world, filters) == pytest.approx(independent, rel=1e-3)


def test_border_for_much_noise_falls_with_its_cube() -> None:
    # damping ~ sigma³, noise's rise ~ sigma⁶
    loud = World(dim=2000, sigma_noise=10.0)
    ratio = sigma_init_boundary(loud, 8) / sigma_init_boundary(replace(loud, sigma_noise=20.0), 8)
    assert ratio == pytest.approx(2, rel=1e-3)


def test_features_of_one_filter_by_hand() -> None:
    world = World(alpha=0.6, beta_fast=1.0, beta_slow=0.5)
    evening, rise = feature_slope(world, [0.3], [0.2], 0.25)
    assert evening == pytest.approx(6 * 0.25 * (0.6 * 0.3 - 0.4 * 0.125 * 0.2))
    assert rise == pytest.approx(9 * 0.75 * 0.25 * (0.6 * 0.3**4 - 0.4 * 0.5**6 * 0.2**4))


def test_negative_filters_raise_logits_but_do_not_grow() -> None:
    world = World(alpha=0.6, beta_fast=1.0, beta_slow=0.5)
    one, two = (feature_slope(world, f, [0.2]) for f in ([0.3], [0.3, -0.3]))
    assert two[0] == one[0]
    assert two[1] > one[1]


@pytest.mark.parametrize(("alpha", "beta_slow"), list(product((0.2, 0.5, 0.8), (0.3, 0.6, 0.9))))
def test_feature_border_exists_where_k_star_exceeds_1(alpha: float, beta_slow: float) -> None:
    world = World(alpha=alpha, beta_slow=beta_slow)
    border = feature_sigma_boundary(world, 8)
    assert (border > 0) == (k_star(alpha, 1.0, beta_slow) > 1)


def test_feature_border_of_many_filters() -> None:
    # one feature by far the stronger: 6 β³ E|z|³ σ = 9 (1 − l) β⁶ 3J σ⁴
    world = World(alpha=0.8, beta_fast=2.0, beta_slow=0.01)
    expected = (6 * 2 * sqrt(2 / pi) / (9 * 0.5 * 2**3 * 3 * 10**6)) ** (1 / 3)
    assert feature_sigma_boundary(world, 10**6) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("alpha", "beta_slow", "above"), [(0.4, 0.9, False), (0.3, 0.9, True)])
def test_below_k_star_1_sam_evens_out_above_a_border_or_nowhere(
    alpha: float, beta_slow: float, above: bool
) -> None:
    world = World(n_examples=10, alpha=alpha, beta_slow=beta_slow)
    assert k_star(alpha, 1.0, beta_slow) < 1
    assert feature_sigma_boundary(world, 8) == 0
    evens_out = []
    for sigma in (0.01, 0.1, 1.0, 10.0):
        # expected growths over W⁽⁰⁾, as (B6) has them, by filters that have the expected sums
        (p_fast, b_fast), (p_slow, b_slow) = world.features
        evening = 3 * (p_fast * b_fast**3 - p_slow * b_slow**3) * 2 * sqrt(2 / pi) * sigma
        rise = 9 / 4 * (p_fast * b_fast**6 - p_slow * b_slow**6) * (15 + 21) * sigma**4
        evens_out.append(evening > rise)
    assert not evens_out[0]
    assert evens_out[-1] == above


# --- logits that differ at W ---------------------------------------------------------------------


def test_what_gd_loses_by_hand() -> None:
    # 4 (d' + 5)/(d' + 2) + 7.5 (n_xi − 1)/(d' + 2), times sigma³ ‖w‖³ √(2/π): P = 3, so n_xi = 8
    world = replace(TINY, n_examples=4, n_patches=3, dim=8)
    loss = alignment_loss(world, [[0.25]], 0.0, 0.0)[0]
    by_hand = 0.7**3 * 0.5**3 * sqrt(2 / pi) * (4 * 11 + 7.5 * 7) / 8
    assert loss == pytest.approx(by_hand)
    other = alignment_loss(world, [[0.25]], 0.1, 0.2)[0]
    mean = sum(p * b**3 * u for (p, b), u in zip(world.features, (0.1, 0.2), strict=True))
    assert other - loss == pytest.approx(mean / 2)


def test_given_filters_are_expected_ones_on_average() -> None:
    world, sigma, d = replace(TINY, n_patches=3, dim=8), 0.3, 6
    for orthogonal in (False, True):
        expected = expected_loss(world, 4, sigma, 0.4, orthogonal)
        cube = sigma**3 * (d + 1) * mean_length(d)
        gram = [[cube ** (2 / 3)]]
        found = alignment_loss(world, gram, 0, 0, 0.4, orthogonal)[0]
        assert found == pytest.approx(expected.alignment)
        gram = [[sigma**2 * sqrt(d * (d + 2))]]
        found = damping_loss(world, gram, 0, 0, 0.4, orthogonal)[0]
        assert found == pytest.approx(expected.damping)


def test_little_noise_means_a_small_correction() -> None:
    # of order sigma_noise⁶, whatever its sign
    shifts = []
    for sigma in (1e-3, 2e-3):
        world = World(n_examples=50, dim=100, sigma_noise=sigma)
        border = sigma_init_boundary(world, 8)
        shifts.append(corrected_sigma_init_boundary(world, 8) / border - 1)
    assert shifts[1] / shifts[0] == pytest.approx(64, rel=1e-2)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_a_corrected_border_is_there_however_large_the_correction(orthogonal: bool) -> None:
    for n, dim, sigma, logit, filters in product(
        (2, 10**6), (10**7, 10**12), (1e-6, 1.0, 1e6), (1e-6, 0.5, 0.999), (1, 10**6)
    ):
        world = World(n_examples=n, dim=dim, n_patches=3, sigma_noise=sigma, alpha=0.5)
        border = corrected_sigma_init_boundary(world, filters, logit, orthogonal)
        assert 0 < border < float("inf")
        assert 0 < margin_size(world, filters, border, logit, orthogonal) < float("inf")


@pytest.mark.parametrize(("c", "s"), ANGLES)
def test_two_patches_that_are_not_looked_at(c: sp.Rational, s: sp.Rational) -> None:
    # z³ z'² times the patch, whose mean lies in the plane of both filters: squared length
    other = c * Z + s * A
    squared = sum(_gaussian(Z**3 * other**2 * x, Z, A) ** 2 for x in (Z, A))
    assert squared == 9 + 108 * c**2 + 108 * c**4
    powers, d, l = (float(c) ** 2, float(c) ** 4), TINY.dim - 2, 0.3

    def moment(n: int, patches: int) -> float:
        world = replace(TINY, n_examples=n, n_patches=patches)
        return sam_validity._rise_moment(world, *powers, l, False) * (d + 2) / sqrt(2 / pi)

    # every ordered pair of two such patches, of which n examples have (n − 1)(n − 2)
    second = moment(4, 2) - 2 * moment(3, 2) + moment(2, 2)
    assert second == pytest.approx(2 * (1 - l) * float(squared))
    # of P = 3 there are 2n of them, and 2(n − 1) pairs in one example, either order, besides
    third = moment(4, 3) - 2 * moment(3, 3) + moment(2, 3)
    assert third == pytest.approx(8 * (1 - l) * float(squared))


@pytest.mark.parametrize(("c", "s"), ANGLES)
def test_third_power_of_a_patch_beside_fourth_powers_of_the_looked_at(
    c: sp.Rational, s: sp.Rational
) -> None:
    # |z| z'⁴ over |z|: z² stands for |z| in what follows, moments of which are 1, 2, 8 √(2/π)
    terms = sp.Poly(sp.expand((c * Z + s * A) ** 4), Z, A).terms()
    of_z = {0: 1, 2: 2, 4: 8}
    mean = sum(k * of_z[p] * sp.factorial2(q - 1) for (p, q), k in terms if p % 2 == q % 2 == 0)
    assert mean == 3 + 6 * c**2 - c**4
