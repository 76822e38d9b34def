"""Arrays of facts and metadata beside Zarr shards say what they always said, in the places of their images."""

from __future__ import annotations

import hashlib
import json
import math
import struct

import numpy as np
import pyarrow as pa
import pytest

from shardkit.codecs import blosc
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import IntegrityError
from shardkit.formats import zarr, zarr_arrays


def _samples() -> tuple[pa.Table, DatasetDescription]:
    """Five images in two bins of three; the first bin's second shard has the last two."""
    sizes = [(480, 96)] * 3 + [(31, 33)] * 2
    shards = [f"0480x0096/pixels/c/{n}/0/0" for n in (0, 0, 2)] + [f"0031x0033/pixels/c/{n}/0/0" for n in (1, 1)]
    n = range(5)
    table = pa.table(
        {
            "key": [f"k{i}" for i in n], "split": ["train", "val", "train", "test", "train"],
            "body_part": ["CHEST", None, "Füße", "", "HAND"], "view": [None] * 5, "patient": [f"p{i}" for i in n],
            "height": pa.array([400 + i for i in n], pa.int32()), "width": pa.array([30 + i for i in n], pa.int32()),
            "bits": pa.array([8, 10, 12, 15, 16], pa.int8()), "p0_5": pa.array(list(n), pa.int32()),
            "p99_5": pa.array([255, 1000, 4095, 32767, 65535], pa.int32()),
            "spacing_row": pa.array([0.1, None, 0.2, 0.3, 0.4], pa.float64()),
            "spacing_col": pa.array([0.15, None, 0.25, 0.35, 0.45], pa.float64()),
            "shard": shards, "bin_height": pa.array([h for h, _ in sizes], pa.int32()),
            "bin_width": pa.array([w for _, w in sizes], pa.int32()),
        }
    )  # fmt: skip
    bins, arguments = [[31, 33], [64, 64], [480, 96]], {"shard_bytes": 3 * 480 * 96, "levels": 2}
    content = {"arguments": arguments, "patch": 1, "bins": bins, "digest": "d" * 64}
    return table, DatasetDescription.from_content(content)


def _decoded(name: str, data: bytes) -> bytes:
    return data if name.endswith("zarr.json") else blosc.decompress(data)


def test_metadata_and_small_arrays_say_what_they_always_said() -> None:
    chunks, arrays, groups = zarr.metadata(*_samples())
    digest = hashlib.sha256()
    for name, data in chunks + arrays + groups:
        digest.update(f"{name}\n".encode() + _decoded(name, data))
    assert [len(chunks), len(arrays), len(groups)] == [2 * 13, 2 * (3 + 13), 2 + 1]
    assert [name for name, _ in groups] == ["0031x0033/zarr.json", "0480x0096/zarr.json", "zarr.json"]
    assert digest.hexdigest()[:16] == "5e70d51740d5dc25"


def test_facts_lie_in_the_places_of_their_images() -> None:
    samples, description = _samples()
    chunks, arrays, _ = (dict(part) for part in zarr.metadata(samples, description))
    values = {name: blosc.decompress(data) for name, data in chunks.items()}
    valid = np.frombuffer(values["0480x0096/valid/c/0"], np.bool_)
    assert valid.size == zarr_arrays.CHUNK == 16384
    assert np.flatnonzero(valid).tolist() == [0, 1, 6]  # three places a shard, and shard 1 is not there
    heights = np.frombuffer(values["0480x0096/height/c/0"], "<i4")
    assert heights[[0, 1, 6]].tolist() == [400, 401, 402]
    assert heights.sum() == 400 + 401 + 402
    spacing = np.frombuffer(values["0480x0096/spacing_row/c/0"], "<f8")
    assert spacing[[0, 6]].tolist() == [0.1, 0.2]
    assert all(math.isnan(spacing[at]) for at in (1, 2, 5, 7))
    words = values["0480x0096/body_part/c/0"]
    assert words[:4] == struct.pack("<I", 16384)
    assert words[4:13] == struct.pack("<I", 5) + b"CHEST"
    assert words[13 : 13 + 5 * 4] == bytes(20)  # none, and four places without an image
    assert words[33:43] == struct.pack("<I", 6) + "Füße".encode()
    pixels = json.loads(arrays["0480x0096/pixels_1/zarr.json"])
    assert (pixels["shape"], pixels["data_type"]) == ([7, 240, 48], "uint16")
    assert pixels["chunk_grid"]["configuration"]["chunk_shape"] == [3, 240, 48]


def test_two_chunks_of_facts_are_the_same_when_they_hold_the_same() -> None:
    values = np.arange(100, dtype="<i4")
    ours = blosc.compress(values)
    assert zarr_arrays.same("b/height/c/0", ours, blosc.compress(values.view(np.uint8)))
    assert not zarr_arrays.same("b/height/c/0", ours, blosc.compress(values + 1))
    assert not zarr_arrays.same("b/height/c/0", ours, blosc.compress(values[:99]))
    assert zarr_arrays.same("zarr.json", b"{}", b"{}")
    assert not zarr_arrays.same("zarr.json", b"{}", b"{ }")
    with pytest.raises(IntegrityError):
        zarr_arrays.same("b/height/c/0", ours, b"nothing")
