"""Synthetic images of a run: which generator makes them, and the store that keeps them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from common import distributed
from common.errors import ParameterError, near, require
from common.progress import progress
from common.threads import one_thread
from empirical.config.arms import SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.datasets.base import Images, ImageSet, fingerprint
from empirical.datasets.planted import PlantedSet
from empirical.datasets.seen import SEEN, check_unseen, seen_digest, write_seen
from empirical.datasets.splits import Split, for_generator
from empirical.generation.base import Backend, HasSample, Originals, one_line, prompts
from empirical.generation.from_noise import FromNoise
from empirical.generation.glide import GlideSettings, glide_package, load_glide
from empirical.generation.hub import DTYPES, Hub, HubSettings, load_hub
from empirical.generation.ideal import Curve, ideal
from empirical.generation.pixel import load_pixel
from empirical.generation.plugin import load_plugin
from empirical.generation.recipe import Recipe
from empirical.generation.sampling import Sampling
from empirical.generation.train import Trained, train_generator, trained_on
from empirical.generation.variants import Variants, one_copy, one_run, plan
from empirical.pipeline.arms import Pair
from empirical.runtime import Machine
from empirical.storage.request import ImageSpec, Request
from empirical.storage.sharing import told_by_first
from empirical.storage.store import make_store, missing, read_store

CURVES = {
    "ideal": Curve((0.001, 1.0), fidelity=(1, 1), kept_noise=(0.999, 0)),
    "ideal:fading": Curve(
        (0.001, 0.4, 0.6, 0.8, 1.0),
        fidelity=(1, 1, 0.85, 0.5, 0),
        kept_noise=(0.999, 0.6, 0.4, 0.2, 0),
    ),
}
"""Kept noise falls with strength; the feature stays (ideal), or fades at high strength as real
generators have it (ideal:fading)."""


def generator_data(images: Images, split: Split, settings: Settings) -> tuple[Tensor, Tensor]:
    """The images that a generator is trained on in place, and their labels.

    Raises:
        ParameterError: the data set has no pool.
    """
    pool = settings.generation.generator_data == "pool"
    require(
        not pool or len(split.pool) > 0,
        "generator_data",
        settings.generation.generator_data,
        f"train: {settings.data.dataset} keeps no images apart for a generator",
    )
    rows = torch.from_numpy(for_generator(split, pool))
    return images.pixels[rows], images.labels[rows]


def trained_here(
    data: ImageSet,
    split: Split,
    settings: Settings,
    folder: Path,
    device: str = "cpu",
    name: str = "generator",
) -> Trained:
    """The generator `pixel`: trained into `folder`, resumed, or found finished."""
    pixels, labels = generator_data(data.train, split, settings)
    recipe = recipe_of(settings, data.flips)
    seed = settings.generation.generator_seed
    return train_generator(pixels, labels, len(data.classes), recipe, seed, folder, name, device)


def recipe_of(settings: Settings, flips: bool) -> Recipe:
    """How the generator `pixel` of the settings is trained. Raises ParameterError."""
    return Recipe(
        steps=settings.generation.generator_steps,
        widths=settings.generation.generator_widths,
        shuffle=settings.generation.generator_shuffle,
        flips=flips,
    )


def seen_by(settings: Settings, folder: Path) -> np.ndarray | None:
    """The images that the generator of the settings was trained on (`seen.read_seen`).

    None: nothing is known, as of models from the hub. folder: of one trained in place.

    Raises:
        ParameterError: a model of this project does not say.
    """
    kind, _, model = settings.generation.generator.partition(":")
    if kind not in ("pixel", "hub"):
        return None
    return trained_on(Path(model).expanduser() if model else folder)


def check(data: ImageSet, split: Split, settings: Settings) -> None:
    """Refuse what no generator could do with these images, before anything is trained or made.

    Also one that was trained on images which are scored.
    """
    check_settings(settings)
    if ":" in settings.generation.generator:
        seen = seen_by(settings, Path())
        check_unseen("generator", settings.generation.generator, seen, data, split)
    if settings.generation.generator == "pixel":
        generator_data(data.train, split, settings)
    elif settings.generation.generator.startswith(("hub:", "glide")):
        prompts(settings.generation.prompt, data.classes)


def check_settings(settings: Settings) -> None:
    """The part of `check` that needs no images."""
    kind, _, model = settings.generation.generator.partition(":")
    if kind == "pixel":
        _sampling(settings)
        if not model:
            recipe_of(settings, flips=False)
    elif kind == "hub":
        _hub(settings, model, Machine())
    elif kind == "glide":
        _glide(settings, "cpu")


def check_installed(settings: Settings) -> None:
    """Refuse a generator that is not there before the early network is trained."""
    if settings.arm not in SYNTHETIC_ARMS:
        return
    kind, _, model = settings.generation.generator.partition(":")
    if kind == "glide":
        glide_package("model_creation")
    path = Path(model).expanduser()
    # names on the hub are OWNER/NAME
    local = path.is_absolute() or model[:1] in (".", "~") or model.count("/") > 1
    if kind in ("pixel", "hub") and (local or (path.parent != Path() and path.parent.is_dir())):
        around = [] if not path.parent.is_dir() else [p.name for p in path.parent.iterdir()]
        allowed = f"{kind}: and the folder of a model; there is no {path}{near(path.name, around)}"
        require(path.is_dir(), "generator", settings.generation.generator, allowed)


def is_named(settings: Settings) -> bool:
    """Whether the generator is a model of somebody else, not one that is made here."""
    return settings.generation.generator.startswith(("hub:", "pixel:", "glide", "python:"))


@dataclass(frozen=True)
class Tried:
    """What a generator of somebody else did with one image.

    steps: denoising steps at each strength of the arm; lines: these and what was chosen for it, in
    words, with the reasons.
    """

    steps: dict[float, int]
    lines: tuple[str, ...]


def try_named(
    settings: Settings, channels: int, side: int, n_classes: int, machine: Machine
) -> Tried | None:
    """Load a generator of somebody else, and make one image with it at every strength of the arm.

    channels, side, n_classes: of the data set. None for a generator that is made here, and where
    nothing may be downloaded and the model is not on this machine.

    Raises:
        ParameterError: it does not fit, does not work, or does not recover images.
    """
    if not is_named(settings) or not (machine.download or _is_here(settings, machine)):
        return None
    classes = [f"class {number}" for number in range(n_classes)]
    made = _named(settings, machine, classes, channels, side)
    backend, first = _from_noise(settings, made), torch.zeros(1, dtype=torch.int64)
    grey = Originals(torch.full((1, channels, side, side), 128, dtype=torch.uint8), first, first)
    steps = {}
    for strength in dict.fromkeys(settings.arm_strengths):
        steps[strength] = backend.denoising_steps(strength)
        with one_thread():
            backend.generate(grey, strength, [torch.Generator()])
    lines = [f"at strength {strength:g}: {n} denoising steps" for strength, n in steps.items()]
    chosen = made.chosen if isinstance(made, Hub) else ()
    return Tried(
        steps, tuple(f"{settings.generation.generator}: {line}" for line in (*lines, *chosen))
    )


def _is_here(settings: Settings, machine: Machine) -> bool:
    """Whether a named generator can be read without a download."""
    kind, _, model = settings.generation.generator.partition(":")
    if kind == "python":
        return True
    if kind == "glide":
        there = importlib.util.find_spec("glide_text2im") is not None
        return there and (machine.data / "glide" / "base.pt").is_file()
    if Path(model).expanduser().is_dir():
        return True
    try:
        return isinstance(try_to_load_from_cache(model, "model_index.json"), str)
    except ValueError as error:
        allowed = f"{kind}: and a folder or OWNER/NAME ({one_line(error)})"
        raise ParameterError("generator", settings.generation.generator, allowed) from error


def load_backend(
    data: ImageSet, split: Split, settings: Settings, folder: Path, machine: Machine
) -> Backend:
    """The generator of the settings. folder: of one trained in place (`trained_here`).

    Raises:
        ParameterError: there is no such model, it is damaged, or it does not fit the images.
    """
    if settings.generation.generator == "pixel":
        distributed.run_on_main(lambda: trained_here(data, split, settings, folder, machine.device))
    return distributed.run_on_all(lambda: _load(data, settings, folder, machine))


def _load(data: ImageSet, settings: Settings, folder: Path, machine: Machine) -> Backend:
    kind, _, model = settings.generation.generator.partition(":")
    if kind == "ideal":
        assert isinstance(data, PlantedSet)  # Settings saw to it
        return _from_noise(settings, ideal(data, CURVES[settings.generation.generator]))
    here = None if kind != "pixel" or model else folder
    made = _named(settings, machine, data.classes, data.channels, data.side, here)
    return _from_noise(settings, made)


def _from_noise(settings: Settings, made: Backend) -> Backend:
    """The generator, or what it makes of noise alone where the settings want that."""
    if not settings.generation.from_noise:
        return made
    allowed = f"off: {made.name} has nothing but images to start from"
    if not isinstance(made, HasSample):
        raise ParameterError("from_noise", True, allowed)
    return FromNoise(made)


def _named(
    settings: Settings,
    machine: Machine,
    classes: Sequence[str],
    channels: int,
    side: int,
    folder: Path | None = None,
) -> Backend:
    """A generator of somebody else, or the one trained in `folder`, for such images."""
    kind, _, model = settings.generation.generator.partition(":")
    if kind == "python":
        return load_plugin(model)
    if kind == "hub":
        return load_hub(classes, _hub(settings, model, machine))
    if kind == "glide":
        return load_glide(classes, machine.data / "glide", _glide(settings, machine.device))
    return load_pixel(
        folder or model,
        channels,
        side,
        len(classes),
        _sampling(settings),
        local_files_only=not machine.download,
        device=machine.device,
        dtype=DTYPES[settings.generation.generator_dtype] if model else torch.float32,
    )


def _said(settings: Settings) -> tuple[int, float]:
    """Denoising steps and guidance, which only a hub pipeline may be left to choose."""
    steps, guidance = settings.generation.denoising_steps, settings.generation.guidance
    assert steps is not None
    assert guidance is not None
    return steps, guidance


def _sampling(settings: Settings) -> Sampling:
    steps, guidance = _said(settings)
    return Sampling(
        scheduler=settings.generation.sampler or "ddim",
        steps=steps,
        fixed_steps=settings.generation.fixed_steps,
        guidance=guidance,
    )


def _hub(settings: Settings, model: str, machine: Machine) -> HubSettings:
    return HubSettings(
        model=model,
        prompt=settings.generation.prompt,
        guidance=settings.generation.guidance,
        steps=settings.generation.denoising_steps,
        scheduler=settings.generation.sampler,
        size=settings.generation.generator_size,
        dtype=settings.generation.generator_dtype,
        negative_prompt=settings.generation.negative_prompt,
        pipeline=settings.generation.pipeline,
        revision=settings.generation.revision,
        variant=settings.generation.variant,
        lora=settings.generation.lora,
        safety_checker=settings.generation.safety_checker,
        device=machine.device,
        offload=machine.offload,
        local_files_only=not machine.download,
    )


def _glide(settings: Settings, device: str) -> GlideSettings:
    require(
        settings.generation.sampler is None,
        "sampler",
        settings.generation.sampler,
        "None: GLIDE has its own",
    )
    steps, guidance = _said(settings)
    return GlideSettings(settings.generation.prompt, guidance, steps, device)


def variants(settings: Settings, pairs: Iterable[Pair]) -> Variants:
    """How the copies of these pairs differ: k - 1 is the largest copy among them."""
    k = 1 + max(copy for _, copy in pairs)
    return Variants(k, settings.arm_strengths, settings.generation.trajectory)


def request(
    images: Images,
    pairs: Sequence[Pair],
    settings: Settings,
    backend: Backend,
    seed: int,
    seen: np.ndarray | None = None,
) -> Request:
    """The store's request for these pairs (source, copy), in their order.

    seen: the images that the generator was trained on; None: unknown.

    Raises:
        ParameterError: a strength leaves no denoising step.
    """
    how = variants(settings, pairs)
    copies = {copy.number: copy for copy in plan(backend, how)}
    wanted = tuple(
        ImageSpec(
            source,
            copy,
            float(copies[copy].strength),
            int(images.labels[source]),
            copies[copy].steps,
        )
        for source, copy in pairs
    )
    about = {"k": how.k, "kept": how.kept} if how.trajectory else {}
    channels, height, width = images.pixels.shape[1:]
    return Request(
        images=wanted,
        classes=images.classes,
        shape=(channels, height, width),
        data=fingerprint(images),
        backend=backend.name,
        model=backend.digest,
        seed=seed,
        settings={
            "dataset": settings.data.dataset,
            "n_train": settings.data.train_images,
            "split": settings.data.split,
            **settings.data.reading,
            "trained_on": seen_digest(seen),
            "trajectory": how.trajectory,
            **about,
        },
        together=how.trajectory,
    )


def maker(
    images: Images, pairs: Sequence[Pair], settings: Settings, backend: Backend, seed: int
) -> Callable[[Sequence[ImageSpec]], Tensor]:
    """What makes a batch of wanted images: of one copy, or all of some sources' trajectories."""
    how = variants(settings, pairs)
    copies = {copy.number: copy for copy in plan(backend, how)}

    def make(batch: Sequence[ImageSpec]) -> Tensor:
        sources = list(dict.fromkeys(wanted.source for wanted in batch))
        index = torch.tensor(sources)
        originals = Originals(images.pixels[index], images.labels[index], index)
        if not how.trajectory:
            return one_copy(backend, originals, copies[batch[0].copy], seed)
        runs = one_run(backend, originals, list(copies.values()), seed, how.kept)
        row = {source: row for row, source in enumerate(sources)}
        return torch.stack([runs[row[wanted.source], wanted.copy - 1] for wanted in batch])

    return make


