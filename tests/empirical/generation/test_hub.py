"""The hub backend on tiny pipelines of three families, saved and loaded as the public ones are."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from common.errors import ParameterError
from empirical.generation import hub as module
from empirical.generation.base import Backend, HasSample, HasTrajectory, Originals
from empirical.generation.from_noise import FromNoise
from empirical.generation.hub import Hub, HubSettings, load_hub
from empirical.generation.variants import Variants, generate

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings(
    # some schedulers turn a tensor into an array the old way
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)

CLASSES = ("cat, house cat", "red_dog", "ship")
FAMILIES = ("sd1", "sdxl", "sd3")

Make = Callable[..., Originals]
Streams = Callable[..., list[torch.Generator]]


def tokenizer() -> Any:
    """One token for each letter, which is all that byte-pair encoding has without merges."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:  # files, which every version takes
        files = [Path(folder, "vocab.json"), Path(folder, "merges.txt")]
        files[0].write_text(json.dumps({word: number for number, word in enumerate(words)}))
        files[1].write_text("#version: 0.2\n")
        return transformers.CLIPTokenizer(*map(str, files), model_max_length=77)


def text_encoder(kind: str) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return getattr(transformers, kind)(config)


def vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        shift_factor=0.1,
    )


def unet(**values: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        **values,
    )


def safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    config = transformers.CLIPConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        projection_dim=16,
    )
    return StableDiffusionSafetyChecker(config)


def sd1() -> Any:
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder("CLIPTextModel"),
        tokenizer=tokenizer(),
        unet=unet(cross_attention_dim=32),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=safety_checker(),
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )


def sdxl() -> Any:
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_encoder("CLIPTextModel"),
        text_encoder_2=text_encoder("CLIPTextModelWithProjection"),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            cross_attention_dim=64,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=80,
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
    )


