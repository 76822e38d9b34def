"""A finished dataset on storage: dataset.json, the manifest, and the samples in their shards."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shardkit.codecs import codec
from shardkit.codecs.base import Pixels
from shardkit.codecs.placement import Placement
from shardkit.dataset import description_checks, manifest, schema
from shardkit.dataset.description import FORMAT, READABLE, DatasetDescription
from shardkit.dataset.hashes import fingerprint
from shardkit.dataset.rounding import halved
from shardkit.dataset.sample_row import SampleRow
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import form_of
from shardkit.formats.zarr_arrays import NODE
from shardkit.storage import MissingObject, Store, no_folder, parquet, spill
from shardkit.storage.regular import ANEW
from shardkit.storage.spill import Spill

NAME = "dataset.json"
JOURNALS = ".build"
"""Folder below the dataset's root where a build keeps what it has done; gone when it is done."""
IMAGE_COLUMNS = (
    "key", "shard", "offset", "length", "level_bytes", "level_hash", "height", "width", "bits", "bin_height",
    "bin_width",
)  # fmt: skip
"""Columns of the manifest that an image is read by."""
_MOST = 64 << 20  # bytes of a dataset.json
_PUTS = 8  # small objects written at a time


def description(store: Store) -> DatasetDescription:
    """Read dataset.json and check what it says.

    Parameters
    ----------
    store : Store
        The dataset.

    Returns
    -------
    DatasetDescription
        What the file says.

    Raises
    ------
    ArgumentError
        There is no dataset.
    IntegrityError
        The file is damaged, of another format, or says what no dataset could have.
    """
    if store.root is not None and (absent := no_folder(store.root)):
        mixed = (
            "; of a mixture, name one of its datasets" if store.root.suffix == ".json" and store.root.is_file() else ""
        )
        raise ArgumentError(absent + mixed)
    try:
        content = json.loads(store.get(NAME, most=_MOST))
    except MissingObject as error:
        raise ArgumentError(_no_dataset(store, error)) from None
    except (ValueError, RecursionError):  # not only of JSON: Python refuses numbers of many digits
        raise IntegrityError(f"{store.url}/{NAME} is damaged: run the build again") from None
    if not isinstance(content, dict) or content.get("format") not in READABLE:
        raise IntegrityError(f"{store.url}/{NAME} has another format than {FORMAT}: use the shardkit that wrote it")
    return description_checks.checked(content, f"{store.url}/{NAME}")


def _no_dataset(store: Store, error: MissingObject) -> str:
    """Say why there is no dataset at a place, and where there is one nearby."""
    if "the bucket does not exist" in str(error):
        return str(error)
    below = [] if store.root is None else sorted(store.root.glob(f"*/{NAME}"))
    hint = f"there is one in {below[0].parent}" if below else "an interrupted build has none; run it again"
    return f"{store.url} is no shardkit dataset: it has no {NAME} ({hint})"


def samples(store: Store, columns: list[str] | None = None, described: DatasetDescription | None = None) -> pa.Table:
    """Read the manifest, its values checked.

    Parameters
    ----------
    store : Store
        The dataset.
    columns : list of str, optional
        Columns to read. Without them the whole manifest is read and held against its digest.
    described : DatasetDescription, optional
        What dataset.json says, where it was read before.

    Returns
    -------
    pyarrow.Table
        A row per sample, of the types in `shardkit.dataset.manifest.SCHEMA`.

    Raises
    ------
    ArgumentError
        There is no dataset.
    IntegrityError
        The manifest is missing or damaged, or contradicts dataset.json.
    """
    described = described or description(store)
    names = manifest.SCHEMA.names if columns is None else columns
    with _manifest(store, columns, described) as (file, where), parquet.legible(where):
        table, named = manifest.typed(file.read(columns), names), manifest.named_digest(file)
    rows = schema.ManifestCheck(described, where)
    for batch in table.to_batches(schema.BATCH):
        rows.check(batch)
    rows.done()
    if columns is None:
        _check_digest(table, described, named, where)
    return table


