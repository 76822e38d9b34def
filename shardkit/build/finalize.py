"""The end of a generation: its manifest rows, fingerprints, links between patients and ledger, from the journals.

Every step derives its output from the journals, the plan and former generations, so an interrupted one is just redone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build import journal, ledger
from shardkit.build.deduplicate import NEAR
from shardkit.build.scan_rows import SCHEMA
from shardkit.build.shard_plan import TWINS, GenerationPlan
from shardkit.content import THUMB
from shardkit.dataset import manifest
from shardkit.storage import Store, parquet, private, spill
from shardkit.storage.spill import Regrouped, Spill

FINGERPRINTS, LINKS, LEDGER = "fingerprints.parquet", "links.parquet", ledger.NAME
_FINGERPRINT = pa.schema(
    [("key", pa.string()), ("body_part", pa.string()), ("view", pa.string()), ("thumb", pa.binary(THUMB**2))]
)
_DIGEST = pa.schema([("serial", pa.int64()), ("sha256", pa.string())])
_DUPLICATES = pa.array(["duplicate_exact", "duplicate_near"])
_FILES = 256  # small files whose rows are handled at once
_LATER = ("group", "split")  # decided of all samples together
_JOURNALED = [name for name in manifest.SCHEMA.names if name not in _LATER]
_FILE = pa.schema(
    [
        journal.SCHEMA.field(name)
        for name in (
            "serial", "verdict", "reason", "message", "repairs", "flags", "key", "shard", "pixel_hash", "patient",
        )
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the journals of a generation say, on disk.

    Attributes
    ----------
    samples : Spill
        Manifest rows of former generations, then of this one in plan order; group and split of these are still null.
    files : Spill
        What became of each file of this generation, in plan order.
    """

    samples: Spill
    files: Spill


def gather(store: Store, plan: GenerationPlan, generation: int, folder: Path, place: Path, old: Spill) -> Gathered:
    """Read the journals, once for all that is made of them.

    Thumbnails of the written samples are kept: near-duplicates and polarity are judged on them, now and later.

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
    place : Path
        Folder of the spills.
    old : Spill
        Samples of former generations.
    """
    paths = [place / name for name in ("samples", "files")]
    columns = list(dict.fromkeys([*_FILE.names, *_FINGERPRINT.names, *_JOURNALED]))
    with (
        spill.writing(paths[0], manifest.SCHEMA) as samples,
        spill.writing(paths[1], _FILE) as files,
        parquet.writing(folder / FINGERPRINTS, _FINGERPRINT) as fingerprints,
    ):
        for table in spill.blocks(old):
            samples.write(table)
        for shard in plan.shards:
            table = journal.read(store, generation, shard.name, columns)
            files.write(table)
            table = table.filter(pc.equal(table["verdict"], "written"))
            fingerprints.write_table(table.select(_FINGERPRINT.names))
            for name in _LATER:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
            samples.write(table)
    return Gathered(Spill(paths[0]), Spill(paths[1]))


def write_links(folder: Path, found: Gathered) -> None:
    """Keep pairs of patients of whom one file turned out to hold the other's image: a split must not part them."""
    pairs = _owners(found)
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


def _owners(found: Gathered) -> set[tuple[str | None, str | None]]:
    """Return the patient of each exact copy, and that of the sample that was kept, where they are not one."""
    files = found.files.select(["reason", "pixel_hash", "patient"])
    copies = spill.matching(files, "reason", pa.array(["duplicate_exact"]))
    samples = found.samples.select(["pixel_hash", "patient"])
    kept = spill.matching(samples, "pixel_hash", pc.unique(copies["pixel_hash"]))
    if not copies.num_rows:
        return set()
    owners = kept["patient"].take(pc.index_in(copies["pixel_hash"], kept["pixel_hash"].combine_chunks()))
    others = pc.not_equal(copies["patient"], owners)
    return set(zip(copies["patient"].filter(others).to_pylist(), owners.filter(others).to_pylist(), strict=True))


def write_digests(path: Path, digests: dict[int, str]) -> None:
    """Keep the SHA-256 of a shard's source files, by serial, in the private folder."""
    private.folder(path.parent)
    parquet.write(pa.table([list(digests), list(digests.values())], schema=_DIGEST), path)


def write_ledger(folder: Path, parts: list[Path], found: Gathered, digests: list[Path], place: Path) -> None:
    """Write one row per file of this generation, a scan part at a time.

    Parameters
    ----------
    folder : Path
        The generation's private folder.
    parts : list of Path
        Its scan parts; serials count their rows.
    found : Gathered
        What its journals say.
    digests : list of Path
        What `write_digests` wrote of each shard.
    place : Path
        Folder of the spills.
    """
    unused = parquet.read(folder / TWINS)["serial"].combine_chunks()
    ends = np.cumsum([pq.read_metadata(part).num_rows for part in parts])
    with (
        Regrouped(place / "done", _FILE, len(parts)) as done_by_part,
        Regrouped(place / "hashed", _DIGEST, len(parts)) as hashed_by_part,
        parquet.writing(folder / LEDGER, ledger.SCHEMA) as writer,
    ):
        for block in _naming_kept(found, folder / NEAR):
            _add(done_by_part, block, ends)
        for start in range(0, len(digests), _FILES):
            some = [parquet.read(path, threads=False) for path in digests[start : start + _FILES]]
            _add(hashed_by_part, pa.concat_tables(some), ends)
        for part, done, hashed in zip(parts, done_by_part.groups(), hashed_by_part.groups(), strict=True):
            writer.write_table(_ledger_rows(part, done, hashed, unused))


