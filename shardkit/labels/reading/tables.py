"""A table of labels as people have it, CSV or Parquet, read into `LabelRows`; what had to be guessed is said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels.base import KEY, SPLIT, TYPES, Kind, Level
from shardkit.labels.reading.boxes import read_boxes
from shardkit.labels.reading.cells import (
    Column,
    Meaning,
    close_to,
    guess,
    has_decimal_commas,
    listed,
    require_clearly_binary_or_not,
    require_one_type,
    stray,
    typed,
)
from shardkit.labels.rows import By, LabelRows, Vote
from shardkit.sources import tables
from shardkit.sources.columns import found_column, parts_of_brackets
from shardkit.storage.growing import Words, in_clear, one

_IDENTIFIER = re.compile(
    r"\b(id|ids|uid|uids|mrn|pid|name|names|accession|number|path|paths|file|filename|dicom|dir|url|"
    r"date|time|datetime|birth|dob|address|phone|email|comment|comments|report|reports|text|remarks|index|unnamed|"
    r"reader|rad|study|series|sop|instance|patient|subject|image|nr)\b|#\s*$|^\s*#"
)
_NO_IDENTIFIER = re.compile(r"\b(position|view|quality|laterality)\b")
_PERSON = re.compile(
    r"(?<!bone )\b(patients?)?(age|ages|sex|gender|male|female|birth\w*|dob|yob|zip|zipcode|postcode|postal|ethnic|"
    r"ethnicity|race|nationality|religion|insurance|marital|language|occupation|"
    r"alter|geschlecht|geburts\w*|plz|postleitzahl|wohnort)\b"
)
"""What tells of a person. A dataset gains it only where it is named."""
_UID = re.compile(r"\d+(\.\d+){3,}")
_COMMAS = "looks like numbers with decimal commas: write 2.5, not 2,5"
_MANY = 50  # different texts that a column of categories has at most, unless it is named
_SPLITS = {"training": "train", "valid": "val", "validate": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is to be read; fields are the options of `shardkit label`.

    Attributes
    ----------
    by : By
        What its references name.
    column : str or None
        The column of references; None: one with a usual name.
    labels : sequence of str
        Columns to take, or findings of lists; none: all that are no identifiers.
    list_column, separator : str or None
        A column of lists, and what separates their items.
    kinds : Mapping
        Column -> its kind, where it is not to be guessed.
    level : Level or None
        What the labels are of; None: follows from `by`.
    vote, reader : str or None
        How several rows for one image become one, and the column that names their readers.
    split_column : str or None
        Column of the official split.
    boxes : str or None
        A table of boxes.
    meaning : Meaning
        Words that stand for 1, 0 and -1.
    """

    by: By
    column: str | None = None
    labels: Sequence[str] = ()
    list_column: str | None = None
    separator: str | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    level: Level | None = None
    vote: Vote | None = None
    reader: str | None = None
    split_column: str | None = None
    boxes: str | None = None
    meaning: Meaning = field(default_factory=Meaning)


def read(place: str | Path, options: TableOptions) -> tuple[LabelRows, list[str]]:
    """Read a table.

    Parameters
    ----------
    place : str or Path
        The file, or the url of an object in a bucket.
    options : TableOptions
        How to read it.

    Returns
    -------
    tuple of (LabelRows, list of str)
        What it says, and sentences about what was guessed or left out.

    Raises
    ------
    ArgumentError
        It cannot be read so; one sentence with row, column and remedy.
    """
    table, digest = tables.read_place(place, "--table", coded=True)
    name = str(place)
    if not table.num_rows:
        raise ArgumentError(f"{name} has no rows below its header: name a table that does")
    for option, wanted in (("--reader", options.reader), ("--list", options.list_column)):
        if wanted is not None:
            _require(table, wanted, option, name)
    reference = _reference(table, options, name)
    split = None
    if options.split_column is not None:
        _require(table, options.split_column, "--split-column", name)
        split = _split(table[options.split_column])
    said: list[str] = []
    values = _values(table, options, {reference, options.reader, options.split_column}, name, said)
    references = in_clear(table[reference])
    _refuse_identifiers(values, references, name)
    boxes, sources = None, [digest]
    if options.boxes is not None:
        boxes, more = read_boxes(options.boxes, options.by)
        sources.append(more)
    rows = LabelRows(
        by=options.by,
        reference=references,
        values=values,
        level=_level(options),
        split=split,
        boxes=boxes,
        vote=options.vote,
        sources=tuple(sources),
        first_row=tables.FIRST_ROW,
    )
    return rows, [f"{name}: references are in column {reference}", *said]


