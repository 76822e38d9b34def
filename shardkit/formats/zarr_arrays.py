"""What makes Zarr shards a hierarchy that any reader opens: metadata of groups and arrays, and small arrays of facts.

All of it follows from the manifest, so it is written anew at the end of every build, and checked by `shardkit verify`.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.codecs import blosc
from shardkit.dataset.bins import Bin
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.rounding import ceil_div, halved
from shardkit.formats.base import Named
from shardkit.storage.spill import Spill

NODE = "zarr.json"
CHUNK = 1 << 14
"""Images a chunk of the small arrays; a chunk is filled up, so that more images change no array's chunks."""
MOST_IMAGES = 1 << 12
"""Of a shard."""

TEXT = ("key", "split", "body_part", "view", "patient")
NUMBERS = {"height": "int32", "width": "int32", "bits": "int8", "p0_5": "int32", "p99_5": "int32"}
FLOATS = ("spacing_row", "spacing_col")
_BLOSC = {"name": "blosc", "configuration": blosc.CONFIGURATION}
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_AXES = ("image", "row", "column")


@dataclass(frozen=True, slots=True)
class BinRows:
    """The samples of a bin, and where they lie in its arrays.

    Parameters
    ----------
    bin : Bin
        The bin.
    table : pyarrow.Table
        Manifest rows of the samples.
    slots : numpy.ndarray
        Index of each sample in the arrays, of shape (n,), int64.
    shard : int
        Images that a shard has room for.
    """

    bin: Bin
    table: pa.Table
    slots: npt.NDArray[np.int64]
    shard: int

    @property
    def count(self) -> int:
        """Length of the arrays, gaps included."""
        return int(self.slots.max()) + 1


def array_name(level: int) -> str:
    """Return the name of the array of images at 1/2**level."""
    return f"pixels_{level}" if level else "pixels"


