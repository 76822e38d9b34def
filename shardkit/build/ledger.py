"""The ledger: one row per input file, private because it names source paths."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import BuildError
from shardkit.storage import parquet

_BLOCK = 1 << 16  # rows handled as Python objects at once
NAME = "ledger.parquet"
VERDICTS = ("written", "dropped", "quarantined")
WRITTEN = ("ok", "ok_repaired")
"""Reasons of files that are written."""
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # bytes that are no UTF-8 stand as \xNN
        ("size", pa.int64()),
        ("sha256", pa.string()),  # null where the header alone decided
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("repairs", pa.list_(pa.string())),
        ("flags", pa.list_(pa.string())),
        ("key", pa.string()),  # of the sample; for a duplicate, of the one that was kept
        ("shard", pa.string()),
        ("message", pa.string()),
        # Pseudonyms, by which a table of labels that names UIDs, accession numbers or patients is joined; null in rows
        # of before they were kept.
        ("sop", pa.string()),
        ("study", pa.string()),
        ("series", pa.string()),
        ("accession", pa.string()),
        ("patient", pa.string()),
    ]
)


def path_text(path: bytes) -> str:
    r"""Return a path as the ledger shows it: what is no UTF-8 as \xNN, hence a backslash as two."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def merge(generations: list[Path], manifest: pa.Table, changed: set[str], missing: set[str]) -> pa.Table:
    """Join the ledgers of all generations, sorted by path: a path's latest row counts, with current flags.

    Parameters
    ----------
    generations : list of Path
        Their ledgers, oldest first.
    manifest : pyarrow.Table
        The dataset's samples.
    changed, missing : set of str
        Paths that have another size now, or are gone.
    """
    tables = [parquet.read(path) for path in generations]
    joined = pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default").combine_chunks()
    order = np.repeat(np.arange(len(tables)), [t.num_rows for t in tables])
    joined = joined.append_column("generation", pa.array(order))
    joined = joined.sort_by([("path", "ascending"), ("generation", "ascending")])
    paths = joined["path"].combine_chunks()
    if len(paths) > 1:
        last = np.append(pc.not_equal(paths[:-1], paths[1:]).to_numpy(zero_copy_only=False), True)
        joined = joined.filter(pa.array(last))
    written = pc.equal(joined["verdict"], "written")
    at = pc.index_in(pc.if_else(written, joined["key"], None), manifest["key"].combine_chunks(), skip_nulls=True)
    current = manifest["flags"].take(at)
    chunks = []
    for start in range(0, len(current), _BLOCK):
        block = (c.slice(start, _BLOCK).to_pylist() for c in (joined["path"], joined["flags"], current))
        flags = [
            sorted({*(before or [] if now is None else now), *_source_flags(path, changed, missing)})
            for path, before, now in zip(*block, strict=True)
        ]
        chunks.append(pa.array(flags, pa.list_(pa.string())))
    index = joined.schema.get_field_index("flags")
    column = pa.chunked_array(chunks, pa.list_(pa.string()))
    return joined.set_column(index, "flags", column).select(SCHEMA.names)


def _source_flags(path: str, changed: set[str], missing: set[str]) -> list[str]:
    return [name for name, paths in (("source_changed", changed), ("source_missing", missing)) if path in paths]


def counts(table: pa.Table) -> dict[str, Counter[str]]:
    """Count files by verdict and reason."""
    out = {verdict: Counter[str]() for verdict in VERDICTS}
    groups = table.group_by(["verdict", "reason"]).aggregate([([], "count_all")])
    for row in groups.to_pylist():
        out.setdefault(row["verdict"], Counter())[row["reason"]] += row["count_all"]
    return out


def flagged(table: pa.Table, flag: str) -> pa.Table:
    """Return the rows that have a flag."""
    flags = table["flags"].combine_chunks()
    return table.take(pc.list_parent_indices(flags).filter(pc.equal(flags.flatten(), flag)))


def select(table: pa.Table, verdict: str | None = None, reason: str | None = None) -> pa.Table:
    """Return the rows of a verdict, of a reason, or of both."""
    for column, value in (("verdict", verdict), ("reason", reason)):
        if value is not None:
            table = table.filter(pc.equal(table[column], value))
    return table


def reasons(table: pa.Table, paths: set[str]) -> dict[str, int]:
    """Count the files of these paths by reason."""
    chosen = table.filter(pc.is_in(table["path"], pa.array(sorted(paths), pa.string())))
    return dict(sorted(Counter(chosen["reason"].to_pylist()).items()))


def check_closure(table: pa.Table, inputs: int) -> None:
    """Make sure that every input has one verdict of the three.

    Raises
    ------
    BuildError
        Where the ledger does not add up.
    """
    by_verdict = {v: sum(c.values()) for v, c in counts(table).items()}
    if set(by_verdict) != set(VERDICTS) or sum(by_verdict.values()) != inputs:
        raise BuildError(f"the ledger does not add up: {inputs:,} inputs, verdicts {by_verdict}; please report this")
