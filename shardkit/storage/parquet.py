"""Parquet files: read without surprises, and, in the private folder, written whole or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from shardkit.errors import IntegrityError, ShardkitError
from shardkit.storage import private
from shardkit.storage.regular import ANEW
from shardkit.storage.store import publish


def schema(columns: type) -> pa.Schema:
    """Return the Arrow schema of a TypedDict.

    Each field is annotated with its Arrow type, and maybe its meaning, which becomes the field's `description`.
    """
    found = []
    for name, hint in get_type_hints(columns, include_extras=True).items():
        kind, *words = hint.__metadata__
        found.append(pa.field(name, kind, metadata={"description": words[0]} if words else None))
    return pa.schema(found)


def read(source: Path | bytes, columns: list[str] | None = None, threads: bool = True) -> pa.Table:
    """Read a file's table. Threads of `pq.read_table` abort a process that ends soon after (seen with 26.0).

    Of a small file, dividing the columns between threads takes longer than to read them.
    """
    with pq.ParquetFile(source if isinstance(source, Path) else pa.BufferReader(source)) as file:
        return file.read(columns, use_threads=threads)


def blocks(file: pq.ParquetFile, columns: list[str] | None = None, most: int = 1 << 16) -> Iterator[pa.Table]:
    """Yield a file's rows, a row group or so many of its rows at a time.

    `ParquetFile.iter_batches` holds memory of all row groups that it has read (seen with 26.0).
    """
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, columns, use_threads=False)
        yield from (group.slice(start, most) for start in range(0, group.num_rows, most))


def completed(table: pa.Table, schema: pa.Schema, names: Iterable[str]) -> pa.Table:
    """Return a table with those columns of a schema, full of nulls, that it lacks: an earlier version wrote fewer."""
    for name in (name for name in names if name not in table.column_names):
        table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table


@contextmanager
def legible(where: str) -> Iterator[None]:
    """Translate what Parquet raises on damaged bytes.

    Parameters
    ----------
    where : str
        The file, in messages.

    Raises
    ------
    IntegrityError
        In place of an error that damage leads to.
    """
    try:
        yield
    except ShardkitError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{where} is damaged: {ANEW} ({said})") from None


def write(table: pa.Table, path: Path) -> None:
    """Replace a file by a table."""
    with writing(path, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Replace a file by what is written to it, row group by row group; only its owner may read it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with private.create(temporary) as file:
        writer = pq.ParquetWriter(file, schema, compression="zstd")
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.is_open = False  # its destructor would try again, and print
            temporary.unlink(missing_ok=True)
            raise
    publish(temporary, path)
