"""Image files that are not DICOM, made byte by byte, so that there can be what no writer makes."""

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.integer[Any]]

_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column of a pass of interlacing, and its steps."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    values: Values, bits: int, colour: int = 0, before: bytes = b"", interlaced: bool = False, after: bytes = b""
) -> bytes:
    """Return a PNG file, unfiltered.

    Parameters
    ----------
    values : ndarray of int, (rows, cols) or (rows, cols, channels)
        What is stored.
    bits : int
        Of a value: 1, 2, 4, 8 or 16.
    colour : int
        Type of colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
    before, after : bytes
        Chunks before and behind the image's.
    interlaced : bool
        Whether in seven passes.
    """
    rows, cols = values.shape[:2]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(_lines(values[top::down, left::right], bits) for top, left, down, right in passes)
    start = struct.pack(">IIBBBBB", cols, rows, bits, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", start) + before + chunk(b"IDAT", zlib.compress(raw)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _lines(values: Values, bits: int) -> bytes:
    if not values.size:
        return b""
    words = values.reshape(len(values), -1)
    if bits == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in words)
    spread = (words[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return b"".join(b"\0" + np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in spread)


def encoded(values: npt.NDArray[Any], form: str, mode: str | None = None, **options: Any) -> bytes:
    """Return an image file as Pillow writes it.

    Parameters
    ----------
    values : ndarray
        An image.
    form : str
        Name of the format, such as TIFF.
    mode : str, optional
        Pillow's mode of the values, where they do not tell.
    **options
        Of Pillow's writer.
    """
    out = io.BytesIO()
    Image.fromarray(values, mode).save(out, form, **options)
    return out.getvalue()


def tiff(values: Values, order: Literal["<", ">"] = "<", white_is_zero: bool = False) -> bytes:
    """Return a TIFF file of one uncompressed strip.

    Parameters
    ----------
    values : ndarray of uint8 or uint16, (rows, cols)
        What is stored.
    order : str
        "<" or ">": of its bytes.
    white_is_zero : bool
        Whether low values are bright.
    """
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {
        256: values.shape[1], 257: values.shape[0], 258: 8 * values.dtype.itemsize, 259: 1, 262: int(not white_is_zero),
        273: 8, 277: 1, 278: values.shape[0], 279: len(raw),
    }  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(raw))
    return start + raw + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
