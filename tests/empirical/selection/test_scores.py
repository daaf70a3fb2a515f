"""Difficulty scores by hand, of files, and in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import ParameterError
from empirical.config.selection import SCORES
from empirical.selection import scores, slow_sets

LABELS = np.array([0, 0, 0, 0])
# of class 0, after each of four epochs: right from the start, learned late, forgotten twice, never
RIGHT = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=float)
LOGITS = np.stack([RIGHT * 2 - 1, 1 - RIGHT * 2], axis=2)  # probabilities .88 and .12


def test_scores_by_hand() -> None:
    p, q = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))
    assert scores.score("forgetting", LOGITS, LABELS).tolist() == [0, 0, 2, 4]
    assert scores.score("first-learned", LOGITS, LABELS).tolist() == [1, 4, 1, 5]
    error = [np.sqrt(2) * q, np.sqrt(2) * q, np.sqrt(2) * p, np.sqrt(2) * p]
    assert scores.score("el2n", LOGITS, LABELS) == pytest.approx(error)
    means = [p, (p + 3 * q) / 4, (p + q) / 2, q]
    assert scores.score("confidence", LOGITS, LABELS) == pytest.approx([-own for own in means])
    spread = [0, (p - q) * np.sqrt(3) / 4, (p - q) / 2, 0]
    assert scores.score("variability", LOGITS, LABELS) == pytest.approx(spread)
    with pytest.raises(ParameterError, match="near: forgetting"):
        scores.score("forgeting", LOGITS, LABELS)


def test_the_most_difficult() -> None:
    assert slow_sets.most_difficult(np.array([3.0, 1, 3, 2]), 0.5).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert slow_sets.most_difficult(np.array([1.0, 1, 1, 1]), 0.5).tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("score\n1\n2\n3\n", None, [1, 3]),
        ("name,score\na,1\nb,2\nc,3\n", None, [1, 3]),
        ("score,other\n1,9\n2,8\n3,7\n", "score", [1, 3]),
        ("index,score\n2,30\n0,10\n1,20\n", None, [10, 30]),
        ("score,file\n30,c/3.png\n10,a/1.png\n", "score", [10, 30]),
    ],
)
def test_a_table(tmp_path: Path, text: str, column: str | None, expected: list[float]) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    files = ("a/1.png", "b/2.png", "c/3.png")
    assert scores.read(path, column, [0, 2], files).tolist() == expected


def test_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.arange(5.0))
    assert scores.read(tmp_path / "scores.npy", None, [1, 4], None).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("score\n1\n", None, "at least 3"),
        ("score\n1\n2\nx\n", None, "line 4 has 'x'"),
        ("score\n1\n2\nnan\n", None, "finite numbers"),
        ("", None, "a .csv file with a header"),
        ("score\n1\n2\n3\n", "skore", "one of score .near: score"),
        ("index,score\n0,1\n", None, "it lacks 1, as index"),
        ("file,score\na/1.png,1\n", None, "it lacks 1, as file"),
    ],
)
def test_what_is_no_table_is_one_line(
    tmp_path: Path, text: str, column: str | None, said: str
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(ParameterError, match=said) as error:
        scores.read(path, column, [0, 2], ("a/1.png", "b/2.png", "c/3.png"))
    assert "\n" not in str(error.value)


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ParameterError, match="of numbers"):
        scores.read(tmp_path / "scores.npy", None, [0], None)


@pytest.mark.parametrize("name", ["forgetting", "el2n"])
def test_a_run_selects_by_a_score(
    command: Callable[..., tuple[int, str, str]], tiny_flags: list[str], tmp_path: Path, name: str
) -> None:
    assert name in SCORES
    flags = [*tiny_flags, "--selection", name, "--theta", ".3"]
    code, said, err = command("select", *flags, "--out", tmp_path / "run")
    assert code == 0, err
    assert said.startswith("30 of 100 slow")
    lines = (tmp_path / "run" / "slow.csv").read_text().splitlines()
    assert lines[0] == "index,file,class,loss,cluster,slow"
    assert sum(line.endswith(",slow") for line in lines[1:]) == 30


def test_a_run_selects_by_a_file(
    command: Callable[..., tuple[int, str, str]], tiny_flags: list[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "scores.npy", -np.arange(1797.0))
    flags = ["--selection", "scores", "--scores", tmp_path / "scores.npy", "--theta", ".2"]
    code, said, err = command("select", *tiny_flags, *flags, "--out", tmp_path / "run")
    assert (code, said[:14]) == (0, "20 of 100 slow"), err
    found = json.loads((tmp_path / "run" / "selection.json").read_text())
    lines = (tmp_path / "run" / "slow.csv").read_text().splitlines()[1:]
    assert found["slow"] == [int(line.split(",")[0]) for line in lines][:20]
    np.save(tmp_path / "scores.npy", np.arange(1797.0))  # others, under the same name
    code, _, err = command("select", *tiny_flags, *flags, "--out", tmp_path / "run")
    assert (code, "a selection with the same settings; remove it" in err) == (2, True)
    code, _, err = command("select", "--selection", "scores", "--out", tmp_path / "b")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = command("select", "--scores", "x.npy", "--out", tmp_path / "b")
    assert (code, err.count("\n")) == (2, 1)


def test_the_comparison_of_scores(
    command: Callable[..., tuple[int, str, str]], tiny_flags: list[str], tmp_path: Path
) -> None:
    flags = [*tiny_flags, "--seeds", 2, "--wrong-labels", ".1"]
    code, _, err = command("difficulty", *flags, "--out", tmp_path / "d")
    assert code == 0, err
    found = json.loads((tmp_path / "d" / "difficulty.json").read_text())
    assert list(found["methods"]) == ["cluster", "loss", "misclassified", *SCORES]
    for own in found["methods"].values():
        assert 0 <= own["wrong_in_slow"]["mean"] <= 1
        assert "precision" not in own  # nothing tells which digits are slow
    # a network that is not trained long calls wrong labels difficult
    assert found["methods"]["loss"]["wrong_found"]["mean"] > 0.35
    assert (tmp_path / "d" / "difficulty.png").stat().st_size > 5000
