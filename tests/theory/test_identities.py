"""Algebraic identities behind the closed forms, checked with sympy.

Those of sam_validity.md, family.md and convergence.md are in these pages' own tests.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import sympy as sp

from theory import amplification, extensions, gradient_variance, moments, sam

LABELS = (1, -1)
alpha, k, N, l = sp.symbols("alpha k N l", positive=True)


def _gaussian(
    expression: sp.Expr, normals: Sequence[sp.Symbol], half_normals: Sequence[sp.Symbol] = ()
) -> sp.Expr:
    """Expectation of a polynomial in independent standard normals, and absolute values of such."""
    polynomial = sp.Poly(sp.expand(expression), *normals, *half_normals)
    total = sp.Integer(0)
    for powers, coefficient in polynomial.terms():
        if all(p % 2 == 0 for p in powers[: len(normals)]):
            total += coefficient * sp.prod([_absolute(p) for p in powers])
    return sp.expand(total)


def _absolute(p: int) -> sp.Expr:
    """(M1)."""
    return sp.simplify(2 ** sp.Rational(p, 2) * sp.gamma(sp.Rational(p + 1, 2)) / sp.sqrt(sp.pi))


def _over_labels(expressions: Iterable[sp.Expr]) -> sp.Expr:
    """The mean."""
    found = list(expressions)
    return sp.expand(sum(found) / len(found))


def _same(ours: float, exact: sp.Expr) -> None:
    assert ours == pytest.approx(float(exact), rel=1e-12)


# --- moments.md ----------------------------------------------------------------------------------


def test_absolute_moments_m1() -> None:
    z = sp.symbols("z")
    density = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    for p in range(9):
        exact = 2 * sp.integrate(z**p * density, (z, 0, sp.oo))
        assert sp.simplify(exact - _absolute(p)) == 0
        _same(moments.absolute_moment(p), exact)


def test_patch_moments_m2_in_any_dimension() -> None:
    d, z, r = sp.symbols("d z r", positive=True)

    def chi_square(q: int) -> sp.Expr:  # E r^q of the d' − 1 coordinates across w
        return sp.prod([d - 1 + 2 * i for i in range(q)])

    for p, q in itertools.product((1, 2, 3, 4, 6), (1, 2, 3)):
        polynomial = sp.Poly(sp.expand(z**p * (z**2 + r) ** q), z, r)
        exact = sum(c * _absolute(a) * chi_square(b) for (a, b), c in polynomial.terms())
        ours = _absolute(p) * sp.prod([d + p + 2 * i for i in range(q)])
        assert sp.simplify(sp.expand(exact) - sp.expand(ours)) == 0
        _same(moments.patch_moment(p, q, 7), ours.subs(d, 7))


def test_patch_moments_by_isserlis() -> None:
    z, a, b = sp.symbols("z a b")
    r = z**2 + a**2 + b**2  # d' = 3
    for p, q in ((2, 1), (4, 1), (2, 2), (4, 3)):
        assert _gaussian(z**p * r**q, (z, a, b)) == round(moments.patch_moment(p, q, 3))
    _same(moments.noise_strength(0.5, 2.0, 3), sp.Rational(1, 16) * 4 * 5)  # (M3)
    _same(moments.noise_second_moment(0.5, 3), sp.Rational(3, 64) * 7)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_shared_noise_covariance_m4_by_isserlis(dim: int) -> None:
    tau = sp.symbols("tau")
    xi, fresh = (sp.symbols(f"{name}:{dim}") for name in "xf")
    # w along the first coordinate
    made = [tau * x + sp.sqrt(1 - tau**2) * f for x, f in zip(xi, fresh, strict=True)]
    inner = sum(x * g for x, g in zip(xi, made, strict=True))
    value = _gaussian(xi[0] ** 2 * made[0] ** 2 * inner, (*xi, *fresh))
    ours = tau * (8 + 4 * tau**2 + dim * (1 + 2 * tau**2))
    assert sp.expand(value - ours) == 0
    for t in (0, sp.Rational(3, 10), 1):
        exact = sp.Rational(1, 8) * 2**6 * ours.subs(tau, t)
        _same(moments.shared_noise_covariance(2, float(t), 0.5, dim), exact)


def test_cross_term_variance_m5_by_isserlis() -> None:
    x, y, p, q, s = sp.symbols("x y p q s")
    value = _gaussian((s * x) ** 4 * (p * x + q * y) ** 2, (x, y))  # w = s e1, u = (p, q)
    ours = 3 * s**4 * (p**2 + q**2) + 12 * s**2 * (s * p) ** 2
    assert sp.expand(value - ours) == 0
    assert _gaussian((s * x) ** 2 * (p * x + q * y), (x, y)) == 0
    ours = moments.cross_term_variance(1, 2.0, 5**0.5, 2.0)
    assert abs(ours - (3 * 16 * 5 + 12 * 4 * 4)) < 1e-9


def test_squared_norms_m6_by_isserlis() -> None:
    for m in (1, 2, 4):
        w = sp.symbols(f"w:{m}")
        fourth = _gaussian(sum(x**2 for x in w) ** 2, w)
        assert fourth == m * (m + 2)
        _same(moments.squared_norm_moments(m, 0.5)[0], fourth / 16)
    direction = (w[0] + w[1]) / sp.sqrt(2)
    _same(moments.squared_norm_moments(4, 0.5)[1], _gaussian(direction**4, w) / 16)
    filters = gradient_variance.expected_filters(7, 6, 0.5)  # (27)
    _same(filters.noise_quartic, sp.Rational(7, 16) * 4 * 6)
    _same(filters.fast_quartic, sp.Rational(7, 16) * 3)


# --- README.md (3) and sam.md --------------------------------------------------------------


@pytest.mark.parametrize("q", [2, 3, 4, 5])
def test_gradient_3_of_one_example(q: int) -> None:
    b, u, s, norm2 = sp.symbols("b u s norm2", positive=True)
    for y in LABELS:
        margin = y * ((b * y * u) ** q + s**q)  # z^q
        # along the unit feature and along ξ: derivatives by u = ⟨w,v⟩ and s = ⟨w,ξ⟩ times 1, ‖ξ‖²
        along_v, along_xi = (sp.diff(-l * margin, x) for x in (u, s))
        assert sp.expand(along_v + q * l * b**q * y ** (q + 1) * u ** (q - 1)) == 0
        assert sp.expand((along_xi + q * l * y * s ** (q - 1)) * norm2) == 0
        # ReLU^q sees the label sgn(u) only, where it pushes upwards
        rectified = y * sp.Max(b * y * u, 0) ** q
        grown = q * l * b**q * u ** (q - 1) if y > 0 else 0
        assert sp.simplify(sp.diff(l * rectified, u) - grown) == 0


def test_sam_factors_5_and_7() -> None:
    kappa, u = sp.symbols("kappa u")
    assert sp.simplify((u - kappa * u**2) ** 2 / u**2 - (1 - kappa * u) ** 2) == 0
    assert float(sam.feature_factor(0.5, 1.0)) == 0.25
    # noise: ⟨∇L, ξ⟩ = −(3/n) l y s² ‖ξ‖², so s becomes s − λ y s² ‖ξ‖²
    lam, s, norm2 = sp.symbols("lam s norm2")
    for y in LABELS:
        factor = (s - lam * y * s**2 * norm2) ** 2 / s**2
        assert sp.simplify(factor - (1 - lam * (y * s) * norm2) ** 2) == 0


@pytest.mark.parametrize("q", [2, 3, 4, 5, 6])
def test_sam_factor_of_powers_e1(q: int) -> None:
    kappa, t = sp.symbols("kappa t", positive=True)
    half, third = sp.Rational(1, 2), sp.Rational(1, 3)
    for sign in LABELS:
        u = sign * t
        if q % 2:  # z^q: growth q l̄ β^q u^(q−1), against which the ascent moves
            factor = ((u - kappa * u ** (q - 1)) / u) ** (q - 1)
        else:  # ReLU^q at ⟨w,v⟩ = u of either sign: growth along +v is |u|^(q−1)
            factor = (sp.Abs(u - kappa * t ** (q - 1)) / t) ** (q - 1)
        at = {kappa: third, t: half}
        _same(float(sam.feature_factor(1 / 3, sign / 2, q)), factor.subs(at))


def test_damping_8_in_any_dimension() -> None:
    d, a, z, r = sp.symbols("d a z r", positive=True)

    def mean(expression: sp.Expr) -> sp.Expr:
        polynomial = sp.Poly(sp.expand(expression), z, r)
        return sum(
            c * _absolute(p) * sp.prod([d - 1 + 2 * i for i in range(q)])
            for (p, q), c in polynomial.terms()
        )

    R = z**2 + r
    ratio = mean(z**2 * R * (1 - a * z * R) ** 2) / mean(z**2 * R)
    linear = 2 * a * _absolute(3) * (d + 3) * (d + 5) / (d + 2)
    ours = 1 - linear + 3 * a**2 * (d + 4) * (d + 6) * (d + 8) / (d + 2)
    assert sp.simplify(ratio - ours) == 0
    _same(sam.mean_noise_damping(0.1, 1.0, 1.0, 5), ours.subs({d: 5, a: sp.Rational(1, 10)}))


@pytest.mark.parametrize(("n", "dim"), [(1, 2), (2, 1), (2, 2), (3, 2)])
def test_slope_31_by_isserlis(n: int, dim: int) -> None:
    """All patches independent, w = e_1: the first order of SAM's alignment with patch 1 on I_+."""
    half = sp.symbols("t")  # |⟨w,ξ_1⟩|: on I_+ its sign is the label
    names = sp.symbols(f"g:{n * dim}")

    def alignments(labels: tuple[int, ...]) -> tuple[sp.Expr, sp.Expr]:
        patches = [names[i * dim : (i + 1) * dim] for i in range(n)]
        patches[0] = (labels[0] * half, *patches[0][1:])
        s = [x[0] for x in patches]
        gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in patches] for x in patches]
        everyone = range(n)
        moved = [-sum(labels[m] * s[m] ** 2 * gram[m][i] for m in everyone) for i in everyone]
        plain = sum(labels[0] * labels[i] * s[i] ** 2 * gram[0][i] for i in everyone)
        first = sum(2 * labels[0] * labels[i] * s[i] * moved[i] * gram[0][i] for i in everyone)
        return plain, first

    plain, first = (
        _gaussian(
            _over_labels(alignments(y)[i] for y in itertools.product(LABELS, repeat=n)),
            names[1:],
            (half,),
        )
        for i in range(2)
    )
    _same(sam.independent_damping_slope(dim, n), -first / plain)


