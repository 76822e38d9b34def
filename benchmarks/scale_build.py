"""The last stage of a build of any size: what its conversion leaves is made up without pixels, then assembled for real.

One image of a small dataset stands for all: every shard is a link to its shard, so that the report has pictures. Keys,
hashes, paths, patients and studies are each row's own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.results import Record
from benchmarks.scale_data import SHARD, hashes, texts
from shardkit.build import finalize, journal, run, scan, scan_rows, shard_plan
from shardkit.build.stages import Quiet
from shardkit.config import BuildConfig
from shardkit.content import THUMB
from shardkit.dataset import contents, manifest
from shardkit.dataset.bins import Bin
from shardkit.dataset.rounding import ceil_div
from shardkit.storage import parquet

COPIES = 0.01  # share of files that are exact copies of the row before
PATIENT, STUDY = 5, 2  # images of each
_KINDS = 64  # thumbnails that differ


def _begun(place: str) -> run._Run:
    folder = Path(place)
    (folder / "source").mkdir(parents=True, exist_ok=True)
    config = BuildConfig.of(str(folder / "source"), str(folder / "out"), folder / "private", workers=1)
    held: Any = SimpleNamespace(check=lambda: None)
    return run._Run(config, Quiet(), None, held)


def make(template: str, place: str, rows: int) -> Record:
    """Leave what the conversion of so many files does: scans, plan, journals and digests, and shards that are links.

    Parameters
    ----------
    template : str
        Folder of a small dataset.
    place : str
        Folder to make.
    rows : int
        Files.
    """
    begun, rng, clock = _begun(place), np.random.default_rng(0), time.perf_counter()
    begun.workspace.begin()
    folder = begun.workspace.folder(0)
    (folder / "scan").mkdir(parents=True)
    (folder / "digests").mkdir()
    some = pq.read_table(Path(template) / manifest.NAME).slice(0, 1)
    one = some.to_pylist()[0]
    bin = Bin(one["bin_height"], one["bin_width"])
    shards = [
        {"name": f"shards/{bin.name}/{n:05d}", "bin": [bin.height, bin.width], "files": min(SHARD, rows - n * SHARD)}
        for n in range(ceil_div(rows, SHARD))
    ]
    content = {"patch": 48, "bins": [[bin.height, bin.width]], "shards": shards}
    (folder / shard_plan.INDEX).write_text(json.dumps(content))
    parquet.write(pa.table({"serial": pa.array([], pa.int64())}), folder / shard_plan.TWINS)
    parquet.write(scan_rows.SCHEMA.empty_table(), folder / shard_plan.PLAN)
    plan = shard_plan.GenerationPlan(folder)
    made = _Rows(some, rng)
    for start in range(0, rows, scan.PART):
        numbers = np.arange(start, min(start + scan.PART, rows))
        parquet.write(made.scanned(numbers), folder / "scan" / f"{start // scan.PART:05d}.parquet")
    source = Path(template).resolve() / one["shard"]
    for shard in plan.shards:
        numbers = shard.group * SHARD + np.arange(shard.files)
        table = made.journal(numbers, shard.objects[0])
        target = Path(place) / "out" / journal.object_name(0, shard.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="zstd")
        finalize.write_digests(
            begun.workspace.digests(0, shard.name),
            dict(zip(numbers.tolist(), texts(rng, len(numbers), True, 32).to_pylist(), strict=True)),
        )
        link = Path(place) / "out" / shard.objects[0]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return {"rows": rows, "shards": len(shards), "seconds": time.perf_counter() - clock}


class _Rows:
    """Rows by serial, the same whoever asks for them."""

    def __init__(self, some: pa.Table, rng: np.random.Generator) -> None:
        self._some, self._rng = some, rng
        self._thumbs = pa.array([rng.bytes(THUMB**2) for _ in range(_KINDS)], pa.binary(THUMB**2))

    def journal(self, serials: npt.NDArray[np.int64], shard: str) -> pa.Table:
        """Return the journal of a shard."""
        n, rng = len(serials), self._rng
        copies = rng.random(n) < COPIES
        copies[0] = False
        pixels = hashes(rng, n, True).take(np.maximum.accumulate(np.where(copies, 0, np.arange(n))))
        sample = self._some.take(np.zeros(n, np.int64))
        columns: dict[str, Any] = {
            "serial": serials,
            "verdict": np.where(copies, "dropped", "written"),
            "reason": np.where(copies, "duplicate_exact", "ok"),
            "message": pa.nulls(n, pa.string()),
            "read": np.ones(n, bool),
            "repairs": sample["repairs"],
            "flags": sample["flags"],
            "plain": np.ones(n, bool),
            "thumb": self._thumbs.take(rng.integers(0, _KINDS, n)),
            "key": texts(rng, n, True),
            "pixel_hash": pixels,
            "phash": rng.integers(0, 1 << 63, n, dtype=np.uint64),
            "patient": _named("patient", serials // PATIENT),
            "study": _named("study", serials // STUDY),
            "shard": pa.array([None if copy else shard for copy in copies.tolist()], pa.string()),
            "offset": pa.array(sample["offset"].to_numpy(), pa.int64(), mask=copies),
        }
        fields = {field.name: columns.get(field.name) for field in journal.SCHEMA}
        full = [sample[name] if column is None else column for name, column in fields.items()]
        arrays = [pa.chunked_array([each]) if isinstance(each, pa.Array) else each for each in full]
        return pa.table(arrays, names=journal.SCHEMA.names).cast(journal.SCHEMA)

    def scanned(self, serials: npt.NDArray[np.int64]) -> pa.Table:
        """Return a scan part."""
        n = len(serials)
        texts_: dict[str, Any] = {
            "serial": serials,
            "path": [b"%06d/%010d.dcm" % (serial // 1000, serial) for serial in serials.tolist()],
            "size": np.full(n, 8_000_000),
            "repairs": pa.array([[]] * n, pa.list_(pa.string())),
            "flags": pa.array([[]] * n, pa.list_(pa.string())),
            "height": np.full(n, 3000),
            "width": np.full(n, 2500),
            "estimate": np.full(n, 3_000_000),
            "plain": np.ones(n, bool),
            "modality": np.full(n, "DX"),
            "order": serials.astype(np.uint64),
            "patient": _named("patient", serials // PATIENT),
            "study": _named("study", serials // STUDY),
            **{name: texts(self._rng, n, True, 16) for name in ("sop", "series", "accession", "source")},
        }
        return pa.table(
            [pa.array(texts_[field.name]) if field.name in texts_ else pa.nulls(n) for field in scan_rows.SCHEMA],
            names=scan_rows.SCHEMA.names,
        ).cast(scan_rows.SCHEMA)


def _named(what: str, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Return texts of 32 hexadecimal digits, one a number."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15 + 2 * len(what))
    return [f"{value:032x}" for value in mixed.tolist()]


def last_stage(place: str) -> Record:
    """Assemble the generation, and close the build; return seconds, and memory beyond what the program began with."""
    begun = _begun(place)
    before, clock, cpu = machine.peak_of_this_process(), time.perf_counter(), time.process_time()
    plan = shard_plan.GenerationPlan(begun.workspace.folder(0))
    with begun.workers:
        begun.last.assemble(plan)
        outcome = begun.last.close(scan_rows.SeenFiles(begun.workspace.earlier_parts()), plan.files, None)
    facts = json.loads((Path(place) / "out" / contents.NAME).read_text())
    return {
        "samples": outcome.samples,
        "files": sum(sum(counts.values()) for counts in outcome.counts.values()),
        "digest": facts["digest"],
        "seconds": time.perf_counter() - clock,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": machine.peak_of_this_process() / 2**20,
        "mib": (machine.peak_of_this_process() - before) / 2**20,
    }
