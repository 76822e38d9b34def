"""What `shardkit verify` asks of labels: that they are whole, and say what can be true of the dataset's samples."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ShardkitError
from shardkit.labels import store as labels_store
from shardkit.labels.base import KEY, LabelTable
from shardkit.storage import Store
from shardkit.terminal.words import counted

_AGAIN = "run shardkit label again with its table"
_EDGE = 1e-6  # pixels


def problems(store: Store, samples: pa.Table) -> Iterator[str]:
    """Check all labels of a dataset.

    Parameters
    ----------
    store : Store
        The dataset.
    samples : pyarrow.Table
        The manifest's `key`, `patient`, `study`, `height` and `width`.

    Yields
    ------
    str
        Problems, one sentence each.
    """
    used = set[str]()
    for name in labels_store.names(store):
        whole = labels_store.object_name(name)
        used.add(whole)
        try:
            found = labels_store.read(store, name)
        except ShardkitError as error:
            yield str(error)
            used |= {there for there, _ in store.list(labels_store.FOLDER) if there.startswith(f"{whole[:-8]}.boxes-")}
            continue
        used.add(found.description.boxes or whole)
        for said in (*_values(found), *_keys(found, samples), *_level(found, samples), *_boxes(found, samples)):
            yield f"{whole}: {said}"
    for there, _ in store.list(labels_store.FOLDER):
        if there not in used:
            yield f"{there}: no labels table names it; remove it, or {_AGAIN}"


def _values(found: LabelTable) -> Iterator[str]:
    for name, kind in found.description.kinds.items():
        column = found.table[name]
        if kind == "binary":
            wrong = pc.invert(pc.is_in(column, pa.array([1, 0, -1], pa.int8()), skip_nulls=False))
            wrong = pc.and_(wrong, column.is_valid())
        elif kind == "number":
            wrong = pc.invert(pc.is_finite(column))
        else:
            wrong = pc.equal(column, "")
        if pc.any(wrong).as_py():
            row = pc.index(wrong.combine_chunks(), value=True).as_py()
            yield f"{name} of {found.table[KEY][row].as_py()} is no {kind} label; {_AGAIN}"


def _keys(found: LabelTable, samples: pa.Table) -> Iterator[str]:
    for table, what in ((found.table, ("row",)), (found.boxes, ("box", "boxes"))):
        if table is None:
            continue
        lost = table[KEY].filter(pc.invert(pc.is_in(table[KEY], samples["key"].combine_chunks())))
        if len(lost):
            yield f"{counted(len(lost), *what)} of keys that the manifest has not, such as {lost[0].as_py()}; {_AGAIN}"


def _level(found: LabelTable, samples: pa.Table) -> Iterator[str]:
    """Check that all images of a study or patient have what was said of it."""
    level = found.description.level
    if level == "image":
        return
    at = pc.index_in(found.table[KEY].combine_chunks(), samples["key"].combine_chunks())
    group = samples[level].combine_chunks().take(at).dictionary_encode().indices
    for name in found.columns:
        said = pc.and_(found.table[name].combine_chunks().is_valid(), group.is_valid())
        value = found.table[name].combine_chunks().filter(said).dictionary_encode().indices.to_numpy()
        groups = group.filter(said).to_numpy()
        order = np.lexsort((value, groups))
        differ = (groups[order][1:] == groups[order][:-1]) & (value[order][1:] != value[order][:-1])
        if differ.any():
            keys = found.table[KEY].combine_chunks().filter(said)
            key = keys[int(order[np.flatnonzero(differ)[0]])].as_py()
            yield f"{name} differs among images of one {level}, such as that of {key}; {_AGAIN}"


def _boxes(found: LabelTable, samples: pa.Table) -> Iterator[str]:
    if found.boxes is None:
        return
    at = pc.index_in(found.boxes[KEY].combine_chunks(), samples["key"].combine_chunks())
    sides = {name: found.boxes[name].to_numpy() for name in ("top", "left", "height", "width")}
    most = {
        name: samples[name].combine_chunks().take(at).cast(pa.float64()).fill_null(np.inf).to_numpy()
        for name in ("height", "width")
    }
    inside = (sides["top"] >= 0) & (sides["left"] >= 0) & (sides["height"] > 0) & (sides["width"] > 0)
    inside &= sides["top"] + sides["height"] <= most["height"] + _EDGE
    inside &= sides["left"] + sides["width"] <= most["width"] + _EDGE
    if len(out := np.flatnonzero(~inside)):  # NaN, too
        key = found.boxes[KEY][int(out[0])].as_py()
        yield f"{counted(len(out), 'box', 'boxes')} beyond the edges of images, such as one of {key}; {_AGAIN}"
