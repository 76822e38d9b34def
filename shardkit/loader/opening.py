"""What is read of all samples of a manifest: few columns, as narrow arrays, some row groups at a time.

Of 10**8 samples that is 500 MB and some seconds. What else a manifest says is read by shard, or column by column when
it is asked for.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardkit.dataset import schema
from shardkit.dataset.description import DatasetDescription
from shardkit.plan.samples import Ints, Sizes

SIZES = ("height", "width")
_BLOCK = 1 << 18  # rows: enough that checks cost little


@dataclass(frozen=True, slots=True)
class Opened:
    """What a loader knows of all samples.

    Attributes
    ----------
    shards : list of str
        Names of the shards, in manifest order.
    starts : ndarray of int64, (shards + 1,)
        First row of each, and the end.
    sides : ndarray of uint16, (2, rows)
        Heights and widths in pixels.
    split : ndarray of int8, (rows,)
        Index of the split in `shardkit.dataset.schema.SPLITS`.
    """

    shards: list[str]
    starts: Ints
    sides: Sizes
    split: npt.NDArray[np.int8]


def read(file: pq.ParquetFile, description: DatasetDescription, where: str) -> Opened:
    """Read and check what is needed of all samples.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
        The manifest, with the columns of `schema.CODED` as codes.
    description : DatasetDescription
        What dataset.json says.
    where : str
        The file, in messages.

    Raises
    ------
    IntegrityError
        A row is wrong.
    """
    rows, count = schema.ManifestCheck(description, where), file.metadata.num_rows
    sides, split = np.empty((len(SIZES), count), np.uint16), np.empty(count, np.int8)
    for block in _blocks(file, schema.OPENING):
        here = slice(rows.row, rows.row + block.num_rows)
        rows.check(block)
        for side, name in zip(sides, SIZES, strict=True):
            side[here] = block.column(name).to_numpy()
        coded = block.column("split")
        numbers = [schema.SPLITS.index(word) if word in schema.SPLITS else -1 for word in coded.dictionary.to_pylist()]
        split[here] = np.array(numbers, np.int8)[coded.indices.to_numpy()]
    return Opened(*rows.done(), sides, split)


def narrow(file: pq.ParquetFile, names: tuple[str, ...], description: DatasetDescription, where: str) -> Sizes:
    """Read columns of pixels of all samples, checked: no image has a longer side than uint16 holds.

    Parameters
    ----------
    file, description, where
        As for `read`.
    names : tuple of str
        The columns.

    Returns
    -------
    ndarray of uint16, (names, rows)
        A row a column.
    """
    rows = schema.ManifestCheck(description, where)
    found = np.empty((len(names), file.metadata.num_rows), np.uint16)
    for block in _blocks(file, tuple(dict.fromkeys((*SIZES, *names)))):
        here = slice(rows.row, rows.row + block.num_rows)
        rows.check(block)
        for column, name in zip(found, names, strict=True):
            column[here] = block.column(name).to_numpy()
    return found


def _blocks(file: pq.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Go through columns of all rows, of large files in a thread that reads one block while another is checked."""
    blocks = _read(file, names)
    if file.metadata.num_rows <= _BLOCK:
        yield from blocks
        return
    with ThreadPoolExecutor(1, "shardkit-opening") as reader:
        following = reader.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = reader.submit(next, blocks, None)
            yield block


def _read(file: pq.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some row groups at a time: `iter_batches` takes a fifth longer, and holds memory of all that it has read."""
    waiting: list[int] = []
    rows = 0
    for number in range(groups := file.num_row_groups):
        waiting.append(number)
        rows += file.metadata.row_group(number).num_rows
        if rows >= _BLOCK or number == groups - 1:
            table = file.read_row_groups(waiting, [*names], use_threads=False)
            yield from table.unify_dictionaries().combine_chunks().to_batches()
            waiting, rows = [], 0
