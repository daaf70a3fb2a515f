"""Shared by all tests."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slow import slow_tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what slow.txt lists."""
    listed = slow_tests()
    for item in items:
        if item.nodeid.partition("[")[0] in listed:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
