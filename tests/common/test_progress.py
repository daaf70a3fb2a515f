"""Progress on stderr: lines now and then, and a time left that can be believed."""

from __future__ import annotations

import heapq
import re

import pytest

from common import progress as shown
from sim.verify import COST


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def test_the_first_estimate_is_right_within_a_factor_of_two(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes, three seconds to start, the slowest pieces of work first."""
    costs = sorted((share * c for c in COST.values() for share in (0.75, 0.25)), reverse=True)
    free, ends = [3.0, 3.0], []
    for cost in costs:
        begin = heapq.heappop(free)
        heapq.heappush(free, begin + cost)
        ends.append((begin + cost, cost))
    with shown.progress("claims", len(costs), cost=sum(costs)) as advance:
        for end, cost in sorted(ends):
            clock[0] = end
            advance(cost)
    lines = capsys.readouterr().err.splitlines()
    estimates = [re.search(r"(\d+) of \d+, about (\d+) s left", line) for line in lines]
    number, left = next(found.groups() for found in estimates if found is not None)
    done = sorted(ends)[int(number) - 1][0]
    assert 0.5 < float(left) / (max(ends)[0] - done) < 2
    assert lines[-1].startswith(f"claims: {len(costs)} of {len(costs)} in")


def test_no_estimate_before_a_tenth_of_the_work(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with shown.progress("steps", 100) as advance:
        for _ in range(12):
            clock[0] += 11
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "steps: 1 of 100"
    assert lines[9] == "steps: 10 of 100, about 990 s left"


def test_equal_steps_need_no_costs(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with shown.progress("steps", 10, 4) as advance:
        for _ in range(6):
            clock[0] += 20
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "steps: 5 of 10, about 100 s left"
    assert lines[-1] == "steps: 10 of 10 in 120.0 s"
