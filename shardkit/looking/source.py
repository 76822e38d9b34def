"""What a dataset and all views of it share: the manifest and the labels, each read when it is first asked for."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from shardkit import labels
from shardkit.dataset import contents, manifest
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.looking.choosing import SEPARATOR
from shardkit.looking.pictures import LabelBox
from shardkit.storage import Store, Unusable

_KEY = "key"


class Source:
    """A dataset on storage.

    Parameters
    ----------
    url : str
        Its folder or bucket.

    Attributes
    ----------
    store : Store
        The place.
    description : DatasetDescription
        What dataset.json says.
    """

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.description: DatasetDescription = contents.description(self.store)
        self._tables: dict[str, labels.LabelTable] = {}
        self._wide: tuple[tuple[str, ...] | None, pa.Table] = (None, None)

    @cached_property
    def manifest(self) -> pa.Table:
        """The manifest, of types that pandas reads, too.

        Its pages have checksums and it names its digest, which takes five times as long to compute: verify does.
        """
        return manifest.plain(contents.samples(self.store, manifest.SCHEMA.names, self.description)).combine_chunks()

    @cached_property
    def _listed(self) -> list[str]:
        try:
            return labels.names(self.store)
        except Unusable:  # a plain web server lists nothing
            return []

    @property
    def labels_names(self) -> list[str]:
        """Names of the labels tables that the store lists, or that were read."""
        return sorted({*self._listed, *self._tables})

    def labels(self, name: str) -> labels.LabelTable:
        """Return a labels table, read once."""
        if name not in self._tables:
            self._tables[name] = labels.read(self.store, name)
        return self._tables[name]

    @property
    def wide(self) -> pa.Table:
        """The manifest with the columns of all labels tables, by row."""
        return self._joined(tuple(self.labels_names))

    def _joined(self, names: tuple[str, ...]) -> pa.Table:
        if self._wide[0] == names:
            return self._wide[1]
        table = self.manifest
        for name in names:
            found = self.labels(name).table
            at = pc.index_in(table[_KEY], found[_KEY].combine_chunks()).combine_chunks()
            for column in found.column_names:
                if column != _KEY:
                    table = table.append_column(f"{name}{SEPARATOR}{column}", found[column].take(at))
        self._wide = (names, table)
        return table

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return columns of the manifest and, with the table's name before them, of labels."""
        table = self.wide if any(SEPARATOR in name for name in names) else self.manifest
        for name in names:
            if name not in table.column_names:
                self.refuse(name)
        return table.select(list(names))

    def refuse(self, name: str) -> NoReturn:
        """Say that there is no such column.

        Raises
        ------
        ArgumentError
            Always.
        """
        near = get_close_matches(name, self.wide.column_names, 3)
        hint = f"there is {', '.join(near)}" if near else "table(labels=True).column_names lists them"
        raise ArgumentError(f"{self.store.url} has no column {name!r}: {hint}")

    def row_labels(self, row: int) -> dict[str, dict[str, Any]]:
        """Return what each labels table says of a row of the manifest."""
        record = self.wide.slice(row, 1).to_pylist()[0]
        found: dict[str, dict[str, Any]] = {name: {} for name in self.labels_names}
        for name, value in record.items():
            table, separator, column = name.partition(SEPARATOR)
            if separator:
                found[table][column] = value
        return found

    def row_boxes(self, key: str) -> list[LabelBox]:
        """Return the boxes that labels tables have for a sample."""
        found = []
        for name in self.labels_names:
            boxes = self.labels(name).boxes
            if boxes is not None:
                rows = boxes.filter(pc.equal(boxes[_KEY], key)).to_pylist()
                found += [
                    LabelBox(name, *(row[n] for n in ("label", "top", "left", "height", "width"))) for row in rows
                ]
        return found
