"""What a module of an image format tells of a file (`Header`) and gives of it (`Raster`), and what all of them check.

Nothing is allocated from what a header claims: claimed sizes are compared with the bytes that are there first.
"""

from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from shardkit.errors import Dropped, Quarantined

Array = npt.NDArray[np.integer[Any]]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

_MOST = 65_535  # pixels a side, as in DICOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of a file says, checked for range.

    Attributes
    ----------
    rows, cols : int
        Pixels of one image.
    bits : int
        Bits of a stored value, 1 to 16: those of the file's words, of which fewer may count.
    channels : int
        Values a pixel, as they are stored; a palette counts as one.
    signed : bool
        Whether stored values have a sign.
    photometric : str
        MONOCHROME1 where low values are bright.
    images : int
        Pages or slices that the file holds.
    packed : bool
        Whether the file is one grey image, compressed without loss, so that its size tells how well it compresses.
    spacing : tuple of float or None
        Between rows and between columns, in mm, where the file tells.
    slope, intercept : float or None
        From stored values to physical ones, where the file tells.
    flags : tuple of str
        What a person may want to look at.
    layout : Any
        What the format's `decode` needs beside.
    """

    rows: int
    cols: int
    bits: int
    channels: int = 1
    signed: bool = False
    photometric: Photometric = "MONOCHROME2"
    images: int = 1
    packed: bool = False
    spacing: tuple[float, float] | None = None
    slope: float | None = None
    intercept: float | None = None
    flags: tuple[str, ...] = ()
    layout: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """Stored values as a decoder gives them.

    Attributes
    ----------
    values : ndarray of int, shape (rows, cols) or (rows, cols, channels)
        With channels: grey and alpha, colour, or colour and alpha.
    decoder : str
        The library, its version and function.
    bits : int
        Bits that a value may have.
    stated_bits : int or None
        Bits that count, where the file states that beside its words.
    span : tuple of int or None
        Least and largest value of the volume that this is a slice of.
    lossy : bool
        Whether the file was compressed with loss.
    repairs, flags : tuple of str
        What was mended; what a person may want to look at.
    """

    values: Array
    decoder: str
    bits: int
    stated_bits: int | None = None
    span: tuple[int, int] | None = None
    lossy: bool = False
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class ImageFormat(Protocol):
    """A module of one format."""

    def header(self, file: BinaryIO, size: int) -> Header:
        """Return what the header says; nothing is decoded.

        Parameters
        ----------
        file : file
            At its start.
        size : int
            Its bytes.

        Raises
        ------
        Dropped, Quarantined
            Where this holds no image that can be decoded.
        """
        ...

    def decode(self, data: bytes, header: Header, part: int) -> Raster:
        """Return one image.

        Parameters
        ----------
        data : bytes
            The whole file.
        header : Header
            What `header` returned.
        part : int
            Which of its images, from 0.

        Raises
        ------
        Dropped, Quarantined
            decode_error, truncated, dimension_mismatch, not_grayscale, not_integer_pixels.
        """
        ...


def check_size(rows: int, cols: int) -> None:
    """Quarantine a size that no image has."""
    if not (1 <= rows <= _MOST and 1 <= cols <= _MOST):
        raise Quarantined("bad_value", f"its header claims {rows} x {cols} pixels")


def check_claim(claimed: int, size: int, ratio: int) -> None:
    """Quarantine a header that claims more bytes of pixels than `size` bytes can hold at `ratio` to 1, at the most."""
    if claimed > ratio * size:
        raise Quarantined(
            "size_mismatch", f"its header claims {claimed:,} bytes of pixels: more than {size:,} bytes can hold"
        )


def cut(what: str) -> Quarantined:
    """Return the verdict on a file that ends too early."""
    return Quarantined("truncated", f"the file ends inside {what}: fetch it again")


def exactly(file: BinaryIO, count: int, what: str) -> bytes:
    """Return the next bytes of a file; quarantine one that ends before.

    Parameters
    ----------
    file : file
        At the place.
    count : int
        Bytes.
    what : str
        What they are.
    """
    found = file.read(count)
    if len(found) < count:
        raise cut(what)
    return found


def gray(raster: Raster) -> tuple[Array, tuple[str, ...]]:
    """Return one plane, (rows, cols), and the flag ``equal_channels`` where it was stored in several.

    Raises
    ------
    Dropped
        not_grayscale: channels differ, or alpha is not opaque everywhere.
    """
    values = raster.values
    if values.ndim == 2:
        return values, ()
    channels = values.shape[2]
    if channels > 4:
        raise Dropped("not_grayscale", f"{channels} channels")
    if channels in (2, 4) and int(values[..., -1].min()) < (1 << raster.bits) - 1:
        raise Dropped("not_grayscale", "parts of it are transparent")
    first = values[..., 0]
    if channels > 2 and not all(np.array_equal(first, values[..., i]) for i in (1, 2)):
        raise Dropped("not_grayscale", "its colour channels differ")
    return np.ascontiguousarray(first), ("equal_channels",) if channels > 1 else ()
