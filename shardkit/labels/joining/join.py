"""Join a table of labels with a dataset, through the private ledger and the pseudonym key, and write it beside.

Every row of the table ends matched, ambiguous or unmatched. No reference is stored or printed: messages name rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.labels import store as labels_store
from shardkit.labels.base import KEY, KINDS, SPLIT, LabelsDescription, LabelTable
from shardkit.labels.joining.box_join import Boxed, join_boxes
from shardkit.labels.joining.combining import Coded, Codes, Conflict, kept, parted, voted
from shardkit.labels.joining.fates import Outcome, fates, outcome, pairs
from shardkit.labels.joining.matching import match
from shardkit.labels.joining.replacing import losses, require_replaceable
from shardkit.labels.lookup import Numbers, Texts
from shardkit.labels.rows import LabelRows
from shardkit.labels.targets import Targets, read_key, read_targets
from shardkit.privacy import Pseudonyms
from shardkit.storage import Store, spill
from shardkit.storage.growing import column_pieces, gathered
from shardkit.storage.spill import Spill

_COLUMNS = ["key", "patient", "study", "height", "width", "halvings"]


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
    pseudonyms = read_key(private, described)
    with _manifest(store, described) as samples:
        found = named(rows, samples, read_targets(private, samples, rows.by), pseudonyms)
        if not found.outcome.rows["matched"]:
            raise NoMatch(_no_match(rows, found.outcome))
        made, outcome, conflicts, boxed = assembled(name, rows, samples, found)
        del found
        made = replace(made, description=replace(made.description, dataset=described.digest))
        written, changed = labels_store.write_new(store, made)
        from shardkit.report import dataset_page  # which draws: a build that writes no labels need not load it

        dataset_page.write(store, samples, described)
        unlabelled = samples.num_rows - written.table.num_rows
    gone = losses(before, written) if before is not None and changed else ""
    return Joined(written, changed, outcome, written.table.num_rows, unlabelled, conflicts, boxed, gone)


@contextmanager
def _manifest(store: Store, described: DatasetDescription) -> Iterator[pa.Table | Spill]:
    """Read the manifest; one of many rows waits in the system's folder for temporary files while they are joined."""
    if described.samples <= spill.BLOCK:
        yield contents.samples(store, described=described)
        return
    with TemporaryDirectory(prefix="shardkit-labels-") as place:  # the private one may be read-only, or another's
        yield contents.spilled(store, Path(place) / "samples", described=described)


def joined(
    name: str, rows: LabelRows, samples: pa.Table | Spill, targets: Targets, pseudonyms: Pseudonyms
) -> tuple[LabelTable, Outcome, tuple[Conflict, ...], Boxed | None]:
    """Join without writing.

    Parameters
    ----------
    name : str
        Of the labels.
    rows : LabelRows
        What the table says.
    samples : pyarrow.Table or Spill
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
    return assembled(name, rows, samples, named(rows, samples, targets, pseudonyms))


@dataclass(frozen=True)
class Named:
    """What the rows of a table name.

    Attributes
    ----------
    rows, targets : ndarray of int32
        Pairs of a row and a file with a sample that it names, in the order of rows.
    sample, own : numpy.ndarray
        Of `Targets`.
    outcome : Outcome
        What became of the rows.
    boxes : Boxed or None
        What became of the boxes.
    """

    rows: Numbers
    targets: Numbers
    sample: Numbers
    own: npt.NDArray[np.bool_]
    outcome: Outcome
    boxes: Boxed | None


def named(rows: LabelRows, samples: pa.Table | Spill, targets: Targets, pseudonyms: Pseudonyms) -> Named:
    """Find what rows name. The texts of targets, as much memory as anything here, are not needed any more then.

    Parameters
    ----------
    rows, samples, targets, pseudonyms
        As for `joined`, which raises the same.
    """
    distinct = Texts(rows.reference)
    which, references = distinct.codes, rows.reference
    if len(distinct.first) < len(which):
        references = references.take(pa.array(distinct.first))
    del distinct
    matches = match(references, rows.by, targets, samples, pseudonyms)
    fate = fates(matches, rows.by, targets)
    said = outcome(fate, which, matches, targets, references, rows.first_row)
    boxed = None
    if rows.boxes is not None:
        boxed = join_boxes(rows.boxes, rows.by, samples.select(_COLUMNS), targets, pseudonyms)
    return Named(*pairs(which, fate, matches, targets), targets.sample, targets.own, said, boxed)


def assembled(
    name: str, rows: LabelRows, samples: pa.Table | Spill, found: Named
) -> tuple[LabelTable, Outcome, tuple[Conflict, ...], Boxed | None]:
    """Give samples the values of the rows that name them.

    Parameters
    ----------
    name, rows, samples
        As for `joined`, which returns and raises the same.
    found : Named
        What the rows name.
    """
    values = Coded.of(rows.values, rows.split, len(rows.reference))
    units, codes, leads = voted(values, found.rows, found.targets, len(found.sample), rows.vote, rows.first_row)
    at, codes, leads, conflicts = kept(units, codes, leads, found.sample, found.own, samples.num_rows)
    del units
    if rows.level != "image":
        _require_level(values, codes, _groups(samples, rows.level, at), leads, rows)
    del leads
    keys = gathered(column_pieces(samples, KEY))
    listing = tuple(
        Conflict(keys[row].as_py(), values.names[column], (a + rows.first_row, b + rows.first_row))
        for row, column, a, b in conflicts
    )
    keys, order = _sorted(keys if len(at) == len(keys) else keys.take(pa.array(at)))
    columns = {KEY: keys}
    columns |= {text: values.column(i, codes[order, i]) for i, text in enumerate(values.names)}
    assert values.names[-1] == SPLIT
    description = LabelsDescription(
        name=name,
        level=rows.level,
        kinds={f.name: KINDS[f.type] for f in rows.values.schema},
        rows=found.outcome.rows,
        sources=rows.sources,
        vote=rows.vote,
        collection=rows.collection,
    )
    boxes = None if found.boxes is None else found.boxes.table
    return LabelTable(description, pa.table(columns), boxes), found.outcome, listing, found.boxes


def _sorted(keys: pa.Array) -> tuple[pa.Array, Any]:
    """Return keys in order, and what puts their rows in order: sorted later, memory would hold all columns twice."""
    if len(keys) < 2 or pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        return keys, slice(None)
    order = pc.sort_indices(keys)
    return keys.take(order), order.to_numpy()


def _groups(samples: pa.Table | Spill, level: str, at: Numbers) -> Numbers:
    """Return what must have the same labels: each sample's study or patient, -1 where it has none."""
    return Texts(gathered(column_pieces(samples, level))).codes[at]


def _require_level(values: Coded, codes: Codes, groups: Numbers, leads: Numbers, rows: LabelRows) -> None:
    """Refuse labels of a study or a patient that differ among its images, but for what duplicates bring in."""
    own = leads >= 0
    for column, a, b in parted(codes[:, :-1], np.where(own, groups, -1)):
        first, second = sorted((int(leads[a]), int(leads[b])))
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
