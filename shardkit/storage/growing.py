"""Columns of text that come in pieces, as one array each: memory holds them once, and words that come often as codes.

To join the pieces of an Arrow column takes as much memory again as they have; here a buffer grows in its place.
"""

from collections.abc import Iterable, Iterator
from typing import Any

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
        self._data, self._ends, self._null = bytearray(), bytearray(4), bytearray()  # they grow without a copy

    def add(self, piece: pa.Array) -> None:
        """Add an array of strings."""
        if not len(piece):
            return
        _, offsets, data = piece.buffers()
        ends = np.frombuffer(offsets, np.int32)[piece.offset : piece.offset + len(piece) + 1]
        start, stop = int(ends[0]), int(ends[-1])
        if len(self._data) + stop - start > _MOST:
            raise ArgumentError("a column of texts holds more than 2 GiB: take a table of fewer rows, or of parts")
        self._ends += (ends[1:] + np.int32(len(self._data) - start)).tobytes()
        if stop > start:
            self._data += memoryview(data)[start:stop]
        self._null += memoryview(piece.is_null().to_numpy(zero_copy_only=False)).cast("B")

    def array(self) -> pa.Array:
        """Return all of them. None can be added any more."""
        null = np.frombuffer(self._null, np.bool_)
        valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
        buffers = [valid, pa.py_buffer(self._ends), pa.py_buffer(self._data)]
        return pa.Array.from_buffers(pa.string(), len(null), buffers, int(null.sum()))


class Words:
    """Texts, of which few differ: each once, and codes of as few bytes as hold them.

    Attributes
    ----------
    words : dict
        Text -> its code, in the order in which they came first.
    """

    def __init__(self) -> None:
        self.words = dict[str, int]()
        self._codes, self._kind = bytearray(), np.dtype(np.int8)

    def add(self, piece: pa.Array) -> None:
        """Add an array of strings, in clear or coded."""
        coded = piece if pa.types.is_dictionary(piece.type) else piece.dictionary_encode()
        known = self.words
        codes = [-1 if word is None else known.setdefault(word, len(known)) for word in coded.dictionary.to_pylist()]
        at = coded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        if (kind := np.min_scalar_type(-len(known) - 1)) > self._kind:
            self._codes, self._kind = bytearray(self._all().astype(kind)), kind
        self._codes += memoryview(np.array([*codes, -1], self._kind)[at]).cast("B")

    def _all(self) -> npt.NDArray[Any]:
        return np.frombuffer(self._codes, self._kind)

    def array(self) -> pa.DictionaryArray:
        """Return all of them."""
        codes = self._all()
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


def in_clear(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of texts, in clear or coded, as strings."""
    texts = one(column)
    return texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts


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
