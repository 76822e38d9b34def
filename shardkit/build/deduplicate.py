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
from shardkit.storage.spill import Spill

NEAR = "near.parquet"
"""What `near_duplicates` decided, in a generation's folder."""
_LIGHT = ["serial", "verdict", "repairs", "plain", "pixel_hash"]
_HASH = journal.SCHEMA.field("pixel_hash").type


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Samples that a committed shard must lose: serial -> reason."""

    shard: PlannedShard
    losers: dict[int, str]


def exact_duplicates(store: Store, plan: GenerationPlan, generation: int, old: Spill) -> list[Rewrite]:
    """Find samples with the pixels of a sample of a former generation, or of a preferred one in another shard.

    Parameters
    ----------
    store : Store
        The dataset.
    plan : GenerationPlan
        The generation's shards.
    generation : int
        Its number.
    old : Spill
        Samples of former generations.
    """
    light = _light(store, plan, generation)
    keys = (light.serial, ~light.plain, light.repairs, light.pixel_hash[:, 1], light.pixel_hash[:, 0])
    order = np.lexsort(keys)
    ranked = light.pixel_hash[order]
    repeats = np.zeros(len(order), bool)
    repeats[order[1:]] = (ranked[1:] == ranked[:-1]).all(1)
    if old.num_rows:
        mine = pa.Array.from_buffers(_HASH, len(order), [None, pa.py_buffer(light.pixel_hash)])
        repeats |= pc.is_in(mine, old["pixel_hash"].combine_chunks()).to_numpy(zero_copy_only=False)
    return _rewrites(plan, light.shard[repeats], light.serial[repeats], "duplicate_exact")


def near_duplicates(
    store: Store,
    plan: GenerationPlan,
    generation: int,
    old: Spill,
    samples: Spill,
    thumbs: Thumbnails,
    folder: Path,
) -> list[Rewrite]:
    """Find all but the preferred sample of each group of near-duplicates; samples of former generations stay.

    Decided once and kept in `folder`: after some shards were rewritten, groups would come out otherwise.

    Parameters
    ----------
    store, plan, generation, old
        As for `exact_duplicates`.
    samples : Spill
        `old`, then those of this generation.
    thumbs : Thumbnails
        Of all of them.
    folder : Path
        The generation's private folder.
    """
    decided = folder / NEAR
    if not decided.exists():
        near, _ = confirmed_pairs(samples, thumbs)
        light, n = _light(store, plan, generation), old.num_rows
        repairs, serial = np.append(np.full(n, -1), light.repairs), np.append(np.arange(n), light.serial)
        labels = duplicates.components(len(serial), near)
        order = np.lexsort((serial, repairs, labels))
        loses = np.zeros(len(order), bool)
        loses[order[1:]] = labels[order][1:] == labels[order][:-1]
        chosen = np.flatnonzero(loses[n:])
        best = np.zeros(int(labels.max(initial=-1)) + 1, np.int64)
        best[labels[order][~loses[order]]] = order[~loses[order]]  # the one of each group that stays
        keeper = samples.select(["key", "patient"]).take(best[labels[n + chosen]])
        lost = samples.select(["pixel_hash", "patient"]).take(n + chosen)  # samples are in the order of `light`
        columns = {"shard": pa.array(light.shard[chosen]), "serial": pa.array(light.serial[chosen])}
        columns |= {"pixel_hash": lost["pixel_hash"], "patient": lost["patient"]}
        columns |= {"kept": keeper["key"], "kept_patient": keeper["patient"]}
        parquet.write(pa.table(columns), decided)
    table = parquet.read(decided)
    return _rewrites(plan, table["shard"].to_numpy(), table["serial"].to_numpy(), "duplicate_near")


@dataclass(frozen=True, slots=True)
class _Light:
    """The few columns of written rows that duplicates are found by, in plan order, and the shard of each row."""

    serial: npt.NDArray[np.int64]
    repairs: npt.NDArray[np.int16]  # how many
    plain: npt.NDArray[np.bool_]
    pixel_hash: npt.NDArray[np.uint64]  # two a row
    shard: npt.NDArray[np.int64]


def _light(store: Store, plan: GenerationPlan, generation: int) -> _Light:
    nothing = np.zeros(0, np.int64)
    found = [_Light(nothing, np.zeros(0, np.int16), np.zeros(0, np.bool_), np.zeros((0, 2), np.uint64), nothing)]
    for shard in plan.shards:
        table = journal.read(store, generation, shard.name, _LIGHT)
        table = table.filter(pc.equal(table["verdict"], "written"))
        found.append(
            _Light(
                table["serial"].to_numpy(),
                pc.list_value_length(table["repairs"]).to_numpy().astype(np.int16),
                table["plain"].to_numpy().astype(bool),
                np.frombuffer(b"".join(table["pixel_hash"].to_pylist()), "<u8").reshape(-1, 2),
                np.full(table.num_rows, shard.group),
            )
        )
    return _Light(
        np.concatenate([one.serial for one in found]),
        np.concatenate([one.repairs for one in found]),
        np.concatenate([one.plain for one in found]),
        np.concatenate([one.pixel_hash for one in found]),
        np.concatenate([one.shard for one in found]),
    )


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
