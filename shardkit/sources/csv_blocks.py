"""CSV files as blocks of rows, every cell text: their encoding, delimiter, header, and what is wrong with them."""

import csv
import io
import re
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.csv

from shardkit.errors import ArgumentError

Opened = Callable[[], AbstractContextManager[Any]]
"""Opens a stream of bytes at its start."""
FIRST_ROW = 2
"""Number of the row below the header."""
_HEAD = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")
_UTF8 = "save it as UTF-8, e.g. with `iconv -f latin1 -t utf-8`"


def blocks(
    opened: Opened, name: str, columns: Sequence[str] | None, wanted: Set[str] | None
) -> tuple[list[str], Generator[pa.Table, None, None]]:
    """Return the names of a file's columns, and its rows.

    Parameters
    ----------
    opened : callable
        Opens the file, unpacked, for a ``with`` block.
    name, columns, wanted
        As for `shardkit.sources.tables.read`, which raises the same.
    """
    try:
        with opened() as stream:
            head = bytes(stream.read(_HEAD)).removeprefix(b"\xef\xbb\xbf")
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
    taken = [one for one in names if not one.startswith("\0") and (wanted is None or one in wanted)]
    return taken, _cells(opened, name, names, taken, delimiter, 0 if columns else lines)


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


def _cells(
    opened: Opened, name: str, names: list[str], taken: list[str], delimiter: str, skipped: int
) -> Generator[pa.Table, None, None]:
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
    rows, last = 0, None
    try:
        with opened() as stream, pyarrow.csv.open_csv(stream, **options) as reader:
            for batch in reader:
                rows, last = rows + batch.num_rows, batch.slice(batch.num_rows - 1) if batch.num_rows else last
                yield pa.Table.from_batches([batch]).select(taken)
    except (pa.ArrowException, OSError) as error:
        raise ArgumentError(_defect(name, names, faults, str(error))) from None
    if last is not None:
        _require_closed_quotes(last, rows, name)


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


def _require_closed_quotes(last: pa.RecordBatch, rows: int, name: str) -> None:
    """Refuse a table whose last cell took in what follows an opening quote."""
    for column, (text,) in last.to_pydict().items():
        if text is not None and text.endswith("\n"):  # a quote that is closed ends its cell
            raise ArgumentError(
                f"{name}, row {rows + FIRST_ROW - 1}, column {column.lstrip(chr(0))} opens a quote that is"
                " not closed: close it, or double it if it is part of the text"
            )
