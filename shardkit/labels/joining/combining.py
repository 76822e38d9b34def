"""Several rows for one image: of several readers, by a stated vote; of exact duplicates, compared and never mixed.

Values are codes here, equal for equal values and -1 for blank: a matrix of rows by columns, the split its last column.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels.base import SPLIT
from shardkit.labels.lookup import Numbers, grouped
from shardkit.labels.rows import Vote

Codes = npt.NDArray[np.signedinteger[Any]]
"""Of as few bytes as hold the codes: of a few words, one."""
Index = npt.NDArray[np.signedinteger[Any]]
_ORDERS: dict[Vote, dict[int | None, int]] = {
    "any": {1: 3, -1: 2, 0: 1, None: 0},
    "all": {0: 3, -1: 2, None: 1, 1: 0},
}
"""Of two readers' values, that of the higher rank counts."""


@dataclass(frozen=True)
class Coded:
    """Values of all columns as codes.

    Attributes
    ----------
    names : list of str
        The columns, last the split.
    values : list of pyarrow.Array
        For each column the value of each code.
    codes : numpy.ndarray
        Shape (rows, columns).
    """

    names: list[str]
    values: list[pa.Array]
    codes: Codes

    @classmethod
    def of(cls, table: pa.Table, split: pa.Array | None, rows: int) -> "Coded":
        """Code a table of labels and a split, of so many rows."""
        columns = [table[name].combine_chunks() for name in table.column_names]
        columns.append(pa.nulls(rows, pa.string()) if split is None else split)
        coded = [_coded(column) for column in columns]
        values, kind = [words for words, _ in coded], np.result_type(*(column.dtype for _, column in coded))
        codes = np.empty((rows, len(columns)), kind, order="F")
        for i in reversed(range(len(columns))):
            codes[:, i] = coded.pop()[1]  # memory need not hold all of them twice
        return cls([*table.column_names, SPLIT], values, codes)

    def column(self, at: int, codes: Codes) -> pa.Array:
        """Return the values of codes of one column."""
        return self.values[at].take(pa.array(np.where(codes < 0, 0, codes), mask=codes < 0))


def _coded(column: pa.Array) -> tuple[pa.Array, Codes]:
    """Return the values of a column, and each row's code in as few bytes as hold them all."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    coded = column.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return coded.dictionary, codes.astype(np.min_scalar_type(-len(coded.dictionary) - 1), copy=False)


@dataclass(frozen=True)
class Conflict:
    """Two files of the same pixels of which a table says different things: the label is left blank.

    Attributes
    ----------
    key : str
        The sample.
    column : str
        The label, or split.
    rows : tuple of int
        Numbers of the two rows of the table.
    """

    key: str
    column: str
    rows: tuple[int, int]


def rows_of(codes: Codes, rows: npt.NDArray[np.integer[Any]]) -> Codes:
    """Return some rows of a matrix, column by column, as it lies in memory."""
    out = np.empty((len(rows), codes.shape[1]), codes.dtype, order="F")
    for column in range(codes.shape[1]):
        out[:, column] = codes[rows, column]
    return out


def starts_of(ordered: Index) -> Index:
    """Return where each run of equal numbers begins."""
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(first)


def _runs(numbers: Numbers, count: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return which numbers below `count` there are; of each where its rows begin and end; and the rows of all."""
    starts, rows = grouped(numbers, count)
    there = np.flatnonzero(starts[1:] > starts[:-1]).astype(np.int32)
    return there, starts[there], starts[there + 1], rows


def voted(
    coded: Coded, rows: Numbers, targets: Numbers, files: int, vote: Vote | None, first_row: int
) -> tuple[Numbers, Codes, Numbers]:
    """Make one row of all that name the same file.

    Parameters
    ----------
    coded : Coded
        The table's values.
    rows, targets : numpy.ndarray
        Pairs of a row of the table and a file that it names, in the order of rows.
    files : int
        How many files there are.
    vote : str or None
        How; None: they must be equal.
    first_row : int
        Number of the first row in messages.

    Returns
    -------
    tuple of numpy.ndarray
        The files, their codes, and the first row of each.

    Raises
    ------
    ArgumentError
        Rows differ, and no vote is stated that says what counts.
    """
    units, starts, ends, order = _runs(targets, files)
    if (order[1:] < order[:-1]).any():
        rows = rows[order]
    leads = rows[starts]
    codes = rows_of(coded.codes, leads)
    several = np.flatnonzero(ends - starts > 1)
    if len(several) and vote != "first":
        inside = np.concatenate([np.arange(starts[i], ends[i]) for i in several])
        group = np.repeat(np.arange(len(several)), (ends - starts)[several])
        for at, name in enumerate(coded.names):
            votes = coded.codes[rows[inside], at]
            differ = votes != codes[several[group], at]
            if not differ.any():
                continue
            if vote is None or (vote in _ORDERS and (at == len(coded.names) - 1 or not _is_binary(coded.values[at]))):
                where = int(np.flatnonzero(differ)[0])
                numbers = (rows[starts[several[group[where]]]] + first_row, rows[inside[where]] + first_row)
                raise ArgumentError(_disagree(name, numbers, vote))
            decided = _majority(votes, group) if vote == "majority" else _ranked(votes, group, coded.values[at], vote)
            codes[several, at] = decided
    return units, codes, leads


