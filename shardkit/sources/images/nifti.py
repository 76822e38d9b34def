"""NIfTI volumes (.nii, .nii.gz), slice by slice; nibabel reads the header, a volume is inflated once for its slices.

A slice is turned as viewers show it: its rows run from superior to inferior, or, where that is what is cut across, from
anterior to posterior; its columns from right to left, or from anterior to posterior. Which stored axis that is, the
header's orientation tells (sform, else qform, else the one that nibabel assumes). Values are the stored ones: slope and
intercept are facts beside them, as for DICOM, and a negative slope makes low values bright.
"""

import functools
import math
import zlib
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.images.base import Header, Raster, check_claim, check_size, cut
from shardkit.sources.last import Last

GZIP = b"\x1f\x8b"

_HEADERS = 540  # bytes of the longer one
_GZIPPED = 1 << 16  # bytes from the start of a gzip file that hold a header
_INFLATED = 1_032  # bytes that deflate makes of one, at the most
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of a unit; unknown counts as mm
_WORDS = 16
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How the volume lies in the file, and how a slice is cut out of it.

    Attributes
    ----------
    shape : tuple of int
        Of the volume, three axes.
    kind : dtype
        Of a value.
    offset : int
        Of the first value.
    packed : bool
        Whether the file is compressed.
    axis : int
        What is cut across.
    rows, cols : int
        The stored axes that become rows and columns.
    turned : tuple of bool
        Whether rows, and columns, run backwards.
    """

    shape: tuple[int, int, int]
    kind: np.dtype[Any] = field(repr=False)
    offset: int
    packed: bool
    axis: int
    rows: int
    cols: int
    turned: tuple[bool, bool]

    @property
    def bytes(self) -> int:
        """Bytes of the file, inflated, that are needed."""
        return self.offset + math.prod(self.shape) * self.kind.itemsize


@dataclass(frozen=True, slots=True)
class _Volume:
    """A volume in memory, and what its values span."""

    values: npt.NDArray[Any] = field(repr=False)
    span: tuple[int, int]


_last = Last[_Volume](lambda volume: volume.values.nbytes, 1 << 30)


def recognised(start: bytes) -> bool:
    """Return whether a file begins as NIfTI does.

    Parameters
    ----------
    start : bytes
        Its first 352 bytes, inflated.
    """
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")


def inflated_start(start: bytes) -> bytes:
    """Return the first bytes of what a gzip file holds, from its own first bytes; empty where it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(start, _HEADERS)
    except zlib.error:
        return b""


def header(file: BinaryIO, size: int, axis: int = 2) -> Header:
    """Return what the header says.

    Parameters
    ----------
    file : file
        At its start.
    size : int
        Its bytes.
    axis : int
        The stored axis to cut across.

    Raises
    ------
    Dropped
        multiframe, not_grayscale, not_integer_pixels.
    Quarantined
        truncated, bad_value, size_mismatch, parse_error, unknown_format.
    """
    start = file.read(_GZIPPED)
    packed = start.startswith(GZIP)
    found = _parsed(inflated_start(start) if packed else start[:_HEADERS])
    shape = _shape(found)
    kind = _kind(found)
    rows, cols, turned = _turned(found, axis)
    try:
        offset = int(found.get_data_offset())
    except (ValueError, OverflowError):
        offset = -1
    if offset < 0:
        raise Quarantined("bad_value", "its header says that pixels begin before the file")
    layout = Layout(shape, kind, offset, packed, axis, rows, cols, turned)
    check_size(shape[rows], shape[cols])
    if packed:
        check_claim(layout.bytes, size, _INFLATED)
    elif layout.bytes > size:
        raise cut("its pixels")
    slope, intercept = _rescale(found)
    return Header(
        rows=shape[rows],
        cols=shape[cols],
        bits=min(_WORDS, 8 * kind.itemsize),
        signed=kind.kind == "i",
        photometric="MONOCHROME1" if slope is not None and slope < 0 else "MONOCHROME2",
        images=shape[axis],
        spacing=_spacing(found, rows, cols),
        slope=slope,
        intercept=intercept,
        layout=layout,
    )


def _parsed(start: bytes) -> Any:
    """Return nibabel's header of the first bytes of a file."""
    from nibabel import Nifti1Header, Nifti2Header  # loads in half a second, which other files need not pay

    if start[344:348] == b"ni1\0" or start[4:8] == b"ni2\0":
        raise Quarantined("unknown_format", "a NIfTI header whose pixels lie in another file: make one .nii of the two")
    first = start[344:348] == b"n+1\0"
    size = 348 if first else _HEADERS
    if len(start) < size:
        raise cut("its header")
    try:
        return (Nifti1Header if first else Nifti2Header)(start[:size], check=False)
    except Exception as error:
        raise Quarantined("parse_error", f"its header cannot be parsed ({type(error).__name__})") from None


def _shape(found: Any) -> tuple[int, int, int]:
    dims = [int(n) for n in found["dim"]]
    if not 2 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise Quarantined("bad_value", "its header claims axes that no volume has")
    sides = [*dims[1 : dims[0] + 1], 1]
    if math.prod(sides[3:]) > 1:
        raise Dropped("multiframe", f"{math.prod(sides[3:])} volumes in one file: take them apart")
    for side in sides[:3]:
        check_size(side, 1)
    return sides[0], sides[1], sides[2]


