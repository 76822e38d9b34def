"""Writers and readers of shards, a module a format that satisfies `shardkit.formats.base.ShardFormat`.

A new format is a module and a line in `FORMATS`. Functions here hold for all of them.
"""

from collections.abc import Iterator
from pathlib import Path

from shardkit.codecs import CODECS
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.formats import webdataset, zarr
from shardkit.formats.base import Row, ShardFormat
from shardkit.storage import Store

FORMATS: dict[str, ShardFormat] = {
    webdataset.NAME: webdataset,
    zarr.NAME: zarr,
}
"""By name, the usual one first."""


def shard_format(name: str) -> ShardFormat:
    """A format by its name. Raises ArgumentError for an unknown name."""
    if name not in FORMATS:
        raise ArgumentError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def form_of(description: DatasetDescription) -> ShardFormat:
    """Return the format of a dataset's shards."""
    return shard_format(description.shard_format)


def codecs_of(form: ShardFormat) -> list[str]:
    """Names of the codecs that a format's images may have, the usual one first."""
    return [name for name, codec in CODECS.items() if form.takes(codec)]


def files(folder: Path, name: str, count: int) -> list[Path]:
    """Local files for the objects of a shard."""
    return [folder / f"{name}-{part}" for part in range(count)]


def fetch(store: Store, objects: list[str], paths: list[Path]) -> None:
    """Bring a shard's objects into local files."""
    for name, path in zip(objects, paths, strict=True):
        path.write_bytes(store.get(name))


def keep(form: ShardFormat, sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[Path]:
    """Copy a shard with only the samples of `rows`, to which their new offsets are given; returns the targets."""
    for row, offset in zip(rows, form.rewrite(sources, targets, rows, capacity), strict=True):
        row["offset"] = offset
    return targets


def commit(store: Store, objects: list[str], paths: list[Path]) -> None:
    """Make a shard appear, or replace one. The object that makes it whole comes last."""
    for name, path in reversed(list(zip(objects, paths, strict=True))):
        store.put_file(name, path)


def remove(store: Store, objects: list[str]) -> None:
    """Make a shard vanish."""
    for name in objects:
        store.delete(name)


def listing(store: Store, form: ShardFormat) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the objects that hold a dataset's images."""
    return ((name, size) for name, size in store.list(form.FOLDER) if form.OBJECT.fullmatch(name))
