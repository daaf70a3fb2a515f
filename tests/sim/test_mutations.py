"""Every small fault put into the theory's formulas is caught by its check.

Measurements do not depend on the theory, so each is made once and judged again for every
mutant: exactly what `sim verify` would have said had the formula been wrong. A mutant that
raises, or that does not come to an end, is caught: the command would have stopped.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import theory
from common.errors import ParameterError
from sim.checks import CHECKS
from sim.checks.base import Plan, Quantity, judge
from tests.sim.mutants import Mutant, mutants
from theory import convergence, extensions, family, sam_validity, world

OF_ACTIVATIONS = {
    "sam": {"feature_kappa", "feature_factor"},
    "amplification": {"k_star", "sigma_tolerance", "memorisation_ratio"},
    "gradient_variance": {"patch_noise"},
}
"""What takes the power of the activation: measured at other powers than 3 by extensions only."""

GROUPS: dict[str, tuple[list[str], list[str]]] = {
    # the claims that test a module of theory, and the modules that are changed
    module: (claims, [module])
    for module, claims in {
        "moments": ["gaussian-moments"],
        "sam": [
            "sam-feature-factor",
            "sam-noise-damping",
            "sam-noise-damping-gaussian",
            "sam-boundary",
        ],
        "sam_validity": ["moving-logits", "sam-noise-boundary", "sam-feature-boundary"],
        "amplification": [
            "amplification",
            "noise-alignment",
            "noise-tolerance",
            "alignment-distribution",
        ],
        "family": ["family", "family-variance", "family-memorisation", "best-k"],
        "gradient_variance": ["gradient-variance", "variance-tolerance", "more-patches"],
        "convergence": [
            "convergence",
            "smoothness",
            "steps-to-target",
            "reused-data",
            "test-error",
        ],
        "extensions": ["activation", "label-noise", "class-imbalance", "isotropic-noise"],
    }.items()
}
GROUPS["sam_validity"][1].append("world")

_PRODUCT = "a product, whatever the order of its factors"
_SIZE = "N'/N = alpha + k - alpha k, and the numerator of (17), are symmetric in alpha and k"
_START = "where the search starts: every start leads to the same maximum, or to a lower one"
_STEERING = "the direction of the next step, not the rate that is returned"
_ALIKE = "the filters are alike"
_MANY = "any number of examples so large that alpha is not rounded"
_OTHERS = "the alignment that a filter loses does not depend on the other filters"
_PROJECTION = "a projection on a feature does not depend on the other dimensions"
_SHAPE = "the last of two axes"

EQUIVALENT: dict[str, dict[str, str]] = {
    "sam": {
        "sam.predict_sam_boundary: logit_shift, `logit` and `noise_quartic` swapped": _PRODUCT,
        "sam.predict_sam_boundary: logit_shift, `mean_logit` and `feature_quartic` "
        "swapped": _PRODUCT,
        "sam.predict_sam_boundary: moving_logit_ratio, `gradient_norm` and `n_examples` swapped": (
            _PRODUCT
        ),
        "sam.predict_sam_boundary: moving_logit_ratio, `projection` and `squared_norm` swapped": (
            "of one example only the product of both counts"
        ),
        "sam.predict_sam_feature_factor: feature_factor, `kappa` and `projection` "
        "swapped": _PRODUCT,
        "sam.predict_sam_noise_damping: noise_factor, `lam` and `projection` swapped": _PRODUCT,
        "sam.predict_sam_noise_damping: noise_factor, `projection` and `squared_norm` swapped": (
            _PRODUCT
        ),
        "sam.predict_sam_feature_factor: feature_kappa, `rho` and `mean_logit` swapped": _PRODUCT,
        "sam.predict_sam_noise_damping: noise_factor, `lam` and `squared_norm` swapped": _PRODUCT,
        "sam.predict_sam_noise_damping_gaussian: mean_noise_damping, `lam` and `w_norm` swapped": (
            _PRODUCT
        ),
        "sam.predict_sam_noise_damping: noise_lambda, `n_examples` and `gradient_norm` swapped": (
            _PRODUCT
        ),
        "sam.predict_sam_noise_damping: noise_lambda, `rho` and `logit` swapped": _PRODUCT,
        "sam.predict_sam_noise_damping_gaussian: noise_lambda, `n_examples` and `gradient_norm` "
        "swapped": _PRODUCT,
        "sam.predict_sam_noise_damping_gaussian: noise_lambda, `rho` and `logit` swapped": _PRODUCT,
        "sam.moving_logit_ratio: `s > 0` -> `s >= 0`": "where s = 0 the weight is 0 too",
        "sam.moving_logit_ratio: noise_lambda, `n_examples` and `gradient_norm` swapped": (
            _PRODUCT
        ),
        "sam.moving_logit_ratio: noise_lambda, `rho` and `1.0` swapped": _PRODUCT,
    },
    "amplification": {
        "amplification.generated_over_upsampled: generated_weight, `alpha` and `k` swapped": _SIZE,
        "amplification.generated_weight: n_augmented, `alpha` and `k` swapped": _SIZE,
        "amplification.noise_alignment: generated_weight, `alpha` and `k` swapped": _SIZE,
        "amplification.noise_alignment: n_augmented, `alpha` and "
        "`1 if arm == 'original' else k` swapped": _SIZE,
        "amplification.upsampled_weight: n_augmented, `alpha` and `k` swapped": _SIZE,
        "amplification.predict_amplification: feature_gradient, `alpha` and `1.0` "
        "swapped": _PRODUCT,
        "amplification.predict_amplification: feature_gradient, `k * (1 - alpha)` and `1.0` "
        "swapped": _PRODUCT,
    },
    "sam_validity": {
        "sam_validity.alignment_loss: `-1` -> `1`": _SHAPE,
        "sam_validity.damping_loss: `-1` -> `1`": _SHAPE,
        "sam_validity.corrected_sigma_init_boundary: `world.dim_noise` -> `world.dim_noise + 1`": (
            _PROJECTION
        ),
        "sam_validity.corrected_sigma_init_boundary: `world.dim_noise` -> `world.dim_noise - 1`": (
            _PROJECTION
        ),
        "sam_validity.feature_sigma_boundary: `evening > 0` -> `evening >= 0`": "0 either way",
        "sam_validity.feature_slope: `u > 0` -> `u >= 0`": "0 adds nothing to a sum of powers",
        "sam_validity.margin_size: `filters` -> `filters + 1` (3)": _OTHERS,
        "sam_validity.margin_size: `filters` -> `filters - 1` (3)": _OTHERS,
        "sam_validity.predict_moving_logits: `0` -> `1`": _ALIKE,
        "sam_validity.predict_moving_logits: `0` -> `1` (2)": _ALIKE,
        "sam_validity.predict_moving_logits: `0` -> `1` (3)": _ALIKE,
        "sam_validity.predict_sam_feature_boundary: `10 ** 18` -> `10 ** (18 + 1)`": _MANY,
        "sam_validity.predict_sam_feature_boundary: `10 ** 18` -> `10 ** (18 - 1)`": _MANY,
        "sam_validity.predict_sam_feature_boundary: `10` -> `11.0`": _MANY,
        "sam_validity.predict_sam_feature_boundary: `10` -> `9.0`": _MANY,
        "sam_validity.predict_sam_feature_boundary: `18` -> `16.2`": _MANY,
        "sam_validity.predict_sam_feature_boundary: `18` -> `19.8`": _MANY,
        "sam_validity.predict_sam_noise_boundary: `filters` -> `8` (2)": _OTHERS,
        "sam_validity.predict_sam_noise_boundary: `filters` -> `filters + 1` (2)": _OTHERS,
        "sam_validity.predict_sam_noise_boundary: `filters` -> `filters - 1` (2)": _OTHERS,
        "world.World.n_fast: n_fast, `self.n_examples` and `self.alpha` swapped": _PRODUCT,
        "world.both_kinds: n_fast, `n_examples` and `alpha` swapped": _PRODUCT,
    },
    "family": {
        "family._fastest: `(a * tau, fresh, 0)` and `(a * tau, 0, shared)` swapped": _START,
        "family._fastest: `_ORIGINAL` and `(a * tau, fresh, 0)` swapped": _START,
        "family._fastest: `_ORIGINAL` and `(a * tau, 0, shared)` swapped": _START,
        "family._fastest: `a * tau` and `0` swapped (2)": _START,
        "family._fastest: `a * tau` and `shared` swapped": _START,
        "family._fastest: `0` and `shared` swapped": _START,
        "family._fastest: `a * tau` and `0` swapped": _START,
        "family._fastest: `a * tau` -> `a`": _START,
        "family._fastest: `a * tau` -> `a` (2)": _START,
        "family._fastest: `a * tau` -> `tau`": _START,
        "family._fastest: `a * tau` -> `tau` (2)": _START,
        "family._fastest: `0` -> `1` (2)": _START,
        "family._fastest: `0` -> `1` (3)": _START,
        "family._fastest: `0.0` -> `1`": "shared, of no others: multiplied by their number",
        "family._fastest: `0.0` -> `1` (2)": "the first start, along the original, has rate 1",
        "family._fastest: `0.0` -> `1` (3)": "a rate that is replaced before it is compared",
        "family._fastest: `one * first ** 2` -> `first ** 2`": _STEERING,
        "family.best_strength: `c.memorisation < 1` -> `c.memorisation <= 1`": (
            "a tie, which belongs to neither side"
        ),
        "family.family_variance: zip, `shares` and `means` swapped": "squares of the difference",
        "family.noise_weight: n_augmented, `alpha` and `member.k` swapped": _SIZE,
        "family.time_to_learn_both: n_augmented, `alpha` and `member.k` swapped": _SIZE,
        "family.predict_best_k: `2` -> `2.2`": "the number of patches does not enter",
        "family.predict_best_k: `k` -> `5`": "each point of the curve gets its own best k",
        "family.predict_best_k: `k` -> `k + 1`": "each point of the curve gets its own best k",
        "family.predict_family_memorisation: `2` -> `2.2`": "the number of patches does not enter",
        "family.predict_family_memorisation: `beta_fast` -> `1.0`": "it must be above beta_slow, "
        "no more",
    },
    "gradient_variance": {
        "gradient_variance.gradient_variance: `('original', 1)` and `('generated', k)` swapped": (
            "the order in which the arms are computed"
        ),
        "gradient_variance.gradient_variance: `('original', 1)` and `('upsampled', k)` swapped": (
            "the order in which the arms are computed"
        ),
        "gradient_variance.gradient_variance: `('upsampled', k)` and `('generated', k)` swapped": (
            "the order in which the arms are computed"
        ),
        "gradient_variance.predict_gradient_variance: gradient_variance, `beta_fast` and "
        "`beta_slow` swapped": ("(22) is symmetric in the features where W⁽⁰⁾ has both alike"),
    },
    "convergence": {
        "convergence.predict_reused_data: upsampling_penalty, `lr` and `smoothness` "
        "swapped": _PRODUCT,
        "convergence.predict_reused_data: upsampling_penalty, `noise` and `q` swapped": _PRODUCT,
    },
    "extensions": {
        "extensions.class_share_growth: `(2 * positive - 1) * copysign(1, projection)` -> "
        "`(2 * positive - 1) / copysign(1, projection)`": "a sign is its own inverse",
        "extensions.class_share_growth: `projection > 0` -> `projection >= 0`": "0 is refused",
        "sam.feature_factor: `kappa * np.sign(u)` -> `kappa / np.sign(u)`": (
            "a sign is its own inverse"
        ),
        "extensions.predict_isotropic_noise: `(sigma_noise, n_examples)` and "
        "`(sigma_synthetic, (k - 1) * n_slow)` swapped": "two sides of one triangle",
    },
}
"""By group, faults that change no result, each with the reason."""

SEARCHES = {"family.least_k"}
"""What looks for a number step by step: most of it steers the search and changes no result.

