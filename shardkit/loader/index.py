"""What a loader sees of its data, whether one dataset or a mixture of several: samples by row, and where they lie."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit.dataset.bins import Bins
from shardkit.dataset.manifest import SCHEMA
from shardkit.errors import ArgumentError, RowError
from shardkit.labels import Labels
from shardkit.labels.split_names import Split
from shardkit.loader.graph_input import Normalise
from shardkit.loader.sample_index import Detail
from shardkit.loader.splits import Mask, in_split
from shardkit.loader.stream.cache import Contents
from shardkit.plan.crops import Level
from shardkit.plan.samples import Ints, Samples
from shardkit.storage import Store

if TYPE_CHECKING:
    from shardkit.loader.manifest_index import ManifestIndex

Where = Callable[[pa.Table], npt.ArrayLike]
"""A filter: from a table of some manifest columns to a boolean a row."""


@dataclass(frozen=True, slots=True)
class Member:
    """A dataset among those that an index stands for.

    Attributes
    ----------
    name : str
        Its name in the mixture; empty where there is one dataset.
    index : ManifestIndex
        The dataset.
    rows : range
        Its rows of the index.
    weight : float
        How often an epoch shows each of its samples.
    normalise : str or tuple of float, optional
        What happens to its grey levels, where that is not the loader's choice.
    """

    name: str
    index: "ManifestIndex"
    rows: range
    weight: float = 1.0
    normalise: Normalise | None = None


class Index(ABC):
    """What a loader needs of its data. Rows are manifest rows; of a mixture, those of one member after another's.

    Attributes
    ----------
    url : str
        Where they lie, for messages.
    digest : str
        Names the values, and what else decides which samples there are.
    shards : list of str
        Names of the shards, in the order of the rows.
    shard_starts : ndarray of int64, (shards + 1,)
        First row of each shard, and the end.
    """

    url: str
    digest: str
    shards: list[str]
    shard_starts: Ints

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """The datasets, one or more."""

    @property
    def rows(self) -> int:
        """Samples in all splits."""
        return int(self.shard_starts[-1])

    @property
    @abstractmethod
    def bins(self) -> Bins:
        """The bins of the shards."""

    @property
    @abstractmethod
    def splits(self) -> Mapping[str, int]:
        """Samples by split, as patients' hashes draw it."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """How many times every image can be halved."""

    @property
    @abstractmethod
    def stores(self) -> dict[str, Store]:
        """Stores by what the names of their objects begin with here."""

    @abstractmethod
    def close(self) -> None:
        """Give disk space back."""

    @abstractmethod
    def columns(self, *names: str) -> pa.Table:
        """Read whole columns of the manifest; ArgumentError for one that it does not have."""

    @abstractmethod
    def labels(self, name: str) -> Labels:
        """Read a labels table, a row per row here; ArgumentError where there is none of that name."""

    @abstractmethod
    def everything(self, boxes: bool = True) -> Samples:
        """Return all samples, to plan for; without content boxes where a batching shows whole images."""

    @abstractmethod
    def detail(self, row: int) -> Detail:
        """Say what is known of a row; RowError for others, such as the -1 of an empty slot."""

    @abstractmethod
    def contents(self, shard: str) -> Contents:
        """List the images of a shard's object, with an id that changes with any of their bytes."""

    @abstractmethod
    def shard_bytes(self, levels: Iterable[int]) -> dict[str, int]:
        """Sum the bytes of each shard's objects with these levels, as listed; IntegrityError where one is missing."""

    def largest_shard(self, level: Level) -> int:
        """Return the bytes of the largest object that holds a level; "auto" stands for the smallest image."""
        return max(self.shard_bytes([self.levels if level == "auto" else level]).values())

    def check_row(self, row: int) -> None:
        """Refuse a number that is no row.

        Raises
        ------
        RowError
            Says which there are.
        """
        if not 0 <= row < self.rows:
            raise RowError(
                f"row {row} is none of {self.url}'s manifest rows 0 to {self.rows - 1};"
                " a batch's places without an image have row -1 and weight 0"
            )

    def samples(
        self,
        split: Split | str | None = "train",
        where: Where | None = None,
        needs: tuple[str, ...] = (),
        boxes: bool = True,
    ) -> Samples:
        """Choose the samples to plan for.

        Parameters
        ----------
        split : Split or str, optional
            Name of the split; None for all.
        where : callable, optional
            From a table of columns to a boolean a row: which samples to take.
        needs : tuple of str
            Columns that `where` is given.
        boxes : bool
            Whether content boxes are asked for: they take twice as much memory as all else of a sample.

        Raises
        ------
        ArgumentError
            Where none is left, or `where` gives something else.
        """
        split = Split.read(split) if isinstance(split, str) else split
        keep = np.ones(self.rows, np.bool_) if split is None else in_split(self.members, split, self.url)
        if where is not None:
            chosen = np.asarray(self._filter(where, needs), np.bool_)
            if chosen.shape != keep.shape:
                raise ArgumentError(
                    f"where gave values of shape {chosen.shape}, not a boolean for each of {self.rows:,} rows"
                )
            keep &= chosen
        if not keep.any():
            name, splits = str(split or "all"), ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
            raise ArgumentError(
                f"{self.url} has no sample in split {name!r} that is asked for; it has {splits}: take another"
                " one, or split='all' and where (splits are drawn by patient, so that one of few patients may be empty)"
            )
        everything = self.everything(boxes)
        return everything if keep.all() else everything.select(keep, self.named(keep), spare=True)

    def named(self, keep: Mask) -> str:
        """Return a digest of some of the rows."""
        return hashlib.sha256(self.digest.encode() + np.packbits(keep).tobytes()).hexdigest()

    def _filter(self, where: Where, needs: tuple[str, ...]) -> npt.ArrayLike:
        """Ask a filter; ArgumentError where it wants a column that it was not given."""
        try:
            return where(self.columns(*needs))
        except (KeyError, pa.ArrowInvalid) as error:
            asked = re.findall(r"[A-Za-z0-9_]+", str(error))
            missing = [name for name in SCHEMA.names if name in asked and name not in needs]
            if not missing:
                raise
            raise ArgumentError(
                f"where asks for the manifest's column {missing[0]}, and needs does not name it:"
                f" pass needs={(*needs, missing[0])!r}"
            ) from error
