"""The parse: DICOM bytes -> header and Image Pixel Module. What it claims of the pixels is checked in `frames`."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from shardkit.errors import Quarantined
from shardkit.sources.dicom import foreign
from shardkit.sources.dicom.elements import value

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"}
_VRS = {vr.value.encode() for vr in VR if len(vr.value) == 2}


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data element lies in `Header.stream`; `length` is None for encapsulated data."""

    tag: int
    offset: int
    length: int | None
    words: bool  # VR OW: 8-bit samples come in 16-bit words


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header.

    Attributes
    ----------
    dataset : Dataset
        All before the pixels.
    syntax : str
        UID of the transfer syntax that the data set has.
    pixels : PixelElement or None
        Where the pixel data lie.
    stream : file
        Holds the data set (inflated when the file is deflated).
    size : int
        Its bytes.
    repairs : tuple of str
        What was mended to parse it.
    cut : bool
        There is no pixel data, and the last element does not end where the file does.
    data : bytes or None
        The stream's bytes, where they are in memory anyway.
    """

    dataset: Dataset
    syntax: str
    pixels: PixelElement | None
    stream: BinaryIO
    size: int
    repairs: tuple[str, ...]
    cut: bool  # no pixel data, and the last element does not end where the file does
    data: bytes | None  # the stream's bytes, where they are in memory anyway


@dataclass(frozen=True, slots=True)
class PixelModule:
    """DICOM's Image Pixel Module (PS3.3 C.7.6.3), checked for type and range but not yet against the bytes."""

    rows: int
    cols: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    high_bit: int = 0  # counts only where it lies above what BitsStored needs

    @property
    def frame_bytes(self) -> int:
        """Bytes of one native frame."""
        return self.rows * self.cols * self.samples * self.bits_allocated // 8


def read_header(file: BinaryIO, size: int, data: bytes | None = None) -> Header:
    """Parse up to the pixel data.

    Parameters
    ----------
    file : file
        At its start.
    size : int
        Its bytes.
    data : bytes, optional
        The whole file, if it is at hand.

    Raises
    ------
    Quarantined
        empty_file, not_dicom, parse_error.
    """
    if size == 0:
        raise Quarantined("empty_file", "the file has no bytes")
    start = file.read(foreign.START)
    _sniff(start)
    file.seek(0)
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        implicit, little = _encoding(dataset)
    except (MemoryError, Quarantined):
        raise
    except (Exception, RecursionError) as error:
        # The text of a parser's error may quote the value it choked on: keep only its class.
        raise Quarantined("parse_error", f"the header cannot be parsed ({type(error).__name__})") from None
    stream: BinaryIO = file
    if syntax == DeflatedExplicitVRLittleEndian:
        if not len(dataset) or dataset.buffer is None:
            raise Quarantined("truncated", "the file ends inside its header")
        stream, data = cast(BinaryIO, dataset.buffer), None
        size = _end(stream)
    syntax, repairs = _effective_syntax(syntax, implicit, little)
    pixels = _pixel_element(stream, implicit, "<" if little else ">")
    return Header(dataset, str(syntax), pixels, stream, size, repairs, pixels is None and _cut(dataset, size), data)


def _encoding(dataset: Dataset) -> tuple[bool, bool]:
    """Return (implicit VR, little endian) as the parser read the data set, which may not be what the file declares."""
    implicit, little = dataset.original_encoding
    last = dataset.get_item(max(dataset.keys())) if len(dataset) else None
    if isinstance(last, RawDataElement):
        implicit, little = last.is_implicit_VR, last.is_little_endian
    return bool(implicit), bool(little)


def _effective_syntax(declared: str | None, implicit: bool, little: bool) -> tuple[str, tuple[str, ...]]:
    """Return the transfer syntax that the data set has, and the repair that this is."""
    found = ExplicitVRBigEndian if not little else ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    if declared is None:
        return str(found), ("assumed_ts",)
    if declared in NATIVE - {DeflatedExplicitVRLittleEndian} and declared != found:
        return str(found), ("wrong_ts",)
    return str(declared), ()


