"""TIFF: grey pages of 1, 8, 16 or 32 bits in strips or tiles; libtiff decodes.

The strips of every page must lie in the file before anything is decoded. Thumbnails and masks among the pages are none.
"""

import functools
from dataclasses import dataclass
from importlib.metadata import version
from typing import BinaryIO

import imagecodecs
import numpy as np

from shardkit.errors import Dropped, Quarantined
from shardkit.sources.images.base import Array, Header, Photometric, Raster, check_claim, check_size, cut
from shardkit.sources.images.ifd import Directory, directories

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_BYTES, _MOST, _PLANAR = 273, 274, 277, 279, 281, 284
_COLOURMAP, _TILES, _TILE_BYTES, _FORMAT = 320, 324, 325, 339
_REDUCED_OR_MASK = 0b101
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)
_PLAIN, _LOSSY = 1, (6, 7, 34887, 33003, 33005, 34712, 50001)  # JPEG, LERC, JPEG 2000, WebP may lose
_LOSSLESS = (5, 8, 32773, 32946, 34925, 50000)  # LZW, deflate, PackBits, LZMA, Zstandard
_FAX = (2, 3, 4)
_EXPANDED = 1 << 16  # bytes that any of them makes of one, at the most
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class _Layout:
    """Number of each page in the file, and what the first page's tags say."""

    pages: tuple[int, ...]
    palette: tuple[int, ...]
    lossy: bool
    significant: int | None


def header(file: BinaryIO, size: int) -> Header:
    """Return what the directories say; pages must be alike.

    Parameters
    ----------
    file : file
        At its start.
    size : int
        Its bytes.

    Raises
    ------
    Dropped
        not_grayscale, not_integer_pixels.
    Quarantined
        truncated, bad_value, size_mismatch, decode_error, unsupported_transfer_syntax.
    """
    all_pages = list(enumerate(directories(file)))
    pages = [(number, page) for number, page in all_pages if not page.one(_SUBFILE, 0) & _REDUCED_OR_MASK]
    if not pages:
        raise Quarantined("decode_error", "none of its pages is an image")
    first = pages[0][1]
    shape = _shape(first)
    if any(_shape(page) != shape for _, page in pages):
        raise Quarantined("dimension_mismatch", "its pages differ in size or depth: take them apart")
    rows, cols, bits, channels, signed, photometric = shape
    for _, page in pages:
        _check_bytes(page, rows * -(-cols * channels * bits // 8), size)
    packing, most = first.one(_COMPRESSION, _PLAIN), first.one(_MOST, 0)
    single = channels == 1 and len(pages) == 1 and photometric != _PALETTE
    return Header(
        rows=rows,
        cols=cols,
        bits=8 if photometric == _PALETTE else min(bits, 16),
        channels=channels,
        signed=signed,
        photometric=_sense(photometric),
        images=len(pages),
        packed=single and packing in _LOSSLESS,
        flags=("orientation",) if first.one(_ORIENTATION, 1) in range(2, 9) else (),
        layout=_Layout(
            tuple(number for number, _ in pages),
            first.all(_COLOURMAP) if photometric == _PALETTE else (),
            packing in _LOSSY,
            most.bit_length() if (most + 1).bit_count() == 1 and 1 <= most < 1 << min(bits, 16) else None,
        ),
    )


def _sense(photometric: int) -> Photometric:
    return "MONOCHROME1" if photometric == _WHITE_IS_ZERO else "MONOCHROME2"


def _shape(page: Directory) -> tuple[int, int, int, int, bool, int]:
    """Return (rows, cols, bits, samples, signed, photometric) of a page that can be decoded."""
    rows, cols = page.one(_LENGTH, 0), page.one(_WIDTH, 0)
    check_size(rows, cols)
    samples, depths, kind = page.one(_SAMPLES, 1), page.all(_BITS) or (1,), page.one(_FORMAT, _UNSIGNED)
    photometric = page.one(_PHOTOMETRIC, _BLACK_IS_ZERO)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, 6) or not 1 <= samples <= 4:
        raise Dropped("not_grayscale", "its samples are no grey values")
    if kind == _FLOAT:
        raise Dropped("not_integer_pixels", "its pixels are floating-point numbers")
    bits = depths[0]
    known = bits in (8, 16, 32) or (bits == 1 and samples == 1 and photometric != _PALETTE)
    if set(depths) != {bits} or not known or kind not in (_UNSIGNED, _SIGNED):
        raise Quarantined("unsupported_transfer_syntax", f"samples of {bits} bits have no decoder here")
    return rows, cols, bits, samples, kind == _SIGNED, photometric


def _check_bytes(page: Directory, wanted: int, size: int) -> None:
    """Compare where a page's strips or tiles lie with the file, and what they claim to hold with their bytes."""
    tiles = bool(page.all(_TILES))
    starts = page.all(_TILES) or page.all(_STRIPS)
    lengths = page.all(_TILE_BYTES) or page.all(_STRIP_BYTES)
    if not starts or len(starts) != len(lengths):
        raise Quarantined("decode_error", "a page does not say where its pixels lie")
    if max(start + length for start, length in zip(starts, lengths, strict=True)) > size:
        raise cut("the pixels of a page")
    packing, there = page.one(_COMPRESSION, _PLAIN), sum(lengths)
    if packing == _PLAIN and not tiles and there < wanted:
        raise Quarantined("size_mismatch", f"a page claims {wanted:,} bytes of pixels, and has {there:,}")
    if packing not in _FAX:
        check_claim(wanted, max(there, 1), _EXPANDED)


def decode(data: bytes, header: Header, part: int) -> Raster:
    """Return a page.

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
    Quarantined
        decode_error, dimension_mismatch.
    """
    layout: _Layout = header.layout
    try:
        values = imagecodecs.tiff_decode(data, index=layout.pages[part])
    except MemoryError:
        raise
    except Exception as error:
        raise Quarantined("decode_error", f"libtiff cannot read it ({type(error).__name__}): it is damaged") from None
    values = np.asarray(values)
    if values.ndim == 3:
        planes = values.shape[0] == header.channels and values.shape[1:] == (header.rows, header.cols)
        values = np.moveaxis(values, 0, -1) if planes else values[..., 0] if values.shape[-1] == 1 else values
    if values.shape[:2] != (header.rows, header.cols) or values.dtype.kind not in "bui":
        raise Quarantined("dimension_mismatch", "libtiff gave another image than its header declares")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if layout.palette:
        values = _coloured(values, layout.palette)
    return Raster(
        values=values, decoder=_decoder(), bits=header.bits, stated_bits=layout.significant, lossy=layout.lossy
    )


def _coloured(indices: Array, palette: tuple[int, ...]) -> Array:
    """Return what a palette of 16-bit words shows, (rows, cols, 3), in 8 bits."""
    colours = np.array(palette, np.uint16).reshape(3, -1) >> 8
    if int(indices.max()) >= colours.shape[1]:
        raise Quarantined("decode_error", "its pixels name colours that its palette lacks")
    return np.moveaxis(colours[:, indices], 0, -1).astype(np.uint8)


@functools.cache
def _decoder() -> str:
    return f"imagecodecs {version('imagecodecs')} tiff_decode"
