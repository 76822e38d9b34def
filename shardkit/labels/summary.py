"""What labels say of a dataset: counts by split, what is blank or uncertain, and where a split leaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.errors import ArgumentError
from shardkit.labels.base import KEY, SPLIT, Kind, LabelTable
from shardkit.labels.targets import LEDGER
from shardkit.storage import parquet
from shardkit.storage.spill import Spill
from shardkit.terminal.words import counted

Index = npt.NDArray[np.int64]
MANIFEST = ["key", "patient", "study", "group", "split"]
"""Columns of the manifest that a summary needs."""
_WHAT = {
    "patients": ("patient", "patients"),
    "near-duplicates": ("group of near-duplicates", "groups of near-duplicates"),
    "exact duplicates": ("pair of exact duplicates", "pairs of exact duplicates"),
}


@dataclass(frozen=True)
class ColumnSummary:
    """What one label says.

    Attributes
    ----------
    name, kind : str
        The label.
    counts : Mapping
        Value -> samples that have it, the commonest first; of a binary label 1, 0 and -1 in this order. Empty for
        numbers.
    blank : int
        Samples with a row in the table, and nothing in this column.
    range : tuple of float or None
        Least, median and greatest number.
    by_split : Mapping
        Split of the dataset -> samples with the value 1, or of other kinds with any.
    by_official : Mapping
        The same by the official split.
    """

    name: str
    kind: Kind
    counts: Mapping[str, int]
    blank: int
    range: tuple[float, float, float] | None
    by_split: Mapping[str, int]
    by_official: Mapping[str, int]


@dataclass(frozen=True)
class Leak:
    """What lies on both sides of an official split.

    Attributes
    ----------
    what : str
        "patients", "near-duplicates" or "exact duplicates".
    count : int
        How many patients, groups or pairs are in several.
    example : str
        Key of a sample of one.
    """

    what: str
    count: int
    example: str

    @property
    def words(self) -> str:
        """What the official split does, for the end of a sentence."""
        images = counted(self.count, *_WHAT[self.what])
        return f"puts images of {images} into different splits, such as those of {self.example}"


@dataclass(frozen=True)
class Summary:
    """What a labels table says of a dataset.

    Attributes
    ----------
    table : LabelTable
        The table.
    samples : int
        Samples with a row in it.
    unlabelled : int
        Samples without.
    gone : int
        Rows of keys that the manifest has not.
    stale : bool
        Whether the dataset has changed since the table was joined.
    by_split, by_official : Mapping
        Samples with a row, by split of the dataset, and by official split.
    columns : tuple of ColumnSummary
        The labels.
    leaks : tuple of Leak
        What the official split puts into several splits.
    """

    table: LabelTable
    samples: int
    unlabelled: int
    gone: int
    stale: bool
    by_split: Mapping[str, int]
    by_official: Mapping[str, int]
    columns: tuple[ColumnSummary, ...]
    leaks: tuple[Leak, ...]


def summarise(labels: LabelTable, samples: pa.Table | Spill, digest: str, private: Path | None = None) -> Summary:
    """Count what labels say.

    Parameters
    ----------
    labels : LabelTable
        The table.
    samples : pyarrow.Table
        The columns `MANIFEST` of the manifest.
    digest : str
        Of the manifest.
    private : Path, optional
        Folder of the ledger: then exact duplicates are looked for, too.

    Raises
    ------
    ArgumentError
        There is no ledger in `private`.
    """
    at = pc.index_in(samples["key"].combine_chunks(), labels.table[KEY].combine_chunks())
    rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    here = samples.select(["key", "patient", "group", "split"]).take(pa.array(rows))
    table = labels.table.take(at.drop_null()).combine_chunks()
    splits, official = here["split"].combine_chunks(), table[SPLIT].combine_chunks()
    columns = tuple(
        _column(name, kind, table[name].combine_chunks(), splits, official)
        for name, kind in labels.description.kinds.items()
    )
    return Summary(
        table=labels,
        samples=len(rows),
        unlabelled=samples.num_rows - len(rows),
        gone=labels.table.num_rows - len(rows),
        stale=labels.description.dataset != digest,
        by_split=_counts(splits),
        by_official=_counts(official.drop_null()),
        columns=columns,
        leaks=tuple(_leaks(here, official, private)),
    )


def _counts(values: pa.Array) -> dict[str, int]:
    """Count values, the order of splits as a reader expects it."""
    found = {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist() if row["values"] is not None}
    order = ("train", "val", "test")
    return {k: found[k] for k in sorted(found, key=lambda k: (order.index(k) if k in order else len(order), str(k)))}


def _column(name: str, kind: Kind, values: pa.Array, splits: pa.Array, official: pa.Array) -> ColumnSummary:
    counts: dict[str, int] = {}
    limits = None
    chosen = values.is_valid()
    if kind == "number":
        numbers = values.drop_null().to_numpy()
        limits = (float(numbers.min()), float(np.median(numbers)), float(numbers.max())) if len(numbers) else None
    else:
        found = {row["values"]: row["counts"] for row in pc.value_counts(values.drop_null()).to_pylist()}
        wanted = (1, 0, -1) if kind == "binary" else sorted(found, key=lambda value: (-found[value], value))
        counts = {str(value): found.get(value, 0) for value in wanted}
    if kind == "binary":
        chosen = pc.equal(values, 1).fill_null(False)
    return ColumnSummary(
        name=name,
        kind=kind,
        counts=counts,
        blank=values.null_count,
        range=limits,
        by_split=_counts(splits.filter(chosen)),
        by_official=_counts(official.filter(chosen).drop_null()),
    )


def _leaks(here: pa.Table, official: pa.Array, private: Path | None) -> list[Leak]:
    found = [
        _parted("patients", here["patient"].combine_chunks(), official, here["key"]),
        _parted("near-duplicates", here["group"].combine_chunks(), official, here["key"]),
    ]
    if private is not None:
        found.append(_duplicates(here, official, private))
    return [leak for leak in found if leak is not None]


def _parted(what: str, group: pa.Array, official: pa.Array, keys: pa.ChunkedArray) -> Leak | None:
    """Count groups with samples in several official splits."""
    known = np.flatnonzero(pc.and_(group.is_valid(), official.is_valid()).to_numpy(zero_copy_only=False))
    groups = group.take(pa.array(known)).dictionary_encode().indices.to_numpy()
    split = official.take(pa.array(known)).dictionary_encode().indices.to_numpy()
    pairs, first = np.unique(np.stack([groups, split]), axis=1, return_index=True)
    again = np.flatnonzero(pairs[0][1:] == pairs[0][:-1])
    if not len(again):
        return None
    example = keys[int(known[first[again[0]]])].as_py()
    return Leak(what, len(np.unique(pairs[0][again])), example)


def _duplicates(here: pa.Table, official: pa.Array, private: Path) -> Leak | None:
    """Count exact duplicates of whose patients one has samples in another official split than the sample kept."""
    place = private / LEDGER
    if not place.is_file():
        raise ArgumentError(f"{private} holds no {LEDGER}: name the --private folder of a build that has ended")
    with pq.ParquetFile(place) as file:
        if "patient" not in file.schema_arrow.names:
            return None
    rows = parquet.read(place, ["reason", "key", "patient"])
    rows = rows.filter(pc.equal(rows["reason"], "duplicate_exact"))
    sides: dict[str, set[str]] = {}
    of_key: dict[str, str] = {}
    for key, patient, split in zip(
        here["key"].to_pylist(), here["patient"].to_pylist(), official.to_pylist(), strict=True
    ):
        if split is not None:
            sides.setdefault(patient, set()).add(split)
            of_key[key] = split
    parted = [
        key
        for key, patient in zip(rows["key"].to_pylist(), rows["patient"].to_pylist(), strict=True)
        if key in of_key and sides.get(patient, set()) - {of_key[key]}
    ]
    return Leak("exact duplicates", len(parted), parted[0]) if parted else None
