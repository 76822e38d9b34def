"""Writers and readers of shards, one module a format, behind the same names.

CODECS       names of the codecs its images may have, the usual one first
FACTS        whether every image has a JSON member beside it; NESTED: whether smaller images are a part of its bytes
FOLDER       below which its objects lie, and OBJECT: the pattern of their names; SHARD: of those that a manifest names
places       images that a shard has room for, 0 for any number
objects      names of a planned shard's objects; the first appears last and makes it whole
part         the object that holds a level, from the one that the manifest names; `whole`: back from there
starts       first byte of every level of every image of a shard
locate       object and first byte of a level of one image
writer       a context manager whose `add` takes an image and tells where it starts
rewrite      copies a shard but for some of its images
metadata     further objects of a dataset, derived from its manifest, in the order they must appear
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.formats import webdataset, zarr
from shardkit.storage.store import Store

FORMATS: dict[str, ModuleType] = {"webdataset": webdataset, "zarr": zarr}


def shard_format(name: str) -> ModuleType:
    """The module of a format. Raises ArgumentError for an unknown name."""
    if name not in FORMATS:
        raise ArgumentError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def holder(shard: str) -> ModuleType:
    """The format of a shard, by the name of its object."""
    return webdataset if webdataset.OBJECT.fullmatch(shard) else zarr


def files(folder: Path, name: str, count: int) -> list[Path]:
    """Local files for the objects of a shard."""
    return [folder / f"{name}-{part}" for part in range(count)]


def fetch(store: Store, objects: list[str], paths: list[Path]) -> None:
    """Bring a shard's objects into local files."""
    for name, path in zip(objects, paths, strict=True):
        path.write_bytes(store.get(name))


def keep(
    form: ModuleType, sources: list[Path], targets: list[Path], rows: list[dict[str, Any]], places: int
) -> list[Path]:
    """Copy a shard with only the samples of `rows`, to which their new offsets are given; returns the targets."""
    for row, offset in zip(rows, form.rewrite(sources, targets, rows, places), strict=True):
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


def listing(store: Store, form: ModuleType) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the objects that hold a dataset's images."""
    return ((name, size) for name, size in store.list(form.FOLDER) if form.OBJECT.fullmatch(name))
