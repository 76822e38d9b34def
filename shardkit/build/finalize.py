"""The end of a generation: its manifest rows, fingerprints, links between patients and ledger, from the journals.

Every step derives its output from the journals, the plan and former generations, so an interrupted one is just redone.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.build import journal, ledger
from shardkit.build.deduplicate import NEAR
from shardkit.build.scan_rows import SCHEMA
from shardkit.build.shard_plan import TWINS, GenerationPlan
from shardkit.content import THUMB
from shardkit.dataset import manifest
from shardkit.storage import Store, parquet, private

FINGERPRINTS, LINKS, LEDGER = "fingerprints.parquet", "links.parquet", ledger.NAME
_FINGERPRINT = pa.schema(
    [("key", pa.string()), ("body_part", pa.string()), ("view", pa.string()), ("thumb", pa.binary(THUMB**2))]
)
_DIGEST = pa.schema([("serial", pa.int64()), ("sha256", pa.string())])


def new_samples(store: Store, plan: GenerationPlan, generation: int) -> pa.Table:
    """Return this generation's manifest rows, in plan order; group and split are still null."""
    tables = [manifest.SCHEMA.empty_table()]
    for shard in plan.shards:
        table = journal.read(store, generation, shard.name)
        table = table.filter(pc.equal(table["verdict"], "written"))
        table = table.append_column("group", pa.nulls(table.num_rows, pa.string()))
        table = table.append_column("split", pa.nulls(table.num_rows, pa.string()))
        tables.append(table.select(manifest.SCHEMA.names).cast(manifest.SCHEMA))
    return pa.concat_tables(tables)


def write_fingerprints(store: Store, plan: GenerationPlan, generation: int, folder: Path) -> None:
    """Keep thumbnails of the written samples: near-duplicates and polarity are judged on them, now and later."""
    with parquet.writing(folder / FINGERPRINTS, _FINGERPRINT) as writer:
        for shard in plan.shards:
            table = journal.read(store, generation, shard.name, [*_FINGERPRINT.names, "verdict"])
            writer.write_table(table.filter(pc.equal(table["verdict"], "written")).select(_FINGERPRINT.names))


def write_links(store: Store, plan: GenerationPlan, generation: int, folder: Path, samples: pa.Table) -> None:
    """Keep pairs of patients of whom one file turned out to hold the other's image: a split must not part them."""
    pairs = _owners(store, plan, generation, samples)
    if (folder / NEAR).exists():
        near = parquet.read(folder / NEAR, ["patient", "kept_patient"])
        pairs.update(zip(near["patient"].to_pylist(), near["kept_patient"].to_pylist(), strict=True))
    if (folder / LINKS).exists():  # of copies whose kept one was then dropped as a near-duplicate
        before = parquet.read(folder / LINKS)
        pairs.update(zip(before["a"].to_pylist(), before["b"].to_pylist(), strict=True))
    rows = sorted({(min(a, b), max(a, b)) for a, b in pairs if a and b and a != b})
    columns = {
        "a": pa.array([a for a, _ in rows], pa.string()),
        "b": pa.array([b for _, b in rows], pa.string()),
    }
    parquet.write(pa.table(columns), folder / LINKS)


def _owners(
    store: Store, plan: GenerationPlan, generation: int, samples: pa.Table
) -> set[tuple[str | None, str | None]]:
    """Return the patient of each exact copy, and that of the sample that was kept.

    All copies are looked up at once: each search makes a table of all samples.
    """
    columns = ["reason", "pixel_hash", "patient"]
    tables = [pa.table({name: pa.array([], journal.SCHEMA.field(name).type) for name in columns})]
    for shard in plan.shards:
        table = journal.read(store, generation, shard.name, columns)
        tables.append(table.filter(pc.equal(table["reason"], "duplicate_exact")))
    copies = pa.concat_tables(tables).combine_chunks()
    if not copies.num_rows:
        return set()
    kept = pc.index_in(copies["pixel_hash"], samples["pixel_hash"].combine_chunks()).combine_chunks()
    owners = samples["patient"].take(kept)
    return set(zip(copies["patient"].to_pylist(), owners.to_pylist(), strict=True))


def write_digests(path: Path, digests: dict[int, str]) -> None:
    """Keep the SHA-256 of a shard's source files, by serial, in the private folder."""
    private.folder(path.parent)
    parquet.write(pa.table([list(digests), list(digests.values())], schema=_DIGEST), path)


