"""Denoising over a part of a diffusion: any of diffusers' schedulers, started in the middle.

SDEdit (Meng et al. 2022) by hand. What the network says is turned into a prediction of the clean
image here, clipped, and handed to the scheduler as noise, so that all of them behave alike.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import diffusers
import torch
from diffusers import PNDMScheduler  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from common.errors import ParameterError, near, require
from empirical.config.strength import TRAIN_TIMESTEPS, grid
from empirical.generation import gaussian
from empirical.generation.base import one_line

ALIASES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of the schedulers in wide use."""

SPACINGS = ("trailing", "leading", "linspace")
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers for networks that were trained to reach the image in one step."""

PREDICTIONS = ("epsilon", "sample", "v_prediction")

TRAINED_WITH = (
    *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler"),
    *("PNDMScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
)
"""Schedulers that say the same of a network: image and noise are mixed by the betas, and it is told
the number of the timestep."""


@dataclass(frozen=True)
class Sampling:
    """How images are denoised.

    Raises:
        ParameterError: a value is not allowed.
    """

    scheduler: str = "ddim"
    """ddpm, ddim, pndm, euler, euler-ancestral, heun, dpm++, unipc, or a class of diffusers"""
    steps: int = 50
    """denoising steps of a whole trajectory, of which strength leaves a share"""
    fixed_steps: bool = False
    """steps are those of every image, whatever its strength, and the trajectory is cut finer"""
    spacing: str = "trailing"
    """of the timesteps, in diffusers' words: trailing, leading or linspace"""
    guidance: float = 1.0
    """classifier-free guidance scale; 1 is none"""
    clip: bool = True
    """predictions of the clean image are clipped to black and white"""
    eta: float = 0.0
    """DDIM's share of fresh noise in a step: 0 none, 1 as much as DDPM"""

    def __post_init__(self) -> None:
        ok = isinstance(self.steps, int) and self.steps >= 1
        require(ok, "steps", self.steps, "a whole number of at least 1")
        require(self.spacing in SPACINGS, "spacing", self.spacing, " or ".join(SPACINGS))
        require(0 < self.guidance < float("inf"), "guidance", self.guidance, "a number above 0")
        require(0 <= self.eta <= 1, "eta", self.eta, "in [0, 1]")
        scheduler_class(self.scheduler)


@dataclass(frozen=True)
class Denoising:
    """One way down.

    calls: timesteps of the network's calls, high to low; step_of: for each the number of its step,
    from 1 on (a step of second order takes two calls).
    """

    scheduler: Any
    calls: Tensor
    step_of: tuple[int, ...]

    @property
    def steps(self) -> int:
        return self.step_of[-1]


def scheduler_class(name: str) -> Any:
    """A scheduler class of diffusers, by its name or a short one.

    Raises:
        ParameterError: there is none, or it is for another kind of diffusion.
    """
    kind = getattr(diffusers, ALIASES.get(name, name), None)
    allowed = f"{', '.join(ALIASES)}, or the name of a scheduler of diffusers"
    try:
        fits = isinstance(kind, type) and hasattr(kind, "step")
    except ImportError as error:  # a class of which diffusers has but the name
        raise ParameterError(
            "scheduler", name, f"one that can be used: {one_line(error)}"
        ) from None
    known = [*ALIASES, *(found for found in dir(diffusers) if found.endswith("Scheduler"))]
    require(fits, "scheduler", name, allowed + near(name, known))
    return kind


def check_schedule(model: object, schedule: Mapping[str, Any]) -> None:
    """Refuse a network of another kind than `TRAINED_WITH`, which would be fed what it never saw.

    schedule: the configuration of the scheduler that came with it.

    Raises:
        ParameterError: a consistency, flow-matching, EDM or variance-exploding model, or the like.
    """
    kind = schedule.get("_class_name", "a scheduler without a name")
    named = kind in TRAINED_WITH or ("_class_name" not in schedule and "beta_schedule" in schedule)
    allowed = f"one trained with DDPMScheduler or the like (betas, timesteps), not with {kind}"
    require(named, "model", model, allowed)
    for name, other in (("use_flow_sigmas", True), ("timestep_type", "continuous")):
        allowed = f"one trained with betas and timesteps, not with {kind} and {name} = {other}"
        require(schedule.get(name) != other, "model", model, allowed)
    prediction = schedule.get("prediction_type", "epsilon")
    allowed = f"one that predicts {', '.join(PREDICTIONS)}, not {prediction}"
    require(prediction in PREDICTIONS, "model", model, allowed)


