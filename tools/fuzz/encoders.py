"""Stored values -> one frame in each transfer syntax that the build reads, in more variants than encoders offer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

Values = npt.NDArray[np.int64]
NATIVE = (
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How stored values stand in the header: bits allocated, bits stored, whether signed."""

    allocated: int
    bits: int
    signed: bool

    def container(self, values: Values) -> npt.NDArray[np.unsignedinteger]:
        """Return values as two's complement of the whole word."""
        return (values & ((1 << self.allocated) - 1)).astype(f"u{self.allocated // 8}")

    def masked(self, values: Values) -> npt.NDArray[np.unsignedinteger]:
        """Return values as two's complement of the stored bits alone, as codecs without a sign hold it."""
        return (values & ((1 << self.bits) - 1)).astype(f"u{self.allocated // 8}")


def encode(values: Values, layout: Layout, syntax: str, rng: np.random.Generator) -> bytes:
    """Encode a frame.

    Parameters
    ----------
    values
        (rows, cols), within `layout`.
    layout
        How they stand in the header.
    syntax
        UID of the transfer syntax.
    rng
        Chooses among variants: predictors, restarts, point transforms, levels, tile-parts.

    Returns
    -------
    bytes
        Value of a native element, or the frame's compressed stream.
    """
    if syntax in NATIVE:
        array = layout.container(values)
        big = array.astype(array.dtype.newbyteorder(">")) if syntax == uids.ExplicitVRBigEndian else array
        data = big.tobytes() + b"\0" * (array.nbytes % 2)
        if syntax == uids.ExplicitVRBigEndian and layout.allocated == 8:  # OW: the two samples of a word are swapped
            data = np.frombuffer(data, "u2").byteswap().tobytes()
        return data
    if syntax in (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit):
        quality = int(rng.choice([75, 90, 95]))
        stored = layout.masked(values)
        return bytes(imagecodecs.jpeg8_encode(stored, level=quality, bitspersample=layout.bits))
    if syntax in (uids.JPEGLossless, uids.JPEGLosslessSV1):
        return _jpeg_lossless(values, layout, syntax, rng)
    if syntax in (uids.HTJ2K, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL):
        return _htj2k(values, layout, syntax, rng)
    return _by_pydicom(values, layout, syntax)


def _jpeg_lossless(values: Values, layout: Layout, syntax: str, rng: np.random.Generator) -> bytes:
    stored = layout.masked(values)
    predictor = 1 if syntax == uids.JPEGLosslessSV1 else int(rng.integers(1, 8))
    kind = rng.random()
    if kind < 0.5:
        return bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=predictor, bitspersample=layout.bits))
    rows = int(rng.integers(1, 9)) if kind < 0.75 else 0
    shift = int(rng.integers(1, 3)) if kind > 0.85 else 0
    wrap = bool(rng.random() < 0.5) and predictor < 5  # the others halve, which a modulo does not survive
    return lossless_jpeg(stored, layout.bits, predictor, rows, shift, wrap)


def _htj2k(values: Values, layout: Layout, syntax: str, rng: np.random.Generator) -> bytes:
    # The encoder codes 16 bits whatever the values need. Centred as signed ones they have no level shift, so that
    # the stream's precision can be named afterwards: SIZ is the only place that knows it.
    centred = values if layout.signed else values - (1 << (layout.bits - 1))
    options: dict[str, Any] = (
        {"tlm": True, "tilepart": imagecodecs.HTJ2K.TILEPART.RESOLUTIONS} if rng.random() < 0.5 else {}
    )
    reversible = syntax != uids.HTJ2K
    if not reversible:  # the 9/7 transform works on shares of the full range
        centred, options["level"] = centred << (16 - layout.bits), 2.0**-layout.bits
    stream = bytearray(imagecodecs.htj2k_encode(centred.astype(np.int16), reversible=reversible, **options))
    stream[42] = (0x80 if layout.signed else 0) | (layout.bits - 1)
    return bytes(stream)


