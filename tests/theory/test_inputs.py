"""`python -m theory predict` over the whole range of every option, its ends included.

Two outcomes are allowed: finite numbers and exit code 0, or one line and exit code 2. numpy's
warnings are errors in these tests.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from typing import Any

import mpmath
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import cli
from common.errors import ParameterError
from theory.__main__ import main
from theory.claims import CLAIMS, Claim
from theory.parameters import PARAMETERS, Parameter

EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)


def _predict(*words: str) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["theory", "predict", *words])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            cli.run(main)
    assert isinstance(stop.value.code, int)
    return stop.value.code, out.getvalue(), err.getvalue()


def _finite(text: str) -> float:
    raise AssertionError(f"{text} is no number of JSON")


def _values(parameter: Parameter, whole: bool, default: Any) -> st.SearchStrategy[float]:
    """The ends of the range, the default, and all magnitudes between; whole: whole numbers."""
    low, high = parameter.low, parameter.high
    logs = st.floats(math.log(low), math.log(high))
    inside = logs.map(lambda x: min(max(math.exp(x), low), high))
    if whole:
        inside = st.one_of(inside.map(round), st.integers(int(low), 12))
    ends = [low, high, 1.0, 2.0]
    if not isinstance(default, tuple):
        ends.append(default)
    found = st.one_of(st.sampled_from([v for v in ends if parameter.accepts(v)]), inside)
    if parameter.signed:
        found = st.one_of(found, found.map(lambda v: -v))
    return st.one_of(found, st.just(0.0)) if parameter.zero else found


def _inputs(claim: Claim) -> st.SearchStrategy[dict[str, Any]]:
    """Values for some of a claim's parameters; the others stay at their defaults."""
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for name, parameter in claim.parameters.items():
        kind, default = parameter.annotation, parameter.default
        if kind == "bool":
            drawn[name] = st.booleans()
            continue
        values = _values(PARAMETERS[name], kind == "int", default)
        if kind == "int":
            values = values.map(int)
        drawn[name] = st.lists(values, min_size=3, max_size=3) if "Seq" in kind else values
    return st.fixed_dictionaries({}, optional=drawn)


def _words(inputs: dict[str, Any]) -> list[str]:
    words = []
    for name, value in inputs.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(repr, value if isinstance(value, list) else [value])]
    return words


_SIGNED = {"slope", "growth", "k_star", "kappa", "alignment_loss", "margin_drop", "sam_over_gd"}
"""What may be negative; kappa and margin_drop of no feature are 0 with either sign."""


@pytest.mark.parametrize("name", CLAIMS)
def test_every_value_in_range_gives_finite_numbers_or_one_line(name: str) -> None:
    answered = 0

    @EXAMPLES
    @given(_inputs(CLAIMS[name]))
    def check(inputs: dict[str, Any]) -> None:
        nonlocal answered
        code, out, err = _predict(name, *_words(inputs))
        assert code in (0, 2)
        if code == 2:
            assert out == ""
            assert err.count("\n") == 1, err
            said = err.removeprefix("error: ").removeprefix("--").split(" ")[0].replace("-", "_")
            assert said in CLAIMS[name].parameters, err
            return
        assert err == ""
        answered += 1
        predicted = json.loads(out, parse_constant=_finite)["predicted"]
        assert predicted
        assert all(math.isfinite(value) for value in predicted.values()), predicted
        assert all(value >= 0 or key in _SIGNED for key, value in predicted.items()), predicted

    check()
    assert answered >= 5, "a command that refuses all but a few values promises too much"


@pytest.mark.parametrize("name", CLAIMS)
def test_no_digits_are_lost_anywhere_in_the_range(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same formulas in 60 digits: the numbers printed are right to ten."""
    monkeypatch.setattr(mpmath.mpf, "__format__", lambda x, spec: format(float(x), spec))
    claim = CLAIMS[name]

    @EXAMPLES
    @given(_inputs(claim))
    def check(inputs: dict[str, Any]) -> None:
        if inputs.get("random_counts"):
            return  # binomial probabilities are scipy's
        try:
            found = claim.predict(**inputs)
        except ParameterError:
            return
        with mpmath.workdps(60):
            exact = claim.formula(**{key: _exact(value) for key, value in inputs.items()})
            assert found.keys() == exact.keys()
            for key, value in found.items():
                # beside the largest of what it is made of where terms may cancel truly
                near = mpmath.mpf(1) if key in ("factor", "sam_over_gd") else 0
                error = abs(value - exact[key])
                assert error <= 1e-10 * max(abs(exact[key]), near), (key, value, exact[key])

    check()


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(one) for one in value]
    return value if isinstance(value, bool | int) else mpmath.mpf(value)


def _accepting(option: str, value: str, claim: Claim) -> set[str]:
    """What a refusal may name: all parameters where this value alone is in range."""
    try:
        number = float(value)
    except ValueError:
        return set()
    return set(claim.parameters) if PARAMETERS[option].accepts(number) else set()


_BEYOND = st.sampled_from(
    ["1e308", "-1e308", "1e-308", "5e-324", "nan", "inf", "-inf", "1e400", "0", "-1", "1e13", "''"]
)


@pytest.mark.parametrize("name", CLAIMS)
def test_values_beyond_the_range_are_refused_in_one_line(name: str) -> None:
    options = [n for n, p in CLAIMS[name].parameters.items() if p.annotation != "bool"]

    @settings(EXAMPLES, max_examples=30)
    @given(st.sampled_from(options), _BEYOND)
    def check(option: str, value: str) -> None:
        code, out, err = _predict(name, f"--{option.replace('_', '-')}", value)
        assert code in (0, 2)
        if code == 0:
            assert PARAMETERS[option].accepts(float(value))
            json.loads(out, parse_constant=_finite)
        else:
            assert out == ""
            assert err.count("\n") == 1, err
            said = {option} | _accepting(option, value, CLAIMS[name])
            assert any(n in err or n.replace("_", "-") in err for n in said), err

    check()
