"""The parts by themselves: evidence, residuals, distances, and how the judge is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from common.errors import ParameterError
from empirical.datasets.planted import PlantedSet
from empirical.diagnosis import classifier, distances
from empirical.diagnosis.classifier import Judge, halves, train_judge
from empirical.diagnosis.distances import Features, judged_distances
from empirical.diagnosis.evidence import LEVELS, evidence, fidelity, mixtures
from empirical.diagnosis.residuals import KEPT, filtered, unused, whitening
from empirical.runtime import Machine
from empirical.training.engine import Loop
from empirical.training.recipes import Recipe

QUICK = Recipe(epochs=1, batch_size=64, lr=0.05)
CPU = Machine(cpu=True)


# evidence


def test_images_without_a_class_have_no_evidence() -> None:
    """Also where classes are unequal, and the network prefers one."""
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    shares = torch.tensor([0.7, 0.2, 0.1, 0.0])
    logits = torch.tensor([[3.0, -1.0, 0.5, 9.0]]).expand(10, -1)
    assert float(evidence(logits, labels, shares).mean()) == pytest.approx(0, abs=1e-6)


def test_fidelity_inverts_the_curve_of_the_mixtures() -> None:
    def curve(c: float) -> float:
        return 4 * c**2

    mixed = [curve(level) for level in LEVELS]
    for c in (0.1, 0.4, 0.9, 1.0):
        assert fidelity(curve(c), 4.0, mixed) == pytest.approx(c, abs=1e-6)
    assert fidelity(0.0, 4.0, mixed) == 0
    assert fidelity(-1.0, 4.0, mixed) == -0.25
    assert fidelity(4 * 1.18, 4.0, mixed) == pytest.approx(1.1, abs=1e-6)  # slope 1.8 at the end
    assert np.isnan(fidelity(1.0, -1.0, mixed))
    noisy = [own + (0.3 if level % 2 else -0.3) for level, own in enumerate(mixed)]
    c = [fidelity(own, 4.0, noisy) for own in np.linspace(0.01, 4, 50)]
    assert (np.diff(c) >= 0).all()
    assert (min(c), max(c)) == (pytest.approx(0, abs=0.3), pytest.approx(1))


def test_mixtures_keep_the_contrast() -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = (128 + 20 * torch.randn(200, 1, 8, 8, generator=rng)).round().to(torch.uint8)
    centre = torch.full((1, 8, 8), 128.0)
    for level in (0.3, 0.8):
        mixed = mixtures(pixels, level, centre, rng).float() - 128
        x = pixels.float() - 128
        assert float((mixed * x).sum() / (x * x).sum()) == pytest.approx(level, abs=0.03)
        assert float(mixed.std() / x.std()) == pytest.approx(1, abs=0.02)
    alone = mixtures(pixels[:1], 0.5, centre, rng).float() - 128
    assert float((alone - 0.5 * (pixels[:1].float() - 128)).abs().max()) <= 0.5


# residuals


def test_whitening_makes_noise_white(planted: PlantedSet) -> None:
    x = planted.train.pixels[:200].float()
    x -= x.mean(0)
    white = filtered(x, whitening(x))

    def neighbours(images: torch.Tensor) -> float:
        return float((images[..., 1:] * images[..., :-1]).mean() / images.square().mean())

    assert neighbours(x) > 0.4
    assert abs(neighbours(white)) < 0.15
    between = float((white[:, 0] * white[:, 1]).mean() / white.square().mean())
    assert abs(between) < 0.1


def test_flat_images_are_not_amplified() -> None:
    """Rounding has variance 1/12, which the filter must not blow up to that of noise."""
    flat = torch.zeros(4, 1, 8, 8)
    assert float(whitening(flat).abs().max()) < 1 / np.sqrt(1 / 12) + 1e-3
    assert float(filtered(flat, whitening(flat)).abs().max()) == 0
    assert filtered(torch.zeros(1, 1, 2, 2), whitening(torch.zeros(1, 1, 2, 2))).shape[-1] == 2


def test_the_feature_is_where_the_judge_looks(planted: PlantedSet, judge: Judge) -> None:
    from empirical.datasets.planted import feature

    rows = torch.nonzero(judge.half == 0)[:100, 0]
    pixels, labels = planted.train.pixels[rows], planted.train.labels[rows]
    kept = unused(judge.networks[0], pixels, labels, judge.mean, judge.std)
    assert kept.shape == (100, 1, 16, 16)
    assert kept.flatten(1).sum(1).tolist() == [round(KEPT * 256)] * 100
    planted_at = np.stack([feature(planted.config, "train", index) for index in rows.tolist()])
    energy = torch.from_numpy(planted_at).square()
    assert float((energy * kept).sum() / energy.sum()) < 0.05


# distances


def gaussian(n: int, shift: float, seed: int, d: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x.T), np.cov(y.T)
    root = np.real(np.asarray(sqrtm(a @ b)))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))


def test_distances_are_between_halves() -> None:
    pytest.importorskip("torchmetrics")
    real, made = gaussian(60, 0, 1), gaussian(60, 2, 2)
    found = judged_distances([Features(real, made, torch.arange(60), np.arange(60))], scale=False)
    assert found is not None
    a, b = np.arange(60) % 2 == 0, np.arange(60) % 2 == 1
    x, y = real.numpy(), made.numpy()
    expected = (frechet(x[b], y[a]) + frechet(x[a], y[b])) / 2
    assert found.fid.value == pytest.approx(expected, rel=1e-4)
    assert found.fid_real.value == pytest.approx(frechet(x[a], x[b]), rel=1e-4)
    assert found.fid.value == pytest.approx(16, abs=6)  # 4 dimensions, each apart by 2
    assert found.fid.standard_error is not None
    assert found.kid.value > 5 * (found.kid.standard_error or 0)
    # exact copies are as far from the other half as their sources are
    same = judged_distances([Features(real, real, torch.arange(60), np.arange(60))])
    assert same is not None
    assert same.fid.value == pytest.approx(same.fid_real.value, rel=1e-6)
    few = Features(real[:8], made[:8], torch.arange(8), np.arange(8))
    assert judged_distances([few]) is None


def test_the_unit_of_a_judges_features_does_not_matter() -> None:
    pytest.importorskip("torchmetrics")
    real, made, of = gaussian(40, 0, 1), gaussian(40, 1, 2), torch.arange(40)
    one = judged_distances([Features(real, made, of, of.numpy())])
    other = judged_distances([Features(100 * real, 100 * made, of, of.numpy())])
    assert one is not None
    assert other is not None
    assert one.fid.value == pytest.approx(other.fid.value, rel=1e-6)


def test_without_torchmetrics_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.fid", None)
    assert distances.library() is None
    of = torch.arange(40)
    assert (
        judged_distances([Features(gaussian(40, 0, 1), gaussian(40, 1, 2), of, of.numpy())]) is None
    )


def test_inception_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the file's form; nothing is downloaded."""
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    name = "inception-v3-compat"

    def no_download(*_: object, **__: object) -> dict[str, torch.Tensor]:
        raise ConnectionError("download")

    monkeypatch.setattr(library, "load_state_dict_from_url", no_download)
    states: list[dict[str, torch.Tensor]] = []

    def remember(self: torch.nn.Module, *_: object, **__: object) -> None:
        states.append(self.state_dict())

    with monkeypatch.context() as patch:
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", remember)
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
        library.FeatureExtractorInceptionV3(name, ["2048"])
    torch.save(states[0], tmp_path / "weights.pth")
    pixels = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    found = distances.inception_features(pixels, tmp_path / "weights.pth", batch_size=2)
    assert found.shape == (3, 2048)
    again = distances.inception_features(pixels[2:], tmp_path / "weights.pth")
    assert torch.allclose(found[2:], again, rtol=1e-3, atol=1e-4)