def capacity(bin: Bin, shard_bytes: int) -> int:
    """Return how many images a shard has room for: `shard_bytes` at half of their pixels' bytes.

    The number never changes, and is limited: the index, all of which a reader of one image fetches, stays below 64 KiB.
    """
    return max(1, min(MOST_IMAGES, shard_bytes // (bin.height * bin.width)))


def metadata(samples: pa.Table | Spill, description: DatasetDescription) -> list[list[Named]]:
    """Return all objects but the shards: chunks, then arrays, then groups, so that readers miss nothing.

    See `ShardFormat.metadata`.
    """
    chunks, arrays, groups = list[Named](), list[Named](), list[Named]()
    everything: dict[str, Any] = {}
    for bin in description.bins.bins:
        rows = _rows(samples, bin, capacity(bin, description.shard_bytes))
        if rows is None:
            continue
        nodes = _pixels(rows, description.levels)
        for name, kind, data in _facts(rows):
            nodes[name] = _small(rows.count, kind)
            chunks += [(f"{bin.name}/{name}/c/{i}", part) for i, part in enumerate(data)]
        arrays += [(f"{bin.name}/{name}/{NODE}", _json(node)) for name, node in nodes.items()]
        group = _group({"coordinates": "key split valid height width"})
        groups.append((f"{bin.name}/{NODE}", _json(_with(group, nodes))))
        everything |= {bin.name: group} | {f"{bin.name}/{name}": node for name, node in nodes.items()}
    groups.append((NODE, _json(_with(_group({"shardkit": description.digest}), everything))))
    return [chunks, arrays, groups]


def same(name: str, wanted: bytes, found: bytes) -> bool:
    """Return whether two objects say the same; another version of a compressor may have written one."""
    if name.endswith(NODE):
        return wanted == found
    return blosc.claimed(wanted) == blosc.claimed(found) and blosc.decompress(wanted) == blosc.decompress(found)


def _rows(samples: pa.Table | Spill, bin: Bin, shard: int) -> BinRows | None:
    here = pc.and_(pc.equal(samples["bin_height"], bin.height), pc.equal(samples["bin_width"], bin.width))
    table = samples.select(["shard", *TEXT, *NUMBERS, *FLOATS]).filter(here)
    if not table.num_rows:
        return None
    encoded = table["shard"].combine_chunks().dictionary_encode()
    numbers = np.array([int(name.split("/")[3]) for name in encoded.dictionary.to_pylist()], np.int64)
    number = numbers[encoded.indices.to_numpy()]
    first = np.flatnonzero(np.diff(number, prepend=-1))  # the rows of a shard lie together, in its order
    rank = np.arange(len(number)) - np.repeat(first, np.diff(np.append(first, len(number))))
    return BinRows(bin, table, number * shard + rank, shard)


# --- the small arrays


def _facts(rows: BinRows) -> Iterator[tuple[str, str, list[bytes]]]:
    """Give (name, data type, chunks) of every array of facts."""
    length = ceil_div(rows.count, CHUNK) * CHUNK
    there = np.zeros(length, np.bool_)
    there[rows.slots] = True
    yield "valid", "bool", _chunks(there)
    for name, kind in NUMBERS.items():
        yield name, kind, _chunks(_in_slots(rows, name, kind, length, 0))
    for name in FLOATS:
        yield name, "float64", _chunks(_in_slots(rows, name, "float64", length, np.nan))
    for name in TEXT:
        words = np.full(length, b"", object)
        words[rows.slots] = [(word or "").encode() for word in rows.table[name].to_pylist()]
        yield name, "string", [_text(words[i : i + CHUNK].tolist()) for i in range(0, length, CHUNK)]


def _in_slots(rows: BinRows, name: str, kind: str, length: int, fill: float) -> npt.NDArray[Any]:
    values = np.full(length, fill, np.dtype(kind).newbyteorder("<"))
    values[rows.slots] = pc.fill_null(rows.table[name].cast(kind.replace("float64", "double")), fill).to_numpy()
    return values


def _chunks(values: npt.NDArray[Any]) -> list[bytes]:
    return [blosc.compress(values[i : i + CHUNK]) for i in range(0, len(values), CHUNK)]


def _text(words: list[bytes]) -> bytes:
    """Encode words as Zarr's vlen-utf8: how many, then the length and bytes of each."""
    parts = [struct.pack("<I", len(words)), *(struct.pack("<I", len(word)) + word for word in words)]
    return blosc.compress(np.frombuffer(b"".join(parts), np.uint8))


# --- metadata, as the specification of Zarr v3 has them


def _pixels(rows: BinRows, levels: int) -> dict[str, dict[str, Any]]:
    out = {}
    for level in range(levels + 1):
        sides = [halved(side, level) for side in (rows.bin.height, rows.bin.width)]
        inner = {
            "chunk_shape": [1, *sides],
            "codecs": [_BYTES, _BLOSC],
            "index_codecs": [_BYTES, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
        axes = [axis if not level or axis == "image" else f"{axis}_{level}" for axis in _AXES]
        out[array_name(level)] = _array([rows.count, *sides], [rows.shard, *sides], "uint16", 0, codecs, axes)
    return out


def _small(count: int, kind: str) -> dict[str, Any]:
    fill: Any = {"string": "", "bool": False, "float64": "NaN"}.get(kind, 0)
    first = {"name": "vlen-utf8"} if kind == "string" else {"name": "bytes"} if kind in ("bool", "int8") else _BYTES
    return _array([count], [CHUNK], kind, fill, [first, _BLOSC], ["image"])


def _array(
    shape: list[int], chunk: list[int], kind: str, fill: Any, codecs: list[dict[str, Any]], axes: list[str]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": axes,
        "storage_transformers": [],
    }


def _group(attributes: dict[str, str]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _with(group: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a group whose metadata tell all below it: one request opens it, also in stores that cannot be listed."""
    return group | {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": nodes}}


def _json(node: dict[str, Any]) -> bytes:
    return json.dumps(node).encode()
