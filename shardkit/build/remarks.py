"""What the last lines of a build say of any dataset: flags, and copies across patients."""

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.storage.spill import Spill, matching

_UNKNOWN = "missing_patient_id"


def remarks(copies: pa.Table, samples: pa.Table | Spill) -> tuple[str, ...]:
    """Return sentences on a dataset.

    Parameters
    ----------
    copies : pyarrow.Table
        Key, patient and flags of the ledger's exact copies.
    samples : pyarrow.Table or Spill
        Has the manifest's columns key, patient and flags.
    """
    return (*_flags(samples), *_copies_across_patients(copies, samples))


def _flags(samples: pa.Table | Spill) -> list[str]:
    counts = pc.value_counts(samples["flags"].combine_chunks().flatten()).to_pylist()
    ranked = sorted(counts, key=lambda one: (-one["counts"], one["values"]))
    return ["flags: " + ", ".join(f"{one['values']} {one['counts']:,}" for one in ranked)] if ranked else []


def _copies_across_patients(copies: pa.Table, samples: pa.Table | Spill) -> list[str]:
    """Say how many exact copies are of another patient than the sample that was kept, where both are known."""
    found = matching(samples.select(["key", "patient", "flags"]), "key", pc.unique(copies["key"]))
    kept = found.take(pc.index_in(copies["key"], found["key"].combine_chunks()).combine_chunks())
    strangers = pc.not_equal(copies["patient"], kept["patient"])
    flags = (table["flags"].filter(strangers).to_pylist() for table in (copies, kept))
    count = sum(not any(_UNKNOWN in (some or ()) for some in both) for both in zip(*flags, strict=True))
    said = "exact copies that are of another patient than the sample that was kept"
    return [f"{said}: {count:,}; such patients share a split"] if count else []
