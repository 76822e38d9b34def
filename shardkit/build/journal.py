"""What became of a shard's files, kept beside the dataset while a build runs; and where unfinished shards lie.

A journal is written before its shard appears, so a shard that exists is never converted again. Journals hold no path,
no clear identifier and no hash of a source file: workers that write them need the dataset's store and nothing private.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shardkit import content
from shardkit.dataset import contents, manifest
from shardkit.dataset.contents import JOURNALS
from shardkit.dataset.sample_row import SampleRow
from shardkit.errors import BuildError
from shardkit.storage import Store, parquet

SCHEMA = pa.schema(
    [
        pa.field("serial", pa.int64()),
        pa.field("verdict", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("read", pa.bool_()),  # whether the file's SHA-256 was taken; it is kept in the private folder
        pa.field("repairs", pa.list_(pa.string())),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("plain", pa.bool_()),
        pa.field("thumb", pa.binary(content.THUMB**2)),
        *[f for f in manifest.SCHEMA if f.name not in ("repairs", "flags", "group", "split")],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """What became of a file; where it is written, its sample and thumbnail."""

    serial: int
    verdict: str
    reason: str
    message: str | None
    read: bool
    repairs: list[str]
    flags: list[str]
    plain: bool
    sample: SampleRow | None = None
    thumb: bytes | None = field(default=None, repr=False)

    def dropped(self, reason: str) -> "FileRow":
        """Return the row of a sample that is not written after all."""
        return replace(self, verdict="dropped", reason=reason)

    def columns(self) -> dict[str, Any]:
        """Return the row as `SCHEMA` has it; a sample that is not written has no place."""
        sample: dict[str, Any] = dict(self.sample or {})
        if self.verdict != "written":
            sample |= {"shard": None, "offset": None}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sample"}
        return sample | own


def object_name(generation: int, name: str) -> str:
    """Return the object name of a shard's journal."""
    return f"{JOURNALS}/g{generation:03d}/{name.removeprefix('shards/').replace('/', '-')}.parquet"


def write(store: Store, generation: int, name: str, rows: list[dict[str, Any]]) -> None:
    """Commit what became of a shard's files."""
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer, compression="zstd")
    store.put(object_name(generation, name), buffer.getvalue())


def read(store: Store, generation: int, name: str, columns: list[str] | None = None) -> pa.Table:
    """Return what became of a shard's files. An earlier version wrote fewer columns: these are null."""
    table = parquet.read(store.get(object_name(generation, name)), columns, threads=False)
    wanted = manifest.LATER if columns is None else [column for column in columns if column in manifest.LATER]
    return parquet.completed(table, SCHEMA, wanted)


def clear(store: Store) -> None:
    """Remove all journals, and what interrupted runs left."""
    for name, _ in list(store.list(JOURNALS)):
        store.delete(name)
    if store.root is not None:
        shutil.rmtree(store.root / JOURNALS, ignore_errors=True)
        contents.sweep(store)


@contextmanager
def staging(store: Store) -> Iterator[Path]:
    """Make a folder for unfinished shards: beside a local dataset, so that a rename publishes; else the system's own.

    Raises
    ------
    BuildError
        Where the dataset's place cannot be written.
    """
    parent = None
    if store.root is not None:
        parent = store.root / JOURNALS / "staging"
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(f"--out {store.url} cannot be written: {error.strerror}") from None
    with tempfile.TemporaryDirectory(dir=parent, prefix="shard-") as folder:
        yield Path(folder)
