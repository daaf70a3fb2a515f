"""`python -m empirical diagnose store`, on small stores of digits made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch

from common.errors import ParameterError
from empirical.__main__ import main
from empirical.commands.diagnosis import table
from empirical.datasets.base import fingerprint
from empirical.datasets.digits import whole
from empirical.datasets.planted import PlantedSet
from empirical.diagnosis import distances
from empirical.diagnosis.classifier import Judge
from empirical.diagnosis.faithfulness import Faithfulness
from empirical.diagnosis.figure import draw
from empirical.diagnosis.stores import read_copies
from empirical.generation.base import noise_stream
from empirical.generation.ideal import Curve, ideal
from empirical.storage.store import ImageSpec, Request, make_store
from empirical.training.engine import Loop

SOURCES = range(0, 1797, 20)


def make(batch: Sequence[ImageSpec]) -> torch.Tensor:
    """A digit plus noise that grows with strength."""
    pixels = whole().train.pixels
    made = []
    for own in batch:
        stream = noise_stream("test", own.source, own.copy, own.strength, 0)
        noise = 60 * own.strength * torch.randn(1, 8, 8, generator=stream)
        made.append((pixels[own.source] + noise).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(made)


def store(folder: Path, strengths: tuple[float, ...], copies: int, **changes: Any) -> Path:
    digits = whole().train
    wanted = tuple(
        ImageSpec(source, copy, strength, int(digits.labels[source]), 1)
        for source in SOURCES
        for copy in range(1, copies + 1)
        for strength in strengths
    )
    common = {
        "classes": digits.classes,
        "shape": (1, 8, 8),
        "data": fingerprint(digits),
        "backend": "test",
        "model": "none",
        "seed": 0,
        "settings": {"dataset": "digits"},
    }
    make_store(folder, Request(wanted, **(common | changes)), make)
    return folder


@pytest.fixture(scope="module")
def quick() -> list[str]:
    return ["--epochs", "3", "--cpu"]


@pytest.fixture(scope="module")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("stores") / "synthetic", (0.2, 1.0), 2)


def test_a_store_is_diagnosed(
    digits_store: Path, quick: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = command("diagnose", "store", digits_store, *quick)
    assert code == 0
    assert "digits, generator test; judge conv4" in out
    beside = digits_store.parent
    found = json.loads((beside / "diagnosis.json").read_text())
    weak, strong = found["strengths"]
    assert (weak["strength"], strong["strength"]) == (0.2, 1.0)
    assert (weak["sources"], weak["copies"]) == (len(SOURCES), 2 * len(SOURCES))
    assert found["overall"]["copies"] == 4 * len(SOURCES)
    assert found["overall"]["strength"] is None
    assert weak["fidelity"]["value"] == pytest.approx(1, abs=0.1)
    for name in ("kept_noise", "agreement", "feature_agreement"):
        assert weak[name]["value"] > strong[name]["value"]
    assert weak["diversity"]["value"] < strong["diversity"]["value"]
    assert weak["amplitude"]["value"] < strong["amplitude"]["value"]
    assert "diagnose store" in found["command"]
    assert matplotlib.image.imread(beside / "diagnosis.png").shape[2] == 4

    before = (beside / "diagnosis.json").read_bytes()

    def no_step(self: Loop) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Loop, "step", no_step)
    assert command("diagnose", "store", digits_store, *quick)[0] == 0
    assert (beside / "diagnosis.json").read_bytes() == before
    # the store is as it was
    assert {path.name for path in digits_store.iterdir()} - {".lock"} == {
        *("README.md", "data", "manifest.json", "store.json")
    }


def test_one_strength_one_copy_and_no_torchmetrics(
    tmp_path: Path, quick: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "library", lambda: None)
    folder = store(tmp_path / "synthetic", (0.5,), 1)
    stem = tmp_path / "made" / "own"
    flags = ["--sources", "40", "--out", stem]
    code, out, _ = command("diagnose", "store", folder, *quick, *flags)
    assert code == 0
    assert "FID and KID left out: pip install 'tada-companion[metrics]'" in out
    found = json.loads(stem.with_suffix(".json").read_text())
    (own,) = found["strengths"]
    assert own["diversity"] is None
    assert own["distances"] == {}
    assert own["sources"] == 40
    assert stem.with_suffix(".png").exists()


def test_inception_when_it_is_there(
    tmp_path: Path, quick: list[str], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(distances, "inception_file", lambda: Path(__file__))
    features = lambda pixels, path: pixels.float().flatten(1)[:, 20:30]  # noqa: E731
    monkeypatch.setattr(distances, "inception_features", features)
    folder = store(tmp_path / "synthetic", (0.5,), 1)
    assert command("diagnose", "store", folder, *quick)[0] == 0
    found = json.loads((tmp_path / "diagnosis.json").read_text())
    assert found["notes"] == []
    assert found["strengths"][0]["distances"].keys() == {"judge", "inception"}
    assert found["strengths"][0]["distances"]["inception"]["fid"]["value"] > 0


def test_what_is_no_store_is_one_line(
    tmp_path: Path, digits_store: Path, quick: list[str], command: Any
) -> None:
    def line(folder: Path, *flags: object) -> str:
        code, _, err = command("diagnose", "store", folder, *quick, *flags)
        assert code == 2
        (only,) = err.strip().splitlines()
        return only

    assert "must be a folder with a store" in line(tmp_path / "nothing")
    assert "must be a folder with store.json" in line(tmp_path)
    other = store(tmp_path / "other", (0.5,), 1, data="another")
    assert "a store of these images of digits; it is of others" in line(other)
    silent = store(tmp_path / "silent", (0.5,), 1, settings={})
    assert "name its data set" in line(silent)
    assert "--sources 0: must be at least 1" in line(digits_store, "--sources", 0)
    assert "epochs" in line(digits_store, "--epochs", 0)
    assert "--network unknown" in line(digits_store, "--network", "unknown")
    damaged = store(tmp_path / "damaged", (0.5,), 1)
    shard = next((damaged / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert shard.name in line(damaged)
    with pytest.raises(SystemExit):
        main(["diagnose", "nothing", str(digits_store)])


def test_the_ideal_generator_is_read_and_drawn(
    tmp_path: Path, planted: PlantedSet, judge: Judge
) -> None:
    curve = Curve((0.2, 0.8), (1.0, 0.5), (0.9, 0.2))
    backend = ideal(planted, curve)
    labels = planted.train.labels
    wanted = tuple(
        ImageSpec(source, 1, strength, int(labels[source]), 1)
        for source in (5, 1, 40)
        for strength in (0.8, 0.2)
    )

    def regenerate(batch: Sequence[ImageSpec]) -> torch.Tensor:
        c, tau = curve.at(batch[0].strength)
        sources = [own.source for own in batch]
        return planted.regenerate(sources, [1] * len(sources), 0, c, tau)

    request = Request(
        wanted,
        planted.classes,
        (3, 16, 16),
        fingerprint(planted.train),
        backend.name,
        backend.digest,
        0,
        {"dataset": "planted", "curve": asdict(curve)},
    )
    make_store(tmp_path / "store", request, regenerate)
    stored = read_copies(tmp_path / "store", planted)
    assert stored.sources.indices.tolist() == [1, 5, 40]
    assert stored.rows.tolist() == [0, 0, 1, 1, 2, 2]
    assert stored.strengths.tolist() == [0.2, 0.8] * 3
    assert torch.equal(stored.pixels[2:3], planted.regenerate([5], [1], 0, 1.0, 0.9))
    assert len(read_copies(tmp_path / "store", planted, 2).sources) == 2
    with pytest.raises(ParameterError, match="a store of these images"):
        read_copies(tmp_path / "store", _other(planted))
    nothing = dict.fromkeys(Faithfulness.__dataclass_fields__)
    record = nothing | {
        **{"strength": 0.2, "sources": 3, "copies": 3, "distances": {}},
        **{"source_consistency": {"value": 0.9, "standard_error": None}},
        **{"kept_noise": {"value": 0.9, "standard_error": 0.1}},
    }
    found = {
        **{"dataset": "planted", "backend": "ideal", "judge": {"network": "conv4", "error": 0.1}},
        **{"strengths": [record], "overall": record},
    }
    assert len(draw(found, curve).axes) == 4
    assert table(found).row_count == 2


def _other(planted: PlantedSet) -> PlantedSet:
    from dataclasses import replace

    return replace(planted, train=replace(planted.train, pixels=planted.train.pixels.flip(0)))
