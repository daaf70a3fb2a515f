"""What a trained network answers, without augmentation: its outputs, and its errors by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.errors import require
from empirical.datasets.base import Images
from empirical.training.batches import Normalisation
from empirical.training.networks import penultimate

LAYERS = ("logits", "penultimate")
BATCH_SIZE = 512


@torch.no_grad()
def outputs(
    network: nn.Module,
    pixels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = BATCH_SIZE,
    layer: str = "logits",
) -> Tensor:
    """Outputs of a network in eval mode, float32 (n, d), on the CPU.

    pixels: uint8 (n, C, side, side), on the network's device or not; mean, std: as those of the
    training. layer: logits, or penultimate, which is what the last linear layer is given.
    Training mode is as it was afterwards. The number of threads is the caller's.

    Raises:
        ParameterError: no such layer.
    """
    require(layer in LAYERS, "layer", layer, " or ".join(LAYERS))
    device = next(network.parameters()).device
    normalise = Normalisation.of(mean, std, device)
    training = network.training
    network.eval()
    try:
        found = []
        for piece in pixels.split(batch_size):
            x = normalise(piece.to(device))
            found.append(network(x) if layer == "logits" else penultimate(network, x))
        return torch.cat(found).float().cpu()
    finally:
        network.train(training)


def evaluate(
    network: nn.Module,
    images: Images,
    mean: Sequence[float],
    std: Sequence[float],
    slow: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Errors (shares in [0, 1]) and mean cross-entropy on labelled images; a JSON value.

    slow: bool (n,), the images whose error, and that of the others, is given as well.
    Keys: n, error, loss, per_class (a list; None where a class has no image), and with `slow`
    error_slow and error_fast (None for a group without images).

    Raises:
        ParameterError: slow is not one bool for each image, or there are no images.
    """
    n = len(images.labels)
    require(n > 0, "images", "none", "at least one")
    labels = images.labels.cpu()
    logits = outputs(network, images.pixels, mean, std, batch_size)
    wrong = logits.argmax(1) != labels
    found: dict[str, Any] = {
        "n": n,
        "error": _share(wrong),
        "loss": float(cross_entropy(logits, labels)),
        "per_class": [_share(wrong[labels == own]) for own in range(len(images.classes))],
    }
    if slow is not None:
        require(
            slow.dtype == torch.bool and slow.shape == (n,),
            "slow",
            f"{slow.dtype} {tuple(slow.shape)}",
            f"bool ({n},)",
        )
        slow = slow.cpu()
        found |= {"error_slow": _share(wrong[slow]), "error_fast": _share(wrong[~slow])}
    return found


def _share(wrong: Tensor) -> float | None:
    return float(wrong.double().mean()) if len(wrong) else None
