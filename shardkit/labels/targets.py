"""The files that labels can belong to: the private ledger's rows, each with the sample that it became, if it did."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.privacy import Pseudonyms, load_key
from shardkit.storage import parquet

LEDGER, KEY_FILE = "ledger.parquet", "pseudonym.key"
UID_DIGITS = 20
"""So much of a sample's key tells its SOP Instance UID."""
PSEUDONYMS = ("sop", "study", "accession", "patient")
_DUPLICATE = "duplicate_exact"


@dataclass(frozen=True)
class Targets:
    """Files of the ledger, row by row.

    Attributes
    ----------
    path, reason : pyarrow.Array
        The path as the ledger shows it, and what became of the file.
    sop, study, accession, patient : pyarrow.Array
        Pseudonyms, null where the header states none or the ledger does not tell; `sop` is cut to `UID_DIGITS`.
    sample : numpy.ndarray
        Row of the manifest, -1 where the file has no sample; of an exact duplicate the row of the one that was kept.
    own : numpy.ndarray
        Whether the sample was made from this very file.
    """

    path: pa.Array
    reason: pa.Array
    sop: pa.Array
    study: pa.Array
    accession: pa.Array
    patient: pa.Array
    sample: npt.NDArray[np.int64]
    own: npt.NDArray[np.bool_]


def read_targets(private: Path, samples: pa.Table) -> Targets:
    """Read the ledger beside a manifest's columns key, study and patient.

    Raises
    ------
    ArgumentError
        There is no ledger.
    """
    place = private / LEDGER
    if not place.is_file():
        raise ArgumentError(f"{private} holds no {LEDGER}: name the --private folder of a build that has ended")
    with parquet.legible(str(place)), pq.ParquetFile(place) as file:
        there = [name for name in PSEUDONYMS if name in file.schema_arrow.names]
        rows = file.read(["path", "verdict", "reason", "key", *there]).combine_chunks()
    key, reason = (rows[name].combine_chunks() for name in ("key", "reason"))
    own = pc.equal(rows["verdict"], "written").combine_chunks()
    has = pc.or_(own, pc.equal(reason, _DUPLICATE))
    found = pc.index_in(pc.if_else(has, key, None), samples["key"].combine_chunks(), skip_nulls=True)
    at = pc.if_else(own, found, None)
    known = {name: rows[name].combine_chunks() for name in there}
    for name in ("study", "patient"):  # ledgers of earlier versions lack them, but the samples tell
        stated = samples[name].combine_chunks().take(at)
        known[name] = pc.coalesce(known[name], stated) if name in known else stated
    uids = pc.if_else(own, key, None)
    sop = pc.utf8_slice_codeunits(pc.coalesce(known["sop"], uids) if "sop" in known else uids, 0, UID_DIGITS)
    sample = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    nothing = pa.nulls(len(key), pa.string())
    return Targets(
        path=rows["path"].combine_chunks(),
        reason=reason,
        sop=sop,
        study=known["study"],
        accession=known.get("accession", nothing),
        patient=known["patient"],
        sample=sample,
        own=own.to_numpy(zero_copy_only=False) & (sample >= 0),
    )


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
