"""Image files of every kind, made here byte by byte: grey levels, transparency, orientation."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ParameterError
from empirical.datasets.decode import decode, read_rgb

LEVELS = np.array([[0, 51, 102], [153, 204, 255]])
"""Grey levels that 4, 8, 12, 16 and 32 bits and floats can all say exactly."""


def tiff(
    raw: bytes, bits: int, kind: int, order: str = "<", black: int = 0, turn: int = 1
) -> bytes:
    """A grey TIFF of 2 rows and 3 columns. kind: 1 unsigned, 2 signed, 3 float; black: the level
    that is black (0, or the highest); turn: EXIF's orientation."""
    tags = [
        *((256, 3, 3), (257, 3, 2), (258, 3, bits), (259, 3, 1), (262, 3, int(black == 0))),
        *(
            (273, 4, 0),
            (274, 3, turn),
            (277, 3, 1),
            (278, 3, 2),
            (279, 4, len(raw)),
            (339, 3, kind),
        ),
    ]
    offset = 8 + 2 + 12 * len(tags) + 4
    out = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    for tag, size, value in tags:
        value = offset if tag == 273 else value
        out += struct.pack(
            order + ("HHIHH" if size == 3 else "HHII"), tag, size, 1, value, *([0] * (size == 3))
        )
    return out + struct.pack(order + "I", 0) + raw


