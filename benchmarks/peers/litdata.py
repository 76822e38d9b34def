"""litdata: chunks, read by a StreamingDataset in the worker processes of its StreamingDataLoader."""

from collections.abc import Iterator
from typing import Any

from benchmarks.peers.work import FIELDS, Record, Work, collate, ready

CHUNK = 64 << 20  # its own choice


def read(job: Record, work: Work) -> Any:
    """Return a StreamingDataLoader. See `Peer.read`."""
    from litdata import StreamingDataLoader, StreamingDataset  # type: ignore[import-not-found]
    from litdata.streaming import downloader  # type: ignore[import-not-found]

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = dict(zip(FIELDS, super().__getitem__(at), strict=True))
            return work(row["key"], row["image"], row)

    ready()
    place, more = job["place"], {"cache_dir": job["scratch"]}
    if place["kind"] == "s3":
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # there is no other way to a gateway without TLS
        more["storage_options"] = {"endpoint_url": place["endpoint"]}
    # Copying chunks from a mount ("local:") is faster than reading in place, and decoding all of a chunk at once than
    # reading it anew for each sample, which litdata 0.2.76 does with chunks that two workers share.
    url = {"disk": place.get("root"), "mount": f"local:{place.get('root')}", "s3": place.get("url")}[place["kind"]]
    dataset = Images(url, shuffle=True, drop_last=False, batch_decode="all", **more)
    return StreamingDataLoader(
        dataset,
        batch_size=job["batch"],
        num_workers=job["workers"],
        collate_fn=collate(job["task"]),
        multiprocessing_context="fork",
    )


def write(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write files as `litdata.optimize(chunk_bytes="64MB")` makes them, by the writer that it uses. See `Peer.write`.

    A sample is a list: of a dict, litdata 0.2.76 makes Arrow chunks that it cannot read when two workers share one.
    """
    from litdata.streaming.writer import BinaryWriter  # type: ignore[import-not-found]

    sink = BinaryWriter(out, chunk_bytes=CHUNK)
    for number, row in enumerate(rows):
        sink[number] = [row[name] for name in FIELDS]
    sink.done()
    sink.merge()
