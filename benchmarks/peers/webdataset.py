"""webdataset: tars, read in the worker processes of a DataLoader."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.peers.work import EXTENSIONS, FIELDS, Record, Work, bucket_of, client, collate, loader

SHUFFLED = 32  # samples in its buffer: a small one, in favour of its memory and its first batch


def read(job: Record, work: Work) -> Any:
    """Return a DataLoader; tars of a bucket come through pipes from curl. See `Peer.read`."""
    import webdataset

    name, place = EXTENSIONS[job["variant"]], job["place"]
    if place["kind"] == "s3":
        urls = [f"pipe:curl -s -f '{_signed(place, file)}'" for file in job["files"]]
    else:
        urls = [f"{place['root']}/{file}" for file in job["files"]]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        .shuffle(SHUFFLED, initial=SHUFFLED // 4)
        .map(lambda row: work(row["__key__"], row[name], json.loads(row["json"])))
        .batched(job["batch"], collation_fn=collate(job["task"]))
    )
    return loader(dataset, job, batch_size=None)


def _signed(place: Record, file: str) -> str:
    bucket, prefix = bucket_of(place)
    words = {"Bucket": bucket, "Key": f"{prefix}/{file}"}
    return str(client(place).generate_presigned_url("get_object", Params=words, ExpiresIn=36_000))


def write(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write shards of equal counts, a multiple of the workers: no worker has more to do than another."""
    import webdataset

    shards = min(count, workers * math.ceil(8 / workers))
    with ExitStack() as stack:
        sinks = [stack.enter_context(webdataset.TarWriter(f"{out}/{i:05d}.tar")) for i in range(shards)]
        for number, row in enumerate(rows):
            facts = {name: row[name] for name in FIELDS[2:]}
            sinks[number % shards].write({"__key__": row["key"], EXTENSIONS[variant]: row["image"], "json": facts})