def _by_pydicom(values: Values, layout: Layout, syntax: str) -> bytes:
    """Encode RLE, JPEG-LS and JPEG 2000 by pydicom's encoders."""
    ds = Dataset()
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = layout.allocated, layout.bits, layout.bits - 1
    ds.PixelRepresentation, ds.SOPInstanceUID = int(layout.signed), "1.2"
    if layout.signed and syntax == uids.JPEGLSNearLossless:  # the error must not carry a value over its sign
        values = np.clip(values, 2 - (1 << (layout.bits - 1)), (1 << (layout.bits - 1)) - 3)
    array = values.astype(f"{'i' if layout.signed else 'u'}{layout.allocated // 8}")
    options: dict[str, object] = {"encoding_plugin": "pylibjpeg", "generate_instance_uid": False}
    if syntax in (uids.JPEGLSLossless, uids.JPEGLSNearLossless):
        options |= {"encoding_plugin": "pyjpegls", "jls_error": 2 if syntax == uids.JPEGLSNearLossless else None}
    if syntax == uids.JPEG2000:
        options["j2k_cr"] = [6]
    ds.compress(UID(syntax), array, **options)  # type: ignore[arg-type]
    return bytes(next(generate_frames(ds.PixelData, number_of_frames=1)))


# ---- lossless JPEG (ITU-T T.81 H) with what common encoders leave out

_LENGTHS = bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0])  # of the Huffman codes, as the DHT segment has them
_SYMBOLS = bytes([5, 4, 6, 3, 7, 2, 8, 1, 9, 0, 10, 11, 12, 13, 14, 15, 16])


def lossless_jpeg(
    stored: npt.NDArray[np.unsignedinteger],
    bits: int,
    predictor: int,
    rows: int = 0,
    shift: int = 0,
    wrap: bool = False,
) -> bytes:
    """Encode a frame as lossless JPEG (SOF3).

    Parameters
    ----------
    stored
        (rows, cols), values without a sign.
    bits
        Depth of the values.
    predictor
        Number of the predictor, 1 to 7.
    rows
        Restart interval in lines, 0 for none.
    shift
        Point transform: the number of low bits that are lost.
    wrap
        Whether differences are reduced modulo 2**bits, which decoders undo by their own modulo.
    """
    height, width = stored.shape
    samples = stored.astype(np.int64) >> shift
    depth = bits - shift
    interval = rows or height
    difference = samples - _predicted(samples, depth, predictor, interval)
    modulus = 1 << (depth if wrap else 16)
    difference = (difference + modulus // 2) % modulus - modulus // 2
    out = [b"\xff\xd8"]
    out.append(_segment(0xC4, b"\0" + _LENGTHS + _SYMBOLS))
    out.append(_segment(0xC3, bytes([bits]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\1\1\x11\0"))
    if rows:
        out.append(_segment(0xDD, (rows * width).to_bytes(2, "big")))
    out.append(_segment(0xDA, bytes([1, 1, 0, predictor, 0, shift])))
    for number, top in enumerate(range(0, height, interval)):
        if top:
            out.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        out.append(_entropy_coded(difference[top : top + interval].ravel().tolist()))
    return b"".join([*out, b"\xff\xd9"])


def _predicted(samples: Values, depth: int, predictor: int, interval: int) -> Values:
    """Predict by the left neighbour in a first line (of a restart interval), by the upper one in a first column."""
    a, b, c = (np.zeros_like(samples) for _ in range(3))
    a[:, 1:], b[1:], c[1:, 1:] = samples[:, :-1], samples[:-1], samples[:-1, :-1]
    by_number = [a * 0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1]
    predicted = by_number[predictor]
    predicted[:, 0] = b[:, 0]
    predicted[::interval] = a[::interval]
    predicted[::interval, 0] = 1 << (depth - 1)
    return predicted


def _entropy_coded(differences: list[int]) -> bytes:
    codes = dict(zip(_SYMBOLS, _canonical(), strict=True))
    text = []
    for value in differences:
        size = abs(value).bit_length()
        text.append(codes[size])
        if 0 < size < 16:
            text.append(format(value if value > 0 else value + (1 << size) - 1, f"0{size}b"))
    joined = "".join(text)
    joined += "1" * (-len(joined) % 8)
    return (int(joined, 2).to_bytes(len(joined) // 8, "big") if joined else b"").replace(b"\xff", b"\xff\0")


def _canonical() -> Iterator[str]:
    code = 0
    for length, count in enumerate(_LENGTHS, 1):
        for _ in range(count):
            yield format(code, f"0{length}b")
            code += 1
        code <<= 1


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload
