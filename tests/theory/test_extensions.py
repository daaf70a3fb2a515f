"""Activations, wrong labels, unequal classes, noise along the features: limits and hand numbers."""

import itertools
from fractions import Fraction
from math import pi, sqrt

import numpy as np
import pytest

from common.errors import ParameterError
from theory import amplification, extensions, gradient_variance, moments, sam
from theory.claims import CLAIMS

COUNTS = (3, 2)  # fast and slow examples


def test_the_cube_is_the_paper() -> None:
    assert sam.feature_kappa(0.1, 0.7, 0.2, 1.3) == pytest.approx(3 * 0.1 * 0.7**3 * 0.2 / 1.3)
    u = np.array([-0.4, 0.0, 0.3])
    assert sam.feature_factor(0.5, u) == pytest.approx((1 - 0.5 * u) ** 2)
    assert amplification.k_star(0.8, 1.2, 0.5) == pytest.approx(4 * 2.4**3)
    assert amplification.sigma_tolerance(4) == pytest.approx(5**0.25)
    filters = gradient_variance.Filters(1.7, 0.0, 0.0)
    assert gradient_variance.single_sample_noise(0.3, 0.4, filters, 10) == pytest.approx(
        27 * 0.4**2 * 0.3**6 * 12 * 1.7
    )
    memorisation = 0.1**3 * 315**1.5 / (20 * 0.45**3)
    assert amplification.memorisation_ratio(0.1, 315, 0.8, 100, 0.45) == pytest.approx(memorisation)
    assert extensions.power_noise_mean(0.3, 0.4, 1.7, 3, False) == 0


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_labels_that_do_not_matter_leave_equation_22(k: int, replacement: bool) -> None:
    filters = gradient_variance.Filters(0.0, 0.3, 0.8)
    squares = (9 * 0.25 * 0.3, 9 * 0.25 * 0.6**6 * 0.8)
    size = 4
    found = extensions.feature_part_variance(
        *COUNTS, k, size, squares, extensions.label_parts(3, False), replacement
    )
    whole = gradient_variance.gradient_variance(
        5, 9, filters, 0.6, 1.0, 0.6, 0.0, 0.0, k, size, replacement=replacement
    )
    assert found == pytest.approx(whole["upsampled"])


def test_factors_by_hand() -> None:
    assert float(sam.feature_factor(0.1, 2.0, 5)) == pytest.approx(0.2**4)
    # ReLU²: the perturbation is proportional to the projection, outwards where it is negative
    assert float(sam.feature_factor(0.1, 3.0, 2)) == pytest.approx(0.9)
    assert float(sam.feature_factor(0.1, -3.0, 2)) == pytest.approx(1.1)
    assert float(sam.feature_factor(0.1, -2.0, 4)) == pytest.approx(1.4**3)
    assert sam.feature_factor(0.1, [1.0, -1.0], 5) == pytest.approx([0.9**4, 1.1**4])


def test_k_star_grows_with_the_power_and_the_tolerance_falls() -> None:
    assert amplification.k_star(0.8, 1.0, 0.5, 2) == pytest.approx(16)
    assert amplification.k_star(0.8, 1.0, 0.5, 5) == pytest.approx(128)
    assert amplification.sigma_tolerance(7, 2) == pytest.approx(2)
    tolerances = [amplification.sigma_tolerance(5, q) for q in range(2, 7)]
    assert tolerances == sorted(tolerances, reverse=True)
    assert tolerances[-1] > 1


def test_memorisation_of_powers() -> None:
    cube = amplification.memorisation_ratio(0.1, 315, 0.8, 100, 0.45)
    relu = amplification.memorisation_ratio(0.1, 315, 0.8, 100, 0.45, 3, True)
    assert relu == pytest.approx(2 * cube)
    wrong = amplification.memorisation_ratio(0.1, 315, 0.8, 100, 0.45, 3, False, 0.25)
    assert wrong == pytest.approx(2 * cube)
    # σ√d = 2, β = 1, ten slow examples: 2^q/10, and noise longer than β favours large powers
    by_power = [amplification.memorisation_ratio(0.2, 100, 0.5, 20, 1.0, q, False) for q in (3, 5)]
    assert by_power == pytest.approx([0.8, 3.2])


