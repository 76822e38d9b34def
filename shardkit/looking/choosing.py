"""Which samples are meant: by values of columns, or by a condition."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset.schema import SPLITS
from shardkit.errors import ArgumentError
from shardkit.terminal.words import listed, no_such_split

Mask = npt.NDArray[np.bool_]
Condition: TypeAlias = "pc.Expression | Callable[[dict[str, Any]], object]"
SEPARATOR, SPLIT = ":", "split"
"""What stands between a labels table and its column, as in "nih14:Effusion"; and the column of a split."""
_LISTED = 30  # values that a message names, at most
_ROWS = 1 << 12  # handled as Python objects at once


def where(table: pa.Table, condition: Condition) -> Mask:
    """Return the rows of a table for which a condition is true.

    Parameters
    ----------
    table : pyarrow.Table
        Facts and labels, a row per sample.
    condition : pyarrow.compute.Expression or callable
        Over its columns; a function is given each row as a dict.

    Raises
    ------
    ArgumentError
        The condition fits no column.
    """
    if callable(condition):
        kept = [bool(condition(row)) for batch in table.to_batches(_ROWS) for row in batch.to_pylist()]
        return np.array(kept, np.bool_)
    rows, mask = table.append_column("", pa.array(np.arange(table.num_rows))), np.zeros(table.num_rows, np.bool_)
    try:
        mask[rows.filter(condition)[""].to_numpy()] = True
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise ArgumentError(f"the condition fits no column: {str(error).splitlines()[0][:200]}") from None
    return mask


def refuse_unknown(column: pa.ChunkedArray, name: str, value: Any) -> None:
    """Refuse a word that no row of a column has, with those there are, if they are few.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        The column, of all samples. One of other values than text may have any.
    name : str
        What it is called; official splits of a labels table are "nih14:split".
    value : object
        The value, or several in a list.

    Raises
    ------
    ArgumentError
        No row has any of them.
    """
    if value is None or not pa.types.is_string(column.type):
        return
    asked = [value] if isinstance(value, str) else list(value)
    if not asked or having(column, asked).any() or (name == SPLIT and set(asked) & set(SPLITS)):
        return  # few patients may leave a split empty
    there = sorted(pc.unique(column.drop_null()).to_pylist())
    table, separator, of = name.partition(SEPARATOR)
    if of == SPLIT:
        raise ArgumentError(f"{SPLIT}={table}{separator}{value}: {no_such_split(table, value, there)}")
    near = get_close_matches(str(asked[0]), there, 3) if len(there) > _LISTED else there
    raise ArgumentError(f"no sample has {name}={value!r}" + (f": there is {listed(near)}" if near else ""))


def having(column: pa.ChunkedArray, value: Any) -> Mask:
    """Return the rows of a column that have a value; of a column of lists, those that have it among others.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        The column.
    value : object
        The value; any of several in a list; None where nothing is stated.

    Raises
    ------
    ArgumentError
        The column holds other values.
    """
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        masks = [having(column, one) for one in value]
        return np.logical_or.reduce(masks) if masks else np.zeros(len(column), np.bool_)
    array = column.combine_chunks()
    if value is None:
        return np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False), np.bool_)
    try:
        if not pa.types.is_list(array.type):
            return np.asarray(pc.equal(array, value).fill_null(False).to_numpy(zero_copy_only=False), np.bool_)
        held = pc.equal(array.flatten(), value).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise ArgumentError(f"{value!r} is no value of a column of {array.type}") from None
    found = np.zeros(len(column), np.bool_)
    found[pc.list_parent_indices(array).to_numpy()[held]] = True
    return found
