"""The end of a build: settle duplicates across shards, then write fingerprints, manifest and ledger from the journals.

Every step derives its output from the journals, the plan and former generations, so an interrupted one is just redone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit import formats as storing
from shardkit.build import duplicates, journal, ledger
from shardkit.build.shard_plan import TWINS, Layout, Shard
from shardkit.content import THUMB
from shardkit.dataset import manifest
from shardkit.storage import parquet, private
from shardkit.storage.store import Store

FINGERPRINTS, LINKS, NEAR, LEDGER = "fingerprints.parquet", "links.parquet", "near.parquet", ledger.NAME
DATASET_FLAGS = {"near_duplicate", "polarity_suspect", "uid_collision"}
"""Flags that depend on other samples."""
_BLOCK = 1 << 16  # rows handled as Python objects at once
_LIGHT = ["serial", "verdict", "repairs", "plain", "pixel_hash", "phash", "key", "patient"]
_FINGERPRINT = pa.schema(
    [("key", pa.string()), ("body_part", pa.string()), ("view", pa.string()), ("thumb", pa.binary(THUMB**2))]
)
_DIGEST = pa.schema([("serial", pa.int64()), ("sha256", pa.string())])


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Samples that a committed shard must lose: serial -> reason."""

    shard: Shard
    losers: dict[int, str]


def exact_duplicates(store: Store, layout: Layout, generation: int, old: pa.Table) -> list[Rewrite]:
    """Samples with the pixels of a sample of a former generation, or of a preferred one in another shard."""
    light, shards = _light(store, layout, generation)
    pixel_hash = np.frombuffer(b"".join(light["pixel_hash"].to_pylist()), "<u8").reshape(-1, 2)
    repairs = pc.list_value_length(light["repairs"]).to_numpy()
    plain = light["plain"].to_numpy(zero_copy_only=False).astype(bool)
    serial = light["serial"].to_numpy()
    order = np.lexsort((serial, ~plain, repairs, pixel_hash[:, 1], pixel_hash[:, 0]))
    ranked = pixel_hash[order]
    repeats = np.zeros(len(order), bool)
    repeats[order[1:]] = (ranked[1:] == ranked[:-1]).all(1)
    repeats |= pc.is_in(light["pixel_hash"], old["pixel_hash"].combine_chunks()).to_numpy(zero_copy_only=False)
    return _rewrites(layout, shards[repeats], serial[repeats], "duplicate_exact")


def near_duplicates(
    store: Store, layout: Layout, generation: int, old: pa.Table, samples: pa.Table, thumbs: "Thumbnails", folder: Path
) -> list[Rewrite]:
    """All but the preferred sample of each group of near-duplicates; samples of former generations stay.

    Decided once and kept in `folder`: after some shards were rewritten, groups would come out otherwise.
    """
    decided = folder / NEAR
    if not decided.exists():
        near, _ = confirmed_pairs(samples, thumbs)
        light, shards = _light(store, layout, generation)
        n = old.num_rows
        repairs = np.append(np.full(n, -1), pc.list_value_length(light["repairs"]).to_numpy())
        serial = np.append(np.arange(n), light["serial"].to_numpy())
        labels = duplicates.components(n + light.num_rows, near)
        order = np.lexsort((serial, repairs, labels))
        loses = np.zeros(len(order), bool)
        loses[order[1:]] = labels[order][1:] == labels[order][:-1]
        chosen = np.flatnonzero(loses[n:])
        best = np.zeros(int(labels.max(initial=-1)) + 1, np.int64)
        best[labels[order][~loses[order]]] = order[~loses[order]]  # the one of each group that stays
        keeper = samples.take(pa.array(best[labels[n + chosen]]))
        lost = light.take(pa.array(chosen))
        columns = {"shard": pa.array(shards[chosen]), "serial": lost["serial"], "pixel_hash": lost["pixel_hash"]}
        columns |= {"patient": lost["patient"], "kept": keeper["key"], "kept_patient": keeper["patient"]}
        parquet.write(pa.table(columns), decided)
    table = parquet.read(decided)
    return _rewrites(layout, table["shard"].to_numpy(), table["serial"].to_numpy(), "duplicate_near")


