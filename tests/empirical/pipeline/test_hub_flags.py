"""Flags of hub pipelines reach the pipeline; images are kept or dropped by the early network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ParameterError
from empirical.config.presets import DIGITS
from empirical.config.settings import changed
from empirical.pipeline.synthesis import _hub
from empirical.runtime import HERE

Command = Callable[..., tuple[int, str, str]]
HUB = {
    "generator": "hub:a/b",
    "fixed_steps": False,
    "denoising_steps": None,
    "guidance": None,
}
FLAGS = {
    "negative_prompt": "blurred",
    "pipeline": "StableDiffusionImg2ImgPipeline",
    "revision": "main",
    "variant": "fp16",
    "lora": "a/lora",
    "safety_checker": True,
}


def test_every_flag_reaches_the_pipeline() -> None:
    found = _hub(changed(DIGITS, **HUB, **FLAGS), "a/b", HERE)
    assert {name: getattr(found, name) for name in FLAGS} == FLAGS


@pytest.mark.parametrize("name", [name for name in FLAGS if name != "safety_checker"])
def test_without_a_hub_pipeline_they_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} = .*left out without a hub: generator"):
        changed(DIGITS, **{name: FLAGS[name]})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"keep": "most"}, "all or agreeing or confident"),
        ({"synthetic_probability": 0.0}, "synthetic_probability"),
        ({"synthetic_probability": 1.1}, "synthetic_probability"),
    ],
)
def test_what_is_out_of_range(values: dict[str, object], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        changed(DIGITS, **values)


INVERT = """
def invert(originals, strength, streams):
    made = originals.pixels.clone()
    made[originals.indices % 2 == 0] = 0  # nothing can be seen on these
    return made
"""


@pytest.mark.parametrize("keep", ["agreeing", "confident"])
def test_images_that_the_early_network_contradicts_are_dropped(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    (tmp_path / "half_blank.py").write_text(INVERT)
    monkeypatch.chdir(tmp_path)
    flags = ["--separating-epoch", 40, "--epochs", 2, "--arm", "syn-all", "--keep", keep]
    words = ["run", *flags, "--generator", "python:half_blank:invert", "--out", "run"]
    code, _, err = command(*words)
    assert code == 0, err
    found = json.loads(Path("run/result.json").read_text())
    # of the blank half a tenth may be of the class that blank images seem to be
    assert 35 <= found["n_dropped"] <= 65
    assert found["n_synthetic"] == 100 - found["n_dropped"]
    assert found["n_training"] == 100 + found["n_synthetic"]
    assert f"{found['n_dropped']} of 100 synthetic images are dropped (keep = {keep})" in err
    Path("run/result.json").unlink()
    Path("run/network.safetensors").unlink()
    code, _, err = command(*words)
    assert code == 0, err
    again = json.loads(Path("run/result.json").read_text())
    assert again["test_error"] == found["test_error"]
    Path("run/result.json").unlink()
    Path("run/early.safetensors").unlink()
    code, _, err = command(*words)
    assert (code, "early.safetensors" in err) == (2, True)
