"""The command `train-generator`: a diffusion model for any data set of this project."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from common.errors import require
from empirical.generation.recipe import Recipe


def train_generator(
    recipe: Recipe,
    dataset: str,
    out: Path,
    data: Path = Path("data"),
    download: bool = True,
    first: int = 0,
    count: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    image_size: int | None = None,
) -> None:
    """Train a class-conditional diffusion model on a data set, into OUT.

    OUT is a folder that diffusers' DDPMPipeline loads too. The same command resumes a stopped
    training, and on a CPU ends with the same bytes. It sees the images that the data set keeps for
    a generator (digits, fashion-mnist), or else the training images, from `first` on, `count` of
    them (all: no `count`); OUT/trained-on.npy says which, and `run` refuses it where they are
    scored.

    For example: python -m empirical train-generator --dataset cifar10 --steps 20000 --widths 64
    128 256 --flips --out runs/cifar10-generator

    Args:
        dataset: as in `run`.
        out: folder of the model.
        data: folder with the published data sets.
        download: download a data set that is not there.
        first: first of these images that it sees.
        count: how many it sees; None: all from the first on.
        seed: of weights, noise and order.
        device: cpu, cuda, ...
        image_size: pixels of a side of folder: and hf: images; None: as in `run`.
    """
    from empirical.config import presets
    from empirical.datasets.splits import for_generator, make_split, open_set
    from empirical.generation.train import train_generator
    from empirical.pipeline.memory import Sizes, check_generator
    from empirical.training.devices import check_device

    world = os.environ.get("WORLD_SIZE", "1")
    require(world == "1", "processes", world, "1: a generator is trained by one process")
    check_device(device)
    require(0 <= seed < 2**63, "seed", seed, f"a whole number between 0 and {2**63 - 1}")
    own = presets.base(None, dataset).data
    size = own.image_size if image_size is None else image_size
    settings = replace(own, dataset=dataset, n_train=None, image_size=size)
    images = open_set(settings, data, download)
    mine = for_generator(make_split(images, settings))
    n = len(mine)
    require(0 <= first < n, "first", first, f"between 0 and {n - 1}")
    fits = count is None or 1 <= count <= n - first
    require(fits, "count", count, f"between 1 and {n - first}")
    rows = mine[first : None if count is None else first + count]
    pixels, labels = images.train.pixels[rows], images.train.labels[rows]
    classes = len(images.classes)
    sizes = Sizes(len(rows), 0, len(rows), images.channels, images.side, classes)
    check_generator(recipe, sizes, device)
    name = f"{dataset} generator"
    done = train_generator(pixels, labels, classes, recipe, seed, out, name, device)
    print(f"trained on {len(labels)} images in {done.seconds:.0f} s: {done.folder}")