def test_noise_moments_by_hand() -> None:
    # d' = 1, q = 2: E[(2 l w ξ²)²] = 4 l² w² 3 σ⁴, and the mean 2 l w σ²
    assert gradient_variance.patch_noise(0.5, 0.4, 1.0, 1, 2, False) == pytest.approx(
        4 * 0.16 * 3 / 16
    )
    assert gradient_variance.patch_noise(0.5, 0.4, 1.0, 1, 2, True) == pytest.approx(
        2 * 0.16 * 3 / 16
    )
    assert extensions.power_noise_mean(0.5, 0.4, 1.0, 2, False) == pytest.approx(4 * 0.16 / 16)
    assert extensions.power_noise_mean(0.5, 0.4, 1.0, 2, True) == pytest.approx(0.16 / 16)
    # ReLU³: the mean is 3 l w² σ³ E[z³; z > 0], and E|z|³ = 2 √(2/π)
    assert extensions.power_noise_mean(1.0, 1.0, 1.0, 3, True) == pytest.approx(9 * 2 / pi)


@pytest.mark.parametrize(("power", "rectified"), [(2, False), (4, False), (3, True), (2, True)])
def test_a_mean_is_smaller_than_what_it_is_the_mean_of(power: int, rectified: bool) -> None:
    for dim in (1, 3, 30):
        noise = gradient_variance.patch_noise(0.7, 0.5, 2.0, dim, power, rectified)
        assert extensions.power_noise_mean(0.7, 0.5, 2.0, power, rectified) < noise


def test_shared_labels_cost_less_than_copies() -> None:
    """At full correlation (E7) is the extra term of U(k)."""
    k, size = 3, 6
    n = 3 + k * 2
    for replacement in (False, True):
        extra = extensions.shared_label_variance(*COUNTS, k, size, 1.0, 1.0, replacement)
        pairs = 2 * k * (k - 1) / (n * n if replacement else n * (n - 1))
        assert extra == pytest.approx((size - 1) / size * pairs)
    assert extensions.shared_label_variance(*COUNTS, 1, size, 1.0, 1.0) == 0
    assert extensions.shared_label_variance(*COUNTS, 4, 1, 1.0, 1.0) == 0


def test_label_parts() -> None:
    assert extensions.label_parts(5, False) == (1, 0)
    assert extensions.label_parts(4, False) == (0, 1)
    assert extensions.label_parts(4, True) == extensions.label_parts(3, True) == (0.25, 0.25)
    assert extensions.label_parts(3, False, 0.25) == (0.25, 0.75)
    assert extensions.label_parts(3, False, 0.5) == (0, 1)


def _counted(
    counts: tuple[int, int], k: int, size: int, replacement: bool, wrong: Fraction, exact: bool
) -> float:
    """E‖ĝ − Eĝ‖² of features alone, by going through all wrong labels and all ordered batches."""
    sources = sum(counts)
    is_fast = [i < counts[0] for i in range(sources)]
    examples = [i for i in range(sources) for _ in range(1 if is_fast[i] else k)]
    draws = itertools.product if replacement else itertools.permutations
    batches = list(draws(examples, **({"repeat": size} if replacement else {"r": size})))
    total, second, first = Fraction(0), Fraction(0), [Fraction(0), Fraction(0)]
    for signs in itertools.product((1, -1), repeat=sources):
        if exact and any(
            sum(s < 0 and f == fast for s, f in zip(signs, is_fast, strict=True)) != wrong * count
            for fast, count in zip((True, False), counts, strict=True)
        ):
            continue
        chance = Fraction(1)
        for s in signs:
            chance *= wrong if s < 0 else 1 - wrong
        total += chance
        for batch in batches:
            weight = chance / len(batches)
            for v, fast in enumerate((True, False)):
                mean = Fraction(sum(signs[i] for i in batch if is_fast[i] == fast), size)
                second += weight * SQUARES[v] * mean**2
                first[v] += weight * mean
    squared_mean = sum(a * (f / total) ** 2 for a, f in zip(SQUARES, first, strict=True))
    return float(second / total - squared_mean)


SQUARES = (2, 5)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize(("k", "size"), [(1, 2), (2, 2), (2, 3)])
def test_variance_of_features_with_wrong_labels_by_counting(
    k: int, size: int, replacement: bool
) -> None:
    found = extensions.feature_part_variance(
        *COUNTS, k, size, SQUARES, extensions.label_parts(3, False, 0.2), replacement
    )
    expected = _counted(COUNTS, k, size, replacement, Fraction(1, 5), exact=False)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize(("k", "size"), [(1, 2), (2, 2), (3, 2)])
