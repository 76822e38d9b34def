"""A labels table as records: what it says of itself, its values by sample key, and arrays by rows of the manifest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset.manifest import feed
from shardkit.errors import ArgumentError
from shardkit.terminal.words import counted

Kind = Literal["binary", "number", "category"]
Level = Literal["image", "study", "patient"]
FORMAT = 1
KEY, SPLIT = "key", "split"
TYPES: dict[Kind, pa.DataType] = {"binary": pa.int8(), "number": pa.float64(), "category": pa.string()}
KINDS: dict[pa.DataType, Kind] = {kind: name for name, kind in TYPES.items()}
BOXES = pa.schema(
    [
        (KEY, pa.string()),
        ("label", pa.string()),
        ("top", pa.float64()),
        ("left", pa.float64()),
        ("height", pa.float64()),
        ("width", pa.float64()),
    ]
)
"""Columns of stored boxes: pixels of the sample's level 0."""


@dataclass(frozen=True, kw_only=True)
class LabelsDescription:
    """What a labels table says of itself.

    Attributes
    ----------
    name : str
        The table's name.
    level : Level
        What the labels are of. Those of a study or a patient are the same on all its images.
    kinds : Mapping
        Label -> "binary" (1, 0, -1 uncertain, null blank), "number" or "category".
    rows : Mapping
        Rows of the source table by outcome: matched, ambiguous, unmatched.
    sources : tuple of str
        SHA-256, in hex, of the files that the table was read from.
    dataset : str
        Digest of the manifest that it was joined with.
    vote : str or None
        How several rows for one image became one.
    replaces : str or None
        Digest of the version that this one took the place of.
    boxes : str or None
        Object that holds the boxes.
    collection : str or None
        The collection that the table belongs to.
    format : int
        Version of the format on storage.
    """

    name: str
    level: Level
    kinds: Mapping[str, Kind]
    rows: Mapping[str, int]
    sources: tuple[str, ...] = ()
    dataset: str = ""
    vote: str | None = None
    replaces: str | None = None
    boxes: str | None = None
    collection: str | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the description as text, always the same for the same description."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class LabelTable:
    """Labels by sample key.

    Attributes
    ----------
    description : LabelsDescription
        What the table says of itself.
    table : pyarrow.Table
        Columns `key` (sorted, each once), one per label, and last `split`: the official one, null where there is none.
    boxes : pyarrow.Table or None
        Of the columns `BOXES`.
    """

    description: LabelsDescription
    table: pa.Table
    boxes: pa.Table | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the description and all values, whatever Parquet's encoding."""
        sha = hashlib.sha256(f"shardkit labels {FORMAT}\n{self.description.to_json()}".encode())
        for table in (self.table, self.boxes):
            if table is not None:
                _digest(sha, table)
        return sha.hexdigest()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self.description.kinds)

    @property
    def about(self) -> str:
        """What the table holds, in words: so many labels, or a split or boxes only."""
        if self.columns:
            return counted(len(self.columns), "label")
        has_split = self.table[SPLIT].null_count < self.table.num_rows
        parts = [*(["an official split"] if has_split else []), *(["boxes"] if self.boxes is not None else [])]
        return f"{' and '.join(parts)} only," if parts else "no labels"

    def aligned(self, keys: pa.Array | pa.ChunkedArray) -> "Labels":
        """Return the labels of samples, row by row.

        Parameters
        ----------
        keys : pyarrow.Array
            Keys of samples, such as those of the manifest.
        """
        own = self.table[KEY].combine_chunks()
        at = pc.index_in(keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys, own)
        values = np.zeros((len(at), len(self.columns)), np.float32)
        known = np.zeros(values.shape, np.bool_)
        categories: dict[str, tuple[str, ...]] = {}
        for i, (name, kind) in enumerate(self.description.kinds.items()):
            column = self.table[name].combine_chunks()
            if kind == "category":
                categories[name] = tuple(sorted(column.unique().drop_null().to_pylist()))
                column = pc.index_in(column, pa.array(categories[name], pa.string()))
            taken = column.take(at)
            known[:, i] = taken.is_valid().to_numpy(zero_copy_only=False)
            values[:, i] = taken.fill_null(0).to_numpy(zero_copy_only=False)
        coded = self.table[SPLIT].combine_chunks().dictionary_encode()  # few words, of which each is held once
        words = np.array([*coded.dictionary.to_pylist(), None], np.object_)
        split = words[coded.indices.take(at).fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]
        has_row = at.is_valid().to_numpy(zero_copy_only=False)
        return Labels(self.columns, values, known, split, self.description.kinds, categories, has_row)

    def replacing(self, before: "LabelTable") -> "LabelTable":
        """Return the table as the version that takes another's place: that one itself where nothing is new."""
        same = replace(self.description, replaces=before.description.replaces)
        if LabelTable(same, self.table, self.boxes).digest == before.digest:
            return before
        return replace(self, description=replace(self.description, replaces=before.digest))


@dataclass(frozen=True)
class Labels:
    """Labels as arrays, a row per sample asked for.

    Attributes
    ----------
    columns : tuple of str
        The labels.
    values : numpy.ndarray
        Shape (rows, columns), float32: 1, 0 or -1; a number; or an index into `categories`. 0 where nothing is known.
    known : numpy.ndarray
        Shape (rows, columns), bool: false where the label is blank, or the sample has no row in the table.
    split : numpy.ndarray
        Shape (rows,), the official split of each row as text, None where there is none.
    kinds : Mapping
        Label -> its kind.
    categories : Mapping
        Label -> its categories, sorted; for labels of that kind.
    has_row : numpy.ndarray
        Shape (rows,), bool: whether the sample has a row in the table, be it of blanks alone.
    """

    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    split: npt.NDArray[np.object_]
    kinds: Mapping[str, Kind]
    categories: Mapping[str, tuple[str, ...]]
    has_row: npt.NDArray[np.bool_]

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """Return one label, NaN where nothing is known: shape (rows,), float32.

        Raises
        ------
        ArgumentError
            There is no such label.
        """
        if name not in self.columns:
            raise ArgumentError(f"there is no label {name!r}: there are {', '.join(self.columns)}")
        at = self.columns.index(name)
        return np.where(self.known[:, at], self.values[:, at], np.float32(np.nan))


def check_columns(schema: pa.Schema) -> None:
    """Check names and types of the columns of labels.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns, without key and split.

    Raises
    ------
    ArgumentError
        A column has another type, a name twice, or the name of one of our own.
    """
    seen = set[str]()
    for field in schema:
        if field.type not in KINDS:
            raise ArgumentError(f"label {field.name!r} is {field.type}, and must be int8, double or string")
        if not field.name or field.name in seen or field.name in (KEY, SPLIT):
            why = "is there twice" if field.name in seen else "is no name for a label: key and split are taken"
            raise ArgumentError(f"column {field.name!r} {why}")
        seen.add(field.name)


def digest(table: pa.Table) -> str:
    """Return the SHA-256, in hex, of a table's names, types and values.

    Parameters
    ----------
    table : pyarrow.Table
        The table, in whatever pieces.
    """
    sha = hashlib.sha256()
    _digest(sha, table)
    return sha.hexdigest()


def _digest(sha: Any, table: pa.Table) -> None:
    for field in table.schema:
        sha.update(f"\n{field.name} {field.type} {table.num_rows} ".encode())
        feed(sha, table[field.name])