def test_cross_term_deviation_9() -> None:
    p, q = sp.symbols("p q")
    names = sp.symbols("a b c e")
    others = [names[:2], names[2:]]  # two other examples in two dimensions, w = e_1, u = (p, q)
    value = _over_labels(
        sum(y * x[0] ** 2 * (p * x[0] + q * x[1]) for y, x in zip(ys, others, strict=True)) ** 2
        for ys in itertools.product(LABELS, repeat=2)
    )
    variance = _gaussian(value, names).subs({p: 2, q: 1})
    found = sam.cross_term_deviation(0.5, 1.0, 3, 1.0, 5**0.5, 2.0)
    _same(float(found), sp.Rational(1, 2) * sp.sqrt(variance))


# --- (10) and (11): a tiny network with real logits ----------------------------------------------


def test_moving_logits_10_and_11_by_expansion() -> None:
    """Two examples, two filters, orthogonal noise: derivatives in rho at 0."""
    rho = sp.symbols("rho")
    W = sp.Matrix(2, 4, sp.symbols("w:8"))
    beta, length, y = (
        (sp.Rational(6, 5), sp.Rational(4, 5)),
        (sp.Rational(3, 2), sp.Integer(2)),
        (1, -1),
    )
    patches = [(_unit(i) * y[i] * beta[i], _unit(2 + i) * length[i]) for i in range(2)]
    margins = [
        y[i] * sum((W.row(j) * x)[0] ** 3 for x in patches[i] for j in range(2)) for i in range(2)
    ]
    at = dict(
        zip(
            W,
            map(sp.Rational, ("0.5", "0.4", "0.3", "-0.2", "-0.3", "0.6", "0.2", "0.5")),
            strict=True,
        )
    )
    logits = [1 / (1 + sp.exp(m)) for m in margins]
    gradient = sp.Matrix(
        2,
        4,
        lambda j, c: (
            -sum(logit * sp.diff(m, W[j, c]) for logit, m in zip(logits, margins, strict=True)) / 2
        ),
    )
    value = gradient.subs(at).evalf(40)
    size = sp.sqrt(sum(g**2 for g in value))
    moved = {w: at[w] + rho * g / size for w, g in zip(W, value, strict=True)}

    def slope(expression: sp.Expr) -> sp.Expr:
        return sp.diff(expression.subs(moved, simultaneous=True), rho).subs(rho, 0).evalf(30)

    l_at = [float(logit.subs(at)) for logit in logits]
    rows = [W.row(j).subs(at) for j in range(2)]
    projections = np.array([[float((row * patches[i][1])[0]) for i in range(2)] for row in rows])
    norm2 = np.array([float(x) ** 2 for x in length])
    features = np.array([[float(row[i]) for i in range(2)] for row in rows])
    shift = sam.logit_shift(
        1.0,
        float(size),
        [float(b) for b in beta],
        [l_i / 2 for l_i in l_at],
        (features**4).sum(0),
        l_at,
        (projections**4).sum(0) * norm2,
        2,
    )
    for i in range(2):
        _same(l_at[i] * (1 - l_at[i]) * float(shift[i]), slope(logits[i]))
    signed = projections[0] * np.array(y)
    assert (signed > 0).all(), "both examples are in I_+ of the first filter"
    along = [-y[i] * (gradient.row(0) * patches[i][1])[0] for i in range(2)]
    base = sum(a.subs(at) for a in along)
    ratio = sam.moving_logit_ratio(1.0, float(size), 2, l_at, shift, signed, norm2)
    _same(ratio - 1, slope(sum(along)) / base)


