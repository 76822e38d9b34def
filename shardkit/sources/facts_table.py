"""A table of facts: which column says what, and what its cells mean.

Published and home-made tables spell one fact in many ways ("058Y", "58", "Male", "antero-posterior"). Here they become
the words that DICOM has for them. A cell of no known meaning is left blank, and counted: nothing is guessed.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.privacy import BODY_PARTS, ENUMERATIONS, MODALITIES
from shardkit.sources import tables
from shardkit.sources.columns import listed_columns, usual_column
from shardkit.storage import shown

TEXTS = ("patient", "study", "series", "accession")
"""Facts that are names: kept as they are."""
_NULLS = pa.array(["nan", "na", "n/a", "null", "none", "unknown", "unk", "-", "?"])
_SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "o": "O", "other": "O"}
_VIEWS = {
    "ANTEROPOSTERIOR": "AP", "POSTEROANTERIOR": "PA", "ANTERIORPOSTERIOR": "AP", "POSTERIORANTERIOR": "PA",
    "LEFTLATERAL": "LL", "RIGHTLATERAL": "RL", "L": "LATERAL", "LATERALVIEW": "LATERAL",
    "APSUPINE": "AP", "APHORIZONTAL": "AP", "APERECT": "AP", "PAERECT": "PA",
    "LEFTANTERIOROBLIQUE": "LAO", "RIGHTANTERIOROBLIQUE": "RAO",
}  # fmt: skip
_LATERALITIES = {"l": "L", "left": "L", "r": "R", "right": "R", "b": "B", "both": "B", "bilateral": "B", "u": "U"}
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_AGE = re.compile(r"(\d{1,4}(?:\.\d+)?)\s*([DWMY]|DAYS?|WEEKS?|MONTHS?|YEARS?)?")
_OLDEST = 120  # years; published tables hold 148 and 414
_KNOWN = {
    "view": "such as AP, PA, LL, RL or LATERAL",
    "body_part": "such as CHEST or WRIST",
    "laterality": "L, R, B or U",
    "sex": "M, F or O",
    "age": f"years from 0 to {_OLDEST}, or DICOM's 058Y",
    "modality": "DICOM's codes, such as CR or DX",
    "spacing_row": "millimetres",
    "spacing_col": "millimetres",
    "bits": "1 to 16",
    "split": "train, val, test, or fold0, fold1 ...",
}
"""Facts that are no names -> the values that are understood."""
FIELDS = (*TEXTS, *_KNOWN)
"""The facts that a column may say, each of an image."""


@dataclass(frozen=True, slots=True)
class FactsTable:
    """Facts by path.

    Attributes
    ----------
    name : str
        The table, in messages.
    table : pyarrow.Table
        `path` and some of `FIELDS`, all text but for `bits` (int64) and the spacings (float64); null is blank.
    remarks : tuple of str
        Sentences about cells that were left blank.
    digests : tuple of str
        SHA-256 of the files that it was made from.
    """

    name: str
    table: pa.Table
    remarks: tuple[str, ...] = ()
    digests: tuple[str, ...] = field(default=(), repr=False)


def column_map(text: str) -> dict[str, str]:
    """Return fact -> column, of ``path=Image,patient=PatientID``.

    Raises
    ------
    ArgumentError
        For what is no such list.
    """
    found: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        fact, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column:
            raise ArgumentError(f"--facts-columns: {pair!r} is no pair: write path=COLUMN,patient=COLUMN")
        if fact not in ("path", *FIELDS):
            raise ArgumentError(f"--facts-columns: there is no fact {fact!r}: known are path, {', '.join(FIELDS)}")
        if fact in found:
            raise ArgumentError(f"--facts-columns names {fact} twice: leave one out")
        found[fact] = column
    return found


def read_facts(place: str | Path, columns: Mapping[str, str] | None = None) -> FactsTable:
    """Read the table that ``--facts`` names.

    Parameters
    ----------
    place : str or Path
        CSV or Parquet file, or url of one.
    columns : mapping of str to str, optional
        Fact -> column; facts that it does not name are columns of their own name, in any case. Paths may be in a column
        of another usual name, such as Image Index.

    Raises
    ------
    ArgumentError
        For a table that cannot be read, has no paths, or lacks a column that was named.
    """
    table, digest = tables.read_place(place, "--facts")
    name, columns = shown(str(place)), dict(columns or {})
    lower = {column.lower(): column for column in reversed(table.column_names)}
    for fact, column in columns.items():
        if column not in table.column_names:
            raise ArgumentError(f"{name} has no column {column}, which --facts-columns names for {fact}: mend the name")
    found = {fact: columns.get(fact) or lower.get(fact) for fact in ("path", *FIELDS)}
    remarks = []
    if found["path"] is None:
        found["path"] = _paths(table.column_names, name)
        remarks.append(f"{name}: paths are in column {found['path']}")
    if not table.num_rows:
        raise ArgumentError(f"{name} has no rows below its header: name a table that does")
    called = {fact: column for fact, column in found.items() if column is not None}
    facts = made(name, {fact: table[column] for fact, column in called.items()}, (digest,), called)
    return replace(facts, remarks=(*remarks, *_unused(table.column_names, called, name), *facts.remarks))


def _paths(columns: Sequence[str], name: str) -> str:
    """Return the column of paths, by another usual name."""
    if (column := usual_column(columns, "path")) is None:
        raise ArgumentError(
            f"{name} has no column path: name the one that has it, --facts-columns path=COLUMN; there are"
            f" {listed_columns(columns)}"
        )
    return column


def _unused(columns: Sequence[str], called: Mapping[str, str], name: str) -> list[str]:
    """Name the columns that are not used, with the fact that each may be meant to be."""
    free = [fact for fact in FIELDS if fact not in called]
    words = []
    for column in columns:
        if column not in called.values():
            near = get_close_matches(re.sub(r"[\W_]", "", column.lower()), free, 1)
            words.append(f"{column} ({near[0]}?)" if near else column)
    return [f"{name}: columns that are not used: {listed_columns(words)}"] if words else []


def made(
    name: str,
    columns: Mapping[str, pa.ChunkedArray | pa.Array],
    digests: tuple[str, ...] = (),
    called: Mapping[str, str] | None = None,
) -> FactsTable:
    """Make a table of facts of columns of text, one of them the path.

    Parameters
    ----------
    name : str
        The table, in messages.
    columns : mapping
        Fact -> text.
    digests : tuple of str
        SHA-256 of its files.
    called : mapping of str to str, optional
        Fact -> what the table calls its column.

    Raises
    ------
    ArgumentError
        For a row without a path.
    """
    paths = _flat(columns["path"])
    if paths.null_count:
        row = int(pc.index(paths.is_null(), value=True).as_py()) + tables.FIRST_ROW
        column = (called or {}).get("path", "path")
        raise ArgumentError(f"{name}, row {row}, column {column} is empty: fill in the path, or remove the row")
    out: dict[str, pa.Array] = {"path": paths}
    remarks: list[str] = []
    for fact in (fact for fact in FIELDS if fact in columns):
        text = _flat(columns[fact])
        text = _stated(text)
        if fact in TEXTS:
            out[fact] = text
            continue
        meant = _mapped(text, _MEANINGS[fact])
        out[fact] = meant.cast(_TYPES.get(fact, pa.string()))
        remarks += _remarks(f"{name}, column {(called or {}).get(fact, fact)}", fact, text, meant)
    return FactsTable(name, pa.table(out), tuple(remarks), digests)


def _flat(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _stated(values: pa.Array) -> pa.Array:
    """Return values without words that say nothing."""
    nothing = pc.is_in(pc.utf8_lower(values), value_set=_NULLS)
    return pc.if_else(nothing, pa.scalar(None, pa.string()), values)


def _mapped(values: pa.Array, meaning: Callable[[str], str | None]) -> pa.Array:
    """Return what each value means; a value that stands in many rows is looked at once."""
    coded = values.dictionary_encode()
    meanings = pa.array([meaning(text) for text in coded.dictionary.to_pylist()], pa.string())
    return meanings.take(coded.indices)


def _remarks(where: str, fact: str, stated: pa.Array, meant: pa.Array) -> list[str]:
    """Say how many cells were not understood, and where the first is; what they hold may be about a person."""
    lost = np.flatnonzero(pc.and_(stated.is_valid(), meant.is_null()).to_numpy(zero_copy_only=False))
    if not len(lost):
        return []
    counted = f"{len(lost):,} (first in row {lost[0] + tables.FIRST_ROW:,})"
    return [f"{where}: cells without a known meaning count as blank: {counted}; known are {_KNOWN[fact]}"]


def _word(known: Mapping[str, str]) -> Callable[[str], str | None]:
    return lambda text: known.get(text.lower())


def _view(text: str) -> str | None:
    letters = re.sub(r"[^A-Z]", "", text.upper())
    return letters if letters in ENUMERATIONS["view"] else _VIEWS.get(letters)


def _body_part(text: str) -> str | None:
    return BODY_PARTS.get(text.upper().replace("_", " "))


def _modality(text: str) -> str | None:
    return text.upper() if text.upper() in MODALITIES else None


def _split(text: str) -> str | None:
    word = text.lower()
    return word if re.fullmatch(r"fold[ _-]?\d{1,2}", word) else _SPLITS.get(word)


def age(text: str) -> str | None:
    """Return an age as DICOM has it, such as "058Y"; None where it is none."""
    match = _AGE.fullmatch(text.upper().removesuffix("+").strip())
    if match is None:
        return None
    number, unit = float(match[1]), (match[2] or "Y")[0]
    if unit == "Y" and 0 < number < 1:
        number, unit = number * 12, "M"
    if number / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[unit] > _OLDEST:
        return None
    while number > 999 and unit in "DW":
        number, unit = number / (7 if unit == "D" else 4.35), "W" if unit == "D" else "M"
    return f"{int(number):03d}{unit}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _spacing(text: str) -> str | None:
    number = _number(text)
    return None if number is None or not 0 < number < 100 else repr(number)


def _bits(text: str) -> str | None:
    number = _number(text)
    return None if number is None or number not in range(1, 17) else str(int(number))


_MEANINGS: dict[str, Callable[[str], str | None]] = {
    "view": _view,
    "body_part": _body_part,
    "laterality": _word(_LATERALITIES),
    "sex": _word(_SEXES),
    "age": age,
    "modality": _modality,
    "spacing_row": _spacing,
    "spacing_col": _spacing,
    "bits": _bits,
    "split": _split,
}
_TYPES = {"bits": pa.int64(), "spacing_row": pa.float64(), "spacing_col": pa.float64()}