def stored_images(
    images: Images,
    pairs: Sequence[Pair],
    settings: Settings,
    backend: Backend,
    seed: int,
    folder: Path,
    batch_size: int = 50,
    repair: bool = False,
    seen: np.ndarray | None = None,
) -> dict[Pair, Tensor]:
    """The synthetic images of `pairs` from the store in `folder`; missing ones are made first.

    All processes of a job call this together. batch_size: images denoised together; repair:
    damaged shards are made again, and not only named; seen: the images that the generator was
    trained on (`seen_by`), which the store keeps a note of.
    """
    if not pairs:
        return {}
    wanted = distributed.run_on_all(lambda: request(images, pairs, settings, backend, seed, seen))
    folder.parent.mkdir(parents=True, exist_ok=True)
    left = told_by_first(lambda: missing(folder, wanted, repair))
    shown = left > 0 and distributed.is_first()
    with progress("synthetic images", left) if shown else nullcontext(lambda: None) as advance:
        make = maker(images, pairs, settings, backend, seed)
        make_store(folder, wanted, make, batch_size, advance, repair)

    def note() -> None:
        if seen is not None and (repair or not (folder / SEEN).exists()):
            write_seen(folder, seen)

    distributed.run_on_main(note)
    return dict(zip(pairs, read_store(folder, wanted), strict=True))
