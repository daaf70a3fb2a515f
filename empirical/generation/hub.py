"""Any image-to-image pipeline of diffusers: Stable Diffusion and its kin, from disk or the hub."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoPipelineForImage2Image,  # pyright: ignore[reportPrivateImportUsage]
    AutoPipelineForText2Image,  # pyright: ignore[reportPrivateImportUsage]
    DiffusionPipeline,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor, nn

from common.errors import ParameterError, near, require
from common.files import digest
from common.progress import say
from empirical.config.strength import check_strength
from empirical.datasets.base import to_float, to_levels
from empirical.generation.base import (
    DTYPE,
    Originals,
    check_dtype,
    check_labels,
    made_by,
    module_digest,
    one_line,
    plain_config,
    prompts,
)
from empirical.generation.gaussian import LATENT_SPREADS, SPREADS
from empirical.generation.resize import from_rgb, resize, to_rgb
from empirical.generation.sampling import DISTILLED, scheduler_class, whole_config
from empirical.generation.trial import Seen, about, autoencoder_of, network_of, see

NEEDED = ("prompt", "image", "strength", "num_inference_steps", "generator", "output_type")
"""Arguments without which a pipeline cannot do the job."""

# diffusers 0.42 says so of an empty list of modules, at every image of some pipelines
logging.getLogger("diffusers.models.modeling_utils").addFilter(
    lambda record: "should be kept in float32: []" not in record.getMessage()
)

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
    guidance: float | None = None
    """classifier-free guidance scale; None: what suits the pipeline (`own_values`)"""
    steps: int | None = None
    """denoising steps of a whole trajectory, of which strength leaves a share; None: as guidance"""
    scheduler: str | None = None
    """ddim, dpm++, euler, ..., or a class of diffusers; None: the pipeline's own, or ddim for
    PNDM, which repeats its first step wherever it begins"""
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
    lora: str | None = None
    """LoRA weights: a file, a folder or a name on the hub"""

    def __post_init__(self) -> None:
        ok = self.steps is None or (isinstance(self.steps, int) and self.steps >= 1)
        require(ok, "steps", self.steps, "a whole number of at least 1")
        ok = self.size is None or (isinstance(self.size, int) and self.size >= 8)
        require(ok, "size", self.size, "a whole number of at least 8")
        ok = self.guidance is None or 0 <= self.guidance < float("inf")
        require(ok, "guidance", self.guidance, "a number from 0 on")
        require(self.dtype in DTYPES, "dtype", self.dtype, " or ".join(DTYPES))
        if self.scheduler is not None:
            scheduler_class(self.scheduler)


@dataclass(frozen=True)
class Use:
    """How a pipeline is used.

    steps: how often it asks its network; takes_signed, gives_signed: whether its images are -1 to 1
    where it takes and gives them, not 0 to 1.
    """

    steps: int
    takes_signed: bool
    gives_signed: bool


@dataclass(frozen=True, eq=False)
class Hub:
    """A loaded pipeline with the prompts of a data set's classes (see `load_hub`).

    steps, guidance, size: as settings say, or what suits the pipeline where they do not; chosen:
    which of these and the scheduler were chosen here, each with the reason.
    """

    pipe: Any
    settings: HubSettings
    prompts: tuple[str, ...]
    size: int
    steps: int
    guidance: float
    chosen: tuple[str, ...]
    digest: str
    name: str = "hub"
    _uses: dict[float | None, Use] = field(default_factory=dict, repr=False)
    _answers: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def denoising_steps(self, strength: float) -> int:
        """How often the pipeline asks its network, counted on one image.

        Its kinds round differently, and a step of second order asks twice.

        Raises:
            ParameterError: strength is outside (0, 1], or leaves no step; or the pipeline does not
                work, or does not recover images from there (see `trial`).
        """
        check_strength(strength)
        return self._use(strength).steps

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        check_strength(strength)
        shape = originals.pixels.shape[1:]
        if len(originals) == 0:
            return originals.pixels
        large = resize(to_rgb(to_float(originals.pixels)), (self.size, self.size)).clamp(-1, 1)
        numbers = originals.indices.tolist()
        return _fit(self._make(strength, large, originals.labels, streams, numbers), shape)

    def sample(
        self, labels: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator]
    ) -> Tensor:
        """With the text-to-image pipeline of the same parts: not a trace of an image gets in."""
        if len(labels) == 0:
            return torch.empty(0, *shape, dtype=torch.uint8)
        numbers = list(range(len(labels)))
        return _fit(self._make(None, None, labels, streams, numbers), shape)

    def _make(
        self,
        strength: float | None,
        images: Tensor | None,
        labels: Tensor,
        streams: Sequence[torch.Generator],
        numbers: list[int],
    ) -> Tensor:
        """Images in [-1, 1] from such images, or from noise: float32 (n, 3, size, size)."""
        use, pipe = self._use(strength), self._pipe(strength)
        done = self._call(pipe, strength, images, use.takes_signed, labels, streams)
        flags = getattr(done, "nsfw_content_detected", None) or []
        for number, flagged in zip(numbers, flags, strict=False):
            if flagged:
                say(f"the safety checker made the image of original {number} black")
        made = done.images.float().cpu()
        finite, dtype = bool(torch.isfinite(made).all()), self.settings.dtype
        require(finite, "dtype", dtype, "one in which this model gives finite images")
        return made.clamp(-1, 1) if use.gives_signed else 2 * made - 1

    def _use(self, strength: float | None) -> Use:
        """How the pipeline is used at a strength, or from noise; each is tried once."""
        if strength not in self._uses:
            with torch.random.fork_rng(devices=[]):  # a pipeline may draw what it was not given
                self._uses[strength] = self._tried(strength)
        return self._uses[strength]

    def _tried(self, strength: float | None) -> Use:
        pipe, signed = self._pipe(strength), False
        kind = type(pipe).__name__
        answers = self._answers.setdefault(kind, {})
        image = torch.ones(1, 3, self.size, self.size)
        image[..., : self.size // 2] = -1
        shown = None if strength is None else image

        def seen(spread: float, signed: bool) -> Seen:
            def make(stream: torch.Generator) -> Tensor:
                label = torch.zeros(1, dtype=torch.int64)
                return self._call(pipe, strength, shown, signed, label, [stream]).images

            return see(pipe, make, spread, answers)

        spreads = LATENT_SPREADS if autoencoder_of(pipe) is not None else SPREADS
        found = seen(spreads[0], signed)
        if found.shown is not None and not about(found.shown, (-1, 1)):
            signed = True
            found = seen(spreads[0], signed)
            fits = found.shown is not None and about(found.shown, (-1, 1))
            allowed = f"one whose network is shown black as -1 and white as 1, not {found.shown}"
            require(fits, "pipeline", kind, allowed)
        wrong = found.wrong or seen(spreads[1], signed).wrong
        where = "noise" if strength is None else f"strength {strength:g}"
        allowed = (
            "one that takes an ideal network to images of the right mean and spread; from "
            f"{where} in {self.steps} steps {kind} gives {wrong}"
        )
        named = self.settings.scheduler or type(pipe.scheduler).__name__
        require(wrong is None, "scheduler", named, allowed)
        return Use(found.steps, signed, found.signed)

    def _pipe(self, strength: float | None) -> Any:
        """The pipeline, or for no strength its sister that begins at noise."""
        if strength is not None:
            return self.pipe
        try:
            pipe = AutoPipelineForText2Image.from_pipe(self.pipe)
        except ValueError as error:
            allowed = f"one with a text-to-image pipeline, to start from noise ({one_line(error)})"
            raise ParameterError("model", self.settings.model, allowed) from error
        _place(pipe, self.settings)
        return pipe

    @torch.no_grad()
    def _call(
        self,
        pipe: Any,
        strength: float | None,
        images: Tensor | None,
        signed: bool,
        labels: Tensor,
        streams: Sequence[torch.Generator],
    ) -> Any:
        """What a pipeline gives back. images: in [-1, 1]; signed: it takes them like that."""
        settings = self.settings
        check_labels(labels, len(self.prompts))
        optional = {
            "guidance_scale": self.guidance,
            "negative_prompt": [settings.negative_prompt or ""] * len(labels),
            "height": self.size,
            "width": self.size,
            "clean_caption": False,  # prompts are made here, and the cleaner is a library more
        }
        if settings.negative_prompt is None:
            del optional["negative_prompt"]  # to some pipelines "" is not the same
        chosen: dict[str, Any] = {}
        if images is not None:
            chosen = {"image": images if signed else (images + 1) / 2, "strength": strength}
        with made_by(settings.model, type(pipe).__name__):
            return pipe(
                prompt=[self.prompts[label] for label in labels.tolist()],
                num_inference_steps=self.steps,
                generator=list(streams),
                output_type="pt",
                **chosen,
                **_accepted(optional, pipe.__call__),
            )


def _fit(images: Tensor, shape: Sequence[int]) -> Tensor:
    """[-1, 1] images of the pipeline's size to uint8 (n, *shape)."""
    return to_levels(from_rgb(resize(images, shape[1:]), shape[0]))


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
    if settings.lora is not None:
        _add_lora(pipe, settings)
    check_dtype(network_of(pipe), DTYPES[settings.dtype])
    chosen = [*_schedule(pipe, settings)]
    steps, guidance, why = own_values(pipe)
    for name, value in (("denoising steps", steps), ("guidance", guidance)):
        if getattr(settings, name.split()[-1]) is None:
            chosen.append(f"{name} {value:g}: {why}")
    steps = steps if settings.steps is None else settings.steps
    guidance = guidance if settings.guidance is None else settings.guidance
    size = settings.size or _native_size(pipe, settings.model)
    sampler = {name: getattr(settings, name) for name in ("negative_prompt", "dtype")}
    made_of = {
        "pipeline": type(pipe).__name__,
        "parts": {name: _part(part, texts) for name, part in sorted(pipe.components.items())},
        "size": size,
        "prompts": texts,
        **({} if settings.lora is None else {"lora": settings.lora}),
        "sampler": sampler
        | {"guidance": guidance, "steps": steps, "safety_checker": settings.safety_checker},
    }
    _place(pipe, settings)
    found = digest(made_of)
    return Hub(pipe, settings, texts, size, steps, guidance, tuple(chosen), found)


