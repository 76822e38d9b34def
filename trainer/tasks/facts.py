"""Facts of the manifest as labels: view, sex, body part and age, for `--labels facts`."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.labels import Kind, Labels
from trainer.evaluate.groups import years

FACTS: Final = "facts"
"""In place of a table's name."""
_KINDS: Final[dict[str, Kind]] = {"view": "category", "sex": "category", "body_part": "category", "age": "number"}
_REMEDY: Final = {
    "sex": "build the dataset with --demographics, or with --facts TABLE",
    "age": "build the dataset with --demographics, or with --facts TABLE",
}


def facts(loader: Loader, columns: tuple[str, ...]) -> Labels:
    """Return columns of the manifest as labels by row.

    Parameters
    ----------
    loader
        Of the dataset.
    columns
        Which of them are wanted; all that hold anything where none are named.

    Raises
    ------
    ArgumentError
        For a column that is no fact, or that holds nothing.
    """
    for name in columns:
        if name not in _KINDS:
            raise ArgumentError(f"{name} is no fact: choose --objective.columns of {', '.join(_KINDS)}")
    table = loader.columns(*_KINDS)
    there = [name for name in _KINDS if table[name].null_count < table.num_rows]
    for name in columns:
        if name not in there:
            remedy = _REMEDY.get(name, "build the dataset with --facts TABLE")
            raise ArgumentError(f"the dataset does not know the {name.replace('_', ' ')} of any image: {remedy}")
    names = tuple(columns or there)
    values, known = np.zeros((table.num_rows, len(names)), np.float32), np.zeros((table.num_rows, len(names)), np.bool_)
    categories: dict[str, tuple[str, ...]] = {}
    for at, name in enumerate(names):
        column = table[name].combine_chunks()
        if name == "age":
            found = np.array([years(text) for text in column.to_pylist()], np.float32)
            known[:, at] = np.isfinite(found)
        else:
            categories[name] = tuple(sorted(column.unique().drop_null().to_pylist()))
            place = pc.index_in(column, pa.array(categories[name], pa.string()))
            known[:, at] = place.is_valid().to_numpy(zero_copy_only=False)
            found = place.fill_null(0).to_numpy(zero_copy_only=False)
        values[:, at] = np.where(known[:, at], found, 0)
    split, has_row = np.full(table.num_rows, None, np.object_), np.ones(table.num_rows, np.bool_)
    return Labels(names, values, known, split, {name: _KINDS[name] for name in names}, categories, has_row)
