"""Tables beside images: CSV, TSV and Parquet files, read into columns of trimmed text.

Every cell is text, null where it is empty: what a cell means is the reader's to say. A defect of a table is one
sentence with its row and column. Rows count from 1, the header included; lines without text do not count.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from shardkit.errors import ArgumentError
from shardkit.storage import Store, is_remote, local_path, shown

FIRST_ROW = 2
"""Number of the row below the header."""
PATTERN = re.compile(r"\.(csv|tsv|tab|txt|parquet|pq)(\.gz)?$", re.IGNORECASE)
"""Names that tables have."""
_HEAD = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_UTF8 = "save it as UTF-8, e.g. with `iconv -f latin1 -t utf-8`"


def read_place(place: str | Path, option: str) -> tuple[pa.Table, str]:
    """Read the table at a path or url; returns it (see `read`) and the SHA-256 of its file.

    Parameters
    ----------
    place : str or Path
        File, or url of an object in a bucket.
    option : str
        How it was named on the command line.

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
        return _digested(Store(folder).get(name), shown(text))
    path = local_path(text)
    if not path.is_file():
        raise ArgumentError(f"{option}: {path} is no file: name a CSV or Parquet file")
    try:
        return _digested(path.read_bytes(), str(path))
    except OSError as error:
        raise ArgumentError(f"{option}: {path} cannot be read ({error.strerror}): check its permissions") from None


def _digested(data: bytes, name: str) -> tuple[pa.Table, str]:
    return read(data, name), hashlib.sha256(data).hexdigest()


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
    start = data[:4]
    if not start:
        raise ArgumentError(f"{name} is empty: a table begins with a row of column names")
    if start == b"PAR1":
        table = _parquet(data, name)
        return table if wanted is None else table.select([one for one in table.column_names if one in set(wanted)])
    if start[:2] == b"PK":
        raise ArgumentError(f"{name} is a workbook or a zip file: save it as CSV, or unpack it")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ArgumentError(f"{name} is UTF-16: save it as UTF-8")
    return _csv(data, name, columns, wanted)


def _csv(data: bytes, name: str, columns: Sequence[str] | None, wanted: Iterable[str] | None) -> pa.Table:
    def opened() -> Any:
        stream = pa.BufferReader(data)
        return pa.CompressedInputStream(stream, "gzip") if data[:2] == b"\x1f\x8b" else stream

    try:
        head = bytes(opened().read(_HEAD)).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        raise ArgumentError(f"{name} is damaged: fetch it again") from None
    text = _decoded(head, name)
    delimiter = _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        first = next((row for row in rows if row), [])
        lines = rows.line_num
        second = next((row for row in rows if row), [])
    except csv.Error:
        raise ArgumentError(f"{name}, row 1 is no row of a CSV table: save it as CSV, UTF-8") from None
    names = list(columns) if columns else _header(first, len(second), name)
    taken = [one for one in names if not one.startswith("\0") and (wanted is None or one in set(wanted))]
    return _cells(opened(), name, names, taken, delimiter, 0 if columns else lines)


def _decoded(head: bytes, name: str) -> str:
    """Return the start of a file as text; a character cut at its end is left out."""
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            row = head[: error.start].count(b"\n") + 1
            raise ArgumentError(f"{name}, row {row} holds text that is not UTF-8: {_UTF8}") from None
        return head[: error.start].decode()


def _delimiter(text: str) -> str:
    """Return what parts the columns: the commonest of the usual characters in the first line, outside quotes."""
    line = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return max(_DELIMITERS, key=line.count)


def _header(first: list[str], width: int, name: str) -> list[str]:
    """Return the columns' names; what has none is called by its number, to be left out."""
    names = [text.strip() for text in first]
    while len(names) > width > 0 and not names[-1]:  # published tables end in commas that only their header has
        names.pop()
    if not any(names):
        raise ArgumentError(f"{name}, row 1 names no column: a table begins with a row of column names")
    for at, text in enumerate(names):
        if text and text in names[:at]:
            raise ArgumentError(
                f"{name}, row 1 names two columns {text} ({names.index(text) + 1} and {at + 1}): rename one"
            )
    return [text or f"\0{at}" for at, text in enumerate(names)]


def _cells(stream: Any, name: str, names: list[str], taken: list[str], delimiter: str, skipped: int) -> pa.Table:
    """Read some columns of the rows below a header of `skipped` lines."""
    faults: list[tuple[int, int]] = []

    def bad(row: Any) -> str:
        faults.append((row.number, row.actual_columns))
        return "error"

    options = {
        "read_options": pyarrow.csv.ReadOptions(column_names=names, skip_rows=skipped, use_threads=False),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=bad
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[*taken, *([] if names[-1] in taken else names[-1:])],  # the last shows an open quote
            strings_can_be_null=True,
            null_values=[""],
        ),
    }
    try:
        table = pyarrow.csv.read_csv(stream, **options)
    except (pa.ArrowException, OSError) as error:
        raise ArgumentError(_defect(name, names, faults, str(error))) from None
    _require_closed_quotes(table, name)
    return _trimmed(table.select(taken))


def _defect(name: str, names: list[str], faults: list[tuple[int, int]], said: str) -> str:
    """Say what is wrong with a CSV table without its text: pyarrow quotes the row."""
    if faults:
        number, found = faults[0]
        return (
            f"{name}, row {number} has {found} cells where the header has {len(names)}: quote cells that hold the"
            " character between columns, or mend the row"
        )
    if where := re.search(r"column #(\d+):.*?(?:Row #(\d+): )?CSV conversion error.*UTF8", said, re.DOTALL):
        column = names[int(where[1])].lstrip("\0")
        row = f"row {int(where[2])}, " if where[2] else ""
        return f"{name}, {row}column {column} holds text that is not UTF-8: {_UTF8}"
    if "Empty CSV" in said:
        return f"{name} has no rows below its header: name a table that does"
    return f"{name} is no CSV table that can be read: save it as CSV, UTF-8, or as Parquet"


def _require_closed_quotes(table: pa.Table, name: str) -> None:
    """Refuse a table whose last cell took in what follows an opening quote."""
    for column in table.column_names if table.num_rows else ():
        last = table[column][-1].as_py() or ""
        if last.endswith("\n"):  # a quote that is closed ends its cell
            raise ArgumentError(
                f"{name}, row {table.num_rows + FIRST_ROW - 1}, column {column.lstrip(chr(0))} opens a quote that is"
                " not closed: close it, or double it if it is part of the text"
            )


def _parquet(data: bytes, name: str) -> pa.Table:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as opened:
            table = opened.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArgumentError(f"{name} is no Parquet file that can be read ({type(error).__name__})") from None
    columns = {}
    for column in table.column_names:
        if column in columns:
            raise ArgumentError(f"{name} has two columns {column}: rename one")
        if not column.startswith("__index_level_"):  # of pandas
            columns[column.strip()] = _text(table[column].combine_chunks(), name, column)
    return _trimmed(pa.table(columns))


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


def _trimmed(table: pa.Table) -> pa.Table:
    """Return a table of trimmed text, null where nothing is left."""
    columns = [pc.utf8_trim_whitespace(table[column]) for column in table.column_names]
    blank = pa.scalar(None, pa.string())
    return pa.table([pc.if_else(pc.equal(text, ""), blank, text) for text in columns], names=table.column_names)
