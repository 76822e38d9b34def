"""High-throughput JPEG 2000 (ISO/IEC 15444-15), reversible 5/3, one tile-part per resolution level, TLM present.

The first tile-parts of a stream hold the exact image at 1/2**level, so a prefix of the bytes is a smaller image.
`standalone` turns such a prefix into a complete codestream by rewriting its main header (15444-1 Annex A), which any
JPEG 2000 decoder accepts. SIZ precision is always 16: DALI rescales other depths on the GPU but not on the CPU.

Below level 0 the wavelet's low-pass band may leave [0, 2**bits - 1] by a little. `decode` clamps it to that range;
OpenJPEG and DALI's CPU decoder clamp at 0 and 65,535 (its GPU decoder has not been tried), plain OpenJPH wraps instead,
so with those take `min(x, 2**bits - 1)` after.
"""

import struct

import imagecodecs
import numpy as np
import numpy.typing as npt

from shardkit.codecs.frame import Frame
from shardkit.errors import IntegrityError

Pixels = npt.NDArray[np.uint16]

LEVELS = 5
_SOC, _SIZ, _COD, _QCD, _TLM, _SOT, _EOC = (
    bytes.fromhex(m) for m in ("ff4f", "ff51", "ff52", "ff5c", "ff55", "ff90", "ffd9")
)
_PRECISION = 42  # offset of Ssiz: SOC, SIZ marker, Lsiz, Rsiz, eight extents, Csiz
_OFFSET = 1 << 15  # DC level shift of an unsigned 16-bit component


def encode(pixels: Pixels, frame: Frame | None = None) -> bytes:
    """(rows, cols) uint16 -> codestream."""
    parts = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
    return bytes(imagecodecs.htj2k_encode(pixels, reversible=True, tlm=True, tilepart=parts))


def prefixes(data: bytes) -> list[int]:
    """Byte length of each level's prefix, level 0 (the whole stream) first. Raises IntegrityError."""
    ends = [end for _, end in _tile_parts(data)]
    return [len(data), *reversed(ends[:-1])]


def decode(data: bytes, level: int = 0, bits: int = 16, frame: Frame | None = None) -> Pixels:
    """The exact image at 1/2**level, (ceil(rows/2**level), ceil(cols/2**level)) uint16, from a stream or its prefix.

    Raises IntegrityError when the bytes are not such a stream or hold fewer levels.
    """
    try:
        if level == 0:
            # OpenJPH decodes a stream cut short as if it were whole: look before.
            if _tile_parts(data)[-1][1] + len(_EOC) != len(data) or not data.endswith(_EOC):
                raise IntegrityError("not a whole HTJ2K stream: its end is missing")
            return np.asarray(imagecodecs.htj2k_decode(data))
        # As a signed 18-bit component the band comes out unshifted and unwrapped, so that it can be clamped.
        stream = bytearray(standalone(data, level))
        stream[_PRECISION] = 0x80 | 17
        band = np.asarray(imagecodecs.htj2k_decode(bytes(stream)))
        clamped: Pixels = np.clip(band + _OFFSET, 0, (1 << bits) - 1).astype(np.uint16)
        return clamped
    except imagecodecs.Htj2kError as error:
        raise IntegrityError(f"not a decodable HTJ2K stream ({error})") from None


def standalone(prefix: bytes, level: int) -> bytes:
    """A prefix holding at least `level` -> a complete codestream of the image at 1/2**level.

    Raises IntegrityError when the prefix is cut short or the stream has fewer levels.
    """
    if level == 0:
        return prefix
    out, at = bytearray(_SOC), 2
    while (marker := prefix[at : at + 2]) != _SOT:
        length = int.from_bytes(prefix[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(prefix):
            raise IntegrityError("not an HTJ2K prefix: its main header is damaged")
        segment = _rewrite(marker, bytearray(prefix[at : at + 2 + length]), level)
        out += segment
        at += 2 + length
    parts = _tile_parts(prefix, level)
    for index, (start, end) in enumerate(parts):
        part = bytearray(prefix[start:end])
        part[10:12] = bytes((index, len(parts)))  # TPsot, TNsot
        out += part
    return bytes(out + _EOC)


def _rewrite(marker: bytes, segment: bytearray, level: int) -> bytearray:
    """One main-header segment as it must read for an image with `level` fewer decompositions."""
    if marker == _SIZ:
        extents = struct.unpack(">8I", segment[6:38])
        segment[6:38] = struct.pack(">8I", *(-(-extent >> level) for extent in extents))
    elif marker == _COD:
        if segment[9] < level:
            raise IntegrityError(f"the stream holds {segment[9]} levels, not {level}")
        segment[9] -= level
        if segment[4] & 1:  # one precinct size per resolution follows
            del segment[-level:]
    elif marker == _QCD:
        del segment[-3 * level :]  # reversible: one exponent byte a subband, three subbands a level
    elif marker == _TLM:
        return bytearray()  # lists tile-parts that are no longer there; optional
    segment[2:4] = struct.pack(">H", len(segment) - 2)
    return segment


def _tile_parts(data: bytes, level: int = 0) -> list[tuple[int, int]]:
    """(start, end) of the tile-parts that make up the image at 1/2**level. Raises IntegrityError."""
    at = data.find(_SOT)
    if not data.startswith(_SOC + _SIZ) or at < 0:
        raise IntegrityError("not an HTJ2K codestream")
    parts, total = list[tuple[int, int]](), LEVELS + 1
    while len(parts) < total - level:
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        if data[at : at + 2] != _SOT or length < 14 or at + length > len(data):
            raise IntegrityError(f"an HTJ2K stream cut short: {len(parts)} of {total - level} tile-parts are whole")
        parts.append((at, at + length))
        at += length
    return parts