def _require(table: pa.Table, column: str, option: str, name: str) -> None:
    if column not in table.column_names:
        close, there = close_to(column, table.column_names), table.column_names
        remedy = f"did you mean {close}?" if close else f"there are {', '.join(there[:20])}{' …' * (len(there) > 20)}"
        raise ArgumentError(f"{name} has no column {column} ({option}): {remedy}")


def _reference(table: pa.Table, options: TableOptions, name: str) -> str:
    if options.column is not None:
        _require(table, options.column, "--column", name)
        return options.column
    return found_column(table.column_names, options.by, name)


def _level(options: TableOptions) -> Level:
    natural: Level = {"study": "study", "accession": "study", "patient": "patient"}.get(options.by, "image")  # type: ignore[assignment]
    if options.level is None:
        return natural
    order = get_args(Level)
    if order.index(options.level) < order.index(natural):
        raise ArgumentError(f"--level {options.level} cannot be with --by {options.by}: its labels are of a {natural}")
    return options.level


def _split(column: pa.ChunkedArray) -> pa.Array:
    """Return the official split, as codes; words that mean the same have one."""
    words = one(column).dictionary_encode()
    meant = [None if word is None else _SPLITS.get(word.lower(), word.lower()) for word in words.dictionary.to_pylist()]
    found = Words()
    found.add(pa.DictionaryArray.from_arrays(words.indices, pa.array(meant, pa.string())))
    return found.array()


def _values(table: pa.Table, options: TableOptions, taken: set[str | None], name: str, said: list[str]) -> pa.Table:
    """Return the labels, typed, and say what was guessed."""
    found: dict[str, pa.Array] = {}
    if options.list_column is not None:
        columns, how = listed(_column(table, options.list_column, name), options.separator, options.labels or None)
        found = {column: columns[column].combine_chunks() for column in columns.column_names}
        said.append(f"{options.list_column}: lists, {how}, of {len(found):,} findings")
    for wanted in (*options.kinds, *(() if options.list_column else options.labels)):
        _require(table, wanted, "--kind" if wanted in options.kinds else "--labels", name)
    if options.list_column is not None:
        names = list(options.kinds)
    elif options.labels:
        names = list(dict.fromkeys([*options.labels, *options.kinds]))
    else:
        names = _chosen(table, options, taken, name, said)
    guessed: dict[Kind, list[str]] = {kind: [] for kind in TYPES}
    for label in names:
        column = _column(table, label, name)
        kind = options.kinds.get(label)
        if kind is None:
            require_one_type(column, options.meaning)
            kind = guess(column, options.meaning)
            if kind == "number":
                require_clearly_binary_or_not(column, options.meaning)
            elif kind == "category" and has_decimal_commas(column):
                said.append(f"{label} {_COMMAS}")
            guessed[kind].append(label if kind != "category" else f"{label} ({len(column.used):,} values)")
        if label in found:
            raise ArgumentError(f"{name}: {label} is both a column and a finding of the lists: leave one out")
        found[label] = typed(column, kind, options.meaning)
    said += [f"taken as {kind}: {', '.join(labels)}" for kind, labels in guessed.items() if labels]
    if not found:
        raise ArgumentError(f"{name} has no column of labels beside its references: name some with --labels")
    return pa.table({_free(label): values for label, values in found.items()})


def _free(label: str) -> str:
    return f"{label}_" if label in (KEY, SPLIT) else label


