"""The generator: a class-conditional diffusion model, trained in place on a few images.

A UNet2DModel that predicts the noise of a cosine DDPM schedule (Ho et al. 2020; Nichol and
Dhariwal 2021), with class dropout for guidance (Ho and Salimans 2022) and averaged weights.
The finished folder is what diffusers itself loads: `UNet2DModel.from_pretrained(folder)`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from empirical.data import to_float
from empirical.files import file_digest, read_tensors, whole_folder, write_tensors
from empirical.settings import TRAIN_TIMESTEPS
from empirical.streams import seed_for, torch_stream
from empirical.training import one_thread
from sim.progress import progress
from theory.files import digest, read_json, write_json
from theory.parameters import ParameterError, require

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """How a generator is trained; lr rises over `warmup` steps and falls to 0 as a cosine."""

    steps: int
    batch_size: int = 32
    lr: float = 1e-3
    warmup: int = 50
    ema: float = 0.99
    class_dropout: float = 0.1
    widths: tuple[int, ...] = (32, 64)
    checkpoint_every: int = 20


@dataclass(frozen=True)
class Generator:
    """A trained generator. null_class: the label that stands for no class; digest: of its file."""

    unet: UNet2DModel
    null_class: int
    digest: str
    seconds: float


def ddpm() -> DDPMScheduler:
    """The diffusion that the generator learns to reverse."""
    return DDPMScheduler(num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2")


def make_unet(channels: int, side: int, n_classes: int, recipe: Recipe, seed: int) -> UNet2DModel:
    """A fresh UNet; label n_classes is the null class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("generator network", seed))
        return UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=recipe.widths,
            down_block_types=("DownBlock2D",) * len(recipe.widths),
            up_block_types=("UpBlock2D",) * len(recipe.widths),
            norm_num_groups=8,  # the default of 32 does not divide small widths
            num_class_embeds=n_classes + 1,
        )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear rise, cosine fall; a function of the step alone, so that nothing has to be stored."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * rise * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def fingerprint(pixels: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> str:
    """What a generator depends on: its images, its recipe, its seed."""
    data = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in (pixels, labels)]
    what = {name: value for name, value in asdict(recipe).items() if name != "checkpoint_every"}
    return digest({"data": data, "recipe": what, "seed": seed})


def train_generator(
    pixels: Tensor,
    labels: Tensor,
    n_classes: int,
    recipe: Recipe,
    seed: int,
    folder: Path,
    name: str = "generator",
) -> Generator:
    """Train a generator into `folder`, go on from its checkpoint, or load it if it is finished.

    pixels: uint8 (n, channels, side, side); labels: int64 (n,). Until it is finished its
    checkpoints lie in `folder` + ".checkpoint". The random numbers of a step are keyed by the
    step, so a killed and resumed training equals an undisturbed one byte for byte.

    Raises:
        ParameterError: a file in `folder` is cut short or belongs to other images or settings.
    """
    unet = make_unet(pixels.shape[1], pixels.shape[-1], n_classes, recipe, seed)
    made_by = fingerprint(pixels, labels, recipe, seed)
    if not folder.exists():
        with one_thread():
            _train(unet, to_float(pixels), labels, n_classes, recipe, seed, folder, made_by, name)
    shutil.rmtree(_checkpoints(folder), ignore_errors=True)
    return load_generator(folder, unet, n_classes, made_by)


def load_generator(folder: Path, unet: UNet2DModel, n_classes: int, made_by: str) -> Generator:
    """Load the weights of a finished generator into `unet`, and check that they are its own.

    Raises:
        ParameterError: a file is missing, cut short or changed, or of another training.
    """
    about_path, weights_path = folder / "training.json", folder / WEIGHTS
    about = read_json(about_path, "generator", ("fingerprint", "sha256", "seconds"))
    require(
        about["fingerprint"] == made_by,
        "generator",
        about_path,
        "a generator trained on the same images with the same settings; remove its folder to "
        "train anew",
    )
    weights, _ = read_tensors(weights_path, "generator", unet.state_dict())
    found = file_digest(weights_path)
    require(
        found == about["sha256"],
        "generator",
        weights_path,
        f"the file with the SHA-256 in {about_path.name}; remove its folder to train anew",
    )
    unet.load_state_dict(weights)
    return Generator(unet.eval(), n_classes, found, about["seconds"])


