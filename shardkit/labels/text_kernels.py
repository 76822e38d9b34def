"""Loops over the texts of Arrow arrays, compiled by Numba: a table of distinct texts, and a look-up in it.

A text counts as found where its bytes are equal, whatever its hash, so that no two texts are ever taken for one.
Import this module where it is used: Numba takes a fifth of a second to load, and a first use compiles for some seconds.
"""

import numpy as np
import numpy.typing as npt
from numba import types, uint64

from shardkit.compiling import compiled

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int32]
Slots = npt.NDArray[np.uint64]

_BYTES, _VALID = types.Array(types.uint8, 1, "C", readonly=True), types.Array(types.bool_, 1, "C", readonly=True)
_READ, _NUMBERS = types.Array(types.int32, 1, "C", readonly=True), types.Array(types.int32, 1, "C")
_SLOTS, _AT = types.Array(uint64, 1, "C"), types.int64

_FACTOR, _OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_32, _29, _8 = np.uint64(32), np.uint64(29), np.uint64(8)
_LOW = np.uint64(0xFFFFFFFF)
_NONE = np.uint64(0)


@compiled(_BYTES, _AT, _AT)
def _hashed(data: Bytes, start: int, stop: int) -> np.uint64:
    """Return a hash of some bytes, by steps of eight: multiply, fold, and mix in the length."""
    found = uint64(stop - start) * _OTHER
    at = start
    while at + 8 <= stop:
        word = uint64(data[at])
        for i in range(1, 8):
            word |= uint64(data[at + i]) << uint64(8 * i)
        found = (found ^ word) * _FACTOR
        found ^= found >> _29
        at += 8
    word = _NONE
    while at < stop:
        word = (word << _8) | uint64(data[at])
        at += 1
    found = (found ^ word) * _FACTOR
    found = (found ^ (found >> _32)) * _OTHER
    return np.uint64(found ^ (found >> _29))


@compiled(_BYTES, _AT, _AT, _BYTES, _AT, _AT)
def _equal(data: Bytes, start: int, stop: int, other: Bytes, first: int, last: int) -> bool:
    if stop - start != last - first:
        return False
    for i in range(stop - start):  # noqa: SIM110 - Numba compiles no generator expressions
        if data[start + i] != other[first + i]:
            return False
    return True


@compiled(_READ, _BYTES, _SLOTS, uint64, _BYTES, _AT, _AT)
def _place(
    offsets: Numbers, data: Bytes, slots: Slots, hashed: np.uint64, other: Bytes, start: int, stop: int
) -> np.uint64:
    """Return the slot of a text, or, where it is not there, the empty one that it would take."""
    last = uint64(len(slots) - 1)
    at = hashed & last
    while slots[at] != _NONE:
        row = np.int64(slots[at] & _LOW) - 1
        if slots[at] >> _32 == hashed >> _32 and _equal(other, start, stop, data, offsets[row], offsets[row + 1]):
            break
        at = (at + uint64(1)) & last
    return np.uint64(at)


@compiled(_READ, _BYTES, _VALID, uint64, _SLOTS, _NUMBERS, _NUMBERS)
def number(
    offsets: Numbers, data: Bytes, valid: npt.NDArray[np.bool_], bits: np.uint64, slots: Slots, codes: Numbers,
    first: Numbers,
) -> int:  # fmt: skip
    """Give each distinct text a number, in the order in which they come first.

    Parameters
    ----------
    offsets : ndarray of int32, (texts + 1,)
        Where each text begins in `data`, and where the last ends.
    data : ndarray of uint8
        The texts' bytes.
    valid : ndarray of bool, (texts,)
        False for a text that is null.
    bits : int
        Bits of a hash that count; all, but in tests of what hashes alike.
    slots : ndarray of uint64, (a power of two, more than texts)
        Zeros; takes upper halves of hashes, and a row + 1 below each.
    codes : ndarray of int32, (texts,)
        Takes the number of each text, -1 for null.
    first : ndarray of int32, (texts,)
        Takes the row in which each number comes first.

    Returns
    -------
    int
        How many there are.
    """
    count = 0
    for row in range(len(codes)):
        if not valid[row]:
            codes[row] = -1
            continue
        found = _hashed(data, offsets[row], offsets[row + 1]) & bits
        at = _place(offsets, data, slots, found, data, offsets[row], offsets[row + 1])
        if slots[at] == _NONE:
            slots[at] = (found >> _32 << _32) | uint64(row + 1)
            codes[row] = count
            first[count] = row
            count += 1
        else:
            codes[row] = codes[np.int64(slots[at] & _LOW) - 1]
    return count


@compiled(_READ, _BYTES, uint64, _SLOTS, _READ, _READ, _BYTES, _VALID, _NUMBERS)
def find(
    offsets: Numbers, data: Bytes, bits: np.uint64, slots: Slots, codes: Numbers, wanted_offsets: Numbers,
    wanted: Bytes, valid: npt.NDArray[np.bool_], found_codes: Numbers,
) -> None:  # fmt: skip
    """Look texts up among those that `number` has numbered.

    Parameters
    ----------
    offsets, data, bits, slots, codes
        Of `number`.
    wanted_offsets, wanted, valid
        The texts to look up, as those.
    found_codes : ndarray of int32
        Takes their numbers, -1 for null and for a text that is not there.
    """
    for row in range(len(found_codes)):
        found_codes[row] = -1
        if not valid[row]:
            continue
        start, stop = wanted_offsets[row], wanted_offsets[row + 1]
        at = _place(offsets, data, slots, _hashed(wanted, start, stop) & bits, wanted, start, stop)
        if slots[at] != _NONE:
            found_codes[row] = codes[np.int64(slots[at] & _LOW) - 1]


@compiled(_READ, _NUMBERS, _NUMBERS)
def group(codes: Numbers, starts: Numbers, rows: Numbers) -> None:
    """Sort rows by their numbers, in order within each; -1 belongs to none.

    Parameters
    ----------
    codes : ndarray of int32, (rows,)
        The numbers.
    starts : ndarray of int32, (numbers + 1,)
        Zeros; takes where the rows of each number begin in `rows`, and where the last end.
    rows : ndarray of int32
        Takes the rows.
    """
    for code in codes:
        if code >= 0 and code + 2 < len(starts):
            starts[code + 2] += 1
    for i in range(2, len(starts)):
        starts[i] += starts[i - 1]
    for row in range(len(codes)):
        code = codes[row]
        if code >= 0:
            rows[starts[code + 1]] = row
            starts[code + 1] += 1
