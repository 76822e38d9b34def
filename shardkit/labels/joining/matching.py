"""Which files the references of a table name: by path or file name, by UID, or all of a study or a patient.

References are looked up by distinct text, a block of them at a time. Nothing is guessed: a path fits a file where one
is the other's end, and what fits several files with different images is ambiguous.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels import lookup
from shardkit.labels.lookup import Names, Numbers
from shardkit.labels.rows import By
from shardkit.labels.targets import UID_DIGITS, Targets
from shardkit.privacy import Pseudonyms
from shardkit.storage.growing import column_pieces, gathered
from shardkit.storage.spill import Spill

Index = npt.NDArray[np.int64]
Piece = tuple[Numbers, Numbers, Numbers]
"""References, how many targets each names, and those of all, one reference after another."""
Spelling = Callable[[pa.Array], pa.Array]
"""Makes of references what is looked up."""
_PART = "#[0-9]+$"  # of a file's frame or slice
_ARCHIVE = r"[^/]+\.(?:zip|tar|tgz|tar\.gz|tar\.bz2|tbz2|tar\.xz|txz)/"
EXTENSION = r"\.(?:nii\.gz|[A-Za-z][A-Za-z0-9]{0,5})$"
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
    targets: Numbers

    def counts(self) -> Numbers:
        """Return how many files each names."""
        return np.diff(self.starts).astype(np.int32)


def match(references: pa.Array, by: By, targets: Targets, samples: pa.Table | Spill, name: Pseudonyms) -> Matches:
    """Look up distinct references.

    Parameters
    ----------
    references : pyarrow.Array
        Clear texts, each once; an empty one names nothing.
    by : By
        What they name.
    targets : Targets
        The ledger's files.
    samples : pyarrow.Table or Spill
        The manifest's `key`.
    name : Pseudonyms
        Of this dataset.

    Raises
    ------
    NotTold
        The ledger does not tell what `by` needs.
    """
    if by in ("path", "name"):
        return _by_path(references, by, targets)
    if by == "key":
        own = pa.array(targets.sample, mask=~targets.own)
        return _once(references, pc.utf8_trim_whitespace, Names(gathered(column_pieces(samples, "key")).take(own)))
    column = {"sop": targets.sop, "study": targets.study, "accession": targets.accession, "patient": targets.patient}
    if not column[by].null_count < len(column[by]):
        raise NotTold(by)
    cut = UID_DIGITS if by == "sop" else None

    def hashed(texts: pa.Array) -> pa.Array:
        return pc.utf8_slice_codeunits(pseudonyms(pc.utf8_trim_whitespace(texts), by, name), 0, cut)

    return _once(references, hashed, Names(column[by]))


def pseudonyms(references: pa.Array, by: By, name: Pseudonyms) -> pa.Array:
    """Return the pseudonyms of clear references, null for empty ones, as a build makes them."""
    prefix = "id " if by == "patient" else ""
    return pa.array([name(by, prefix + text) if text else None for text in references.to_pylist()], pa.string())


def _once(references: pa.Array, spelled: Spelling, names: Names) -> Matches:
    every = np.arange(len(references), dtype=np.int32)
    return _joined(len(references), [_found(references, every, spelled, names)])


def _found(references: pa.Array, at: Numbers, spelled: Spelling, names: Names) -> Piece:
    """Look some references up, a block at a time; return those that are found, and what they name."""
    none = np.zeros(0, np.int32)
    pieces = [(none, none, none)]
    for start in range(0, len(at), lookup.BLOCK):
        block = at[start : start + lookup.BLOCK]
        groups = names.find(spelled(references.take(pa.array(block))))
        hit = groups >= 0
        pieces.append((block[hit], *names.members(groups[hit])))
    return _together(pieces)


def _together(pieces: list[Piece]) -> Piece:
    at, counts, members = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
    return at, counts, members


def _joined(count: int, pieces: list[Piece]) -> Matches:
    """Put what several ways found into the order of the references."""
    at, counts, members = pieces[0] if len(pieces) == 1 else _together(pieces)
    starts = np.zeros(count + 1, np.int64)
    starts[at + 1] = counts
    starts = np.cumsum(starts, out=starts)
    if len(pieces) > 1:
        members = members[np.argsort(np.repeat(at, counts), kind="stable")]
    return Matches(starts, members)


def _by_path(references: pa.Array, by: By, targets: Targets) -> Matches:
    """Match what a path ends with: the first way that finds a file counts."""
    pieces: list[Piece] = []
    left = np.flatnonzero(~is_empty(references)).astype(np.int32)
    for spelled, known in _ways(references, by, targets):
        at, counts, members = _found(references, left, spelled, Names(known))
        del known  # before the next way's are made
        pieces.append((at, counts, members % np.int32(len(targets.path))))
        matched = np.zeros(len(references), np.bool_)
        matched[at] = True
        left = left[~matched[left]]
        if not len(left):  # before the next way is made
            break
    return _joined(len(references), pieces)


def is_empty(references: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which references hold nothing but spaces."""
    blocks = (references.slice(start, lookup.BLOCK) for start in range(0, len(references), lookup.BLOCK))
    found = [pc.equal(pc.utf8_trim_whitespace(block), "").to_numpy(zero_copy_only=False) for block in blocks]
    return np.concatenate([np.zeros(0, np.bool_), *found])


