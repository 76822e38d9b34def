"""Labels tables on storage: `labels/<name>.parquet`, with boxes in an object of their own that its metadata name.

Boxes are put first and the table last, so that a version appears whole or not at all; those of older versions go after
it. Who reads meanwhile reads the table again where its boxes have just gone.
"""

import json
import re
from dataclasses import fields, replace
from io import BytesIO
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.errors import ArgumentError, IntegrityError
from shardkit.labels.base import (
    BOXES,
    FORMAT,
    KEY,
    SPLIT,
    TYPES,
    Kind,
    LabelsDescription,
    LabelTable,
    Level,
    check_columns,
    digest,
)
from shardkit.storage import MissingObject, Store, parquet
from shardkit.storage.growing import one

FOLDER = "labels"
_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
_DESCRIPTION, _DIGEST = b"shardkit.labels", b"shardkit.digest"
_ANEW = "run shardkit label again"
_TRIES = 8  # versions that may appear while one is read
_OUTCOMES = {"matched", "ambiguous", "unmatched"}


def object_name(name: str) -> str:
    """Return the object of a table.

    Parameters
    ----------
    name : str
        The table's name.

    Raises
    ------
    ArgumentError
        It is no name of a table.
    """
    if not _NAME.fullmatch(name):
        raise ArgumentError(f"{name!r} is no name for labels: take small letters, digits, - and _, at most 64")
    return f"{FOLDER}/{name}.parquet"


def names(store: Store) -> list[str]:
    """Return the names of a dataset's labels tables, sorted.

    Parameters
    ----------
    store : Store
        The dataset.
    """
    objects = (name.removeprefix(f"{FOLDER}/").removesuffix(".parquet") for name, _ in store.list(FOLDER))
    return sorted(name for name in objects if _NAME.fullmatch(name))


def read(store: Store, name: str) -> LabelTable:
    """Read a labels table and its boxes, and hold them against their digest.

    Parameters
    ----------
    store : Store
        The dataset.
    name : str
        The table's name.

    Raises
    ------
    ArgumentError
        There is no such table.
    IntegrityError
        It is damaged, or says what no labels table could.
    StorageError
        It cannot be read.
    """
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            return _read(store, name)
        except _Gone as gone:  # replaced meanwhile, or the boxes are lost
            if last:
                raise IntegrityError(f"{store.url}/{gone}: missing; {_ANEW}") from None
    raise AssertionError


class _Gone(Exception):
    """The boxes that a table names are not there."""


def _read(store: Store, name: str) -> LabelTable:
    where = f"{store.url}/{object_name(name)}"
    try:
        data = store.get(object_name(name))
    except MissingObject:
        raise ArgumentError(_unknown(store, name)) from None
    with parquet.legible(where), _opened(data) as file:
        told = file.schema_arrow.metadata or {}
        description = _described(told.get(_DESCRIPTION, b""), name, where)
        _check(file.schema_arrow.remove_metadata(), description, where)
        table = file.read().replace_schema_metadata(None)
    _check_keys(table, where)
    found = LabelTable(description, table, _boxes(store, description))
    if told.get(_DIGEST, b"").decode("ascii", "replace") != found.digest:
        raise IntegrityError(f"{where} differs from its digest: {_ANEW}")
    return found


