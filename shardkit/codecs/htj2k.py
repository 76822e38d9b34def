"""High-throughput JPEG 2000 (ISO/IEC 15444-15), reversible 5/3, one tile-part per resolution level, TLM present.

The first tile-parts of a stream hold the exact image at 1/2**level, so a prefix of the bytes is a smaller image.
`standalone` turns such a prefix into a complete codestream by rewriting its main header (15444-1 Annex A), which any
JPEG 2000 decoder accepts. SIZ precision is always 16: DALI rescales other depths on the GPU but not on the CPU.

A whole stream is what the DICOM transfer syntax HTJ2K Lossless RPCL encapsulates (PS3.5 section 10.18: RPCL, TLM, and
"the width or height of the base resolution to be <= 64"). `levels` takes the shorter side, and `fault` checks.

Below level 0 the wavelet's low-pass band may leave [0, 2**bits - 1] by a little. `decode` clamps it to that range;
OpenJPEG and DALI's decoders, on a CPU and on a GPU, clamp at 0 and 65,535, plain OpenJPH wraps instead,
so with those take `min(x, 2**bits - 1)` after.
"""

import struct
import sys
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from shardkit.codecs.base import LEVELS, Pixels
from shardkit.codecs.placement import Placement, agree
from shardkit.codecs.swallowed import noticed
from shardkit.dataset.rounding import ceil_div, halved
from shardkit.errors import IntegrityError

NAME, EXTENSION, NEEDS_PLACEMENT = "htj2k", "j2c", False
LEVELS_IN_STREAM = (LEVELS, 32)
"""Every image has those that loaders use, however small, and large ones have more. JPEG 2000 allows 32."""
TRANSFER_SYNTAX, SYNTAX_NAME = "1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL"
_LOWEST = 64  # pixels of the shorter side at the lowest resolution, at most
_RPCL, _REVERSIBLE = 2, 1  # in COD
_SOC, _CAP, _SIZ, _COD, _QCD, _TLM, _SOT, _EOC = (
    bytes.fromhex(m) for m in ("ff4f", "ff50", "ff51", "ff52", "ff5c", "ff55", "ff90", "ffd9")
)
_PRECISION = 42  # offset of Ssiz: SOC, SIZ marker, Lsiz, Rsiz, eight extents, Csiz
_OFFSET = 1 << 15  # DC level shift of an unsigned 16-bit component
_COMPONENT = bytes.fromhex("0001 0f 01 01")  # end of SIZ: one component of 16 bits, at every pixel
_STYLE = bytes.fromhex("00 0001 0404")  # in COD: no precincts, one layer, blocks of 64 x 64
_SMALL = 1 << 18  # pixels
_DAMAGED = "not an HTJ2K stream: its main header is damaged"


def levels(height: int, width: int) -> int:
    """Return how often an image is halved: at least LEVELS times, and until its shorter side is at most 64 pixels."""
    return max(LEVELS, (ceil_div(min(height, width), _LOWEST) - 1).bit_length())


def enough(height: npt.ArrayLike, width: npt.ArrayLike, count: npt.ArrayLike) -> bool:
    """Return whether `count` levels make the shorter side at most 64 pixels. See `CodestreamCodec.enough`."""
    return bool(np.all(np.minimum(height, width) <= np.left_shift(_LOWEST, count)))


def encode(pixels: Pixels, placement: Placement | None = None) -> bytes:
    """Encode an image as a codestream; no placement is needed. See `Codec.encode`."""
    parts, halvings = imagecodecs.HTJ2K.TILEPART.RESOLUTIONS, levels(*pixels.shape)
    # Its `resolutions` are decompositions, one less than there are resolutions: 5 where it is not told, while a number
    # that is told is lowered for small images since 2026.10. RPCL is what it always writes.
    more = halvings if halvings > LEVELS else None
    return bytes(imagecodecs.htj2k_encode(pixels, resolutions=more, reversible=True, tlm=True, tilepart=parts))


