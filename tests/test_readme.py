"""What the README says runs as it stands there, and what it links to exists."""

from __future__ import annotations

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
COMMANDS = re.findall(r"^(python -m (?:theory|sim|empirical) [^#\n]+)", README, re.MULTILINE)
PAGES = sorted(
    page
    for folder in ("", "theory", "sim", "empirical", "results")
    for page in (ROOT / folder).glob("*.md")
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
    done = python("-m", *words[:2], "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(flag in done.stdout for flag in flags)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
