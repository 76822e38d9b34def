"""What the last lines of a build say of any dataset: flags, and copies across patients."""

import pyarrow as pa
import pyarrow.compute as pc

_UNKNOWN = "missing_patient_id"


def remarks(ledger: pa.Table, samples: pa.Table) -> tuple[str, ...]:
    """Return sentences on a dataset.

    Parameters
    ----------
    ledger : pyarrow.Table
        All files.
    samples : pyarrow.Table
        Has the manifest's columns key, patient and flags.
    """
    return (*_flags(samples), *_copies_across_patients(ledger, samples))


def _flags(samples: pa.Table) -> list[str]:
    counts = pc.value_counts(samples["flags"].combine_chunks().flatten()).to_pylist()
    ranked = sorted(counts, key=lambda one: (-one["counts"], one["values"]))
    return ["flags: " + ", ".join(f"{one['values']} {one['counts']:,}" for one in ranked)] if ranked else []


def _copies_across_patients(ledger: pa.Table, samples: pa.Table) -> list[str]:
    """Say how many exact copies are of another patient than the sample that was kept, where both are known."""
    copies = ledger.filter(pc.equal(ledger["reason"], "duplicate_exact"))
    kept = pc.index_in(copies["key"], samples["key"].combine_chunks()).combine_chunks()
    stranger = pc.not_equal(copies["patient"], samples["patient"].take(kept))
    unknown = [
        _UNKNOWN in (own or ()) or _UNKNOWN in (other or ())
        for own, other in zip(copies["flags"].to_pylist(), samples["flags"].take(kept).to_pylist(), strict=True)
    ]
    count = pc.sum(pc.and_not(stranger, pa.array(unknown, pa.bool_()))).as_py()
    said = "exact copies that are of another patient than the sample that was kept"
    return [f"{said}: {count:,}; such patients share a split"] if count else []
