"""What the README says runs as it stands there, and what it links to exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SIM_BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "sim" / "README.md").read_text(encoding="utf-8"), re.DOTALL
)
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "theory/*.md",
        "sim/*.md",
        "results/*.md",
        "docs/*.md",
        "empirical/**/*.md",
    )
    for page in ROOT.glob(pattern)
)
COMMANDS = sorted(
    {
        command.strip()
        for page in PAGES
        if page.parent.name != "results"
        for command in re.findall(
            r"^(python -m (?:theory|sim|empirical) [^#\n]+)", page.read_text("utf-8"), re.MULTILINE
        )
    }
)


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_there_is_a_block_for_each_package() -> None:
    assert len(BLOCKS) == 3
    assert all(len(block.splitlines()) <= 12 for block in BLOCKS)


@pytest.mark.parametrize("index", range(3))
def test_python_blocks_run(index: int, tmp_path: Path) -> None:
    code = BLOCKS[index]
    # the same call, with a generator and a network that are trained for a moment only
    code = code.replace("seed=3)", "seed=3, generator_steps=2, epochs=2)")
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if index == 0:
        assert done.stdout.startswith("32.0")
        assert "0.310" in done.stdout
    if index == 1:
        up, made = (float(line.split()[1]) for line in done.stdout.splitlines())
        assert made < up


@pytest.mark.parametrize("page", ["docs/own_images.md", "empirical/generation/README.md"])
def test_blocks_of_other_pages_run_in_order(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    (tmp_path / "mine.py").write_text(blocks[0])
    code = blocks[-1].replace("Recipe(steps=300)", "Recipe(steps=2)")
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if page.startswith("docs"):
        names = [path.name for path in (tmp_path / "runs" / "images").rglob("*.png")]
        assert len([name for name in names if not name.startswith("synthetic")]) == 60
        assert len(names) > 60
    else:
        assert "torch.Size([2, 4, 1, 8, 8])" in done.stdout


def test_the_engine_block_runs(tmp_path: Path) -> None:
    (code,) = SIM_BLOCKS
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        float(re.search(r"tensor\(([\d.]+)", done.stdout)[1]) < 0.4
    )  # G(5) learns the slow feature


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist_with_these_flags(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)[2:]
    if words[0] == "theory":
        assert python("-m", *words, cwd=tmp_path).returncode == 0
        return
    flags = [word for word in words if word.startswith("--")]
    # the options of `compare` depend on the data set
    own = (
        words[words.index("--dataset") :][:2]
        if words[1] == "compare" and "--dataset" in words
        else []
    )
    done = python("-m", *words[:2], *own, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(flag in done.stdout for flag in flags)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_two_comparisons_of_digits_are_told_as_they_are() -> None:
    """What each decides, and both, as results/README.md's table and the sentence above it say."""
    folder = ROOT / "results" / "digits"
    large = json.loads((folder / "compare_8x6.json").read_text())["orderings"]
    small = json.loads((folder / "results.json").read_text())["empirical"]["orderings"]
    where = ("generator", "optimizer", "budget", "ordering")
    verdicts = [
        {tuple(row[name] for name in where): row["verdict"] for row in rows}
        for rows in (small, large)
    ]
    assert verdicts[0].keys() == verdicts[1].keys()
    decided = [{key for key, own in some.items() if own != UNDECIDED} for some in verdicts]
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    counts = f"decides\n{len(decided[0])} of 24 orderings, this one, with twice the data, "
    counts += f"{len(decided[1])}: {NUMBERS[len(decided[0] - decided[1])]} verdicts of the smaller "
    counts += f"one went away, and {NUMBERS[len(decided[1] - decided[0])]} came."
    assert counts in text
    for arm in ("upsample", "original", "syn-rand", "syn-all"):
        for generator in ("pool", "train"):
            keys = {k for k in verdicts[0] if k[0] == generator and k[3].endswith(f" {arm}")}
            cells = []
            for some in (keys & decided[0], keys & decided[1], keys & decided[0] & decided[1]):
                (letter,) = (
                    {verdicts[0][k][0] for k in some & decided[0]}
                    or {verdicts[1][k][0] for k in some}
                    or {""}
                )
                cells.append(f"{len(some)} **{letter.upper()}**" if some else "none")
            name = arm.capitalize() + (", control" if generator == "train" else "")
            assert f"| {name} | {' | '.join(cells)} |" in text


UNDECIDED = "undecided at this scale"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