def write_ledger(
    store: Store,
    plan: GenerationPlan,
    generation: int,
    folder: Path,
    parts: list[Path],
    samples: pa.Table,
    digests: list[Path],
) -> None:
    """Write one row per file of this generation.

    Parameters
    ----------
    store : Store
        The dataset, with its journals.
    plan : GenerationPlan
        The generation's shards.
    generation : int
        Its number.
    folder : Path
        Its private folder.
    parts : list of Path
        Its scan parts.
    samples : pyarrow.Table
        The dataset's samples.
    digests : list of Path
        What `write_digests` wrote of each shard.
    """
    columns = [
        "serial",
        "verdict",
        "reason",
        "message",
        "repairs",
        "flags",
        "key",
        "shard",
        "pixel_hash",
    ]
    tables = [pa.table({n: pa.array([], journal.SCHEMA.field(n).type) for n in columns})]
    tables += [journal.read(store, generation, shard.name, columns) for shard in plan.shards]
    done = _name_kept(pa.concat_tables(tables).combine_chunks(), samples, folder / NEAR)
    unused = parquet.read(folder / TWINS)["serial"].combine_chunks()
    hashed = pa.concat_tables([_DIGEST.empty_table(), *map(parquet.read, digests)]).combine_chunks()
    rows_done, rows_hashed = _Rows(done["serial"]), _Rows(hashed["serial"])
    with parquet.writing(folder / LEDGER, ledger.SCHEMA) as writer:
        for part in parts:
            # Parts of a build that an earlier version began lack columns.
            scanned = pa.concat_tables([SCHEMA.empty_table(), parquet.read(part)], promote_options="default")
            twin = pc.is_in(scanned["serial"], unused)
            at = rows_done.of(scanned["serial"])
            converted = pc.is_valid(at)
            chosen = {
                "path": pa.array([ledger.path_text(p) for p in scanned["path"].to_pylist()], pa.string()),
                "size": scanned["size"],
                "sha256": hashed["sha256"].take(rows_hashed.of(scanned["serial"])),
                "verdict": pc.if_else(twin, "dropped", pc.coalesce(done["verdict"].take(at), scanned["verdict"])),
                "reason": pc.if_else(twin, "for_processing", pc.coalesce(done["reason"].take(at), scanned["reason"])),
                "repairs": _choose(converted, done["repairs"].take(at), scanned["repairs"]),
                "flags": _choose(converted, done["flags"].take(at), scanned["flags"]),
                "key": done["key"].take(at),
                "shard": done["shard"].take(at),
                "message": pc.if_else(
                    twin,
                    "its processed twin is in the export",
                    pc.coalesce(done["message"].take(at), scanned["message"]),
                ),
                **{name: scanned[name] for name in ("sop", "study", "series", "accession", "patient")},
            }
            writer.write_table(pa.table(chosen).cast(ledger.SCHEMA))


class _Rows:
    """Finds rows by serial: serials of a generation count its images, so that an array says it for all parts."""

    def __init__(self, serials: pa.ChunkedArray) -> None:
        numbers = serials.to_numpy()
        self._rows = np.full(int(numbers.max(initial=-1)) + 1, -1, np.int64)
        self._rows[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the first row of each

    def of(self, serials: pa.ChunkedArray) -> pa.Array:
        """Return the row of each of these serials, null where there is none."""
        numbers = serials.to_numpy()
        there = numbers < len(self._rows)
        rows = np.full(len(numbers), -1, np.int64)
        rows[there] = self._rows[numbers[there]]
        return pa.array(rows, mask=rows < 0)


def _choose(where: pa.ChunkedArray, yes: pa.ChunkedArray, no: pa.ChunkedArray) -> pa.Array:
    picked = zip(where.to_pylist(), yes.to_pylist(), no.to_pylist(), strict=True)
    return pa.array([a if w else b for w, a, b in picked], pa.list_(pa.string()))


def _name_kept(done: pa.Table, samples: pa.Table, near: Path) -> pa.Table:
    """For dropped duplicates, the key and shard of the sample that was kept."""
    hashes, keys = samples["pixel_hash"].combine_chunks(), samples["key"].combine_chunks()
    if near.exists():  # what was dropped there stands for its exact copies too
        decided = parquet.read(near, ["pixel_hash", "kept"])
        hashes = pa.concat_arrays([hashes, decided["pixel_hash"].combine_chunks()])
        keys = pa.concat_arrays([keys, decided["kept"].combine_chunks()])
    reason, written = done["reason"].combine_chunks(), pc.equal(done["verdict"], "written").combine_chunks()
    duplicate = pc.is_in(reason, pa.array(["duplicate_exact", "duplicate_near"]))
    kept = keys.take(pc.index_in(pc.if_else(duplicate, done["pixel_hash"].combine_chunks(), None), hashes))
    shard = samples["shard"].combine_chunks().take(pc.index_in(kept, samples["key"].combine_chunks()))
    words = pc.if_else(
        pc.equal(reason, "duplicate_exact"),
        "the same pixels as the sample named by key",
        "nearly the same pixels as the sample named by key",
    )
    for name, column in (
        ("key", pc.if_else(written, done["key"].combine_chunks(), kept)),
        ("shard", pc.if_else(written, done["shard"].combine_chunks(), shard)),
        ("message", pc.if_else(duplicate, words, done["message"].combine_chunks())),
    ):
        done = done.set_column(done.schema.get_field_index(name), name, column)
    return done
