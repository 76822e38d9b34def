"""The ledger: one row per input file, private because it names source paths."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from shardkit.build.scan_rows import path_hash
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import BuildError
from shardkit.storage import parquet
from shardkit.storage.spill import BLOCK, Regrouped, Spill

_RANGE = 1 << 15  # rows of a range of paths, about
_SOME = 512  # one path of so many says where ranges end
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


class CurrentFlags:
    """The flags that samples have now, found by key: 24 bytes a sample, whatever the length of its key.

    Keys are known by their XXH3-128, so that two of 10**8 share one with a chance below 10**-22.

    Parameters
    ----------
    samples : pyarrow.Table or Spill
        Has the manifest's columns key and flags.
    """

    def __init__(self, samples: pa.Table | Spill) -> None:
        rows, start, self.words = samples.num_rows, 0, dict[str, int]()
        high, low, codes = np.empty(rows, np.uint64), np.empty(rows, np.uint64), np.empty(rows, np.int32)
        for batch in samples.select(["key", "flags"]).to_batches():
            here = slice(start, start + batch.num_rows)
            high[here], low[here] = _hashed(batch.column(0)).T
            codes[here] = _coded(batch.column(1), self.words)
            start += batch.num_rows
        order = np.argsort(high)
        self._high, self._low, self._codes = high[order], low[order], codes[order]

    def of(self, keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Return the flags of each key as a value of `words`; -1 for a key that no sample has, and for none."""
        out = np.full(len(keys), -1, np.int64)
        rows = np.flatnonzero(keys.is_valid().to_numpy())
        wanted = _hashed(keys.drop_null()).astype(np.uint64)
        at = np.searchsorted(self._high, wanted[:, 0])
        while len(rows):  # once, and again for those whose first 64 bits another key has
            there = at < len(self._high)
            there[there] = self._high[at[there]] == wanted[there, 0]
            rows, wanted, at = rows[there], wanted[there], at[there]
            same = self._low[at] == wanted[:, 1]
            out[rows[same]] = self._codes[at[same]]
            rows, wanted, at = rows[~same], wanted[~same], at[~same] + 1
        return out


