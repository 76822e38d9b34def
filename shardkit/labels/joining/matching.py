"""Which files the references of a table name: by path or file name, by UID, or all of a study or a patient.

References are looked up by distinct text, as arrays. Nothing is guessed: a path fits a file where one is the other's
end, and what fits several files with different images is ambiguous.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels.rows import By
from shardkit.labels.targets import UID_DIGITS, Targets
from shardkit.privacy import Pseudonyms

Index = npt.NDArray[np.int64]
_PART = "#[0-9]+$"  # of a file's frame or slice
_ARCHIVE = r"[^/]+\.(?:zip|tar|tgz|tar\.gz|tar\.bz2|tbz2|tar\.xz|txz)/"
EXTENSION = r"\.(?:nii\.gz|[A-Za-z][A-Za-z0-9]{0,5})$"
_FOLDER = "^[^/]*/"
_DEEPEST = 32


class NotTold(ArgumentError):
    """The ledger does not tell what rows are to be joined by."""

    def __init__(self, by: By) -> None:
        others = "path, name, sop, study or patient" if by == "accession" else "path, name or key"
        self.why = (
            f"--by {by} cannot be used: the ledger tells it of no file, because the files state none, or were built"
            " before it was kept"
        )
        super().__init__(f"{self.why}; use --by {others}, or build again into another --out")


@dataclass(frozen=True)
class Matches:
    """What each distinct reference names: target `targets[starts[i]:starts[i + 1]]` for reference i."""

    starts: Index
    targets: Index

    def counts(self) -> Index:
        """Return how many files each names."""
        return np.diff(self.starts)


class Names:
    """Names of targets, looked up as arrays. Null names belong to none."""

    def __init__(self, names: pa.Array) -> None:
        coded = names.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        self._known = coded.dictionary
        self._order = order[np.searchsorted(codes[order], 0) :]
        self._starts = np.append(0, np.cumsum(np.bincount(codes[codes >= 0], minlength=len(coded.dictionary))))

    def find(self, wanted: pa.Array) -> Index:
        """Return the group of each name, -1 where there is none."""
        found = pc.index_in(wanted, self._known, skip_nulls=True).fill_null(-1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)

    def members(self, groups: Index) -> tuple[Index, Index]:
        """Return how many targets each group has, and those of all, one group after another."""
        counts = np.where(groups < 0, 0, self._starts[groups + 1] - self._starts[groups])
        begins = np.repeat(self._starts[groups] - np.cumsum(counts) + counts, counts)
        return counts, self._order[begins + np.arange(len(begins))]


def match(references: pa.Array, by: By, targets: Targets, keys: pa.Array, name: Pseudonyms) -> Matches:
    """Look up distinct references.

    Parameters
    ----------
    references : pyarrow.Array
        Clear texts, each once; an empty one names nothing.
    by : By
        What they name.
    targets : Targets
        The ledger's files.
    keys : pyarrow.Array
        Keys of the samples.
    name : Pseudonyms
        Of this dataset.

    Raises
    ------
    NotTold
        The ledger does not tell what `by` needs.
    """
    references = pc.utf8_trim_whitespace(references)
    if by in ("path", "name"):
        return _by_path(references, by, targets)
    if by == "key":
        own = pa.array(np.where(targets.own, targets.sample, -1))
        return _once(references, Names(keys.take(pc.if_else(pc.less(own, 0), None, own))))
    column = {"sop": targets.sop, "study": targets.study, "accession": targets.accession, "patient": targets.patient}
    if not column[by].null_count < len(column[by]):
        raise NotTold(by)
    wanted = pseudonyms(references, by, name)
    return _once(pc.utf8_slice_codeunits(wanted, 0, UID_DIGITS) if by == "sop" else wanted, Names(column[by]))


def pseudonyms(references: pa.Array, by: By, name: Pseudonyms) -> pa.Array:
    """Return the pseudonyms of clear references, null for empty ones, as a build makes them."""
    prefix = "id " if by == "patient" else ""
    return pa.array([name(by, prefix + text) if text else None for text in references.to_pylist()], pa.string())


def _once(wanted: pa.Array, names: Names) -> Matches:
    counts, members = names.members(names.find(wanted))
    return Matches(np.append(0, np.cumsum(counts)), members)


def _by_path(references: pa.Array, by: By, targets: Targets) -> Matches:
    """Match what a path ends with: the first way that finds a file counts."""
    pieces: list[tuple[Index, Index, Index]] = []  # references, counts, members
    left = pc.not_equal(references, "").to_numpy(zero_copy_only=False)
    for wanted, known in _ways(references, by, targets):
        at = np.flatnonzero(left)
        names = Names(known)
        groups = names.find(wanted.take(pa.array(at)))
        hit = groups >= 0
        counts, members = names.members(groups[hit])
        pieces.append((at[hit], counts, members % len(targets.path)))
        left[at[hit]] = False
        if not left.any():  # before the next way is made
            break
    return _joined(len(references), pieces)


def _joined(count: int, pieces: list[tuple[Index, Index, Index]]) -> Matches:
    """Put what several ways found into the order of the references."""
    none = np.zeros(0, np.int64)
    at, counts, members = (np.concatenate([none, *(piece[i] for piece in pieces)]) for i in range(3))
    all_counts = np.zeros(count, np.int64)
    all_counts[at] = counts
    order = np.argsort(np.repeat(at, counts), kind="stable")
    return Matches(np.append(0, np.cumsum(all_counts)), members[order])


def _ways(references: pa.Array, by: By, targets: Targets) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Give what is compared with what, in order: (references, names of the targets, maybe twice as many)."""
    if by == "path":  # most tables: the rest is not looked at then
        yield pc.replace_substring(references, "\\", "\\\\"), targets.path
    plain = _replaced(_replaced(references, r"\\", "/"), r"^(?:\./|/)+", "")
    places = _places(targets.path)
    if by == "path":
        yield from ((plain, place) for place in places)
        shorter = plain
        for _ in range(_deepest(plain)):  # the table names folders above the export
            shorter = _below(shorter)
            yield from ((shorter, place) for place in places)
    else:
        plain = _last(plain, 0)
    for depth in range(_deepest(plain) + 1):  # or folders below it, maybe without the extension
        of_depth = _of_depth(plain, depth)
        for place in places:
            ends = _last(place, depth)
            stems = _replaced(ends, EXTENSION, "")
            yield of_depth, pa.concat_arrays([ends, pc.if_else(pc.equal(ends, stems), None, stems)])
    for depth in range(_deepest(plain) + 1):  # or an extension that files here lack
        ends = _last(places[-1], depth)
        bare = pc.if_else(pc.equal(ends, _replaced(ends, EXTENSION, "")), ends, None)
        yield _replaced(_of_depth(plain, depth), EXTENSION, ""), bare


