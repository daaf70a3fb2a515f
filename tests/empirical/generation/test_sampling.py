"""Every scheduler, started in the middle: its timesteps, its noise, and the way back."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from common.errors import ParameterError
from empirical.config.strength import grid
from empirical.generation.sampling import (
    ALIASES,
    PREDICTIONS,
    SPACINGS,
    Sampling,
    clean_and_noise,
    denoising,
    signal_share,
    step_arguments,
)

SCHEDULE = dict(DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").config)
LINEAR = dict(DDPMScheduler(1000).config)

SCHEDULERS = (
    *ALIASES,
    "DEISMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
)

pytestmark = pytest.mark.filterwarnings(
    # some schedulers turn a tensor into an array the old way
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
)


@pytest.mark.parametrize(
    ("strength", "expected"),
    [(1.0, 50), (0.5, 25), (0.58, 29), (0.35, 17), (0.02, 1), (0.999, 49)],
)
def test_steps_are_the_share_of_the_whole(strength: float, expected: int) -> None:
    assert grid(50, False, strength) == (50, expected)


def test_fixed_steps_cut_the_trajectory_finer() -> None:
    assert grid(8, True, 1.0) == (8, 8)
    assert grid(8, True, 0.5) == (16, 8)
    assert grid(8, True, 0.008) == (1000, 8)
    with pytest.raises(ParameterError, match=r"strength = 0.007: must be at least 0.008"):
        grid(8, True, 0.007)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan")])
def test_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ParameterError, match=r"strength = .*in \(0, 1\]"):
        grid(50, False, strength)


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"strength = 0.019: must be at least 0.02"):
        grid(50, False, 0.019)


def test_more_steps_than_the_diffusion_has_are_refused() -> None:
    with pytest.raises(ParameterError, match="steps = 1001"):
        grid(1001, False, 1.0)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++", "euler", "unipc"])
def test_timesteps_begin_at_the_strength(name: str) -> None:
    way = denoising(SCHEDULE, Sampling(name, steps=10), 0.6)
    assert way.calls.tolist() == [599, 499, 399, 299, 199, 99]
    assert way.step_of == (1, 2, 3, 4, 5, 6)
    assert getattr(way.scheduler, "begin_index", 4) == 4


def test_steps_of_two_calls() -> None:
    heun = denoising(SCHEDULE, Sampling("heun", steps=4), 0.5)
    assert heun.calls.tolist() == [499, 249, 249]
    assert heun.step_of == (1, 1, 2)
    pndm = denoising(SCHEDULE, Sampling("pndm", steps=4), 0.75)
    assert pndm.calls.tolist() == [749, 499, 499, 249]
    assert pndm.step_of == (1, 1, 2, 3)
    for name in ("pndm", "heun"):
        way = denoising(SCHEDULE, Sampling(name, steps=4), 0.25)
        assert (way.calls.tolist(), way.step_of) == ([249], (1,))


def refused(name: str, strength: float, spacing: str) -> bool:
    """Ways that end at the known image and still are wrong for other laws (`test_ideal_network`)"""
    if spacing == "trailing":
        return name in ("pndm", "heun") and strength == 1
    return name in ("heun", "KDPM2DiscreteScheduler") and strength >= 0.6


@pytest.mark.parametrize(
    ("spacing", "schedule"),
    [("trailing", SCHEDULE), ("leading", LINEAR), ("linspace", LINEAR)],
    ids=SPACINGS,
)
@pytest.mark.parametrize("strength", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_perfect_prediction_gives_the_image_back(
    name: str, strength: float, spacing: str, schedule: dict[str, object]
) -> None:
    """A network that knows the images: every way down ends at them, whatever is drawn."""
    if refused(name, strength, spacing):
        with pytest.raises(ParameterError, match="one that takes an ideal network to images"):
            denoising(schedule, Sampling(name, steps=10, spacing=spacing), strength)
        return
    way = denoising(schedule, Sampling(name, steps=10, spacing=spacing), strength)
    streams = [torch.Generator().manual_seed(seed) for seed in range(3)]
    clean = torch.linspace(-0.9, 0.9, 48).reshape(3, 1, 4, 4)
    noise = torch.stack([torch.randn(1, 4, 4, generator=stream) for stream in streams])
    images = way.scheduler.add_noise(clean, noise, way.calls[:1].expand(3))
    for timestep in way.calls:
        noisy = way.scheduler.scale_model_input(images, timestep)
        share = signal_share(way.scheduler, timestep)
        found, noise = clean_and_noise(clean, noisy, share, "sample", clip=True)
        assert torch.equal(found, clean)
        extra = step_arguments(way.scheduler, streams, 0.0)
        images = way.scheduler.step(noise, timestep, images, **extra).prev_sample
    short_of_clean = name in ("pndm", "DEISMultistepScheduler")  # they end at timestep 0
    assert (images - clean).abs().max() < (0.1 if short_of_clean else 0.001)


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("LMSDiscreteScheduler", 0.1),
        ("pndm", 1.0),
        ("heun", 1.0),
        ("DPMSolverMultistepInverseScheduler", 0.5),
        ("RePaintScheduler", 0.5),
    ],
)
def test_schedulers_that_go_wrong_without_a_word_are_refused(name: str, strength: float) -> None:
    with pytest.raises(ParameterError, match=f"scheduler = {name}: must be one that takes an"):
        denoising(SCHEDULE, Sampling(name, steps=10), strength)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_signal_share_is_that_of_the_noise_added(name: str) -> None:
    """With a noise of ones and no image the network's input is √(1 - ᾱ)."""
    way = denoising(SCHEDULE, Sampling(name, steps=10), 0.6)
    images = way.scheduler.add_noise(torch.zeros(1, 2), torch.ones(1, 2), way.calls[:1])
    noisy = way.scheduler.scale_model_input(images, way.calls[0])
    share = signal_share(way.scheduler, way.calls[0])
    assert noisy[0, 0] == pytest.approx((1 - share) ** 0.5, rel=1e-4)
    expected = float(DDPMScheduler.from_config(SCHEDULE).alphas_cumprod[599])
    assert share == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_of_every_kind_say_the_same(prediction: str) -> None:
    clean, noise, share = torch.tensor([0.3, -0.7]), torch.tensor([1.2, 0.1]), 0.4
    a, b = share**0.5, (1 - share) ** 0.5
    outputs = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - b * clean}
    noisy = a * clean + b * noise
    for clip in (True, False):
        found = clean_and_noise(outputs[prediction], noisy, share, prediction, clip)
        assert torch.allclose(found[0], clean, atol=1e-6)
        assert torch.allclose(found[1], noise, atol=1e-6)


def test_clipping_moves_the_noise_with_the_image() -> None:
    clean, noise = clean_and_noise(torch.tensor([-3.0]), torch.tensor([1.0]), 0.25, "epsilon", True)
    assert clean.item() == 1
    assert 0.5 * clean + 0.75**0.5 * noise == pytest.approx(torch.tensor([1.0]))


@pytest.mark.parametrize("name", ["nonsense", "UNet2DModel", "torch"])
def test_unknown_schedulers_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"scheduler = {name}: must be ddpm, ddim"):
        Sampling(name)


@pytest.mark.parametrize(
    "name",
    ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "DDIMInverseScheduler",
     "AmusedScheduler", "LCMScheduler", "TCDScheduler"],
)  # fmt: skip
def test_schedulers_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"scheduler = {name}: must be one"):
        denoising(SCHEDULE, Sampling(name, steps=10), 0.5)


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"spacing": "even"}, {"guidance": 0.0}, {"eta": 1.5}, {"steps": 2.5}],
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(values))} = "):
        Sampling(**values)  # type: ignore[arg-type]