# the judge


def test_halves_are_even_in_every_class() -> None:
    labels = torch.tensor([0] * 11 + [1] * 7 + [2] * 5 + [3] * 2)
    half = halves(labels, "test", 0)
    counts = torch.stack([torch.bincount(labels[half == own], minlength=4) for own in (0, 1)])
    assert int((counts[0] - counts[1]).abs().max()) <= 1
    assert abs(int(counts[0].sum() - counts[1].sum())) <= 1
    assert not torch.equal(half, halves(labels, "test", 1))


def test_nobody_judges_what_it_was_trained_on(
    planted: PlantedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = classifier.train

    def spy(network, data, *rest, **named):
        seen.append((network, set(data.rows.tolist())))
        return train(network, data, *rest, **named)

    monkeypatch.setattr(classifier, "train", spy)
    judge = train_judge(planted, "small", QUICK, machine=CPU)
    assert judge.networks == (seen[0][0], seen[1][0])
    for own in (0, 1):
        judged = set(torch.nonzero(judge.half == own)[:, 0].tolist())
        assert not judged & seen[own][1]
        assert judged | seen[own][1] == set(range(600))
    labels = planted.train.labels
    mine = planted.train.pixels[(judge.half == 1) & (labels == 2)].double().mean(0)
    assert torch.allclose(judge.means[0, 2].double(), mine, atol=1e-3)
    assert 0 < judge.error < 1


def test_a_judge_is_found_again(
    planted: PlantedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_judge(planted, "small", QUICK, tmp_path, CPU)

    def no_step(self: Loop) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Loop, "step", no_step)
    monkeypatch.setattr("empirical.training.evaluate.evaluate", no_step)
    again = train_judge(planted, "small", QUICK, tmp_path, CPU)
    assert again.error == first.error
    for one, other in zip(first.networks, again.networks, strict=True):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert json.loads((tmp_path / "judge.json").read_text())["network"] == "small"
    with pytest.raises(ParameterError, match="checkpoint"):
        train_judge(planted, "small", Recipe(epochs=2, batch_size=64, lr=0.05), tmp_path, CPU)
    tensors = next(tmp_path.glob("half-0/checkpoint-*/state.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(ParameterError, match=r"state\.safetensors"):
        train_judge(planted, "small", QUICK, tmp_path, CPU)


def test_a_class_with_one_image_cannot_be_halved(planted: PlantedSet) -> None:
    from dataclasses import replace

    rows = torch.tensor([0, 1, 2, 3, 4])
    train = replace(
        planted.train, pixels=planted.train.pixels[rows], labels=planted.train.labels[rows]
    )
    with pytest.raises(ParameterError, match="images = 1 of a class"):
        train_judge(replace(planted, train=train), "small", QUICK, machine=CPU)