def spilled(
    store: Store, path: Path, columns: list[str] | None = None, described: DatasetDescription | None = None
) -> Spill:
    """Read the manifest into a spill, its values checked: memory holds some thousand rows of it.

    Parameters
    ----------
    store, columns, described
        As for `samples`, which raises the same.
    path : Path
        The spill's file.

    Returns
    -------
    Spill
        What `samples` would return.
    """
    described = described or description(store)
    names = manifest.SCHEMA.names if columns is None else columns
    with (
        _manifest(store, columns, described) as (file, where),
        spill.writing(path, pa.schema([manifest.SCHEMA.field(name) for name in names])) as sink,
    ):
        rows, named = schema.ManifestCheck(described, where), manifest.named_digest(file)
        for table in _blocks(file, names, where):
            for batch in table.to_batches():
                rows.check(batch)
            sink.write(table)
        rows.done()
    found = Spill(path)
    if columns is None:
        _check_digest(found, described, named, where)
    return found


@contextmanager
def _manifest(
    store: Store, columns: list[str] | None, described: DatasetDescription
) -> Iterator[tuple[pq.ParquetFile, str]]:
    """Open the manifest, and check what it says of itself."""
    where = f"{store.url}/{manifest.NAME}"
    try:
        data = store.open(manifest.NAME)
    except MissingObject:
        raise IntegrityError(f"{store.url} has no {manifest.NAME}: {ANEW}") from None
    with data:
        with parquet.legible(where):
            file = manifest.opened(data)
            schema.opened(file, data.seek(0, os.SEEK_END), described, where, columns)
        with file:
            yield file, where


def _blocks(file: pq.ParquetFile, names: list[str], where: str) -> Iterator[pa.Table]:
    """Yield some thousand rows at a time. What a caller does with them is no fault of the file's."""
    with parquet.legible(where):
        for table in parquet.blocks(file, names, schema.BATCH):
            yield manifest.typed(table, names)


def _check_digest(samples: pa.Table | Spill, described: DatasetDescription, named: str, where: str) -> None:
    wanted = described.digest or named
    if wanted and manifest.digest(samples) != wanted:
        raise IntegrityError(f"{where} differs from the digest in {NAME if described.digest else 'it'}: {ANEW}")


def write_metadata(store: Store, samples: pa.Table | Spill, description: DatasetDescription) -> None:
    """Write what a format has beside shards and manifest, each kind of object after those that it refers to."""
    with ThreadPoolExecutor(_PUTS) as threads:
        for objects in form_of(description).metadata(samples, description):
            for _ in threads.map(lambda item: store.put(*item), objects):
                pass


def sweep(store: Store) -> None:
    """Remove what interrupted writes of a dataset have left in a local store."""
    store.sweep((NAME, manifest.NAME, NODE), ("shards", "report", "labels", "[0-9]*x[0-9]*"))


def smallest_level(row: SampleRow, side: int) -> int:
    """Return the level of least pixels whose longer side still has `side`; 0 where the whole image is smaller.

    Parameters
    ----------
    row : dict
        A sample's row of the manifest.
    side : int
        Pixels.

    Returns
    -------
    int
        How many times the image is halved.
    """
    level, longest = len(row["level_bytes"]) - 1, max(row["height"], row["width"])
    while level and halved(longest, level) < side:
        level -= 1
    return level


def image(store: Store, row: SampleRow, description: DatasetDescription, level: int = 0) -> Pixels:
    """Return one sample's image at 1/2**level, reading only the bytes that this level needs.

    Parameters
    ----------
    store : Store
        The dataset.
    row : dict
        The sample's row of the manifest.
    description : DatasetDescription
        What dataset.json says.
    level : int
        How many times the image is halved.

    Returns
    -------
    numpy.ndarray
        Pixels of shape (ceil(height / 2**level), ceil(width / 2**level)), uint16.

    Raises
    ------
    ArgumentError
        The image has no such level.
    IntegrityError
        The stored bytes are not the image's.
    StorageError
        They cannot be read.
    """
    lengths = row["level_bytes"]
    if not 0 <= level < len(lengths):
        raise ArgumentError(
            f"level {level} is not stored of this image: {description.codec} holds levels 0 to {len(lengths) - 1}"
        )
    name, start = form_of(description).locate(store, row, level)
    data = store.get_range(name, start, lengths[level])
    if fingerprint(data) != row["level_hash"][level]:
        raise IntegrityError(
            f"{store.url}/{name}: the image of {row['key']} at byte {start:,} differs from its hash; run verify"
        )
    return codec(description.codec).decode(data, level, row["bits"], Placement.of(row))
