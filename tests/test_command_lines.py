"""Any values at all for the flags of `sim` and `empirical`: an answer, or one line and exit code 2.

The flags are read from each command's own help, so a new one is covered. Long work is replaced
where it would begin; small work is done, and its numbers must be finite. With
COMMAND_LINE_EXAMPLES=5000 the same tests look for more.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = int(os.environ.get("COMMAND_LINE_EXAMPLES", "0"))


def examples(count: int) -> settings:
    """So many examples, the same every time; more, and other ones, where more are asked for."""
    return settings(
        derandomize=not MANY,
        deadline=None,
        max_examples=MANY or count,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
    )


SMALL = {
    **{"--n-examples": "12", "--dim": "20", "--filters": "3", "--steps": "4", "--seeds": "2"},
    **{"--test-examples": "20", "--epochs": "1", "--separating-epoch": "1"},
    **{"--generator-steps": "2", "--denoising-steps": "2"},
}
"""So that a run takes a second; given to a command that has the flag, unless another is drawn."""

COMMANDS = {
    "sim": {
        **{"run": (), "verify": (), "bench": (), "version": ()},
        **{"sweep": ("--grid", "k=1,2"), "figure": ("arms",), "claims": ("FOLDER/none.json",)},
        "calibrate": (),
    },
    "empirical": {
        **dict.fromkeys(("run", "select", "generate", "train", "compare", "tune"), ()),
        **dict.fromkeys(("recommend", "grid", "stability", "reproduce", "bench"), ()),
        **{"train-generator": ("--dataset", "digits"), "diagnose": ("store", "FOLDER")},
        **{"difficulty": (), "export": ("FOLDER",)},
    },
}
"""Every command, with what it cannot do without beside --out."""


NAMES = r"--[a-z][a-z0-9-]*(?:, --[a-z][a-z0-9-]*)*"
METAVAR = r"\[.*\]\]|\S+"


class ReachedError(BaseException):
    """The command was accepted, and its long work would begin."""


@dataclass(frozen=True)
class Flag:
    """A flag as the help shows it. words: its names, two for one that is on or off."""

    words: tuple[str, ...]
    metavar: str


def helped(program: str, *words: str) -> str:
    """What --help prints, in one column."""
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        patch.setenv("COLUMNS", "120")  # wider ones are laid out in columns
        start(program, [*words, "--help"])
    return out.getvalue()


@pytest.fixture(autouse=True, scope="module")
def _known_flags() -> None:
    """Read before values are drawn: a command imports what it needs, and that draws numbers."""
    for program, commands in COMMANDS.items():
        for command in commands:
            flags(program, command)


@cache
def flags(program: str, command: str) -> tuple[Flag, ...]:
    """The flags of a command, from its help."""
    found = []
    for line in helped(program, command).splitlines():
        match = re.match(
            r"\W*?((?:--[a-z][a-z0-9-]*(?:, )?)+)(?: (\S*?\[.*\]\]|\S+))?(?: |$)", line
        )
        if match and line.lstrip("│ ").startswith("--"):
            words = tuple(match[1].split(", "))
            found.append(Flag(words, "" if len(words) > 1 else match[2] or ""))
    return tuple(found)


def start(program: str, words: list[str]) -> None:
    """Run a command line in this process, as `python -m PROGRAM` does."""
    if program == "empirical":
        from empirical.__main__ import main

        main(words)
        return
    from common import cli
    from sim.__main__ import main as sim_main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sim", *words])
        cli.run(sim_main)


@pytest.mark.parametrize("program", COMMANDS)
def test_every_command_and_its_flags_are_known(program: str) -> None:
    listed = set(re.findall(r"• ([a-z-]+)", helped(program)))
    assert listed == set(COMMANDS[program])
    names = {word for flag in flags(program, "run") for word in flag.words}
    if program == "sim":
        from sim.settings import RunSettings

        values = set(RunSettings.__dataclass_fields__)
    else:
        from empirical.config.settings import PART_OF

        values = set(PART_OF)
    assert {f"--{name.replace('_', '-')}" for name in values} <= names


# --- values ---------------------------------------------------------------------------------------

WORDS = (
    *("digits", "planted", "cifar10", "folder:FOLDER", "folder:/nowhere", "small", "resnet18"),
    *("timm:resnet18", "timm:nosuch", "original", "upsample", "tada", "syn-rand", "syn-all"),
    *("boomerang", "sgd", "sam", "asam", "adamw", "steps", "cosine", "crop+flip", "mixup", "bf16"),
    *("fp16", "m-sam", "loss", "misclassified", "softmax", "penultimate", "ddim", "dpm++", "euler"),
    *(
        "pixel",
        "glide",
        "ideal",
        "ideal:fading",
        "pixel:FOLDER",
        "pixel:x/y",
        "hub:FOLDER",
        "train",
    ),
    *("train", "pool", "float16", "tensorboard", "cpu", "cuda", "cuda:9", "meta", "both"),
    *("orthogonal", "isotropic", "dense", "span", "float32", "all", "arms", "convergence", "None"),
    *("none", "ray", "dask://nohost:1", "ray://nohost:1", "k=1,2", "dim=1,x", "lr=nan,1", "a=1"),
    *(
        "alpha=.5,1e400",
        "test_error",
        "loss",
        "digits-small",
        "cifar10-resnet18",
        "{class}",
        "{",
        "{0}",
        "%s",
    ),
    *(
        "{class}",
        "{",
        "{0}",
        "%s",
        "",
        " ",
        "-",
        "--",
        "\n",
        "a\nb",
        "\udcff",
        "é",
        "🎲",
        "../..",
        "~",
        "x" * 300,
        "x" * 5000,
    ),
)

SIGN = st.sampled_from([1, 1, -1])

WHOLE = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30]),
    st.builds(lambda power, sign: sign * round(10**power), st.floats(0, 30), SIGN),
    st.integers(-3, 40),
).map(str)

REAL = st.one_of(
    st.sampled_from("0 -0.0 1 -1 .5 nan inf -inf 1e308 1e-308 5e-324 1e400 1e-400 1,5 1_0".split()),
    st.builds(lambda power, sign: repr(sign * 10.0**power), st.floats(-308, 308), SIGN),
    st.floats(0, 2).map(repr),
)

TEXT = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30),
)


def values(metavar: str) -> st.SearchStrategy[str]:
    """Values for a flag: mostly of its kind, at any size, and some of another kind."""
    kinds = {"INT": WHOLE, "FLOAT": REAL, "PATH": TEXT.map(lambda text: f"FOLDER/{text}")}
    own = next((strategy for kind, strategy in kinds.items() if kind in metavar), TEXT)
    if "PATH" in metavar:  # a path elsewhere could be anybody's file
        return own
    return st.one_of(own, own, own, own, WHOLE, REAL, TEXT)


@st.composite
def lines(draw: st.DrawFn, program: str) -> list[str]:
    """A command line with a few flags drawn. FOLDER: the folder where it may write."""
    command = draw(st.sampled_from((*COMMANDS[program], *["run"] * len(COMMANDS[program]))))
    known = flags(program, command)
    words: dict[str, list[str]] = {}
    for flag in known:
        name = flag.words[0]
        if name in SMALL:
            words[name] = [name, SMALL[name]]
        if name == "--out":
            words[name] = [name, "FOLDER/new/out"]
        if name == "--download":
            words[name] = ["--no-download"]
    if known:
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        for flag in chosen:
            name = flag.words[0]
            if len(flag.words) > 1:
                words[name] = [draw(st.sampled_from(flag.words))]
            elif "[" in flag.metavar:
                own = draw(st.lists(values(flag.metavar), max_size=3))
                words[name] = [name, *own]
            else:
                words[name] = [f"{name}={draw(values(flag.metavar))}"]
    given = COMMANDS[program][command]
    if given and given[0] in words:
        given = ()
    return [command, *given, *(word for own in words.values() for word in own)]


# --- long work ------------------------------------------------------------------------------------


def reached(*_: object, **__: object) -> Any:
    raise ReachedError


def _fetch_nothing(*_: object, **__: object) -> Any:
    raise OSError("no network in this test")


@contextlib.contextmanager
def long_work_replaced(program: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.create_connection", _fetch_nothing)
        if program == "sim":
            _sim(patch)
        else:
            _empirical(patch)
        yield


def _sim(patch: pytest.MonkeyPatch) -> None:
    from sim import memory, run, sweep

    prepared = run._prepared

    def small(settings: run.RunSettings) -> Any:
        long = memory.run_bytes(settings) > 2e7 or settings.steps > 20
        if long or settings.test_examples > 1000:
            raise ReachedError
        return prepared(settings)

    def here(cells: list[run.RunSettings], jobs: int) -> Any:
        if len(cells) > 3:
            raise ReachedError
        return (result for result in map(sweep._cell, cells))

    patch.setattr(run, "_prepared", small)
    patch.setattr(sweep, "_on_processes", here)
    for name in (
        *(
            "sim.verify.verify_with_progress",
            "sim.figures.make._compute",
            "benchmarks.simulation.bench",
        ),
        "sim.calibrate.pool",
    ):
        patch.setattr(name, reached)


def _empirical(patch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in (
        *("empirical.pipeline.run._selected", "empirical.recommendation.grid.trained_here"),
        *(
            "empirical.experiments.compare.run_all",
            "empirical.experiments.tune.run_all",
            "benchmarks.images.bench",
        ),
        *("empirical.generation.train._Training.run", "empirical.experiments.reproduce._verified"),
        "empirical.diagnosis.stores.diagnose_store",
        "empirical.experiments.difficulty.logits_by_epoch",
    ):
        patch.setattr(name, reached)
    patch.setattr("empirical.datasets.archives._fetch", _fetch_nothing)


# --- what is allowed ------------------------------------------------------------------------------


def _finite(text: str) -> float:
    raise AssertionError(f"{text} is no number of JSON")


def judge(folder: Path, code: int, out: str, err: str) -> None:
    """An answer with finite numbers, or one line and nothing left behind."""
    assert "Traceback" not in err
    left = sorted(path for path in folder.rglob("*"))
    if code in (0, 1):
        for path in left:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite)
        return
    assert code == 2
    assert out == ""
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert len(err) > 12
    assert left == [], left


def answer(program: str, words: list[str]) -> None:
    """Run one command line in this process and judge what came."""
    with tempfile.TemporaryDirectory() as name, long_work_replaced(program):
        folder = Path(name)
        out, err = io.StringIO(), io.StringIO()
        line = [word.replace("FOLDER", name) for word in words]
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                contextlib.chdir(folder),
            ):
                start(program, line)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
            judge(folder, code, out.getvalue(), err.getvalue())
        except ReachedError:
            pass


@given(lines("sim"))
@examples(120)
def test_any_values_for_sim(words: list[str]) -> None:
    answer("sim", words)


@given(lines("empirical"))
@examples(60)
def test_any_values_for_empirical(words: list[str]) -> None:
    answer("empirical", words)


TINY_NUMBERS = st.one_of(st.integers(0, 3).map(str), st.floats(0, 1).map(lambda x: f"{x:.2g}"))


@st.composite
def small_lines(draw: st.DrawFn, program: str) -> list[str]:
    """A run with two numbers of a small size drawn: most are possible."""
    known = flags(program, "run")
    names = {flag.words[0] for flag in known}
    words = {name: ["run", value] for name, value in SMALL.items() if name in names}
    words = {name: [name, value[1]] for name, value in words.items()}
    numbers = [f for f in known if len(f.words) == 1 and re.search("INT|FLOAT", f.metavar)]
    numbers = [f for f in numbers if "[" not in f.metavar]
    for flag in draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=2, unique=True)):
        words[flag.words[0]] = [f"{flag.words[0]}={draw(TINY_NUMBERS)}"]
    return ["run", *(word for own in words.values() for word in own), "--out", "FOLDER/new/out"]


def really(program: str, words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        line = [word.replace("FOLDER", name) for word in words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[1]
        command = [sys.executable, "-m", program, *line]
        ended = subprocess.run(
            command, capture_output=True, text=True, cwd=root, env=environment, timeout=300
        )
        judge(Path(name), ended.returncode, ended.stdout, ended.stderr)


@given(small_lines("sim"))
@examples(3)
def test_runs_of_sim(words: list[str]) -> None:
    really("sim", words)


@given(small_lines("empirical"))
@examples(6)
def test_runs_of_empirical(words: list[str]) -> None:
    really("empirical", words)
