"""Image files, or their bytes, to square RGB pixels, by several threads."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from common.errors import ParameterError, require

Encoded = Path | tuple[str, bytes]
"""An image file: its path, or what messages call it and its bytes."""


def decode(
    images: Sequence[Encoded],
    pixels: np.ndarray,
    threads: int | None = None,
    fit: str = "crop",
) -> None:
    """Fill uint8 (n, 3, side, side) with the images of n files.

    All are turned upright as the camera says and brought to RGB of 8 bits (`_rgb`, `_levels`).
    Others than `side` x `side` are cut to the central square (fit: crop), or laid whole onto black
    (pad), and resized.

    threads: None is one for each core, at most 8: decoding is done outside of Python's lock.

    Raises:
        ParameterError: a file is not an image, cut short, or of numbers that do not say what is
            white; it names the first such one, and says how many more of them there are.
    """

    def fill(number: int) -> None:
        pixels[number] = _pixels(images[number], pixels.shape[-1], fit)

    failed = _each(fill, len(images), threads)
    if failed:
        first = next(iter(failed.values()))
        others = [str(_path(images[number])) for number in list(failed)[1:4]]
        more = f"; {len(failed) - 1} more are not, as {', '.join(others)}" if others else ""
        raise ParameterError(first.name, first.value, first.allowed + more) from first


def unreadable(images: Sequence[Encoded], threads: int | None = None) -> dict[int, ParameterError]:
    """What is wrong with each of these files that is no whole image, by its place."""
    return _each(lambda number: read_rgb(images[number]), len(images), threads)


def _each(work: Callable[[int], object], n: int, threads: int | None) -> dict[int, ParameterError]:
    """work(0) ... work(n - 1) by several threads; the refusals by number."""
    require(threads is None or threads >= 1, "threads", threads, "at least 1")

    def refusal(number: int) -> ParameterError | None:
        try:
            work(number)
        except ParameterError as error:
            return error
        return None

    # filters of warnings belong to the process
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool,
    ):
        warnings.simplefilter("ignore")
        found = dict(enumerate(pool.map(refusal, range(n))))
    return {number: error for number, error in found.items() if error is not None}


def _path(image: Encoded) -> Path:
    return image if isinstance(image, Path) else Path(image[0])


def _pixels(encoded: Encoded, side: int, fit: str) -> np.ndarray:
    """One image, uint8 (3, side, side)."""
    image = read_rgb(encoded)
    if image.size != (side, side):
        bring = ImageOps.fit if fit == "crop" else ImageOps.pad
        image = bring(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def read_rgb(encoded: Encoded) -> Image.Image:
    """An image file in its own size. Raises ParameterError as `decode` does."""
    path = _path(encoded)
    try:
        # not Image.open(path): it maps files into memory, and scrambles an uncompressed TIFF that
        # is to be turned
        with (
            path.open("rb") if isinstance(encoded, Path) else io.BytesIO(encoded[1]) as file,
            Image.open(file) as opened,
        ):
            return _rgb(opened, path)
    except (FileNotFoundError, PermissionError, IsADirectoryError, ParameterError):
        raise  # names the file
    except UnidentifiedImageError:
        allowed = "a whole image file (Pillow knows none that begins like it)"
        raise ParameterError("image", path, allowed) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise ParameterError("image", path, f"a whole image file ({error})") from error
    except Image.DecompressionBombError as error:
        raise ParameterError("image", path, f"of a sane size ({error})") from error


def _rgb(opened: Image.Image, path: Path) -> Image.Image:
    """Upright, in 8 bits, what is transparent laid on white. The first image of several.

    Pillow's own `convert` cuts more than 8 bits off at white, and shows the colours (black, most
    often) that lie unseen under transparent pixels.
    """
    tags = opened.tag_v2 if isinstance(opened, TiffImageFile) else {}
    signed = _first(tags.get(SAMPLEFORMAT, 1)) == 2 and opened.mode != "LAB"
    if signed or opened.mode.startswith("I") or opened.mode == "F":
        levels = _levels(opened, path)
        if "transparency" in opened.info:  # the one grey level that is, in PNG
            levels[np.asarray(opened) == opened.info["transparency"]] = 255
        grey = Image.fromarray(levels)
        grey.getexif().update(opened.getexif())
        return ImageOps.exif_transpose(grey).convert("RGB")
    image = ImageOps.exif_transpose(opened)
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _levels(opened: Image.Image, path: Path) -> np.ndarray:
    """Grey levels of more than 8 bits, or floats, as uint8 (height, width).

    Whole numbers of b bits are scaled from 0 to 2^b - 1, floats from 0 to 1, to 0 to 255 and
    rounded. So the scale is that of the file's kind, the same for every file, not of its pixels.

    Raises:
        ParameterError: signed or 32-bit whole numbers, which have no level that is white; floats
            outside of [0, 1].
    """
    values = np.asarray(opened)
    tags = opened.tag_v2 if isinstance(opened, TiffImageFile) else {}
    # Pillow gives the grey levels of PNG and PGM in 16 bits
    bits = _first(tags.get(BITSPERSAMPLE, 16))
    if opened.mode == "F":
        allowed = "of floats from 0 (black) to 1 (white), or of whole numbers of 8 or 16 bits"
        fits = bool((values >= 0).all() and (values <= 1).all())  # and none is NaN
        require(fits, "image", path, allowed)
        levels = 255 * values.astype(np.float64)
    else:
        allowed = (
            "of whole numbers from 0 to 65535 at most, which say what is white; save it with 8 or "
            "16 unsigned bits, or as floats from 0 to 1"
        )
        signed = _first(tags.get(SAMPLEFORMAT, 1)) == 2
        white = 2**bits - 1
        fits = not signed and bits <= 16 and values.min() >= 0 and values.max() <= white
        require(bool(fits), "image", path, allowed)
        levels = values.astype(np.float64) * (255 / white)
    if _first(tags.get(PHOTOMETRIC_INTERPRETATION, 1)) == 0:  # white is 0
        levels = 255 - levels
    return np.rint(levels).astype(np.uint8)


def _first(value: int | tuple[int, ...]) -> int:
    """What a tag of TIFF says of the first channel."""
    return value[0] if isinstance(value, tuple) else value
