"""Tables on disk while a program works on them, read a column or a few rows at a time: memory need not hold all.

They are Arrow IPC files in a folder of the caller's, and are of no use to another run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.storage import private

FOLDER = ".spills"
"""Name of a folder of spills."""
BATCH = 1 << 13
"""Rows of a batch of a spill."""
BLOCK = 1 << 15
"""Rows that programs handle at once, where a batch would be too few."""
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class SpillWriter:
    """Writes rows to a spill, whatever the sizes of the tables that they come in.

    Parameters
    ----------
    path : Path
        The file, which only its owner may read; one that is there is replaced.
    schema : pyarrow.Schema
        Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._file = private.create(path)
        self._sink = pa.ipc.new_file(self._file, schema, options=_WRITE)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table.select(self.schema.names).cast(self.schema))
        self._rows += table.num_rows
        if self._rows >= BATCH:
            joined = pa.concat_tables(self._waiting)
            whole = self._rows // BATCH * BATCH
            for start in range(0, whole, BATCH):
                self._put(joined.slice(start, BATCH))
            self._waiting, self._rows = [joined.slice(whole)], self._rows - whole

    def close(self) -> None:
        """Write what is left."""
        if self._rows:
            self._put(pa.concat_tables(self._waiting))
        self._sink.close()
        self._file.close()

    def abandon(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)  # first: to close it writes what is left, which a full disk refuses
        self._file.close()

    def _put(self, table: pa.Table) -> None:
        for batch in table.combine_chunks().to_batches():
            self._sink.write_batch(batch)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a folder for spills that goes with the block; what a killed run left there goes first."""
    shutil.rmtree(path, ignore_errors=True)
    private.folder(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[SpillWriter]:
    """Write a spill; nothing is left of one that is not written to its end."""
    writer = SpillWriter(path, schema)
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


class Spill:
    """Rows on disk. It has what programs use of a `pyarrow.Table`, but reads only what is asked for.

    Parameters
    ----------
    *paths : Path
        What `writing` wrote: other columns of the same rows, of which a later file's count.
    names : sequence of str, optional
        Columns, in this order; default: all.
    """

    def __init__(self, *paths: Path, names: Sequence[str] | None = None) -> None:
        self._paths = paths
        self._of: dict[str, tuple[Path, pa.Field]] = {}
        for path in paths:
            with _opened(path) as file:
                self._of |= {field.name: (path, field) for field in file.schema}
                batches = file.num_record_batches
                last = file.get_batch(batches - 1).num_rows if batches else 0
        self._batches, self.num_rows = batches, max(0, batches - 1) * BATCH + last
        self.column_names = list(self._of) if names is None else list(names)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return pa.schema([self._of[name][1] for name in self.column_names])

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """Read a column."""
        pieces = [batch.column(0) for batch in self.select([name]).to_batches()]
        return pa.chunked_array(pieces, self._of[name][1].type)

    def select(self, names: Sequence[str]) -> Spill:
        """Return some of the columns, which are not read yet."""
        other = object.__new__(Spill)
        other.__dict__ |= self.__dict__ | {"column_names": list(names)}
        return other

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Read the rows of the columns, a batch at a time."""
        return self._read(range(self._batches))

    def slice(self, start: int, length: int) -> pa.Table:
        """Read some rows that lie together."""
        first = start // BATCH
        after = min(self._batches, -(-(start + length) // BATCH))
        table = pa.Table.from_batches(self._read(range(first, after)), self.schema)
        return table.slice(start - first * BATCH, length)

    def take(self, rows: Any) -> pa.Table:
        """Read rows by number, in any order; memory holds those alone."""
        numbers = np.asarray(rows, np.int64)
        wanted = np.unique(numbers)
        batches = wanted // BATCH
        found = [self.schema.empty_table()]
        edges = np.flatnonzero(np.diff(batches, prepend=-1)).tolist()
        parts = np.split(wanted, edges[1:]) if len(wanted) else []
        for part, batch in zip(parts, self._read(batches[edges].tolist()), strict=True):
            found.append(pa.Table.from_batches([batch.take(pa.array(part % BATCH))]))
        return pa.concat_tables(found).combine_chunks().take(pa.array(np.searchsorted(wanted, numbers)))

    def filter(self, mask: Any) -> pa.Table:
        """Read the rows where a mask is true."""
        return self.take(np.flatnonzero(np.asarray(mask)))

    def with_columns(self, path: Path) -> Spill:
        """Return these rows with the columns of another spill of as many rows."""
        return Spill(*self._paths, path, names=self.column_names)

    def _read(self, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for path in dict.fromkeys(self._of[name][0] for name in self.column_names):
                own = [name for name in self.column_names if self._of[name][0] == path]
                file = stack.enter_context(_opened(path, own))
                files |= dict.fromkeys(own, file)
            schema = self.schema
            for number in numbers:
                batches = {id(file): file.get_batch(number) for file in files.values()}
                columns = [batches[id(files[name])].column(name) for name in self.column_names]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def _opened(path: Path, names: Sequence[str] | None = None) -> Iterator[Any]:
    with pa.OSFile(str(path)) as source:
        with pa.ipc.open_file(source) as file:
            schema = file.schema
        fields = [schema.get_field_index(name) for name in schema.names if names is None or name in names]
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        with pa.ipc.open_file(source, options=options) as file:
            yield file


def blocks(rows: pa.Table | Spill, least: int = 0) -> Iterator[pa.Table]:
    """Yield rows a block at a time, of at least so many rows; of a spill, memory holds one block."""
    size = max(BLOCK, least)
    return (rows.slice(start, size) for start in range(0, rows.num_rows, size))


def held(rows: Spill) -> pa.Table | Spill:
    """Return rows that are few in memory, and others as they are: a spill opens its files for every column."""
    return pa.Table.from_batches(rows.to_batches(), rows.schema) if rows.num_rows <= BATCH else rows


def matching(rows: pa.Table | Spill, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows whose value in a column is one of these, in their order.

    Parameters
    ----------
    rows : pyarrow.Table or Spill
        Rows to look through.
    name : str
        The column.
    values : pyarrow.Array
        Values looked for. A search makes a table of them, so each is of no fewer rows than there are values.
    """
    found = [rows.schema.empty_table()]
    if len(values):
        found += [block.filter(pc.is_in(block[name], values)) for block in blocks(rows, len(values))]
    return pa.concat_tables(found).combine_chunks()


class Regrouped:
    """Rows that come in any order, read again group by group. A context manager, which removes its file.

    Parameters
    ----------
    path : Path
        The file.
    schema : pyarrow.Schema
        Columns of the rows.
    groups : int
        How many groups there are.
    """

    def __init__(self, path: Path, schema: pa.Schema, groups: int) -> None:
        self._path, self._schema = path, schema
        self._where: list[list[int]] = [[] for _ in range(groups)]
        self._file = private.create(path)
        self._sink = pa.ipc.new_file(self._file, schema, options=_WRITE)
        self._count = 0

    def __enter__(self) -> Regrouped:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def add(self, table: pa.Table, ends: Sequence[int]) -> None:
        """Add rows that are sorted by group, of which the rows of each group end at `ends`."""
        table = table.select(self._schema.names).cast(self._schema).combine_chunks()
        for group, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            for batch in table.slice(start, end - start).to_batches():
                if batch.num_rows:
                    self._sink.write_batch(batch)
                    self._where[group].append(self._count)
                    self._count += 1

    def groups(self) -> Iterator[pa.Table]:
        """Yield the rows of each group, in the order in which they came."""
        self._sink.close()
        self._file.flush()
        with _opened(self._path) as file:
            for numbers in self._where:
                batches = [file.get_batch(number) for number in numbers]
                yield pa.Table.from_batches(batches, self._schema).combine_chunks()
