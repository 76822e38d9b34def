"""Uncompressed pixels as a NumPy .npy member, which webdataset decodes by itself; no levels inside."""

from io import BytesIO

import numpy as np

from shardkit.codecs.base import Pixels
from shardkit.codecs.placement import Placement, agree
from shardkit.errors import ArgumentError, IntegrityError

NAME, EXTENSION = "raw", "npy"
LEVELS_IN_STREAM, NEEDS_PLACEMENT = (0, 0), False


def encode(pixels: Pixels, placement: Placement | None = None) -> bytes:
    """Encode an image as a .npy file in little endian; no placement is needed. See `Codec.encode`."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels, "<u2"), allow_pickle=False)
    return buffer.getvalue()


def prefixes(data: bytes) -> list[int]:
    """Return one length: the file is level 0 and holds no other. See `Codec.prefixes`."""
    return [len(data)]


def check(data: bytes, placement: Placement | None) -> None:
    """Check that the header is that of the expected image, all of which follows. See `Codec.check`."""
    _opened(data, placement)


def decode(data: bytes, level: int = 0, bits: int = 16, placement: Placement | None = None) -> Pixels:
    """Decode a .npy file, which has level 0 alone. See `Codec.decode`."""
    if level:
        raise ArgumentError("raw pixels hold no levels: build with --codec htj2k to stream smaller images")
    shape, start = _opened(data, placement)
    return np.frombuffer(data, "<u2", offset=start).reshape(shape).astype(np.uint16)


def _opened(data: bytes, placement: Placement | None) -> tuple[tuple[int, ...], int]:
    """Return the shape, and where the pixels begin."""
    buffer = BytesIO(data)
    try:
        np.lib.format.read_magic(buffer)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(buffer)
    except Exception:  # NumPy raises whatever the damage leads to
        raise IntegrityError("not a readable .npy member") from None
    start = buffer.tell()
    if fortran or kind != np.dtype("<u2") or len(shape) != 2 or 2 * shape[0] * shape[1] != len(data) - start:
        raise IntegrityError("not a .npy member of a whole image of 16-bit grey levels")
    agree(placement, shape, "a .npy member")
    return shape, start