def _kind(found: Any) -> np.dtype[Any]:
    code = int(found["datatype"])
    if code in (128, 2304):
        raise Dropped("not_grayscale", "its pixels are colours")
    if code in (32, 1792, 2048):
        raise Dropped("not_integer_pixels", "its pixels are complex numbers")
    try:
        kind = np.dtype(found.get_data_dtype())
    except Exception:
        kind = np.dtype("V1")
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise Quarantined("bad_value", f"its header names a type of pixels (code {code}) that has no decoder here")
    return cast(np.dtype[Any], kind)


def _turned(found: Any, axis: int) -> tuple[int, int, tuple[bool, bool]]:
    """Return which stored axes are the rows and the columns of a slice, and whether they run backwards."""
    from nibabel.orientations import io_orientation

    try:
        with np.errstate(all="ignore"):
            towards = io_orientation(found.get_best_affine())
        sure = not np.isnan(towards).any()
    except Exception:
        sure = False
    if not sure:  # as nibabel takes files without an orientation
        towards = np.array([[0, -1], [1, 1], [2, 1]])
    cols, rows = sorted((a for a in range(3) if a != axis), key=lambda a: float(towards[a, 0]))
    # Numbers grow to the right, anterior and superior (RAS); rows and columns run the other way.
    return rows, cols, (bool(towards[rows, 1] > 0), bool(towards[cols, 1] > 0))


def _spacing(found: Any, rows: int, cols: int) -> tuple[float, float] | None:
    unit = _MILLIMETRES.get(int(found["xyzt_units"]) & 7, 1.0)
    row, col = (abs(float(found["pixdim"][1 + axis])) * unit for axis in (rows, cols))
    return (row, col) if math.isfinite(row) and math.isfinite(col) and row > 0 and col > 0 else None


def _rescale(found: Any) -> tuple[float | None, float | None]:
    slope, intercept = float(found["scl_slope"]), float(found["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return None, None
    return slope, intercept if math.isfinite(intercept) else None


def decode(data: bytes, header: Header, part: int) -> Raster:
    """Return a slice.

    Parameters
    ----------
    data : bytes
        The whole file. Its volume stays in memory for the other slices, as long as they come with the same object.
    header : Header
        What `header` returned.
    part : int
        Which slice, from 0.

    Raises
    ------
    Dropped
        not_integer_pixels, empty_slice.
    Quarantined
        truncated, decode_error.
    """
    layout: Layout = header.layout
    volume = _last.of(data, layout, lambda: _volume(data, layout))
    plane = np.moveaxis(volume.values, (layout.rows, layout.cols, layout.axis), (0, 1, 2))[:, :, part]
    if plane.min() == plane.max():
        raise Dropped("empty_slice", "all of its values are equal")
    plane = plane[:: -1 if layout.turned[0] else 1, :: -1 if layout.turned[1] else 1]
    return Raster(
        values=np.ascontiguousarray(plane).astype(
            np.int64 if layout.kind.kind == "f" else layout.kind.newbyteorder("=")
        ),
        decoder=_decoder(),
        bits=header.bits,
        span=volume.span,
    )


def _volume(data: bytes, layout: Layout) -> _Volume:
    raw = _inflated(data, layout.bytes) if layout.packed else data
    values = np.frombuffer(raw, layout.kind, math.prod(layout.shape), layout.offset).reshape(layout.shape, order="F")
    return _Volume(values, _span(values))


def _span(values: npt.NDArray[Any]) -> tuple[int, int]:
    """Return least and largest value; drop what are no whole numbers."""
    flat = values.reshape(-1, order="A")
    if values.dtype.kind == "f" and not all(
        np.array_equal(np.rint(flat[at : at + (1 << 20)]), flat[at : at + (1 << 20)])
        for at in range(0, flat.size, 1 << 20)
    ):
        raise Dropped("not_integer_pixels", "its pixels are floating-point numbers, not all of them whole")
    least, most = flat.min().item(), flat.max().item()
    if not (math.isfinite(least) and math.isfinite(most)):
        raise Dropped("not_integer_pixels", "its pixels are floating-point numbers, not all of them finite")
    return int(least), int(most)


def _inflated(data: bytes, needed: int) -> bytes:
    """Return the first `needed` bytes of what a gzip file holds; every member's checksum is compared."""
    parts, have, rest = list[bytes](), 0, data
    try:
        while have < needed:
            member = zlib.decompressobj(31)
            parts.append(member.decompress(rest, needed - have))
            have += len(parts[-1])
            while not member.eof:  # what lies behind is of no matter, but the checksum is
                left = member.unconsumed_tail
                if not member.decompress(left, _STEP) and not member.eof and not member.unconsumed_tail:
                    raise cut("its pixels")
            rest = member.unused_data
            if not rest and have < needed:
                raise cut("its pixels")
    except zlib.error:
        raise Quarantined("decode_error", "its compressed bytes are damaged") from None
    return b"".join(parts) if len(parts) > 1 else parts[0]


@functools.cache
def _decoder() -> str:
    return f"nibabel {version('nibabel')}"