def _hashed(keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    data = b"".join(map(xxhash.xxh3_128_digest, keys.cast(pa.binary()).to_pylist()))
    return np.frombuffer(data, ">u8").reshape(-1, 2)


def _coded(flags: pa.Array, words: dict[str, int]) -> npt.NDArray[np.int32]:
    """Return lists of flags as numbers, which `words` gains where it lacks them."""
    found = pc.binary_join(flags, "\n").fill_null("").dictionary_encode()
    codes = np.array([words.setdefault(word, len(words)) for word in found.dictionary.to_pylist()], np.int32)
    return codes[found.indices.to_numpy(zero_copy_only=False)] if len(codes) else np.zeros(0, np.int32)


def merge(
    generations: list[Path],
    samples: pa.Table | Spill,
    changed: npt.NDArray[np.uint64],
    missing: npt.NDArray[np.uint64],
    target: Path,
    inputs: int,
) -> dict[str, Counter[str]]:
    """Write the ledgers of all generations as one, sorted by path: a path's latest row counts, with current flags.

    Rows are sorted in ranges of paths, each of which memory holds alone.

    Parameters
    ----------
    generations : list of Path
        Their ledgers, oldest first.
    samples : pyarrow.Table or Spill
        Has the dataset's keys and flags.
    changed, missing : ndarray of uint64
        Sorted `scan_rows.path_hash` of the paths, as the ledger shows them, that have another size now, or are gone.
    target : Path
        The file to write.
    inputs : int
        How many rows it must have.

    Returns
    -------
    dict
        Files by verdict and reason.

    Raises
    ------
    BuildError
        The rows do not add up; no file is written.
    """
    now, found = CurrentFlags(samples), {verdict: Counter[str]() for verdict in VERDICTS}
    cuts = _cuts(generations)
    schema = SCHEMA.append(pa.field("generation", pa.int64()))
    with Regrouped(target.with_name(f".{NAME}.rows.tmp"), schema, len(cuts) + 1) as by_path:
        for number, path in enumerate(generations):
            for table in _read(path):
                table = table.append_column("generation", pa.array(np.full(table.num_rows, number)))
                if cuts:
                    table = table.sort_by("path")
                by_path.add(table, [*(_before(table["path"], cut) for cut in cuts), table.num_rows])
        with parquet.writing(target, SCHEMA) as writer:
            for table in by_path.groups():
                if table.num_rows or not cuts:
                    table = _with_flags(_latest(table), now, changed, missing)
                    for verdict, reasons in counts(table).items():
                        found.setdefault(verdict, Counter()).update(reasons)
                    writer.write_table(table)
            check_closure(found, inputs)
    return found


def _read(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read a ledger, which may lack columns if an earlier version began it, a block at a time."""
    with pq.ParquetFile(path) as file:
        for table in parquet.blocks(file, columns, BLOCK):
            if columns is None:
                table = pa.concat_tables([SCHEMA.empty_table(), table], promote_options="default")
            yield table


def _cuts(generations: list[Path]) -> list[str]:
    """Return paths between which about as many rows lie as memory should hold; none where it can hold all."""
    ranges = ceil_div(sum(pq.read_metadata(path).num_rows for path in generations), _RANGE)
    some: list[str] = []
    if ranges > 1:
        for path in generations:
            for table in _read(path, ["path"]):
                some += table["path"].take(pa.array(range(0, table.num_rows, _SOME))).to_pylist()
        some.sort()
    return [some[len(some) * i // ranges] for i in range(1, ranges)]


def _before(paths: pa.ChunkedArray, cut: str) -> int:
    """Return how many of sorted paths are less than one."""
    low, high = 0, len(paths)
    while low < high:
        middle = (low + high) // 2
        if paths[middle].as_py() < cut:
            low = middle + 1
        else:
            high = middle
    return low


def _latest(table: pa.Table) -> pa.Table:
    """Sort rows by path, and return the last of each."""
    table = table.sort_by([("path", "ascending"), ("generation", "ascending")])
    paths = table["path"].combine_chunks()
    if len(paths) > 1:
        last = np.append(pc.not_equal(paths[:-1], paths[1:]).to_numpy(zero_copy_only=False), True)
        table = table.filter(pa.array(last))
    return table


def _with_flags(
    table: pa.Table, now: CurrentFlags, changed: npt.NDArray[np.uint64], missing: npt.NDArray[np.uint64]
) -> pa.Table:
    """Return the ledger's rows with the flags of their samples, and with what became of their files."""
    current = now.of(pc.if_else(pc.equal(table["verdict"], "written"), table["key"], None))
    words = dict(now.words)
    before = _coded(table["flags"].combine_chunks(), words)
    code = np.where(current < 0, before, current) * 4
    if len(changed) or len(missing):
        paths = np.fromiter((path_hash(path.encode()) for path in table["path"].to_pylist()), np.uint64)
        code += _among(paths, changed) + 2 * _among(paths, missing)
    kinds, which = np.unique(code, return_inverse=True)
    names = list(words)
    flags = [sorted({*filter(None, names[kind // 4].split("\n")), *_source_flags(kind % 4)}) for kind in kinds.tolist()]
    column = pa.array(flags, pa.list_(pa.string())).take(pa.array(which))
    return table.set_column(table.schema.get_field_index("flags"), "flags", column).select(SCHEMA.names)


def _among(hashes: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which hashes are known; `np.isin` would sort the known ones, sorted as they are, for each range."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    return np.asarray(known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes)


def _source_flags(bits: int) -> list[str]:
    return [name for bit, name in ((1, "source_changed"), (2, "source_missing")) if bits & bit]


def matching(path: Path, columns: list[str], name: str, values: pa.Array) -> pa.Table:
    """Return columns of a ledger's rows whose value in one of them is among these."""
    tables = [pa.schema([SCHEMA.field(column) for column in columns]).empty_table()]
    for table in _read(path, columns):
        tables.append(table.filter(pc.is_in(table[name], values)).select(columns))
    return pa.concat_tables(tables, promote_options="default")


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


def reasons(path: Path, paths: set[str]) -> dict[str, int]:
    """Count the files of these paths in a ledger by reason."""
    chosen = matching(path, ["path", "reason"], "path", pa.array(sorted(paths), pa.string()))
    return dict(sorted(Counter(chosen["reason"].to_pylist()).items()))


def check_closure(found: dict[str, Counter[str]], inputs: int) -> None:
    """Make sure that every input has one verdict of the three.

    Raises
    ------
    BuildError
        Where the ledger does not add up.
    """
    by_verdict = {v: sum(c.values()) for v, c in found.items()}
    if set(by_verdict) != set(VERDICTS) or sum(by_verdict.values()) != inputs:
        raise BuildError(f"the ledger does not add up: {inputs:,} inputs, verdicts {by_verdict}; please report this")
