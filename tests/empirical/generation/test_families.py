"""Pipelines of other people: what each family wants, takes and gives, on tiny ones built here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    IFPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from common.errors import ParameterError
from empirical.generation.base import Originals
from empirical.generation.from_noise import FromNoise
from empirical.generation.hub import Hub, HubSettings, load_hub
from empirical.generation.sampling import network_output

from .test_hub import text_encoder, tokenizer, unet, vae

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
)

Make = Callable[..., Originals]
Streams = Callable[..., list[torch.Generator]]
Command = Callable[..., tuple[int, str, str]]

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Stable Diffusion's."""
PUBLISHED = {**BETAS, "steps_offset": 1}
PNDM = {**PUBLISHED, "set_alpha_to_one": False, "skip_prk_steps": True}
MU, S = 0.1, 1.0
"""Latents have about unit variance."""


def stable(kind: type = StableDiffusionPipeline, **parts: Any) -> Any:
    """A pipeline with Stable Diffusion's parts, its published scheduler among them."""
    whole: dict[str, Any] = {
        "vae": vae(),
        "text_encoder": text_encoder("CLIPTextModel"),
        "tokenizer": tokenizer(),
        "unet": unet(cross_attention_dim=32),
        "scheduler": PNDMScheduler(**PNDM),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return kind(**(whole | parts))


def inpainting() -> Any:
    """Nine channels: noisy image, mask, masked image."""
    nine = UNet2DConditionModel.from_config(
        dict(unet(cross_attention_dim=32).config) | {"in_channels": 9}
    )
    return stable(StableDiffusionInpaintPipeline, unet=nine)


def controlled() -> Any:
    net = ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(16, 32),
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    return stable(StableDiffusionControlNetPipeline, controlnet=net)


def deepfloyd() -> Any:
    """Pixel space, images from -1 to 1, learned variances."""
    from tokenizers import Tokenizer, models

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    words += [(letter, -1.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    letters = transformers.T5TokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(words, unk_id=2)),
        extra_ids=0,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    return IFPipeline(
        tokenizer=letters,
        text_encoder=transformers.T5EncoderModel(config),
        unet=UNet2DConditionModel(
            sample_size=16,
            in_channels=3,
            out_channels=6,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            cross_attention_dim=16,
            encoder_hid_dim=16,
            attention_head_dim=8,
            norm_num_groups=8,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            resnet_time_scale_shift="scale_shift",
        ),
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
            dynamic_thresholding_ratio=0.95, sample_max_value=1.5,
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )  # fmt: skip


def consistent() -> Any:
    return stable(
        LatentConsistencyModelPipeline,
        unet=unet(cross_attention_dim=32, time_cond_proj_dim=32),
        scheduler=LCMScheduler(**PUBLISHED),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "stable": stable,
    "lcm in stable": lambda: stable(scheduler=LCMScheduler(**PUBLISHED)),
    "lcm": consistent,
    "inpainting": inpainting,
    "controlnet": controlled,
    "if": deepfloyd,
    "edm": lambda: stable(scheduler=EDMEulerScheduler()),
    "sd-turbo": lambda: stable(
        scheduler=EulerDiscreteScheduler(**PUBLISHED, timestep_spacing="trailing")
    ),
    "sdxl-turbo": lambda: stable(
        scheduler=EulerAncestralDiscreteScheduler(**PUBLISHED, timestep_spacing="trailing")
    ),
    "v": lambda: stable(
        scheduler=DDIMScheduler(**PUBLISHED, prediction_type="v_prediction", clip_sample=False)
    ),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline of a family, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            path = tmp_path_factory.mktemp("family") / "model"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                FAMILIES[name]().save_pretrained(path)
            made[name] = path
        return made[name]

    return folder


def load(folder: Path, **values: Any) -> Hub:
    return load_hub(
        ("cat", "dog", "ship"), HubSettings(str(folder), local_files_only=True, **values)
    )


# what it does is counted


@pytest.mark.parametrize(
    ("name", "values", "strength", "expected"),
    [
        ("stable", {"steps": 10}, 0.5, 5),
        ("stable", {"steps": 10, "scheduler": "pndm"}, 1.0, 11),
        ("stable", {"steps": 10, "scheduler": "heun"}, 0.5, 9),
        ("lcm in stable", {"steps": 8}, 0.5, 4),
        ("lcm in stable", {"steps": 16}, 0.2, 3),
        ("lcm", {"steps": 4}, 0.5, 4),
        ("lcm", {"steps": 4}, 0.2, 4),
        ("if", {"steps": 10}, 0.5, 5),
    ],
)
def test_steps_are_those_that_the_network_does(
    family: Callable[[str], Path],
    make_originals: Make,
    streams: Streams,
    name: str,
    values: dict[str, Any],
    strength: float,
    expected: int,
) -> None:
    backend, calls = load(family(name), guidance=1.0, **values), []
    assert backend.denoising_steps(strength) == expected
    backend.pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    backend.generate(make_originals(1), strength, streams([0]))
    assert len(calls) == expected


def test_strengths_without_a_step_are_refused_before_an_image(
    family: Callable[[str], Path],
) -> None:
    with pytest.raises(ParameterError, match=r"strength = 0.2: must be at least 0.25"):
        load(family("stable"), steps=4).denoising_steps(0.2)
    said = "LatentConsistencyModelImg2ImgPipeline ended in ValueError: .* 50 x 0.2"
    with pytest.raises(ParameterError, match=said) as caught:
        load(family("lcm"), steps=16).denoising_steps(0.2)
    assert "\n" not in str(caught.value)


# what does not work is one line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inpainting", "StableDiffusionImg2ImgPipeline ended in RuntimeError: .* 9 channels"),
        ("controlnet", "StableDiffusionControlNetImg2ImgPipeline ended in TypeError: image must"),
        ("edm", "scheduler = EDMEulerScheduler: must be one of a diffusion with betas"),
    ],
)
def test_pipelines_that_want_something_else_are_refused(
    family: Callable[[str], Path], name: str, said: str
) -> None:
    backend = load(family(name))
    with pytest.raises(ParameterError, match=said) as caught:
        backend.denoising_steps(0.5)
    assert "\n" not in str(caught.value)
    assert not hasattr(backend.pipe.scheduler.step, "__wrapped__")  # all is as it was


def test_faults_in_the_middle_of_the_work_are_one_line(
    family: Callable[[str], Path], make_originals: Make, streams: Streams
) -> None:
    backend = load(family("stable"), steps=4)
    assert backend.denoising_steps(0.5) == 2

    def fail(*_: Any) -> None:
        raise IndexError("index 7 is out of bounds\nof something")

    backend.pipe.unet.register_forward_pre_hook(fail)
    said = "model = .*StableDiffusionImg2ImgPipeline ended in IndexError: index 7 is out of bounds$"
    with pytest.raises(ParameterError, match=said):
        backend.generate(make_originals(1), 0.5, streams([0]))


@pytest.mark.parametrize("name", ["inpainting", "controlnet"])
@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["generate"]])
def test_before_anything_long_begins(
    family: Callable[[str], Path], command: Command, tmp_path: Path, name: str, words: list[str]
) -> None:
    out, model = tmp_path / "run", family(name)
    flags = ["--generator", f"hub:{model}", "--arm", "tada", "--strength", ".5", "--cpu"]
    code, said, err = command(*words, *flags, "--out", out)
    assert (code, said, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith(
        f"error: --generator hub:{model}: must be one that works here; its Stable"
    )
    assert not out.exists()


def test_the_plan_says_what_was_counted_and_chosen(
    family: Callable[[str], Path], command: Command, tmp_path: Path
) -> None:
    model = family("sd-turbo")
    flags = ["--preset", "cifar10-resnet18", "--generator", f"hub:{model}", "--arm", "tada"]
    code, said, _ = command("run", *flags, "--dry-run", "--out", tmp_path / "run")
    assert code == 0
    lines = [line for line in said.splitlines() if line.startswith("hub:")]
    reason = "EulerDiscreteScheduler with trailing timesteps, as distilled (turbo) models have"
    assert lines == [
        f"hub:{model}: at strength 0.5: 2 denoising steps",
        f"hub:{model}: denoising steps 4: {reason}",
        f"hub:{model}: guidance 1: {reason}",
    ]
    tada = next(line.split() for line in said.splitlines() if line.startswith("  tada"))
    assert tada[3:5] == ["60,000", "120,000"]
    flags[3] = "hub:nobody/nothing"
    code, said, _ = command("run", *flags, "--dry-run", "--out", tmp_path / "run")
    assert (code, "hub:nobody/nothing is not on this machine" in said) == (0, True)


# what suits it


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "why"),
    [
        ("stable", 50, 7.5, "the default of StableDiffusionImg2ImgPipeline"),
        ("sd-turbo", 4, 1.0, "EulerDiscreteScheduler with trailing timesteps"),
        ("sdxl-turbo", 4, 1.0, "EulerAncestralDiscreteScheduler with trailing timesteps"),
        ("lcm in stable", 4, 1.0, "LCMScheduler, as distilled models have"),
        ("lcm", 4, 8.5, "the default of LatentConsistencyModelImg2ImgPipeline"),
        ("if", 80, 10.0, "the default of IFImg2ImgPipeline"),
    ],
)
def test_values_that_suit_the_family(
    family: Callable[[str], Path], name: str, steps: int, guidance: float, why: str
) -> None:
    found = load(family(name))
    assert (found.steps, found.guidance) == (steps, guidance)
    assert [why in line for line in found.chosen[-2:]] == [True, True]
    said = load(family(name), steps=7, guidance=2.0)
    assert (said.steps, said.guidance) == (7, 2.0)
    assert not [line for line in said.chosen if "sampler" not in line]