tests/theory/test_family.py compares these with all numbers, one by one."""


REFUSALS = {"sam_validity._check", "sam_validity._check_orthogonal", "world.check_batch"}
"""What only refuses wrong input: tests/theory tries that."""

MISSED: dict[str, dict[str, str]] = {
    "sam_validity": {
        **{
            f"sam_validity._rise_moment: `{old}` -> `{new}`": (
                "two filters, three patches, two dimensions: too many nodes to sum over"
            )
            for old, new in (
                ("108 * c2", "108 / c2"),
                ("108 * c2", "108"),
                ("108 * c4", "108 / c4"),
                ("108 * c4", "108"),
                ("6 * c2", "6 / c2"),
                ("6 * c2", "6"),
            )
        },
        "sam_validity.corrected_sigma_init_boundary: `orthogonal` -> `False` (3)": (
            "the shift of the border is measured for independent noise"
        ),
        "sam_validity.expected_loss: `2` -> `2.2` (3)": "too small a part of what is measured",
    },
}
"""By group, faults that no quantity is sharp enough to catch, each with the reason."""


def _facts() -> dict[str, list[tuple[Callable[[], object], object]]]:
    """By group, what no measurement can meet: values at infinity, on a border, between numbers."""
    grow = family.noise_growth
    three, four = (family.fastest_growth(family.FamilyMember(k, 1, 0.5, 1.2)) for k in (3, 4))
    ten = world.World(10, 4, 2, 0.6, 1.3, 0.7, 0.1)
    few = world.World(10, alpha=0.1, beta_slow=0.9)
    return {
        "family": [
            (lambda: family.family_k_star(0.8, 1.0, 0.5, 0.0), inf),
            (lambda: family.family_k_star(0.5, 1.0, 0.99, 0.0), inf),
            (lambda: family.family_k_star(0.4, 1.0, 0.99, 0.0), -inf),
            (lambda: family.family_k_star(0.5, 1.0, 1.0, 0.0), -inf),
            (lambda: grow(family.FamilyMember(1, 1, 0.5, 0.7)), (1.0, 0.0)),
            (lambda: family.amplification_helps(family.FamilyMember(5, 0.5, 0.5, 1.0)), False),
            (lambda: family.amplification_helps(family.FamilyMember(5, 0.5, 0.4, 1.3)), False),
            (lambda: family.amplification_helps(family.FamilyMember(5, 0.5, 0.6, 0.8)), True),
            (lambda: family.best_k(0.875, 1.0, 0.5, 0.5), 1.0),
            (lambda: family.fastest_growth(family.FamilyMember(1, 1, 0.5, 1.2)), 1.0),
            (lambda: family.fastest_growth(family.FamilyMember(2, 1, 0.0, 1.2)), 1.2**3),
            (
                lambda: family.best_strength(ten, [family.FamilyMember(1, 0.9, 0.1)]).k,
                family.best_k(0.6, 1.3, 0.7, 0.9),
            ),
            (
                lambda: family.predict_best_k(
                    10, 4, 0.6, 1.3, 0.7, 0.1, fidelity_curve=[0.9], kept_noise_curve=[0.1]
                )["best_point_k"],
                family.best_k(0.6, 1.3, 0.7, 0.9),
            ),
            (
                lambda: family.fastest_growth(family.FamilyMember(3.25, 1, 0.5, 1.2)),
                three + 0.25 * (four - three),
            ),
        ],
        "convergence": [
            (lambda: convergence.steps_to_target(1.0, 1.0, 1.0, 1.0, 1.0), inf),
            (lambda: convergence.steps_to_target(1.0, 1.0, 1.0, 0.5, 1.0), 4.0),
        ],
        "extensions": [
            (lambda: extensions.predict_activation(power=4), {"mean_part": 0.0, "label_part": 1.0}),
        ],
        "sam_validity": [
            (lambda: world.both_kinds(10, 0.34), (3, 7)),
            (lambda: world.World(10, alpha=0.34).share_fast, 0.3),
            (lambda: _missing(0.9), True),
            (lambda: _missing(0.1), False),
            (lambda: world.World(10, alpha=0.34).n_slow, 7),
            # k* < 1: SAM evens nothing out
            (lambda: sam_validity.feature_sigma_boundary(few, 4, 0.3), 0.0),
            (lambda: sam_validity.feature_slope(ten, [0.0, 1.0], [0.0, 1.0])[0] > 0, True),
        ],
    }


def _missing(alpha: float) -> bool:
    """Whether two examples are said to lack slow ones."""
    with pytest.raises(ParameterError) as refused:
        world.both_kinds(2, alpha)
    return "slow" in refused.value.allowed.split("none is ")[1]


class _EndlessError(Exception):
    """A mutant that goes on for longer than any formula does."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _EndlessError after so much of the processor's time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _EndlessError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


