"""What a manifest must say before anything in it is believed: it may come from anyone.

All that reads a dataset passes here: after it, every field has its type, names are those that shards and samples have,
sizes are bounded and agree with one another, and every row's bin is listed. Loading checks what it reads when it reads
it: some columns of all rows on opening, the others a shard at a time. What bytes on storage claim is held against these
records (`shardkit.codecs`). Columns are checked as arrays: a manifest takes about half as long to check as to read.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.codecs import CODECS
from shardkit.dataset import manifest
from shardkit.dataset.bins import Bin
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import DIGEST_BYTES
from shardkit.dataset.sample_row import KINDS
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import form_of
from shardkit.storage.regular import ANEW

BATCH = 1 << 16
"""Rows checked at a time, which bounds memory."""
SIDE, PIXELS = 65_535, 1 << 29
"""Largest side of an image, as DICOM has it, and most pixels: 1 GiB as they are decoded."""
_TEXT = 1024  # bytes of a word in the manifest
SPLITS = ("train", "val", "test")
_KEY = r"\A[0-9a-f-]{1,128}\z"
LARGEST = 1 << 62
"""Largest count, and offset in a file."""
_RATIO = 256  # a manifest is mostly hashes, which cannot be compressed

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


_NEVER_NULL = (
    "key", "shard", "offset", "length", "level_bytes", "level_hash", "pixel_hash", "height", "width", "bits",
    "bin_height", "bin_width", "box_top", "box_left", "box_height", "box_width", "content", "min", "max", "mean", "std",
    "p0_5", "p1", "p99", "p99_5", "padding", "halvings", "repairs", "flags", "split",
)  # fmt: skip
CODED = ("shard", "split")
"""Those of few words, which are read as codes."""
OPENING = (*CODED, "height", "width", "bin_height", "bin_width")
"""Those that are read for all samples when a dataset is opened for loading."""
LISTS = ("level_bytes", "level_hash")
NUMBERS = ("offset", "height", "width", "bits", "bin_height", "bin_width", "min", "max", "mean", "std", "p0_5", "p99_5")
DETAILS = ("key", "shard", "length", *LISTS, *NUMBERS)
"""Those that are read of a shard's samples when the shard is."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Columns, what is true of rows where they cannot be right, and the words for it, which may name the columns."""

    needs: tuple[str, ...]
    broken: Callable[..., Mask]
    says: str


def _outside(low: float, high: float) -> Callable[[Any], Mask]:
    return lambda values: ~((values >= low) & (values <= high))  # so that a NaN is outside


def _beyond(start: Ints, size: Ints, whole: Ints) -> Mask:
    return (start < 0) | (size < 1) | (start.astype(np.int64) + size > whole)


_RULES = (
    *(_Rule((side,), _outside(1, SIDE), f"{side} is {{0:,}}, and an image has 1 to {SIDE:,}")
      for side in ("height", "width")),
    _Rule(("height", "width"), lambda h, w: h.astype(np.int64) * w > PIXELS,
          f"{{0:,}} x {{1:,}} pixels are more than {PIXELS:,}"),
    _Rule(("bits",), _outside(1, 16), "bits is {0}, and pixels have 1 to 16"),
    _Rule(("height", "bin_height", "width", "bin_width"), lambda h, a, w, b: (h > a) | (w > b),
          "an image of {0:,} x {2:,} pixels is larger than its bin of {1:,} x {3:,}"),
    _Rule(("box_top", "box_height", "height"), _beyond, "its content box ({1:,} rows from {0:,}) leaves {2:,} rows"),
    _Rule(("box_left", "box_width", "width"), _beyond,
          "its content box ({1:,} columns from {0:,}) leaves {2:,} columns"),
    *(_Rule((name,), _outside(0, SIDE), f"{name} is {{0}}, and grey levels are 0 to {SIDE:,}")
      for name in ("min", "max", "mean", "std", "p0_5", "p1", "p99", "p99_5")),
    *(_Rule((name,), _outside(0, 1), f"{name} is {{0}}, and a share is 0 to 1") for name in ("content", "padding")),
    _Rule(("offset",), _outside(0, LARGEST), "offset is {0:,}"),
    _Rule(("length", "bin_height", "bin_width"), lambda n, h, w: (n < 1) | (n > most(h, w)),
          "length is {0:,} bytes, too many or none for a bin of {1:,} x {2:,} pixels"),
)  # fmt: skip


