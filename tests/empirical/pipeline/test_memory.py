"""What a run on images needs is said before it is taken, and is right within a factor of 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common import memory as machine_memory
from common.memory import TooLargeError
from empirical.config.presets import DIGITS
from empirical.config.settings import RUN_ARMS, changed
from empirical.pipeline import arms, memory
from empirical.pipeline.memory import Sizes, check_run, counts, run_bytes
from empirical.runtime import Machine
from tests.messages import says

Command = Callable[..., tuple[int, str, str]]
SIZES_OF_DIGITS = Sizes(100, 1000, 500, 1, 8, 10)

MEASURE = """
import json, sys, tempfile, torch
from pathlib import Path
from empirical.config.presets import DIGITS
from empirical.config.settings import changed
from empirical.pipeline.run import run
from tests.messages import says
torch.set_num_threads(1)
base = {"epochs": 1, "separating_epoch": 1, "generator_steps": 2, "denoising_steps": 1}
def once(values):
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    run(changed(DIGITS, **(base | values)), Path(tempfile.mkdtemp(dir=sys.argv[2])) / "run")
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])
once({})
for values in json.loads(sys.argv[1]):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    once(values)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says the peak")
def test_the_estimate_is_right_within_a_factor_of_two(tmp_path: Path) -> None:
    sizes = [
        {"arm": "original", "network": "resnet18", "batch_size": 50},
        {"generator_widths": [128, 256]},
    ]
    words = [sys.executable, "-c", MEASURE, json.dumps(sizes), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[3]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=root, env=environment)
    assert ended.returncode == 0, ended.stderr
    for values, peak in zip(sizes, map(int, ended.stdout.split()), strict=True):
        own = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        settings = changed(DIGITS, epochs=1, separating_epoch=1, generator_steps=2, **own)  # type: ignore[arg-type]
        estimate = max(run_bytes(settings, SIZES_OF_DIGITS, 64).values())
        assert peak / 2 <= estimate <= 2 * peak, values


@pytest.mark.parametrize("arm", RUN_ARMS)
def test_examples_are_counted_as_the_arms_make_them(arm: str) -> None:
    import numpy as np

    sources, slow = np.arange(40), np.arange(40) < 14
    pairs = arms.training_set(arm, 4, sources, slow, np.random.default_rng(0))
    found = counts(changed(DIGITS, arm=arm, k=4), 40, 0.35)
    assert found == (len(pairs), len(arms.synthetic(pairs)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --k 100000000", "empirical run needs about 6.2e+03 GiB for 3500000065 training"),
        ("run --arm upsample --k 1000000000", "empirical run needs about 5.2e+03 GiB for 35000"),
        ("run --generator-widths 80000000", "GiB for a generator of widths 80000000 with tiles"),
        ("run --generator-widths 80000000000000000", "network = larger than torch can count"),
        (f"run --generator-widths {'8 ' * 17}", "widths = 17 of them: must be at most 16"),
        ("run --generator-shuffle 1000", "shuffle = 1000: must be at least 1 and at most 8"),
        ("run --threads 100000000", "threads = 100000000: must be at most 1024"),
        ("run --generation-batch 9999999999", "generation_batch = 9999999999: must be at most"),
        *(
            (f"run --{flag} {2**63}", f"must be at most {2**63 - 1}, which 64 bits hold")
            for flag in ("seed", "generator-seed", "k", "epochs", "split", "generator-steps")
        ),
        *(
            (f"run --{flag} 1e40", "1e+40: must be at")
            for flag in ("lr", "separating-lr", "rho", "weight-decay", "mixing-alpha", "guidance")
        ),
        ("run --generator pixel:x/y --no-download", "generator = pixel:x/y: must be a model on"),
        ("compare --seeds 1000000000", "empirical compare needs about"),
        ("compare --jobs 1000000000", "jobs = 1000000000: must be at most"),
        ("tune --seeds 1000000000", "empirical tune needs about"),
        ("reproduce --jobs 0", "jobs = 0: must be a whole number of at least 1"),
        ("reproduce --splits 12", "splits = 12: must be at most 11"),
        ("grid --ks 100000000", "empirical run needs about"),
        ("grid --seeds 1000000000", "seeds = 1000000000: must be at most 10000"),
        ("recommend --copies 1000000000", "empirical run needs about"),
        ("stability --seeds 1000000000000", "seeds = 1000000000000: must be at most 10000"),
        ("train-generator --dataset digits --widths 80000000", "empirical train-generator needs"),
        ("train-generator --dataset digits --batch-size 99999999999", "in batches of 99999999999"),
        ("train-generator --dataset digits --shuffle 9", "shuffle = 9: must be at least 1"),
        ("train-generator --dataset digits --device nosuch", "device = nosuch: must be cpu"),
        ("train-generator --dataset digits --seed -1", "seed = -1: must be a whole number"),
        (f"train-generator --dataset digits --seed {2**63}", "must be a whole number between 0"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_begun(
    command: Command, tmp_path: Path, words: str, message: str
) -> None:
    code, printed, said = command(*words.split(), "--out", tmp_path / "a" / "b")
    assert (code, printed) == (2, "")
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert says(said, message)
    assert not (tmp_path / "a").exists()


def test_a_plan_of_any_size_is_made_at_once(command: Command, tmp_path: Path) -> None:
    code, printed, _ = command("run", "--k", 10**9, "--dry-run", "--out", tmp_path / "a")
    assert code == 0
    assert "34,999,999,965" in printed
    assert not (tmp_path / "a").exists()


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DIGITS
    stages = run_bytes(settings, SIZES_OF_DIGITS, 64)
    assert set(stages) == {
        *("early network", "generator", "synthetic images", "training set", "final network")
    }
    needed = max(stages.values())
    monkeypatch.setattr(machine_memory, "available", lambda: needed)
    check_run(settings, SIZES_OF_DIGITS, Machine(cpu=True))
    monkeypatch.setattr(machine_memory, "available", lambda: needed - 1)
    with pytest.raises(TooLargeError, match=r"empirical run needs about .* MiB for "):
        check_run(settings, SIZES_OF_DIGITS, Machine(cpu=True))
    original = max(run_bytes(changed(settings, arm="original"), SIZES_OF_DIGITS, 64).values())
    assert original < needed


def test_a_generator_of_single_pixels_is_counted() -> None:
    deep = changed(DIGITS, generator_widths=(8, 8, 8, 8))
    assert memory.run_bytes(deep, SIZES_OF_DIGITS, 64)["generator"] > 0
