"""Decoded samples -> stored values: which of their bits count, with which sign, and which pixels are padding.

Header and samples may disagree; what the samples show then decides, and a flag or a repair records it.

- More bits in use than BitsStored says: the bits above are noise or an old overlay if the image is smoother without
  them, and are masked as pydicom does (repair `high_bits`); if it is smoother with them, BitsStored is wrong: the depth
  is raised to what the values need (flag `values_exceed_bits`). A lossy codec's small overshoot is clipped (same flag).
- A stream of fewer bits than BitsStored has the stream's depth (flag `stream_bits`).
- A stream whose sign is not the header's is read by the header's, in its low bits (flag `stream_sign`), if that keeps
  all values apart.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from shardkit.errors import Quarantined
from shardkit.sources.dicom.decoding import Samples
from shardkit.sources.dicom.elements import value
from shardkit.sources.dicom.reading import PixelModule

Array = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

_SAMPLED_ROWS = 256  # rows that smoothness is judged on
_OVERSHOOT = 1 / 8, 0.01  # of a lossy codec: largest, of the range; share of the pixels


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values as integers that hold their sign.

    Attributes
    ----------
    values : ndarray of int, (rows, cols)
        Padding is set to `low`.
    bits : int
        Depth.
    low : int
        The least value that `bits` allow.
    padding : ndarray of bool or None
        Where it is.
    flags, repairs : tuple of str
        What a person may want to look at; what was mended.
    """

    values: Array
    bits: int
    low: int
    padding: Mask | None
    flags: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Words:
    """Unsigned words of `width` bits, of which `bits` are said to count."""

    words: Array
    width: int
    bits: int
    flags: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


def stored_values(samples: Samples, module: PixelModule, dataset: Dataset) -> Stored:
    """Return what the header and the samples together say is stored.

    Raises
    ------
    Quarantined
        bad_value.
    """
    found = _from_file(samples.values, module) if samples.precision is None else _from_stream(samples, module)
    words, bits = found.words, found.bits
    if _overlay_in_pixels(dataset):
        words = words & words.dtype.type((1 << min(bits, 8 * words.dtype.itemsize)) - 1)
    low = -(1 << (bits - 1)) if module.signed else 0
    narrow = _extend(words, bits) if module.signed else words
    padding = _padding_mask(words, narrow, found, module, dataset, low)
    if not _exceeds(words, found, module.signed, padding):
        return _stored(narrow, bits, low, padding, found.flags, found.repairs)
    whole = _extend(words, found.width) if module.signed else words
    flags = (*found.flags, "values_exceed_bits")
    if samples.lossy and _overshoots(whole, low, bits, padding):
        return _stored(np.clip(whole, low, low + (1 << bits) - 1), bits, low, padding, flags, found.repairs)
    if not samples.lossy:
        masked = narrow if module.signed else words & words.dtype.type((1 << bits) - 1)
        if _roughness(masked, padding) <= _roughness(whole, padding):
            return _stored(masked, bits, low, padding, found.flags, (*found.repairs, "high_bits"))
    inside = whole if padding is None else whole[~padding]
    least, most = int(inside.min()), int(inside.max())
    bits = max(most.bit_length(), (~least).bit_length() if least < 0 else 0) + module.signed
    low = -(1 << (bits - 1)) if module.signed else 0
    return _stored(whole, bits, low, padding, flags, found.repairs)


def _stored(
    values: Array, bits: int, low: int, padding: Mask | None, flags: tuple[str, ...], repairs: tuple[str, ...]
) -> Stored:
    if padding is not None:
        values = np.where(padding, values.dtype.type(low), values)
    return Stored(values, bits, low, padding, flags, repairs)


def _from_file(values: Array, module: PixelModule) -> _Words:
    """Uncompressed words. HighBit counts only where the words show that they are aligned to it, a retired layout."""
    words, width = _unsigned(values, module.bits_allocated), module.bits_allocated
    shift = min(module.high_bit, width - 1) + 1 - module.bits_stored
    if (
        shift > 0
        and int(words.max()) >> module.bits_stored
        and not int(np.bitwise_or.reduce(words, None)) & ((1 << shift) - 1)
    ):
        return _Words(words >> words.dtype.type(shift), width, module.bits_stored, (), ("high_bit",))
    return _Words(words, width, module.bits_stored)