def most(height: Any, width: Any) -> Any:
    """Return how many bytes an image of these sides may take in any codec: twice its pixels' bytes, and a header."""
    return 4 * np.int64(height) * np.int64(width) + (1 << 16)


@dataclass
class ManifestCheck:
    """Checks a manifest batch by batch, whichever columns are read. `done` checks it as a whole.

    Parameters
    ----------
    description : DatasetDescription
        What dataset.json says.
    where : str
        The file, in messages.
    row : int
        Number of the first row.
    shards : list of str
        Shards of the rows so far, where the column `shard` is read.
    starts : list of int
        Their first rows.
    """

    description: DatasetDescription
    where: str
    row: int = 0
    shards: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    _end: int = 0  # of the last row's bytes in its shard
    _named: dict[str, Bin | None] = field(default_factory=dict)

    def check(self, batch: pa.RecordBatch) -> None:
        """Check the next rows.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Any columns of the manifest.

        Raises
        ------
        IntegrityError
            A row is wrong: the message names the first one of the first wrong column.
        """
        if not batch.num_rows:
            return
        names = batch.schema.names
        for number, name in enumerate(names):
            self._well_formed(name, batch.column(number))
        if "key" in names:
            good = pc.match_substring_regex(batch.column("key"), _KEY).to_numpy(zero_copy_only=False)
            self._refuse(~good, "its key is none that a sample has, of hexadecimal digits and dashes")
        if "split" in names:
            coded = _coded(batch.column("split"))
            strange = np.array([word not in SPLITS for word in coded.dictionary.to_pylist()], np.bool_)
            if strange.any():
                self._refuse(strange[coded.indices.to_numpy()], f"its split is none of {', '.join(SPLITS)}")
        values = {name: batch.column(name).to_numpy() for name in names if _numeric(batch.column(name))}
        for rule in _RULES:
            if all(name in values for name in rule.needs):
                columns = [values[name] for name in rule.needs]
                self._refuse(rule.broken(*columns), rule.says, columns)
        if {"bin_height", "bin_width"} <= values.keys():
            self._in_bins(values)
        if "level_bytes" in names:
            self._levels(batch, values)
        if {*manifest.LATER, "height", "width"} <= {*names}:
            self._texts(batch, values)
        if "shard" in names:
            self._in_shards(batch.column("shard"), values)
        self.row += batch.num_rows

    def done(self) -> tuple[list[str], Ints]:
        """Check that what was read is a whole manifest.

        Returns
        -------
        shards : list of str
            Names of the shards.
        starts : numpy.ndarray
            First rows of the shards and the end of the last, of shape (shards + 1,), int64.

        Raises
        ------
        IntegrityError
            Rows of a shard are apart, or dataset.json counts others.
        """
        if len(set(self.shards)) != len(self.shards):
            raise IntegrityError(f"{self.where}: the rows of a shard do not lie together; build again")
        told = {"samples": self.row} | ({"shards": len(self.shards)} if self.shards else {})
        for name, count in told.items():
            said = getattr(self.description, name)
            if self.description.digest and said != count:
                raise IntegrityError(f"{self.where} has {count:,} {name}, and dataset.json says {said:,}; {ANEW}")
        return self.shards, np.array([*self.starts, self.row], np.int64)

    def _refuse(self, broken: Any, says: str, columns: list[Any] | None = None) -> None:
        if broken.any():
            at = int(broken.argmax())
            text = says.format(*(column[at].item() for column in columns)) if columns is not None else says
            raise IntegrityError(f"{self.where}: row {self.row + at:,}: {text}; {ANEW}")

    def _well_formed(self, name: str, column: pa.Array) -> None:
        """Check that text is text, lists lie in their values, and nothing is missing that must be there."""
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            raise IntegrityError(f"{self.where}: column {name} is damaged; {ANEW}") from None
        facts = name == "json_hash" and form_of(self.description).FACTS
        if (name in _NEVER_NULL or facts) and column.null_count:
            self._refuse(column.is_null().to_numpy(zero_copy_only=False), f"{name} is missing")
        inner = column.flatten() if pa.types.is_list(column.type) else column
        inner = inner.dictionary if pa.types.is_dictionary(inner.type) else inner
        if inner is not column and inner.null_count:
            raise IntegrityError(f"{self.where}: a list in column {name} has no value in a place; {ANEW}")
        if pa.types.is_string(inner.type) and (pc.max(pc.binary_length(inner)).as_py() or 0) > _TEXT:
            raise IntegrityError(f"{self.where}: a text in column {name} has more than {_TEXT:,} bytes; {ANEW}")

    def _bin(self, pattern: re.Pattern[str], shard: str) -> Bin | None:
        """Return the bin in a shard's name; None for a name that no shard has."""
        if (found := pattern.fullmatch(shard)) is None:
            return None
        name = found["bin"]
        if name not in self._named:
            self._named[name] = _bin(name)
        return self._named[name]

    def _in_bins(self, values: dict[str, Any]) -> None:
        rows = values["bin_height"].astype(np.int64) << 32 | values["bin_width"]
        listed = np.array([bin.height << 32 | bin.width for bin in self.description.bins.bins], np.int64)
        columns = [values["bin_height"], values["bin_width"]]
        begins = np.flatnonzero(_changes(rows))  # images of a bin lie together
        other = np.zeros(len(rows), np.bool_)
        other[begins] = ~np.isin(rows[begins], listed)
        self._refuse(other, "its bin {0:,} x {1:,} is not one that dataset.json lists", columns)

    def _levels(self, batch: pa.RecordBatch, values: dict[str, Any]) -> None:
        """Check that an image has as many levels as its codec, each with a hash, the first whole, none too large.

        What else of levels is read than their lengths is compared with these.
        """
        sizes = batch.column("level_bytes")
        counts = pc.list_value_length(sizes).to_numpy().astype(np.int64)
        codec, halves = self.description.codec, self.description.levels
        inside = CODECS[codec].LEVELS_IN_STREAM
        low, high = inside if any(inside) else (halves, halves)
        self._refuse(_outside(low + 1, high + 1)(counts), f"{codec} has {low} to {high} levels beside the whole image")
        flat, starts = sizes.flatten().to_numpy(), np.cumsum(counts) - counts
        if "level_hash" in batch.schema.names:
            hashes = batch.column("level_hash")
            self._refuse(counts != pc.list_value_length(hashes).to_numpy(), "it has not a hash for each of its levels")
            other = pc.binary_length(hashes.flatten()).to_numpy() != DIGEST_BYTES
            self._refuse(np.logical_or.reduceat(other, starts), "a hash of its levels has another length")
        if "length" in values:
            self._refuse(flat[starts] != values["length"], "its first level is not the whole image")
        limits = np.full(len(flat), np.iinfo(np.int64).max)
        if {"bin_height", "bin_width"} <= values.keys():
            limits = np.repeat(most(values["bin_height"], values["bin_width"]), counts)
        if form_of(self.description).NESTED:  # where levels are prefixes
            limits[1:] = np.where(np.diff(np.repeat(starts, counts)), limits[1:], flat[:-1])
        self._refuse(np.logical_or.reduceat((flat < 1) | (flat > limits), starts), "its levels have impossible lengths")

    def _texts(self, batch: pa.RecordBatch, values: dict[str, Any]) -> None:
        """Check that every line of text has a box within its image, a kind that there is, and a confidence."""
        boxes, kinds, sure = (batch.column(name) for name in manifest.LATER)
        sizes, counts, others = (
            pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in (boxes, kinds, sure)
        )
        self._refuse((sizes != 4 * counts) | (others != counts), "its lines of text have not a box and a kind each")
        rows, box = np.repeat(np.arange(len(counts)), counts), boxes.flatten().to_numpy().reshape(-1, 4)
        sides = np.stack([values["height"], values["width"]], 1)[rows]
        outside = (box[:, :2] < 0) | (box[:, 2:] < 1) | (box[:, :2].astype(np.int64) + box[:, 2:] > sides)
        unknown = ~pc.is_in(kinds.flatten(), pa.array(KINDS)).to_numpy(zero_copy_only=False)
        unsure = _outside(0, 1)(sure.flatten().to_numpy())
        for wrong, says in (
            (outside.any(1), "a line of text lies outside of the image"),
            (unknown, f"the kind of a line of text is none of {', '.join(KINDS)}"),
            (unsure, "the confidence of a line of text is not 0 to 1"),
        ):
            self._refuse(np.bincount(rows[wrong], minlength=len(counts)) > 0, says)

    def _in_shards(self, column: pa.Array, values: dict[str, Any]) -> None:
        """Check that shards have names as we make them, of their bin, and that images lie one after another."""
        coded = _coded(column)
        index, words = coded.indices.to_numpy(), coded.dictionary.to_pylist()
        pattern = form_of(self.description).SHARD
        bins = [self._bin(pattern, word) for word in words]
        if None in bins:
            self._refuse(np.array([b is None for b in bins])[index], "its shard names an object outside the dataset, or"
                         " one that is no shard")  # fmt: skip
        first = _changes(index)
        begins = np.flatnonzero(first)
        ends = np.zeros(len(index), np.int64)
        if {"bin_height", "bin_width"} <= values.keys():
            other, lengths = np.zeros(len(index), np.bool_), np.diff(begins, append=len(index))
            for side in ("height", "width"):
                sides = np.array([0 if bin is None else getattr(bin, side) for bin in bins], np.int32)
                other |= np.repeat(sides[index[begins]], lengths) != values[f"bin_{side}"]
            self._refuse(other, "its shard is another bin's")
        if self.shards and self.shards[-1] == words[index[0]]:
            first[0], begins = False, begins[1:]
        if {"offset", "length"} <= values.keys():
            ends = values["offset"] + values["length"]
            before = np.where(first, 0, np.concatenate([[self._end], ends[:-1]]))
            self._refuse(values["offset"] < before, "its bytes overlap another image's")
        self._end = int(ends[-1])
        self.shards += [words[code] for code in index[begins].tolist()]
        self.starts += (self.row + begins).tolist()


