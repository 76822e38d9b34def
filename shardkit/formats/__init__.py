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
    """Return a format by its name.

    Parameters
    ----------
    name : str
        One of `FORMATS`.

    Returns
    -------
    ShardFormat
        The module that writes and reads its shards.

    Raises
    ------
    ArgumentError
        There is no format of this name.
    """
    if name not in FORMATS:
        raise ArgumentError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def form_of(description: DatasetDescription) -> ShardFormat:
    """Return the format of a dataset's shards.

    Parameters
    ----------
    description : DatasetDescription
        What dataset.json says.

    Returns
    -------
    ShardFormat
        The module that writes and reads its shards.
    """
    return shard_format(description.shard_format)


def codecs_of(form: ShardFormat) -> list[str]:
    """Return the names of the codecs that shards of a format may hold.

    Parameters
    ----------
    form : ShardFormat
        The format.

    Returns
    -------
    list of str
        Names in `CODECS`, the usual one first.
    """
    return [name for name, codec in CODECS.items() if form.takes(codec)]


def files(folder: Path, name: str, count: int) -> list[Path]:
    """Return local files for the objects of a shard.

    Parameters
    ----------
    folder : Path
        The files' folder.
    name : str
        Start of their names.
    count : int
        How many objects a shard has.

    Returns
    -------
    list of Path
        A path for each object.
    """
    return [folder / f"{name}-{part}" for part in range(count)]


def fetch(store: Store, objects: list[str], paths: list[Path]) -> None:
    """Bring a shard's objects into local files.

    Parameters
    ----------
    store : Store
        The dataset.
    objects : list of str
        Names of the objects.
    paths : list of Path
        A file for each.
    """
    for name, path in zip(objects, paths, strict=True):
        path.write_bytes(store.get(name))


def keep(form: ShardFormat, sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[Path]:
    """Copy a shard with only some of its samples.

    Parameters
    ----------
    form : ShardFormat
        Format of the shard.
    sources, targets : list of Path
        Files of the shard and of its copy, one an object.
    rows : list of dict
        Manifest rows of the samples to keep, in the shard's order. Their offsets are replaced by those in the copy.
    capacity : int
        Images that the shard has room for, 0 for any number.

    Returns
    -------
    list of Path
        The targets.
    """
    for row, offset in zip(rows, form.rewrite(sources, targets, rows, capacity), strict=True):
        row["offset"] = offset
    return targets


def commit(store: Store, objects: list[str], paths: list[Path]) -> None:
    """Make a shard appear, or replace one. The object that makes it whole comes last.

    Parameters
    ----------
    store : Store
        The dataset.
    objects : list of str
        Names of the objects.
    paths : list of Path
        Their contents, in files which a local store takes away.
    """
    for name, path in reversed(list(zip(objects, paths, strict=True))):
        store.put_file(name, path)


def remove(store: Store, objects: list[str]) -> None:
    """Make a shard vanish.

    Parameters
    ----------
    store : Store
        The dataset.
    objects : list of str
        Names of the objects.
    """
    for name in objects:
        store.delete(name)


def listing(store: Store, form: ShardFormat) -> Iterator[tuple[str, int]]:
    """List the objects that hold a dataset's images.

    Parameters
    ----------
    store : Store
        The dataset.
    form : ShardFormat
        Format of its shards.

    Returns
    -------
    iterator of (str, int)
        Name and bytes of each.
    """
    return ((name, size) for name, size in store.list(form.FOLDER) if form.OBJECT.fullmatch(name))
