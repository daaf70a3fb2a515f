"""Diffusion models on pixels: a UNet2DModel in the folder layout of diffusers' DDPMPipeline.

Unconditional, like the public DDPM checkpoints, or class-conditional, like those trained by
`empirical.generation.train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDPMPipeline,  # pyright: ignore[reportPrivateImportUsage]
    DDPMScheduler,  # pyright: ignore[reportPrivateImportUsage]
    UNet2DModel,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor

from common.errors import ParameterError, require
from common.files import digest
from empirical.datasets.base import to_float, to_levels
from empirical.generation.base import (
    DTYPE,
    Kept,
    Originals,
    check_dtype,
    check_keep,
    check_labels,
    module_digest,
    one_line,
    plain_config,
    standard_normal,
)
from empirical.generation.framing import Framing, framing_of
from empirical.generation.sampling import (
    Sampling,
    check_schedule,
    clean_and_noise,
    denoising,
    signal_share,
    step_arguments,
)


@dataclass(frozen=True, eq=False)
class Pixel:
    """A diffusion model on pixels (see `load_pixel`).

    schedule: the configuration of the scheduler it was trained with; n_classes: of a
    class-conditional model, None for an unconditional one; null_class: the label that stands for
    no class, where there is one; channels: of the images.
    """

    unet: UNet2DModel
    schedule: Mapping[str, Any]
    sampling: Sampling
    framing: Framing
    channels: int
    n_classes: int | None
    null_class: int | None
    digest: str
    name: str = "pixel"

    def denoising_steps(self, strength: float) -> int:
        return denoising(self.schedule, self.sampling, strength).steps

    def generate(
        self, originals: Originals, strength: float, streams: Sequence[torch.Generator]
    ) -> Tensor:
        steps = [self.denoising_steps(strength)]
        return self._run(originals.pixels, originals.labels, strength, streams, steps)[:, 0]

    def trajectory(
        self,
        originals: Originals,
        strength: float,
        streams: Sequence[torch.Generator],
        keep: Sequence[int],
        kept: Kept = "prediction",
    ) -> Tensor:
        check_keep(keep, self.denoising_steps(strength))
        return self._run(originals.pixels, originals.labels, strength, streams, keep, kept)

    def sample(
        self, labels: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator]
    ) -> Tensor:
        self._check(labels, shape)
        return self._run(None, labels, 1.0, streams, [self.denoising_steps(1.0)])[:, 0]

    def _check(self, labels: Tensor, shape: Sequence[int]) -> None:
        wanted = (self.channels, self.framing.side, self.framing.side)
        allowed = f"{wanted}, for which the model was loaded"
        require(tuple(shape) == wanted, "image shape", tuple(shape), allowed)
        if self.n_classes is not None:
            check_labels(labels, self.n_classes)

    @torch.no_grad()
    def _run(
        self,
        pixels: Tensor | None,
        labels: Tensor,
        strength: float,
        streams: Sequence[torch.Generator],
        keep: Sequence[int],
        kept: Kept = "prediction",
    ) -> Tensor:
        """Noise the images, or begin with noise alone, and denoise: uint8 (n, len(keep), ...)."""
        shape = (self.channels, self.framing.side, self.framing.side)
        if pixels is not None:
            self._check(labels, pixels.shape[1:])
        if len(labels) == 0:
            return torch.empty(0, len(keep), *shape, dtype=torch.uint8)
        require(len(streams) == len(labels), "streams", len(streams), f"{len(labels)}, one each")
        way = denoising(self.schedule, self.sampling, strength)
        scheduler, device = way.scheduler, self.unet.device
        inside = self.framing.padded // self.framing.shuffle
        noise = standard_normal((self.channels * self.framing.shuffle**2, inside, inside), streams)
        if pixels is None:
            images = noise * float(scheduler.init_noise_sigma)
        else:
            start = self.framing.wrap(to_float(pixels))
            images = scheduler.add_noise(start, noise, way.calls[:1].expand(len(labels)))
        images, labels = images.to(device), labels.to(device)
        extra = step_arguments(scheduler, streams, self.sampling.eta)
        found: dict[int, Tensor] = {}
        before = _global_noise(device)
        for call, (timestep, step) in enumerate(zip(way.calls, way.step_of, strict=True)):
            noisy = scheduler.scale_model_input(images, timestep)
            if kept == "image" and call and step != way.step_of[call - 1]:
                found[step - 1] = noisy
            output = self._predict(noisy, timestep, labels)
            share = signal_share(scheduler, timestep)
            clean, noise = clean_and_noise(
                output, noisy, share, self.schedule["prediction_type"], self.sampling.clip
            )
            images = scheduler.step(noise, timestep, images, **extra).prev_sample
            if kept == "prediction":
                found[step] = clean  # of several calls the last, which is the best
        found[way.steps] = images
        _check_no_global_noise(before, device, self.sampling.scheduler)
        return torch.stack(
            [to_levels(self.framing.unwrap(found[step].cpu())) for step in keep], dim=1
        )

    def _predict(self, noisy: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        """The network's output, float32, with guidance (Ho and Salimans 2022)."""
        noisy, timestep = noisy.to(self.unet.dtype), timestep.to(self.unet.device)
        if self.n_classes is None:
            return self.unet(noisy, timestep).sample.float()
        if self.sampling.guidance == 1 or self.null_class is None:
            return self.unet(noisy, timestep, class_labels=labels).sample.float()
        classes = torch.cat([labels, torch.full_like(labels, self.null_class)])
        both = self.unet(torch.cat([noisy, noisy]), timestep, class_labels=classes).sample
        with_class, without = both.float().chunk(2)
        return without + self.sampling.guidance * (with_class - without)


