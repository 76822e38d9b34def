"""SPDL: a file a sample and a list of them, through a pipeline of stages in threads: fetch, decode, collate."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.work import EXTENSIONS, FETCHES, FIELDS, Image, Record, Work, collate, ready

LIST = "samples.jsonl"
AHEAD = 3  # batches that wait for the training step, its default


def read(job: Record, work: Work) -> Any:
    """Return a pipeline's batches. See `Peer.read`.

    spdl.io is not asked to decode: FFmpeg 5.1, which it takes, needs twice the CPU of imagecodecs for these PNG files.
    """
    from spdl.pipeline import PipelineBuilder

    ready()
    fetch, executor, found = _fetching(job["place"])
    random.shuffle(found)
    work = replace(work, shared=False)

    def decode(fetched: tuple[Record, bytes]) -> tuple[str, Image]:
        return work(fetched[0]["key"], fetched[1], fetched[0])

    pipeline = (
        PipelineBuilder()
        .add_source(found)
        .pipe(fetch, concurrency=FETCHES, executor=executor)
        .pipe(decode, concurrency=job["workers"])
        .aggregate(job["batch"])
        .pipe(collate(job["task"]))
        .add_sink(AHEAD)
        .build(num_threads=job["workers"], max_failures=0)
    )
    return _run(pipeline)


def _run(pipeline: Any) -> Iterator[tuple[list[str], Any]]:
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def _fetching(place: Record) -> tuple[Any, Executor | None, list[Record]]:
    """Return what fetches a sample's bytes, the threads it does so in, and what the list says of all samples.

    Files of a folder are read in threads of their own, which wait; those of a bucket come through obstore, which SPDL's
    event loop waits for.
    """
    if place["kind"] != "s3":
        root = Path(place["root"])
        executor = ThreadPoolExecutor(FETCHES)
        return lambda row: (row, (root / row["file"]).read_bytes()), executor, _listed((root / LIST).read_bytes())
    import obstore

    store = obstore.store.from_url(place["url"])

    async def fetch(row: Record) -> tuple[Record, bytes]:
        answer = await obstore.get_async(store, row["file"])
        return row, bytes(await answer.bytes_async())

    return fetch, None, _listed(bytes(obstore.get(store, LIST).bytes()))


def _listed(data: bytes) -> list[Record]:
    return [json.loads(line) for line in data.splitlines()]


def write(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write a file a sample, and the list of them. See `Peer.write`."""
    lines = []
    for row in rows:
        file = f"{row['key']}.{EXTENSIONS[variant]}"
        Path(out, file).write_bytes(row["image"])
        lines.append(json.dumps({"file": file} | {name: row[name] for name in FIELDS[1:]}))
    Path(out, LIST).write_text("\n".join(lines) + "\n")
