"""Tables beside images: CSV, TSV and Parquet files, read into columns of trimmed text.

Every cell is text, null where it is empty: what a cell means is the reader's to say. A defect of a table is one
sentence with its row and column. Rows count from 1, the header included; lines without text do not count.
"""

import hashlib
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.errors import ArgumentError
from shardkit.sources import csv_blocks
from shardkit.sources.csv_blocks import FIRST_ROW as FIRST_ROW
from shardkit.sources.csv_blocks import Opened
from shardkit.storage import Store, is_remote, local_path, parquet, shown
from shardkit.storage.growing import Growing, one

PATTERN = re.compile(r"\.(csv|tsv|tab|txt|parquet|pq)(\.gz)?$", re.IGNORECASE)
"""Names that tables have."""


def read_place(place: str | Path, option: str, coded: bool = False) -> tuple[pa.Table, str]:
    """Read the table at a path or url; returns it (see `read`) and the SHA-256 of its file.

    Parameters
    ----------
    place : str or Path
        File, or url of an object in a bucket.
    option : str
        How it was named on the command line.
    coded : bool
        Whether columns of few different texts are to be dictionaries, which take as little as a byte a cell.

    Raises
    ------
    ArgumentError
        Where there is no such table, and as `read`.
    """
    text = str(place)
    if is_remote(text):
        folder, _, name = text.rpartition("/")
        if not Store(folder).exists(name):
            raise ArgumentError(f"{option}: {shown(text)} is not there: name a CSV or Parquet file")
        data = Store(folder).get(name)
        return _table(partial(pa.BufferReader, data), shown(text), coded=coded), hashlib.sha256(data).hexdigest()
    path = local_path(text)
    if not path.is_file():
        raise ArgumentError(f"{option}: {path} is no file: name a CSV or Parquet file")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _table(partial(_file, path), str(path), coded=coded), digest
    except OSError as error:
        raise ArgumentError(f"{option}: {path} cannot be read ({error.strerror}): check its permissions") from None


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    with path.open("rb") as file, pa.PythonFile(file, "r") as stream:
        yield stream


def read(data: bytes, name: str, columns: Sequence[str] | None = None, wanted: Iterable[str] | None = None) -> pa.Table:
    """Read a table into columns of text.

    Parameters
    ----------
    data : bytes
        CSV with commas, semicolons, tabs or bars, or Parquet; CSV maybe packed by gzip.
    name : str
        The file, in messages.
    columns : sequence of str, optional
        Names of the columns of a file without a header.
    wanted : iterable of str, optional
        Columns to read, of those that are there; default all.

    Returns
    -------
    pyarrow.Table
        String columns; null for an empty cell. Columns without a name are left out.

    Raises
    ------
    ArgumentError
        For a table that cannot be read, with its row and column, and the remedy.
    """
    return _table(partial(pa.BufferReader, data), name, columns, wanted)


def _table(
    opened: Opened,
    name: str,
    columns: Sequence[str] | None = None,
    wanted: Iterable[str] | None = None,
    coded: bool = False,
) -> pa.Table:
    """Read the rows, a block at a time, into columns that grow."""
    names, blocks = _blocks(opened, name, columns, None if wanted is None else set(wanted))
    clear = [pa.schema([(called, pa.string()) for called in names]).empty_table()]
    grown = [Growing() for _ in names]
    with closing(blocks):
        for block in blocks:
            columns_ = map(one, block.columns)
            if coded:
                for column, cells in zip(grown, columns_, strict=True):
                    column.add(_trimmed(cells.dictionary_encode() if column.coded else cells))
            else:
                clear.append(pa.table([_trimmed(cells) for cells in columns_], names=names))
    return pa.table([column.array() for column in grown], names=names) if coded else pa.concat_tables(clear)


def _blocks(
    opened: Opened, name: str, columns: Sequence[str] | None, wanted: Set[str] | None
) -> tuple[list[str], Generator[pa.Table, None, None]]:
    """Return the names of a table's columns, and its rows in blocks, as text that is not trimmed."""
    with opened() as stream:
        start = bytes(stream.read(4))
    if not start:
        raise ArgumentError(f"{name} is empty: a table begins with a row of column names")
    if start == b"PAR1":
        return _parquet(opened, name, wanted)
    if start[:2] == b"PK":
        raise ArgumentError(f"{name} is a workbook or a zip file: save it as CSV, or unpack it")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ArgumentError(f"{name} is UTF-16: save it as UTF-8")
    return csv_blocks.blocks(partial(_unpacked, opened) if start[:2] == b"\x1f\x8b" else opened, name, columns, wanted)


@contextmanager
def _unpacked(opened: Opened) -> Iterator[Any]:
    with opened() as packed, pa.CompressedInputStream(packed, "gzip") as stream:
        yield stream


def _parquet(opened: Opened, name: str, wanted: Set[str] | None) -> tuple[list[str], Generator[pa.Table, None, None]]:
    with _legible(name), opened() as stream, pq.ParquetFile(stream) as file:
        schema = file.schema_arrow
    columns = dict[str, str]()
    for column in schema.names:
        if column in columns:
            raise ArgumentError(f"{name} has two columns {column}: rename one")
        if not column.startswith("__index_level_"):  # of pandas
            columns[column] = column.strip()
    _clear(schema.empty_table(), columns, name)
    taken = [called for called in dict.fromkeys(columns.values()) if wanted is None or called in wanted]

    def blocks() -> Generator[pa.Table, None, None]:
        with _legible(name), opened() as stream, pq.ParquetFile(stream) as file:
            for table in parquet.blocks(file, list(columns)):
                yield _clear(table, columns, name).select(taken)

    return taken, blocks()


@contextmanager
def _legible(name: str) -> Iterator[None]:
    try:
        yield
    except ArgumentError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArgumentError(f"{name} is no Parquet file that can be read ({type(error).__name__})") from None


def _clear(table: pa.Table, columns: Mapping[str, str], name: str) -> pa.Table:
    """Return columns as text, under other names."""
    return pa.table({called: _text(one(table[column]), name, column) for column, called in columns.items()})


def _text(values: Any, name: str, column: str) -> pa.Array:
    """Return values as text; whole floating-point numbers without a point: pandas keeps integers with blanks so."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _text(values.dictionary_decode(), name, column)
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
        return pc.replace_substring_regex(values.cast(pa.string()), pattern=r"\.0$", replacement="")
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "1", "0")
    try:
        return values.cast(pa.string())
    except (pa.ArrowException, ValueError):
        raise ArgumentError(f"{name}, column {column} holds {kind}, not text or numbers: save it as text") from None


def _trimmed(cells: pa.Array) -> pa.Array:
    """Return trimmed text, null where nothing is left; of a dictionary, its words."""
    if pa.types.is_dictionary(cells.type):
        return pa.DictionaryArray.from_arrays(cells.indices, _trimmed(cells.dictionary))
    text = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
