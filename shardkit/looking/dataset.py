"""`shardkit.Dataset`: a dataset as one looks at it, by key, row or filter."""

import operator
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset.bins import Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError, RowError
from shardkit.labels import Labels, LabelTable
from shardkit.labels.split_names import Split
from shardkit.looking import choosing
from shardkit.looking.choosing import SEPARATOR, SPLIT, Condition
from shardkit.looking.sample import Sample, Window
from shardkit.looking.showing import show
from shardkit.looking.source import Source
from shardkit.terminal import reprs

Rows = npt.NDArray[np.int64]
_MANY = 12  # pictures of `show`


class Dataset:
    """A finished dataset, or a part of one, to look at: without torch, DALI or a GPU.

    Parameters
    ----------
    url : str
        Its folder, or the url of its bucket or server.

    Raises
    ------
    ArgumentError
        There is no dataset.
    IntegrityError
        It is damaged.
    StorageError
        It cannot be read.

    Examples
    --------
    >>> ds = shardkit.Dataset("shards/")
    >>> ds.table().to_pandas()
    >>> sample = ds[0]
    >>> sample.pixels(level=2), sample.facts, sample.labels
    >>> ds.filter(view="PA", split="train").show()
    """

    def __init__(self, url: str) -> None:
        self._source = Source(str(url))
        self._rows: Rows | None = None  # of the manifest; None for all

    # ------------------------------------------------------------------------------------------- what there is

    @property
    def url(self) -> str:
        """Where the dataset lies."""
        return self._source.store.url

    @property
    def description(self) -> DatasetDescription:
        """What dataset.json says of the whole dataset."""
        return self._source.description

    @property
    def bins(self) -> Bins:
        """The sizes that images are stored in."""
        return self.description.bins

    @property
    def splits(self) -> dict[str, int]:
        """Samples by split, of the patients' hashes."""
        if self._rows is None:
            return dict(self.description.splits)
        found = pc.value_counts(self.table(["split"])["split"]).to_pylist()
        return dict(sorted((item["values"], item["counts"]) for item in found))

    @property
    def keys(self) -> list[str]:
        """Keys of the samples, in order."""
        names: list[str] = self.table(["key"])["key"].to_pylist()
        return names

    @property
    def rows(self) -> Rows:
        """Rows of the manifest, int64: those that a loader's batches name, too."""
        return np.arange(self.description.samples) if self._rows is None else self._rows.copy()

    @property
    def labels_names(self) -> list[str]:
        """Names of the labels tables. A plain web server lists nothing: there, those that were read by name."""
        return self._source.labels_names

    def labels(self, name: str) -> Labels:
        """Return a labels table as arrays, a row for each sample of this dataset.

        Parameters
        ----------
        name : str
            The table's name.
        """
        return self._source.labels(name).aligned(self.table(["key"])["key"])

    def label_table(self, name: str) -> LabelTable:
        """Return a labels table as it is stored: its description, values by key, and boxes."""
        return self._source.labels(name)

    def table(self, columns: list[str] | None = None, split: str | None = None, *, labels: bool = False) -> pa.Table:
        """Return facts of the samples, a row each. `.to_pandas()` makes a DataFrame of it.

        Parameters
        ----------
        columns : list of str, optional
            Columns of the manifest, and of labels tables as "nih14:Effusion"; default: the manifest.
        split : str, optional
            Only samples of this split; "nih14:train" is the official split of a labels table.
        labels : bool
            Add all columns of all labels tables.

        Raises
        ------
        ArgumentError
            There is no such column.
        """
        if split is not None:
            return self.filter(split=split).table(columns, labels=labels)
        table = self._source.wide if labels else self._source.manifest
        table = table if columns is None else self._source.columns(columns)
        return table if self._rows is None else table.take(pa.array(self._rows))

    # ------------------------------------------------------------------------------------------------ samples

    def __len__(self) -> int:
        """How many samples there are."""
        return self.description.samples if self._rows is None else len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        """Yield all samples, in order."""
        return (Sample(self._source, int(row)) for row in self.rows)

    def __contains__(self, key: object) -> bool:
        """Return whether a sample has this key."""
        return isinstance(key, str) and bool(pc.any(pc.equal(self.table(["key"])["key"], key)).as_py())

    @overload
    def __getitem__(self, which: str | SupportsIndex) -> Sample: ...
    @overload
    def __getitem__(self, which: slice) -> "Dataset": ...
    def __getitem__(self, which: "str | SupportsIndex | slice") -> "Sample | Dataset":
        """Return a sample by its key, a unique start of it, or its number here; or a part, for a slice.

        Raises
        ------
        ArgumentError
            No sample, or several, have a key that starts so.
        RowError
            There are fewer samples.
        """
        if isinstance(which, slice):
            return self._part(self.rows[which])
        if isinstance(which, str):
            return Sample(self._source, self._row(which))
        number = operator.index(which)
        if not -len(self) <= number < len(self):
            raise RowError(f"there is no sample {number}: {self.url} has {len(self):,} here")
        return Sample(self._source, int(self.rows[number]))

    def _row(self, key: str) -> int:
        keys = self.table(["key"])["key"].combine_chunks()
        starts = pc.starts_with(keys, key).to_numpy(zero_copy_only=False)
        found: Rows = np.flatnonzero(starts) if key else np.zeros(0, np.int64)
        exact = pc.index(keys, key).as_py()
        if exact < 0 and len(found) != 1:
            count = f"{len(found):,} samples have" if len(found) else "no sample has"
            there = ", ".join(name[:12] for name in keys[:3].to_pylist())
            raise ArgumentError(f"{count} a key that starts with {key!r} in {self.url}: there are {there} and others")
        return int(self.rows[exact if exact >= 0 else found[0]])

    # -------------------------------------------------------------------------------------------------- views

    def where(self, condition: Condition) -> "Dataset":
        """Return the samples for which a condition is true.

        Parameters
        ----------
        condition : pyarrow.compute.Expression or callable
            Over the columns of `table(labels=True)`: such as `pc.field("height") > 2000`, or a function that is given
            each sample's row as a dict, which takes a few seconds for 100,000 samples.
        """
        return self._part(self.rows[choosing.where(self.table(labels=True), condition)])

    def filter(self, conditions: Mapping[str, Any] | None = None, /, **more: Any) -> "Dataset":
        """Return the samples whose columns have these values.

        Parameters
        ----------
        conditions : mapping, optional
            Column -> value, for names that Python does not take: `{"nih14:Effusion": 1}`.
        **more
            The same as keywords: `filter(view="PA", split="train")`. A list means any of its values, None that nothing
            is stated; of `flags` and `repairs`, one must be among them. `split="nih14:train"` is an official split,
            `split="nih14:train/val"` what is held out of it.

        Raises
        ------
        ArgumentError
            There is no such column, or no sample of the dataset has such a word.
        """
        kept = np.ones(len(self), np.bool_)
        for name, value in {**(conditions or {}), **more}.items():
            if name == SPLIT and isinstance(value, str):
                split = Split.read(value)
                choice = split.of(self.labels_names) or split.choices[0]
                name, value = f"{choice.table}{SEPARATOR}{SPLIT}" if choice.table else SPLIT, choice.word
                kept &= choice.of_part(self.table([SPLIT])[SPLIT])
            found = choosing.having(self.table([name])[name], value)
            if not found.any():
                choosing.refuse_unknown(self._source.columns([name])[name], name, value)
            kept &= found
        return self._part(self.rows[kept])

    def _part(self, rows: Rows) -> "Dataset":
        part = object.__new__(Dataset)
        part._source, part._rows = self._source, rows
        return part

    # ----------------------------------------------------------------------------------------------- pictures

    def show(
        self,
        what: "str | SupportsIndex | Dataset | Condition | None" = None,
        *,
        most: int = _MANY,
        side: int | None = None,
        window: Window | None = None,
        boxes: bool = True,
        out: str | Path | None = None,
    ) -> Path | None:
        """Show one sample, or several: in a notebook below the cell, elsewhere as a PNG file.

        Parameters
        ----------
        what : optional
            A key or its start, a number, a condition as `where` takes it, or a part of the dataset; default: all here.
        most : int
            Pictures at most, evenly spaced by key.
        side : int, optional
            Pixels of a picture's longer side; default 768 for one, 224 for several.
        window : tuple of int, optional
            Grey levels that become black and white; default: 0.5th and 99.5th percentile of each image's content.
        boxes : bool
            Draw the boxes of labels tables.
        out : path, optional
            PNG file to write; default: none in a notebook, else the key or "samples", with ".png".

        Returns
        -------
        Path or None
            The file that was written, if any.

        Raises
        ------
        ArgumentError
            There is nothing to show, or no folder for the file.
        """
        part = self[what] if isinstance(what, (str, SupportsIndex)) else self._chosen(what)
        samples = [part] if isinstance(part, Sample) else part.spread(most)
        return show(samples, side, window, boxes, None if out is None else Path(out))

    def spread(self, most: int) -> list[Sample]:
        """Return at most so many samples, evenly spaced by key: keys are hashes, so chance has chosen, once."""
        order = np.argsort(np.array(self.keys, np.str_))
        places = np.linspace(0, max(0, len(self) - 1), max(0, min(most, len(self)))).round().astype(np.int64)
        return [self[int(place)] for place in order[places]]

    def _chosen(self, what: "Dataset | Condition | None") -> "Dataset":
        return self if what is None else what if isinstance(what, Dataset) else self.where(what)

    # -------------------------------------------------------------------------------------------- how it looks

    @cached_property
    def _facts(self) -> reprs.Facts:
        whole = self.description
        samples = f"{len(self):,}" + ("" if self._rows is None else f" of {whole.samples:,}")
        counts = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        facts: reprs.Facts = {"samples": samples, "splits": counts, "format": f"{whole.shard_format}, {whole.codec}"}
        facts |= {"bins": len(self.bins.bins), "labels": ", ".join(self.labels_names) or "none"}
        return facts | {"digest": whole.digest[:12]}

    def __repr__(self) -> str:
        """Return one line of facts."""
        return reprs.line(f"Dataset {self.url}", self._facts)

    def _repr_html_(self) -> str:
        return reprs.table(f"Dataset {self.url}", self._facts)