def test_the_published_scheduler_is_one_that_begins_anywhere(
    family: Callable[[str], Path],
) -> None:
    found = load(family("stable"))
    assert type(found.pipe.scheduler).__name__ == "DDIMScheduler"
    assert "sampler ddim: the pipeline's own, PNDMScheduler" in found.chosen[0]
    own = PNDMScheduler(**PNDM).alphas_cumprod
    assert torch.allclose(found.pipe.scheduler.alphas_cumprod, own)
    assert found.pipe.scheduler.config["clip_sample"] is False  # DDIM's own default is True
    config = load(family("v"), scheduler="pndm").pipe.scheduler.config
    assert config["skip_prk_steps"] is True


# ranges of images


@pytest.mark.parametrize(("name", "signed"), [("if", True), ("stable", False)])
def test_black_stays_black_and_white_white(
    family: Callable[[str], Path], streams: Streams, name: str, signed: bool
) -> None:
    """With a network that finds nothing but the image it was given, and an autoencoder that keeps
    it."""
    backend = load(family(name), steps=20, guidance=1.0)
    pixels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    pixels[1] = 255
    shown: list[torch.Tensor] = []
    if name == "stable":
        # latents of four channels: the colours and nothing
        coder, pad = backend.pipe.vae, torch.nn.functional.pad
        scale = coder.config.scaling_factor

        def encode(images: torch.Tensor, *_: Any, **__: Any) -> Any:
            shown.append(images)
            half = torch.nn.functional.avg_pool2d(images, 2) / scale
            latents = pad(half, (0, 0, 0, 0, 0, 1))
            return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda *_: latents))

        def decode(latents: torch.Tensor, *_: Any, **__: Any) -> Any:
            return (latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2) * scale,)

        coder.encode, coder.decode = encode, decode
    else:
        mix = backend.pipe.scheduler.add_noise
        backend.pipe.scheduler.add_noise = lambda original_samples, noise, timesteps: (
            shown.append(original_samples) or mix(original_samples, noise, timesteps)
        )
    shares = backend.pipe.scheduler.alphas_cumprod

    def answer(noisy: torch.Tensor, timestep: Any, *_: Any, **__: Any) -> Any:
        share = float(shares[int(timestep)])
        clean = shown[-1] if name == "if" else shown[-1][..., ::2, ::2]
        if name == "stable":
            clean = torch.nn.functional.pad(clean, (0, 0, 0, 0, 0, 1))
        clean = clean.expand(noisy.shape[0], *clean.shape[1:])
        noise = network_output(clean, noisy, share, "epsilon")
        return (torch.cat([noise, torch.full_like(noise, -1)], 1) if name == "if" else noise,)

    backend.pipe.unet.forward = answer
    for level, image in ((0, pixels[:1]), (255, pixels[1:])):
        one = Originals(image, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        made = backend.generate(one, 0.5, streams([0])).float()
        assert (made - level).abs().mean() < 8
        assert float(shown[-1].mean()) == pytest.approx(2 * level / 255 - 1, abs=1e-4)
    assert backend._uses[0.5].takes_signed is signed
    assert backend._uses[0.5].gives_signed is signed


def test_from_noise_in_pixel_space(family: Callable[[str], Path], streams: Streams) -> None:
    """All levels, not only those above the middle, which -1 to 1 read as 0 to 1 leaves."""
    backend = load(family("if"), steps=10)
    first = torch.zeros(4, dtype=torch.int64)
    grey = Originals(torch.full((4, 3, 16, 16), 128, dtype=torch.uint8), first, first)
    made = FromNoise(backend).generate(grey, 1.0, streams(range(4))).float()
    assert (made < 100).float().mean() > 0.1
    assert (made > 156).float().mean() > 0.1


# through an ideal network


SCHEDULERS = (
    None, "ddim", "ddpm", "pndm", "euler", "euler-ancestral", "heun", "dpm++", "unipc",
    "DEISMultistepScheduler", "LMSDiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
)  # fmt: skip
ALWAYS = (None, "ddim", "ddpm", "euler", "euler-ancestral", "dpm++", "unipc")


def ideal(backend: Hub, levels: list[float]) -> Callable[..., Any]:
    """The network's forward: what it answers where latents are N(mu, s^2)."""
    scheduler = backend.pipe.scheduler
    shares = DDPMScheduler(**BETAS).alphas_cumprod.double()
    kind = scheduler.config["prediction_type"]

    def forward(noisy: torch.Tensor, timestep: Any, *_: Any, **__: Any) -> Any:
        low = math.floor(float(timestep))
        part, high = float(timestep) - low, min(low + 1, 999)
        odds = [math.log(shares[t] / (1 - shares[t])) for t in (low, high)]
        share = 1 / (1 + math.exp(-(odds[0] + part * (odds[1] - odds[0]))))
        levels.append(share)
        a = share**0.5
        clean = MU + a * S**2 / (share * S**2 + 1 - share) * (noisy - a * MU)
        return (network_output(clean, noisy, share, kind),)

    return forward


def first_order(shares: list[float]) -> float:
    """The lower spread of DDIM and DDPM through these ᾱ: `test_ideal_network` has them apart."""
    still = drawn = shares[0] * S**2 + 1 - shares[0]
    for here, there in zip(shares, [*shares[1:], 1.0], strict=True):
        regression = here**0.5 * S**2 / (here * S**2 + 1 - here)
        noise = (1 - here**0.5 * regression) / (1 - here) ** 0.5
        still *= (there**0.5 * regression + (1 - there) ** 0.5 * noise) ** 2
        alpha = here / there
        slope = there**0.5 * (1 - alpha) / (1 - here) * regression
        slope += alpha**0.5 * (1 - there) / (1 - here)
        drawn = slope**2 * drawn + (1 - there) / (1 - here) * (1 - alpha)
    return min(still, drawn) ** 0.5


@pytest.mark.parametrize("name", ["stable", "v"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_mean_and_spread(
    family: Callable[[str], Path],
    make_originals: Make,
    streams: Streams,
    name: str,
    scheduler: str | None,
) -> None:
    """Of latents that the whole pipeline makes, its own loop included, of four images."""
    loaded, refused = load(family(name), steps=2, scheduler=scheduler), []
    coder, levels, found = loaded.pipe.vae, [], []
    scale = coder.config.scaling_factor

    def encode(images: torch.Tensor, *_: Any, **__: Any) -> Any:
        stream = torch.Generator().manual_seed(5)
        shape = (len(images), 4, 16, 16)
        latents = (MU + S * torch.randn(shape, generator=stream)) / scale
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda *_: latents))

    def decode(latents: torch.Tensor, *_: Any, **__: Any) -> Any:
        found.append(latents * scale)
        return (latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2),)

    shown = make_originals(4)
    coder.encode, coder.decode = encode, decode
    loaded.pipe.unet.forward = ideal(loaded, levels)
    grid = [(2, 0.5), (2, 1.0), (5, 0.3), (5, 1.0), (10, 0.1), (10, 0.8), (50, 0.2), (50, 1.0)]
    for steps, strength in grid if name == "stable" else grid[2:5]:
        backend = dataclasses.replace(loaded, steps=steps, _uses={}, _answers={})
        try:
            backend.denoising_steps(strength)
        except ParameterError as error:
            own = type(loaded.pipe.scheduler).__name__
            assert (error.name, error.value) == ("scheduler", scheduler or own)  # noqa: PT017
            refused.append((steps, strength))
            continue
        levels.clear()
        backend.generate(shown, strength, streams(range(4)))
        shares = [s for s, earlier in zip(levels, [0, *levels], strict=False) if s > earlier]
        latents = found[-1]
        luck = 5 * S / latents.numel() ** 0.5
        where = f"{steps} steps, strength {strength}"
        assert float(latents.mean()) == pytest.approx(MU, abs=0.04 + luck), where
        least = first_order(shares) - 0.045 - luck
        assert least <= float(latents.std()) <= S + 0.045 + luck, where
    assert scheduler not in ALWAYS or not refused
    if scheduler == "pndm" and name == "stable":
        assert (2, 1.0) in refused