def prefixes(data: bytes) -> list[int]:
    """Return the length of each level's prefix, by the tile-parts in the main header. See `Codec.prefixes`."""
    ends = [end for _, end in _tile_parts(data)]
    return [len(data), *reversed(ends[:-1])]


def decode(data: bytes, level: int = 0, bits: int = 16, placement: Placement | None = None) -> Pixels:
    """Decode the exact image at 1/2**level from a stream or its prefix. See `Codec.decode`."""
    check(data, placement)
    try:
        if level == 0:
            # OpenJPH decodes a stream cut short as if it were whole: look before.
            if not _whole(data, _tile_parts(data)):
                raise IntegrityError("not a whole HTJ2K stream: its end is missing")
            whole: Pixels = _decoded(data)
            agree(placement, whole.shape, "an HTJ2K stream")
            return whole
        # As a signed 18-bit component the band comes out unshifted and unwrapped, so that it can be clamped.
        stream = bytearray(standalone(data, level))
        stream[_PRECISION] = 0x80 | 17
        band = _decoded(bytes(stream))
        agree(placement and placement.at(level), band.shape, "an HTJ2K stream")
        return _clamped(np.ascontiguousarray(band, np.int32), (1 << bits) - 1)
    except imagecodecs.Htj2kError as error:
        raise IntegrityError(f"not a decodable HTJ2K stream ({error})") from None


def _clamped(band: npt.NDArray[np.int32], top: int) -> Pixels:
    """Return a low-pass band as pixels. Who looks at a few small pictures need not wait for Numba to load."""
    if band.size <= _SMALL and "shardkit.kernels" not in sys.modules:
        return np.clip(band + _OFFSET, 0, top).astype(np.uint16)
    from shardkit.kernels import shift_and_clip

    clamped: Pixels = np.empty(band.shape, np.uint16)
    shift_and_clip(band, _OFFSET, top, clamped)
    return clamped


def _decoded(stream: bytes) -> npt.NDArray[Any]:
    with noticed() as errors:
        pixels = np.asarray(imagecodecs.htj2k_decode(stream))
    if errors:
        raise IntegrityError(f"not a decodable HTJ2K stream ({errors[0]})")
    return pixels


def check(data: bytes, placement: Placement | None) -> None:
    """Check that the main header is ours and of the expected image: decoders take memory by it. See `Codec.check`."""
    if placement is None:
        return
    segments = _segments(data)
    siz, cod = segments[0], _cod(segments)
    width, height, *others = struct.unpack(">8I", siz[6:38])
    agree(placement, (height, width), "an HTJ2K stream")
    style = cod[4:5] + cod[6:8] + cod[10:12]
    if others != [0, 0, width, height, 0, 0] or siz[38:] != _COMPONENT or style != _STYLE:
        raise IntegrityError("an HTJ2K stream with tiles, components, layers or blocks as shardkit writes none")


def standalone(prefix: bytes, level: int) -> bytes:
    """Rewrite the main header for the image at 1/2**level, and end the stream after it.

    See `CodestreamCodec.standalone`.
    """
    if level == 0:
        return prefix
    parts, out = _tile_parts(prefix, level), bytearray(_SOC)
    for segment in _segments(prefix):
        out += _rewrite(bytearray(segment), level)
    for index, (start, end) in enumerate(parts):
        part = bytearray(prefix[start:end])
        part[10:12] = bytes((index, len(parts)))  # TPsot, TNsot
        out += part
    return bytes(out + _EOC)


