"""LanceDB: a table with a row a sample, read by its StreamingDataset, which fetches and decodes in threads."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.peers.work import FETCHES, FIELDS, Image, Record, Work, collate, ready

TABLE = "images"
AT_ONCE = 1  # rows of a request and of what a thread decodes; 64, its default, would be 800 MB of pixels a thread


def read(job: Record, work: Work) -> Any:
    """Return a DataLoader without worker processes, as its documentation has it. See `Peer.read`."""
    import lancedb
    from lancedb.streaming import StreamingDataset
    from torch.utils.data import DataLoader

    ready()
    place, work = job["place"], replace(work, shared=False)
    options = {"endpoint": place["endpoint"], "allow_http": "true"} if place["kind"] == "s3" else None
    table = lancedb.connect(place.get("url") or place["root"], storage_options=options).open_table(TABLE)

    def transform(rows: Any) -> list[tuple[str, Image]]:
        images = rows.column("image")
        facts = rows.drop_columns(["image"]).to_pylist()
        return [work(row["key"], memoryview(images[i].as_buffer()).cast("B"), row) for i, row in enumerate(facts)]

    dataset = StreamingDataset(
        table,
        shuffle=True,
        read_batch_size=AT_ONCE,
        io_queue_depth=FETCHES,
        transform=transform,
        transform_parallelism=job["workers"],
        transform_queue_depth=2 * job["batch"],  # its default is all of them
    )
    return DataLoader(dataset, batch_size=job["batch"], num_workers=0, collate_fn=collate(job["task"]))


def write(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write a table; images are a binary column. See `Peer.write`."""
    import lancedb
    import pyarrow as pa

    kinds = {"image": pa.large_binary(), "key": pa.string()}
    schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in FIELDS])
    found = (pa.RecordBatch.from_pylist([row], schema=schema) for row in rows)
    lancedb.connect(out).create_table(TABLE, pa.RecordBatchReader.from_batches(schema, found))
