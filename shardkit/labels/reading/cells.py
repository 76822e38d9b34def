"""What cells of a table of labels mean: columns of text become 1/0/-1, numbers or categories, lists become columns.

A column's distinct values are looked at once, so that a million rows cost little more than their dictionary.
"""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels.base import TYPES, Kind
from shardkit.storage.growing import one

SEPARATORS = ("|", ";", ",")
_BLANK = {"nan", "na", "n/a", "none", "null", "<na>", "nat"}
_BINARY = {1.0, 0.0, -1.0}
_WORDS = {
    "yes", "no", "y", "n", "true", "false", "t", "f", "positive", "negative", "pos", "neg", "present", "absent",
    "uncertain", "unknown", "u", "normal", "abnormal", "x", "+", "-", "?",
}  # fmt: skip
"""Values that a message may show; others may be about a person."""
_NUMBER = re.compile(r"[+-]?\d(\.\d{0,3})?")
_COMMA = re.compile(r"[+-]?\d+([.,]\d+)?")
_SURE, _SLIPS = 10, 5  # cells that make a column binary, and cells that may be slips
_MOST_COLUMNS = 1000


@dataclass(frozen=True)
class Meaning:
    """Words that stand for 1, 0 and -1, in any case.

    Attributes
    ----------
    positive, negative, uncertain : frozenset of str
        In small letters.
    """

    positive: frozenset[str] = frozenset()
    negative: frozenset[str] = frozenset()
    uncertain: frozenset[str] = frozenset()

    @classmethod
    def of(cls, positive: Sequence[str] = (), negative: Sequence[str] = (), uncertain: Sequence[str] = ()) -> "Meaning":
        """Return the meaning of words as they were typed.

        Raises
        ------
        ArgumentError
            A word has two meanings.
        """
        found = [frozenset(word.strip().lower() for word in words) for words in (positive, negative, uncertain)]
        if twice := sorted((found[0] & found[1]) | (found[0] & found[2]) | (found[1] & found[2])):
            raise ArgumentError(f"{twice[0]!r} is among two of --positive, --negative and --uncertain: name it once")
        return cls(*found)

    def value(self, text: str) -> float | None:
        """Return what a cell says, None where it says nothing that is known."""
        word = text.lower()
        for words, value in ((self.positive, 1.0), (self.negative, 0.0), (self.uncertain, -1.0)):
            if word in words:
                return value
        try:
            return float(text) if "_" not in text else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Column:
    """A column of text, with the distinct values apart.

    Attributes
    ----------
    name, table : str
        The column and its file, in messages.
    values : list of str
        The distinct values.
    at : pyarrow.Array
        Index of each row's value, null where the cell is blank.
    first_row : int
        Number of the first row in messages.
    """

    name: str
    table: str
    values: list[str]
    at: pa.Array = field(repr=False)
    first_row: int = 2

    @classmethod
    def of(cls, name: str, table: str, text: pa.Array | pa.ChunkedArray, first_row: int = 2) -> "Column":
        """Take a column of text, in clear or coded. Words such as NaN and None are blank cells."""
        coded = (one(text) if isinstance(text, pa.ChunkedArray) else text).dictionary_encode()
        words = coded.dictionary.to_pylist()
        blank = [word.lower() in _BLANK for word in words]
        at = coded.indices
        if any(blank):
            at = pc.if_else(pa.array(blank).take(at), pa.scalar(None, at.type), at)
        return cls(name, table, words, at, first_row)

    @cached_property
    def used(self) -> npt.NDArray[np.int64]:
        """Indices of the values that a cell has."""
        return np.flatnonzero(np.bincount(self.at.drop_null().to_numpy(zero_copy_only=False)))

    def row(self, value: int) -> int:
        """Return the number of the first row with a value."""
        return int(pc.index(self.at, pa.scalar(value, self.at.type)).as_py()) + self.first_row

    def where(self, value: int) -> str:
        """Return words for the cell that has a value first."""
        return f"{self.table}, row {self.row(value):,}, column {self.name}"


def shown(text: str) -> str:
    """Return a cell as a message may show it: what may be about a person is not shown."""
    return repr(text) if text.lower() in _WORDS or _NUMBER.fullmatch(text) else "another text or number"


def guess(column: Column, meaning: Meaning) -> Kind:
    """Return what kind of label a column seems to be: binary, else number, else category."""
    values = [meaning.value(column.values[i]) for i in column.used]
    if all(value in _BINARY for value in values):
        return "binary"
    return "number" if all(value is not None and np.isfinite(value) for value in values) else "category"


def stray(column: Column, meaning: Meaning) -> list[int]:
    """Return the values that are text where most cells are numbers; none where most are text."""
    text = [int(i) for i in column.used if (v := meaning.value(column.values[i])) is None or not np.isfinite(v)]
    cells = int(pc.sum(pc.is_in(column.at, pa.array(text, column.at.type))).as_py() or 0) if text else 0
    return text if 2 * cells < len(column.at) - column.at.null_count else []


def require_one_type(column: Column, meaning: Meaning) -> None:
    """Refuse a column of numbers in which a few cells are text: which was meant is not guessed.

    Raises
    ------
    ArgumentError
        Names the first such cell.
    """
    text = stray(column, meaning)
    if text and has_decimal_commas(column):
        raise ArgumentError(
            f"{column.where(text[0])} looks like a number with a decimal comma, among numbers: write 2.5, not 2,5, or"
            f" take all as text with --kind '{column.name}=category'"
        )
    if text:
        raise ArgumentError(
            f"{column.where(text[0])} holds {shown(column.values[text[0]])} among numbers: mend the cell, say what the"
            f" word means with --positive, --negative or --uncertain, or take all as text with"
            f" --kind '{column.name}=category'"
        )


