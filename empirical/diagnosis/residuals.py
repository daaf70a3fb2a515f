"""Kept noise τ and amplitude a: what of an image is neither its class nor where the class is seen.

Minus the class's mean image, whitened, and where the classifier's answer depends on it least: see
README.md, residuals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torchvision.transforms.functional import gaussian_blur

from empirical.training.batches import Normalisation

QUANTISATION = 1 / 12
"""Variance of rounding to levels."""
KEPT = 1 / 3
"""Share of an image's places that residuals are compared at."""
REACH = 2
"""The whitening filter looks at so many pixels on either side."""
SMOOTHING = 0.1
"""How far the classifier's attention is smoothed, as a share of the side."""


def whitening(residuals: Tensor, most: int = 200_000) -> Tensor:
    """The filter that decorrelates small patches (ZCA): float32 (C, C, 5, 5).

    residuals: float (n, C, H, W), of which at most so many patches are looked at. The inverse
    square root of the patches' covariance, of which the rows of the middle pixel are the filter.
    Rounding is added to the covariance: where images are flat there is nothing to amplify.
    """
    n, channels, height, width = residuals.shape
    size = 2 * REACH + 1
    wanted = max(1, most // (height * width))
    some = residuals[:: max(1, -(-n // wanted))]
    patches = torch.nn.functional.unfold(_padded(some), size).transpose(1, 2).flatten(0, 1)
    patches = patches.double()
    covariance = patches.T @ patches / len(patches)
    covariance += QUANTISATION * torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ torch.diag(values.clamp(min=QUANTISATION).rsqrt()) @ vectors.T
    middle = torch.arange(channels) * size**2 + size**2 // 2
    return root[middle].reshape(channels, channels, size, size).float()


def filtered(residuals: Tensor, kernel: Tensor) -> Tensor:
    """Residuals through a filter of `whitening`, of the same shape."""
    return conv2d(_padded(residuals), kernel)


def _padded(residuals: Tensor) -> Tensor:
    """Reflected at the borders; an image too small for that is repeated at its border pixels."""
    reflects = min(residuals.shape[-2:]) > REACH
    return pad(residuals, (REACH,) * 4, mode="reflect" if reflects else "replicate")


def unused(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """Where the class is seen least: a third of the places of each image, bool (n, 1, H, W).

    By the squared gradient of (the label's logit - mean of all) at each pixel, summed over
    channels and smoothed. It depends on the sources only, not on their copies.
    """
    device = next(network.parameters()).device
    x = Normalisation.of(mean, std, device)(pixels.to(device)).requires_grad_(True)
    network.eval()
    with torch.enable_grad():
        logits = network(x)
        margin = logits.gather(1, labels.to(device)[:, None])[:, 0] - logits.mean(1)
        (slope,) = torch.autograd.grad(margin.sum(), x)
    energy = slope.detach().float().square().sum(1, keepdim=True).cpu()
    sigma = SMOOTHING * max(pixels.shape[-2:])
    reach = min(int(2 * sigma + 0.5), min(pixels.shape[-2:]) - 1)
    energy = gaussian_blur(energy, [2 * reach + 1] * 2, [sigma, sigma])
    # by rank, so that exactly a share is kept also where the gradient is 0
    rank = energy.flatten(1).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    kept = rank < max(1, round(KEPT * rank.shape[1]))
    return kept.reshape(energy.shape)