def _unit(c: int) -> sp.Matrix:
    return sp.Matrix([int(j == c) for j in range(4)])


# --- amplification.md ----------------------------------------------------------------------------


def test_growth_13_and_k_star_14() -> None:
    beta_e, beta_d, u = sp.symbols("beta_e beta_d u", positive=True)
    size = alpha * N + k * (1 - alpha) * N
    # each of the N' examples adds 3 l b³ u² / N' along its feature
    fast = 3 * l * beta_e**3 * u**2 * alpha * N / size
    slow = 3 * l * beta_d**3 * u**2 * k * (1 - alpha) * N / size
    (equal,) = sp.solve(sp.Eq(fast, slow), k)
    ours = alpha * beta_e**3 / ((1 - alpha) * beta_d**3)
    assert sp.simplify(equal - ours) == 0
    assert sp.simplify((slow / fast) / (slow / fast).subs(k, 1) - k) == 0
    at = {
        alpha: sp.Rational(4, 5),
        beta_e: 1,
        beta_d: sp.Rational(1, 2),
        l: sp.Rational(1, 2),
        u: 2,
    }
    _same(amplification.k_star(0.8, 1.0, 0.5), ours.subs(at))
    found = amplification.feature_gradient(
        0.5, 3 * 0.2, 0.5, 2.0, 1 / amplification.n_augmented(1, 0.8, 3)
    )
    _same(found, slow.subs(at).subs(k, 3))
    q = sp.symbols("q", positive=True)  # (E2)
    _same(amplification.k_star(0.8, 1.0, 0.5, 4), (ours * beta_e / beta_d).subs(at))
    assert sp.simplify((alpha * beta_e**q / ((1 - alpha) * beta_d**q)).subs(q, 3) - ours) == 0


