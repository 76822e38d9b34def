"""The manifest: one row per sample, and the digest that names a dataset.

Columns are plain Parquet types, so that any tool reads them. The digest covers values, not the file's encoding.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.dataset.sample_row import SampleFacts, SampleRow, TextColumns
from shardkit.storage import Store, parquet
from shardkit.storage.spill import Spill

NAME = "manifest.parquet"
ROW_GROUP = 1 << 13
_LARGE = 1 << 25  # rows from which on row groups are larger: what a file says of each of its columns takes memory
_DIGEST_FIELD = b"shardkit.digest"

SAMPLE, SCHEMA = parquet.schema(SampleFacts), parquet.schema(SampleRow)
LATER = tuple(TextColumns.__annotations__)
"""Columns that datasets of earlier versions lack. Where they say nothing of any sample they are no part of the digest,
which is then what it was before there were any."""
_HASHES = "level_hash"
_STORED = pa.list_(pa.binary())
"""Its type in the file: pandas reads no list of binaries of a fixed size. Files of either type are read."""


def digest(samples: pa.Table | Spill) -> str:
    """Return the SHA-256, in hex, of every column's name, type and values in row order, whatever Parquet's encoding.

    See `LATER` for columns that may be left out.
    """
    sha = hashlib.sha256(f"shardkit manifest 1, {samples.num_rows} rows".encode())
    for field in SCHEMA:
        pieces = partial(_pieces, samples.select([field.name]))
        if field.name in LATER and all(piece.null_count == len(piece) for piece in pieces()):
            continue
        sha.update(f"\n{field.name} {field.type} ".encode())
        _feed(sha, field.type, pieces)
    return sha.hexdigest()


def _pieces(column: pa.Table | Spill) -> Iterator[pa.Array]:
    return (batch.column(0) for batch in column.to_batches())


def feed(sha: "hashlib._Hash", array: pa.Array | pa.ChunkedArray) -> None:
    """Update a hash with a column's values and nulls, however they are laid out in memory."""
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    _feed(sha, array.type, lambda: iter(chunks))


def _feed(sha: "hashlib._Hash", kind: pa.DataType, pieces: Callable[[], Iterator[pa.Array]]) -> None:
    """Update a hash with a column that comes in pieces: nulls of all, then sizes of all, then values of all.

    Each of these reads the pieces again, so that memory holds one of them.
    """
    _feed_bits(sha, (pc.is_null(piece).to_numpy(zero_copy_only=False) for piece in pieces()))
    if pa.types.is_list(kind):
        for piece in pieces():
            sizes = pc.list_value_length(piece).fill_null(0).to_numpy(zero_copy_only=False)
            sha.update(sizes.astype("<i4").tobytes())
        _feed(sha, kind.value_type, lambda: (piece.flatten() for piece in pieces()))
    elif pa.types.is_string(kind) or pa.types.is_fixed_size_binary(kind):
        for piece in pieces():
            sha.update(_sizes(piece.drop_null()).tobytes())
        for piece in pieces():
            sha.update(_joined(values := piece.drop_null(), _sizes(values)))
    else:
        for piece in pieces():
            numbers = piece.drop_null().to_numpy(zero_copy_only=False)
            sha.update(np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<")).tobytes())


def _feed_bits(sha: "hashlib._Hash", pieces: Iterator[npt.NDArray[np.bool_]]) -> None:
    """Update a hash with eight bits a byte, across the ends of pieces."""
    left = np.zeros(0, np.bool_)
    for piece in pieces:
        bits = np.concatenate([left, piece])
        whole = len(bits) // 8 * 8
        sha.update(np.packbits(bits[:whole]).tobytes())
        left = bits[whole:]
    sha.update(np.packbits(left).tobytes())


def _sizes(values: pa.Array) -> npt.NDArray[np.int32]:
    return np.asarray(pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<i4"))


def _joined(values: pa.Array, sizes: npt.NDArray[np.int32]) -> memoryview:
    """Return the bytes of strings or binaries without nulls, one after another, as they lie in Arrow's buffer."""
    buffers, first = values.buffers(), values.offset
    if buffers[-1] is None:
        return memoryview(b"")
    if pa.types.is_fixed_size_binary(values.type):
        start = first * values.type.byte_width
    else:
        start = int(np.frombuffer(buffers[1], np.int32, 1, 4 * first)[0]) if len(values) else 0
    return memoryview(buffers[-1])[start : start + int(sizes.sum(dtype=np.int64))]


def write(samples: pa.Table | Spill, store: Store) -> str:
    """Write the manifest, and return its digest, which the file's own metadata name too.

    Pages have checksums and row groups are small, so that a loader can read few columns of few rows and still know
    that they are the dataset's. Rows are read and written a row group at a time.
    """
    samples = samples.cast(SCHEMA) if isinstance(samples, pa.Table) else samples.select(SCHEMA.names)
    name, rows, size = digest(samples), samples.num_rows, row_group(samples.num_rows)
    schema = plain(SCHEMA.empty_table()).schema.with_metadata({_DIGEST_FIELD: name})
    with store.writing(NAME) as file:
        writer = pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
        try:
            for start in range(0, max(1, rows), size):
                part = plain(samples.slice(start, size).cast(SCHEMA)).replace_schema_metadata(schema.metadata)
                writer.write_table(part, row_group_size=size)
            writer.close()
        except BaseException:
            writer.is_open = False  # its destructor would try again, and print
            raise
    return name


def row_group(rows: int) -> int:
    """Return the rows of a row group of a manifest of so many rows."""
    return 2 * ROW_GROUP if rows > _LARGE else ROW_GROUP


def typed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return a stored table with the types of SCHEMA.

    Parameters
    ----------
    table : pyarrow.Table
        What was read of the file.
    names : sequence of str
        The columns that were asked for. Those in `LATER` are null where the file lacks them.

    Raises
    ------
    pyarrow.ArrowInvalid
        A hash has another length.
    """
    return _as(parquet.completed(table, SCHEMA, LATER), SCHEMA.field(_HASHES).type).select(list(names))


def plain(table: pa.Table) -> pa.Table:
    """Return a table of the manifest with the types of its file, all of which pandas reads."""
    return _as(table, _STORED)


def is_stored(name: str, kind: pa.DataType) -> bool:
    """Return whether a column of a manifest file may have a type."""
    return bool(kind == SCHEMA.field(name).type or (name == _HASHES and kind == _STORED))


def _as(table: pa.Table, kind: pa.DataType) -> pa.Table:
    """Return the table with its level hashes in this type."""
    at = table.schema.get_field_index(_HASHES)
    if at < 0 or table.schema.field(at).type == kind:
        return table
    return table.set_column(at, table.schema.field(at).with_type(kind), table[_HASHES].cast(kind))


def opened(source: Any, coded: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a manifest's file, whose pages are held against their checksums; it is a context manager.

    Parameters
    ----------
    source : path or file
        The file.
    coded : sequence of str
        Columns that are read as codes and words.
    """
    return pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=list(coded))


def named_digest(file: pq.ParquetFile) -> str:
    """Return the digest that a manifest file names; empty where it names none."""
    return ((file.schema_arrow.metadata or {}).get(_DIGEST_FIELD) or b"").decode()
