"""Columns of text that come in pieces, as one array each: memory holds them once, and words that come often as codes.

To join the pieces of an Arrow column takes as much memory again as they have; here a buffer grows in its place.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.storage.spill import Spill

MANY = 1 << 12
"""Different words of which a column is kept as codes; of more it is kept as text."""
_MOST = (1 << 31) - 1  # bytes that offsets of an array of strings count


class Strings:
    """Texts, of which most differ."""

    def __init__(self) -> None:
        self._data = bytearray()  # which the system moves without a copy
        self._ends = [np.zeros(1, np.int32)]
        self._null = list[npt.NDArray[np.bool_]]()

    def add(self, piece: pa.Array) -> None:
        """Add an array of strings."""
        if not len(piece):
            return
        _, offsets, data = piece.buffers()
        ends = np.frombuffer(offsets, np.int32)[piece.offset : piece.offset + len(piece) + 1]
        start, stop = int(ends[0]), int(ends[-1])
        if len(self._data) + stop - start > _MOST:
            raise ArgumentError("a column of texts holds more than 2 GiB: take a table of fewer rows, or of parts")
        self._ends.append(ends[1:] + np.int32(len(self._data) - start))
        if stop > start:
            self._data += memoryview(data)[start:stop]
        self._null.append(piece.is_null().to_numpy(zero_copy_only=False))

    def array(self) -> pa.Array:
        """Return all of them. None can be added any more."""
        ends, null = np.concatenate(self._ends), np.concatenate([np.zeros(0, np.bool_), *self._null])
        self._ends, self._null = [], []
        valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
        return pa.Array.from_buffers(
            pa.string(), len(null), [valid, pa.py_buffer(ends), pa.py_buffer(self._data)], int(null.sum())
        )


class Words:
    """Texts, of which few differ: each once, and codes of as few bytes as hold them.

    Attributes
    ----------
    words : dict
        Text -> its code, in the order in which they came first.
    """

    def __init__(self) -> None:
        self.words = dict[str, int]()
        self._codes = list[npt.NDArray[np.int16]]()

    def add(self, piece: pa.Array) -> None:
        """Add an array of strings, in clear or coded."""
        coded = piece if pa.types.is_dictionary(piece.type) else piece.dictionary_encode()
        known = self.words
        codes = [-1 if word is None else known.setdefault(word, len(known)) for word in coded.dictionary.to_pylist()]
        at = coded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        kind = np.min_scalar_type(-len(known) - 1)
        self._codes.append(np.array([*codes, -1], kind)[at])

    def array(self) -> pa.DictionaryArray:
        """Return all of them."""
        codes = np.concatenate([np.zeros(0, np.int8), *self._codes])
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(list(self.words), pa.string()))


class Growing:
    """Texts that are coded as long as few differ."""

    def __init__(self) -> None:
        self._words: Words | None = Words()
        self._strings = Strings()

    @property
    def coded(self) -> bool:
        """Whether they still are."""
        return self._words is not None

    def add(self, piece: pa.Array) -> None:
        """Add an array of strings, in clear or coded."""
        if self._words is not None:
            self._words.add(piece)
            if len(self._words.words) <= MANY:
                return
            piece, self._words = self._words.array(), None
        self._strings.add(piece.dictionary_decode() if pa.types.is_dictionary(piece.type) else piece)

    def array(self) -> pa.Array:
        """Return all of them. None can be added any more."""
        return self._strings.array() if self._words is None else self._words.array()


def one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; `combine_chunks` copies a single piece (seen with 26.0)."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def column_pieces(rows: pa.Table | Spill, name: str) -> Iterator[pa.Array]:
    """Yield a column of a table or a spill, piece by piece."""
    for batch in rows.select([name]).to_batches():
        yield batch.column(0)


def gathered(pieces: Iterable[pa.Array]) -> pa.Array:
    """Return arrays of strings as one."""
    strings = Strings()
    for piece in pieces:
        strings.add(piece)
    return strings.array()
