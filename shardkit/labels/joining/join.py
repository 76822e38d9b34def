"""Join a table of labels with a dataset, through the private ledger and the pseudonym key, and write it beside.

Every row of the table ends matched, ambiguous or unmatched. No reference is stored or printed: messages name rows.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.labels import store as labels_store
from shardkit.labels.base import KEY, KINDS, SPLIT, LabelsDescription, LabelTable
from shardkit.labels.joining.box_join import Boxed, join_boxes
from shardkit.labels.joining.combining import Coded, Conflict, kept, parted, voted
from shardkit.labels.joining.matching import Matches, match
from shardkit.labels.joining.replacing import losses, require_replaceable
from shardkit.labels.rows import By, LabelRows
from shardkit.labels.targets import Targets, read_key, read_targets
from shardkit.privacy import Pseudonyms
from shardkit.storage import Store

Index = npt.NDArray[np.int64]
_NO_IMAGES = ("not_dicom", "not_an_image", "not_in_collection", "unknown_format", "apple_double", "empty_file")
"""Reasons of files beside images, which a name that also fits an image does not mean."""
_LISTED = 1000  # rows of a kind that are named
_COLUMNS = ["key", "patient", "study", "height", "width", "halvings"]


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


@dataclass(frozen=True)
class Joined:
    """A join that was written.

    Attributes
    ----------
    labels : LabelTable
        What lies on storage now.
    changed : bool
        Whether it says anything that was not there before.
    outcome : Outcome
        What became of the table's rows.
    samples, unlabelled : int
        Samples with a row in the table, and without.
    conflicts : tuple of Conflict
        Labels left blank, because duplicates of one image contradict each other.
    boxes : Boxed or None
        What became of the boxes.
    losses : str
        What the last version had and this one has not, and labels of another kind; empty where nothing is lost.
    """

    labels: LabelTable
    changed: bool
    outcome: Outcome
    samples: int
    unlabelled: int
    conflicts: tuple[Conflict, ...] = ()
    boxes: Boxed | None = field(default=None, repr=False)
    losses: str = ""


class NoMatch(ArgumentError):
    """No row of a table belongs to the dataset."""


def label(dataset_url: str, name: str, rows: LabelRows, private: Path) -> Joined:
    """Join a table with a dataset, write it as a new version of its labels, and the report page again.

    The same table again changes nothing. Shards and manifest are not touched.

    Parameters
    ----------
    dataset_url : str
        The dataset.
    name : str
        Of the labels.
    rows : LabelRows
        What the table says.
    private : Path
        Folder of the ledger and the pseudonym key.

    Raises
    ------
    ArgumentError
        A name, folder or table cannot be used, or the labels are those of a collection; `NoMatch` where no row
        belongs to a sample. Nothing is written then.
    IntegrityError, StorageError
        The dataset cannot be read or written.
    """
    store = Store(dataset_url)
    labels_store.object_name(name)
    described = contents.description(store)
    before = labels_store.current(store, name)
    require_replaceable(before, rows.collection)
    samples = contents.samples(store, described=described)
    pseudonyms = read_key(private, described)
    made, outcome, conflicts, boxed = joined(name, rows, samples, read_targets(private, samples), pseudonyms)
    if not outcome.rows["matched"]:
        raise NoMatch(_no_match(rows, outcome))
    made = replace(made, description=replace(made.description, dataset=described.digest))
    written, changed = labels_store.write_new(store, made)
    from shardkit.report import dataset_page  # which draws: a build that writes no labels need not load it

    dataset_page.write(store, samples, described)
    count = written.table.num_rows
    gone = losses(before, written) if before is not None and changed else ""
    return Joined(written, changed, outcome, count, samples.num_rows - count, conflicts, boxed, gone)


def joined(
    name: str, rows: LabelRows, samples: pa.Table, targets: Targets, pseudonyms: Pseudonyms
) -> tuple[LabelTable, Outcome, tuple[Conflict, ...], Boxed | None]:
    """Join without writing.

    Parameters
    ----------
    name : str
        Of the labels.
    rows : LabelRows
        What the table says.
    samples : pyarrow.Table
        The manifest's `key`, `patient`, `study`, `height`, `width` and `halvings`.
    targets : Targets
        The ledger's files.
    pseudonyms : Pseudonyms
        Of the dataset.

    Returns
    -------
    tuple of (LabelTable, Outcome, tuple of Conflict, Boxed or None)
        The labels, and what became of the table's rows and boxes.

    Raises
    ------
    ArgumentError
        Rows contradict each other, or the ledger does not tell what they are joined by.
    """
    samples = samples.select(_COLUMNS)
    keys = samples["key"].combine_chunks()
    coded = rows.reference.dictionary_encode()
    matches = match(coded.dictionary, rows.by, targets, keys, pseudonyms)
    which = coded.indices.to_numpy().astype(np.int64)
    fate = _fates(matches, rows.by, targets)
    outcome = _outcome(fate, which, matches, targets, coded.dictionary, rows.first_row)
    pair_rows, pair_targets = _pairs(which, fate, matches, targets)
    values = Coded.of(rows.values, rows.split, len(rows.reference))
    units, codes, leads = voted(values, pair_rows, pair_targets, rows.vote, rows.first_row)
    at, codes, found = kept(units, codes, leads, targets.sample, targets.own)
    groups = _groups(samples, rows, at)
    _require_level(values, codes, groups, _leads_of(at, units, leads, targets), rows)
    listing = [
        Conflict(keys[row].as_py(), values.names[column], (a + rows.first_row, b + rows.first_row))
        for row, column, a, b in found
    ]
    columns = {KEY: keys.take(pa.array(at))}
    columns |= {text: values.column(i, codes[:, i]) for i, text in enumerate(values.names)}
    boxed = None if rows.boxes is None else join_boxes(rows.boxes, rows.by, samples, targets, pseudonyms)
    description = LabelsDescription(
        name=name,
        level=rows.level,
        kinds={f.name: KINDS[f.type] for f in rows.values.schema},
        rows=outcome.rows,
        sources=rows.sources,
        vote=rows.vote,
        collection=rows.collection,
    )
    assert values.names[-1] == SPLIT
    return LabelTable(description, pa.table(columns), boxed and boxed.table), outcome, tuple(listing), boxed


_MATCHED, _AMBIGUOUS, _LOST, _ABSENT = 0, 1, 2, 3


def _fates(matches: Matches, by: By, targets: Targets) -> npt.NDArray[np.int8]:
    """Return what becomes of each distinct reference."""
    counts = matches.counts()
    fate = np.where(counts == 0, _ABSENT, _LOST).astype(np.int8)
    at = np.repeat(np.arange(len(counts)), counts)
    sample = targets.sample[matches.targets]
    fate[at[sample >= 0]] = _MATCHED
    several = np.flatnonzero(counts > 1) if by in ("path", "name", "sop", "key") else ()
    for i in several:
        if _is_ambiguous(matches.targets[matches.starts[i] : matches.starts[i + 1]], by, targets):
            fate[i] = _AMBIGUOUS
    return fate


def _is_ambiguous(members: Index, by: By, targets: Targets) -> bool:
    """Whether a reference that means one file fits several that are not the same image. All images of a file fit it."""
    files = pc.replace_substring_regex(targets.path.take(pa.array(members)), pattern="#[0-9]+$", replacement="")
    beside = pc.is_in(targets.reason.take(pa.array(members)), pa.array(_NO_IMAGES)).to_numpy(zero_copy_only=False)
    if by in ("sop", "key"):  # a damaged copy does not make a UID unclear
        beside = targets.sample[members] < 0
    if not beside.all():
        members, files = members[~beside], files.filter(pa.array(~beside))
    samples = np.unique(targets.sample[members])
    return len(files.unique()) > 1 and (len(samples) > 1 or bool(samples[0] < 0))


def _outcome(
    fate: npt.NDArray[np.int8], which: Index, matches: Matches, targets: Targets, references: pa.Array, first_row: int
) -> Outcome:
    """Count rows by what became of their references."""
    of_rows = fate[which]
    unmatched = of_rows >= _LOST
    lost: Counter[str] = Counter()
    empty = pc.equal(pc.utf8_trim_whitespace(references), "").to_numpy(zero_copy_only=False)
    rows_of = np.bincount(which, minlength=len(fate))
    lost["no reference"] = int(rows_of[(fate == _ABSENT) & empty].sum())
    lost["not in the export"] = int(rows_of[(fate == _ABSENT) & ~empty].sum())
    first = np.flatnonzero(fate == _LOST)
    reasons = targets.reason.take(pa.array(matches.targets[matches.starts[first]])).to_pylist()
    for reason, i in zip(reasons, first, strict=True):
        lost[reason] += int(rows_of[i])
    counts = {"matched": of_rows == _MATCHED, "ambiguous": of_rows == _AMBIGUOUS, "unmatched": unmatched}
    at = np.repeat(np.arange(len(fate)), matches.counts())
    own = np.zeros(len(fate), np.bool_)
    own[at[targets.own[matches.targets]]] = True
    return Outcome(
        rows={what: int(chosen.sum()) for what, chosen in counts.items()},
        lost={reason: count for reason, count in sorted(lost.items()) if count},
        ambiguous_rows=tuple((np.flatnonzero(counts["ambiguous"])[:_LISTED] + first_row).tolist()),
        unmatched_rows=tuple((np.flatnonzero(unmatched)[:_LISTED] + first_row).tolist()),
        duplicates=int(rows_of[(fate == _MATCHED) & ~own].sum()),
    )


def _pairs(which: Index, fate: npt.NDArray[np.int8], matches: Matches, targets: Targets) -> tuple[Index, Index]:
    """Return (row, target) for every file with a sample that a matched row names."""
    counts = np.where(fate == _MATCHED, matches.counts(), 0)[which]
    rows = np.repeat(np.arange(len(which)), counts)
    begins = np.repeat(matches.starts[which] - np.cumsum(counts) + counts, counts)
    found = matches.targets[begins + np.arange(len(rows))]
    there = targets.sample[found] >= 0
    return rows[there], found[there]


def _leads_of(at: Index, units: Index, leads: Index, targets: Targets) -> Index:
    """Return for each sample the table's row that its own file has, -1 where a duplicate's stands in."""
    out = np.full(int(at.max(initial=-1)) + 1, -1, np.int64)
    own = targets.own[units]
    out[targets.sample[units[own]]] = leads[own]
    return out[at]


def _groups(samples: pa.Table, rows: LabelRows, at: Index) -> Index:
    """Return what must have the same labels: each sample's study or patient."""
    if rows.level == "image":
        return np.full(len(at), -1, np.int64)
    column = samples[rows.level].combine_chunks().dictionary_encode()
    groups: Index = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return groups[at]


