"""Algebraic identities behind the closed forms, checked with sympy."""

import sympy as sp

from theory import amplification, gradient_variance, moments, sharpness


def _gaussian(expression: sp.Expr, *variables: sp.Symbol) -> sp.Expr:
    """Expectation of a polynomial in independent standard normals."""
    polynomial = sp.Poly(sp.expand(expression), *variables)
    total = sp.Integer(0)
    for powers, coefficient in polynomial.terms():
        if all(p % 2 == 0 for p in powers):
            total += coefficient * sp.prod([sp.factorial2(p - 1) for p in powers])
    return sp.expand(total)


def test_patch_moments_by_isserlis() -> None:
    z, a, b = sp.symbols("z a b")
    r = z**2 + a**2 + b**2  # d' = 3
    for p, q in ((2, 1), (4, 1), (2, 2), (4, 3)):
        assert _gaussian(z**p * r**q, z, a, b) == round(moments.patch_moment(p, q, 3))


def test_shared_noise_covariance_by_isserlis() -> None:
    tau, x, y, u, v = sp.symbols("tau x y u v")
    root = sp.sqrt(1 - tau**2)
    g, h = tau * x + root * y, tau * u + root * v  # d' = 2: w along the first coordinate
    value = _gaussian(x**2 * g**2 * (x * g + u * h), x, y, u, v)
    ours = tau * (8 + 4 * tau**2 + 2 * (1 + 2 * tau**2))
    assert sp.expand(value - ours) == 0
    for t in (0.0, 0.3, 1.0):
        assert abs(moments.shared_noise_covariance(1, t, 1, 2) - float(ours.subs(tau, t))) < 1e-12


def test_cross_term_variance_by_isserlis() -> None:
    x, y, p, q, s = sp.symbols("x y p q s")
    value = _gaussian((s * x) ** 4 * (p * x + q * y) ** 2, x, y)  # w = s e1, u = (p, q)
    ours = 3 * s**4 * (p**2 + q**2) + 12 * s**2 * (s * p) ** 2
    assert sp.expand(value - ours) == 0
    ours = moments.cross_term_variance(1, 2.0, 5**0.5, 2.0)
    assert abs(ours - (3 * 16 * 5 + 12 * 4 * 4)) < 1e-9


def test_gradient_of_one_example() -> None:
    b, y, l, u, s, norm2 = sp.symbols("b y l u s norm2")
    f = (b * y * u) ** 3 + s**3
    margin = y * f
    # along the unit feature and along xi: derivatives of u = <w,v> and s = <w,xi> times 1, |xi|^2
    along_v = sp.expand(sp.diff(-l * margin, u)).subs(y**4, 1)
    along_xi = sp.expand(sp.diff(-l * margin, s)) * norm2
    assert sp.simplify(along_v + 3 * l * b**3 * u**2) == 0
    assert sp.simplify(along_xi + 3 * l * y * s**2 * norm2) == 0


def test_sam_factor() -> None:
    kappa, u = sp.symbols("kappa u")
    assert sp.simplify((u - kappa * u**2) ** 2 / u**2 - (1 - kappa * u) ** 2) == 0
    assert float(sharpness.feature_factor(0.5, 1.0)) == 0.25


def test_tolerance_is_where_the_ratio_is_one() -> None:
    alpha, k, r = sp.symbols("alpha k r", positive=True)
    numerator = alpha + (1 - alpha) * (1 + (k - 1) * r)
    denominator = alpha + k**2 * (1 - alpha)
    assert sp.simplify(sp.solve(sp.Eq(numerator, denominator), r)[0] - (k + 1)) == 0
    at = amplification.sigma_tolerance(4)
    assert abs(amplification.generated_over_upsampled(0.7, 4, 1, at) - 1) < 1e-12


def test_extra_term_is_exact_at_the_full_batch() -> None:
    n_fast, n_slow, k = 12, 8, 3
    n = n_fast + k * n_slow
    exact = (n - 1) * gradient_variance.same_noise_probability(n_fast, n_slow, k, False)
    assert abs(gradient_variance.upsampling_extra_term(0.6, k, n, 20) - exact) < 1e-12


def test_variance_tolerance_equation_30() -> None:
    n_fast, n_slow, k, batch = 12, 8, 3, 10
    n = n_fast + k * n_slow
    at = 1 + k * (batch - 1) / (n - 1)
    both = [
        gradient_variance.batch_variance(n_fast, n_slow, k, batch, 1.0, at, 0.5, generated)
        for generated in (False, True)
    ]
    assert abs(both[0] - both[1]) < 1e-12