def _changes(values: npt.NDArray[Any]) -> Mask:
    """Say of each value whether it differs from the one before it; the first does."""
    changes = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _numeric(column: pa.Array) -> bool:
    kind = column.type
    return not column.null_count and pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)


def _coded(column: pa.Array) -> pa.DictionaryArray:
    """Return a column as codes and words; read so from a file, or made so."""
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _bin(name: str) -> Bin | None:
    """Return the bin of a name; None for what is none."""
    try:
        return Bin.from_name(name)
    except ArgumentError:
        return None


def opened(
    file: pq.ParquetFile, size: int, description: DatasetDescription, where: str, names: list[str] | None
) -> None:
    """Check what a manifest file says of itself, before its columns are read and take memory.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
        The manifest.
    size : int
        Bytes of the file, of which many times more is not believed.
    description : DatasetDescription
        What dataset.json says.
    where : str
        The file, in messages.
    names : list of str or None
        Columns that will be read, None for all.

    Raises
    ------
    IntegrityError
        The file is another dataset's, or claims what it cannot hold.
    """
    named = manifest.named_digest(file)
    if named and named != (description.digest or named):
        raise IntegrityError(
            f"{where} does not belong to dataset.json: a build is running or was interrupted; run it again"
        )
    told = file.metadata
    columns(told.schema.to_arrow_schema(), where, names)  # as stored, whatever is read as codes
    groups = [told.row_group(i) for i in range(told.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > _RATIO * size or told.num_rows > size:
        raise IntegrityError(f"{where} claims {told.num_rows:,} rows, more than {size:,} bytes hold; {ANEW}")
    if sum(group.num_rows for group in groups) != told.num_rows:
        raise IntegrityError(f"{where} does not say how many rows it has; {ANEW}")


def columns(schema: pa.Schema, where: str, names: list[str] | None = None) -> None:
    """Check that a manifest has columns of our types.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of the file.
    where : str
        The file, in messages.
    names : list of str or None
        The columns, None for all.

    Raises
    ------
    IntegrityError
        A column is missing, or has another type.
    """
    for name in manifest.SCHEMA.names if names is None else names:
        if name in manifest.LATER and name not in schema.names:
            continue
        wanted = manifest.SCHEMA.field(name).type
        if name not in schema.names or not manifest.is_stored(name, schema.field(name).type):
            there = f"is {schema.field(name).type}" if name in schema.names else "is missing"
            raise IntegrityError(f"{where}: column {name} {there}, and must be {wanted}; {ANEW}")
