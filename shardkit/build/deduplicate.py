"""Samples whose pixels another shard has too: which of them go, and the shards without them.

Decided from the journals, the plan and former generations, so an interrupted step is just redone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import formats as storing
from shardkit.build import duplicates, journal
from shardkit.build.relations import Thumbnails, confirmed_pairs
from shardkit.build.shard_plan import GenerationPlan, PlannedShard
from shardkit.storage import Store, parquet

NEAR = "near.parquet"
"""What `near_duplicates` decided, in a generation's folder."""
_LIGHT = ["serial", "verdict", "repairs", "plain", "pixel_hash", "phash", "key", "patient"]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Samples that a committed shard must lose: serial -> reason."""

    shard: PlannedShard
    losers: dict[int, str]


def exact_duplicates(store: Store, plan: GenerationPlan, generation: int, old: pa.Table) -> list[Rewrite]:
    """Find samples with the pixels of a sample of a former generation, or of a preferred one in another shard.

    Parameters
    ----------
    store : Store
        The dataset.
    plan : GenerationPlan
        The generation's shards.
    generation : int
        Its number.
    old : pyarrow.Table
        Samples of former generations.
    """
    light, shards = _light(store, plan, generation)
    pixel_hash = np.frombuffer(b"".join(light["pixel_hash"].to_pylist()), "<u8").reshape(-1, 2)
    repairs = pc.list_value_length(light["repairs"]).to_numpy()
    plain = light["plain"].to_numpy(zero_copy_only=False).astype(bool)
    serial = light["serial"].to_numpy()
    order = np.lexsort((serial, ~plain, repairs, pixel_hash[:, 1], pixel_hash[:, 0]))
    ranked = pixel_hash[order]
    repeats = np.zeros(len(order), bool)
    repeats[order[1:]] = (ranked[1:] == ranked[:-1]).all(1)
    repeats |= pc.is_in(light["pixel_hash"], old["pixel_hash"].combine_chunks()).to_numpy(zero_copy_only=False)
    return _rewrites(plan, shards[repeats], serial[repeats], "duplicate_exact")


def near_duplicates(
    store: Store,
    plan: GenerationPlan,
    generation: int,
    old: pa.Table,
    samples: pa.Table,
    thumbs: Thumbnails,
    folder: Path,
) -> list[Rewrite]:
    """Find all but the preferred sample of each group of near-duplicates; samples of former generations stay.

    Decided once and kept in `folder`: after some shards were rewritten, groups would come out otherwise.

    Parameters
    ----------
    store, plan, generation, old
        As for `exact_duplicates`.
    samples : pyarrow.Table
        `old`, then those of this generation.
    thumbs : Thumbnails
        Of all of them.
    folder : Path
        The generation's private folder.
    """
    decided = folder / NEAR
    if not decided.exists():
        near, _ = confirmed_pairs(samples, thumbs)
        light, shards = _light(store, plan, generation)
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
    return _rewrites(plan, table["shard"].to_numpy(), table["serial"].to_numpy(), "duplicate_near")


def _light(store: Store, plan: GenerationPlan, generation: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Return the few columns of written rows that duplicates are found by, in plan order, and the shard of each row."""
    tables, index = (
        [pa.table({n: pa.array([], journal.SCHEMA.field(n).type) for n in _LIGHT})],
        [np.zeros(0, np.int64)],
    )
    for shard in plan.shards:
        table = journal.read(store, generation, shard.name, _LIGHT)
        table = table.filter(pc.equal(table["verdict"], "written"))
        tables.append(table)
        index.append(np.full(table.num_rows, shard.group))
    return pa.concat_tables(tables).combine_chunks(), np.concatenate(index)


def _rewrites(
    plan: GenerationPlan, shards: npt.NDArray[np.int64], serials: npt.NDArray[np.int64], reason: str
) -> list[Rewrite]:
    return [
        Rewrite(plan.shards[int(g)], dict.fromkeys(serials[shards == g].tolist(), reason)) for g in np.unique(shards)
    ]


def rewrite_shard(store: Store, generation: int, job: Rewrite) -> None:
    """Copy a shard without some of its samples, and commit it in the old one's place. Runs on a worker.

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
            storing.commit(store, objects, storing.keep(form, old, new, kept, job.shard.capacity))
    else:
        storing.remove(store, objects)
    journal.write(store, generation, job.shard.name, rows)