def _light(store: Store, layout: Layout, generation: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The written rows' few columns that duplicates are found by, in plan order, and the shard index of each."""
    tables, index = (
        [pa.table({n: pa.array([], journal.SCHEMA.field(n).type) for n in _LIGHT})],
        [np.zeros(0, np.int64)],
    )
    for shard in layout.shards:
        table = journal.read(store, generation, shard.name, _LIGHT)
        table = table.filter(pc.equal(table["verdict"], "written"))
        tables.append(table)
        index.append(np.full(table.num_rows, shard.group))
    return pa.concat_tables(tables).combine_chunks(), np.concatenate(index)


def _rewrites(
    layout: Layout, shards: npt.NDArray[np.int64], serials: npt.NDArray[np.int64], reason: str
) -> list[Rewrite]:
    return [
        Rewrite(layout.shards[int(g)], dict.fromkeys(serials[shards == g].tolist(), reason)) for g in np.unique(shards)
    ]


def rewrite_shard(store: Store, generation: int, job: Rewrite) -> None:
    """Runs on a worker: copy a shard without some of its samples and commit it in the old one's place.

    The shard is replaced before its journal; redone after a crash in between, it gives the same bytes.
    """
    rows = journal.read(store, generation, job.shard.name).to_pylist()
    form, objects = storing.shard_format(job.shard.format), job.shard.objects
    for row in rows:
        if row["serial"] in job.losers and row["verdict"] == "written":
            row |= {"verdict": "dropped", "reason": job.losers[row["serial"]], "shard": None, "offset": None}
    kept = [row for row in rows if row["verdict"] == "written"]
    if kept:
        with journal.staging(store) as folder:
            old, new = (storing.files(folder, name, len(objects)) for name in ("old", "new"))
            storing.fetch(store, objects, old)
            storing.commit(store, objects, storing.keep(form, old, new, kept, job.shard.places))
    else:
        storing.remove(store, objects)
    journal.write(store, generation, job.shard.name, rows)


def new_samples(store: Store, layout: Layout, generation: int) -> pa.Table:
    """This generation's manifest rows, in plan order; group and split are still null."""
    tables = [manifest.SCHEMA.empty_table()]
    for shard in layout.shards:
        table = journal.read(store, generation, shard.name)
        table = table.filter(pc.equal(table["verdict"], "written"))
        table = table.append_column("group", pa.nulls(table.num_rows, pa.string()))
        table = table.append_column("split", pa.nulls(table.num_rows, pa.string()))
        tables.append(table.select(manifest.SCHEMA.names).cast(manifest.SCHEMA))
    return pa.concat_tables(tables)


def write_fingerprints(store: Store, layout: Layout, generation: int, folder: Path) -> None:
    """Thumbnails of the written samples, private: near-duplicates and polarity are judged on them, now and later."""
    with parquet.writing(folder / FINGERPRINTS, _FINGERPRINT) as writer:
        for shard in layout.shards:
            table = journal.read(store, generation, shard.name, [*_FINGERPRINT.names, "verdict"])
            writer.write_table(table.filter(pc.equal(table["verdict"], "written")).select(_FINGERPRINT.names))


def write_links(store: Store, layout: Layout, generation: int, folder: Path, samples: pa.Table) -> None:
    """Pairs of patients of whom one file turned out to hold the other's image: a split must not part them."""
    kept = samples["pixel_hash"].combine_chunks()
    pairs: set[tuple[str, str]] = set()
    for shard in layout.shards:
        table = journal.read(store, generation, shard.name, ["reason", "pixel_hash", "patient"])
        table = table.filter(pc.equal(table["reason"], "duplicate_exact"))
        owners = samples["patient"].take(pc.index_in(table["pixel_hash"], kept).combine_chunks())
        pairs.update(zip(table["patient"].to_pylist(), owners.to_pylist(), strict=True))
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


@dataclass(frozen=True)
class Thumbnails:
    """The thumbnails of all generations."""

    files: list[Path]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Everything, some thousand rows at a time."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(4096)

    def of(self, keys: pa.Array) -> npt.NDArray[np.uint8]:
        """(n, pixels) thumbnails of `keys`, in their order."""
        out = np.zeros((len(keys), THUMB**2), np.uint8)
        if len(keys):
            for batch in self.batches():
                at = pc.index_in(keys, batch["key"])
                found = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
                if len(found):
                    out[found] = _pixels(batch["thumb"].take(at.drop_null()))
        return out


def _pixels(column: pa.Array) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, THUMB**2)


