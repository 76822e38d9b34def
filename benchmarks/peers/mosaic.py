"""mosaicml-streaming: MDS shards, read by a StreamingDataset in the worker processes of a DataLoader."""

from collections.abc import Iterator
from typing import Any

from benchmarks.peers.work import FIELDS, Record, Work, collate, loader

CHUNK = 64 << 20  # its own choice


def read(job: Record, work: Work) -> Any:
    """Return a DataLoader. See `Peer.read`."""
    from streaming import StreamingDataset  # type: ignore[import-not-found]

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return work(row["key"], row["image"], row)

    place = job["place"]
    if place["kind"] == "disk":
        where = {"local": place["root"]}
    else:  # a mount, too: copying shards from there is faster than reading samples in place
        where = {"remote": place.get("url") or place["root"], "local": job["scratch"]}
    dataset = Images(**where, shuffle=True, batch_size=job["batch"])
    for stream in dataset.streams:
        stream._downloader.clean_up()  # else forked workers share its S3 connection: wrong bytes, or a minute's hang
    return loader(dataset, job, batch_size=job["batch"], collate_fn=collate(job["task"]))


def write(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write MDS shards. See `Peer.write`."""
    from streaming import MDSWriter

    columns = {"image": "bytes", "key": "str", **dict.fromkeys(FIELDS[2:], "int")}
    with MDSWriter(out=out, columns=columns, size_limit=CHUNK) as sink:
        for row in rows:
            sink.write(row)
