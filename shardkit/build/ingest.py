"""One task, one shard: convert every planned file in child processes, then commit the shard whole.

What became of each file is journaled beside the dataset before the shard appears, so a shard that exists is never
converted again. Journals hold no path and no clear identifier.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, cast

from shardkit import formats
from shardkit.build import isolation, journal
from shardkit.build.converted import Converted
from shardkit.build.journal import FileRow
from shardkit.build.scan_rows import ScanRow, entry_of
from shardkit.build.shard_plan import ShardTask
from shardkit.codecs import codec
from shardkit.codecs.placement import Placement
from shardkit.config import Conversion
from shardkit.dataset import manifest
from shardkit.dataset.hashes import fingerprint
from shardkit.dataset.sample_row import ImageColumns, SampleRow
from shardkit.errors import Quarantined
from shardkit.formats.encoding import Encoded
from shardkit.sources.files import settled
from shardkit.storage import Store, translate_errors

_CONVERT = isolation.ByName("shardkit.build.conversion", "convert_file")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker uses its process's children.

    Parameters
    ----------
    children : int
        How many there are.
    ahead : int
        Files that a task keeps in their queue.
    """

    children: int
    ahead: int = 2


@dataclass(frozen=True, slots=True)
class ShardDone:
    """Counts of a finished shard, for progress."""

    name: str
    files: int
    samples: int
    pixels: int
    bytes_out: int
    digests: dict[int, str] = field(default_factory=dict, repr=False)  # serial -> SHA-256 of the file, private


def convert_shard(spec: Conversion, task: ShardTask, generation: int, workers: WorkerConfig) -> ShardDone:
    """Make one shard from its planned files, and commit it. Runs on a worker, and converts in its process's children.

    Parameters
    ----------
    spec : Conversion
        What all shards share.
    task : ShardTask
        The shard, its bin and its files.
    generation : int
        Names the journal.
    workers : WorkerConfig
        The children.

    Raises
    ------
    StorageError
        Where the dataset's store or the staging disk fails, or the source stays away.
    """
    with translate_errors(spec.out):
        return _convert_shard(spec, task, generation, workers)


def _convert_shard(spec: Conversion, task: ShardTask, generation: int, workers: WorkerConfig) -> ShardDone:
    store = Store(spec.out)
    rows: list[FileRow] = []
    digests: dict[int, str] = {}
    extension = codec(spec.dataset.codec_name).EXTENSION
    form = formats.shard_format(spec.dataset.format)
    objects = form.objects(task.name, spec.dataset.levels)
    with journal.staging(store) as folder:
        staged = formats.files(folder, "shard", len(objects))
        with form.writer(staged, task.capacity) as writer:
            for file, done in _converted(spec, task, workers):
                if done.sha256 is not None:
                    digests[file["serial"]] = done.sha256
                row = _file_row(file, done)
                if done.encoded is not None and done.facts is not None:
                    sample = _sample_row(file, done.facts, done.encoded, objects[0], row.flags)
                    facts = public_facts(sample)
                    sample["json_hash"] = fingerprint(facts) if form.FACTS else None
                    image = done.encoded
                    sample["offset"] = writer.add(sample["key"], extension, image.image, facts, image.smaller)
                    row = replace(row, sample=sample, thumb=done.thumb)
                rows.append(row)
        whole, rows = rows, without_duplicates(rows)
        written = [row.sample for row in rows if row.verdict == "written" and row.sample is not None]
        if rows != whole:
            staged = formats.keep(form, staged, formats.files(folder, "kept", len(objects)), written, task.capacity)
        size = sum(path.stat().st_size for path in staged) if written else 0
        journal.write(store, generation, task.name, [row.columns() for row in rows])
        if written:
            formats.commit(store, objects, staged)
    return ShardDone(
        name=task.name,
        files=len(rows),
        samples=len(written),
        pixels=sum(sample["height"] * sample["width"] for sample in written),
        bytes_out=size,
        digests=digests,
    )


