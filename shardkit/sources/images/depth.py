"""How many bits of a stored value count: stated, or by evidence. This decides how the image is scaled, no pixel.

A file of 16-bit words may hold values of 10, 12 or 14 bits, and a dark image of 16 bits looks much the same. What is
evidence:

- what a table or a collection states of it, or the file itself (sBIT of PNG, MaxSampleValue of TIFF);
- a largest value of exactly 1,023, 4,095 or 16,383, in more than one pixel: a detector's end of scale;
- a largest value in the top eighth of 12 bits, the usual depth: 16-bit images that end just there are rarer by far.

Anything else keeps the 16 bits that its file has, and is flagged `bits_unsure` below a quarter of them: one dark image
is not made bright on a guess. Words with a sign have the bits of their file.

A volume has no depth but that of its values; they are those of the whole volume, so that its slices are scaled alike.
"""

from dataclasses import dataclass

import numpy as np

from shardkit.errors import Quarantined
from shardkit.sources.images.base import Array, Raster

_DEPTHS = (10, 12, 14)
_USUAL, _TOP = 12, 7 / 8
_QUARTER = 1 << 14
_WORD = 16


@dataclass(frozen=True, slots=True)
class Depth:
    """Bits that count, whether the values have a sign, and the flags of how that is known."""

    bits: int
    signed: bool = False
    flags: tuple[str, ...] = ()


def depth(values: Array, raster: Raster, signed: bool, stated: int | None) -> Depth:
    """Return how many bits of an image count.

    Parameters
    ----------
    values : ndarray of int
        The image.
    raster : Raster
        Where they come from.
    signed : bool
        Whether the file's words have a sign.
    stated : int or None
        What a table states.

    Raises
    ------
    Quarantined
        bad_value: more than 16 bits are in use.
    """
    least, most = raster.span or (int(values.min()), int(values.max()))
    negative = least < 0
    needed = max(1, most.bit_length(), (~least).bit_length() if negative else 0) + negative
    if needed > _WORD:
        raise Quarantined("bad_value", f"its values take {needed} bits: only 16 and fewer are kept exactly")
    said = next((bits for bits in (stated, raster.stated_bits) if bits is not None and bits <= raster.bits), None)
    if said is not None:
        return Depth(max(said, needed), negative, ("values_exceed_bits",) if needed > said else ())
    if raster.span is not None:
        return Depth(needed, negative, ("bits_by_evidence",))
    if signed or raster.bits <= 8:
        return Depth(raster.bits, signed)
    return _by_evidence(values, most, needed, raster.bits)


def _by_evidence(values: Array, most: int, needed: int, bits: int) -> Depth:
    full = needed in _DEPTHS and most == (1 << needed) - 1 and np.count_nonzero(values == most) > 1
    usual = needed == _USUAL and most >= _TOP * (1 << _USUAL)
    if needed < bits and (full or usual):
        return Depth(needed, False, ("bits_by_evidence",))
    return Depth(bits, False, ("bits_unsure",) if bits == _WORD and most < _QUARTER else ())