def _from_stream(samples: Samples, module: PixelModule) -> _Words:
    """Return a stream's values as words of its own precision."""
    assert samples.precision is not None
    values, width = samples.values, samples.precision
    bits = min(module.bits_stored, width)
    flags = ("stream_bits",) if width < module.bits_stored else ()
    if samples.signed and not module.signed:
        least, most = int(values.min()), int(values.max())
        if least < 0:
            if most - least >= 1 << bits:
                raise Quarantined(
                    "bad_value", "the compressed stream is signed, its header unsigned: no way to read it"
                )
            return _Words(_unsigned(values, bits), bits, bits, (*flags, "stream_sign"))
    words = _unsigned(values, width)
    if samples.signed is False and module.signed and int(words.max()) >> (bits - 1):
        flags = (*flags, "stream_sign")
    return _Words(words, width, bits, flags)


def _unsigned(values: Array, bits: int) -> Array:
    """Values modulo 2**bits; some codecs return two's complement themselves."""
    if values.dtype.kind == "i":
        return values.astype(np.int32) & ((1 << bits) - 1)
    return values


def _extend(values: Array, bits: int) -> npt.NDArray[np.int32]:
    """Two's complement of the low `bits` bits."""
    sign = 1 << (bits - 1)
    wide = values.astype(np.int32) & ((1 << bits) - 1)
    return (wide ^ sign) - sign


def _exceeds(words: Array, found: _Words, signed: bool, padding: Mask | None) -> bool:
    """Whether pixels that are no padding use bits above those that count, but to repeat their sign."""
    if not int(words.max()) >> found.bits:
        return False
    above = words >> found.bits
    strange = above != 0
    if signed:
        strange &= above != (1 << (found.width - found.bits)) - 1
    if padding is not None:
        strange &= ~padding
    return bool(strange.any())


def _overshoots(values: Array, low: int, bits: int, padding: Mask | None) -> bool:
    size = 1 << bits
    over = np.maximum(low - values.astype(np.int32), values.astype(np.int32) - (low + size - 1))
    if padding is not None:
        over = np.where(padding, 0, over)
    largest, share = _OVERSHOOT
    return int(over.max()) <= largest * size and int(np.count_nonzero(over > 0)) <= share * over.size


def _roughness(values: Array, padding: Mask | None) -> int:
    """Sum of the differences between neighbours in a row, over some of the rows."""
    step = -(-values.shape[0] // _SAMPLED_ROWS)
    apart = np.abs(np.diff(values[::step].astype(np.int64), axis=1))
    if padding is not None:
        some = padding[::step]
        apart = np.where(some[:, 1:] | some[:, :-1], 0, apart)
    return int(apart.sum())


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """Return whether an overlay sits in the pixels' high bits: a group without data, with a bit position above 0."""
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0102) in dataset and (group, 0x3000) not in dataset:
            try:
                if int(dataset[group, 0x0102].value) > 0:
                    return True
            except Exception:  # an unreadable position is none
                continue
    return False


def _padding_mask(
    words: Array, narrow: Array, found: _Words, module: PixelModule, dataset: Dataset, low: int
) -> Mask | None:
    """PixelPaddingValue and its range limit, read with the sign of the pixels (PS3.3 C.7.5.1.1.2)."""
    start, limit = (_sample(value(dataset, k), module) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if start is None:
        return None
    first, last = sorted((start, start if limit is None else limit))
    values = narrow
    if first < low or last >= low + (1 << found.bits):  # outside BitsStored: only the whole word can tell
        values = _extend(words, found.width) if module.signed else words
    mask = values == first if first == last else (values >= first) & (values <= last)
    return mask if mask.any() else None


def _sample(found: Any, module: PixelModule) -> int | None:
    try:
        number = int(found)
    except (TypeError, ValueError, OverflowError):
        return None
    bits = module.bits_allocated
    number &= (1 << bits) - 1
    return number - (1 << bits) if module.signed and number >> (bits - 1) else number
