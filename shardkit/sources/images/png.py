"""PNG: the chunks before the image are the header; libpng decodes, once every chunk has the checksum it states.

Gamma, colour profiles and a transparent grey value say how to show an image and are ignored. Values of less than 8 bits
come back as they are stored, not spread over 8.
"""

import functools
import struct
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from typing import BinaryIO

import imagecodecs
import numpy as np

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.images import exif
from shardkit.sources.images.base import Header, Raster, check_claim, check_size, cut, exactly

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE, _GRAY = 3, 0
_INFLATED = 1_032  # bytes that deflate makes of one, at the most
_CHUNKS = 4_096  # before the image
_KEPT = 1 << 16  # bytes of a chunk that are looked at


@dataclass(frozen=True, slots=True)
class _Layout:
    """Type of colour, and the depth that sBIT states."""

    colour: int
    significant: int | None


def header(file: BinaryIO, size: int) -> Header:
    """Return what the chunks before the image say.

    Parameters
    ----------
    file : file
        At its start.
    size : int
        Its bytes.

    Raises
    ------
    Dropped
        multiframe: an animation.
    Quarantined
        truncated, bad_value, size_mismatch, decode_error.
    """
    start = exactly(file, 33, "its header")
    if start[12:16] != b"IHDR" or start[8:12] != b"\0\0\0\r":
        raise Quarantined("decode_error", "its first chunk is not IHDR")
    if zlib.crc32(start[12:29]) != int.from_bytes(start[29:], "big"):
        raise Quarantined("decode_error", "the checksum of its header is wrong: it is damaged")
    cols, rows, bits, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", start[16:29])
    if bits not in _DEPTHS.get(colour, ()) or packing or filtering or interlace > 1:
        raise Quarantined("bad_value", "its header holds a combination that PNG does not have")
    check_size(rows, cols)
    channels = _CHANNELS[colour]
    check_claim(rows * -(-cols * channels * bits // 8), size, _INFLATED)
    chunks = _before_image(file, size)
    if b"acTL" in chunks:
        raise Dropped("multiframe", "an animation")
    turned = exif.turned(BytesIO(chunks.get(b"eXIf", b"")))
    clear = colour == _GRAY and b"tRNS" in chunks
    significant = chunks.get(b"sBIT", b"")
    return Header(
        rows=rows,
        cols=cols,
        bits=8 if colour == _PALETTE else bits,
        channels=channels,
        packed=colour == _GRAY,
        flags=(*(("orientation",) if turned else ()), *(("transparent_gray",) if clear else ())),
        layout=_Layout(colour, significant[0] if significant and 0 < significant[0] <= bits else None),
    )


def _before_image(file: BinaryIO, size: int) -> dict[bytes, bytes]:
    """Return the chunks between IHDR and the image, as far as they are looked at."""
    found: dict[bytes, bytes] = {}
    at = 33
    for _ in range(_CHUNKS):
        file.seek(at)
        length, kind = struct.unpack(">I4s", exactly(file, 8, "its header"))
        if kind in (b"IDAT", b"IEND"):
            return found
        if at + 12 + length > size:
            raise cut("its header")
        found[kind] = file.read(min(length, _KEPT)) if kind in (b"acTL", b"eXIf", b"tRNS", b"sBIT") else b""
        at += 12 + length
    raise Quarantined("decode_error", "too many chunks stand before the image")


def decode(data: bytes, header: Header, part: int) -> Raster:
    """Return the image.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : Header
        What `header` returned.
    part : int
        0.

    Raises
    ------
    Quarantined
        truncated, decode_error, dimension_mismatch.
    """
    end = _checked(data)
    try:
        values = imagecodecs.png_decode(data[:end])
    except MemoryError:
        raise
    except Exception as error:
        raise Quarantined("decode_error", f"libpng cannot read it ({type(error).__name__}): it is damaged") from None
    if values.shape[:2] != (header.rows, header.cols):
        raise Quarantined("dimension_mismatch", "libpng gave another image than its header declares")
    if header.layout.colour == _GRAY:
        values = values if values.ndim == 2 else values[..., 0]  # a grey value that is shown as transparent
        if header.bits < 8:
            values = values // np.uint8(255 // ((1 << header.bits) - 1))
    return Raster(
        values=values,
        decoder=_decoder(),
        bits=header.bits,
        stated_bits=header.layout.significant,
        repairs=("trailing_bytes",) if end < len(data) else (),
    )


@functools.cache
def _decoder() -> str:
    return f"imagecodecs {version('imagecodecs')} png_decode"


def _checked(data: bytes) -> int:
    """Return where IEND ends, with the checksum of every chunk compared: libpng ignores some, and a missing end."""
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise cut("its image")
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            raise cut("its image")
        kind = data[at + 4 : at + 8]
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise Quarantined("decode_error", "the checksum of one of its chunks is wrong: it is damaged")
        if kind == b"IEND":
            return end
        at = end
