"""What becomes of a table's rows: matched, ambiguous or unmatched, and which files the matched ones name."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.labels.joining.matching import Matches, is_empty
from shardkit.labels.lookup import Numbers, spans
from shardkit.labels.rows import By
from shardkit.labels.targets import Targets

Fates = npt.NDArray[np.int8]
_NO_IMAGES = ("not_dicom", "not_an_image", "not_in_collection", "unknown_format", "apple_double", "empty_file")
"""Reasons of files beside images, which a name that also fits an image does not mean."""
_LISTED = 1000  # rows of a kind that are named
_MATCHED, _AMBIGUOUS, _LOST, _ABSENT = 0, 1, 2, 3


@dataclass(frozen=True)
class Outcome:
    """What became of a table's rows.

    Attributes
    ----------
    rows : dict
        Rows matched, ambiguous and unmatched: their sum is all rows.
    lost : dict
        Of the unmatched: rows of files without a sample, by the reason that the ledger gives; `not in the export` and
        `no reference` for the rest.
    ambiguous_rows, unmatched_rows : tuple of int
        Numbers of such rows, the first thousand.
    duplicates : int
        Matched rows of exact duplicates of the sample that was kept.
    """

    rows: dict[str, int]
    lost: dict[str, int]
    ambiguous_rows: tuple[int, ...]
    unmatched_rows: tuple[int, ...]
    duplicates: int


def fates(matches: Matches, by: By, targets: Targets) -> Fates:
    """Return what becomes of each distinct reference."""
    counts = matches.counts()
    fate = np.where(counts == 0, _ABSENT, _LOST).astype(np.int8)
    fate[_references(matches)[targets.sample[matches.targets] >= 0]] = _MATCHED
    several = np.flatnonzero(counts > 1) if by in ("path", "name", "sop", "key") else ()
    for i in several:
        if _is_ambiguous(matches.targets[matches.starts[i] : matches.starts[i + 1]], by, targets):
            fate[i] = _AMBIGUOUS
    return fate


def _references(matches: Matches) -> Numbers:
    """Return the reference that names each of the targets."""
    counts = matches.counts()
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _is_ambiguous(members: Numbers, by: By, targets: Targets) -> bool:
    """Whether a reference that means one file fits several that are not the same image. All images of a file fit it."""
    files = pc.replace_substring_regex(targets.path.take(pa.array(members)), pattern="#[0-9]+$", replacement="")
    reasons = _reasons(targets, members)
    beside = pc.is_in(reasons, pa.array(_NO_IMAGES)).to_numpy(zero_copy_only=False)
    if by in ("sop", "key"):  # a damaged copy does not make a UID unclear
        beside = targets.sample[members] < 0
    if not beside.all():
        members, files = members[~beside], files.filter(pa.array(~beside))
    samples = np.unique(targets.sample[members])
    return len(files.unique()) > 1 and (len(samples) > 1 or bool(samples[0] < 0))


def _reasons(targets: Targets, members: Numbers) -> pa.Array:
    return targets.reason.take(pa.array(members)).cast(pa.string())


def outcome(
    fate: Fates, which: Numbers, matches: Matches, targets: Targets, references: pa.Array, first_row: int
) -> Outcome:
    """Count rows by what became of their references.

    Parameters
    ----------
    fate : ndarray of int8
        Of each distinct reference.
    which : ndarray of int32
        The reference of each row.
    matches, targets
        What the references name.
    references : pyarrow.Array
        Their texts.
    first_row : int
        Number of the first row in messages.
    """
    of_rows = fate[which]
    unmatched = of_rows >= _LOST
    lost: Counter[str] = Counter()
    rows_of = np.bincount(which, minlength=len(fate))
    absent = np.flatnonzero(fate == _ABSENT)
    empty = is_empty(references.take(pa.array(absent)))
    lost["no reference"] = int(rows_of[absent[empty]].sum())
    lost["not in the export"] = int(rows_of[absent[~empty]].sum())
    first = np.flatnonzero(fate == _LOST)
    reasons = _reasons(targets, matches.targets[matches.starts[first]]).to_pylist()
    for reason, i in zip(reasons, first, strict=True):
        lost[reason] += int(rows_of[i])
    counts = {"matched": of_rows == _MATCHED, "ambiguous": of_rows == _AMBIGUOUS, "unmatched": unmatched}
    own = np.zeros(len(fate), np.bool_)
    own[_references(matches)[targets.own[matches.targets]]] = True
    return Outcome(
        rows={what: int(chosen.sum()) for what, chosen in counts.items()},
        lost={reason: count for reason, count in sorted(lost.items()) if count},
        ambiguous_rows=tuple((np.flatnonzero(counts["ambiguous"])[:_LISTED] + first_row).tolist()),
        unmatched_rows=tuple((np.flatnonzero(unmatched)[:_LISTED] + first_row).tolist()),
        duplicates=int(rows_of[(fate == _MATCHED) & ~own].sum()),
    )


def pairs(which: Numbers, fate: Fates, matches: Matches, targets: Targets) -> tuple[Numbers, Numbers]:
    """Return (row, target) for every file with a sample that a matched row names."""
    counts = np.where(fate == _MATCHED, matches.counts(), 0)[which]
    rows = np.repeat(np.arange(len(which), dtype=np.int32), counts)
    found = matches.targets[spans(matches.starts[which], counts)]
    there = targets.sample[found] >= 0
    return (rows, found) if there.all() else (rows[there], found[there])