def sd3() -> Any:
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=text_encoder("CLIPTextModelWithProjection"),
        tokenizer=tokenizer(),
        text_encoder_2=text_encoder("CLIPTextModelWithProjection"),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved pipeline of each family."""
    root = tmp_path_factory.mktemp("pipelines")
    with torch.random.fork_rng(devices=[]):
        for name, make in {"sd1": sd1, "sdxl": sdxl, "sd3": sd3}.items():
            torch.manual_seed(0)
            make().save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


def load(folder: Path, **values: Any) -> Hub:
    known = {"steps": 4, "local_files_only": True} | values
    return load_hub(CLASSES, HubSettings(str(folder), **known))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_does_not_depend_on_its_batch(
    folders: dict[str, Path],
    make_originals: Make,
    streams: Streams,
    apart: Callable[..., int],
    family: str,
) -> None:
    backend: Backend = load(folders[family])
    originals = make_originals(16)
    whole = backend.generate(originals, 0.75, streams(range(16)))
    assert (whole.shape, whole.dtype) == (originals.pixels.shape, torch.uint8)
    for size in (1, 3):
        pieces = [
            backend.generate(originals.rows(torch.tensor(rows)), 0.75, streams(rows))
            for rows in [list(range(i, min(i + size, 16))) for i in range(0, 16, size)]
        ]
        assert apart(torch.cat(pieces), whole) <= 1
    assert apart(backend.generate(originals, 0.75, streams(range(1, 17))), whole) > 1
    assert (backend.name, isinstance(backend, HasTrajectory)) == ("hub", False)


def test_noise_drawn_at_every_step_is_the_images_own(
    folders: dict[str, Path], make_originals: Make, streams: Streams, apart: Callable[..., int]
) -> None:
    backend = load(folders["sd1"], scheduler="euler-ancestral")
    originals = make_originals(4)
    whole = backend.generate(originals, 0.75, streams(range(4)))
    last = backend.generate(originals.rows(slice(3, 4)), 0.75, streams([3]))
    assert apart(last, whole[3:]) <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_promised_are_done(
    folders: dict[str, Path],
    make_originals: Make,
    streams: Streams,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    """Also where the families round differently."""
    backend = load(folders[family])
    kind, calls = type(backend.pipe.scheduler), []
    step = kind.step

    @functools.wraps(step)
    def counted(*values: Any, **named: Any) -> Any:
        calls.append(1)
        return step(*values, **named)

    monkeypatch.setattr(kind, "step", counted)
    for strength in (0.3, 0.5, 0.7, 1.0):
        backend.denoising_steps(strength)  # tried once
        calls.clear()
        backend.generate(make_originals(1), strength, streams([0]))
        assert len(calls) == backend.denoising_steps(strength)
    if family == "sd3":
        assert backend.denoising_steps(0.1) == 1  # it rounds up
    else:
        with pytest.raises(ParameterError, match=r"strength = 0.1: must be at least 0.25"):
            backend.denoising_steps(0.1)
        with pytest.raises(ParameterError, match=r"strength = 0.1: must be at least 0.25"):
            backend.generate(make_originals(1), 0.1, streams([0]))
    with pytest.raises(ParameterError, match=r"strength = 1.1: must be in \(0, 1\]"):
        backend.denoising_steps(1.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_noise_nothing_of_the_original_is_left(
    folders: dict[str, Path], make_originals: Make, streams: Streams, family: str
) -> None:
    backend = load(folders[family])
    assert isinstance(backend, HasSample)
    blind, originals = FromNoise(backend), make_originals(2)
    black = Originals(torch.zeros_like(originals.pixels), originals.labels, originals.indices)
    made = blind.generate(originals, 1.0, streams([0, 1]))
    assert made.shape == originals.pixels.shape
    assert torch.equal(made, blind.generate(black, 1.0, streams([0, 1])))
    assert blind.denoising_steps(1.0) == 4


def test_prompts_guidance_and_images_matter(
    folders: dict[str, Path], make_originals: Make, streams: Streams
) -> None:
    originals = make_originals(2)

    def make(classes: tuple[str, ...] = CLASSES, **values: Any) -> torch.Tensor:
        known = {"steps": 4, "local_files_only": True} | values
        backend = load_hub(classes, HubSettings(str(folders["sd1"]), **known))
        return backend.generate(originals, 1.0, streams([0, 1]))

    plain = make()
    assert torch.equal(plain, make(("cat", "red dog", "anything")))
    assert not torch.equal(plain, make(("bird", "red dog", "ship")))
    assert not torch.equal(plain, make(guidance=9.0))
    assert not torch.equal(plain, make(negative_prompt="blurred", guidance=9.0))
    assert not torch.equal(plain, make(prompt="{class} at night"))


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_images_of_any_size_and_grey_ones(
    folders: dict[str, Path], make_originals: Make, streams: Streams, channels: int, side: int
) -> None:
    backend, originals = load(folders["sd1"]), make_originals(2, channels, side)
    assert backend.size == 32
    assert backend.generate(originals, 0.5, streams([0, 1])).shape == originals.pixels.shape
    assert backend.generate(originals.rows(slice(0)), 0.5, []).shape == (0, channels, side, side)
    assert load(folders["sd1"], size=64).size == 64


def test_all_copies_of_all_originals(
    folders: dict[str, Path], make_originals: Make, apart: Callable[..., int]
) -> None:
    backend, originals = load(folders["sd1"]), make_originals(3)
    one, two = (
        generate(backend, originals, Variants(3, (0.5, 1.0)), seed=0, batch=batch)
        for batch in (1, 3)
    )
    assert one.shape == (3, 2, 3, 8, 8)
    assert apart(one, two) <= 1


def test_the_digest_tells_pipelines_prompts_and_settings_apart(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    first = load(folders["sd1"])
    shutil.copytree(folders["sd1"], tmp_path / "copy")
    assert load(tmp_path / "copy").digest == first.digest
    others = [
        load(folders["sdxl"]),
        load(folders["sd1"], steps=5),
        load(folders["sd1"], guidance=1.0),
        load(folders["sd1"], scheduler="dpm++"),
        load(folders["sd1"], size=16),
        load(folders["sd1"], prompt="{class}"),
        load_hub(("a", "b", "c"), first.settings),
    ]
    assert len({backend.digest for backend in [first, *others]}) == 8


def test_the_safety_checker_is_off_or_reports(
    folders: dict[str, Path],
    make_originals: Make,
    streams: Streams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(folders["sd1"]).pipe.safety_checker is None
    backend, said = load(folders["sd1"], safety_checker=True), []
    monkeypatch.setattr(module, "say", said.append)
    # so that it finds everything unsafe
    backend.pipe.safety_checker.concept_embeds_weights.data.fill_(-2)
    made = backend.generate(make_originals(2), 0.5, streams([0, 1]))
    assert int(made.max()) == 0
    assert said == [f"the safety checker made the image of original {i} black" for i in (100, 101)]


def test_nothing_is_printed(
    folders: dict[str, Path],
    make_originals: Make,
    streams: Streams,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No bars and no warnings."""
    for family in FAMILIES:
        backend = load(folders[family])
        backend.generate(make_originals(1), 0.5, streams([0]))
        backend.sample(torch.tensor([0]), (3, 8, 8), streams([0]))
    out, err = capfd.readouterr()
    # diffusers 0.42 says so of an empty list of modules, depending on what the process did before
    spurious = "that should be kept in float32: []"
    assert (out, [line for line in err.splitlines() if spurious not in line]) == ("", [])


