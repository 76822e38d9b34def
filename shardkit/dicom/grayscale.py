"""Stored values -> uniform pixels: unsigned, MONOCHROME2 sense, background 0, native size, nothing windowed.

Polarity. The sense of *stored* values is MONOCHROME1 xor negative rescale slope xor decreasing Modality LUT (PS3.3
C.7.6.3.1.2, C.11.1). A Modality LUT sequence is applied here, which realises its direction in the values, so what is
left to undo after it is MONOCHROME1 alone; slope and intercept stay metadata and count only by the slope's sign.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from shardkit.dicom.reading import ImageFacts, value
from shardkit.errors import Quarantined

Array = npt.NDArray[np.integer]
Pixels = npt.NDArray[np.uint16]
Invert = Literal["full", "imagemax"]


@dataclass(frozen=True, slots=True)
class Uniform:
    """`pixels` (rows, cols) uint16 in [0, 2**bits - 1]; `padding` is the share of padding pixels in [0, 1]."""

    pixels: Pixels
    bits: int
    inverted: bool
    padding: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stored:
    """Stored values as integers that hold their sign, padding set to `low`, the least value `bits` allow."""

    values: Array
    bits: int
    low: int
    padding: npt.NDArray[np.bool_] | None
    flags: tuple[str, ...] = ()


def to_uniform(
    raw: Array, facts: ImageFacts, dataset: Dataset, *, lossy: bool = False, invert: Invert = "full"
) -> Uniform:
    """Raw samples as the decoder gave them -> uniform pixels. Raises Quarantined (bad_value)."""
    slope = rescale(dataset)[0]
    stored = _stored(raw, facts, dataset, lossy)
    table = modality_lut(dataset, facts.signed)
    if table is None:
        values: Array = stored.values if stored.low == 0 else stored.values.astype(np.int32) - stored.low
        bits, negative = stored.bits, slope < 0
    else:
        first, entries = table
        index = np.clip(stored.values.astype(np.int32) - first, 0, len(entries) - 1)
        # The descriptor's depth is that of its container, 8 or 16; the entries' own tells what they reach.
        values, bits, negative = entries[index], max(facts.bits_stored, int(entries.max()).bit_length()), False
    pixels: Pixels = values.astype(np.uint16, copy=False)  # may still be a read-only view of the file
    inverted = (facts.photometric == "MONOCHROME1") != negative
    if inverted:
        top = (1 << bits) - 1 if invert == "full" else int(pixels.max(initial=0, where=_inside(stored)))
        pixels = np.subtract(np.uint16(top), pixels)
    share = 0.0
    if stored.padding is not None:
        share = float(np.count_nonzero(stored.padding)) / stored.padding.size
        pixels = np.where(stored.padding, np.uint16(0), pixels)
    return Uniform(pixels, bits, inverted, share, stored.flags)


def _inside(stored: _Stored) -> npt.NDArray[np.bool_] | bool:
    return True if stored.padding is None else ~stored.padding


def _stored(raw: Array, facts: ImageFacts, dataset: Dataset, lossy: bool) -> _Stored:
    """Mask and sign-extend by BitsStored. Words that then would change their value are flagged, never wrapped:
    a lossy codec's overshoot is clipped to BitsStored, anything else raises the bit depth to what it needs."""
    bits, width = facts.bits_stored, facts.bits_allocated
    if raw.dtype.kind == "i":  # some codecs return two's complement themselves
        raw = raw.astype(np.int32) & ((1 << width) - 1)
    if _overlay_in_pixels(dataset):
        raw = raw.astype(np.int32) & ((1 << bits) - 1)
    low = -(1 << (bits - 1)) if facts.signed else 0
    high = low + (1 << bits) - 1
    values = _extend(raw, bits) if facts.signed else raw
    padding = _padding_mask(raw, values, facts, dataset, low, high)
    flags: tuple[str, ...] = ()
    if int(raw.max()) >> bits:
        above = raw >> bits
        strange = above != 0
        if facts.signed:  # sign bits may or may not be extended into the rest of the word
            strange &= above != (1 << (width - bits)) - 1
        if padding is not None:
            strange &= ~padding
        if strange.any():
            flags = ("values_exceed_bits",)
            values = _extend(raw, width) if facts.signed else raw
            if padding is not None:
                values = np.where(padding, values.dtype.type(0), values)
            if lossy:
                values = np.clip(values, low, high)
            else:
                least, most = int(values.min()), int(values.max())
                bits = max(most.bit_length(), (~least).bit_length() if least < 0 else 0) + facts.signed
                low = -(1 << (bits - 1)) if facts.signed else 0
    if padding is not None:
        values = np.where(padding, values.dtype.type(low), values)
    return _Stored(values, bits, low, padding, flags)