_Test = Callable[[], bool]


def _holds(quantity: Quantity) -> bool:
    return judge(quantity).holds


def judged(group: str, seed: int = 1) -> list[tuple[str, _Test]]:
    """The quantities of the group's checks, and the facts, with the claims they belong to.

    What is too coarse at this seed to tell anything takes no part.
    """
    tests: list[tuple[str, _Test]] = []
    for name in GROUPS[group][0]:
        measured = [(q, judge(q)) for q in CHECKS[name].measure(Plan(seed, claim=name))]
        wrong = [verdict for _, verdict in measured if verdict.refuted or verdict.missing]
        assert not wrong, f"the unchanged theory must hold: {wrong}"
        tests += [(name, partial(_holds, quantity)) for quantity, v in measured if v.holds]
    for found, expected in _facts().get(group, []):
        tests.append(("", lambda f=found, e=expected: f() == pytest.approx(e, rel=1e-12)))
    return tests


def _used(test: _Test) -> set[CodeType]:
    """The code that a test goes through."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        holds = test()
    finally:
        sys.setprofile(before)
    assert holds, f"the unchanged theory must hold: {test}"
    return seen


def by_code(tests: list[tuple[str, _Test]]) -> dict[CodeType, list[tuple[str, _Test]]]:
    """The tests that go through each function of the theory."""
    through: dict[CodeType, list[tuple[str, _Test]]] = {}
    for claim, test in tests:
        for code in _used(test):
            through.setdefault(code, []).append((claim, test))
    return through


def of_group(group: str) -> Iterator[Mutant]:
    """Every mutant that the group's claims are to catch."""
    others = {f"{module}.{name}" for module, names in OF_ACTIVATIONS.items() for name in names}
    for module in GROUPS[group][1]:
        yield from (m for m in mutants(module) if m.text.split(":")[0] not in others)
    if group == "extensions":
        for module, names in OF_ACTIVATIONS.items():
            yield from mutants(module, names)


