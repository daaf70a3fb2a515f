"""Timesteps of the noising and denoising, and what an image depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from empirical import algorithm
from empirical.data import Images
from empirical.generator import Generator, Recipe, ddpm, train_generator
from empirical.sdedit import edit, make_sampler
from empirical.settings import SAMPLERS, Settings
from theory.parameters import ParameterError

pytestmark = pytest.mark.filterwarnings(
    # DPMSolverMultistepScheduler turns a tensor into an array the old way.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def generator(digits: Images, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("generator") / "generator"
    return train_generator(digits.pixels[:64], digits.labels[:64], 10, Recipe(10), 0, folder)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("strength", "steps", "expected"),
    [
        (1.0, 4, [999, 749, 499, 249]),
        (0.5, 4, [499, 374, 249, 124]),
        (0.8, 8, [799, 699, 599, 499, 399, 299, 199, 99]),
        (0.008, 8, [7, 6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_timesteps(name: str, strength: float, steps: int, expected: list[int]) -> None:
    scheduler, timesteps = make_sampler(name, strength, steps)
    assert timesteps.tolist() == expected
    if hasattr(scheduler, "begin_index"):
        assert scheduler.begin_index == len(scheduler.timesteps) - steps


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), 0.007])
def test_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ParameterError, match="strength = "):
        make_sampler("ddim", strength, 8)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_noise_prediction_gives_the_image_back(digits: Images, name: str) -> None:
    """The sampler undoes exactly the noise that was added: start and end of the chain agree."""

    class Oracle(torch.nn.Module):
        def __init__(self, clean: Tensor) -> None:
            super().__init__()
            self.clean, self.alpha_bar = clean, ddpm().alphas_cumprod

        def forward(self, noisy: Tensor, timestep: Tensor, class_labels: Tensor) -> object:
            a = self.alpha_bar[timestep]
            sample = (noisy - a.sqrt() * self.clean) / (1 - a).sqrt()
            return type("Output", (), {"sample": sample})

    pixels = digits.pixels[:5]
    oracle = Generator(Oracle(pixels.float() / 127.5 - 1), 10, "", 0.0)  # type: ignore[arg-type]
    streams = [torch.Generator().manual_seed(seed) for seed in range(5)]
    made = edit(oracle, pixels, digits.labels[:5], 0.7, streams, 8, name)
    # diffusers' DDIM rounds the spacing of its steps and stops at timestep 0, one short of clean.
    assert (made.int() - pixels.int()).abs().max() <= (4 if name == "ddim" else 1)


def test_an_image_depends_on_source_copy_and_seed_alone(
    digits: Images, generator: Generator, tiny: Callable[..., Settings]
) -> None:
    """Whichever images are made beside it, and in whichever order: within 1 of 255 levels."""
    chosen = tiny(strength=0.6)
    pairs = [(source, copy) for source in range(100, 140) for copy in (1, 2)]

    def make(wanted: list[tuple[int, int]], seed: int = 0) -> Tensor:
        return algorithm.generate(digits, wanted, chosen, generator, seed).int()

    whole = make(pairs)
    assert torch.equal(whole, make(pairs))
    for wanted in ([pairs[7]], pairs[5:60:7], pairs[::-1]):
        rows = [pairs.index(pair) for pair in wanted]
        assert (make(wanted) - whole[rows]).abs().max() <= 1
    assert (whole[::2] - whole[1::2]).abs().amax(dim=(1, 2, 3)).min() > 1  # copies differ
    assert (make(pairs, seed=1) - whole).abs().amax(dim=(1, 2, 3)).min() > 1


def test_low_strength_stays_near_the_source(
    digits: Images, generator: Generator, tiny: Callable[..., Settings]
) -> None:
    pairs = [(source, 1) for source in range(20)]
    real = digits.pixels[:20].int()
    far = [
        (algorithm.generate(digits, pairs, tiny(strength=strength), generator, 0).int() - real)
        .abs()
        .float()
        .mean()
        .item()
        for strength in (0.05, 0.3, 0.9)
    ]
    assert far == sorted(far)
    assert far[0] < 15


def test_guidance(digits: Images, generator: Generator) -> None:
    """Scale 1 is the plain prediction; another scale moves the image."""

    def make(guidance: float) -> Tensor:
        streams = [torch.Generator().manual_seed(seed) for seed in range(4)]
        pixels, labels = digits.pixels[:4], digits.labels[:4]
        return edit(generator, pixels, labels, 0.8, streams, 4, guidance=guidance).int()

    assert (make(1.0) - make(1.0 + 1e-6)).abs().max() <= 1
    assert not torch.equal(make(1.0), make(4.0))


def test_no_pairs_give_no_images(
    digits: Images, generator: Generator, tiny: Callable[..., Settings]
) -> None:
    assert algorithm.generate(digits, [], tiny(), generator, 0).shape == (0, 1, 8, 8)


def test_finished_folder_is_what_diffusers_loads(
    digits: Images, generator: Generator, tmp_path: Path
) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = tmp_path / "generator"
    ours = train_generator(digits.pixels[:8], digits.labels[:8], 10, Recipe(1), 0, folder)
    theirs = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    for name, value in ours.unet.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], value)
    assert DDPMScheduler.from_pretrained(folder).config["beta_schedule"] == "squaredcos_cap_v2"