def denoising(schedule: Mapping[str, Any], sampling: Sampling, strength: float) -> Denoising:
    """The way down from a strength, with a scheduler of its own (they keep state).

    schedule: a scheduler's configuration, as in scheduler_config.json, with the betas.

    Raises:
        ParameterError: see `grid`; or the scheduler does not recover images from there.
    """
    plain = json.dumps(dict(schedule), sort_keys=True, default=list)
    found = _wrong(plain, sampling, strength)
    allowed = (
        "one that takes an ideal network to images of the right mean and spread; from strength "
        f"{strength:g} in {sampling.steps} steps it gives {found}"
    )
    require(found is None, "scheduler", sampling.scheduler, allowed)
    return _denoising(schedule, sampling, strength)


@lru_cache(maxsize=1024)
def _wrong(schedule: str, sampling: Sampling, strength: float) -> str | None:
    """What is wrong with the images of an ideal network (see `gaussian`). schedule: as JSON.

    Some of diffusers' schedulers go wrong without a word when they begin in the middle (linear
    multistep, in version 0.42), at pure noise (PNDM, Heun) or in too few steps. Some thousand
    pixels tell, in some milliseconds.
    """
    try:
        for spread in gaussian.SPREADS:
            found = _wrong_at(json.loads(schedule), sampling, strength, spread)
            if found is not None:
                return found
    except ParameterError:
        raise
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        return f"none ({type(error).__name__}: {one_line(error)})"
    return None


def _wrong_at(
    schedule: Mapping[str, Any], sampling: Sampling, strength: float, spread: float
) -> str | None:
    """`_wrong` for images of one spread."""
    way = _denoising(schedule, sampling, strength)
    prediction = schedule.get("prediction_type", "epsilon")
    stream = torch.Generator().manual_seed(0)
    clean, noise = gaussian.law((1, 1, 48, 48), spread, stream)
    extra = step_arguments(way.scheduler, [stream], sampling.eta)
    levels: list[tuple[float, float]] = []
    images = way.scheduler.add_noise(clean, noise, way.calls[:1])
    for timestep, step in zip(way.calls, way.step_of, strict=True):
        noisy = way.scheduler.scale_model_input(images, timestep)
        share = signal_share(way.scheduler, timestep)
        a, b = share**0.5, (1 - share) ** 0.5
        if step > len(levels):
            levels.append((a, b))
        guess = gaussian.best_guess(noisy, a, b, spread)
        output = network_output(guess, noisy, share, prediction)
        _, noise = clean_and_noise(output, noisy, share, prediction, sampling.clip)
        images = way.scheduler.step(noise, timestep, images, **extra).prev_sample
    return gaussian.wrong(images, spread, levels, drawn=True)


def step_arguments(
    scheduler: Any, streams: Sequence[torch.Generator], eta: float
) -> dict[str, Any]:
    """What a scheduler's `step` takes: the images' own streams, and DDIM's eta.

    All of them draw from a list of generators image by image.
    """
    values = {"generator": list(streams), "eta": eta}
    taken = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in values.items() if name in taken}


def own_scheduler(schedule: Mapping[str, Any]) -> Any:
    """The scheduler that a configuration was written by; DDPM's where it does not say."""
    kind = scheduler_class(str(schedule.get("_class_name", "DDPMScheduler")))
    return kind.from_config(dict(schedule))


def whole_config(scheduler: Any) -> dict[str, Any]:
    """A scheduler's configuration for one of another class, nothing left to that one's defaults.

    diffusers marks what its file did not say, and gives the other class its own values for that:
    betas from 0.00085 to 0.012 where they were 0.0001 to 0.02.
    """
    return {name: v for name, v in scheduler.config.items() if name != "_use_default_values"}