def caught(mutant: Mutant, tests: list[tuple[str, _Test]]) -> str | None:
    """The claim of the first test that fails, which moves to the front; None if all hold."""
    original = mutant.function.__code__
    mutant.function.__code__ = mutant.code
    try:
        for index, (claim, test) in enumerate(tests):
            try:
                with _limited(1.0), np.errstate(all="ignore"):
                    fine = test()
            except Exception:
                fine = False
            if not fine:
                tests.insert(0, tests.pop(index))
                return claim
    finally:
        mutant.function.__code__ = original
    return None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of mutants: numbers out of all bounds
@pytest.mark.parametrize("group", GROUPS)
def test_every_fault_is_caught(group: str) -> None:
    through = by_code(judged(group))
    found = [m for m in of_group(group) if m.text.split(":")[0] not in SEARCHES | REFUSALS]
    survivors, catching = [], set()
    for mutant in found:
        claim = caught(mutant, through.get(mutant.function.__code__, []))
        catching.add(claim)
        if claim is None:
            survivors.append(mutant.text)
    expected = EQUIVALENT.get(group, {}).keys() | MISSED.get(group, {}).keys()
    assert not set(survivors) - expected, "\n".join(sorted(set(survivors) - expected))
    left = "\n".join(sorted(expected - set(survivors)))
    assert not left, f"caught, or no longer there:\n{left}"
    assert set(GROUPS[group][0]) <= catching, "every check must catch some fault"