def _ways(references: pa.Array, by: By, targets: Targets) -> Iterator[tuple[Spelling, pa.Array]]:
    """Give what is compared with what, in order: (spelling of references, names of targets, maybe twice as many)."""
    if by == "path":  # most tables: the rest is not looked at then
        yield lambda texts: pc.replace_substring(pc.utf8_trim_whitespace(texts), "\\", "\\\\"), targets.path
    plain: Spelling = _plain if by == "path" else lambda texts: _last(_plain(texts), 0)
    places = _places(targets.path)
    deepest = _deepest(references) if by == "path" else 0
    if by == "path":
        for folders in range(deepest + 1):  # the table names folders above the export
            yield from ((partial(_below, folders=folders), place) for place in places)
    for depth in range(deepest + 1):  # or folders below it, maybe without the extension
        for place in places:
            ends = _last(place, depth)
            stems = _replaced(ends, EXTENSION, "")
            both = pa.concat_arrays([ends, pc.if_else(pc.equal(ends, stems), None, stems)])
            del ends, stems
            yield partial(_spelled, plain=plain, depth=depth), both
            del both
    for depth in range(deepest + 1):  # or an extension that files here lack
        ends = _last(places[-1], depth)
        bare = pc.if_else(pc.equal(ends, _replaced(ends, EXTENSION, "")), ends, None)
        yield partial(_bare, plain=plain, depth=depth), bare


def _spelled(references: pa.Array, plain: Spelling, depth: int) -> pa.Array:
    """Return the references with that many folders, null for others."""
    return _of_depth(plain(references), depth)


def _bare(references: pa.Array, plain: Spelling, depth: int) -> pa.Array:
    """Return them without their extension."""
    return _replaced(_spelled(references, plain, depth), EXTENSION, "")


def _places(paths: pa.Array) -> list[pa.Array]:
    """Return what a table may call each file: its path, that of a volume for its slices, and where an archive unpacks.

    The last names every file.
    """
    places = [paths, _replaced(paths, _PART, "")]
    places.append(_replaced(places[-1], _ARCHIVE, ""))
    return [place for i, place in enumerate(places) if not i or not place.equals(places[i - 1])]


def _replaced(texts: pa.Array, pattern: str, by: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=by)


def _plain(references: pa.Array) -> pa.Array:
    """Return references with slashes between their parts, and none before the first."""
    return _replaced(_replaced(pc.utf8_trim_whitespace(references), r"\\", "/"), r"^(?:\./|/)+", "")


def _deepest(references: pa.Array) -> int:
    """Return how many folders a reference names at most."""
    most = 0
    for start in range(0, len(references), lookup.BLOCK):
        block = _plain(references.slice(start, lookup.BLOCK))
        most = max(most, pc.max(pc.count_substring(block, "/")).as_py() or 0)
    return min(_DEEPEST, most)


def _below(references: pa.Array, folders: int) -> pa.Array:
    """Return plain references without their first folders, null where they have fewer."""
    plain = _plain(references)
    if not folders:
        return plain
    enough = pc.greater_equal(pc.count_substring(plain, "/"), folders)
    return pc.if_else(enough, _replaced(plain, f"^(?:[^/]*/){{{folders}}}", ""), None)


def _of_depth(paths: pa.Array, depth: int) -> pa.Array:
    """Return the paths below that many folders, null for others."""
    return pc.if_else(pc.equal(pc.count_substring(paths, "/"), depth), paths, None)


def _last(paths: pa.Array, depth: int) -> pa.Array:
    """Return file names with so many folders before them, null where a path has fewer."""
    enough = pc.greater_equal(pc.count_substring(paths, "/"), depth)
    ends = _replaced(paths, f"(?s)^.*/((?:[^/]*/){{{depth}}}[^/]*)$", "\\1")
    return pc.if_else(enough, ends, None)