def _opened(data: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _unknown(store: Store, name: str) -> str:
    there = names(store)
    said = f"there are {', '.join(there)}" if there else "there are none; shardkit label makes some"
    return f"{store.url} has no labels named {name}: {said}"


def _described(text: bytes, name: str, where: str) -> LabelsDescription:
    """Return what a table says of itself, of which nothing is believed that no version of ours could say."""
    try:
        content: dict[str, Any] = json.loads(text)
        known = {f.name: content[f.name] for f in fields(LabelsDescription)}
        found = LabelsDescription(**known | {"sources": tuple(known["sources"])})
        sound = (
            found.format == FORMAT
            and found.name == name
            and found.level in get_args(Level)
            and all(kind in get_args(Kind) for kind in found.kinds.values())
            and set(found.rows) == _OUTCOMES
            and all(type(count) is int and count >= 0 for count in found.rows.values())
            and all(isinstance(text, str) for text in (*found.kinds, *found.sources, found.dataset))
            and all(text is None or isinstance(text, str) for text in (found.vote, found.replaces, found.collection))
            and (found.boxes is None or _is_boxes(name, found.boxes))
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise IntegrityError(f"{where} is no labels table of this version of shardkit: {_ANEW}")
    return found


def _check(schema: pa.Schema, description: LabelsDescription, where: str) -> None:
    wanted = [(KEY, pa.string()), *((name, TYPES[kind]) for name, kind in description.kinds.items())]
    if schema != pa.schema([*wanted, (SPLIT, pa.string())]):
        raise IntegrityError(f"{where} has other columns than it says: {_ANEW}")


def _check_keys(table: pa.Table, where: str) -> None:
    keys = one(table[KEY])
    if keys.null_count or not _is_sorted(keys):
        raise IntegrityError(f"{where} does not have each key once, in order: {_ANEW}")


def _is_sorted(keys: pa.Array) -> bool:
    """Whether keys are in order, each once."""
    return len(keys) < 2 or bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())


def _boxes(store: Store, description: LabelsDescription) -> pa.Table | None:
    if description.boxes is None:
        return None
    where = f"{store.url}/{description.boxes}"
    try:
        data = store.get(description.boxes)
    except MissingObject:
        raise _Gone(description.boxes) from None
    with parquet.legible(where), _opened(data) as file:
        if file.schema_arrow.remove_metadata() != BOXES:
            raise IntegrityError(f"{where} has other columns than boxes have: {_ANEW}")
        return file.read().replace_schema_metadata(None)


def _is_boxes(name: str, text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(f"{FOLDER}/{name}[.]boxes-[0-9a-f]{{12}}[.]parquet", text) is not None


def current(store: Store, name: str) -> LabelTable | None:
    """Return the version that a new one would take the place of; None where there is none, or one that is damaged.

    Parameters
    ----------
    store, name
        As for `read`.
    """
    try:
        return read(store, name)
    except (ArgumentError, IntegrityError):
        return None


def write(store: Store, labels: LabelTable) -> LabelTable:
    """Write a labels table under the name in its description, as a new version where there is one.

    Parameters
    ----------
    store : Store
        The dataset.
    labels : LabelTable
        The table. `boxes` and `replaces` of its description are filled in here.

    Returns
    -------
    LabelTable
        What lies on storage now: the version that was there where the new one says nothing else.

    Raises
    ------
    ArgumentError
        Its name or a column's cannot be used.
    StorageError
        It cannot be written.
    """
    return write_new(store, labels)[0]


def write_new(store: Store, labels: LabelTable) -> tuple[LabelTable, bool]:
    """Write as `write` does, and tell whether that says anything that was not there before.

    Parameters
    ----------
    store, labels
        As for `write`.
    """
    name, whole = labels.description.name, object_name(labels.description.name)
    labels = _completed(labels)
    before = current(store, name)
    if before is not None:
        labels = labels.replacing(before)
    if labels is not before:
        if labels.boxes is not None and labels.description.boxes is not None:
            store.put(labels.description.boxes, _bytes(labels.boxes, {}))
        told = {_DESCRIPTION: labels.description.to_json().encode(), _DIGEST: labels.digest.encode()}
        store.put(whole, _bytes(labels.table, told))
    _sweep(store, name, labels.description.boxes)
    return labels, labels is not before


def _completed(labels: LabelTable) -> LabelTable:
    """Return the table as it is stored: sorted by key, with the name of its boxes."""
    kinds = labels.description.kinds
    check_columns(pa.schema([(name, TYPES[kind]) for name, kind in kinds.items()]))
    wanted = pa.schema([(KEY, pa.string()), *((n, TYPES[k]) for n, k in kinds.items()), (SPLIT, pa.string())])
    table = labels.table.select(wanted.names)
    if not _is_sorted(one(table[KEY])):
        table = table.sort_by(KEY)
    table = table.cast(wanted).combine_chunks()
    boxes, place = labels.boxes, None
    if boxes is not None:
        boxes = boxes.cast(BOXES).sort_by([(name, "ascending") for name in BOXES.names]).combine_chunks()
        place = f"{FOLDER}/{labels.description.name}.boxes-{digest(boxes)[:12]}.parquet"
    return LabelTable(replace(labels.description, boxes=place), table, boxes)


def _bytes(table: pa.Table, told: dict[bytes, bytes]) -> bytes:
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(told), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def remove(store: Store, name: str) -> None:
    """Remove a labels table and its boxes.

    Parameters
    ----------
    store : Store
        The dataset.
    name : str
        The table's name.

    Raises
    ------
    ArgumentError
        There is none of that name.
    StorageError
        It cannot be removed.
    """
    whole = object_name(name)
    if not store.exists(whole):
        raise ArgumentError(_unknown(store, name))
    store.delete(whole)
    _sweep(store, name, None)


def _sweep(store: Store, name: str, keep: str | None) -> None:
    """Remove boxes that no version names any more."""
    for found in [found for found, _ in store.list(FOLDER)]:
        if found != keep and _is_boxes(name, found):
            store.delete(found)