def _require_level(values: Coded, codes: npt.NDArray[np.int32], groups: Index, leads: Index, rows: LabelRows) -> None:
    """Refuse labels of a study or a patient that differ among its images, but for what duplicates bring in."""
    own = leads >= 0
    for column, a, b in parted(codes[own][:, :-1], groups[own]):
        first, second = sorted((int(leads[own][a]), int(leads[own][b])))
        raise ArgumentError(
            f"rows {first + rows.first_row:,} and {second + rows.first_row:,} are of one {rows.level}, and differ in"
            f" {values.names[column]}: mend them, or say --level image"
        )
    strangers = np.flatnonzero(~own & (groups >= 0))
    if len(strangers):
        known = np.isin(groups[strangers], groups[own])
        codes[strangers[known]] = -1  # a copy's row is another study's: it may not speak for this one
    while differing := parted(codes[strangers][:, :-1], groups[strangers]):
        for column, a, _ in differing:
            codes[strangers[groups[strangers] == groups[strangers[a]]], column] = -1


def _no_match(rows: LabelRows, outcome: Outcome) -> str:
    why = ", ".join(f"{reason} {count:,}" for reason, count in outcome.lost.items())
    ambiguous = f", ambiguous {outcome.rows['ambiguous']:,}" if outcome.rows["ambiguous"] else ""
    return f"none of the table's {len(rows.reference):,} rows belongs to a sample by {rows.by} ({why}{ambiguous})"