def _converted(spec: Conversion, task: ShardTask, workers: WorkerConfig) -> Iterator[tuple[ScanRow, Converted]]:
    """Outcomes in the plan's order, with a few files ahead in the children's queue."""
    pool = isolation.children(workers.children, spec.run.memory_limit)
    waiting: deque[tuple[ScanRow, Future[Any], float]] = deque()

    def begin(file: ScanRow) -> tuple[ScanRow, Future[Any], float]:
        timeout = isolation.allowance(file["size"], spec.run.time_limit)
        placement = Placement(file["height"], file["width"], task.bin.height, task.bin.width)
        return file, pool.submit(_CONVERT, spec, entry_of(file), placement, timeout=timeout), timeout

    def end(file: ScanRow, future: Future[Any], timeout: float) -> Converted:
        try:
            return cast(Converted, isolation.result(future, timeout))
        except Quarantined as verdict:
            unsure = verdict.reason == "decode_timeout" and not spec.source.files.answers()
            return Converted("quarantined", verdict.reason, verdict.message, None, unsure=unsure)

    def finish() -> tuple[ScanRow, Converted]:
        file, future, timeout = waiting.popleft()
        return file, settled(spec.source.files, end(file, future, timeout), lambda: end(*begin(file)))

    try:
        for file in task.files:
            waiting.append(begin(file))
            if len(waiting) >= workers.ahead:
                yield finish()
        while waiting:
            yield finish()
    finally:
        for _, future, _ in waiting:
            future.cancel()


def _file_row(file: ScanRow, done: Converted) -> FileRow:
    # A scan may know more than the bytes alone: its flags come first.
    flags = list(dict.fromkeys([*(file["flags"] or []), *done.flags]))
    return FileRow(
        serial=file["serial"],
        verdict=done.verdict,
        reason=done.reason,
        message=done.message,
        read=done.sha256 is not None,
        repairs=list(done.repairs),
        flags=flags,
        plain=file["plain"],
    )


def _sample_row(file: ScanRow, facts: ImageColumns, encoded: Encoded, shard: str, flags: list[str]) -> SampleRow:
    """Return a sample as far as it is known before it is written."""
    return {
        **facts,
        **storage_columns(encoded),
        "key": f"{file['sop'][:20]}-{facts['pixel_hash'].hex()[:12]}",
        "shard": shard,
        "offset": -1,
        "json_hash": None,
        "patient": file["patient"],
        "study": file["study"],
        "series": file["series"],
        "device": file["device"],
        "source": file["source"],
        "flags": flags,
        "group": None,
        "split": None,
    }


class EncodedColumns(TypedDict):
    """The manifest's columns about an image's bytes, but for their place."""

    length: int
    level_bytes: list[int]
    level_hash: list[bytes]


def storage_columns(encoded: Encoded) -> EncodedColumns:
    """Return the manifest's columns about an image's bytes, but for their place."""
    return {
        "length": len(encoded.image),
        "level_bytes": [length for length, _ in encoded.levels],
        "level_hash": [digest for _, digest in encoded.levels],
    }


def public_facts(row: Mapping[str, Any]) -> bytes:
    """Return the sample's JSON member: the manifest's facts that do not depend on other samples."""
    names = [*manifest.SAMPLE.names, "key", "flags"]
    facts = {k: v.hex() if isinstance(v, bytes) else v for k in names if (v := row.get(k)) is not None}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _preference(row: FileRow) -> tuple[int, bool, int]:
    """Which of several files with the same pixels is kept: the least repaired, then the plainest syntax, then path."""
    return (len(row.repairs), not row.plain, row.serial)


def without_duplicates(rows: list[FileRow]) -> list[FileRow]:
    """Return the rows, all but one of those with equal pixels dropped."""
    best: dict[bytes, FileRow] = {}
    for row in rows:
        if row.sample is not None:
            digest = row.sample["pixel_hash"]
            best[digest] = min(best.get(digest, row), row, key=_preference)
    return [
        row if row.sample is None or best[row.sample["pixel_hash"]] is row else row.dropped("duplicate_exact")
        for row in rows
    ]