def _add_lora(pipe: Any, settings: HubSettings) -> None:
    """Load LoRA weights into a pipeline; the digest of its parts then tells them.

    Raises:
        ParameterError: it takes none, or there are none.
    """
    allowed = "LoRA weights that fit the pipeline"
    takes = hasattr(pipe, "load_lora_weights")
    require(takes, "lora", settings.lora, f"left out: {type(pipe).__name__} takes none")
    try:
        with _no_bars():
            offline = settings.local_files_only
            pipe.load_lora_weights(settings.lora, local_files_only=offline)
            pipe.fuse_lora()
            pipe.unload_lora_weights()
    except Exception as error:  # the libraries raise nearly everything
        if isinstance(error, MemoryError):
            raise
        raise ParameterError("lora", settings.lora, f"{allowed} ({one_line(error)})") from error


def _schedule(pipe: Any, settings: HubSettings) -> list[str]:
    """Give a pipeline its scheduler; what was chosen here, in words."""
    own = type(pipe.scheduler).__name__
    name, chosen = settings.scheduler, []
    if name is None and own == "PNDMScheduler":
        name = "ddim"
        chosen.append(
            f"sampler ddim: the pipeline's own, {own}, repeats its first step wherever it begins"
        )
    if name is not None:
        kind = scheduler_class(name)
        allowed = f"one that fits the pipeline's own, {own}"
        require(kind in pipe.scheduler.compatibles, "scheduler", name, allowed)
        config = whole_config(pipe.scheduler)
        # PNDM's Runge-Kutta steps can only come first, at t = T
        config |= {"skip_prk_steps": True} if kind.__name__ == "PNDMScheduler" else {}
        # what the pipeline's own does not know must stay off: latents go beyond -1 and 1
        config.setdefault("clip_sample", False)
        pipe.scheduler = kind.from_config(config)
    return chosen