def _column(table: pa.Table, label: str, name: str) -> Column:
    return Column.of(label, name, table[label], tables.FIRST_ROW)


def _chosen(table: pa.Table, options: TableOptions, taken: set[str | None], name: str, said: list[str]) -> list[str]:
    """Return the columns that are labels by their names and values: no identifiers, dates or free text."""
    chosen, left, parts = [], [], parts_of_brackets(table.column_names)
    for label in table.column_names:
        if label in taken or (label in parts and label not in options.kinds):
            continue
        if label in options.kinds:
            chosen.append(label)
        elif _names_identifier(label):  # its texts, as many as rows, are not looked at
            left.append(label)
        elif not _many_texts(column := _column(table, label, name), options.meaning):
            chosen.append(label)
        elif has_decimal_commas(column):
            said.append(f"left out: {label} {_COMMAS}")
        else:
            left.append(label)
    if parts:
        said.append(f"left out, as parts of one name: {', '.join(dict.fromkeys(parts.values()))}")
    if left:
        said.append(f"left out, as they may tell who or when: {', '.join(left)} (take them with --labels)")
    return chosen


def _names_identifier(label: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9#]+", " ", label).lower()
    if _PERSON.search(words) is not None:
        return True
    return _IDENTIFIER.search(words) is not None and _NO_IDENTIFIER.search(words) is None


def _many_texts(column: Column, meaning: Meaning) -> bool:
    """Whether a column is free text, dates or numbers of people rather than categories or measurements."""
    used, known = column.used, len(column.at) - column.at.null_count
    values = [meaning.value(column.values[i]) for i in used]
    if all(value is not None for value in values):
        whole = all(value.is_integer() for value in values if value is not None)
        return whole and len(used) > _MANY and 2 * len(used) > known
    if stray(column, meaning):  # a column of numbers with a fault, which is told
        return False
    return len(used) > _MANY or 2 * len(used) > known or any(_UID.fullmatch(column.values[i]) for i in used)


def _refuse_identifiers(values: pa.Table, references: pa.Array, name: str) -> None:
    """Refuse categories that name images, studies or people: what is stored must tell of no one."""
    if _any_in(pa.array(values.column_names), references) or any(map(_UID.fullmatch, values.column_names)):
        raise ArgumentError(f"{name}: the lists name images, studies or people, which must not lie beside the dataset")
    for label in values.column_names:
        column = values[label].combine_chunks()
        if column.type != pa.string():
            continue
        distinct = column.unique().drop_null()
        clear = _any_in(distinct, references)
        uids = any(_UID.fullmatch(text) for text in distinct.to_pylist()[:1000])
        free = len(distinct) > 2 * _MANY and 2 * len(distinct) > len(column) - column.null_count
        if clear or uids or free:
            why = (
                "texts that its references hold" if clear else "UIDs" if uids else f"{len(distinct):,} different texts"
            )
            raise ArgumentError(
                f"{name}, column {label} holds {why}, and what tells who or which must not lie beside the dataset:"
                " leave it out with --labels"
            )


def _any_in(texts: pa.Array, references: pa.Array) -> bool:
    """Whether one of some texts is a reference. The table that a search makes is of the texts, which are few."""
    return bool(pc.any(pc.is_in(references, texts, skip_nulls=True)).as_py())


def looks(table: pa.Table) -> str:
    """Return what columns of text look like, for a message about references that matched nothing."""
    found: dict[str, list[str]] = {}
    for label in table.column_names:
        texts = [text for text in table[label].slice(0, 200).to_pylist() if text]
        for what, pattern in (
            ("UIDs", _UID),
            ("paths", re.compile(r".*[/\\].*")),
            ("file names", re.compile(r".*\.[A-Za-z]{2,5}")),
        ):
            if texts and np.mean([pattern.fullmatch(text) is not None for text in texts]) > 0.5:
                found.setdefault(what, []).append(label)
                break
    return "; ".join(f"{' and '.join(labels)} looks like {what}" for what, labels in found.items())