def test_noise_weights_16_to_19_by_counting() -> None:
    """A patch that appears m times has alignment m and stands m times in the mean."""
    r = sp.symbols("r", positive=True)
    n_fast, n_slow = alpha * N, (1 - alpha) * N
    size = n_fast + k * n_slow
    up = (n_fast * 1 * 1 + n_slow * k * k) / size
    made = (n_fast + n_slow * 1 + n_slow * (k - 1) * r) / size
    assert sp.simplify(up - (alpha + k**2 * (1 - alpha)) / (alpha + k * (1 - alpha))) == 0
    ratio = (alpha + (1 - alpha) * (1 + (k - 1) * r)) / (alpha + k**2 * (1 - alpha))
    assert sp.simplify(made / up - ratio) == 0
    at = {alpha: sp.Rational(7, 10), k: 4, r: sp.Rational(16, 81)}
    _same(amplification.upsampled_weight(0.7, 4), up.subs(at))
    _same(amplification.generated_weight(0.7, 4, 16 / 81), made.subs(at))
    _same(amplification.generated_over_upsampled(0.7, 4, 0.3, 0.2), ratio.subs(at))


def test_noise_ratio_18_is_homogeneity() -> None:
    a, x, y, w = sp.symbols("a x y w", positive=True)

    def strength(scale: sp.Expr, q: int) -> sp.Expr:
        return _gaussian((w * scale * x) ** (q - 1) * scale**2 * (x**2 + y**2), (y,), (x,))

    assert sp.simplify(strength(a, 3) / strength(sp.Integer(1), 3) - a**4) == 0
    _same(amplification.noise_ratio(0.2, 0.3), sp.Rational(81, 16))
    for q in (2, 4, 5):  # (E3)
        assert sp.simplify(strength(a, q) / strength(sp.Integer(1), q) - a ** (q + 1)) == 0
        assert amplification.sigma_tolerance(3, q) ** (q + 1) == pytest.approx(4)


