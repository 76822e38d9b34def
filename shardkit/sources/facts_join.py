"""Which row of a table is about which file: by whole path, by the end of it, or by a file name that is unique.

Every row ends matched, ambiguous or unmatched, and every file with facts, ambiguous or without. All is arrays: a table
of 10**6 rows takes seconds.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_EXTENSION = rb"(?i)\.(nii\.gz|nii|png|jpe?g|tiff?|dcm|dicom)$"
_UNMATCHED, _MATCHED, _AMBIGUOUS = range(3)
_NONE = -1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """What joined rows to files.

    Attributes
    ----------
    row : ndarray of int64
        For each file, the row that is about it; -1 where none is, or it is not clear which.
    rows, files : dict of str to int
        How many of each were matched, ambiguous and unmatched.
    ambiguous : ndarray of bool
        Whether several rows are about a file, or a row about several.
    """

    row: Ints
    ambiguous: npt.NDArray[np.bool_]
    rows: dict[str, int]
    files: dict[str, int]

    def spread(self, codes: Ints) -> "Match":
        """Return the same for files of which several have one path: `codes` says which path, -1 for a file left out."""
        there = codes >= 0
        if not len(self.row):
            return Match(np.full(len(codes), _NONE), np.zeros(len(codes), bool), self.rows, _counts(codes[there] * 0))
        row, ambiguous = np.where(there, self.row[codes], _NONE), there & self.ambiguous[codes]
        state = np.where(ambiguous, _AMBIGUOUS, np.where(row == _NONE, _UNMATCHED, _MATCHED))
        return Match(row, ambiguous, self.rows, _counts(state[there]))


def match(said: pa.Array, facts: Ints, files: pa.Array, root: str = "") -> Match:
    """Join rows to files.

    Parameters
    ----------
    said : pyarrow.Array of string
        The path that each row has.
    facts : ndarray of int64
        What each row says, as a number: rows of one file with equal numbers agree, and are one.
    files : pyarrow.Array of binary
        The path of each file, no two alike.
    root : str
        The place of the files: rows may have paths that begin with it.
    """
    work = _Work(facts, len(files))
    rows, files = _relative(said, root), files.cast(pa.binary())
    for one, other in ((rows, files), (_without_extension(rows), _without_extension(files))):
        work.link(one, other)
        work.link_ends(one, other)
        work.link_names(one, other)
        if work.finished:
            break
    return work.done()


def _relative(said: pa.Array, root: str) -> pa.Array:
    """Return rows' paths as files have them: below the place, with slashes."""
    paths = pc.replace_substring(said, pattern="\\", replacement="/")
    if root:
        paths = pc.replace_substring_regex(paths, pattern=f"^{re.escape(root.rstrip('/'))}/", replacement="")
    return pc.replace_substring_regex(paths, pattern=r"^(\.?/)+", replacement="").cast(pa.binary())