def test_variance_with_an_exact_share_of_wrong_labels_by_counting(
    k: int, size: int, replacement: bool
) -> None:
    parts = extensions.label_parts(3, False, 1 / 3)
    found = extensions.feature_part_variance(
        3, 3, k, size, SQUARES, parts, replacement, exact_counts=True
    )
    expected = _counted((3, 3), k, size, replacement, Fraction(1, 3), exact=True)
    assert found == pytest.approx(expected)


def test_wrong_labels_by_hand() -> None:
    assert extensions.label_noise_growth(0.1) == pytest.approx(0.8)
    assert extensions.label_noise_growth(0.5) == 0
    at = (0.8, 1.0, 0.5)
    assert extensions.label_noise_k_star(*at, 0.2, 0.2) == pytest.approx(32)
    assert extensions.label_noise_k_star(*at, 0.0, 0.25) == pytest.approx(64)


def test_unequal_classes_by_hand() -> None:
    for share in (0.0, 0.3, 1.0):
        assert extensions.class_share_growth(share, 0.5, False, 3) == 1
        for u, sign in ((0.5, 1), (-0.5, -1)):  # z^q with even q: y σ'(b y u) b y v turns with u
            found = extensions.class_share_growth(share, u, False, 2)
            assert found == pytest.approx(sign * (2 * share - 1))
        pair = [extensions.class_share_growth(share, u, True, 2) for u in (0.5, -0.5)]
        assert pair == pytest.approx([share, 1 - share])


@pytest.mark.parametrize("power", [2, 4, 18])
def test_what_even_powers_do_not_have_is_not_printed(power: int) -> None:
    predict = CLAIMS["activation"].predict
    assert set(predict(power=power)) == {"mean_part", "label_part"}
    everything = {"mean_part", "label_part", "k_star", "sigma_ratio"}
    assert set(predict(power=power, rectified=True)) == everything
    assert set(predict(power=power + 1)) == everything
    with pytest.raises(ParameterError, match=rf"^power = {power}: must be odd, unless rectified"):
        amplification.memorisation_ratio(0.1, 100, 0.8, 20, 0.5, power, False)


def test_growth_at_an_orthogonal_filter_is_refused() -> None:
    for power, rectified in ((2, False), (3, False), (3, True)):
        with pytest.raises(ParameterError, match=r"^projection = 0"):
            extensions.class_share_growth(0.7, 0.0, rectified, power)


def test_deviation_by_hand() -> None:
    # N' = 10, weight 10, sigma = 1, w = v: 1.5/10 √(10 (3 + 12))
    found = extensions.feature_gradient_deviation(0.5, 1.0, 1.0, 1.0, 10, 10)
    assert found == pytest.approx(0.15 * sqrt(150))


def test_lean_by_hand() -> None:
    assert extensions.feature_lean(0.5, 2.0, 3.0, 0.4) == pytest.approx(sqrt(2 / pi) * 0.3)
    both = extensions.feature_lean(0.5, 2.0, [3.0, 1.0], [0.4, -1.2])
    assert both == pytest.approx(0)


def test_without_noise_sam_is_equation_5() -> None:
    kappa = sam.feature_kappa(1.0, 0.7, 0.5 * 0.3, 1.0)  # h = 1, l = 1/2
    slope = 0.5 * extensions.isotropic_sam_slope(0.7, 0.3, 0.4, 0.0, 1.0, 10, 20, 20)
    assert slope == pytest.approx(2 * kappa * 0.4)
    # (d + 4) = 7 for d = 3: 18 sigma⁶ 7 ‖w‖² M/(N'² beta³ p u)
    noise = extensions.isotropic_sam_slope(1.0, 0.5, 0.4, 1.0, 2.0, 3, 10, 20) - 6 * 0.2
    assert noise == pytest.approx(18 * 7 * 4 * 20 / (100 * 0.2))


def test_noise_of_copies_blurs_features_more_than_fresh_noise() -> None:
    for k in (2, 5):
        size = 4 + k
        up, made = (
            extensions.feature_gradient_deviation(0.5, 0.3, 1.0, 0.1, size, weight)
            for weight in (4 + k**2, 4 + k)
        )
        assert up > made
    assert moments.cross_term_variance(0.3, 1.0, 1.0, 0.0) == pytest.approx(3 * 0.3**6)