def _global_noise(device: torch.device) -> list[Tensor]:
    """The states of the random generators that all images would share."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _check_no_global_noise(before: list[Tensor], device: torch.device, scheduler: str) -> None:
    same = all(map(torch.equal, before, _global_noise(device)))
    require(same, "scheduler", scheduler, "one that draws its noise from the given generators")


def load_pixel(
    model: str | Path,
    channels: int,
    side: int,
    n_classes: int,
    sampling: Sampling | None = None,
    local_files_only: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Pixel:
    """Load a model for images of channels × side × side, from a folder or by its name on the hub.

    n_classes: of the images, which an unconditional model does not mind; sampling: None is the
    default.

    Raises:
        ParameterError: there is no such model, it is damaged, or for other images or classes.
    """
    sampling = sampling or Sampling()
    unet, schedule = _read(str(model), local_files_only, dtype)
    config = dict(unet.config)
    channels_in, channels_out = config["in_channels"], config["out_channels"]
    allowed = f"a UNet with as many output channels as input channels: {channels_in}"
    require(channels_out == channels_in, "model", model, f"{allowed}, not {channels_out}")
    check_schedule(model, schedule)
    schedule.setdefault("prediction_type", "epsilon")
    size = config["sample_size"]
    size = size[0] if isinstance(size, list | tuple) else size
    if not isinstance(size, int):
        raise ParameterError("model", model, "one whose configuration has a sample_size")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    embedded, kind = config.get("num_class_embeds"), config.get("class_embed_type")
    require(kind is None, "model", model, f"conditioned on labels or nothing, not {kind}")
    if embedded is not None:
        allowed = f"one for {n_classes} classes (and perhaps for none); it has {embedded}"
        require(embedded in (n_classes, n_classes + 1), "model", model, allowed)
    if sampling.guidance != 1:
        allowed = f"1: {model} knows no label for no class"
        require(embedded == n_classes + 1, "guidance", sampling.guidance, allowed)
    made_of = {
        "weights": module_digest(unet),
        "config": plain_config(unet.to_json_string()),
        "schedule": {key: value for key, value in schedule.items() if key[0] != "_"},
        "sampling": asdict(sampling),
    }
    return Pixel(
        unet=unet.to(device=torch.device(device)).eval(),  # pyright: ignore[reportCallIssue]
        schedule=schedule,
        sampling=sampling,
        framing=framing_of(model, channels, side, channels_in, size, factor),
        channels=channels,
        n_classes=None if embedded is None else n_classes,
        null_class=n_classes if embedded == n_classes + 1 else None,
        digest=digest(made_of),
    )


def _read(
    model: str, local_files_only: bool, dtype: torch.dtype
) -> tuple[UNet2DModel, dict[str, Any]]:
    """A UNet and the configuration of its scheduler.

    Their files lie in folders of their own, or all in one, as in the first public checkpoints.
    """
    try:
        folder = Path(model)
        if not folder.is_dir():
            folder = Path(DDPMPipeline.download(model, local_files_only=local_files_only))
        parts = [
            folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler")
        ]
        options = {DTYPE: dtype, "low_cpu_mem_usage": False, "output_loading_info": True}
        loaded: Any = UNet2DModel.from_pretrained(parts[0], **options)
        unet, found = loaded
        schedule: Any = DDPMScheduler.load_config(parts[1])
    except Exception as error:  # the libraries raise nearly everything on a damaged file
        if isinstance(error, MemoryError):
            raise
        allowed = f"a folder of diffusers' DDPMPipeline, or its name on the hub ({one_line(error)})"
        raise ParameterError("model", model, allowed) from error
    check_dtype(unet, dtype)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = list(found.get(kind, ()))
        said = f"whole: its weights have {kind.replace('_', ' ')} like {keys[:1]}"
        require(not keys, "model", model, said)
    return unet, dict(schedule)
