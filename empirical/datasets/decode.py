"""Image files to square RGB pixels, by several threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from theory.parameters import ParameterError, require


def decode(paths: Sequence[Path], pixels: np.ndarray, threads: int | None = None) -> None:
    """Fill uint8 (n, 3, side, side) with the images of n files.

    Grey images become RGB. Others than `side` x `side` are turned upright as the camera says, cut
    to the central square and resized.

    threads: None is one for each core, at most 8: decoding is done outside of Python's lock.

    Raises:
        ParameterError: a file is not an image, or cut short; it names the first such one.
    """
    require(threads is None or threads >= 1, "threads", threads, "at least 1")
    workers = threads or min(os.cpu_count() or 1, 8)

    def fill(number: int) -> None:
        pixels[number] = _pixels(paths[number], pixels.shape[-1])

    # In blocks, so that an error stops the work soon; filters of warnings belong to the process.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        for start in range(0, len(paths), 256):
            list(pool.map(fill, range(start, min(start + 256, len(paths)))))


def _pixels(path: Path, side: int) -> np.ndarray:
    """One image, uint8 (3, side, side)."""
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith("I;16"):
                # Pillow would cut the upper half of the grey levels off
                opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise  # names the file
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise ParameterError("image", path, f"a whole image file ({error})") from error
    except Image.DecompressionBombError as error:
        raise ParameterError("image", path, f"of a sane size ({error})") from error
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)
