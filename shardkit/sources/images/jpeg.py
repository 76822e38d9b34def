"""JPEG: grey and equal colours, sequential, progressive and lossless, 8 to 16 bits; decoded as DICOM's streams are.

So what is damaged or cut short is noticed by the same checks, and never filled up with grey.
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLSLossless

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.dicom import decoding, streams
from shardkit.sources.images import exif
from shardkit.sources.images.base import Header, Raster, check_claim, check_size, cut, exactly

SIGNATURE = streams.SOI

_SOS, _EXIF = 0xDA, b"Exif\0\0"
_DCT_PIXELS, _LS_PIXELS = 512, 1 << 18  # that a byte can hold: a bit for each block of 64, or for a run
_SEGMENTS = 4_096  # before the image
_LOSSLESS, _LS = 0xC3, 0xF7


@dataclass(frozen=True, slots=True)
class _Layout:
    """Low byte of the frame header's marker."""

    process: int


def header(file: BinaryIO, size: int) -> Header:
    """Return what the segments before the first scan say.

    Parameters
    ----------
    file : file
        At its start.
    size : int
        Its bytes.

    Raises
    ------
    Dropped
        not_grayscale: CMYK and other numbers of components.
    Quarantined
        truncated, bad_value, size_mismatch, decode_error.
    """
    frame, turned = _segments(file, size)
    process, segment = frame
    if len(segment) < 6:
        raise streams.damaged("its frame header is cut short")
    bits, rows, cols, components = struct.unpack(">BHHB", segment[:6])
    if components not in (1, 3):
        raise Dropped("not_grayscale", f"{components} components a pixel")
    check_size(rows, cols)
    if not 2 <= bits <= 16:
        raise Quarantined("bad_value", f"its header claims {bits} bits a pixel")
    check_claim(rows * cols, size, _LS_PIXELS if process == _LS else _DCT_PIXELS)
    if components == 3 and bits != 8:
        raise Quarantined("unsupported_transfer_syntax", f"colours of {bits} bits have no decoder here")
    lossless = process in (_LOSSLESS, _LS)
    return Header(
        rows=rows,
        cols=cols,
        bits=bits,
        channels=components,
        packed=lossless and components == 1,
        flags=("orientation",) if turned else (),
        layout=_Layout(process),
    )


def _segments(file: BinaryIO, size: int) -> tuple[tuple[int, bytes], bool]:
    """Return (process, segment) of the frame header, and whether Exif turns the image."""
    at, turned = 2, False
    frame: tuple[int, bytes] | None = None
    for _ in range(_SEGMENTS):
        file.seek(at)
        head = exactly(file, 4, "its header")
        if head[0] != 0xFF:
            raise streams.damaged("no marker where one must be")
        code = head[1]
        if code == 0xFF or code in streams.ALONE:
            at += 1 if code == 0xFF else 2
            continue
        length = int.from_bytes(head[2:], "big")
        if code == _SOS:
            break
        if length < 2 or at + 2 + length > size:
            raise cut("its header") if length >= 2 else streams.damaged("a marker segment has no length")
        if code in streams.FRAMES and frame is None:
            frame = code, exactly(file, length - 2, "its header")
        elif code == 0xE1 and not turned:
            segment = exactly(file, length - 2, "its header")
            turned = segment.startswith(_EXIF) and exif.turned(BytesIO(segment[len(_EXIF) :]))
        at += 2 + length
    if frame is None:
        raise streams.damaged("it has no frame header before its first scan")
    return frame, turned


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
    try:
        end = streams.jpeg(data).end
        if header.channels == 1:
            samples = decoding.decode(data, _syntax(header), _dataset(header))
        else:
            samples = decoding.decode_colours(data, header.rows, header.cols)
    except streams.Cut:
        raise cut("its image") from None
    return Raster(
        values=samples.values,
        decoder=samples.decoder,
        bits=header.bits,
        lossy=samples.lossy,
        repairs=samples.repairs + (("trailing_bytes",) if end < len(data) else ()),
    )


def _syntax(header: Header) -> str:
    """Return the transfer syntax that DICOM has for such a stream."""
    process = header.layout.process
    if process in (_LOSSLESS, _LS):
        return str(JPEGLossless if process == _LOSSLESS else JPEGLSLossless)
    return str(JPEGBaseline8Bit if header.bits == 8 else JPEGExtended12Bit)


def _dataset(header: Header) -> Dataset:
    """Return what DICOM would say of the stream."""
    found = Dataset()
    found.Rows, found.Columns, found.PhotometricInterpretation = header.rows, header.cols, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored = 8 if header.bits <= 8 else 16, header.bits
    found.PixelRepresentation = 0
    return found