def confirmed_pairs(samples: pa.Table, thumbs: Thumbnails) -> tuple[duplicates.Pairs, duplicates.Pairs]:
    """(near-duplicates, image-and-negative pairs) among the samples: close hashes, confirmed by correlation."""
    hashes = samples["phash"].to_numpy()
    out = []
    for sign, pairs in ((1, duplicates.near_pairs(hashes)), (-1, duplicates.inverted_pairs(hashes))):
        nodes, flat = np.unique(pairs, return_inverse=True)
        pixels = thumbs.of(samples["key"].take(pa.array(nodes)).combine_chunks())
        ends = flat.reshape(pairs.shape)
        r = duplicates.correlation(pixels[ends[:, 0]], pixels[ends[:, 1]])
        out.append(pairs[sign * r >= duplicates.MIN_CORRELATION])
    return out[0], out[1]


def finish_samples(samples: pa.Table, thumbs: Thumbnails, links: list[Path], split: Callable[[str], str]) -> pa.Table:
    """The samples with flags, groups and splits as the whole dataset gives them."""
    near, inverse = confirmed_pairs(samples, thumbs)
    both = np.concatenate([near, inverse])
    found: dict[int, set[str]] = {}
    suspects = set(duplicates.minority_sides(samples.num_rows, near, inverse).tolist()) if len(inverse) else set()
    for flag, nodes in (
        ("near_duplicate", set(np.unique(both).tolist())),
        ("polarity_suspect", suspects | _off_template(samples, thumbs) | _with_flag(samples, "polarity_conflict")),
        ("uid_collision", set(_shared_uids(samples["key"]))),
    ):
        for node in nodes:
            found.setdefault(node, set()).add(flag)
    groups = _groups(samples, both)
    columns = {
        "flags": _flags(samples["flags"], found),
        "group": pa.array((groups.get(i) for i in range(samples.num_rows)), pa.string()),
        "split": _splits(samples, both, links, split),
    }
    for name, column in columns.items():
        samples = samples.set_column(samples.schema.get_field_index(name), name, column)
    return samples.cast(manifest.SCHEMA)


def _with_flag(samples: pa.Table, flag: str) -> set[int]:
    flags = samples["flags"].combine_chunks()
    found = pc.equal(flags.flatten(), flag).to_numpy(zero_copy_only=False)
    return set(pc.list_parent_indices(flags).to_numpy()[found].tolist())


def _groups(samples: pa.Table, pairs: duplicates.Pairs) -> dict[int, str]:
    """Row -> the least key of its group of near-duplicates, for rows in one."""
    nodes = np.unique(pairs)
    keys = samples["key"].take(pa.array(nodes)).to_pylist()
    labels = duplicates.components(len(nodes), np.searchsorted(nodes, pairs))
    least: dict[int, str] = {}
    for label, key in zip(labels.tolist(), keys, strict=True):
        least[label] = min(key, least.get(label, key))
    return {node: least[label] for node, label in zip(nodes.tolist(), labels.tolist(), strict=True)}


def _flags(column: pa.ChunkedArray, found: dict[int, set[str]]) -> pa.ChunkedArray:
    """Each row's own flags and those found now; dataset-wide flags of former generations are found anew."""
    chunks, start = [], 0
    for chunk in (column.slice(i, _BLOCK) for i in range(0, len(column), _BLOCK)):
        rows = chunk.to_pylist()
        new = [sorted({*row} - DATASET_FLAGS | found.get(start + i, set())) for i, row in enumerate(rows)]
        chunks.append(pa.array(new, pa.list_(pa.string())))
        start += len(rows)
    return pa.chunked_array(chunks, pa.list_(pa.string()))