def test_tolerance_20_is_where_the_ratio_is_one() -> None:
    r = sp.symbols("r", positive=True)
    numerator = alpha + (1 - alpha) * (1 + (k - 1) * r)
    denominator = alpha + k**2 * (1 - alpha)
    assert sp.simplify(sp.solve(sp.Eq(numerator, denominator), r)[0] - (k + 1)) == 0
    at = amplification.sigma_tolerance(4)
    assert abs(amplification.generated_over_upsampled(0.7, 4, 1, at) - 1) < 1e-12


def test_learning_time_32_solves_the_flow() -> None:
    t, c, start, target = sp.symbols("t c start target", positive=True)
    u = sp.Function("u")
    solution = sp.dsolve(sp.Eq(u(t).diff(t), c * u(t) ** 2), u(t), ics={u(0): start}).rhs
    (time,) = sp.solve(sp.Eq(solution, target), t)
    assert sp.simplify(time - (1 / start - 1 / target) / c) == 0
    rate = 3 * sp.Rational(1, 10) * sp.Rational(1, 2) * sp.Rational(1, 8) * sp.Rational(1, 5)
    exact = time.subs({c: rate, start: sp.Rational(1, 4), target: 2})
    _same(amplification.learning_time(0.5, 0.2, 0.5, 0.25, 0.1, 2.0), exact)


