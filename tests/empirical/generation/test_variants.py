"""Copies at one strength, at several and along one run; what their noise is keyed by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import ParameterError
from empirical.config.strength import check_strength
from empirical.generation.base import Originals, module_digest, noise_stream, plain_config, prompts
from empirical.generation.pixel import load_pixel
from empirical.generation.sampling import Sampling
from empirical.generation.variants import Copy, Variants, generate, plan

Make = Callable[..., Originals]


@dataclass(frozen=True)
class Numbers:
    """Images of one level, drawn from the stream."""

    digest: str = "numbers"
    name: str = "numbers"

    def denoising_steps(self, strength: float) -> int:
        check_strength(strength)
        return round(10 * strength)

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        made = torch.empty_like(originals.pixels)
        for image, stream in zip(made, streams, strict=True):
            image[:] = torch.randint(256, (), generator=stream)
        return made


def level(index: int, copy: int, strength: float, seed: int, digest: str = "numbers") -> int:
    stream = noise_stream(digest, index, copy, strength, seed)
    return int(torch.randint(256, (), generator=stream))


def test_copies_at_strengths_in_turn(make_originals: Make) -> None:
    variants = Variants(6, (0.3, 0.7))
    expected = [(1, 0.3, 3), (2, 0.7, 7), (3, 0.3, 3), (4, 0.7, 7), (5, 0.3, 3)]
    assert plan(Numbers(), variants) == tuple(Copy(*values) for values in expected)
    made = generate(Numbers(), make_originals(4), variants, seed=9)
    assert made.shape == (4, 5, 3, 8, 8)
    assert made[:, :, 0, 0, 0].tolist() == [
        [level(index, copy, strength, 9) for copy, strength, _ in expected]
        for index in (100, 101, 102, 103)
    ]


def test_noise_is_keyed_by_everything_it_depends_on() -> None:
    key = {"index": 1, "copy": 1, "strength": 0.5, "seed": 0, "digest": "a"}
    others = {"index": 2, "copy": 2, "strength": 0.25, "seed": 1, "digest": "b"}
    seeds = {
        noise_stream(k["digest"], k["index"], k["copy"], k["strength"], k["seed"]).initial_seed()
        for k in [key, *({**key, name: value} for name, value in others.items())]
    }
    assert len(seeds) == 6


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_batches_change_nothing(make_originals: Make, batch: int) -> None:
    advanced: list[int] = []
    variants, originals = Variants(3, (0.5,)), make_originals(5)
    made = generate(Numbers(), originals, variants, 0, batch, advanced.append)
    assert torch.equal(made, generate(Numbers(), originals, variants, 0))
    assert (sum(advanced), max(advanced)) == (10, min(batch, 5))


def test_no_originals_give_no_images(make_originals: Make) -> None:
    assert generate(Numbers(), make_originals(0), Variants(3, (0.5,)), 0).shape == (0, 2, 3, 8, 8)


def test_copies_along_one_run(
    conditional: Path, make_originals: Make, apart: Callable[[Tensor, Tensor], int]
) -> None:
    """Evenly spaced, and the last is the image that a run alone would end with."""
    backend = load_pixel(conditional, 3, 8, 3, Sampling("ddpm", steps=20))
    along, alone = Variants(5, (0.5,), trajectory=True), Variants(2, (0.5,))
    assert [copy.steps for copy in plan(backend, along)] == [3, 5, 8, 10]
    originals = make_originals(3)
    made = generate(backend, originals, along, 0)
    assert made.shape == (3, 4, 3, 8, 8)
    assert apart(made[:, 3], generate(backend, originals, alone, 0)[:, 0]) <= 1
    assert apart(made, generate(backend, originals, along, 0, batch=1)) <= 1
    noisy = generate(backend, originals, Variants(5, (0.5,), trajectory=True, kept="image"), 0)
    assert torch.equal(noisy[:, 3], made[:, 3])
    assert not torch.equal(noisy[:, 0], made[:, 0])


def test_all_is_checked_before_the_first_image(conditional: Path) -> None:
    backend = load_pixel(conditional, 3, 8, 3, Sampling(steps=20))
    with pytest.raises(ParameterError, match=r"strength = 0.04: must be at least 0.05"):
        plan(backend, Variants(3, (0.5, 0.04)))
    with pytest.raises(ParameterError, match="k = 12: must be at most 11"):
        plan(backend, Variants(12, (0.5,), trajectory=True))
    with pytest.raises(ParameterError, match="generator = numbers: must be one that shows"):
        plan(Numbers(), Variants(3, (0.5,), trajectory=True))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"k": 1, "strengths": (0.5,)}, "k = 1"),
        ({"k": 2, "strengths": ()}, "strengths = "),
        ({"k": 3, "strengths": (0.5, 0.6), "trajectory": True}, "strengths = "),
        ({"k": 3, "strengths": (0.5,), "kept": "all"}, "kept = all"),
    ],
)
def test_variants_out_of_range_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Variants(**values)  # type: ignore[arg-type]


def test_batches_out_of_range_are_refused(make_originals: Make) -> None:
    with pytest.raises(ParameterError, match="batch = 0"):
        generate(Numbers(), make_originals(1), Variants(2, (0.5,)), 0, batch=0)


def test_originals_that_do_not_fit_together_are_refused() -> None:
    pixels, numbers = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2)
    for pixels_, labels, indices, name in (
        (pixels.float(), numbers, numbers, "pixels"),
        (pixels[0], numbers, numbers, "pixels"),
        (pixels, numbers[:1], numbers, "labels"),
        (pixels, numbers, numbers.float(), "indices"),
    ):
        with pytest.raises(ParameterError, match=f"{name} = "):
            Originals(pixels_, labels, indices)


def test_prompts_take_the_first_name() -> None:
    classes = ("goldfish, Carassius auratus", "sweet_pepper", "7")
    assert prompts("a photo of a {class}", classes) == [
        "a photo of a goldfish",
        "a photo of a sweet pepper",
        "a photo of a 7",
    ]


def test_the_digest_of_weights() -> None:
    """Of values, names and types; not of where they lie in memory."""
    layer = torch.nn.Linear(2, 3)
    whole = module_digest(layer)
    other = torch.nn.Linear(2, 3)
    other.load_state_dict({name: value.clone() for name, value in layer.state_dict().items()})
    other.weight.data = other.weight.data.t().contiguous().t()
    assert module_digest(other) == whole
    assert module_digest(layer.to(torch.bfloat16)) != whole
    other.bias.data[0] += 1
    assert module_digest(other) != whole


def test_configurations_without_who_and_when() -> None:
    text = '{"_class_name": "A", "_diffusers_version": "1", "transformers_version": "2", "size": 3}'
    assert plain_config(text) == {"size": 3}
