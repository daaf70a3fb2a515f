"""Any image-to-image pipeline of diffusers: Stable Diffusion and its kin, from disk or the hub."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoPipelineForImage2Image,  # pyright: ignore[reportPrivateImportUsage]
    AutoPipelineForText2Image,  # pyright: ignore[reportPrivateImportUsage]
    DiffusionPipeline,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor, nn

from empirical.data import to_float, to_levels
from empirical.generation.base import (
    Originals,
    check_labels,
    module_digest,
    one_line,
    plain_config,
    prompts,
)
from empirical.generation.resize import from_rgb, resize, to_rgb
from empirical.generation.sampling import scheduler_class
from empirical.generation.steps import check_steps_left, check_strength, share_of_steps
from sim.progress import say
from theory.files import digest
from theory.parameters import ParameterError, require

NEEDED = ("prompt", "image", "strength", "num_inference_steps", "generator", "output_type")
"""Arguments without which a pipeline cannot do the job."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class HubSettings:
    """A pipeline and how it is used.

    Raises:
        ParameterError: a value is not allowed.
    """

    model: str
    """folder of a pipeline, or its name on the hub"""
    pipeline: str | None = None
    """class of diffusers to load it with; None: the image-to-image one that belongs to it"""
    prompt: str = "a photo of a {class}"
    """prompt of an image, with the name of its class in place of {class}"""
    negative_prompt: str | None = None
    """what guidance leads away from; None: nothing in particular"""
    guidance: float = 3.0
    """classifier-free guidance scale"""
    steps: int = 50
    """denoising steps of a whole trajectory, of which strength leaves a share"""
    scheduler: str | None = None
    """ddim, dpm++, euler, ..., or a class of diffusers; None: the pipeline's own"""
    size: int | None = None
    """pixels of a side inside the pipeline; None: what its model was trained on"""
    dtype: str = "float32"
    """float32, float16 or bfloat16"""
    device: str = "cpu"
    """cpu, cuda, ..."""
    offload: bool = False
    """keep the parts of the pipeline on the CPU, and move each to the device when it works"""
    safety_checker: bool = False
    """let the pipeline blacken images that it holds to be unsafe; they are reported"""
    local_files_only: bool = False
    """never ask the hub"""
    revision: str | None = None
    """branch, tag or commit on the hub"""
    variant: str | None = None
    """of the weight files, as in fp16"""

    def __post_init__(self) -> None:
        ok = isinstance(self.steps, int) and self.steps >= 1
        require(ok, "steps", self.steps, "a whole number of at least 1")
        ok = self.size is None or (isinstance(self.size, int) and self.size >= 8)
        require(ok, "size", self.size, "a whole number of at least 8")
        require(0 <= self.guidance < float("inf"), "guidance", self.guidance, "a number from 0 on")
        require(self.dtype in DTYPES, "dtype", self.dtype, " or ".join(DTYPES))
        if self.scheduler is not None:
            scheduler_class(self.scheduler)


@dataclass(frozen=True, eq=False)
class Hub:
    """A loaded pipeline with the prompts of a data set's classes (see `load_hub`)."""

    pipe: Any
    settings: HubSettings
    prompts: tuple[str, ...]
    size: int
    digest: str
    name: str = "hub"

    def denoising_steps(self, strength: float) -> int:
        """What the pipeline itself says: its kinds round differently."""
        check_strength(strength)
        steps, pipe = self.settings.steps, self.pipe
        if "strength" in inspect.signature(pipe.scheduler.set_timesteps).parameters:
            return steps  # latent consistency: as many steps, from a lower start
        if not hasattr(pipe, "get_timesteps"):
            return share_of_steps(steps, strength)
        known = {"num_inference_steps": steps, "strength": strength, "device": "cpu"}
        _, done = pipe.get_timesteps(**_accepted(known, pipe.get_timesteps))
        check_steps_left(done, steps, strength)
        return done

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        self.denoising_steps(strength)
        shape = originals.pixels.shape[1:]
        if len(originals) == 0:
            return originals.pixels
        large = resize(to_rgb(to_float(originals.pixels)), (self.size, self.size)).clamp(-1, 1)
        chosen = {"image": (large + 1) / 2, "strength": strength}
        made = self._call(self.pipe, originals.labels, streams, chosen, originals.indices.tolist())
        return _fit(made, shape)

    def sample(
        self, labels: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator]
    ) -> Tensor:
        """With the text-to-image pipeline of the same parts: not a trace of an image gets in."""
        if len(labels) == 0:
            return torch.empty(0, *shape, dtype=torch.uint8)
        try:
            pipe = AutoPipelineForText2Image.from_pipe(self.pipe)
        except ValueError as error:
            allowed = f"one with a text-to-image pipeline, to start from noise ({one_line(error)})"
            raise ParameterError("model", self.settings.model, allowed) from error
        _place(pipe, self.settings)
        made = self._call(pipe, labels, streams, {}, list(range(len(labels))))
        return _fit(made, shape)

    @torch.no_grad()
    def _call(
        self,
        pipe: Any,
        labels: Tensor,
        streams: Sequence[torch.Generator],
        chosen: dict[str, Any],
        indices: list[int],
    ) -> Tensor:
        """Images from a pipeline, float32 (n, 3, size, size) in [0, 1]."""
        settings = self.settings
        check_labels(labels, len(self.prompts))
        optional = {
            "guidance_scale": settings.guidance,
            "negative_prompt": [settings.negative_prompt or ""] * len(labels),
            "height": self.size,
            "width": self.size,
        }
        if settings.negative_prompt is None:
            del optional["negative_prompt"]  # to some pipelines "" is not the same
        done = pipe(
            prompt=[self.prompts[label] for label in labels.tolist()],
            num_inference_steps=settings.steps,
            generator=list(streams),
            output_type="pt",
            **chosen,
            **_accepted(optional, pipe.__call__),
        )
        for index, flagged in zip(
            indices, getattr(done, "nsfw_content_detected", None) or [], strict=False
        ):
            if flagged:
                say(f"the safety checker made the image of original {index} black")
        images = done.images.float().cpu()
        finite = bool(torch.isfinite(images).all())
        require(finite, "dtype", settings.dtype, "one in which this model gives finite images")
        return images