def test_memorisation_33_is_the_ratio_of_times() -> None:
    sigma, d, beta, u = sp.symbols("sigma d beta u", positive=True)
    size = alpha * N + k * (1 - alpha) * N

    def time(rate: sp.Expr, projection: sp.Expr) -> sp.Expr:
        return 1 / (rate * projection)  # (32) with c = rate and no target

    length = sigma * sp.sqrt(d)
    feature = time(3 * l * beta**3 * k * (1 - alpha) * N / size, u)
    ours = sigma**3 * d ** sp.Rational(3, 2) / ((1 - alpha) * N * beta**3)
    for copies, divided_by in ((k, 1), (1, k)):  # U(k): weight k/N', G(k): 1/N'
        noise = time(3 * l * copies / size * length**2, u * length)
        assert sp.simplify(feature / noise - ours / divided_by) == 0
    at = {
        sigma: sp.Rational(1, 10),
        d: 400,
        alpha: sp.Rational(4, 5),
        N: 100,
        beta: sp.Rational(1, 2),
    }
    _same(amplification.memorisation_ratio(0.1, 400, 0.8, 100, 0.5), ours.subs(at))


# --- gradient_variance.md ------------------------------------------------------------------------


def test_feature_variance_22() -> None:
    p, a_e, a_d = sp.symbols("p a_e a_d", positive=True)
    variance = p * a_e + (1 - p) * a_d - p**2 * a_e - (1 - p) ** 2 * a_d
    assert sp.simplify(variance - p * (1 - p) * (a_e + a_d)) == 0
    filters = gradient_variance.Filters(0.0, 2.0, 3.0)
    ours = gradient_variance.feature_variance(0.5, 1.0, 0.5, 0.25, filters)
    at = {p: sp.Rational(1, 4), a_e: sp.Rational(9, 2), a_d: sp.Rational(27, 4) / 64}
    _same(ours, variance.subs(at))


def test_single_sample_noise_21() -> None:
    x, y, u, v, w = sp.symbols("x y u v w")
    # two filters in two dimensions at an angle, one patch: Σ_j ‖3 l ⟨w_j,ξ⟩² ξ‖²
    squares = ((w * x) ** 4 + (u * x + v * y) ** 4) * (x**2 + y**2)
    exact = 9 * l**2 * _gaussian(squares, (x, y))
    ours = 27 * l**2 * (2 + 4) * (w**4 + (u**2 + v**2) ** 2)
    assert sp.expand(exact - ours) == 0
    filters = gradient_variance.Filters(5.0, 0.0, 0.0)
    found = gradient_variance.single_sample_noise(0.5, 0.4, filters, 4, 3)
    _same(found, 2 * 27 * sp.Rational(4, 25) * 6 * 5 / 64)


@pytest.mark.parametrize(("n_fast", "n_slow", "copies"), [(3, 2, 1), (3, 2, 4), (1, 4, 3)])
def test_shared_noise_23_by_counting(n_fast: int, n_slow: int, copies: int) -> None:
    sources = [*range(n_fast), *[n_fast + i for i in range(n_slow) for _ in range(copies)]]
    for pairs, replacement in (
        (itertools.permutations(sources, 2), False),
        (itertools.product(sources, repeat=2), True),
    ):
        found = list(pairs)
        share = sp.Rational(sum(a == b for a, b in found), len(found))
        ours = gradient_variance.same_noise_probability(n_fast, n_slow, copies, replacement)
        _same(ours, share)


def test_extra_term_26_is_exact_at_the_full_batch() -> None:
    n_fast, n_slow = alpha * N, (1 - alpha) * N
    size = n_fast + k * n_slow
    q = n_slow * k * (k - 1) / (size * (size - 1))
    term = k * (k - 1) * (1 - alpha) / (alpha + k * (1 - alpha)) ** 2 / N
    assert sp.simplify((size - 1) * q - term * size) == 0
    B = sp.symbols("B", positive=True)
    ratio = ((B - 1) * q / (term * B)).subs(B, B * N)
    assert sp.simplify(sp.limit(ratio, N, sp.oo) - 1) == 0
    exact = (36 - 1) * gradient_variance.same_noise_probability(12, 8, 3, False)
    assert gradient_variance.upsampling_extra_term(0.6, 3, 36, 20) == pytest.approx(exact)


