"""Uncompressed pixels as a NumPy .npy member, which webdataset decodes by itself; no levels inside."""

from io import BytesIO

import numpy as np
import numpy.typing as npt

from shardkit.codecs.frame import Frame
from shardkit.errors import ArgumentError, IntegrityError

Pixels = npt.NDArray[np.uint16]


def encode(pixels: Pixels, frame: Frame | None = None) -> bytes:
    """(rows, cols) uint16 -> .npy bytes, little endian."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels, "<u2"), allow_pickle=False)
    return buffer.getvalue()


def prefixes(data: bytes) -> list[int]:
    """The whole file is level 0; there are no others."""
    return [len(data)]


def decode(data: bytes, level: int = 0, bits: int = 16, frame: Frame | None = None) -> Pixels:
    """.npy bytes -> (rows, cols) uint16. Raises ArgumentError for a level above 0, IntegrityError for bad bytes."""
    if level:
        raise ArgumentError("raw pixels hold no levels: build with --codec htj2k to stream smaller images")
    try:
        array = np.load(BytesIO(data), allow_pickle=False)
    except Exception:  # NumPy raises whatever the damage leads to
        raise IntegrityError("not a readable .npy member") from None
    return np.asarray(array, np.uint16)
