"""Seeded mutations of a whole dataset, as one made by others may be, each announced as coherently as a forger would."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardkit.dataset import contents, manifest
from shardkit.dataset.hashes import fingerprint
from shardkit.storage import Store

CANARY = "CANARY-7f3a"
"""Stands in every file outside the dataset; nothing that reads the dataset may show it."""
_WORDS = (
    "",
    "../secret/x",
    "/etc/passwd",
    "\x1b]0;x\x07\x1b[2J",
    "x\ny",
    "[/red]",
    "[bold]x",
    "<b>&",
    "\u202ex",
    "y" * 5000,
)
_NUMBERS = (-1, 0, 1, 127, 1 << 15, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 63) - 1)
_SIZ, _COD = b"\xff\x51", b"\xff\x52"
_ANY: tuple[Any, ...] = (None, True, 1.5, float("nan"), *_NUMBERS, *_WORDS, 1 << 70, [], {}, [[]], [[1]], [[0, 0]],
                         [[1 << 17, 48]], [[48, "48"]], {"x": -1}, {"\x1b[31m": 1}, [None])  # fmt: skip

Draw = random.Random


def mutate(folder: Path, secret: Path, seed: int) -> str:
    """Change a dataset.

    Parameters
    ----------
    folder
        The dataset.
    secret
        A folder beside it.
    seed
        Decides what is done.

    Returns
    -------
    str
        What was done.
    """
    draw = Draw(seed)
    kinds: list[Callable[[Path, Path, Draw], str]] = [
        _field, _field, _json_bytes, _value, _value, _value, _value, _shard_names, _column, _rows, _manifest_bytes,
        _object_bytes, _object_kind, _stream, _stream, _tar_header, _beside,
    ]  # fmt: skip
    return f"{seed}: {draw.choice(kinds)(folder, secret, draw)}"


# --- dataset.json


def _field(folder: Path, secret: Path, draw: Draw) -> str:
    content = json.loads((folder / contents.NAME).read_text())
    place, name = content, draw.choice(sorted(content))
    if isinstance(content[name], dict) and content[name] and draw.random() < 0.5:
        place, name = content[name], draw.choice(sorted(content[name]))
    value = draw.choice(_ANY)
    if draw.random() < 0.2:
        del place[name]
    else:
        place[name] = value
    (folder / contents.NAME).write_text(json.dumps(content))
    return f"dataset.json: {name} {str(value)[:30]!r}"


def _json_bytes(folder: Path, secret: Path, draw: Draw) -> str:
    data = (folder / contents.NAME).read_bytes()
    made = draw.choice(
        [b"", b"null", b"[]", b"[" * 200_000, b"\xff\xfe", data[: draw.randrange(len(data))], b"9" * 5000]
    )
    (folder / contents.NAME).write_bytes(made)
    return f"dataset.json: {made[:20]!r}"


# --- the manifest, under a digest of its own


def _announce(folder: Path, table: pa.Table) -> None:
    content = json.loads((folder / contents.NAME).read_text())
    try:
        content["digest"] = manifest.write(table, Store(str(folder)))
    except pa.ArrowInvalid:  # hashes of another length, which our own writer refuses: under the digest that was
        pq.write_table(table, folder / manifest.NAME)
        return
    (folder / contents.NAME).write_text(json.dumps(content))


def _table(folder: Path) -> pa.Table:
    return pq.ParquetFile(folder / manifest.NAME).read()


def _rewritten(table: pa.Table, name: str, change: Callable[[list[Any]], object]) -> pa.Table:
    values, at = table[name].to_pylist(), table.schema.get_field_index(name)
    change(values)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def _value(folder: Path, secret: Path, draw: Draw) -> str:
    """Change a value of one row, or of all."""
    table = _table(folder)
    name = draw.choice(table.schema.names[:24] if draw.random() < 0.8 else table.schema.names)
    kind, value = table.schema.field(name).type, None
    if draw.random() < 0.85:
        value = _of(kind, draw)
    rows = range(table.num_rows) if draw.random() < 0.3 else [draw.randrange(table.num_rows)]

    def change(values: list[Any]) -> None:
        for row in rows:
            values[row] = value

    _announce(folder, _rewritten(table, name, change))
    return f"manifest: {name} of {len(rows)} rows is {str(value)[:40]!r}"


def _of(kind: pa.DataType, draw: Draw) -> Any:
    if pa.types.is_list(kind):
        return [
            _of(kind.value_type, draw) if draw.random() < 0.9 else None for _ in range(draw.choice([0, 1, 3, 6, 40]))
        ]
    if pa.types.is_boolean(kind):
        return draw.random() < 0.5
    if pa.types.is_floating(kind):
        return draw.choice([float("nan"), float("inf"), -1.0, 0.0, 1e30])
    if pa.types.is_integer(kind):
        low, high = np.iinfo(kind.to_pandas_dtype()).min, np.iinfo(kind.to_pandas_dtype()).max
        return draw.choice([number for number in _NUMBERS if low <= number <= high])
    return draw.randbytes(16) if pa.types.is_fixed_size_binary(kind) else draw.choice(_WORDS)


def _shard_names(folder: Path, secret: Path, draw: Draw) -> str:
    """Name shards that lie outside, whole and sound."""
    for name in {row["shard"] for row in _table(folder).to_pylist()}:
        (secret / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, secret / name)
    prefix = draw.choice(["../secret/", f"{secret}/", "shards/../../secret/", "./", "//"])
    table = _table(folder)

    def change(values: list[Any]) -> None:
        values[:] = [prefix + value for value in values]

    _announce(folder, _rewritten(table, "shard", change))
    return f"manifest: shards lie in {prefix[:12]}"


def _column(folder: Path, secret: Path, draw: Draw) -> str:
    """Remove a column, or change its type, under the digest that was."""
    table, name = _table(folder), draw.choice(manifest.SCHEMA.names)
    at, how = table.schema.get_field_index(name), draw.choice(["gone", "text", "null", "dictionary"])
    text = pa.array([str(value) for value in table[name].to_pylist()])
    made = {"text": text, "null": pa.nulls(table.num_rows), "dictionary": text.dictionary_encode()}
    changed = table.remove_column(at) if how == "gone" else table.set_column(at, name, made[how])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), folder / manifest.NAME)
    return f"manifest: column {name} is {how}"


def _rows(folder: Path, secret: Path, draw: Draw) -> str:
    table, how = _table(folder), draw.choice(["none", "fewer", "twice", "another order", "unchecked"])
    order = list(range(table.num_rows))
    draw.shuffle(order)
    made = {"none": table.slice(0, 0), "fewer": table.slice(1), "twice": pa.concat_tables([table, table]),
            "another order": table.take(order), "unchecked": table.slice(1)}[how]  # fmt: skip
    _announce(folder, made)
    if how == "unchecked":  # the rows of a bin that is no longer listed
        content = json.loads((folder / contents.NAME).read_text())
        content["bins"] = content["bins"][1:] or [[48, 48]]
        (folder / contents.NAME).write_text(json.dumps(content))
    return f"manifest: rows {how}"


def _manifest_bytes(folder: Path, secret: Path, draw: Draw) -> str:
    _flip(folder / manifest.NAME, draw)
    return "manifest: bytes"


# --- objects


def _flip(path: Path, draw: Draw) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 3, 40])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data if draw.random() < 0.6 else data[: draw.randrange(len(data))])


def _objects(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".html", ".parquet", ".md")
    )


def _object_bytes(folder: Path, secret: Path, draw: Draw) -> str:
    path = draw.choice(_objects(folder))
    _flip(path, draw)
    return f"{path.relative_to(folder)}: bytes"


def _object_kind(folder: Path, secret: Path, draw: Draw) -> str:
    """Put something else in the place of a file of the dataset."""
    path, how = (
        draw.choice([*_objects(folder), folder / manifest.NAME]),
        draw.choice(["fifo", "link", "device", "folder", "loop", "sparse", "gone", "parent"]),
    )
    if how == "parent" and path.parent != folder:  # the folder that holds it lies outside
        shutil.move(path.parent, secret / "moved")
        path.parent.symlink_to(secret / "moved")
        return f"{path.relative_to(folder)}: {how}"
    shutil.move(path, secret / path.name)
    if how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "sparse":
        shutil.copy(secret / path.name, path)
        os.truncate(path, 1 << 40)
    elif how != "gone":
        path.symlink_to(
            {"link": secret / path.name, "device": Path("/dev/zero"), "loop": path}.get(how, secret / path.name)
        )
    return f"{path.relative_to(folder)}: {how}"


def _stream(folder: Path, secret: Path, draw: Draw) -> str:
    """Change a sample's bytes, with hashes that are right: what the decoder is given."""
    table = _table(folder)
    rows = table.to_pylist()
    row = draw.choice(rows)
    path = folder / row["shard"]
    data = bytearray(path.read_bytes())
    sample = memoryview(data)[row["offset"] : row["offset"] + row["length"]]
    at, how = bytes(sample).find(_SIZ), draw.choice(["claim", "bytes", "header"])
    if how == "claim" and at >= 0:
        struct.pack_into(">8I", sample, at + 6, *(65_000, 65_000, 0, 0) * 2)
    elif how == "claim":  # Blosc's header
        struct.pack_into("<I", sample, 4, draw.choice([1, (1 << 31) - 1, (1 << 32) - 1]))
    else:
        end = len(sample) if how == "bytes" else min(120, len(sample))
        for _ in range(draw.choice([1, 4])):
            sample[draw.randrange(end)] = draw.randrange(256)
    hashes = [fingerprint(bytes(sample[:length])) for length in row["level_bytes"]]
    if path.suffix != ".tar":
        hashes[1:] = row["level_hash"][1:]
    sample.release()
    path.write_bytes(data)

    def change(values: list[Any]) -> None:
        values[rows.index(row)] = hashes

    _announce(folder, _rewritten(table, "level_hash", change))
    return f"{row['shard']}: stream {how}"


