"""The paper's experiments, and laptop versions of them, by name: what `--preset` starts from.

Values: the paper where it gives them, else the usual recipe of its line of work (USEFUL, Nguyen et
al. 2024): 200 epochs, batch 128, learning rate 0.1 divided by 10 at epochs 100 and 150, crop with
padding 4 and flip. For upsampling the paper uses k = 2, since more hurts: say --k 2 with it.
"""

from __future__ import annotations

from common.errors import near, require
from empirical.config.data import OWN
from empirical.config.settings import Settings, changed
from empirical.config.training import TUNED_LR

DIGITS = Settings.make(
    {
        "dataset": "digits",
        "network": "small",
        "k": 2,
        "epochs": 60,
        "batch_size": 25,
        "lr": None,
        "rho": 0.2,
        "augmentation": "none",
        "separating_epoch": 4,
        "separating_lr": TUNED_LR["sgd"],
        "strength": 0.7,
    }
)
"""Chosen by `python -m empirical tune` on validation images only: results/digits/tune.json."""

_CIFAR10 = Settings.make(
    {
        "dataset": "cifar10",
        "network": "resnet18",
        "k": 5,
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "rho": 0.1,
        "augmentation": "crop+flip",
        "separating_epoch": 8,
        "separating_lr": 0.1,
        "strength": 0.5,
        "trajectory": True,
        "denoising_steps": 100,
        "fixed_steps": False,
        "guidance": 3.0,
        "generator": "glide",
    }
)
_CIFAR100 = changed(_CIFAR10, dataset="cifar100", rho=0.2, separating_epoch=20)
_TINY = changed(_CIFAR10, dataset="tinyimagenet", k=4, separating_epoch=10)

_FOLDER = changed(
    DIGITS,
    dataset="folder:images",
    n_train=None,
    network="conv4",
    image_size=32,
    epochs=40,
    batch_size=32,
    lr=0.05,
    augmentation="crop+flip",
    separating_epoch=5,
    strength=0.4,
    generator_data="train",
    generator_shuffle=2,
    generator_steps=1500,
)
"""Own images on a laptop. The generator sees the training images alone: what it adds is little."""

PRESETS = {
    "digits-small": DIGITS,
    "planted-small": changed(
        DIGITS,
        dataset="planted",
        network="conv4",
        k=4,
        epochs=12,
        batch_size=64,
        lr=0.05,
        separating_epoch=3,
        separating_epochs=8,
        strength=1.0,
        generator="ideal",
    ),
    "fashion-small": changed(
        DIGITS,
        dataset="fashion-mnist",
        n_train=1000,
        epochs=40,
        batch_size=50,
        lr=0.05,
        augmentation="crop+flip",
        strength=0.5,
        generator_shuffle=2,
        generator_steps=1000,
    ),
    "folder-small": _FOLDER,
    "folder-gpu": changed(
        _FOLDER,
        network="resnet18",
        image_size=64,
        epochs=100,
        batch_size=128,
        lr=0.1,
        generator="hub:stabilityai/sd-turbo",
        fixed_steps=False,
        denoising_steps=None,
        guidance=None,
    ),
    "cifar10-small": changed(
        _FOLDER,
        dataset="cifar10",
        n_train=10_000,
        batch_size=64,
        epochs=30,
        generator_widths=(64, 128, 128),
        generator_steps=20_000,
    ),
    "cifar10-resnet18": _CIFAR10,
    "cifar10-vgg19": changed(_CIFAR10, network="vgg19"),
    "cifar10-densenet121": changed(_CIFAR10, network="densenet121"),
    "cifar10-vit-s": changed(_CIFAR10, network="vit-s"),
    "cifar10-convnext-t": changed(_CIFAR10, network="convnext-t"),
    "cifar10-swin-t": changed(_CIFAR10, network="swin-t"),
    "cifar100-resnet18": _CIFAR100,
    "tinyimagenet-resnet18": _TINY,
}

_OF_DATASET = {
    "digits": "digits-small",
    "planted": "planted-small",
    "fashion-mnist": "fashion-small",
    "cifar10": "cifar10-resnet18",
    "cifar100": "cifar100-resnet18",
    "tinyimagenet": "tinyimagenet-resnet18",
}


def base(name: str | None, dataset: str | None, generator: str | None = None) -> Settings:
    """The settings that a command line starts from: a preset, or the one of its data set.

    Own images start from folder-small, and a hub pipeline from its own steps and guidance. Raises
    ParameterError for a preset that does not exist.
    """
    if name is None:
        own = dataset is not None and dataset.startswith(OWN)
        name = _OF_DATASET.get(dataset or "digits", "folder-small" if own else "cifar10-resnet18")
    allowed = f"one of {', '.join(PRESETS)}{near(name, PRESETS)}"
    require(name in PRESETS, "preset", name, allowed)
    found = PRESETS[name]
    if dataset is not None and dataset.startswith(OWN):
        found = changed(found, dataset=dataset)
    if generator is not None and generator.startswith("hub:"):
        own = {"denoising_steps": None, "guidance": None}
        found = changed(found, generator=generator, fixed_steps=False, trajectory=False, **own)
    return found