def require_clearly_binary_or_not(column: Column, meaning: Meaning) -> None:
    """Refuse a column of numbers of which all but a few are 1, 0 and -1: one slip would make it another kind.

    Raises
    ------
    ArgumentError
        Names the first cell that is another number.
    """
    others = [int(i) for i in column.used if meaning.value(column.values[i]) not in _BINARY]
    cells = int(pc.sum(pc.is_in(column.at, pa.array(others, column.at.type))).as_py() or 0) if others else 0
    known = len(column.at) - column.at.null_count
    binary = known - cells
    if not cells or binary < max(_SURE, 0.9 * known) or cells > max(_SLIPS, 0.01 * known):
        return
    first = min(others, key=column.row)
    raise ArgumentError(
        f"{column.table}, column {column.name}: {len(column.at) - cells:,} of {len(column.at):,} cells are 0, 1, -1 or"
        f" blank; row {column.row(first):,} holds {shown(column.values[first])}: mend it, or say --kind"
        f" '{column.name}=number'"
    )


def has_decimal_commas(column: Column) -> bool:
    """Whether the cells look like numbers of which some have a comma for the point."""
    texts = [column.values[i] for i in column.used]
    return any("," in text for text in texts) and all(_COMMA.fullmatch(text) for text in texts)


def typed(column: Column, kind: Kind, meaning: Meaning) -> pa.Array:
    """Return a column's values as labels of a kind.

    Raises
    ------
    ArgumentError
        A cell holds what no such label can be.
    """
    used = column.used
    if kind == "category":
        return pa.array(column.values, pa.string()).take(column.at)
    found = np.zeros(len(column.values))
    for i in used:
        text, value = column.values[i], meaning.value(column.values[i])
        if kind == "binary" and value not in _BINARY:
            other = "number" if value is not None else "category"
            raise ArgumentError(
                f"{column.where(i)} holds {shown(text)}, and a binary label is 1, 0, -1 (uncertain) or blank: mend the"
                f" cell, say what a word means with --positive, --negative or --uncertain, or take the column with"
                f" --kind '{column.name}={other}'"
            )
        if value is None or not np.isfinite(value):
            raise ArgumentError(
                f"{column.where(i)} holds {shown(text)}, which is no number: mend the cell, or take the column as text"
                f" with --kind '{column.name}=category'"
            )
        found[i] = value
    return pa.array(found).cast(TYPES[kind]).take(column.at)


def listed(column: Column, separator: str | None, chosen: Sequence[str] | None) -> tuple[pa.Table, str]:
    """Return a column per finding that lists in cells name: 1 where a row's list has it, 0 where it has not.

    Items are compared whole. A blank cell, and a list that holds nothing, says nothing: blank in all columns.

    Parameters
    ----------
    column : Column
        Cells such as "Edema|Effusion", "Edema; Effusion" or "['Edema', ' Effusion']".
    separator : str or None
        What separates the items; None: what the cells suggest.
    chosen : sequence of str or None
        The findings to take; None: all.

    Returns
    -------
    tuple of (pyarrow.Table, str)
        The columns, sorted by name, and what separates the items, in words.

    Raises
    ------
    ArgumentError
        A cell cannot be read as a list, or a finding that was asked for is in none.
    """
    python = separator is None and any(text.startswith("[") for text in column.values)
    parts = separator or _separator(column.values)
    lists: list[list[str]] = [[] for _ in column.values]
    for i in column.used.tolist():
        items = _python_list(column, i) if python else column.values[i].split(parts)
        lists[i] = [item for raw in items if (item := str(raw).strip())]
    there = sorted({item for items in lists for item in items})
    if missing := [name for name in chosen or () if name not in there]:
        close = close_to(missing[0], there)
        remedy = f"did you mean {close}?" if close else f"look at what it lists ({len(there):,} different items)"
        raise ArgumentError(f"{column.table}, column {column.name} never lists {missing[0]!r}: {remedy}")
    names = list(chosen) if chosen else there
    if len(names) > _MOST_COLUMNS:
        raise ArgumentError(
            f"{column.table}, column {column.name} lists {len(names):,} different items: name those to keep with"
            " --labels, or what separates them with --separator"
        )
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(lists), len(names)), np.int8)
    for i, items in enumerate(lists):
        table[i, [place[item] for item in items if item in place]] = 1
    said = pa.array([bool(items) for items in lists], pa.bool_())
    at = pc.if_else(said.take(column.at), column.at, pa.scalar(None, column.at.type))
    columns = [pa.array(table[:, i]).take(at) for i in range(len(names))]
    return pa.table(columns, names=names), "Python lists" if python else f"separated by {parts!r}"


def _python_list(column: Column, at: int) -> list[Any]:
    try:
        found = ast.literal_eval(column.values[at])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ArgumentError(
            f"{column.where(at)} is no Python list as other cells are: mend the cell, or name what separates the items"
            " with --separator"
        )
    return found


def _separator(values: Sequence[str]) -> str:
    counts = Counter({mark: sum(mark in text for text in values) for mark in SEPARATORS})
    return max(SEPARATORS, key=lambda mark: counts[mark])


def close_to(name: str, there: Sequence[str]) -> str:
    """Return what comes nearest to a name, in any case; empty where nothing does."""
    from difflib import get_close_matches

    lower = {found.lower(): found for found in there}
    return " or ".join(lower[match] for match in get_close_matches(name.lower(), lower, 3, 0.6))
