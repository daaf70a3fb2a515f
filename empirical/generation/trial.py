"""What somebody else's pipeline does, found out on one image before anything long begins.

The image is black on the left and white on the right. Its pipeline runs as it is, but the network's
answers are replaced, at the scheduler's door, by those of an ideal one (see `gaussian`). So one
call tells whether the pipeline works at all, how often it asks its network, in which range it
takes and gives images, and whether its scheduler finds back from where it begins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from common.errors import ParameterError, require
from empirical.config.strength import check_steps_left
from empirical.generation import gaussian
from empirical.generation.sampling import PREDICTIONS, network_output, signal_share

NETWORKS = ("unet", "transformer")
AUTOENCODERS = ("vae", "movq", "vqvae")
NOISES = ("add_noise", "scale_noise")
CONSISTENCY = ("LCMScheduler",)
"""Schedulers of networks that say where the whole way down ends, not what is expected."""
NEAR = 0.05
"""By how much a range may be off: images are resampled and pass through half precision."""


def network_of(pipe: Any) -> Any:
    """The network that denoises, or None."""
    return _first(pipe, NETWORKS)


def autoencoder_of(pipe: Any) -> Any:
    """What stands between images and latents, or None in pixel space."""
    return _first(pipe, AUTOENCODERS)


def _first(pipe: Any, names: tuple[str, ...]) -> Any:
    return next((part for n in names if (part := getattr(pipe, n, None)) is not None), None)


@dataclass(frozen=True)
class Seen:
    """What a pipeline did with one image.

    steps: how often it asked its network; shown: least and largest value of the image where the
    autoencoder, or in pixel space the scheduler, got it, None if none of them got one; signed:
    whether its images come as -1 to 1, not 0 to 1; wrong: what its scheduler makes of an ideal
    network's answers, None if that is right.
    """

    steps: int
    shown: tuple[float, float] | None
    signed: bool
    wrong: str | None


@dataclass
class _Notes:
    levels: list[tuple[float, float]] = field(default_factory=list)
    streams: list[Tensor] = field(default_factory=list)
    shown: tuple[float, float] | None = None
    end: Tensor | None = None
    decoded: Tensor | None = None


def see(
    pipe: Any,
    make: Callable[[torch.Generator], Tensor],
    spread: float,
    kept: dict[str, Any],
) -> Seen:
    """Let `make` make one image with a pipeline and a random stream, and watch.

    spread: of the images that the ideal network knows; kept: answers of the pipeline's networks,
    filled by the first call: later ones cost next to nothing.

    Raises:
        ParameterError: the noise of its scheduler is of a kind unknown here.
    """
    notes, scheduler, stream = _Notes(), pipe.scheduler, torch.Generator().manual_seed(0)
    autoencoder = autoencoder_of(pipe)

    def remembered(name: str, original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        if name not in kept:
            kept[name] = original(*values, **named)
        return kept[name]

    def timesteps(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        given = inspect.signature(original).bind(*values, **named).arguments
        found = original(*values, **named)
        check_steps_left(len(found[0]), given["num_inference_steps"], given.get("strength", 1.0))
        return found

    def encode(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        notes.shown = _range(values[0] if values else next(iter(named.values())))
        return remembered("encode", original, *values, **named)

    def decode(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        found = remembered("decode", original, *values, **named)
        notes.decoded = found[0]
        return found

    def mix(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        bound = inspect.signature(original).bind(*values, **named)
        image = next(name for name in ("original_samples", "sample") if name in bound.arguments)
        like = bound.arguments[image]
        if autoencoder is None:
            notes.shown = _range(like)
        for name, value in zip(
            (image, "noise"),
            gaussian.law(like.shape, spread, torch.Generator().manual_seed(0)),
            strict=True,
        ):
            bound.arguments[name] = value.to(like)
        return original(*bound.args, **bound.kwargs)

    def step(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        bound = inspect.signature(original).bind(*values, **named)
        sample, timestep = bound.arguments["sample"], bound.arguments["timestep"]
        noisy, a, b = _mixture(scheduler, sample, timestep)
        if not notes.levels:
            notes.streams = _streams(stream)
        notes.levels.append((a, b))
        given = bound.arguments["model_output"]
        answer = _answer(scheduler, noisy.float(), a, b, spread).to(given)
        if given.shape[1] == 2 * answer.shape[1]:  # the rest is the variance: its lower bound
            answer = torch.cat([answer, torch.full_like(answer, -1)], dim=1)
        bound.arguments["model_output"] = answer
        found = original(*bound.args, **bound.kwargs)
        notes.end = found[0]
        return found

    with ExitStack() as stack:

        def replace(thing: Any, name: str, new: Callable[..., Any]) -> None:
            if hasattr(thing, name):
                stack.enter_context(_replaced(thing, name, new))

        network = network_of(pipe)
        if network is not None:
            replace(network, "forward", functools.partial(remembered, "network"))
        replace(pipe, "encode_prompt", functools.partial(remembered, "prompt"))
        replace(pipe, "get_timesteps", timesteps)
        if autoencoder is not None:
            replace(autoencoder, "encode", encode)
            replace(autoencoder, "decode", decode)
        parts, checker = vars(pipe), "safety_checker"
        if parts.get(checker) is not None:  # it would blacken what is compared
            stack.callback(parts.__setitem__, checker, parts[checker])
            parts[checker] = None
        for name in NOISES:
            replace(scheduler, name, mix)
        replace(scheduler, "step", step)
        images = make(stream)
    wrong = "nothing: it was never asked"
    if notes.end is not None:
        drawn = not all(map(torch.equal, notes.streams, _streams(stream)))
        wrong = gaussian.wrong(notes.end, spread, _first_calls(notes.levels), drawn)
    return Seen(len(notes.levels), notes.shown, _is_signed(pipe, images, notes), wrong)


@contextmanager
def _replaced(thing: Any, name: str, new: Callable[..., Any]) -> Iterator[None]:
    """Calls of thing.name go to new(original, ...); its signature, which pipelines read, stays."""
    own, original = vars(thing).get(name), getattr(thing, name)

    @functools.wraps(original)
    def call(*values: Any, **named: Any) -> Any:
        return new(original, *values, **named)

    setattr(thing, name, call)
    try:
        yield
    finally:
        delattr(thing, name)
        if own is not None:
            setattr(thing, name, own)


def _mixture(scheduler: Any, sample: Tensor, timestep: Any) -> tuple[Tensor, float, float]:
    """What the network sees of a sample, and the shares of image and noise in it."""
    config = scheduler.config
    if _is_flow(scheduler):
        noise = float(timestep) / config.num_train_timesteps
        return sample, 1 - noise, noise
    known = hasattr(scheduler, "alphas_cumprod") and hasattr(scheduler, "scale_model_input")
    known = known and config.get("prediction_type", "epsilon") in PREDICTIONS
    allowed = "one of a diffusion with betas that predicts noise, v or images, or of flow matching"
    require(known, "scheduler", type(scheduler).__name__, allowed)
    share = signal_share(scheduler, timestep)
    return scheduler.scale_model_input(sample, timestep), share**0.5, (1 - share) ** 0.5


def _answer(scheduler: Any, noisy: Tensor, a: float, b: float, spread: float) -> Tensor:
    """An ideal network's output, in the scheduler's terms."""
    distilled = type(scheduler).__name__ in CONSISTENCY
    clean = (gaussian.way_end if distilled else gaussian.best_guess)(noisy, a, b, spread)
    if _is_flow(scheduler):
        return (noisy - a * clean) / b - clean
    prediction = scheduler.config.get("prediction_type", "epsilon")
    return network_output(clean, noisy, a**2, prediction)


def _is_flow(scheduler: Any) -> bool:
    flows = scheduler.config.get("use_flow_sigmas", False)
    return bool(flows) or type(scheduler).__name__.startswith("FlowMatch")


def _streams(stream: torch.Generator) -> list[Tensor]:
    """The states of what may be drawn from between two steps."""
    return [stream.get_state(), torch.get_rng_state()]


def _first_calls(levels: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The levels where steps began: one of second order calls again on its way, or at its end."""
    found: list[tuple[float, float]] = []
    for a, b in levels:
        if not found or a / b > found[-1][0] / found[-1][1] * (1 + 1e-6):
            found.append((a, b))
    return found


def _is_signed(pipe: Any, images: Tensor, notes: _Notes) -> bool:
    """Whether the images are what was decoded, or brought to 0 to 1.

    Raises:
        ParameterError: they are neither.
    """
    images = images.float().cpu()
    if not bool(torch.isfinite(images).all()):
        return False  # said when its own images are made
    raw = notes.decoded if notes.decoded is not None else notes.end
    if raw is not None and raw.shape == images.shape:
        raw = raw.float().cpu()
        for signed, expected in ((False, (raw / 2 + 0.5).clamp(0, 1)), (True, raw)):
            if float((images - expected).abs().mean()) < NEAR / 2:
                return signed
    allowed = "one whose images are what its autoencoder decodes, as -1 to 1 or 0 to 1"
    raise ParameterError("pipeline", type(pipe).__name__, allowed)


def _range(images: Tensor) -> tuple[float, float]:
    return float(images.min()), float(images.max())


def about(found: tuple[float, float], expected: tuple[float, float]) -> bool:
    """Whether two ranges agree."""
    return all(abs(one - other) < NEAR for one, other in zip(found, expected, strict=True))