def test_an_explicit_class(folders: dict[str, Path]) -> None:
    backend = load(folders["sd1"], pipeline="StableDiffusionImg2ImgPipeline")
    assert type(backend.pipe).__name__ == "StableDiffusionImg2ImgPipeline"
    assert backend.digest == load(folders["sd1"]).digest


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (
            "StableDiffusionPipeline",
            "StableDiffusionPipeline: must be an image-to-image .* 'image'",
        ),
        ("FluxKontextPipeline", "FluxKontextPipeline: must be an image-to-image .* 'strength'"),
        ("UNet2DModel", "UNet2DModel: must be the name of a pipeline"),
        ("NoSuchPipeline", "NoSuchPipeline: must be the name of a pipeline"),
    ],
)
def test_pipelines_without_strength_are_refused(
    folders: dict[str, Path], pipeline: str, said: str
) -> None:
    with pytest.raises(ParameterError, match=f"pipeline = {said}"):
        load(folders["sd1"], pipeline=pipeline)


@pytest.mark.parametrize(
    "damage",
    [
        "no folder",
        "cut index",
        "unknown class",
        "cut weights",
        "no weights",
        "no unet",
        "tokenizer",
    ],
)
def test_damaged_folders_are_one_line(
    folders: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "model"
    if damage != "no folder":
        shutil.copytree(folders["sd1"], folder)
        index = folder / "model_index.json"
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        if damage == "cut index":
            index.write_text(index.read_text()[:50])
        elif damage == "unknown class":
            values = json.loads(index.read_text()) | {"_class_name": "AudioPipeline"}
            index.write_text(json.dumps(values))
        elif damage == "cut weights":
            weights.write_bytes(weights.read_bytes()[:-1000])
        elif damage == "no weights":
            weights.unlink()
        elif damage == "no unet":
            shutil.rmtree(folder / "unet")
        else:
            for file in (folder / "tokenizer").iterdir():
                file.write_text("{")
    with pytest.raises(ParameterError, match=r"model = .*must be a whole image-to-image") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "prompt", "said"),
    [
        ((), "a {class}", "classes = "),
        (("cat", " "), "a {class}", "classes = "),
        (("cat",), "a photo", "prompt = "),
    ],
)
def test_missing_class_names_are_refused(
    folders: dict[str, Path], classes: tuple[str, ...], prompt: str, said: str
) -> None:
    settings = HubSettings(str(folders["sd1"]), prompt=prompt)
    with pytest.raises(ParameterError, match=said):
        load_hub(classes, settings)


def test_labels_without_a_class_name_are_refused(
    folders: dict[str, Path], make_originals: Make, streams: Streams
) -> None:
    with pytest.raises(ParameterError, match="label = 4: must be below 3"):
        load(folders["sd1"]).generate(make_originals(5, n_classes=5), 0.5, streams(range(5)))


def test_schedulers_of_another_kind_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ParameterError, match="one that fits the pipeline's own, DDIMScheduler"):
        load(folders["sd1"], scheduler="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ParameterError, match="FlowMatchEulerDiscreteScheduler"):
        load(folders["sd3"], scheduler="ddim")


def test_images_that_are_not_numbers_are_refused(
    folders: dict[str, Path], make_originals: Make, streams: Streams
) -> None:
    """As some autoencoders give in half precision."""
    backend = load(folders["sd1"])
    backend.pipe.vae.post_quant_conv.weight.data.fill_(float("nan"))
    with pytest.raises(ParameterError, match="dtype = float32: must be one in which"):
        backend.generate(make_originals(1), 0.5, streams([0]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_of_the_type_asked_for(
    folders: dict[str, Path], family: str, dtype: str
) -> None:
    """Whatever this diffusers calls it; also in the sister pipeline that begins at noise."""
    backend = load(folders[family], dtype=dtype)
    sister = backend._pipe(None)
    for pipe in (backend.pipe, sister, backend.pipe):
        for name in ("unet", "transformer", "vae", "text_encoder"):
            part = getattr(pipe, name, None)
            if part is not None:
                assert part.dtype == getattr(torch, dtype), name


def test_another_type_than_asked_for_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a diffusers loads that calls it by another word, and passes over ours."""
    monkeypatch.setattr(module, "DTYPE", "type_of_numbers")
    with pytest.raises(ParameterError, match="dtype = float16: must be one that this diffusers"):
        load(folders["sd1"], dtype="float16")


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"size": 4}, {"guidance": -1.0}, {"dtype": "int8"}, {"scheduler": "nonsense"}],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(values))} = "):
        dataclasses.replace(HubSettings("model"), **values)
