"""GLIDE's adapter, against a small package with the interface of OpenAI's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import MissingDependencyError, ParameterError
from empirical.generation.base import Backend, HasSample, HasTrajectory, Originals
from empirical.generation.from_noise import FromNoise
from empirical.generation.glide import Glide, GlideSettings, load_glide
from empirical.generation.variants import Variants, generate

Make = Callable[..., Originals]
Streams = Callable[..., list[torch.Generator]]

CLASSES = ("cat", "dog", "ship")


class Tokenizer:
    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def padded_tokens_and_mask(self, tokens: list[int], ctx: int) -> tuple[list[int], list[bool]]:
        tokens = tokens[:ctx]
        padding = ctx - len(tokens)
        return tokens + [0] * padding, [True] * len(tokens) + [False] * padding


class Model(nn.Module):
    """Noise that depends on image, time and text; keeps the text as GLIDE's model does."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.tokenizer, self.options, self.cache = Tokenizer(), options, None
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.seen: list[Tensor] = []

    def del_cache(self) -> None:
        self.cache = None

    def convert_to_fp16(self) -> None:
        raise AssertionError("not on a CPU")

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        assert tokens.shape == mask.shape == (len(x), self.options["text_ctx"])
        assert mask.dtype == torch.bool
        if self.options["cache_text_emb"] and self.cache is not None:
            assert torch.equal(tokens, self.cache)  # GLIDE's complains so
        self.cache = tokens
        self.seen.append(timesteps)
        half = len(x) // 2
        assert torch.equal(x[:half], x[half:])
        text = (tokens * mask).sum(dim=1).float() / 10000
        return self.conv(x) + text[:, None, None, None] + timesteps[:, None, None, None] / 1000


