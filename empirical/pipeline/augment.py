"""Steps 3 and 4 for your own training: synthetic images for your slow examples, in your own loop.

slow = tada.select_slow(logits, logits, labels)
store = tada.augment(images, labels, slow, generator, k=2, strength=0.5, out="runs/store")
loader = DataLoader(store.dataset(transform), batch_size=128, shuffle=True)
store.export("imagefolder", "runs/images")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import require
from common.progress import progress
from empirical.datasets.base import Images, fingerprint
from empirical.generation.base import Backend, Originals
from empirical.generation.plugin import Generate, as_backend
from empirical.generation.variants import Variants, one_copy, plan
from empirical.storage import export as exporting
from empirical.storage.request import ImageSpec, Request
from empirical.storage.store import make_store, missing, read_store


@dataclass(frozen=True, eq=False)
class Augmented:
    """Real images with synthetic ones for some of them, made once and kept in `folder`.

    images: the real ones; sources, copies: int64 (m,), of each synthetic image; pixels: uint8
    (m, C, H, W), the synthetic images; files: names of the real images' files, if they have any.
    """

    folder: Path
    images: Images
    sources: np.ndarray
    copies: np.ndarray
    pixels: Tensor
    files: tuple[str, ...] | None = field(default=None)

    def dataset(
        self,
        transform: Callable[[Any], Any] | None = None,
        synthetic_probability: float = 1.0,
        seed: int = 0,
    ) -> AugmentedSet:
        """Real and synthetic images as a map-style torch data set of (image, label).

        transform: given a PIL image, as torchvision's are; without it images are uint8 tensors.
        synthetic_probability: with which an item that is synthetic is that, else its real source.
        """
        return AugmentedSet(self, transform, synthetic_probability, seed)

    def export(self, kind: str, path: str | Path) -> Path:
        """Write all images as "imagefolder", "webdataset" or "huggingface" (`storage.export`)."""
        made = {
            (int(source), int(copy)): pixels
            for source, copy, pixels in zip(self.sources, self.copies, self.pixels, strict=True)
        }
        rows = range(len(self.images.labels))

        def every() -> Any:
            yield from exporting.real(self.images, rows, self.files)
            yield from exporting.synthetic(self.images, made)

        return exporting.export(kind, Path(path), self.images.classes, {"train": every()})

    def push_to_hub(self, name: str, **options: Any) -> None:
        """Upload all images to a data set of the Hugging Face hub. Nothing else ever uploads.

        name: OWNER/NAME; options: of `datasets.Dataset.push_to_hub`, such as private=True.
        """
        import tempfile

        from datasets import load_dataset

        with tempfile.TemporaryDirectory() as folder:
            path = self.export("huggingface", Path(folder) / "export")
            load_dataset(str(path), cache_dir=folder).push_to_hub(name, **options)


class AugmentedSet(Dataset[tuple[Any, int]]):
    """Map-style data set: the real images first, then the synthetic ones."""

    def __init__(
        self,
        augmented: Augmented,
        transform: Callable[[Any], Any] | None,
        synthetic_probability: float,
        seed: int,
    ) -> None:
        fits = 0 <= synthetic_probability <= 1
        require(fits, "synthetic_probability", synthetic_probability, "in [0, 1]")
        self.augmented, self.transform = augmented, transform
        self.probability = synthetic_probability
        self.stream = torch.Generator().manual_seed(seed)
        self.classes = augmented.images.classes

    def __len__(self) -> int:
        return len(self.augmented.images.labels) + len(self.augmented.sources)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        images, n = self.augmented.images, len(self.augmented.images.labels)
        if not -len(self) <= item < len(self):
            raise IndexError(item)
        item %= len(self)
        source = item if item < n else int(self.augmented.sources[item - n])
        own = item >= n and self.probability == 1
        if item >= n and 0 < self.probability < 1:
            own = float(torch.rand((), generator=self.stream)) < self.probability
        pixels = self.augmented.pixels[item - n] if own else images.pixels[source]
        label = int(images.labels[source])
        if self.transform is None:
            return pixels, label
        from PIL import Image

        array = pixels.permute(1, 2, 0).numpy()
        array = array[..., 0] if len(pixels) == 1 else array
        return self.transform(Image.fromarray(array)), label


def augment(
    images: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    slow: Tensor | np.ndarray,
    generator: Backend | Generate,
    k: int = 2,
    strength: float = 0.5,
    *,
    out: str | Path,
    classes: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 50,
) -> Augmented:
    """Make k - 1 synthetic images of every slow image (Algorithm 1, step 3), kept in `out`.

    Args:
        images: uint8 (n, channels, height, width), channels 1 or 3; or channels last.
        labels: whole numbers (n,).
        slow: bool (n,), or the indices of slow images.
        generator: a function of (originals, strength, streams), or an object with name, digest and
            generate: see `empirical.generation.plugin`.
        k: how often a slow image counts.
        strength: in (0, 1], passed on to the generator.
        out: folder of the store; the same call resumes, and finds finished images there.
        classes: names of the classes, by label; by default the labels themselves.
        files: names of the images, for exports.
        seed: keys the random streams, with the index of the image and the number of its copy.
        batch_size: images that the generator is given at once.

    Raises:
        ParameterError: shapes or values do not fit, or `out` is a store of something else.
    """
    real = _images(images, labels, classes)
    n = len(real.labels)
    chosen = torch.as_tensor(np.asarray(slow))
    index = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()
    fits = chosen.shape == (n,) if chosen.dtype == torch.bool else chosen.dim() == 1
    require(fits, "slow", tuple(chosen.shape), f"bool ({n},), or indices")
    inside = not len(index) or (int(index.min()) >= 0 and int(index.max()) < n)
    require(inside and len(index) > 0, "slow", f"{len(index)} indices", f"some, from 0 to {n - 1}")
    require(files is None or len(files) == n, "files", len(files or ()), f"as many as images, {n}")
    backend = as_backend(generator)
    copies = {copy.number: copy for copy in plan(backend, Variants(k, (strength,)))}
    sources = sorted(set(index.tolist()))
    specs = tuple(
        ImageSpec(source, number, strength, int(real.labels[source]), copy.steps)
        for source in sources
        for number, copy in copies.items()
    )
    channels, height, width = real.pixels.shape[1:]
    request = Request(
        images=specs,
        classes=real.classes,
        shape=(channels, height, width),
        data=fingerprint(real),
        backend=backend.name,
        model=backend.digest,
        seed=seed,
    )
    folder = Path(out)

    def make(batch: Sequence[ImageSpec]) -> Tensor:
        rows = torch.tensor([own.source for own in batch])
        originals = Originals(real.pixels[rows], real.labels[rows], rows)
        return one_copy(backend, originals, copies[batch[0].copy], seed)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with progress("synthetic images", missing(folder, request)) as advance:
        make_store(folder, request, make, batch_size, advance)
    return Augmented(
        folder,
        real,
        np.array([own.source for own in specs]),
        np.array([own.copy for own in specs]),
        read_store(folder, request),
        None if files is None else tuple(files),
    )


def _images(
    images: Tensor | np.ndarray, labels: Tensor | np.ndarray, classes: Sequence[str] | None
) -> Images:
    pixels = torch.as_tensor(images)
    said = f"{pixels.dtype} {tuple(pixels.shape)}"
    fits = pixels.dtype == torch.uint8 and pixels.dim() == 4 and len(pixels) > 0
    require(fits, "images", said, "uint8 (n, channels, height, width)")
    if pixels.shape[1] not in (1, 3) and pixels.shape[-1] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
    require(pixels.shape[1] in (1, 3), "images", said, "of 1 or 3 channels")
    whole = torch.as_tensor(labels)
    fits = whole.shape == pixels.shape[:1] and not whole.is_floating_point()
    said = f"{whole.dtype} {tuple(whole.shape)}"
    require(fits, "labels", said, f"whole numbers ({len(pixels)},)")
    require(int(whole.min()) >= 0, "labels", int(whole.min()), "0 or more")
    most = int(whole.max()) + 1
    names = tuple(classes) if classes is not None else tuple(str(label) for label in range(most))
    require(len(names) >= most, "classes", len(names), f"a name for each of {most} labels")
    return Images(pixels, whole.long(), names)