def own_values(pipe: Any) -> tuple[int, float, str]:
    """Denoising steps of a whole trajectory and guidance that suit a pipeline, and why.

    Distilled models, which are told by their schedulers, want few steps and no guidance; the others
    what their pipeline's call has as its defaults.
    """
    taken = inspect.signature(type(pipe).__call__).parameters
    kind, config = type(pipe.scheduler).__name__, pipe.scheduler.config
    network = network_of(pipe)
    asks = getattr(getattr(network, "config", None), "guidance_embeds", None)
    trailing = kind in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
    trailing = trailing and config.get("timestep_spacing") == "trailing"
    if trailing and not config.get("rescale_betas_zero_snr", False):
        return 4, 1.0, f"{kind} with trailing timesteps, as distilled (turbo) models have"
    if kind in DISTILLED and not type(pipe).__name__.startswith("LatentConsistency"):
        return 4, 1.0, f"{kind}, as distilled models have"
    if asks is False:
        return 4, 1.0, "a network that is not told the guidance, as distilled (schnell) models"
    defaults = (taken["num_inference_steps"].default, 1.0)
    if "guidance_scale" in taken:
        defaults = (defaults[0], taken["guidance_scale"].default)
    fits = all(isinstance(value, int | float) for value in defaults)
    allowed = "used with --denoising-steps and --guidance: its pipeline has no defaults"
    require(fits, "pipeline", type(pipe).__name__, allowed)
    return int(defaults[0]), float(defaults[1]), f"the default of {type(pipe).__name__}"


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
    known = [found for found in dir(diffusers) if found.endswith("Pipeline")]
    require(ok, "pipeline", name, f"the name of a pipeline of diffusers{near(name, known)}")
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
        options = {**where, DTYPE: DTYPES[settings.dtype]}
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
    network = network_of(pipe)
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