def _cut(dataset: Dataset, size: int) -> bool:
    """Return whether the data set stops in the middle of an element.

    The parser takes the end of a file as its own, or, where it comes in the middle of a sequence, returns nothing.
    """
    if not len(dataset):
        return size > 0 and "MediaStorageSOPClassUID" in dataset.file_meta
    last = dataset.get_item(max(dataset.keys()))
    if not isinstance(last, RawDataElement) or last.length == _UNDEFINED:
        return False
    return last.value_tell + last.length != size


def _end(stream: BinaryIO) -> int:
    position = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(position)
    return end


def looks_like_dicom(start: bytes) -> bool:
    """Return whether a file's first bytes are a DICM prefix, or a plausible first element."""
    if start[128:132] == b"DICM":
        return True
    for order in "<>" if len(start) >= 8 else "":
        group, element, length = struct.unpack(f"{order}HHI", start[:8])
        known_group = group in (0x0002, 0x0008) and element <= 0x1200
        if known_group and (start[4:6] in _VRS or length <= 4096):
            return True
    return False


def _sniff(start: bytes) -> None:
    """`force=True` parses anything as DICOM, so look first."""
    if looks_like_dicom(start):
        return
    raise Quarantined(
        "not_dicom",
        foreign.packed(start) or "neither a DICM prefix nor a data element at the start: not a DICOM file",
    )


def _pixel_element(stream: BinaryIO, implicit: bool, order: str) -> PixelElement | None:
    """Read the element header at the stream's position, where the parser stopped before the pixels."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", head[:4])
    tag = group << 16 | element
    if tag not in (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA):
        return None
    if implicit:
        (length,) = struct.unpack(f"{order}I", head[4:])
    elif head[4:6] in _LONG_VRS:
        (length,) = struct.unpack(f"{order}I", stream.read(4).ljust(4, b"\0"))
    else:
        (length,) = struct.unpack(f"{order}H", head[6:])
    words = implicit or head[4:6] == b"OW"
    return PixelElement(tag, stream.tell(), None if length == _UNDEFINED else length, words)


def pixel_module(dataset: Dataset) -> PixelModule:
    """Read the Image Pixel Module.

    Raises
    ------
    Quarantined
        missing_required_tag, bad_value.
    """
    rows = _integer(dataset, "Rows", range(1, 65536))
    cols = _integer(dataset, "Columns", range(1, 65536))
    allocated = _integer(dataset, "BitsAllocated", (1, 8, 12, 16, 32, 64))
    stored = _integer(dataset, "BitsStored", range(1, allocated + 1), default=allocated)
    photometric = value(dataset, "PhotometricInterpretation")
    if photometric is None:
        raise Quarantined("missing_required_tag", "PhotometricInterpretation is missing")
    return PixelModule(
        rows=rows,
        cols=cols,
        samples=_integer(dataset, "SamplesPerPixel", range(1, 5), default=1),
        frames=max(1, _integer(dataset, "NumberOfFrames", range(1 << 31), default=1)),  # some write 0 for one
        bits_allocated=allocated,
        bits_stored=stored,
        signed=bool(_integer(dataset, "PixelRepresentation", (0, 1))),
        photometric=str(photometric).strip(),
        high_bit=_integer(dataset, "HighBit", range(65536), default=stored - 1),
    )


def _integer(dataset: Dataset, keyword: str, allowed: Iterable[int], default: int | None = None) -> int:
    found = value(dataset, keyword)
    if found is None or found == "":
        if default is None:
            raise Quarantined("missing_required_tag", f"{keyword} is missing")
        return default
    try:
        number = int(found)
    except (TypeError, ValueError, OverflowError):
        raise Quarantined("bad_value", f"{keyword} is not one whole number") from None
    if number not in allowed:
        raise Quarantined("bad_value", f"{keyword} is out of its range")
    return number