def test_variance_tolerance_30() -> None:
    B, r, n_fast, n_slow = sp.symbols("B r n_fast n_slow", positive=True)
    size = n_fast + k * n_slow
    up = 1 + (B - 1) * n_slow * k * (k - 1) / (size * (size - 1))
    made = (n_fast + n_slow + (k - 1) * n_slow * r) / size
    (equal,) = sp.solve(sp.Eq(up, made), r)
    assert sp.simplify(equal - (1 + k * (B - 1) / (size - 1))) == 0
    at = gradient_variance.variance_tolerance(3, 10, 36)
    both = [
        gradient_variance.batch_variance(12, 8, 3, 10, 1.0, at**6, 0.5, generated)
        for generated in (False, True)
    ]
    assert abs(both[0] - both[1]) < 1e-12


# --- extensions.md -------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [2, 3, 4])
def test_noise_of_powers_e5_and_e6_by_isserlis(q: int) -> None:
    z, t, x = sp.symbols("z t x")  # z along w, t its absolute value, x the other coordinate
    square = q**2 * _gaussian(z ** (2 * q - 2) * (z**2 + x**2), (z, x))
    mean = q * _gaussian(z ** (q - 1) * z, (z,))
    _same(gradient_variance.patch_noise(1.0, 1.0, 1.0, 2, q, False), square)
    _same(gradient_variance.patch_noise(1.0, 1.0, 1.0, 2, q, True), square / 2)
    _same(extensions.power_noise_mean(1.0, 1.0, 1.0, q, False), 0 if q % 2 else mean**2)
    rectified = q * _gaussian(t**q, (), (t,)) / 2
    _same(extensions.power_noise_mean(1.0, 1.0, 1.0, q, True), rectified**2)


def test_shared_labels_e7_by_counting() -> None:
    """Ordered pairs of different members of one source's group, m_a m_b for amplitudes a, b."""
    n_fast, n_slow, copies, size = 2, 3, 4, 5
    members = [1.0] + [1.7] * (copies - 1)
    pairs = sum(a * b for a, b in itertools.permutations(members, 2)) * n_slow
    n = n_fast + copies * n_slow
    for replacement, possible in ((False, n * (n - 1)), (True, n * n)):
        found = extensions.shared_label_variance(
            n_fast, n_slow, copies, size, 1.0, 1.7**2, replacement
        )
        assert found == pytest.approx((size - 1) / size * pairs / possible)


@pytest.mark.parametrize("q", [2, 3, 4, 5])
def test_memorisation_of_powers_e4(q: int) -> None:
    """Both projections grow by c u^(q−1), so the ratio of times is that of the rates c u^(q−2)."""
    sigma, d, beta, u, eta = sp.symbols("sigma d beta u eta", positive=True)
    size = alpha * N + k * (1 - alpha) * N
    length = sigma * sp.sqrt(d)
    at = {
        sigma: sp.Rational(1, 10),
        d: 400,
        alpha: sp.Rational(4, 5),
        N: 100,
        eta: sp.Rational(1, 5),
    }
    # classes 2: ReLU^q sees half; z^q with even q sees no label
    for classes, copies in itertools.product((1, 2) if q % 2 else (2,), (k, 1)):
        examples = k * (1 - alpha) * N * (1 - 2 * eta) / classes
        feature = q * l * beta**q * examples / size * u ** (q - 2)
        noise = q * l * copies / size * length**2 * (u * length) ** (q - 2)
        ours = classes * length**q / ((1 - alpha) * N * beta**q * (1 - 2 * eta))
        assert sp.simplify(noise / feature - ours * copies / k) == 0
        found = amplification.memorisation_ratio(0.1, 400, 0.8, 100, 0.5, q, classes == 2, 0.2)
        _same(found, ours.subs(at).subs(beta, sp.Rational(1, 2)))


