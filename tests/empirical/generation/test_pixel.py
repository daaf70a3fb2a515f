"""The pixel backend: what an image depends on, trajectories, and models that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from common.errors import ParameterError
from empirical.generation.base import Backend, HasSample, HasTrajectory, Originals
from empirical.generation.from_noise import FromNoise
from empirical.generation.pixel import Pixel, load_pixel
from empirical.generation.sampling import ALIASES, Sampling

Make = Callable[..., Originals]
Streams = Callable[..., list[torch.Generator]]

pytestmark = pytest.mark.filterwarnings(
    # some schedulers turn a tensor into an array the old way
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


def load(folder: Path, sampling: Sampling | None = None, **values: int) -> Pixel:
    shape = {"channels": 3, "side": 8, "n_classes": 3} | values
    return load_pixel(folder, sampling=sampling or Sampling(steps=5), **shape)


def test_it_is_a_backend(conditional: Path) -> None:
    backend: Backend = load(conditional)
    assert isinstance(backend, HasTrajectory)
    assert isinstance(backend, HasSample)
    assert backend.name == "pixel"


@pytest.mark.parametrize("scheduler", ALIASES)
def test_an_image_does_not_depend_on_its_batch(
    conditional: Path,
    make_originals: Make,
    streams: Streams,
    apart: Callable[..., int],
    scheduler: str,
) -> None:
    """Also where the sampler draws noise at every step."""
    backend = load(conditional, Sampling(scheduler, steps=4, guidance=2.0))
    n = 16 if scheduler == "ddpm" else 4
    originals = make_originals(n)
    whole = backend.generate(originals, 0.8, streams(range(n)))
    assert (whole.shape, whole.dtype) == (originals.pixels.shape, torch.uint8)
    for size in (1, 3):
        pieces = [
            backend.generate(originals.rows(torch.tensor(rows)), 0.8, streams(rows))
            for rows in [list(range(i, min(i + size, n))) for i in range(0, n, size)]
        ]
        assert apart(torch.cat(pieces), whole) <= 1
    assert torch.equal(backend.generate(originals, 0.8, streams(range(n))), whole)
    assert apart(backend.generate(originals, 0.8, streams(range(1, n + 1))), whole) > 1


def test_ddim_with_eta_draws_noise(
    conditional: Path, make_originals: Make, streams: Streams
) -> None:
    originals = make_originals(2)
    made = [
        load(conditional, Sampling(steps=5, eta=eta)).generate(originals, 0.8, streams([0, 1]))
        for eta in (0.0, 1.0)
    ]
    assert not torch.equal(*made)


def test_steps_are_counted_and_truncation_is_refused(conditional: Path) -> None:
    backend = load(conditional)
    assert [backend.denoising_steps(strength) for strength in (0.2, 0.39, 0.4, 1.0)] == [1, 1, 2, 5]
    with pytest.raises(ParameterError, match=r"strength = 0.19: must be at least 0.2"):
        backend.denoising_steps(0.19)
    fixed = load(conditional, Sampling(steps=5, fixed_steps=True))
    assert fixed.denoising_steps(0.19) == 5


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "heun", "pndm"])
@pytest.mark.parametrize("kept", ["prediction", "image"])
def test_a_trajectory_ends_at_the_image(
    conditional: Path, make_originals: Make, streams: Streams, scheduler: str, kept: str
) -> None:
    backend, originals = load(conditional, Sampling(scheduler, steps=5)), make_originals(2)
    made = backend.trajectory(originals, 0.8, streams([0, 1]), [1, 3, 4], kept)  # type: ignore[arg-type]
    assert made.shape == (2, 3, 3, 8, 8)
    assert torch.equal(made[:, -1], backend.generate(originals, 0.8, streams([0, 1])))
    assert not torch.equal(made[:, 0], made[:, 1])


def test_kept_images_are_noisier_than_kept_predictions(
    save_pixel: Callable[..., Path], make_originals: Make, streams: Streams
) -> None:
    """Of a grey original, by a network that is sure of it."""
    schedule = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    backend = load(save_pixel(schedule))
    for parameter in backend.unet.parameters():
        parameter.data.zero_()
    images, predictions = (
        backend.trajectory(make_originals(1), 0.8, streams([0]), [1, 2, 3, 4], kept).float()  # type: ignore[arg-type]
        for kept in ("image", "prediction")
    )
    assert (predictions - 127.5).abs().max() <= 0.5
    spread = images.std(dim=(0, 2, 3, 4))
    assert spread.tolist() == sorted(spread.tolist(), reverse=True)
    assert spread[0] > 30
    assert spread[-1] < 1


@pytest.mark.parametrize("keep", [[], [0, 4], [2, 1], [1, 5], [3, 3]])
def test_impossible_steps_of_a_trajectory_are_refused(
    conditional: Path, make_originals: Make, streams: Streams, keep: list[int]
) -> None:
    with pytest.raises(ParameterError, match=r"keep = .*between 1 and 4"):
        load(conditional).trajectory(make_originals(1), 0.8, streams([0]), keep)


def test_the_weaker_the_nearer(
    conditional: Path, make_originals: Make, streams: Streams, apart: Callable[..., int]
) -> None:
    originals, backend = make_originals(4), load(conditional, Sampling(steps=50))
    far = [
        (backend.generate(originals, strength, streams(range(4))).float() - originals.pixels)
        .abs()
        .mean()
        .item()
        for strength in (0.02, 0.2, 0.9)
    ]
    assert far == sorted(far)
    assert far[0] < 10


def test_labels_and_guidance_matter(
    conditional: Path, unconditional: Path, make_originals: Make, streams: Streams
) -> None:
    originals = make_originals(3)
    other = Originals(originals.pixels, originals.labels.flip(0), originals.indices)

    def make(folder: Path, of: Originals, guidance: float) -> torch.Tensor:
        backend = load(folder, Sampling(steps=5, guidance=guidance))
        return backend.generate(of, 1.0, streams(range(3)))

    plain = make(conditional, originals, 1.0)
    assert not torch.equal(plain, make(conditional, other, 1.0))
    assert not torch.equal(plain, make(conditional, originals, 5.0))
    assert torch.equal(make(unconditional, originals, 1.0), make(unconditional, other, 1.0))


def test_from_noise_nothing_of_the_original_is_left(
    conditional: Path, make_originals: Make, streams: Streams
) -> None:
    backend = load(conditional)
    blind = FromNoise(backend)
    originals = make_originals(3)
    black = Originals(torch.zeros_like(originals.pixels), originals.labels, originals.indices)
    made = blind.generate(originals, 1.0, streams(range(3)))
    assert torch.equal(made, blind.generate(black, 1.0, streams(range(3))))
    assert (blind.name, blind.denoising_steps(1.0)) == ("pixel from noise", 5)
    assert blind.digest != backend.digest
    with pytest.raises(ParameterError, match=r"strength = 0.9: must be 1"):
        blind.generate(originals, 0.9, streams(range(3)))


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "heun"])
def test_from_noise_starts_at_the_noise_that_the_scheduler_wants(
    save_pixel: Callable[..., Path], streams: Streams, scheduler: str
) -> None:
    """The first input of the network has variance one."""
    backend = load(save_pixel(DDPMScheduler(1000)), Sampling(scheduler, steps=20))
    seen: list[torch.Tensor] = []
    backend.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    backend.sample(torch.zeros(50, dtype=torch.int64), (3, 8, 8), streams(range(50)))
    assert seen[0].std().item() == pytest.approx(1, abs=0.02)


def test_no_originals_give_no_images(conditional: Path, make_originals: Make) -> None:
    backend = load(conditional)
    assert backend.generate(make_originals(0), 0.5, []).shape == (0, 3, 8, 8)
    assert backend.trajectory(make_originals(0), 0.8, [], [1, 2]).shape == (0, 2, 3, 8, 8)
    assert backend.sample(torch.zeros(0, dtype=torch.int64), (3, 8, 8), []).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(("channels", "side", "size"), [(3, 7, 8), (3, 8, 8), (1, 28, 28)])
def test_sides_that_need_a_frame(
    save_pixel: Callable[..., Path],
    make_originals: Make,
    streams: Streams,
    channels: int,
    side: int,
    size: int,
) -> None:
    """7x7 is padded to 8x8; 28x28 grey pixels are 4 times 14x14 to this model."""
    inside = {1: 4, 3: 3}[channels]
    side_inside = size // 2 if channels == 1 else size
    folder = save_pixel(in_channels=inside, out_channels=inside, sample_size=side_inside)
    backend = load(folder, channels=channels, side=side)
    originals = make_originals(2, channels, side)
    assert backend.generate(originals, 0.6, streams([0, 1])).shape == originals.pixels.shape


def test_the_digest_tells_models_and_samplers_apart(
    conditional: Path, unconditional: Path, save_pixel: Callable[..., Path]
) -> None:
    first = load(conditional)
    assert load(save_pixel(num_class_embeds=4)).digest == first.digest  # the same in another folder
    others = [
        load(unconditional),
        load(conditional, Sampling(steps=6)),
        load(save_pixel(DDPMScheduler(1000), num_class_embeds=4)),
    ]
    assert len({backend.digest for backend in [first, *others]}) == 4


def test_the_layout_of_the_first_public_checkpoints(
    unconditional: Path, tmp_path: Path, make_originals: Make, streams: Streams
) -> None:
    """All files in one folder."""
    for file in [*(unconditional / "unet").iterdir(), *(unconditional / "scheduler").iterdir()]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load(tmp_path).digest == load(unconditional).digest


def test_pickled_weights(unconditional: Path, tmp_path: Path) -> None:
    """Public checkpoints also come as .bin files."""
    pipeline = DDPMPipeline.from_pretrained(unconditional, low_cpu_mem_usage=False)
    pipeline.save_pretrained(tmp_path / "model", safe_serialization=False)
    assert load(tmp_path / "model").digest == load(unconditional).digest


def copy(folder: Path, to: Path) -> Path:
    for file in folder.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize(
    "damage",
    ["cut weights", "no weights", "cut config", "no folder", "other config", "no schedule"],
)
def test_damaged_folders_are_one_line(unconditional: Path, tmp_path: Path, damage: str) -> None:
    folder = copy(unconditional, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    config = folder / "unet" / "config.json"
    if damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut config":
        config.write_text(config.read_text()[:100])
    elif damage == "no folder":
        folder = tmp_path / "nowhere"
    elif damage == "other config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"layers_per_block": 2}))
    else:
        (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ParameterError, match=r"model = .*must be ") as caught:
        load_pixel(folder, 3, 8, 3, local_files_only=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"channels": 1}, "one for 1 channels; it takes 3"),
        ({"side": 16}, "16x16 pixels; it is for 8x8"),
        ({"side": 6}, "6x6 pixels; it is for 8x8"),
        ({"n_classes": 10}, "10 classes .*; it has 4"),
    ],
)
def test_models_for_other_images_are_refused(
    conditional: Path, values: dict[str, int], said: str
) -> None:
    with pytest.raises(ParameterError, match=f"model = .*{said}"):
        load(conditional, **values)


def test_guidance_without_a_null_class_is_refused(
    unconditional: Path, save_pixel: Callable[..., Path]
) -> None:
    for folder in (unconditional, save_pixel(num_class_embeds=3)):
        with pytest.raises(ParameterError, match=r"guidance = 3.0: must be 1"):
            load(folder, Sampling(guidance=3.0))


def test_learned_variances_are_refused(save_pixel: Callable[..., Path]) -> None:
    with pytest.raises(ParameterError, match=r"output channels as input channels: 3, not 6"):
        load(save_pixel(out_channels=6))


@pytest.mark.parametrize(
    "kind",
    [
        diffusers.CMStochasticIterativeScheduler,
        diffusers.FlowMatchEulerDiscreteScheduler,
        diffusers.EDMEulerScheduler,
        diffusers.ScoreSdeVeScheduler,
        diffusers.LCMScheduler,
        diffusers.UnCLIPScheduler,
    ],
)
def test_models_of_another_kind_of_diffusion_are_refused(
    save_pixel: Callable[..., Path], kind: type
) -> None:
    """Their networks take other noise, other times, or answer something else."""
    folder = save_pixel()
    kind().save_pretrained(folder / "scheduler")
    with pytest.raises(ParameterError, match=f"DDPMScheduler or the like .*{kind.__name__}"):
        load(folder)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (
            diffusers.EulerDiscreteScheduler(timestep_type="continuous"),
            "EulerDiscreteScheduler and timestep_type = continuous",
        ),
        (
            diffusers.UniPCMultistepScheduler(use_flow_sigmas=True),
            "UniPCMultistepScheduler and use_flow_sigmas = True",
        ),
        (
            diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"),
            "predicts epsilon, sample, v_prediction, not flow_prediction",
        ),
    ],
)
def test_options_that_make_it_another_kind_are_refused(
    save_pixel: Callable[..., Path], schedule: diffusers.SchedulerMixin, said: str
) -> None:
    folder = save_pixel()
    schedule.save_pretrained(folder / "scheduler")
    with pytest.raises(ParameterError, match=said):
        load(folder)


@pytest.mark.parametrize(
    "kind",
    [diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler, diffusers.DEISMultistepScheduler],
)
def test_models_that_other_schedulers_came_with_are_the_same(
    save_pixel: Callable[..., Path],
    make_originals: Make,
    streams: Streams,
    kind: type,
) -> None:
    betas = {"beta_start": 1e-4, "beta_end": 0.02}
    plain = load(save_pixel(DDPMScheduler(1000, **betas)))
    folder = save_pixel()
    kind(num_train_timesteps=1000, **betas).save_pretrained(folder / "scheduler")
    made = [
        backend.generate(make_originals(2), 0.8, streams([0, 1]))
        for backend in (plain, load(folder))
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_of_the_type_asked_for(
    conditional: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    assert load_pixel(conditional, 3, 8, 3, dtype=dtype).unet.dtype == dtype
    if dtype != torch.float32:
        monkeypatch.setattr("empirical.generation.pixel.DTYPE", "type_of_numbers")
        with pytest.raises(ParameterError, match=f"dtype = {str(dtype)[6:]}: must be one that"):
            load_pixel(conditional, 3, 8, 3, dtype=dtype)


def test_wrong_images_are_refused(
    conditional: Path, make_originals: Make, streams: Streams
) -> None:
    backend = load(conditional)
    with pytest.raises(ParameterError, match=r"image shape = \(1, 8, 8\)"):
        backend.generate(make_originals(1, channels=1), 0.8, streams([0]))
    with pytest.raises(ParameterError, match="label = 5: must be below 3"):
        backend.generate(make_originals(6, n_classes=6), 0.8, streams(range(6)))
    with pytest.raises(ParameterError, match="streams = 1"):
        backend.generate(make_originals(2), 0.8, streams([0]))
