"""Which tests are slow, so that `make check` leaves them out. slow.txt is made by measuring:

make test ARGS="--junitxml=durations.xml"
python -m tests.slow durations.xml
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).with_name("slow.txt")

SECONDS = 1.0
"""A test is slow if it takes longer, all its parameters together: `make check` has some 1000."""


def slow_tests() -> set[str]:
    """Tests of the list, as path::name without parameters."""
    return set(LIST.read_text(encoding="utf-8").split())


def measured(report: Path) -> dict[str, float]:
    """Seconds of each test in a JUnit report, its parameters and what it sets up together."""
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        module = case.attrib["classname"].replace(".", "/") + ".py"
        name = case.attrib["name"].partition("[")[0]
        seconds[f"{module}::{name}"] += float(case.attrib["time"])
    return seconds


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, help="JUnit report of a run of all tests")
    seconds = measured(parser.parse_args().report)
    slow = sorted(name for name, took in seconds.items() if took > SECONDS)
    LIST.write_text("".join(f"{name}\n" for name in slow), encoding="utf-8")
    quick = sum(took for name, took in seconds.items() if name not in slow)
    print(
        f"{len(slow)} of {len(seconds)} tests are slow; the others take {quick:.0f} s of one core"
    )


if __name__ == "__main__":
    main()
