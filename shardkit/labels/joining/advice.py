"""What to say where no row of a table belongs to a dataset: which other column and --by would match."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.labels.joining.matching import EXTENSION, match
from shardkit.labels.reading.tables import looks
from shardkit.labels.rows import By
from shardkit.labels.targets import Targets, read_key, read_targets
from shardkit.privacy import Pseudonyms
from shardkit.sources import tables
from shardkit.storage import Store
from shardkit.storage.growing import in_clear

_ROWS = 500  # of the table that are tried
_ENOUGH = 0.1  # share of them that has to match
_BY_CHANCE = 0.5  # of the best column's share: names of files may be numbers, as labels are
_SHOWN = 3


def advice(dataset: str, place: str, by: By, private: Path) -> str:
    """Try all columns of a table in all ways on its first rows.

    Parameters
    ----------
    dataset, place : str
        The dataset, and the table.
    by : By
        What was tried.
    private : Path
        Folder of the ledger and the key.

    Returns
    -------
    str
        The remedy, for the end of a sentence.
    """
    store = Store(dataset)
    described = contents.description(store)
    samples = contents.samples(store, ["key", "study", "patient"], described)
    table, _ = tables.read_place(place, "--table", coded=True)
    first = pa.table({name: in_clear(table[name].slice(0, _ROWS)) for name in table.column_names})
    targets, pseudonyms = read_targets(private, samples), read_key(private, described)
    found = _best(sorted(_matching(first, samples, targets, pseudonyms)))
    if found:
        ways = " or ".join(f"--by {way} --column '{column}'" for way, column in found[:_SHOWN])
        return f"in the first rows {ways} matches"
    if column := _other_extension(first, samples, targets, pseudonyms):
        return f"{column} names files that are here with another extension: write the names without one"
    if like := looks(table):
        return f"{like}: does --by {by} fit, and is it the table of this dataset?"
    return "no column of the table names images in any way that --by knows: is it the table of this dataset?"


def _matching(
    table: pa.Table, samples: pa.Table, targets: Targets, name: Pseudonyms
) -> Iterator[tuple[float, int, By, str]]:
    """Give (minus the share that matches, order, by, column)."""
    for column in table.column_names:
        texts = table[column].combine_chunks().drop_null().unique()
        for order, way in enumerate(get_args(By)):
            try:
                counts = match(texts, way, targets, samples, name).counts()
            except ArgumentError:  # the ledger does not tell
                continue
            share = float((counts > 0).mean()) if len(counts) else 0.0
            if share >= _ENOUGH:
                yield -share, order, way, column


def _best(found: list[tuple[float, int, By, str]]) -> list[tuple[By, str]]:
    """Return the first way of each column, the best column first; those that match far less do so by chance."""
    ways: dict[str, By] = {}
    for share, _, way, column in found:
        if share < _BY_CHANCE * found[0][0]:
            ways.setdefault(column, way)
    return [(way, column) for column, way in ways.items()]


def _other_extension(table: pa.Table, samples: pa.Table, targets: Targets, name: Pseudonyms) -> str | None:
    """Return the column whose names fit files once their extensions are taken off."""
    bare = [
        pc.replace_substring_regex(table[column].combine_chunks(), pattern=EXTENSION, replacement="")
        for column in table.column_names
    ]
    stems = pa.table(bare, names=table.column_names)
    found = sorted(one for one in _matching(stems, samples, targets, name) if one[2] in ("path", "name"))
    return found[0][3] if found else None
