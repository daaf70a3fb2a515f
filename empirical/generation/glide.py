"""GLIDE (Nichol et al. 2022), the paper's generator: an adapter on OpenAI's own package.

The package is in no registry, so it is optional. Its 64 × 64 base model is used alone; other images
are scaled to that size and back.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from common.errors import MissingDependencyError, ParameterError, require
from common.files import digest
from empirical.config.strength import share_of_steps
from empirical.datasets.base import to_float, to_levels
from empirical.generation.base import (
    Kept,
    Originals,
    check_keep,
    check_labels,
    module_digest,
    one_line,
    prompts,
    standard_normal,
)
from empirical.generation.resize import from_rgb, resize, to_rgb

SIDE = 64
INSTALL = "pip install git+https://github.com/openai/glide-text2im"


@dataclass(frozen=True)
class GlideSettings:
    """Settings of GLIDE; the defaults are the paper's.

    Raises:
        ParameterError: a value is not allowed.
    """

    prompt: str = "a photo of a {class}"
    """prompt of an image, with the name of its class in place of {class}"""
    guidance: float = 3.0
    """classifier-free guidance scale"""
    steps: int = 100
    """denoising steps of a whole trajectory, of which strength leaves a share"""
    device: str = "cpu"
    """cpu or cuda; half precision on cuda"""

    def __post_init__(self) -> None:
        ok = isinstance(self.steps, int) and 1 <= self.steps <= 1000
        require(ok, "steps", self.steps, "a whole number between 1 and 1000")
        require(0 < self.guidance < float("inf"), "guidance", self.guidance, "a number above 0")


@dataclass(frozen=True, eq=False)
class Glide:
    """GLIDE's base model with the prompts of a data set's classes (see `load_glide`)."""

    model: Any
    diffusion: Any
    settings: GlideSettings
    prompts: tuple[str, ...]
    text_ctx: int
    digest: str
    name: str = "glide"

    def denoising_steps(self, strength: float) -> int:
        return share_of_steps(self.settings.steps, strength)

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        steps = [self.denoising_steps(strength)]
        return self._run(originals, strength, streams, steps, "prediction", True)[:, 0]

    def trajectory(
        self,
        originals: Originals,
        strength: float,
        streams: Sequence[torch.Generator],
        keep: Sequence[int],
        kept: Kept = "prediction",
    ) -> Tensor:
        check_keep(keep, self.denoising_steps(strength))
        return self._run(originals, strength, streams, keep, kept, True)

    def sample(
        self, labels: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator]
    ) -> Tensor:
        blank = torch.zeros(len(labels), *shape, dtype=torch.uint8)
        nothing = Originals(blank, labels, torch.zeros_like(labels))
        return self._run(nothing, 1.0, streams, [self.settings.steps], "prediction", False)[:, 0]

    @torch.no_grad()
    def _run(
        self,
        originals: Originals,
        strength: float,
        streams: Sequence[torch.Generator],
        keep: Sequence[int],
        kept: Kept,
        from_image: bool,
    ) -> Tensor:
        check_labels(originals.labels, len(self.prompts))
        n, steps = len(originals), self.denoising_steps(strength)
        shape = originals.pixels.shape[1:]
        if n == 0:
            return torch.empty(0, len(keep), *shape, dtype=torch.uint8)
        device = torch.device(self.settings.device)

        def draw() -> Tensor:
            return standard_normal((3, SIDE, SIDE), streams).to(device)

        def at(step: int, copies: int) -> Tensor:
            return torch.full((copies * n,), step, dtype=torch.int64, device=device)

        if from_image:
            start = resize(to_rgb(to_float(originals.pixels)), (SIDE, SIDE)).to(device)
            images = self.diffusion.q_sample(start, at(steps - 1, 1), noise=draw())
        else:
            images = draw()
        text = self._text(originals.labels, device)
        found: dict[int, Tensor] = {}
        self.model.del_cache()  # of the text of another batch
        try:
            for done in range(1, steps + 1):
                # both halves of the batch are the same images, with and without their text
                out = self.diffusion.p_mean_variance(
                    self._guided,
                    torch.cat([images, images]),
                    at(steps - done, 2),
                    clip_denoised=True,
                    model_kwargs=text,
                )
                images = out["mean"][:n]
                if done < steps:
                    images = images + (0.5 * out["log_variance"][:n]).exp() * draw()
                found[done] = out["pred_xstart"][:n] if kept == "prediction" else images
        finally:
            self.model.del_cache()
        found[steps] = images
        small = torch.stack([found[step].float().cpu() for step in keep], dim=1).flatten(0, 1)
        made = to_levels(from_rgb(resize(small, shape[1:]), shape[0]))
        return made.unflatten(0, (n, len(keep)))

    def _text(self, labels: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Tokens and masks: the images' prompts, then as many empty ones."""
        tokenizer = self.model.tokenizer
        texts = [tokenizer.encode(self.prompts[label]) for label in labels.tolist()]
        padded = [
            tokenizer.padded_tokens_and_mask(text, self.text_ctx)
            for text in [*texts, *([[]] * len(texts))]
        ]
        tokens = torch.tensor([tokens for tokens, _ in padded], device=device)
        mask = torch.tensor([mask for _, mask in padded], dtype=torch.bool, device=device)
        return {"tokens": tokens, "mask": mask}

    def _guided(self, images: Tensor, timesteps: Tensor, **text: Tensor) -> Tensor:
        """Noise and variance: the noise of both halves moved away from that without text."""
        output = self.model(images, timesteps, **text)
        noise, variance = output[:, :3], output[:, 3:]
        with_text, without = noise.chunk(2)
        guided = without + self.settings.guidance * (with_text - without)
        return torch.cat([torch.cat([guided, guided]), variance], dim=1)


