"""What a loader needs of a dataset: a snapshot of its manifest, sizes of all samples in memory, the rest by shard.

The manifest is copied once into an unnamed local file: a build that appends to the dataset meanwhile changes nothing.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any, TypeVar

import numpy as np
import obstore
import pyarrow as pa
from cachetools import FIFOCache, LRUCache
from obstore.exceptions import PreconditionError

from shardkit import labels
from shardkit.dataset import contents, manifest, schema
from shardkit.dataset.bins import Bins
from shardkit.dataset.hashes import DIGEST_BYTES
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import form_of, listing
from shardkit.labels import Labels
from shardkit.loader import opening
from shardkit.loader.index import Index, Member
from shardkit.loader.sample_index import Detail, Details, common_levels
from shardkit.loader.stream.cache import Contents
from shardkit.plan.samples import Ints, Samples, Sizes
from shardkit.storage import NO_RETRIES, MissingObject, Store, parquet, translate_errors
from shardkit.storage.regular import opened
from shardkit.storage.waiting import DEADLINE, waited

T = TypeVar("T")

_BOX = ("box_top", "box_left", "box_height", "box_width")
_KEPT_SHARDS = 1024  # whose details stay in memory, about 200 bytes a sample
_KEPT_GROUPS = 4  # decoded row groups, about 2 MB each
_PIECE = 8 << 20  # bytes of a manifest held while it is copied


class ManifestIndex(Index):
    """What a loader needs of a dataset; see `Index`. Opening it checks what is read then.

    Parameters
    ----------
    url : str
        Folder or bucket of the dataset.
    deadline : float
        Seconds that a read waits for a store that is away.
    prefix : str
        What names of its objects begin with in a mixture.
    number : int
        Which member of a mixture it is.

    Attributes
    ----------
    store : Store
        Where the dataset lies.
    description : dict
        What dataset.json says.
    codec : str
        What its images are encoded by.
    form : ShardFormat
        How shards are laid out.

    Raises
    ------
    ArgumentError
        Where there is no dataset.
    IntegrityError
        Where it is not whole.
    StorageError
        Where the store cannot be read in time.
    """

    def __init__(self, url: str, deadline: float = DEADLINE, prefix: str = "", number: int = 0) -> None:
        self.store = store = Store(url, **NO_RETRIES)
        self.url, self._deadline, self._prefix, self._member = store.url, deadline, prefix, number
        self._where = f"{store.url}/{manifest.NAME}"
        self.description = self._waited(lambda: contents.description(store), contents.NAME)
        if self.url.startswith("http"):  # a web server without byte ranges is named now, not at every image
            self._waited(lambda: store.get_range(contents.NAME, 0, 1), contents.NAME)
        self.digest = self.description.digest
        self.codec: str = self.description.codec
        self.form = form_of(self.description)
        self._lock = threading.Lock()
        self._sides: Sizes | None = None
        self._details: LRUCache[int, Details] = LRUCache(_KEPT_SHARDS)
        self._decoded: FIFOCache[range, pa.Table] = FIFOCache(_KEPT_GROUPS)
        self._file = self._snapshot()
        try:
            with self._legible():
                self._table = manifest.opened(self._file, schema.CODED)
                self.shards, self.shard_starts = self._checked()
                groups = [self._table.metadata.row_group(i).num_rows for i in range(self._table.num_row_groups)]
        except BaseException:
            self.close()
            raise
        self._number_of = {name: number for number, name in enumerate(self.shards)}
        self._group_starts = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)

    @property
    def members(self) -> tuple[Member, ...]:
        """See `Index`. Made anew, for an index that held itself would keep its file open."""
        return (Member("", self, range(self.rows)),)

    @property
    def bins(self) -> Bins:
        """See `Index`."""
        return self.description.bins

    @property
    def splits(self) -> Mapping[str, int]:
        """See `Index`."""
        return self.description.splits

    @property
    def stores(self) -> dict[str, Store]:
        """See `Index`."""
        return {"": self.store}

    def close(self) -> None:
        """See `Index`."""
        self._file.close()

    def columns(self, *names: str) -> pa.Table:
        """See `Index`."""
        if unknown := set(names) - set(self._table.schema_arrow.names):
            raise ArgumentError(f"{self.url}/{manifest.NAME} has no column {', '.join(sorted(unknown))}")
        with self._lock, self._legible():
            table = self._table.read(list(names), use_threads=False)
        for at, name in enumerate(names):
            if name in schema.CODED:
                table = table.set_column(at, manifest.SCHEMA.field(name), table[name].cast(pa.string()))
        if not {*names} <= {*schema.OPENING}:  # which are checked already
            rows = schema.ManifestCheck(self.description, self._where)
            for batch in table.to_batches(schema.BATCH):
                rows.check(batch)
        return table

    def labels(self, name: str) -> Labels:
        """See `Index`."""
        return labels.read(self.store, name).aligned(self.columns("key")["key"])

    def everything(self, boxes: bool = True) -> Samples:
        """See `Index`."""
        sides, self._sides = self._sides, None  # given away: those of 10**8 samples take 400 MB
        height, width = self._narrow(opening.SIZES) if sides is None else sides
        return Samples(
            digest=self.digest,
            starts=self.shard_starts,
            height=height,
            width=width,
            bins=self.bins,
            levels=self.levels,
            box=self._narrow(_BOX).T if boxes else None,
        )

    def _narrow(self, names: tuple[str, ...]) -> Sizes:
        with self._lock, self._legible():
            return opening.narrow(self._table, names, self.description, self._where)

    def own_splits(self) -> pa.DictionaryArray:
        """Return the split of each row as patients' hashes draw it, as codes."""
        return pa.DictionaryArray.from_arrays(pa.array(self._split), pa.array(schema.SPLITS))

    @property
    def levels(self) -> int:
        """See `Index`."""
        return int(self.details(0).level_bytes.shape[1]) - 1 if self.shards else 0

    def detail(self, row: int) -> Detail:
        """See `Index`."""
        self.check_row(row)
        number = int(np.searchsorted(self.shard_starts, row, side="right")) - 1
        return self.details(number).at(row)

    def details(self, number: int) -> Details:
        """Say what is known of a shard's samples. From any thread."""
        with self._lock:
            if number not in self._details:
                with self._legible():
                    self._details[number] = self._read_details(number)
            return self._details[number]

    def _read_details(self, number: int) -> Details:
        first, end = (int(row) for row in self.shard_starts[number : number + 2])
        groups = range(
            int(np.searchsorted(self._group_starts, first, side="right")) - 1,
            int(np.searchsorted(self._group_starts, end, side="left")),
        )
        table = self._groups(groups)
        table = table.slice(first - int(self._group_starts[groups[0]]), end - first).combine_chunks()
        rows = schema.ManifestCheck(self.description, self._where, first)
        for batch in table.to_batches():
            rows.check(batch)
        lists = {name: common_levels(table[name]) for name in schema.LISTS}
        hashes = np.frombuffer(b"".join(lists["level_hash"].to_pylist()), np.uint8)
        numbers = {name: table[name].to_numpy().copy() for name in schema.NUMBERS}
        level_bytes = lists["level_bytes"].to_numpy().reshape(end - first, -1).copy()
        return Details(
            form=self.form,
            shard=self.shards[number],
            first_row=first,
            prefix=self._prefix,
            member=self._member,
            numbers=numbers,
            starts=self.form.starts(numbers["offset"], level_bytes),
            level_bytes=level_bytes,
            level_hash=hashes.reshape(end - first, -1, DIGEST_BYTES),
            keys=pa.array(table["key"].to_pylist(), pa.string()),
        )

    def _groups(self, groups: range) -> pa.Table:
        """Decode row groups; the last few are kept, since small shards have one in common."""
        if groups not in self._decoded:
            self._decoded[groups] = self._table.read_row_groups(list(groups), [*schema.DETAILS], use_threads=False)
        return self._decoded[groups]

    def contents(self, shard: str) -> Contents:
        """See `Index`."""
        name, level = self.form.whole(shard)
        found = self.details(self._number_of[name])
        hashes = [found.level_hash[i, level].tobytes() for i in range(len(found.level_bytes))]
        lengths, offsets = found.level_bytes[:, level].tolist(), found.starts[:, level].tolist()
        members = list(zip(offsets, lengths, hashes, strict=True))
        text = "".join(f"{offset} {length} {digest.hex()}\n" for offset, length, digest in members)
        return Contents(hashlib.sha256(f"{shard}\n{text}".encode()).hexdigest()[:32], members)

    def shard_bytes(self, levels: Iterable[int]) -> dict[str, int]:
        """See `Index`."""
        there = self._waited(lambda: dict(listing(self.store, self.form)), "the list of shards")
        objects = {shard: {self.form.part(shard, level) for level in levels} for shard in self.shards}
        missing = [name for parts in objects.values() for name in sorted(parts) if name not in there]
        if missing:
            raise IntegrityError(f"{self.url}/{missing[0]} is missing: build it again from the source")
        return {shard: sum(there[name] for name in parts) for shard, parts in objects.items()}

    def _waited(self, once: Callable[[], T], name: str) -> T:
        return waited(once, f"{self.url}/{name}", self._deadline, "check it and run this again, or raise the deadline")

    def _snapshot(self) -> IO[bytes]:
        """Open the manifest as a local file."""
        try:
            if self.store.root is not None:
                with translate_errors(self._where):
                    return opened(self.store.root, manifest.NAME)
            return self._downloaded()
        except MissingObject:
            raise IntegrityError(
                f"{self.url} has no {manifest.NAME}: copy the dataset again, or build it anew"
            ) from None

    def _downloaded(self) -> IO[bytes]:
        """Copy the manifest to a file without a name; in pieces of one version, for it may be larger than memory."""
        file = tempfile.TemporaryFile(prefix="shardkit-")  # noqa: SIM115 - lives as long as the index
        try:
            for piece in self._pieces():
                with translate_errors(f"{self._where} in {tempfile.gettempdir()}"):
                    file.write(piece)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _pieces(self) -> Iterator[bytes]:
        size, version, at = self._waited(lambda: self.store.size(manifest.NAME), manifest.NAME), None, 0

        def ask() -> tuple[bytes, str | None]:
            options: Any = {"range": (at, min(size, at + _PIECE))} | ({"if_match": version} if version else {})
            with translate_errors(self._where):
                try:
                    found = obstore.get(self.store.remote, manifest.NAME, options=options)
                    return bytes(found.bytes()), found.meta["e_tag"]
                except PreconditionError:
                    raise IntegrityError(f"{self._where} was replaced while it was read: open it again") from None

        while at < size:
            piece, version = self._waited(ask, manifest.NAME)
            yield piece
            at += len(piece)

    def _legible(self) -> AbstractContextManager[None]:
        return parquet.legible(self._where)

    def _checked(self) -> tuple[list[str], Ints]:
        """Check all that is read on opening; returns the shards in manifest order, and where their rows start.

        The rest is checked when a shard's details are read: for millions of images that would take as long as opening.
        """
        where = self._where
        if not manifest.named_digest(self._table):
            raise IntegrityError(
                f"{where} names no digest: it was written by an older shardkit or by another tool;"
                " build the dataset anew elsewhere"
            )
        needed = sorted({*schema.OPENING, *schema.DETAILS})
        schema.opened(self._table, os.fstat(self._file.fileno()).st_size, self.description, where, needed)
        found = opening.read(self._table, self.description, where)
        self._sides, self._split = found.sides, found.split
        return found.shards, found.starts
