"""FID and KID between synthetic images and *other* real ones, by torchmetrics.

A copy keeps much of its own source. So copies of one half of the sources are compared with the
real images of the other half, and what the distance would be for real images stands beside it.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from empirical.diagnosis.estimates import Estimate

GROUPS = 8
"""Groups of sources that the jackknife leaves out one by one."""
JACKKNIFED = 256
"""Features up to which FID is jackknifed: each takes the eigenvalues of a matrix of that size."""
LEAST = 8
"""Sources in either half, below which there is no distance."""
KID_SUBSET = 1000
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""The file of Inception-v3 that torch-fidelity keeps in torch's hub folder."""
REMEDY = "pip install 'tada-companion[metrics]'"


@dataclass(frozen=True, eq=False)
class Features:
    """real: float (n, d), of sources; copies: (N, d); of: int64 (N,), the place of each copy's
    source in `real`, rising; sources: int64 (n,), numbers that the caller knows the sources by."""

    real: Tensor
    copies: Tensor
    of: Tensor
    sources: np.ndarray


@dataclass(frozen=True)
class Distances:
    """fid, kid: of copies to other real images; fid_real, kid_real: of real images to these."""

    fid: Estimate
    kid: Estimate
    fid_real: Estimate
    kid_real: Estimate


def library() -> Any | None:
    """torchmetrics.image, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fid = importlib.import_module("torchmetrics.image.fid")
            kid = importlib.import_module("torchmetrics.image.kid")
    except ImportError:
        return None
    return fid.FrechetInceptionDistance, kid.KernelInceptionDistance, fid


def judged_distances(spaces: Sequence[Features], scale: bool = True) -> Distances | None:
    """FID and KID, averaged over feature spaces; None without torchmetrics, or with few sources.

    scale: features are divided by the root mean variance of the sources', so that numbers of
    different judges can be compared; not those of Inception, whose scale everyone uses. Standard
    errors are those of a jackknife over sources; none for FID in more than JACKKNIFED features.
    """
    metrics = library()
    spaces = [own for own in spaces if len(own.real) >= 2 * LEAST]
    if metrics is None or not spaces:
        return None
    scaled = []
    for own in spaces:
        unit = own.real.double().var(dim=0).mean().sqrt().clamp(min=1e-12) if scale else 1.0
        scaled.append(Features(own.real / unit, own.copies / unit, own.of, own.sources))
    jackknifed = max(own.real.shape[1] for own in spaces) <= JACKKNIFED
    whole = _both(scaled, metrics)
    without = [
        _both([_left(own, group) for own in scaled], metrics, fid=jackknifed)
        for group in range(GROUPS)
    ]
    errors = np.sqrt((GROUPS - 1) * np.var(without, axis=0)).tolist()
    values = [
        Estimate(own, error if math.isfinite(error) else None)
        for own, error in zip(whole, errors, strict=True)
    ]
    return Distances(*values)


def _left(own: Features, group: int) -> Features:
    """Without every source of one group, and its copies; groups go across both halves."""
    keep = torch.arange(len(own.real)) // 2 % GROUPS != group
    place = keep.cumsum(0) - 1
    copies = keep[own.of]
    return Features(
        own.real[keep], own.copies[copies], place[own.of[copies]], own.sources[keep.numpy()]
    )


def _both(
    spaces: Sequence[Features], metrics: Any, fid: bool = True
) -> tuple[float, float, float, float]:
    """(fid, kid, fid_real, kid_real), the mean over spaces and over both directions.

    fid: False leaves FID out, as NaN.
    """
    found = []
    for own in spaces:
        first = torch.arange(len(own.real)) % 2 == 0
        held = _distance(own.real[first], own.real[~first], metrics, fid)  # it has no direction
        for here in (first, ~first):
            copies = own.copies[here[own.of]]
            found.append((*_distance(own.real[~here], copies, metrics, fid), *held))
    one, two, three, four = np.mean(found, axis=0).tolist()
    return one, two, three, four


def _distance(real: Tensor, made: Tensor, metrics: Any, fid: bool) -> tuple[float, float]:
    fid_of, kid_of, _ = metrics
    space = _AsTheyAre(real.shape[1])
    size = min(len(real), len(made), KID_SUBSET)
    subsets = min(10, -(-max(len(real), len(made)) // size))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # on the memory that it takes
        torch.default_generator.manual_seed(0)  # of KID's subsets
        values = []
        for metric in (
            *([fid_of(feature=space)] if fid else []),
            kid_of(feature=space, subsets=subsets, subset_size=size),
        ):
            metric.update(real.double(), real=True)
            metric.update(made.double(), real=False)
            values.append(metric.compute())
    return float(values[0]) if fid else math.nan, float(values[-1][0])


class _AsTheyAre(nn.Module):
    """A network whose images are features already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, x: Tensor) -> Tensor:
        return x


def inception_file() -> Path:
    """Where Inception's weights are, if they are."""
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION


def inception_features(pixels: Tensor, weights: Path, batch_size: int = 32) -> Tensor:
    """Inception-v3's 2048 features, float32 (n, 2048), of uint8 (n, C, H, W), C 1 or 3.

    Nothing is downloaded: the weights are read from a file.
    """
    metrics = library()
    assert metrics is not None
    network = metrics[2].NoTrainInceptionV3(
        name="inception-v3-compat",
        features_list=["2048"],
        feature_extractor_weights_path=str(weights),
    )
    found = []
    with torch.no_grad():
        for piece in pixels.split(batch_size):
            found.append(network(piece.expand(-1, 3, -1, -1)))
    return torch.cat(found)
