"""How synthetic images are made. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from common.checks import check_number, whole_number
from common.errors import near, require
from empirical.config.strength import check_strength

GENERATORS = ("pixel", "glide", "ideal", "ideal:fading")
"""Generators without a model to name; pixel:MODEL, hub:MODEL and python:MODULE:NAME have one."""
GENERATOR_DATA = ("pool", "train")
KEEP = ("all", "agreeing", "confident")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class GenerationSettings:
    """The generator, the strengths of its images, and how it denoises.

    Raises:
        ParameterError: a value is not allowed, or two do not fit each other.
    """

    strength: float = 0.5
    """share of the diffusion trajectory that is re-noised, in (0, 1]"""
    strengths: tuple[float, ...] | None = None
    """copy 1 at the first, copy 2 at the second, ... cyclically; None: all at strength"""
    boomerang_strength: float = 0.2
    """strength for arm boomerang"""
    trajectory: bool = False
    """copies are kept along one denoising run (the paper's way), not made of noise of their own"""
    from_noise: bool = False
    """the paper's ablation: images from pure noise and the class alone"""
    denoising_steps: int | None = 8
    """steps of the sampler: with fixed_steps those of every image, else of a whole trajectory;
    None: what suits a hub pipeline, and so with hub:MODEL where it is not said"""
    fixed_steps: bool = True
    """every image takes denoising_steps, whatever its strength (pixel); else strength's share"""
    sampler: str | None = None
    """ddim, dpm++, euler, ... or a class of diffusers; None: ddim, or a hub pipeline's own"""
    guidance: float | None = 1.0
    """classifier-free guidance scale; 1 is none; None: as denoising_steps"""
    prompt: str = "a photo of a {class}"
    """prompt of an image (hub, glide)"""
    generator: str = "pixel"
    """pixel (trained in OUT), pixel:MODEL, hub:MODEL, glide, python:MODULE:FUNCTION (your own),
    ideal or ideal:fading (planted)"""
    generator_data: str = "pool"
    """what pixel is trained on: pool (images apart from all others) or train"""
    generator_steps: int = 1000
    """training steps of pixel"""
    generator_widths: tuple[int, ...] = (32, 64)
    """channels of pixel at each resolution, from the full one down"""
    generator_shuffle: int = 1
    """side of the pixel tiles that become channels of pixel: 2 makes 28x28 into 4 times 14x14"""
    generator_seed: int = 0
    """seed of pixel's own training, apart from seed"""
    generator_size: int | None = None
    """pixels of a side inside a hub pipeline; None: what its model was trained on"""
    generator_dtype: str = "float32"
    """numbers inside a named model: float32, float16 or bfloat16"""
    negative_prompt: str | None = None
    """what a hub pipeline's guidance leads away from"""
    pipeline: str | None = None
    """class of diffusers to load a hub model with; None: its image-to-image one"""
    revision: str | None = None
    """branch, tag or commit of a hub model"""
    variant: str | None = None
    """variant of a hub model's weight files, as fp16"""
    lora: str | None = None
    """file, folder or name on the hub of LoRA weights for a hub pipeline"""
    safety_checker: bool = False
    """let a hub pipeline blacken images that it holds to be unsafe"""
    keep: str = "all"
    """synthetic images to train on: all; agreeing (the early network sees their class) or confident
    (with a probability of one half or more)"""
    synthetic_probability: float = 1.0
    """with which an epoch shows a synthetic image, and not its source again"""

    def __post_init__(self) -> None:
        for name, known in (
            ("generator_data", GENERATOR_DATA),
            ("generator_dtype", DTYPES),
            ("keep", KEEP),
        ):
            value = getattr(self, name)
            require(value in known, name, value, " or ".join(known) + near(value, known))
        for name, least in (
            ("generator_steps", 1),
            ("generator_shuffle", 1),
            ("generator_seed", 0),
        ):
            whole_number(name, getattr(self, name), least)
        if self.denoising_steps is not None or not self.is_hub:
            whole_number("denoising_steps", self.denoising_steps, 1)
        if self.guidance is not None or not self.is_hub:
            check_number("guidance", self.guidance)
        kind, model = self.kind, self.model
        known = self.generator in GENERATORS or (kind in ("pixel", "hub", "python") and model != "")
        names = f"{', '.join(GENERATORS)}, pixel:MODEL, hub:MODEL or python:MODULE:FUNCTION"
        allowed = names + near(kind, GENERATORS)
        require(known, "generator", self.generator, allowed)
        allowed = f"without {self.generator}, which starts from an image"
        require(not (kind == "ideal" and self.from_noise), "from_noise", self.from_noise, allowed)
        fits = not self.fixed_steps or kind in ("pixel", "ideal", "python")
        allowed = f"off (--no-fixed-steps) for {kind}, which cuts the whole trajectory"
        require(fits, "fixed_steps", self.fixed_steps, allowed)
        fits = not self.trajectory or kind in ("pixel", "glide")
        require(fits, "trajectory", self.trajectory, f"off for {kind}, which shows no trajectory")
        some = self.strengths is None or len(self.strengths) > 0
        require(some, "strengths", "none", "at least one number, or left out")
        one = not self.trajectory or len(self.strengths or ()) < 2
        require(one, "strengths", self.strengths, "one strength for one trajectory")
        both = self.trajectory and self.from_noise
        require(not both, "from_noise", True, "off on a trajectory")
        share = self.synthetic_probability
        require(0 < share <= 1, "synthetic_probability", share, "in (0, 1]")
        for name in ("negative_prompt", "pipeline", "revision", "variant", "lora"):
            given = getattr(self, name)
            fits = given is None or self.is_hub
            require(fits, name, given, f"left out without a hub: generator ({self.generator})")
        for name in ("strength", "boomerang_strength"):
            check_strength(getattr(self, name), name)
        for strength in self.strengths or ():
            check_strength(strength, "strengths")

    @property
    def kind(self) -> str:
        """pixel, hub, glide or ideal."""
        return self.generator.partition(":")[0]

    @property
    def model(self) -> str:
        """The model of pixel:MODEL and hub:MODEL, else empty or a variant of the generator."""
        return self.generator.partition(":")[2]

    @property
    def is_hub(self) -> bool:
        """Whether the generator is a pipeline of diffusers, which chooses steps and guidance."""
        return self.kind == "hub"