def _extend(values: Array, bits: int) -> npt.NDArray[np.int32]:
    """Two's complement of the low `bits` bits."""
    sign = 1 << (bits - 1)
    wide = values.astype(np.int32) & ((1 << bits) - 1)
    return (wide ^ sign) - sign


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """An overlay group without data of its own and with a bit position above 0 sits in the pixels' high bits."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0102) in dataset and (group, 0x3000) not in dataset:
            try:
                if int(dataset[group, 0x0102].value) > 0:
                    return True
            except Exception:  # an unreadable position is none
                continue
    return False


def _padding_mask(
    raw: Array, values: Array, facts: ImageFacts, dataset: Dataset, low: int, high: int
) -> npt.NDArray[np.bool_] | None:
    """PixelPaddingValue and its range limit, read with the sign of the pixels (PS3.3 C.7.5.1.1.2)."""
    start, limit = (_sample(value(dataset, k), facts) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if start is None:
        return None
    first, last = sorted((start, start if limit is None else limit))
    if first < low or last > high:  # outside BitsStored: only the whole word can tell
        values = _extend(raw, facts.bits_allocated) if facts.signed else raw
    mask = values == first if first == last else (values >= first) & (values <= last)
    return mask if mask.any() else None


def _sample(found: Any, facts: ImageFacts) -> int | None:
    try:
        number = int(found)
    except (TypeError, ValueError, OverflowError):
        return None
    bits = facts.bits_allocated
    number &= (1 << bits) - 1
    return number - (1 << bits) if facts.signed and number >> (bits - 1) else number


def rescale(dataset: Dataset) -> tuple[float, float]:
    """(slope, intercept), (1, 0) where absent. Raises Quarantined (bad_value) when they are not numbers."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        try:
            found = value(dataset, keyword)
            number = default if found is None or found == "" else float(found)
        except (TypeError, ValueError, OverflowError):
            raise Quarantined("bad_value", f"{keyword} is not one number") from None
        values.append(number)
    if not all(map(math.isfinite, values)) or values[0] == 0:
        raise Quarantined("bad_value", "RescaleSlope is zero or not finite")
    return values[0], values[1]


def modality_lut(dataset: Dataset, signed: bool) -> tuple[int, Pixels] | None:
    """(first stored value mapped, entries) of the Modality LUT sequence, or None. Raises Quarantined (bad_value)."""
    sequence = value(dataset, "ModalityLUTSequence")
    if not sequence:
        return None
    try:
        count, first, bits = (int(v) for v in sequence[0].LUTDescriptor)
        data = sequence[0]["LUTData"].value
        if isinstance(data, bytes):
            order = ">" if dataset.original_encoding[1] is False else "<"
            data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (count or 65536) else "u1")
        entries = np.asarray(data).astype(np.uint16).ravel()
    except MemoryError:
        raise
    except Exception:
        raise Quarantined("bad_value", "the Modality LUT sequence cannot be read") from None
    count = count or 65536  # PS3.3 C.11.1.1: 0 stands for 2**16
    if len(entries) < count or not 1 <= bits <= 16:
        raise Quarantined("bad_value", "the Modality LUT has fewer entries than its descriptor says")
    if signed and first >= 1 << 15:
        first -= 1 << 16
    return first, entries[:count]


def halve(pixels: Pixels) -> Pixels:
    """Mean of 2x2 blocks, rounded half up; an odd last row or column is repeated first, so nothing is cropped."""
    rows, cols = pixels.shape
    if rows % 2 or cols % 2:
        pixels = np.pad(pixels, ((0, rows % 2), (0, cols % 2)), mode="edge")
    wide = pixels.astype(np.uint32)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint16)