def _tar_header(folder: Path, secret: Path, draw: Draw) -> str:
    tars = sorted(folder.rglob("*.tar"))
    if not tars:
        return _object_bytes(folder, secret, draw)
    path, how = draw.choice(tars), draw.choice(["name", "link", "sparse", "size"])
    data = bytearray(path.read_bytes())
    if how == "name":
        data[:100] = draw.choice([b"../../../x.j2c", b"/etc/x.j2c", b"\x1b[2Jx.j2c", b"\n.j2c"]).ljust(100, b"\0")
    elif how == "size":
        data[124:136] = b"77777777777\0"
    else:
        data[156:157] = {"link": b"2", "sparse": b"S"}[how]
        data[157:257] = b"../../secret/canary".ljust(100, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(data)
    return f"{path.relative_to(folder)}: header {how}"


def _beside(folder: Path, secret: Path, draw: Draw) -> str:
    """Change metadata of Zarr; else write a stray object."""
    nodes = [path for path in _objects(folder) if "pixels/c" not in str(path) and path.suffix != ".tar"]
    path = draw.choice([*nodes, folder / "shards" / "x\x1b[2J.tar"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        draw.choice([b"", b"{}", b"[" * 100_000, draw.randbytes(100), b"\2\1\1\2\xff\xff\xff\x7f\0\0\0\1\x10\0\0\0"])
    )
    return f"{path.name[:20]!r}: replaced"
