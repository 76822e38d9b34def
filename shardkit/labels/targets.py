"""The files that labels can belong to: the private ledger's rows, each with the sample that it became, if it did."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.labels.lookup import Numbers, Texts
from shardkit.labels.rows import By
from shardkit.privacy import Pseudonyms, load_key
from shardkit.storage import parquet
from shardkit.storage.growing import Strings, Words, column_pieces, gathered, one
from shardkit.storage.spill import Spill

LEDGER, KEY_FILE = "ledger.parquet", "pseudonym.key"
UID_DIGITS = 20
"""So much of a sample's key tells its SOP Instance UID."""
PSEUDONYMS = ("sop", "study", "accession", "patient")
_DUPLICATE = "duplicate_exact"
_FATES = ["verdict", "reason", "key"]


@dataclass(frozen=True)
class Targets:
    """Files of the ledger, row by row.

    Attributes
    ----------
    path : pyarrow.Array
        The path as the ledger shows it.
    reason : pyarrow.Array
        What became of the file; strings, or codes of them.
    sop, study, accession, patient : pyarrow.Array
        Pseudonyms, null where the header states none or the ledger does not tell; `sop` is cut to `UID_DIGITS`.
    sample : ndarray of int32
        Row of the manifest, -1 where the file has no sample; of an exact duplicate the row of the one that was kept.
    own : ndarray of bool
        Whether the sample was made from this very file.
    """

    path: pa.Array
    reason: pa.Array
    sop: pa.Array
    study: pa.Array
    accession: pa.Array
    patient: pa.Array
    sample: Numbers
    own: npt.NDArray[np.bool_]


def read_targets(private: Path, samples: pa.Table | Spill, by: By | None = None) -> Targets:
    """Read the ledger beside a manifest's columns key, study and patient, a block at a time.

    Parameters
    ----------
    private : Path
        The ledger's folder.
    samples : pyarrow.Table or Spill
        The manifest's columns.
    by : By, optional
        What references will name: the texts that it does not need are left null. Default: none are.

    Raises
    ------
    ArgumentError
        There is no ledger.
    """
    place = private / LEDGER
    if not place.is_file():
        raise ArgumentError(f"{private} holds no {LEDGER}: name the --private folder of a build that has ended")
    names = [name for name in PSEUDONYMS if by in (None, name)]
    clear = by not in ("study", "accession", "patient")
    rows, texts, reason = _Rows(samples), {name: Strings() for name in ("path", *names)}, Words()
    samples_of, own = [np.zeros(0, np.int32)], [np.zeros(0, np.bool_)]
    for table in _blocks(place, [*_FATES, *(["path"] if clear else []), *names]):
        block = rows.block(table)
        samples_of.append(block.sample)
        own.append(block.own)
        reason.add(one(table["reason"]))
        if clear:
            texts["path"].add(one(table["path"]))
        for name in names:
            texts[name].add(rows.pseudonyms(name, block))
    sample = np.concatenate(samples_of)
    nothing = pa.nulls(len(sample), pa.string())
    told = dict.fromkeys(("path", *PSEUDONYMS), nothing)
    told |= {name: found.array() for name, found in texts.items() if clear or name != "path"}
    return Targets(reason=reason.array(), sample=sample, own=np.concatenate(own), **told)


def _blocks(place: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Read some columns of the ledger, of those that it has."""
    with parquet.legible(str(place)), pq.ParquetFile(place) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        yield from parquet.blocks(file, there)


@dataclass(frozen=True)
class _Block:
    """Rows of the ledger, with what `Targets` says of them."""

    table: pa.Table
    sample: Numbers
    own: npt.NDArray[np.bool_]


class _Rows:
    """The manifest's rows, which rows of the ledger are held against."""

    def __init__(self, samples: pa.Table | Spill) -> None:
        self._samples = samples
        self._keys = Texts(gathered(column_pieces(samples, "key")))

    def block(self, table: pa.Table) -> _Block:
        """Find the samples of rows of the ledger."""
        written = pc.equal(table["verdict"], "written").combine_chunks()
        has = pc.or_(written, pc.equal(one(table["reason"]), _DUPLICATE))
        sample = self._keys.find(pc.if_else(has, one(table["key"]), None))
        return _Block(table, sample, written.to_numpy(zero_copy_only=False) & (sample >= 0))

    def pseudonyms(self, name: str, block: _Block) -> pa.Array:
        """Return those of a kind; ledgers of earlier versions lack them, but the samples and their keys tell some."""
        table = block.table
        there = one(table[name]) if name in table.column_names else pa.nulls(table.num_rows, pa.string())
        if name == "sop":
            written = pc.equal(table["verdict"], "written").combine_chunks()
            return pc.utf8_slice_codeunits(
                pc.coalesce(there, pc.if_else(written, one(table["key"]), None)), 0, UID_DIGITS
            )
        if name == "accession" or not there.null_count:
            return there
        return pc.coalesce(there, self._stated[name].take(pa.array(block.sample, mask=~block.own)))

    @cached_property
    def _stated(self) -> dict[str, pa.Array]:
        return {name: gathered(column_pieces(self._samples, name)) for name in ("study", "patient")}


def read_key(private: Path, described: DatasetDescription) -> Pseudonyms:
    """Return the pseudonyms of a dataset.

    Raises
    ------
    ArgumentError
        The key is not there, or is another dataset's.
    """
    place = private / KEY_FILE
    if not place.is_file():  # it is not made here: a new one would match nothing
        raise ArgumentError(f"{private} holds no {KEY_FILE}: name the --private folder that the dataset was built with")
    name = Pseudonyms(load_key(place))
    if name.fingerprint != described.key_fingerprint:
        raise ArgumentError(f"{place} is another dataset's key: name the --private folder that this one was built with")
    return name