def _splits(samples: pa.Table, pairs: duplicates.Pairs, links: list[Path], split: Callable[[str], str]) -> pa.Array:
    """Each row's split: one for all patients that near-duplicates, dropped duplicates or a common study connect."""
    encoded = samples["patient"].combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False)
    ends = np.concatenate([index[pairs], _study_pairs(samples["study"], index)])
    connected = [(names[a], names[b]) for a, b in np.unique(ends, axis=0).tolist()]
    for path in links:
        table = parquet.read(path)
        connected.extend(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True))
    splits = duplicates.group_splits(names, connected, split)
    return pa.array([splits[name] for name in names], pa.string()).take(encoded.indices)


def _study_pairs(column: pa.ChunkedArray, patients: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Pairs of patients named in one study: a missing or mistyped PatientID must not part its images."""
    study = column.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.lexsort((patients, study))
    study, patients = study[order], patients[order]
    same = (study[1:] == study[:-1]) & (study[1:] >= 0) & (patients[1:] != patients[:-1])
    return np.stack([patients[:-1][same], patients[1:][same]], 1)


def _off_template(samples: pa.Table, thumbs: Thumbnails) -> set[int]:
    templates, suspects = duplicates.Templates(), list[str]()
    for pass_ in ("add", "suspects"):
        for batch in thumbs.batches():
            known = pc.is_in(batch["key"], samples["key"].combine_chunks())
            batch = batch.filter(known)
            kinds = [
                (b or "", v or "")
                for b, v in zip(batch["body_part"].to_pylist(), batch["view"].to_pylist(), strict=True)
            ]
            pixels = _pixels(batch["thumb"])
            if pass_ == "add":
                templates.add(kinds, pixels)
            else:
                suspects.extend(batch["key"].filter(pa.array(templates.suspects(kinds, pixels))).to_pylist())
    at = pc.index_in(pa.array(suspects, pa.string()), samples["key"].combine_chunks())
    return set(at.to_pylist())


def _shared_uids(keys: pa.ChunkedArray) -> list[int]:
    """Samples whose key has the same UID part as another's: one SOP UID on different pixels."""
    uids = pc.utf8_slice_codeunits(keys, 0, 20).combine_chunks().dictionary_encode()
    index = uids.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(index, minlength=1)
    return np.flatnonzero(counts[index] > 1).tolist() if len(index) else []


def write_digests(path: Path, digests: dict[int, str]) -> None:
    """Keep the SHA-256 of a shard's source files, by serial, in the private folder."""
    private.folder(path.parent)
    parquet.write(pa.table([list(digests), list(digests.values())], schema=_DIGEST), path)


def write_ledger(
    store: Store,
    layout: Layout,
    generation: int,
    folder: Path,
    parts: list[Path],
    samples: pa.Table,
    digests: list[Path],
) -> None:
    """One row per file of this generation. digests: what `write_digests` wrote of each shard."""
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
    tables += [journal.read(store, generation, shard.name, columns) for shard in layout.shards]
    done = _name_kept(pa.concat_tables(tables).combine_chunks(), samples, folder / NEAR)
    unused = parquet.read(folder / TWINS)["serial"].combine_chunks()
    hashed = pa.concat_tables([_DIGEST.empty_table(), *map(parquet.read, digests)]).combine_chunks()
    with parquet.writing(folder / LEDGER, ledger.SCHEMA) as writer:
        for part in parts:
            scanned = parquet.read(part)
            twin = pc.is_in(scanned["serial"], unused)
            at = pc.index_in(scanned["serial"], done["serial"].combine_chunks()).combine_chunks()
            converted = pc.is_valid(at)
            chosen = {
                "path": pa.array([ledger.path_text(p) for p in scanned["path"].to_pylist()], pa.string()),
                "size": scanned["size"],
                "sha256": hashed["sha256"].take(pc.index_in(scanned["serial"], hashed["serial"].combine_chunks())),
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
            }
            writer.write_table(pa.table(chosen).cast(ledger.SCHEMA))


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
