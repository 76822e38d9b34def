"""16-bit greyscale PNG: every tool reads it; no levels inside, three to five times slower than HTJ2K."""

import imagecodecs
import numpy as np
import numpy.typing as npt

from shardkit.codecs.frame import Frame
from shardkit.errors import ArgumentError, IntegrityError

Pixels = npt.NDArray[np.uint16]


def encode(pixels: Pixels, frame: Frame | None = None) -> bytes:
    """(rows, cols) uint16 -> PNG file."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=1))


def prefixes(data: bytes) -> list[int]:
    """The whole file is level 0; there are no others."""
    return [len(data)]


def decode(data: bytes, level: int = 0, bits: int = 16, frame: Frame | None = None) -> Pixels:
    """PNG file -> (rows, cols) uint16. Raises ArgumentError for a level above 0, IntegrityError for bad bytes."""
    if level:
        raise ArgumentError("PNG holds no levels: build with --codec htj2k to stream smaller images")
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except Exception as error:  # the library raises whatever the damage leads to
        raise IntegrityError(f"not a decodable PNG ({type(error).__name__})") from None