def _places(paths: pa.Array) -> list[pa.Array]:
    """Return what a table may call each file: its path, that of a volume for its slices, and where an archive unpacks.

    The last names every file.
    """
    places = [paths, _replaced(paths, _PART, "")]
    places.append(_replaced(places[-1], _ARCHIVE, ""))
    return [place for i, place in enumerate(places) if not i or not place.equals(places[i - 1])]


def _replaced(texts: pa.Array, pattern: str, by: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=by)


def _deepest(paths: pa.Array) -> int:
    return min(_DEEPEST, pc.max(pc.count_substring(paths, "/")).as_py() or 0)


def _below(paths: pa.Array) -> pa.Array:
    """Return paths without their first folder, null where they have none."""
    return pc.if_else(pc.match_substring(paths, "/"), _replaced(paths, _FOLDER, ""), None)


def _of_depth(paths: pa.Array, depth: int) -> pa.Array:
    """Return the paths below that many folders, null for others."""
    return pc.if_else(pc.equal(pc.count_substring(paths, "/"), depth), paths, None)


def _last(paths: pa.Array, depth: int) -> pa.Array:
    """Return file names with so many folders before them, null where a path has fewer."""
    enough = pc.greater_equal(pc.count_substring(paths, "/"), depth)
    ends = _replaced(paths, f"(?s)^.*/((?:[^/]*/){{{depth}}}[^/]*)$", "\\1")
    return pc.if_else(enough, ends, None)