def _disagree(column: str, rows: tuple[Any, Any], vote: Vote | None) -> str:
    said = f"rows {rows[0]:,} and {rows[1]:,} are of one image, and differ in {column}: "
    if vote is None:
        return said + "say what counts with --vote majority, any, all or first"
    return said + f"--vote {vote} is for binary labels, so use majority or first, or leave the column out"


def _is_binary(values: pa.Array) -> bool:
    return bool(values.type == pa.int8())


def _majority(votes: Codes, group: Index) -> Codes:
    """Return what more than half of the votes given say, blank where nothing does."""
    out = np.full(int(group[-1]) + 1, -1, np.int32)
    given = votes >= 0
    votes, group = votes[given], group[given]
    if not len(votes):
        return out
    order = np.lexsort((votes, group))
    votes, group = votes[order], group[order]
    starts = starts_of(group)
    counts = np.diff(np.append(starts, len(group)))
    middle = votes[starts + counts // 2]  # a value that more than half have is in the middle
    agree = np.add.reduceat(votes == np.repeat(middle, counts), starts)
    out[group[starts]] = np.where(2 * agree > counts, middle, -1)
    return out


def _ranked(votes: Codes, group: Index, values: pa.Array, vote: Vote) -> Codes:
    order = _ORDERS[vote]
    ranks = np.array([order[value] for value in [*values.to_pylist(), None]], np.int64)  # blank is code -1
    starts = starts_of(group)
    highest = np.maximum.reduceat(ranks[votes], starts)
    code_of = np.full(4, -1, np.int32)
    code_of[ranks[:-1]] = np.arange(len(ranks) - 1)
    return code_of[highest]


def kept(
    units: Numbers, codes: Codes, rows: Numbers, sample: Numbers, own: npt.NDArray[np.bool_], samples: int
) -> tuple[Numbers, Codes, Numbers, list[tuple[int, int, int, int]]]:
    """Make one row a sample, of its own file and of exact duplicates of it.

    The own file's row counts, else the first duplicate's. Where both say something and differ, the label is blank.

    Parameters
    ----------
    units, codes, rows : numpy.ndarray
        What `voted` returned.
    sample, own : numpy.ndarray
        Of every file: its sample, and whether that was made from it.
    samples : int
        How many samples there are.

    Returns
    -------
    tuple
        The samples; their codes; the row that the own file of each has, -1 where a duplicate's stands in; conflicts as
        (sample, column, row, row).
    """
    at, starts, ends, order = _runs(sample[units], samples)
    ours = own[units]
    several = np.flatnonzero(ends - starts > 1)
    for i in several:
        members = order[starts[i] : ends[i]]
        order[starts[i] : ends[i]] = members[np.lexsort((rows[members], ~ours[members]))]
    first = order[starts]
    out = rows_of(codes, first)
    conflicts: list[tuple[int, int, int, int]] = []
    for i in several:
        one = first[i]
        for other in order[starts[i] + 1 : ends[i]]:
            differ = (codes[one] >= 0) & (codes[other] >= 0) & (codes[one] != codes[other])
            for column in np.flatnonzero(differ).tolist():
                out[i, column] = -1
                conflicts.append((int(at[i]), column, int(rows[one]), int(rows[other])))
    return at, out, np.where(ours[first], rows[first], -1), conflicts


def parted(codes: Codes, groups: Numbers) -> list[tuple[int, int, int]]:
    """Find groups whose members differ where they must not, as images of one study in its labels.

    Parameters
    ----------
    codes : numpy.ndarray
        A row per member.
    groups : numpy.ndarray
        Its group, -1 for none.

    Returns
    -------
    list of tuple of int
        (column, member, member): the first that differ, for each column that has some.
    """
    _, order = grouped(groups, int(groups.max(initial=-1)) + 1)
    found = []
    for column in range(codes.shape[1]):
        members = order[codes[order, column] >= 0]
        same = groups[members[1:]] == groups[members[:-1]]
        differ = np.flatnonzero(same & (codes[members[1:], column] != codes[members[:-1], column]))
        if len(differ):
            found.append((column, int(members[differ[0]]), int(members[differ[0] + 1])))
    return found