def _add(grouped: Regrouped, table: pa.Table, ends: npt.NDArray[np.int64]) -> None:
    """Add rows to the scan parts that their serials lie in."""
    serials = table["serial"].to_numpy()
    order = np.argsort(serials, kind="stable")
    grouped.add(table.combine_chunks().take(pa.array(order)), np.searchsorted(serials[order], ends).tolist())


def _ledger_rows(part: Path, done: pa.Table, hashed: pa.Table, unused: pa.Array) -> pa.Table:
    """Return the ledger's rows of a scan part, from its own and what became of its files."""
    # Parts of a build that an earlier version began lack columns.
    scanned = pa.concat_tables([SCHEMA.empty_table(), parquet.read(part)], promote_options="default")
    twin = pc.is_in(scanned["serial"], unused)
    at = _rows(done["serial"], scanned["serial"])
    converted = pc.is_valid(at)
    chosen = {
        "path": pa.array([ledger.path_text(p) for p in scanned["path"].to_pylist()], pa.string()),
        "size": scanned["size"],
        "sha256": hashed["sha256"].take(_rows(hashed["serial"], scanned["serial"])),
        "verdict": pc.if_else(twin, "dropped", pc.coalesce(done["verdict"].take(at), scanned["verdict"])),
        "reason": pc.if_else(twin, "for_processing", pc.coalesce(done["reason"].take(at), scanned["reason"])),
        "repairs": pc.if_else(converted, done["repairs"].take(at), scanned["repairs"]),
        "flags": pc.if_else(converted, done["flags"].take(at), scanned["flags"]),
        "key": done["key"].take(at),
        "shard": done["shard"].take(at),
        "message": pc.if_else(
            twin, "its processed twin is in the export", pc.coalesce(done["message"].take(at), scanned["message"])
        ),
        **{name: scanned[name] for name in ("sop", "study", "series", "accession", "patient")},
    }
    return pa.table(chosen).cast(ledger.SCHEMA)


def _rows(serials: pa.ChunkedArray, wanted: pa.ChunkedArray) -> pa.Array:
    """Return the row of each wanted serial, the first of equal ones; null where there is none."""
    known, numbers = serials.to_numpy(), wanted.to_numpy()
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], numbers)
    there = at < len(known)
    rows = np.full(len(numbers), -1, np.int64)
    rows[there] = order[at[there]]
    there[there] = known[rows[there]] == numbers[there]
    return pa.array(rows, mask=~there)


def _naming_kept(found: Gathered, near: Path) -> Iterator[pa.Table]:
    """Yield what became of each file, in blocks; of dropped duplicates, key and shard are those of the kept sample."""
    keys, shards = _kept(found, near)
    end = 0
    for block in spill.blocks(found.files):
        reason, written = block["reason"].combine_chunks(), pc.equal(block["verdict"], "written").combine_chunks()
        copies = pc.is_in(reason, _DUPLICATES)
        start, end = end, end + copies.true_count
        words = pc.if_else(
            pc.equal(reason, "duplicate_exact"),
            "the same pixels as the sample named by key",
            "nearly the same pixels as the sample named by key",
        )
        for name, column in (
            ("key", pc.replace_with_mask(_where(written, block["key"]), copies, keys[start:end])),
            ("shard", pc.replace_with_mask(_where(written, block["shard"]), copies, shards[start:end])),
            ("message", pc.if_else(copies, words, block["message"].combine_chunks())),
        ):
            block = block.set_column(block.schema.get_field_index(name), name, column)
        yield block


def _where(mask: pa.Array, column: pa.ChunkedArray) -> pa.Array:
    return pc.if_else(mask, column.combine_chunks(), None)


def _kept(found: Gathered, near: Path) -> tuple[pa.Array, pa.Array]:
    """Return key and shard of the kept sample of each dropped duplicate, in the order of the files.

    All are looked up at once: each search makes a table of what it looks in.
    """
    copies = spill.matching(found.files.select(["reason", "pixel_hash"]), "reason", _DUPLICATES)["pixel_hash"]
    same = spill.matching(found.samples.select(["pixel_hash", "key"]), "pixel_hash", pc.unique(copies))
    hashes, keys = same["pixel_hash"].combine_chunks(), same["key"].combine_chunks()
    if near.exists():  # what was dropped there stands for its exact copies too
        decided = parquet.read(near, ["pixel_hash", "kept"])
        hashes = pa.concat_arrays([hashes, decided["pixel_hash"].combine_chunks()])
        keys = pa.concat_arrays([keys, decided["kept"].combine_chunks()])
    kept = keys.take(pc.index_in(copies.combine_chunks(), hashes))
    samples = spill.matching(found.samples.select(["key", "shard"]), "key", pc.unique(kept))
    at = pc.index_in(kept, samples["key"].combine_chunks())
    return kept, samples["shard"].combine_chunks().take(at)
