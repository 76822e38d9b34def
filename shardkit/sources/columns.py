"""Which column of a table holds the references, by the names that published tables give it."""

import re
from collections.abc import Sequence

from shardkit.errors import ArgumentError
from shardkit.labels.rows import By

_COLUMNS: dict[By, tuple[str, ...]] = {
    "path": ("path", "filepath", "imagepath", "file", "filename", "imageindex", "image", "imageid"),
    "name": ("filename", "file", "imageindex", "image", "imageid", "path", "name"),
    "sop": ("sopinstanceuid", "sop", "sopuid", "instanceuid", "imageuid", "dicomid"),
    "accession": ("accessionnumber", "accession", "accessionno", "accessionid"),
    "study": ("studyinstanceuid", "studyuid", "study", "studyid"),
    "patient": ("patientid", "patient", "subjectid", "subject"),
    "key": ("key",),
}
"""Names that the column of references has, in small letters and without other signs."""


def by_plain_name(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns by their names in small letters and without other signs; of equal ones the first."""
    return {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}


def found_column(columns: Sequence[str], by: By, name: str) -> str:
    """Return the column of references, by its name.

    Raises
    ------
    ArgumentError
        No column has a usual name.
    """
    if (found := usual_column(columns, by)) is None:
        raise ArgumentError(
            f"{name} has no column with a usual name for --by {by}: name it with --column; there are"
            f" {listed_columns(columns)}"
        )
    return found


def usual_column(columns: Sequence[str], by: By) -> str | None:
    """Return the column of references, by its name; None where no column has a usual one."""
    plain = by_plain_name(columns)
    return next((plain[usual] for usual in _COLUMNS[by] if usual in plain), None)


def listed_columns(columns: Sequence[str]) -> str:
    """Return the names of columns, of many the first, as text."""
    return f"{', '.join(columns[:20])}{' …' * (len(columns) > 20)}"


def parts_of_brackets(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns that a comma in brackets made of one name, such as `Size[Width,Height]`: column -> that name.

    Parameters
    ----------
    columns : sequence of str
        All columns of a table, in order.
    """
    found: dict[str, str] = {}
    opened: list[str] = []
    for column in columns:
        if "[" in column and "]" not in column.partition("[")[2]:
            opened = [column]
        elif opened:
            opened.append(column)
            if "]" in column:
                found |= dict.fromkeys(opened, ",".join(opened))
                opened = []
    return found