def load_glide(
    classes: Sequence[str], cache_dir: Path, settings: GlideSettings | None = None
) -> Glide:
    """Load GLIDE's base model for a data set with these class names.

    cache_dir: where base.pt is, or is downloaded to; settings: None are the defaults.

    Raises:
        ParameterError: the package is not installed, the weights are not there or damaged, or a
            class has no name.
    """
    settings = settings or GlideSettings()
    texts = tuple(prompts(settings.prompt, classes))
    creation = glide_package("model_creation")
    options = creation.model_and_diffusion_defaults()
    device = torch.device(settings.device)
    half = device.type == "cuda"
    # the text is encoded once for a batch, not at every step
    options |= {"use_fp16": half, "timestep_respacing": str(settings.steps), "cache_text_emb": True}
    size = options["image_size"]
    require(size == SIDE, "model", "glide", f"for {SIDE}x{SIDE} pixels, not {size}")
    model, diffusion = creation.create_model_and_diffusion(**options)
    model.eval()
    if half:
        model.convert_to_fp16()
    model.to(device)
    try:
        model.load_state_dict(_weights(cache_dir, device))
    except Exception as error:  # a download and a pickle: nearly anything
        if isinstance(error, MemoryError):
            raise
        allowed = f"GLIDE's weights, or a folder to download them to ({one_line(error)})"
        raise ParameterError("cache_dir", cache_dir, allowed) from error
    made_of = {"weights": module_digest(model), "prompts": texts, "settings": asdict(settings)}
    del made_of["settings"]["device"]
    return Glide(model, diffusion, settings, texts, options["text_ctx"], digest(made_of))


def glide_package(module: str) -> ModuleType:
    """A module of OpenAI's package. Raises MissingDependencyError if it is not installed."""
    try:
        return importlib.import_module(f"glide_text2im.{module}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("generator glide", error.name, INSTALL) from error


def _weights(cache_dir: Path, device: torch.device) -> dict[str, Tensor]:
    """GLIDE's own loader asks the network even for a file that is there."""
    path = cache_dir / "base.pt"
    if path.is_file():
        return torch.load(path, map_location=device, weights_only=True)
    download = glide_package("download")
    return download.load_checkpoint("base", device, progress=False, cache_dir=str(cache_dir))
