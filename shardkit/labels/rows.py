"""What a table of labels says before it is joined: references in clear text, values, splits, boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.labels.base import KINDS, SPLIT, Level, check_columns

By = Literal["path", "name", "sop", "accession", "study", "patient", "key"]
"""What the references of a table name: a file by its path or by its file name, an image by its SOP Instance UID, all
images of an accession, a study or a patient, or a sample by its key."""
Vote = Literal["majority", "any", "all", "first"]
BOXES = pa.schema(
    [
        ("reference", pa.string()),
        ("label", pa.string()),
        ("top", pa.float64()),
        ("left", pa.float64()),
        ("height", pa.float64()),
        ("width", pa.float64()),
    ]
)
"""Columns of the boxes of a table: pixels of the original file."""


@dataclass(frozen=True)
class LabelRows:
    """What a table says. References are clear text: they are never stored, nor printed.

    Attributes
    ----------
    by : By
        What the references name.
    reference : pyarrow.Array, or sequence of str
        One a row of the table; empty where a row names nothing. Kept as an array.
    values : pyarrow.Table
        A column per label, of as many rows: int8 (1, 0, -1 for uncertain, null for blank), float64 or string. Without
        any, the table says of splits or boxes only.
    level : Level
        What the labels are of: the image, its study or its patient.
    split : pyarrow.Array, or sequence of str or None, optional
        The official split, row by row. Kept as an array, of strings or of codes of them.
    boxes : pyarrow.Table, optional
        Of the columns `BOXES`.
    vote : str, optional
        How several rows for one image, as of several readers, become one: "majority", "any", "all" or "first". Without
        it they must be equal.
    sources : tuple of str
        SHA-256, in hex, of the files that the table came from.
    collection : str, optional
        The collection that it belongs to.
    first_row : int
        Number of the first row in messages: 2 under a header.
    """

    by: By
    reference: pa.Array
    values: pa.Table
    level: Level = "image"
    split: pa.Array | None = None
    boxes: pa.Table | None = None
    vote: Vote | None = None
    sources: tuple[str, ...] = ()
    collection: str | None = None
    first_row: int = 2

    def __post_init__(self) -> None:
        """Check that all parts have as many rows, and columns the types of labels."""
        object.__setattr__(self, "reference", _texts(self.reference).fill_null(""))
        object.__setattr__(self, "split", None if self.split is None else _texts(self.split))
        check_columns(self.values.schema)
        counts = {"values": self.values.num_rows} if self.values.num_columns else {}
        counts |= {"splits": len(self.split)} if self.split is not None else {}
        for what, count in counts.items():
            if count != len(self.reference):
                raise ArgumentError(f"a table of labels has {len(self.reference):,} references, but {count:,} {what}")
        if self.boxes is not None and self.boxes.schema.names != BOXES.names:
            raise ArgumentError(f"boxes have the columns {', '.join(BOXES.names)}")

    @property
    def kinds(self) -> dict[str, str]:
        """Label -> its kind."""
        return {field.name: KINDS[field.type] for field in self.values.schema if field.name != SPLIT}


def _texts(values: pa.Array | Sequence[str | None]) -> pa.Array:
    """Return texts as an array: as objects of Python ten million take a gigabyte more."""
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())
