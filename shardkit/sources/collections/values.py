"""From cells of published tables to the values of labels."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.sources.tables import FIRST_ROW

_BINARY = {
    "1": 1, "1.0": 1, "true": 1, "yes": 1, "y": 1,
    "0": 0, "0.0": 0, "false": 0, "no": 0, "n": 0,
    "-1": -1, "-1.0": -1,
}  # fmt: skip


def binary(table: pa.Table, columns: Iterable[str], name: str) -> pa.Table:
    """Return columns of 1, 0, -1 (uncertain) and null (blank).

    Raises
    ------
    ArgumentError
        For another value, with its row and column.
    """
    return pa.table({column: _binary(table[column].combine_chunks(), name, column) for column in columns})


def _binary(cells: pa.Array, name: str, column: str) -> pa.Array:
    coded = cells.dictionary_encode()
    meant = pa.array([_BINARY.get(text.lower()) for text in coded.dictionary.to_pylist()], pa.int8()).take(
        coded.indices
    )
    odd = np.flatnonzero(pc.and_(cells.is_valid(), meant.is_null()).to_numpy(zero_copy_only=False))
    if len(odd):
        raise ArgumentError(
            f"{name}, row {odd[0] + FIRST_ROW:,}, column {column} is none of 1, 0, -1 and blank: mend the table"
        )
    return meant


def several(cells: Sequence[Sequence[str] | None], names: Sequence[str], name: str, column: str) -> pa.Table:
    """Return a binary column for each name, of cells that list those that are present; of None, all blank.

    Raises
    ------
    ArgumentError
        For a name that is not known, with its row.
    """
    at = {label: number for number, label in enumerate(names)}
    values = np.zeros((len(cells), len(names)), np.int8)
    blank = np.array([cell is None for cell in cells], bool)
    for row, cell in enumerate(cells):
        for label in cell or ():
            if label not in at:
                raise ArgumentError(
                    f"{name}, row {row + FIRST_ROW:,}, column {column} names a label that is not known: is it the table"
                    " that was published?"
                )
            values[row, at[label]] = 1
    return pa.table({label: pa.array(values[:, number], pa.int8(), mask=blank) for label, number in at.items()})


def numbers(cells: pa.ChunkedArray | pa.Array, name: str, column: str) -> pa.Array:
    """Return cells as float64.

    Raises
    ------
    ArgumentError
        For a cell that is no number, with its row.
    """
    texts = cells.to_pylist()
    found: list[float | None] = []
    for row, text in enumerate(texts):
        try:
            found.append(None if text is None else float(text))
        except ValueError:
            raise ArgumentError(
                f"{name}, row {row + FIRST_ROW:,}, column {column} is no number: mend the table"
            ) from None
    return pa.array(found, pa.float64())


def mapped(cells: pa.ChunkedArray | pa.Array, words: Mapping[str, str]) -> list[str | None]:
    """Return cells with some words replaced; those that are not among them stay."""
    return [words.get(text, text) if text is not None else None for text in cells.to_pylist()]


def boxes(reference: Sequence[str], label: Sequence[str], numbers: Mapping[str, Sequence[float]]) -> pa.Table:
    """Return a table of boxes, in pixels of the original file.

    Parameters
    ----------
    reference, label : sequence of str
        Whose box it is, and of what.
    numbers : mapping
        `top`, `left`, `height` and `width`.
    """
    sides = {side: pa.array(numbers[side], pa.float64()) for side in ("top", "left", "height", "width")}
    return pa.table({"reference": pa.array(reference, pa.string()), "label": pa.array(label, pa.string()), **sides})
