"""Training a diffusion model on the pixels of any data set, class-conditional or not.

A UNet2DModel that predicts the noise of a cosine DDPM schedule (Ho et al. 2020; Nichol and
Dhariwal 2021), with class dropout for guidance (Ho and Salimans 2022) and averaged weights.
The finished folder is what diffusers itself loads: `DDPMPipeline.from_pretrained(folder)`.
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

import diffusers
import numpy as np
import torch
from diffusers import (
    DDPMScheduler,  # pyright: ignore[reportPrivateImportUsage]
    UNet2DModel,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor, nn

from common.divergence import DivergenceError, Watch
from common.errors import ParameterError, require
from common.files import digest, file_digest, read_json, whole_folder, write_json
from common.locks import writing
from common.progress import progress
from common.seeding import seed_for, torch_stream
from common.tensors import read_tensors, write_tensors
from common.threads import one_thread
from empirical.config.strength import TRAIN_TIMESTEPS
from empirical.datasets.base import to_float
from empirical.datasets.seen import SEEN, image_digests, read_seen, seen_digest, write_seen
from empirical.generation.framing import Framing, framing_for
from empirical.generation.recipe import Recipe

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
ABOUT = "training.json"
HALF_WAY = 9
"""The average forgets fast at first: after n steps its share of itself is n / (n + this)."""


@dataclass(frozen=True)
class Trained:
    """A finished training. digest: SHA-256 of its weight file."""

    folder: Path
    digest: str
    seconds: float


def make_unet(
    channels: int, framing: Framing, n_classes: int, recipe: Recipe, seed: int
) -> UNet2DModel:
    """A fresh UNet; label n_classes is the null class."""
    levels = len(recipe.widths)
    has_attention = [level >= levels - recipe.attention for level in range(levels)]
    kinds = ["Attn" if has else "" for has in has_attention]
    inside = channels * framing.shuffle**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("generator network", seed))
        return UNet2DModel(
            sample_size=framing.padded // framing.shuffle,
            in_channels=inside,
            out_channels=inside,
            layers_per_block=recipe.layers,
            block_out_channels=recipe.widths,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            norm_num_groups=8,  # the default of 32 does not divide small widths
            num_class_embeds=n_classes + 1 if recipe.conditional else None,
        )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear rise, cosine fall; a function of the step alone, so that nothing has to be stored."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * rise * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def fingerprint(
    pixels: Tensor, labels: Tensor, n_classes: int, recipe: Recipe, seed: int, device: str
) -> str:
    """What a generator depends on: its images and classes, its recipe, its seed, its device."""
    data = [hashlib.sha256(part.numpy().data).hexdigest() for part in (pixels, labels)]
    what = {name: value for name, value in asdict(recipe).items() if name != "checkpoint_every"}
    shape = [*pixels.shape, n_classes]
    about = {"data": data, "shape": shape, "recipe": what, "seed": seed, "device": device}
    return digest(about)


def train_generator(
    pixels: Tensor,
    labels: Tensor,
    n_classes: int,
    recipe: Recipe,
    seed: int,
    folder: Path,
    name: str = "generator",
    device: str = "cpu",
    advice: str | None = None,
) -> Trained:
    """Train a generator into `folder`, resume it from a checkpoint, or check it if it is finished.

    pixels: uint8 (n, channels, side, side); labels: int64 (n,). Until it is finished its
    checkpoints lie in `folder` + ".checkpoint". The random numbers of a step are keyed by the
    step, so on a CPU a killed and resumed training equals an undisturbed one byte for byte.
    advice: what a message says to do if it diverges; None: a lower learning rate.

    Raises:
        DivergenceError: the loss or the weights are no longer finite; nothing is left behind.
        ParameterError: another process trains one into `folder`; the images cannot be trained on;
            or a file in `folder` is cut short or belongs to other images or settings.
    """
    _check_images(pixels, labels, n_classes)
    framing = framing_for(pixels.shape[-1], 2 ** (len(recipe.widths) - 1), recipe.shuffle)
    unet = make_unet(pixels.shape[1], framing, n_classes, recipe, seed)
    pixels, labels = pixels.contiguous(), labels.contiguous()
    made_by = fingerprint(pixels, labels, n_classes, recipe, seed, torch.device(device).type)
    training = _Training(unet, framing, recipe, seed, folder, made_by, name, device)
    if not folder.exists():
        watch = Watch(f"the {name} training", advice or f"lower --lr {recipe.lr:g}")
        with writing(training.checkpoint.parent, "generator", folder), one_thread():
            try:
                training.run(pixels, labels, n_classes, watch)
            except DivergenceError:
                shutil.rmtree(training.checkpoint.parent)
                raise
            shutil.rmtree(training.checkpoint.parent)
    shutil.rmtree(training.checkpoint.parent, ignore_errors=True)
    return check_finished(folder, unet, made_by)


def _check_images(pixels: Tensor, labels: Tensor, n_classes: int) -> None:
    n, side = len(pixels), pixels.shape[-1]
    square = pixels.dtype == torch.uint8 and pixels.dim() == 4 and pixels.shape[2] == side
    said = f"{pixels.dtype} {tuple(pixels.shape)}"
    require(square and n > 0, "pixels", said, "uint8 (n, channels, side, side), n at least 1")
    ok = labels.dtype == torch.int64 and labels.shape == (n,)
    ok = ok and int(labels.min()) >= 0 and int(labels.max()) < n_classes
    require(ok, "labels", tuple(labels.shape), f"int64 ({n},) from 0 to {n_classes - 1}")


def check_finished(folder: Path, unet: UNet2DModel, made_by: str) -> Trained:
    """Check that the weights of a finished generator are whole and its own.

    unet: one of the same shape.

    Raises:
        ParameterError: a file is missing, cut short or changed, or of another training.
    """
    about_path, weights = folder / ABOUT, folder / WEIGHTS
    for path in (about_path, weights, folder / SEEN):
        require(path.is_file(), "generator", path, "present; remove its folder to train again")
    keys = ("fingerprint", "sha256", "seconds", "trained_on")
    about = read_json(about_path, "generator", keys)
    require(
        about["fingerprint"] == made_by,
        "generator",
        about_path,
        "a generator trained on the same images with the same settings; remove its folder to "
        "train again",
    )
    read_tensors(weights, "generator", unet.state_dict())
    found = file_digest(weights)
    require(
        found == about["sha256"],
        "generator",
        weights,
        f"the file with the SHA-256 in {ABOUT}; remove its folder to train again",
    )
    trained_on(folder)
    return Trained(folder, found, about["seconds"])


def trained_on(folder: Path) -> np.ndarray | None:
    """The images that the model in `folder` was trained on (`seen.read_seen`); None: unknown.

    Raises:
        ParameterError: it is a model of this project, and its note of them is missing or changed.
    """
    seen = read_seen(folder)
    about = folder / ABOUT
    if about.is_file():
        noted = read_json(about, "generator").get("trained_on")
        allowed = f"a model with the {SEEN} that it was written with; train it again"
        require(noted is not None and noted == seen_digest(seen), "generator", folder, allowed)
    return seen


@dataclass(frozen=True)
class _Training:
    """One training: the network with all that stays the same from step to step."""

    unet: UNet2DModel
    framing: Framing
    recipe: Recipe
    seed: int
    folder: Path
    made_by: str
    name: str
    device: str

    @property
    def checkpoint(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.checkpoint") / "checkpoint.safetensors"

    def run(self, pixels: Tensor, labels: Tensor, n_classes: int, watch: Watch) -> None:
        """All steps from the last checkpoint on, and the finished folder."""
        recipe, unet = self.recipe, self.unet
        scheduler = DDPMScheduler(
            num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2"
        )
        optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.lr)
        average = {key: value.clone() for key, value in unet.state_dict().items()}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        first, earlier = 0, 0.0
        if self.checkpoint.exists():
            first, earlier = self._resume(optimizer, average)
        self._move(optimizer, average)
        start = time.monotonic()
        unet.train()
        with progress(f"{self.name}: training steps", recipe.steps, first) as advance:
            for step in range(first, recipe.steps):
                loss = self._loss(scheduler, pixels, labels, n_classes, step)
                watch.see(step + 1, loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
                optimizer.step()
                keep = min(recipe.ema, (step + 1) / (step + 1 + HALF_WAY))
                for key, value in unet.state_dict().items():
                    average[key].lerp_(value, 1 - keep)
                advance()
                done = step + 1
                if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                    watch.weights(done, unet.parameters())
                if done % recipe.checkpoint_every == 0 and done < recipe.steps:
                    about = {
                        "step": str(done),
                        "fingerprint": self.made_by,
                        "seconds": str(earlier + time.monotonic() - start),
                    }
                    write_tensors(self.checkpoint, _state(unet, optimizer, average), about)
        seconds = round(earlier + time.monotonic() - start, 2)
        self._finish(scheduler, average, image_digests(pixels), seconds)

    def _loss(
        self, scheduler: Any, pixels: Tensor, labels: Tensor, n_classes: int, step: int
    ) -> Tensor:
        """Of one step: all of its random numbers come from a stream of its own."""
        recipe, stream = self.recipe, torch_stream("generator step", self.seed, step)
        rows = torch.randint(len(labels), (recipe.batch_size,), generator=stream)
        images = self.framing.wrap(to_float(pixels[rows]))
        noise = torch.randn(images.shape, generator=stream)
        timesteps = torch.randint(TRAIN_TIMESTEPS, (len(rows),), generator=stream)
        dropped = torch.rand(len(rows), generator=stream) < recipe.class_dropout
        if recipe.flips:
            turned = torch.rand(len(rows), generator=stream) < 0.5
            flipped = self.framing.wrap(to_float(pixels[rows]).flip(-1))
            images = torch.where(turned[:, None, None, None], flipped, images)
        noisy = scheduler.add_noise(images, noise, timesteps).to(self.device)
        classes = labels[rows].masked_fill(dropped, n_classes).to(self.device)
        told = {"class_labels": classes} if recipe.conditional else {}
        predicted = self.unet(noisy, timesteps.to(self.device), **told).sample
        return nn.functional.mse_loss(predicted, noise.to(self.device))

    def _move(self, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> None:
        """Network, averaged weights and Adam's moments to the device."""
        self.unet.to(torch.device(self.device))  # pyright: ignore[reportArgumentType]
        for key in average:
            average[key] = average[key].to(self.device)
        optimizer.load_state_dict(optimizer.state_dict())

    def _finish(
        self, scheduler: Any, average: Mapping[str, Tensor], images: np.ndarray, seconds: float
    ) -> None:
        """images: digests of those that it was trained on."""
        index = {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        }
        with whole_folder(self.folder) as part:
            (part / "unet").mkdir()
            (part / "scheduler").mkdir()
            write_tensors(part / WEIGHTS, {key: value.cpu() for key, value in average.items()})
            config = self.unet.to_json_string()
            (part / "unet" / "config.json").write_text(config, encoding="utf-8")
            config = scheduler.to_json_string()
            path = part / "scheduler" / "scheduler_config.json"
            path.write_text(config, encoding="utf-8")
            write_json(part / "model_index.json", index)
            write_seen(part, images)
            about = {
                "fingerprint": self.made_by,
                "sha256": file_digest(part / WEIGHTS),
                "images": len(images),
                "trained_on": seen_digest(read_seen(part)),
                "seed": self.seed,
                "recipe": json.loads(json.dumps(asdict(self.recipe))),
                "seconds": seconds,
            }
            write_json(part / ABOUT, about)

    def _resume(
        self, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
    ) -> tuple[int, float]:
        """Restore a checkpoint; returns the step to resume from and the seconds spent."""
        state: dict[int, dict[str, Any]] = {
            number: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for number, parameter in enumerate(self.unet.parameters())
        }
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        like = _state(self.unet, optimizer, average)
        tensors, about = read_tensors(self.checkpoint, "checkpoint", like)
        require(
            about.get("fingerprint") == self.made_by,
            "checkpoint",
            self.checkpoint,
            "a checkpoint of the same images and settings; remove it to train from the start",
        )
        try:
            step, seconds = int(about["step"]), float(about["seconds"])
        except (KeyError, ValueError) as error:
            allowed = "a checkpoint that names its step"
            raise ParameterError("checkpoint", self.checkpoint, allowed) from error
        self.unet.load_state_dict({key: tensors[f"weights.{key}"] for key in average})
        for key in average:
            average[key].copy_(tensors[f"average.{key}"])
        for number, moments in state.items():
            for key in moments:
                moments[key] = tensors[f"optimizer.{number}.{key}"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return step, seconds


def _state(
    unet: UNet2DModel, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights, their average and Adam's moments as one flat dictionary, on the CPU."""
    flat = {f"weights.{key}": value for key, value in unet.state_dict().items()}
    flat |= {f"average.{key}": value for key, value in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
    return {key: value.cpu() for key, value in flat.items()}