NAMED = {
    "extensions.predict_isotropic_noise: `k ** 2` -> `k`",
    "extensions.predict_isotropic_noise: `up` and `hypot(originals, synthetic)` swapped",
    "gradient_variance.predict_gradient_variance: `n_patches` -> `2`",
    "gradient_variance.predict_gradient_variance: `variances['upsampled'] / "
    "variances['generated']` -> "
    "`variances['upsampled'] * variances['generated']`",
    "sam_validity.predict_moving_logits: `orthogonal` -> `not orthogonal`",
    "sam_validity.predict_sam_noise_boundary: `orthogonal` -> `False`",
    "convergence.predict_reused_data: `k` -> `k - 1`",
    "convergence.predict_smoothness: smoothness_from_norms, `patch_norm` and `weight_norm` swapped",
    "family.predict_family_variance: `own` and `upsampled` swapped",
    "gradient_variance.predict_variance_tolerance: variance_tolerance, `k` and `batch_size` "
    "swapped",
    "convergence.predict_steps_to_target: `lr` and `steps` swapped",
    "amplification.predict_alignment_distribution: `n_patches - 1` -> `n_patches`",
}
"""Faults of what `theory predict` prints that once went through all tests."""


def test_the_faults_that_were_found_by_hand_are_among_them() -> None:
    modules = {text.split(".")[0] for text in NAMED}
    made = {m.text for module in modules for m in mutants(module)} - {
        t for found in EQUIVALENT.values() for t in found
    }
    assert not NAMED - made


def test_every_claim_and_every_formula_is_covered() -> None:
    covered = [name for names, _ in GROUPS.values() for name in names]
    assert sorted(covered) == sorted(CHECKS)
    modules = {module for _, changed in GROUPS.values() for module in changed}
    without_formulas = {"__init__", "__main__", "claims", "cli", "files", "parameters"}
    here = {path.stem for path in Path(theory.__file__).parent.glob("*.py")}
    assert here - without_formulas == modules
