"""16-bit greyscale PNG: every tool reads it; no levels inside, three to five times slower than HTJ2K."""

import struct

import imagecodecs
import numpy as np

from shardkit.codecs.base import Pixels
from shardkit.codecs.placement import Placement, agree
from shardkit.errors import ArgumentError, IntegrityError

NAME, EXTENSION = "png", "png"
LEVELS_IN_STREAM, NEEDS_PLACEMENT = (0, 0), False

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_IHDR = struct.Struct(">IIBBBBB")
_GREY = [16, 0, 0, 0, 0]


def encode(pixels: Pixels, placement: Placement | None = None) -> bytes:
    """Encode an image as a PNG file; no placement is needed. See `Codec.encode`."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=1))


def prefixes(data: bytes) -> list[int]:
    """Return one length: the file is level 0 and holds no other. See `Codec.prefixes`."""
    return [len(data)]


def check(data: bytes, placement: Placement | None) -> None:
    """Check that the header is that of the expected image, in 16-bit grey levels. See `Codec.check`."""
    width, height, *kind = _header(data)
    agree(placement, (height, width), "a PNG")
    if kind != _GREY:
        raise IntegrityError("not a PNG of 16-bit grey levels")


def decode(data: bytes, level: int = 0, bits: int = 16, placement: Placement | None = None) -> Pixels:
    """Decode a PNG file, which has level 0 alone. See `Codec.decode`."""
    if level:
        raise ArgumentError("PNG holds no levels: build with --codec htj2k to stream smaller images")
    check(data, placement)
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except Exception as error:  # the library raises whatever the damage leads to
        raise IntegrityError(f"not a decodable PNG ({type(error).__name__})") from None


def _header(data: bytes) -> tuple[int, ...]:
    """Return width, height, depth, colour type, compression, filter, interlace (ISO/IEC 15948, 11.2.2)."""
    if not data.startswith(_START) or len(data) < _IHDR.size + len(_START):
        raise IntegrityError("not a PNG")
    return _IHDR.unpack_from(data, len(_START))