def _without_extension(paths: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(paths, pattern=_EXTENSION, replacement=b"")


def _name(paths: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(paths, pattern=rb"^.*/", replacement=b"")


def _ends(paths: pa.Array, left: Callable[[], npt.NDArray[np.bool_]]) -> Iterator[pa.Array]:
    """Yield paths without their first folder, first two and so on; null where no folder is, or nothing is `left`."""
    while True:
        deep = pc.fill_null(pc.match_substring(paths, pattern=b"/"), fill_value=False).to_numpy(zero_copy_only=False)
        deep &= left()
        if not deep.any():
            return
        ends = pc.replace_substring_regex(paths, pattern=rb"^[^/]*/", replacement=b"")
        paths = pc.if_else(pa.array(deep), ends, pa.scalar(None, pa.binary()))
        yield paths


class _Work:
    """Rows and files that are not joined yet, and what became of the others."""

    def __init__(self, facts: Ints, files: int) -> None:
        self._facts = facts
        self._row_state, self._file_state = np.zeros(len(facts), np.int8), np.zeros(files, np.int8)
        self._file_row = np.full(files, _NONE)

    @property
    def finished(self) -> bool:
        """Whether no row or no file is left."""
        return bool((self._row_state != _UNMATCHED).all() or (self._file_state != _UNMATCHED).all())

    def link_ends(self, rows: pa.Array, files: pa.Array) -> None:
        """Join where one path is the end of the other, after a slash."""
        for ends in _ends(rows, lambda: self._row_state == _UNMATCHED):
            self.link(ends, files)
        for ends in _ends(files, lambda: self._file_state == _UNMATCHED):
            self.link(rows, ends)

    def link_names(self, rows: pa.Array, files: pa.Array) -> None:
        """Join by name where no other file, and no row with another path, has it."""
        row_names, file_names = _name(rows), _name(files)
        of_rows, of_files = pc.value_counts(_name(pc.unique(rows))), pc.value_counts(file_names)
        once = [names.field("values").filter(pc.equal(names.field("counts"), 1)) for names in (of_rows, of_files)]
        clear = once[0].filter(pc.is_in(once[0], value_set=once[1]))
        blank = pa.scalar(None, pa.binary())
        one = pc.if_else(pc.is_in(row_names, value_set=clear), row_names, blank)
        self.link(one, pc.if_else(pc.is_in(file_names, value_set=clear), file_names, blank))

    def link(self, rows: pa.Array, files: pa.Array) -> None:
        """Join the rows and files that are left, where they have equal keys; null is no key."""
        at, to = self._open(rows, self._row_state), self._open(files, self._file_state)
        if not len(at) or not len(to):
            return
        keys = pa.chunked_array([rows.take(pa.array(at)), files.take(pa.array(to))]).combine_chunks()
        codes = keys.dictionary_encode().indices.to_numpy()
        of_row, of_file = codes[: len(at)].astype(np.int64), codes[len(at) :].astype(np.int64)
        size = int(codes.max()) + 1
        files_of = np.bincount(of_file, minlength=size)
        linked = files_of[of_row] > 0
        at, of_row = at[linked], of_row[linked]
        if not len(at):
            return
        clear = (files_of == 1) & self._agreed(at, of_row, size)
        first_row = np.full(size, _NONE)
        first_row[of_row[::-1]] = at[::-1]
        self._row_state[at] = np.where(clear[of_row], _MATCHED, _AMBIGUOUS)
        met = first_row[of_file] != _NONE
        to, of_file = to[met], of_file[met]
        self._file_state[to] = np.where(clear[of_file], _MATCHED, _AMBIGUOUS)
        self._file_row[to] = np.where(clear[of_file], first_row[of_file], _NONE)

    def _open(self, keys: pa.Array, state: npt.NDArray[np.int8]) -> Ints:
        return np.flatnonzero((state == _UNMATCHED) & keys.is_valid().to_numpy(zero_copy_only=False))

    def _agreed(self, at: Ints, of_row: Ints, size: int) -> npt.NDArray[np.bool_]:
        """Return for each key whether all rows with it say the same."""
        least, most = np.full(size, np.iinfo(np.int64).max), np.full(size, _NONE)
        np.minimum.at(least, of_row, self._facts[at])
        np.maximum.at(most, of_row, self._facts[at])
        return np.asarray(least >= most)

    def done(self) -> Match:
        return Match(
            self._file_row, self._file_state == _AMBIGUOUS, _counts(self._row_state), _counts(self._file_state)
        )


def _counts(state: npt.NDArray[np.integer[Any]]) -> dict[str, int]:
    found = np.bincount(state, minlength=3)
    names = {"matched": _MATCHED, "ambiguous": _AMBIGUOUS, "unmatched": _UNMATCHED}
    return {name: int(found[code]) for name, code in names.items()}


def as_numbers(table: pa.Table) -> Ints:
    """Return a number for each row: equal for rows that say the same."""
    if not table.num_columns or not table.num_rows:
        return np.zeros(table.num_rows, np.int64)
    number = np.zeros(table.num_rows, np.int64)
    for column in table.column_names:
        codes = table[column].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        _, number = np.unique(number * (int(codes.max()) + 1) + codes, return_inverse=True)
    return number.astype(np.int64)
