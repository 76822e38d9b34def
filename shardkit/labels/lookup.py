"""Distinct texts of a column, and look-ups among them: exact, and in little more memory than the column itself has.

`dictionary_encode` and `index_in` of Arrow copy the texts that they keep, and hold a table of some fifty bytes a text.
Of many texts the table here refers to the column, with some twenty bytes a row; of few, Arrow's are not worth Numba's
start.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int32]
BLOCK = 1 << 16
"""Texts that are changed and looked up at once: what is made of all of them would take as much memory again."""
_FEW = 1 << 17  # texts for which Numba is not loaded
_BITS = (1 << 64) - 1  # of a hash that count


@dataclass(frozen=True)
class _Buffers:
    """An array of strings as its parts."""

    offsets: Numbers
    data: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, texts: pa.Array) -> "_Buffers":
        assert texts.type == pa.string(), texts.type
        _, offsets, data = texts.buffers()
        count, start = len(texts), texts.offset
        return cls(
            np.frombuffer(offsets, np.int32)[start : start + count + 1] if count else np.zeros(1, np.int32),
            np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8),
            texts.is_valid().to_numpy(zero_copy_only=False) if texts.null_count else np.ones(count, np.bool_),
        )


class Texts:
    """The distinct texts of an array, numbered in the order in which they come first. Nulls have no number.

    Parameters
    ----------
    texts : pyarrow.Array
        Strings, fewer than 2**31. They are referred to, not copied.

    Attributes
    ----------
    codes : ndarray of int32, (texts,)
        The number of each text; -1 for null.
    first : ndarray of int32, (distinct texts,)
        The row in which each comes first.
    """

    def __init__(self, texts: pa.Array) -> None:
        self._known = _Few(texts) if len(texts) <= _FEW else _Many(texts)
        self.codes, self.first = self._known.codes, self._known.first

    def find(self, wanted: pa.Array) -> Numbers:
        """Return the number of each of other texts; -1 for null, and for a text that is not here."""
        return self._known.find(wanted)


class _Few:
    """Of Arrow."""

    def __init__(self, texts: pa.Array) -> None:
        coded = texts.dictionary_encode()
        self._known = coded.dictionary
        self.codes = _codes(coded.indices)
        rows = np.flatnonzero(self.codes >= 0).astype(np.int32)
        self.first = rows[np.unique(self.codes[rows], return_index=True)[1]]

    def find(self, wanted: pa.Array) -> Numbers:
        return _codes(pc.index_in(wanted, self._known, skip_nulls=True))


def _codes(indices: pa.Array) -> Numbers:
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int32)


class _Many:
    """Of Numba."""

    def __init__(self, texts: pa.Array) -> None:
        from shardkit.labels import text_kernels

        self._of, self._bits = _Buffers.of(texts), np.uint64(_BITS)
        count = len(texts)
        self._slots = np.zeros(1 << int(1.5 * count).bit_length(), np.uint64)  # from a third to two thirds are taken
        self.codes, first = np.empty(count, np.int32), np.empty(count, np.int32)
        of = self._of
        found = text_kernels.number(of.offsets, of.data, of.valid, self._bits, self._slots, self.codes, first)
        self.first = first if found == count else first[:found].copy()

    def find(self, wanted: pa.Array) -> Numbers:
        from shardkit.labels import text_kernels

        of, other, found = self._of, _Buffers.of(wanted), np.empty(len(wanted), np.int32)
        text_kernels.find(
            of.offsets, of.data, self._bits, self._slots, self.codes, other.offsets, other.data, other.valid, found
        )
        return found


class Names(Texts):
    """Names of targets, of which several may have one. Null names belong to none."""

    @cached_property
    def _groups(self) -> tuple[Numbers, Numbers]:
        """Where the targets of each name begin, and the targets."""
        return grouped(self.codes, len(self.first))

    def members(self, groups: Numbers) -> tuple[Numbers, Numbers]:
        """Return how many targets each name has, and those of all, one name after another; of -1 none."""
        starts, rows = self._groups
        counts = np.where(groups < 0, 0, starts[groups + 1] - starts[groups])
        return counts, rows[spans(starts[groups], counts)]


def grouped(codes: Numbers, count: int) -> tuple[Numbers, Numbers]:
    """Return where the rows of each number begin, and the rows by number, in order within each; -1 belongs to none."""
    if len(codes) <= _FEW:
        order = np.argsort(codes, kind="stable").astype(np.int32)
        below = np.searchsorted(codes, np.arange(count + 1), sorter=order).astype(np.int32)
        return below - below[0], order[below[0] :]
    from shardkit.labels import text_kernels

    starts, rows = np.zeros(count + 1, np.int32), np.empty(int(np.count_nonzero(codes >= 0)), np.int32)
    text_kernels.group(codes, starts, rows)
    return starts, rows


def spans(begins: npt.NDArray[np.signedinteger[Any]], counts: Numbers) -> npt.NDArray[np.int64]:
    """Return the numbers from each of some begins on, as many as are counted, one span after another."""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.repeat(begins - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)
