"""Through an ideal network every accepted way down ends at the right mean and spread.

Images are N(mu, s^2), so that the network's best answer is known whatever it predicts, and what the
first-order samplers must end at follows from recursions written out here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from common.errors import ParameterError
from empirical.generation import gaussian
from empirical.generation.base import Originals
from empirical.generation.pixel import load_pixel
from empirical.generation.sampling import (
    ALIASES,
    PREDICTIONS,
    Sampling,
    denoising,
    network_output,
)

MU, S = 0.1, 0.3
"""Clipping to black and white begins three standard deviations away."""
STRENGTHS = (0.1, 0.3, 0.5, 0.8, 1.0)
STEPS = (2, 5, 10, 50)
SCHEDULERS = (
    *ALIASES,
    "DEISMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
)
ALWAYS = ("ddpm", "ddim", "euler", "euler-ancestral", "dpm++", "unipc", "SASolverScheduler")
"""Refused nowhere."""
BETAS = {"cosine": {"beta_schedule": "squaredcos_cap_v2"}, "linear": {}}

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
)


def images(n: int = 32) -> Originals:
    """Levels of N(mu, s^2), n x 3 x 8 x 8."""
    stream = torch.Generator().manual_seed(1)
    values = MU + S * torch.randn(n, 3, 8, 8, generator=stream)
    pixels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Originals(pixels, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def ideal(schedule: DDPMScheduler) -> Callable[..., Any]:
    """What the network answers: any timestep, whole or not, by the ᾱ there."""
    shares = schedule.alphas_cumprod
    kind = schedule.config["prediction_type"]

    def forward(noisy: torch.Tensor, timestep: torch.Tensor, **_: Any) -> Any:
        low = int(timestep)
        high, part = min(low + 1, len(shares) - 1), float(timestep) - low
        # samplers of second order ask between timesteps, where log(ᾱ / (1 - ᾱ)) is a line
        odds = [math.log(float(shares[t]) / (1 - float(shares[t]))) for t in (low, high)]
        share = 1 / (1 + math.exp(-(odds[0] + part * (odds[1] - odds[0]))))
        a = share**0.5
        clean = MU + a * S**2 / (a**2 * S**2 + 1 - share) * (noisy - a * MU)
        return SimpleNamespace(sample=network_output(clean, noisy, share, kind))

    return forward


def first_order(shares: list[float], drawn: bool) -> float:
    """The spread at the end of DDIM's steps, or DDPM's, through these ᾱ and to the image."""
    variance = shares[0] * S**2 + 1 - shares[0]
    for here, there in zip(shares, [*shares[1:], 1.0], strict=True):
        regression = here**0.5 * S**2 / (here * S**2 + 1 - here)  # of the image on the noisy one
        if drawn:  # DDPM's posterior: (7) of Ho et al. 2020
            alpha = here / there
            slope = there**0.5 * (1 - alpha) / (1 - here) * regression
            slope += alpha**0.5 * (1 - there) / (1 - here)
            fresh = (1 - there) / (1 - here) * (1 - alpha)
        else:  # (12) of Song et al. 2021 with sigma = 0
            noise = (1 - here**0.5 * regression) / (1 - here) ** 0.5
            slope, fresh = there**0.5 * regression + (1 - there) ** 0.5 * noise, 0.0
        variance = slope**2 * variance + fresh
    return variance**0.5


@pytest.fixture(scope="module")
def folders(save_pixel: Callable[..., Path]) -> dict[tuple[str, str], Path]:
    return {
        (betas, kind): save_pixel(DDPMScheduler(1000, prediction_type=kind, **values))
        for betas, values in BETAS.items()
        for kind in PREDICTIONS
    }


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_pixel(
    folders: dict[tuple[str, str], Path],
    streams: Callable[..., list[torch.Generator]],
    name: str,
    kind: str,
) -> None:
    originals, refused = images(), []
    slow = name == "KDPM2DiscreteScheduler"
    # the other kinds differ in one line, whatever the scheduler; and KDPM2 is slow to set up
    whole = kind == "epsilon" and not slow
    for betas, values in list(BETAS.items())[: 2 if whole else 1]:
        schedule = DDPMScheduler(1000, prediction_type=kind, **values)
        loaded = load_pixel(folders[betas, kind], 3, 8, 3)
        loaded.unet.forward = ideal(schedule)
        for steps in STEPS if whole else STEPS[1:2]:
            backend = dataclasses.replace(loaded, sampling=Sampling(name, steps=steps))
            for strength in STRENGTHS if whole and steps < 50 else STRENGTHS[::4]:
                if steps * strength < 1 - 1e-9:
                    continue
                try:
                    made = backend.generate(originals, strength, streams(range(32)))
                except ParameterError as error:
                    assert (error.name, error.value) == ("scheduler", name)  # noqa: PT017
                    refused.append((betas, strength, steps))
                    continue
                found = made.double() / 127.5 - 1
                mean, spread = float(found.mean()), float(found.std())
                way = denoising(backend.schedule, backend.sampling, strength)
                calls = dict.fromkeys(int(call) for call in way.calls)
                shares = [float(schedule.alphas_cumprod[timestep]) for timestep in calls]
                still, drawn = (first_order(shares, on) for on in (False, True))
                luck = 5 * S / math.sqrt(found.numel())  # at most that at five standard errors
                where = f"{betas}, strength {strength}, {steps} steps: {mean:.3f}, {spread:.3f}"
                assert mean == pytest.approx(MU, abs=luck + 0.02), where
                if name in ("ddim", "ddpm"):
                    expected = still if name == "ddim" else drawn
                    # both end one timestep short of the image
                    assert spread == pytest.approx(expected, abs=luck + 0.012), where
                else:
                    slack = luck + 0.045
                    assert min(still, drawn) - slack <= spread <= S + slack, where
    assert name not in ALWAYS or not refused
    if not whole:
        return
    if name == "heun":
        assert ("cosine", 1.0, 10) in refused
    if name == "pndm":
        assert ("cosine", 1.0, 2) in refused
        assert not [at for at in refused if at[1] < 1]
    if name == "LMSDiscreteScheduler":
        assert ("linear", 0.1, 50) in refused


def test_the_lowest_spread_is_the_lower_recursion() -> None:
    shares = [0.02, 0.3, 0.7, 0.95]
    levels = [(share**0.5, (1 - share) ** 0.5) for share in shares]
    expected = min(first_order(shares, drawn) for drawn in (False, True))
    assert gaussian.least_spread(levels, S) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("spread", gaussian.SPREADS)
def test_the_law_is_exact(spread: float) -> None:
    stream = torch.Generator().manual_seed(3)
    clean, noise = (v.double() for v in gaussian.law((2, 4, 16, 16), spread, stream))
    assert float(clean.mean()) == pytest.approx(gaussian.MEAN, abs=1e-6)
    assert float(clean.std(correction=0)) == pytest.approx(spread, rel=1e-5)
    assert float(noise.mean()) == pytest.approx(0, abs=1e-6)
    assert float(noise.std(correction=0)) == pytest.approx(1, rel=1e-5)
    assert float((clean * noise).mean()) == pytest.approx(0, abs=1e-6)


def test_what_a_configuration_leaves_out_is_its_own_schedulers() -> None:
    """Not the default of the scheduler that samples, whose betas begin at 0.00085."""
    config = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}
    way = denoising(config, Sampling("KDPM2DiscreteScheduler", steps=4), 0.5)
    expected = DDPMScheduler(1000).alphas_cumprod
    assert torch.allclose(way.scheduler.alphas_cumprod, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_last_share_of_zero(kind: str) -> None:
    """Where no image is left its prediction cannot be told from the noise; below that it can."""
    values = {"rescale_betas_zero_snr": True, "prediction_type": kind}
    config = dict(DDPMScheduler(1000, **values).config)
    with pytest.raises(ParameterError, match="scheduler = ddim: must be one that takes an ideal"):
        denoising(config, Sampling("ddim", steps=10), 1.0)
    assert denoising(config, Sampling("ddim", steps=10), 0.9).steps == 9
    with pytest.raises(ParameterError, match="pndm: must be one that mixes images and noise"):
        denoising(config, Sampling("pndm", steps=10), 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found, None),
        (lambda found: found + 0.1, "a mean of 0.2 instead of 0.1"),
        (lambda found: 0.1 + 1.3 * (found - 0.1), "a standard deviation of 0.39"),
        (lambda found: torch.full_like(found, 0.1), "a standard deviation of 0 instead"),
        (lambda found: 0 / (found - found), "a mean of nan"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[..., torch.Tensor], said: str | None) -> None:
    clean, _ = gaussian.law((1, 1, 64, 64), S, torch.Generator().manual_seed(3))
    levels = [(a, (1 - a * a) ** 0.5) for a in torch.linspace(0.5, 0.999, 60).tolist()]
    found = gaussian.wrong(change(clean), S, levels, drawn=False)
    assert found is None if said is None else said in str(found)
