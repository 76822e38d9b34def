"""What the benchmarks of scale run on: manifests of any number of rows, of a dataset's columns, without pixels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardkit.dataset import contents, manifest
from shardkit.dataset.rounding import ceil_div

SHARD = 300  # samples
CHUNK = 600 * SHARD  # rows of a manifest that are made at once
REPEATED = 16  # keys and hashes where they may repeat


def write_index(template: str, place: str, rows: int, distinct: bool = True) -> int:
    """Write a manifest of so many rows, a piece at a time; return its size.

    Parameters
    ----------
    template : str
        Folder of a dataset whose columns it has.
    place : str
        Folder to make.
    rows : int
        How many rows.
    distinct : bool
        Whether each row has a key and hashes of its own, which take some 180 bytes a row. Else they repeat, so that
        10**8 rows are written in minutes: what is read of all rows on opening is none of them.
    """
    folder, rng = Path(place), np.random.default_rng(0)
    folder.mkdir()
    facts = json.loads((Path(template) / contents.NAME).read_text())
    facts |= {"bins": [[max(sides) for sides in zip(*facts["bins"], strict=True)]]}  # one that holds all images
    some = pq.read_table(Path(template) / manifest.NAME)  # its schema names the digest of dataset.json
    splits: Counter[str] = Counter()
    part = _chunk(some, facts["bins"][0], rng, distinct)
    with pq.ParquetWriter(folder / manifest.NAME, some.schema, compression="zstd", write_page_checksum=True) as sink:
        for start in range(0, rows, CHUNK):
            if distinct and start:
                part = _chunk(some, facts["bins"][0], rng, distinct)
            now = _named(part, start, facts["bins"][0]).slice(0, rows - start)
            splits.update({each["values"]: each["counts"] for each in now["split"].value_counts().to_pylist()})
            sink.write_table(now, manifest.row_group(rows))
    facts |= {"samples": rows, "shards": ceil_div(rows, SHARD), "splits": dict(splits)}
    (folder / contents.NAME).write_text(json.dumps(facts))
    return (folder / manifest.NAME).stat().st_size


def _chunk(some: pa.Table, bin: list[int], rng: np.random.Generator, distinct: bool) -> pa.Table:
    """Repeat rows, and give them offsets, splits, and keys and hashes, which would compress if they repeated."""
    numbers = np.arange(CHUNK)
    part = some.take(numbers % some.num_rows).combine_chunks()
    ends = part["level_hash"].combine_chunks().offsets
    length = part["length"].to_numpy()
    before = np.cumsum(length) - length
    columns = {
        "key": texts(rng, CHUNK, distinct),
        "offset": before - before[numbers // SHARD * SHARD],  # from the first image in the shard
        "bin_height": np.full(CHUNK, bin[0]),
        "bin_width": np.full(CHUNK, bin[1]),
        "pixel_hash": hashes(rng, CHUNK, distinct),
        "json_hash": hashes(rng, CHUNK, distinct),
        "split": rng.choice(["train", "val", "test"], CHUNK, p=[0.8, 0.05, 0.15]),
        "level_hash": pa.ListArray.from_arrays(ends, hashes(rng, ends[-1].as_py(), distinct).cast(pa.binary())),
    }
    return _with(part, columns)


def _named(part: pa.Table, start: int, bin: list[int]) -> pa.Table:
    """Say in which shards rows lie from this one on."""
    names = [f"shards/{bin[0]:04d}x{bin[1]:04d}/{start // SHARD + at:05d}.tar" for at in range(CHUNK // SHARD)]
    shard = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(names), dtype=np.int32), SHARD), pa.array(names))
    return _with(part, {"shard": shard.cast(pa.string())})


def _with(part: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, column in columns.items():
        at = part.schema.get_field_index(name)
        part = part.set_column(at, part.schema.field(at), pa.array(column).cast(part.schema.field(at).type))
    return part


def hashes(rng: np.random.Generator, count: int, distinct: bool, size: int = 16) -> pa.Array:
    """Make so many binaries of a fixed size."""
    data = rng.bytes(size * count) if distinct else (rng.bytes(size * REPEATED) * ceil_div(count, REPEATED))
    return pa.Array.from_buffers(pa.binary(size), count, [None, pa.py_buffer(data[: size * count])])


def texts(rng: np.random.Generator, count: int, distinct: bool, size: int = 24) -> pa.Array:
    """Make so many texts of 2 * size hexadecimal digits."""
    data = hashes(rng, count, distinct, size).buffers()[1].to_pybytes().hex().encode()
    offsets = np.arange(count + 1, dtype=np.int32) * (2 * size)
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