def fault(data: bytes, height: int, width: int, lengths: Sequence[int], small: bool = True) -> str | None:
    """Say what keeps a stream from being this image in HTJ2K Lossless RPCL. See `CodestreamCodec.fault`."""
    try:
        segments, parts = _segments(data), _tile_parts(data)
    except IntegrityError as error:
        return str(error)
    siz, cod = segments[0], _cod(segments)
    listed = [length for segment in segments if segment[:2] == _TLM for length in _listed(segment)]
    extents = (width, height, 0, 0) * 2
    for sound, words in (
        (_whole(data, parts), "it does not end after a tile-part for each resolution"),
        (struct.unpack(">8I", siz[6:38]) == extents, f"it is not one tile of {height} x {width} pixels"),
        (any(segment[:2] == _CAP for segment in segments), "it is not high-throughput JPEG 2000"),
        (cod[5] == _RPCL, "its progression is not RPCL"),
        (cod[13] == _REVERSIBLE, "its wavelet is not the reversible one"),
        (listed == [end - start for start, end in parts], "its TLM marker segments do not list its tile-parts"),
        (list(lengths) == prefixes(data), "its levels are not those of the manifest"),
        (not small or enough(height, width, cod[9]), f"its lowest resolution has more than {_LOWEST} rows and columns"),
    ):
        if not sound:
            return words
    return None


def _rewrite(segment: bytearray, level: int) -> bytearray:
    """Return one main-header segment as it must read for an image with `level` fewer decompositions."""
    marker = segment[:2]
    if marker == _SIZ:
        extents = struct.unpack(">8I", segment[6:38])
        segment[6:38] = struct.pack(">8I", *(halved(extent, level) for extent in extents))
    elif marker == _COD:
        if segment[9] < level:
            raise IntegrityError(f"the stream holds {segment[9]} levels, not {level}")
        segment[9] -= level
    elif marker == _QCD:
        del segment[-3 * level :]  # reversible: one exponent byte a subband, three subbands a level
    elif marker == _TLM:
        return bytearray()  # lists tile-parts that are no longer there; optional
    if len(segment) < 4:
        raise IntegrityError(_DAMAGED)
    segment[2:4] = struct.pack(">H", len(segment) - 2)
    return segment


def _segments(data: bytes) -> list[bytes]:
    """Return the main header's marker segments, from SIZ to the last before the tile-parts. Raises IntegrityError."""
    if not data.startswith(_SOC + _SIZ):
        raise IntegrityError("not an HTJ2K codestream")
    found, at = list[bytes](), len(_SOC)
    while (marker := data[at : at + 2]) != _SOT:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker[:1] != b"\xff" or end < at + 4 or end > len(data):
            raise IntegrityError(_DAMAGED)
        found.append(data[at:end])
        at = end
    if len(found[0]) <= _PRECISION - len(_SOC):
        raise IntegrityError(_DAMAGED)
    return found


def _cod(segments: list[bytes]) -> bytes:
    """Return the coding style: [5] progression, [9] decompositions, [13] wavelet. Raises IntegrityError."""
    found = [segment for segment in segments if segment[:2] == _COD]
    if len(found) != 1 or len(found[0]) < 14 or found[0][9] > LEVELS_IN_STREAM[1]:
        raise IntegrityError(_DAMAGED)
    return found[0]


def _listed(tlm: bytes) -> list[int]:
    """Return lengths of tile-parts in a TLM segment: from byte 6 on, pairs of tile and length (15444-1 A.7.1)."""
    if len(tlm) < 6:
        return []
    tile, length = tlm[5] >> 4 & 3, 4 if tlm[5] & 0x40 else 2
    return [int.from_bytes(tlm[at + tile : at + tile + length], "big") for at in range(6, len(tlm), tile + length)]


def _tile_parts(data: bytes, level: int = 0) -> list[tuple[int, int]]:
    """Return (start, end) of the tile-parts that make up the image at 1/2**level. Raises IntegrityError."""
    segments = _segments(data)
    at, total = len(_SOC) + sum(map(len, segments)), _cod(segments)[9] + 1 - level
    parts = list[tuple[int, int]]()
    while len(parts) < total:
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        if data[at : at + 2] != _SOT or length < 14 or at + length > len(data):
            raise IntegrityError(f"an HTJ2K stream cut short: {len(parts)} of {total} tile-parts are whole")
        parts.append((at, at + length))
        at += length
    return parts


def _whole(data: bytes, parts: list[tuple[int, int]]) -> bool:
    """Return whether nothing but the end of the codestream follows the tile-parts."""
    return data[parts[-1][1] :] == _EOC