def _fit(images: Tensor, shape: Sequence[int]) -> Tensor:
    """[0, 1] images of the pipeline's size to uint8 (n, *shape)."""
    return to_levels(from_rgb(resize(2 * images - 1, shape[1:]), shape[0]))


def _accepted(values: dict[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    taken = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in taken}


def load_hub(classes: Sequence[str], settings: HubSettings) -> Hub:
    """Load a pipeline for a data set with these class names.

    Raises:
        ParameterError: there is no such pipeline, it is damaged or takes no strength, its size
            cannot be told, or a class has no name.
    """
    texts = tuple(prompts(settings.prompt, classes))
    if settings.pipeline is not None:
        _check_takes_strength(_pipeline_class(settings.pipeline))  # before gigabytes are read
    pipe = _read(settings)
    _check_takes_strength(type(pipe))
    if settings.scheduler is not None:
        kind = scheduler_class(settings.scheduler)
        fits = kind in pipe.scheduler.compatibles
        allowed = f"one that fits the pipeline's own, {type(pipe.scheduler).__name__}"
        require(fits, "scheduler", settings.scheduler, allowed)
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    size = settings.size or _native_size(pipe, settings.model)
    made_of = {
        "pipeline": type(pipe).__name__,
        "parts": {name: _part(part, texts) for name, part in sorted(pipe.components.items())},
        "size": size,
        "prompts": texts,
        "sampler": {
            name: value
            for name, value in asdict(settings).items()
            if name in ("negative_prompt", "guidance", "steps", "dtype", "safety_checker")
        },
    }
    _place(pipe, settings)
    return Hub(pipe, settings, texts, size, digest(made_of))


def _place(pipe: Any, settings: HubSettings) -> None:
    """Progress bars off, and onto the device."""
    pipe.set_progress_bar_config(disable=True)
    if settings.offload:
        pipe.enable_model_cpu_offload(device=settings.device)
    else:
        pipe.to(settings.device)


def _pipeline_class(name: str) -> Any:
    kind = getattr(diffusers, name, None)
    ok = isinstance(kind, type) and issubclass(kind, DiffusionPipeline)
    require(ok, "pipeline", name, "the name of a pipeline of diffusers")
    return kind


def _check_takes_strength(kind: Any) -> None:
    taken = inspect.signature(kind.__call__).parameters
    for name in NEEDED:
        allowed = f"an image-to-image pipeline: its call takes no {name!r}"
        require(name in taken, "pipeline", kind.__name__, allowed)


def _read(settings: HubSettings) -> Any:
    """The pipeline on the CPU.

    Raises:
        ParameterError: see `load_hub`.
    """
    where = {
        name: getattr(settings, name)
        for name in ("local_files_only", "revision")
        if getattr(settings, name) is not None
    }
    kind: Any = AutoPipelineForImage2Image
    if settings.pipeline is not None:
        kind = _pipeline_class(settings.pipeline)
    try:
        index: Any = DiffusionPipeline.load_config(settings.model, **where)
        options = {**where, "dtype": DTYPES[settings.dtype]}
        if settings.variant is not None:
            options["variant"] = settings.variant
        # a part that was left out when the pipeline was saved has to be left out by name
        left_out = [name for name, part in index.items() if part in ([None, None], (None, None))]
        options |= dict.fromkeys(left_out)
        if not settings.safety_checker and "safety_checker" in index:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        with _no_bars():
            return kind.from_pretrained(settings.model, **options)
    except Exception as error:  # the libraries raise nearly everything on a damaged file
        if isinstance(error, MemoryError):
            raise
        allowed = "a whole image-to-image pipeline of diffusers, in a folder or on the hub"
        raise ParameterError("model", settings.model, f"{allowed} ({one_line(error)})") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars while files are read; they come back afterwards where they were on."""
    from diffusers.utils import logging as ours

    libraries: list[Any] = [ours]
    try:
        from transformers.utils import (  # pyright: ignore[reportMissingImports]
            logging as theirs,
        )

        libraries.append(theirs)
    except ImportError:
        pass  # then the pipeline has no part of theirs
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _native_size(pipe: Any, model: str) -> int:
    """Pixels of a side that the pipeline's network was trained on."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    size = getattr(getattr(network, "config", None), "sample_size", None)
    size = size or getattr(pipe, "default_sample_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    require(isinstance(size, int), "model", model, "used with a size: its own cannot be told")
    assert isinstance(size, int)
    return size * getattr(pipe, "vae_scale_factor", 1)


def _part(part: Any, texts: Sequence[str]) -> dict[str, Any]:
    """What the images depend on in one part of a pipeline, as a JSON value."""
    found: dict[str, Any] = {"class": type(part).__name__}
    config: Any = getattr(part, "config", None)
    if isinstance(part, nn.Module):
        found["weights"] = module_digest(part)
        to_text: Any = getattr(part, "to_json_string", None)  # of diffusers, or else:
        found["config"] = plain_config(to_text() if to_text else config.to_json_string())
    elif hasattr(part, "set_timesteps"):
        found["config"] = plain_config(part.to_json_string())
    elif hasattr(part, "decode"):
        # of a tokenizer: what it makes of the prompts
        found["tokens"] = json.loads(json.dumps(part(list(texts)).input_ids))
    return found