class Diffusion:
    """Its mathematics, for the cosine schedule."""

    def __init__(self, steps: int) -> None:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        signal = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
        self.betas = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
        self.signal = torch.cumprod(1 - self.betas, 0)
        self.before = torch.cat([torch.ones(1, dtype=torch.float64), self.signal[:-1]])
        self.noised_at: list[int] = []

    def at(self, values: Tensor, t: Tensor) -> Tensor:
        return values[t].float()[:, None, None, None]

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None
        assert x_start.shape == noise.shape
        self.noised_at += t.tolist()
        signal = self.at(self.signal, t)
        return signal.sqrt() * x_start + (1 - signal).sqrt() * noise

    def p_mean_variance(
        self,
        model: Any,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        assert t.shape == (len(x),)
        out = model(x, t, **(model_kwargs or {}))
        assert out.shape == (len(x), 6, 64, 64)
        signal, before, beta = (
            self.at(values, t) for values in (self.signal, self.before, self.betas)
        )
        clean = ((x - (1 - signal).sqrt() * out[:, :3]) / signal.sqrt()).clamp(-1, 1)
        mean = beta * before.sqrt() * clean + (1 - before) * (1 - beta).sqrt() * x
        log_variance = beta.log().expand_as(x)
        return {
            "mean": mean / (1 - signal),
            "variance": log_variance.exp(),
            "log_variance": log_variance,
            "pred_xstart": clean,
        }


def create(**options: Any) -> tuple[Model, Diffusion]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(options), Diffusion(int(options["timestep_respacing"]))


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """A package glide_text2im; what was downloaded where is noted in `downloads`."""
    names = ("glide_text2im", "glide_text2im.model_creation", "glide_text2im.download")
    modules = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    creation, download = modules[names[1]], modules[names[2]]
    creation.model_and_diffusion_defaults = lambda: {  # type: ignore[attr-defined]
        "image_size": 64, "text_ctx": 32, "timestep_respacing": "", "use_fp16": True,
        "cache_text_emb": False,
    }  # fmt: skip
    creation.create_model_and_diffusion = create  # type: ignore[attr-defined]
    download.downloads = []  # type: ignore[attr-defined]

    def load_checkpoint(
        name: str, device: torch.device, progress: bool = True, cache_dir: str | None = None
    ) -> dict[str, Tensor]:
        assert not progress
        download.downloads.append((name, str(device), cache_dir))  # type: ignore[attr-defined]
        return create(timestep_respacing="1")[0].state_dict()

    download.load_checkpoint = load_checkpoint  # type: ignore[attr-defined]
    return modules


@pytest.fixture
def glide(tmp_path: Path) -> Glide:
    return load_glide(CLASSES, tmp_path, GlideSettings(steps=10))


def test_it_is_a_backend_and_passes_the_folder_on(
    tmp_path: Path, package: dict[str, ModuleType]
) -> None:
    backend: Backend = load_glide(CLASSES, tmp_path)
    assert isinstance(backend, HasTrajectory)
    assert isinstance(backend, HasSample)
    assert package["glide_text2im.download"].downloads == [("base", "cpu", str(tmp_path))]
    assert backend.denoising_steps(0.5) == 50
    assert not backend.model.options["use_fp16"]  # type: ignore[attr-defined]


def test_weights_on_disk_need_no_network(
    tmp_path: Path, package: dict[str, ModuleType], glide: Glide
) -> None:
    torch.save(glide.model.state_dict(), tmp_path / "base.pt")
    package["glide_text2im.download"].downloads.clear()
    assert load_glide(CLASSES, tmp_path, GlideSettings(steps=10)).digest == glide.digest
    assert package["glide_text2im.download"].downloads == []


def test_an_image_does_not_depend_on_its_batch(
    glide: Glide, make_originals: Make, streams: Streams, apart: Callable[..., int]
) -> None:
    """Nor on the batch before, whose text the model remembers."""
    originals = make_originals(16, side=32)
    whole = glide.generate(originals, 0.5, streams(range(16)))
    assert (whole.shape, whole.dtype) == (originals.pixels.shape, torch.uint8)
    for size in (1, 3):
        pieces = [
            glide.generate(originals.rows(torch.tensor(rows)), 0.5, streams(rows))
            for rows in [list(range(i, min(i + size, 16))) for i in range(0, 16, size)]
        ]
        assert apart(torch.cat(pieces), whole) <= 1
    assert glide.model.cache is None


def test_it_noises_to_the_step_below_and_goes_down_to_none(
    glide: Glide, make_originals: Make, streams: Streams
) -> None:
    glide.generate(make_originals(2), 0.5, streams([0, 1]))
    assert glide.diffusion.noised_at == [4, 4]
    assert [seen.tolist() for seen in glide.model.seen] == [[t] * 4 for t in (4, 3, 2, 1, 0)]


def test_guidance_text_and_strength_matter(
    glide: Glide, make_originals: Make, streams: Streams, tmp_path: Path
) -> None:
    originals = make_originals(2)
    plain = glide.generate(originals, 0.5, streams([0, 1]))
    for other in (
        load_glide(CLASSES, tmp_path, GlideSettings(steps=10, guidance=9.0)),
        load_glide(("owl", "elk", "ape"), tmp_path, GlideSettings(steps=10)),
        load_glide(CLASSES, tmp_path, GlideSettings(steps=10, prompt="{class}")),
    ):
        assert not torch.equal(other.generate(originals, 0.5, streams([0, 1])), plain)
        assert other.digest != glide.digest
    assert not torch.equal(glide.generate(originals, 0.9, streams([0, 1])), plain)


def test_copies_along_one_run(
    glide: Glide, make_originals: Make, apart: Callable[..., int]
) -> None:
    originals = make_originals(2, channels=1, side=28)
    made = generate(glide, originals, Variants(6, (1.0,), trajectory=True), 0)
    assert made.shape == (2, 5, 1, 28, 28)
    alone = generate(glide, originals, Variants(2, (1.0,)), 0)
    assert apart(made[:, -1], alone[:, 0]) <= 1
    assert not torch.equal(made[:, 0], made[:, 1])


def test_from_noise_nothing_of_the_original_is_left(
    glide: Glide, make_originals: Make, streams: Streams
) -> None:
    blind, originals = FromNoise(glide), make_originals(2)
    black = Originals(torch.zeros_like(originals.pixels), originals.labels, originals.indices)
    made = blind.generate(originals, 1.0, streams([0, 1]))
    assert torch.equal(made, blind.generate(black, 1.0, streams([0, 1])))
    assert glide.diffusion.noised_at == []


def test_no_originals_give_no_images(glide: Glide, make_originals: Make) -> None:
    assert glide.generate(make_originals(0), 0.5, []).shape == (0, 3, 8, 8)


def test_without_the_package_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("glide_text2im")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"glide_text2im.*pip install git\+https"):
        load_glide(CLASSES, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_weights_are_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "base.pt"
    if damage == "cut":
        path.write_bytes(b"PK")
    else:
        torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ParameterError, match=r"cache_dir = .*must be GLIDE's weights") as caught:
        load_glide(CLASSES, tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_input_is_refused(glide: Glide, make_originals: Make, streams: Streams) -> None:
    with pytest.raises(ParameterError, match=r"strength = 0.09: must be at least 0.1"):
        glide.generate(make_originals(1), 0.09, streams([0]))
    with pytest.raises(ParameterError, match="label = 4: must be below 3"):
        glide.generate(make_originals(5, n_classes=5), 0.5, streams(range(5)))
    with pytest.raises(ParameterError, match="channels = 4: must be 1 or 3"):
        glide.generate(make_originals(1, channels=4), 0.5, streams([0]))
    with pytest.raises(ParameterError, match="classes = "):
        load_glide((), Path("nowhere"))
    with pytest.raises(ParameterError, match="steps = 0"):
        GlideSettings(steps=0)