def _checkpoints(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.checkpoint")


def _train(
    unet: UNet2DModel,
    pixels: Tensor,
    labels: Tensor,
    n_classes: int,
    recipe: Recipe,
    seed: int,
    folder: Path,
    made_by: str,
    name: str,
) -> None:
    scheduler = ddpm()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.lr)
    average = {key: value.clone() for key, value in unet.state_dict().items()}
    checkpoint = _checkpoints(folder) / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    first, earlier = 0, 0.0
    if checkpoint.exists():
        first, earlier = _resume(checkpoint, made_by, unet, optimizer, average)
    start = time.monotonic()
    unet.train()
    with progress(f"{name}: training steps", recipe.steps, first) as advance:
        for step in range(first, recipe.steps):
            stream = torch_stream("generator step", seed, step)
            rows = torch.randint(len(labels), (recipe.batch_size,), generator=stream)
            noise = torch.randn(len(rows), *pixels.shape[1:], generator=stream)
            timesteps = torch.randint(TRAIN_TIMESTEPS, (len(rows),), generator=stream)
            dropped = torch.rand(len(rows), generator=stream) < recipe.class_dropout
            classes = labels[rows].masked_fill(dropped, n_classes)
            noisy = scheduler.add_noise(pixels[rows], noise, timesteps)  # pyright: ignore[reportArgumentType]
            predicted = unet(noisy, timesteps, class_labels=classes).sample
            loss = nn.functional.mse_loss(predicted, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
            optimizer.step()
            keep = min(recipe.ema, (step + 1) / (step + 10))
            for key, value in unet.state_dict().items():
                average[key].lerp_(value, 1 - keep)
            advance()
            done = step + 1
            if done % recipe.checkpoint_every == 0 and done < recipe.steps:
                about = {
                    "step": str(done),
                    "fingerprint": made_by,
                    "seconds": str(earlier + time.monotonic() - start),
                }
                write_tensors(checkpoint, _state(unet, optimizer, average), about)
    with whole_folder(folder) as part:
        write_tensors(part / WEIGHTS, average)
        (part / "config.json").write_text(unet.to_json_string(), encoding="utf-8")
        (part / "scheduler_config.json").write_text(scheduler.to_json_string(), encoding="utf-8")
        about = {
            "fingerprint": made_by,
            "sha256": file_digest(part / WEIGHTS),
            "images": len(labels),
            "seed": seed,
            "recipe": json.loads(json.dumps(asdict(recipe))),
            "seconds": round(earlier + time.monotonic() - start, 2),
        }
        write_json(part / "training.json", about)


def _state(
    unet: UNet2DModel, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights, their average and Adam's moments as one flat dictionary."""
    flat = {f"weights.{key}": value for key, value in unet.state_dict().items()}
    flat |= {f"average.{key}": value for key, value in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
    return flat


def _resume(
    path: Path,
    made_by: str,
    unet: UNet2DModel,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> tuple[int, float]:
    """Put a checkpoint's state in place; returns the step to go on from and the seconds spent."""
    state: dict[int, dict[str, Any]] = {
        number: {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        for number, parameter in enumerate(unet.parameters())
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    tensors, about = read_tensors(path, "checkpoint", _state(unet, optimizer, average))
    require(
        about.get("fingerprint") == made_by,
        "checkpoint",
        path,
        "a checkpoint of the same images and settings; remove it to train from the start",
    )
    try:
        step, seconds = int(about["step"]), float(about["seconds"])
    except (KeyError, ValueError) as error:
        raise ParameterError("checkpoint", path, "a checkpoint that names its step") from error
    unet.load_state_dict({key: tensors[f"weights.{key}"] for key in average})
    for key in average:
        average[key].copy_(tensors[f"average.{key}"])
    for number, moments in state.items():
        for key in moments:
            moments[key] = tensors[f"optimizer.{number}.{key}"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return step, seconds