def test_label_parts_e8() -> None:
    eta = sp.symbols("eta")
    for q, rectified in itertools.product((2, 3, 4, 5), (False, True)):
        # in units of q l b^q |u|^(q−1), filters of one sign: the gradient at each label
        values = [int(y > 0) if rectified else y ** (q + 1) for y in LABELS]
        mean = sp.Rational(sum(values), 2)
        rest = sp.Rational(sum(v * v for v in values), 2) - mean**2
        assert extensions.label_parts(q, rectified) == (float(mean**2), float(rest))
    kept = (1 - eta) * 1 + eta * -1
    assert sp.expand(kept - (1 - 2 * eta)) == 0  # (E10)
    assert sp.expand((1 - eta) + eta - kept**2 - (1 - (1 - 2 * eta) ** 2)) == 0
    _same(extensions.label_noise_growth(0.125), kept.subs(eta, sp.Rational(1, 8)))


def test_k_star_with_wrong_labels_e11() -> None:
    a, b, beta_e, beta_d = sp.symbols("a b beta_e beta_d", positive=True)
    fast, slow = alpha * beta_e**3 * (1 - 2 * a), k * (1 - alpha) * beta_d**3 * (1 - 2 * b)
    (equal,) = sp.solve(sp.Eq(fast, slow), k)
    at = {alpha: sp.Rational(3, 4), beta_e: 1, beta_d: sp.Rational(1, 2)}
    exact = equal.subs(at).subs({a: sp.Rational(1, 10), b: sp.Rational(1, 5)})
    _same(extensions.label_noise_k_star(0.75, 1.0, 0.5, 0.1, 0.2), exact)


def test_isotropic_noise_e13_and_e14() -> None:
    x, y, t, u, v = sp.symbols("x y t u v")
    w = (u, v)  # the feature is the first of two coordinates
    s = u * x + v * y
    variance = _gaussian((s**2 * x) ** 2, (x, y))
    ours = 3 * (u**2 + v**2) ** 2 + 12 * (u**2 + v**2) * u**2
    assert sp.expand(variance - ours) == 0
    at = {u: 2, v: 1}
    found = extensions.feature_gradient_deviation(0.5, 1.0, 5**0.5, 2.0, 3.0, 4.0)
    _same(found, sp.Rational(1, 2) * sp.sqrt(4 * ours.subs(at)))
    # on I_+ the part of y ξ along w is |z|, so E⟨v, yξ⟩ = E|z| ⟨w,v⟩/‖w‖
    lean = _gaussian(t, (), (t,)) * w[0] / sp.sqrt(u**2 + v**2)
    _same(extensions.feature_lean(1.0, 5**0.5, 1.0, 2.0), lean.subs(at))


def test_sam_under_isotropic_noise_e15_by_isserlis() -> None:
    """One example, noise in two dimensions: d/dh of the mean gradient along v at W + h∇L."""
    x, y, u, v, h, beta = sp.symbols("x y u v h beta")

    def growth(w: tuple[sp.Expr, sp.Expr], label: int) -> tuple[sp.Expr, sp.Expr]:
        s = w[0] * x + w[1] * y
        feature = beta**3 * w[0] ** 2
        return 3 * l * (feature + label * s**2 * x), 3 * l * label * s**2 * y

    first, plain = [], []
    for label in LABELS:
        g = growth((u, v), label)
        moved = growth((u - h * g[0], v - h * g[1]), label)[0]
        first.append(sp.diff(moved, h).subs(h, 0))
        plain.append(g[0])
    slope, base = (_gaussian(_over_labels(part), (x, y)) for part in (first, plain))
    ours = -l * (6 * beta**3 * u + 18 * (2 + 4) * (u**2 + v**2) / (beta**3 * u))
    assert sp.simplify(slope / base - ours) == 0
    at = {u: 2, v: 1, beta: sp.Rational(1, 2), l: 1}
    found = extensions.isotropic_sam_slope(0.5, 1.0, 2.0, 1.0, 5**0.5, 2, 1.0, 1.0)
    _same(found, -ours.subs(at))