def png(bits: int, colour: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 3 columns. colour: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha."""
    header = struct.pack(">IIBBBBB", 3, len(rows), bits, colour, 0, 0, 0)
    image = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), *chunks, (b"IDAT", image), (b"IEND", b""))
    out = b"\x89PNG\r\n\x1a\n"
    for name, raw in parts:
        out += struct.pack(">I", len(raw)) + name + raw
        out += struct.pack(">I", zlib.crc32(name + raw))
    return out


def square(path: Path, raw: bytes) -> np.ndarray:
    """(3, 3, 3) uint8 of a file of 3 x 3 pixels."""
    path.write_bytes(raw)
    pixels = np.empty((1, 3, 3, 3), dtype=np.uint8)
    decode([path], pixels)
    return pixels[0]


def whole(path: Path, raw: bytes) -> list[list[int]]:
    """All grey levels of a file of these bytes."""
    path.write_bytes(raw)
    pixels = np.asarray(read_rgb(path))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def raw16(order: str, white: int = 65535) -> bytes:
    return (LEVELS * white // 255).astype(f"{order}u2").tobytes()


KINDS = {
    "pgm, 8 bits": ("pgm", b"P5 3 2 255\n" + LEVELS.astype("u1").tobytes()),
    "pgm, 4 bits": ("pgm", b"P5 3 2 15\n" + (LEVELS // 17).astype("u1").tobytes()),
    "pgm, 16 bits": ("pgm", b"P5 3 2 65535\n" + raw16(">")),
    "pgm, 12 bits": ("pgm", b"P5 3 2 4095\n" + raw16(">", 4095)),
    "pgm, written out": ("pgm", b"P2 3 2 65535\n0 13107 26214 39321 52428 65535\n"),
    "png, 16 bits": ("png", png(16, 0, [row.tobytes() for row in (LEVELS * 257).astype(">u2")])),
    "png, 4 bits": ("png", png(4, 0, [b"\x03\x60", b"\x9c\xf0"])),
    "tiff, 16 bits": ("tif", tiff(raw16("<"), 16, 1)),
    "tiff, 16 bits, big-endian": ("tiff", tiff(raw16(">"), 16, 1, ">")),
    "tiff, 16 bits, white is 0": ("tif", tiff(raw16("<")[::-1], 16, 1, black=1)),
    "tiff, float": ("tif", tiff((LEVELS / 255).astype("<f4").tobytes(), 32, 3)),
    "tiff, float, big-endian": ("tif", tiff((LEVELS / 255).astype(">f4").tobytes(), 32, 3, ">")),
    "tiff, float, white is 0": (
        "tif",
        tiff((1 - LEVELS / 255).astype("<f4").tobytes(), 32, 3, black=1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_grey_levels_are_scaled_by_the_range_of_the_kind(kind: str, tmp_path: Path) -> None:
    ending, raw = KINDS[kind]
    assert whole(tmp_path / f"image.{ending}", raw) == LEVELS.tolist()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (tiff(LEVELS.astype("<i4").tobytes(), 32, 2), "of whole numbers from 0 to 65535"),
        (tiff((LEVELS * 16843009).astype("<u4").tobytes(), 32, 1), "of whole numbers from 0"),
        (tiff((LEVELS - 128).astype("<i2").tobytes(), 16, 2), "of whole numbers from 0"),
        (tiff((LEVELS - 128).astype("i1").tobytes(), 8, 2), "of whole numbers from 0"),
        (tiff(LEVELS.astype("<f4").tobytes(), 32, 3), "of floats from 0 (black) to 1 (white)"),
        (tiff((LEVELS / 255 - 0.1).astype("<f4").tobytes(), 32, 3), "of floats from 0 (black)"),
        (tiff(np.full(6, np.nan, "<f4").tobytes(), 32, 3), "of floats from 0 (black)"),
    ],
)
def test_numbers_that_do_not_say_what_is_white_are_refused(
    raw: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(raw)
    with pytest.raises(ParameterError) as error:
        decode([path], np.empty((1, 3, 2, 2), dtype=np.uint8))
    assert str(error.value).startswith(f"{path}: must be {message}")
    assert "\n" not in str(error.value)


def test_colours_of_16_bits_keep_their_upper_half(tmp_path: Path) -> None:
    colours = np.array([[0, 128, 255]] * 3)
    row = (colours * 257).astype(">u2").tobytes()
    for name, raw in (("a.png", png(16, 2, [row] * 3)), ("a.ppm", b"P6 3 3 65535\n" + 3 * row)):
        assert square(tmp_path / name, raw)[:, 1, 1].tolist() == [0, 128, 255]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    assert whole(tmp_path / "a.pbm", b"P1 3 2\n1 1 0\n0 0 1\n") == [[0, 0, 255], [255, 255, 0]]
    assert whole(tmp_path / "a.png", png(1, 0, [b"\x20", b"\xc0"])) == [[0, 0, 255], [255, 255, 0]]


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    """Whatever colour is stored below; half transparent black is half grey."""
    palette = (b"PLTE", bytes([0, 0, 0, 90, 90, 90, 0, 0, 0]))
    files = {
        "palette": png(8, 3, [b"\0\1\2"] * 3, palette, (b"tRNS", b"\0\xff\x80")),
        "grey": png(8, 4, [bytes([0, 0, 90, 255, 0, 128])] * 3),
        "colour": png(8, 6, [bytes([0, 0, 0, 0, 90, 90, 90, 255, 0, 0, 0, 128])] * 3),
    }
    for name, raw in files.items():
        levels = square(tmp_path / f"{name}.png", raw)[:, 0].tolist()
        assert levels == [[255, 90, 127]] * 3, name
    keyed = png(8, 0, [bytes([7, 90, 0])] * 3, (b"tRNS", b"\0\7"))
    assert square(tmp_path / "key.png", keyed)[0, 0].tolist() == [255, 90, 0]
    keyed = png(16, 0, [b"\0\7" + b"\x5a\x5a" + b"\0\0"] * 3, (b"tRNS", b"\0\7"))
    assert square(tmp_path / "key16.png", keyed)[0, 0].tolist() == [255, 90, 0]


def test_cmyk_is_ink_on_white(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    inks = np.zeros((3, 3, 4), dtype=np.uint8)
    inks[1, 1] = (0, 255, 255, 0)  # magenta and yellow make red
    Image.fromarray(inks, "CMYK").save(path)
    levels = square(path, path.read_bytes())
    assert levels[:, 0, 0].tolist() == [255, 255, 255]
    assert levels[:, 1, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize("bits", [8, 16])
def test_images_are_turned_as_the_camera_says(bits: int, tmp_path: Path) -> None:
    turned = LEVELS[::-1].T.tolist()  # orientation 6: by 90 degrees, clockwise
    raw = LEVELS.astype("u1").tobytes() if bits == 8 else raw16("<")
    assert whole(tmp_path / "a.tif", tiff(raw, bits, 1, turn=6)) == turned
    rows = (LEVELS if bits == 8 else LEVELS * 257).astype("u1" if bits == 8 else ">u2")
    exif = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 274, 3, 1, 6, 0, 0)
    raw = png(bits, 0, [row.tobytes() for row in rows], (b"eXIf", exif))
    assert whole(tmp_path / "a.png", raw) == turned