def _denoising(schedule: Mapping[str, Any], sampling: Sampling, strength: float) -> Denoising:
    train_steps = schedule.get("num_train_timesteps", TRAIN_TIMESTEPS)
    whole, done = grid(sampling.steps, sampling.fixed_steps, strength, train_steps)
    kind = scheduler_class(sampling.scheduler)
    usual = "one for networks that predict noise; this one is for distilled networks"
    require(kind.__name__ not in DISTILLED, "scheduler", sampling.scheduler, usual)
    allowed = inspect.signature(kind.__init__).parameters
    # Noise is what every scheduler takes. PNDM's Runge-Kutta steps can only come first, at t = T.
    values = {
        "timestep_spacing": sampling.spacing,
        "prediction_type": "epsilon",
        "skip_prk_steps": True,
    }
    values = {name: value for name, value in values.items() if name in allowed}
    try:
        own = own_scheduler(schedule)
        scheduler = kind.from_config(whole_config(own), **values)
        scheduler.set_timesteps(whole)
        timesteps, order = scheduler.timesteps, getattr(scheduler, "order", 1)
        pndm = isinstance(scheduler, PNDMScheduler)
        fits = len(timesteps) == (whole + (whole > 1) if pndm else order * (whole - 1) + 1)
        fits = fits and all(
            hasattr(scheduler, name)
            for name in ("alphas_cumprod", "add_noise", "scale_model_input", "init_noise_sigma")
        )
    except (AttributeError, ImportError, NotImplementedError, TypeError, ValueError) as error:
        raise ParameterError(
            "scheduler", sampling.scheduler, f"one for this model ({one_line(error)})"
        ) from error
    usual = "one for diffusions like DDPM's, that can be started in the middle"
    require(fits, "scheduler", sampling.scheduler, usual)
    shares = own.alphas_cumprod
    mixes = scheduler.alphas_cumprod.shape == shares.shape
    mixes = mixes and bool(torch.allclose(scheduler.alphas_cumprod, shares, rtol=1e-3, atol=1e-6))
    usual = "one that mixes images and noise as the model's own, whose last ᾱ may be zero"
    require(mixes, "scheduler", sampling.scheduler, usual)
    if pndm:
        return Denoising(scheduler, *_pndm_calls(timesteps, done))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(order * (whole - done))
    calls = timesteps[order * (whole - done) :]
    return Denoising(scheduler, calls, tuple(i // order + 1 for i in range(len(calls))))


def _pndm_calls(timesteps: Tensor, done: int) -> tuple[Tensor, tuple[int, ...]]:
    """PNDM does its first step twice, and so calls at the second timestep twice.

    It counts its own steps, so the repetition has to move to where the way down begins.
    """
    last = torch.cat([timesteps[:1], timesteps[2:]])[-done:]
    if done == 1:
        return last, (1,)
    return torch.cat([last[:2], last[1:]]), (1, *range(1, done + 1))


def signal_share(scheduler: Any, timestep: Tensor) -> float:
    """ᾱ at a timestep: how much of the variance is still the image's.

    Schedulers that work on image + sigma × noise scale the network's input by √ᾱ, at timesteps
    that need not be whole; the others leave it alone.
    """
    scale = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), timestep))
    return scale**2 if scale < 1 else float(scheduler.alphas_cumprod[int(timestep)])


def clean_and_noise(
    output: Tensor, noisy: Tensor, share: float, prediction: str, clip: bool
) -> tuple[Tensor, Tensor]:
    """The clean image and the noise that a network's output speaks of, both like `noisy`.

    noisy = √ᾱ clean + √(1 - ᾱ) noise, ᾱ = share.
    """
    a, b = share**0.5, (1 - share) ** 0.5
    if prediction == "sample":
        clean = output
    elif prediction == "v_prediction":
        clean = a * noisy - b * output
    else:
        clean = (noisy - b * output) / a
    if clip:
        clean = clean.clamp(-1, 1)
    elif prediction == "epsilon":
        return clean, output
    return clean, (noisy - a * clean) / b


def network_output(clean: Tensor, noisy: Tensor, share: float, prediction: str) -> Tensor:
    """What a network says that holds this to be the clean image: `clean_and_noise`, inverted."""
    a, b = share**0.5, (1 - share) ** 0.5
    noise = (noisy - a * clean) / b
    return {"sample": clean, "v_prediction": a * noise - b * clean}.get(prediction, noise)
