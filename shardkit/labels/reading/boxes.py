"""Boxes of a table: their columns by the names that published tables give them, in pixels of the original file."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.labels.rows import BOXES, By
from shardkit.sources import tables
from shardkit.sources.columns import by_plain_name, found_column

_LABELS = ("label", "findinglabel", "class", "classname", "category", "finding", "labelname", "name")
_SIDES: dict[str, tuple[str, ...]] = {
    "left": ("left", "x", "xmin", "x1", "xmn", "bboxxywh", "bboxx"),
    "top": ("top", "y", "ymin", "y1", "ymn", "bboxy"),
    "width": ("width", "w", "bboxw", "boxwidth"),
    "height": ("height", "h", "bboxh", "boxheight"),
    "right": ("right", "xmax", "x2", "xmx"),
    "bottom": ("bottom", "ymax", "y2", "ymx"),
}
"""Names in small letters and without other signs."""


def read_boxes(place: str, by: By) -> tuple[pa.Table, str]:
    """Read a table of boxes.

    Parameters
    ----------
    place : str
        CSV or Parquet with a reference, a label, and left, top, width and height (or right and bottom) in pixels.
    by : By
        What the references name.

    Returns
    -------
    tuple of (pyarrow.Table, str)
        Of the columns `BOXES`, and the SHA-256 of the file. Rows without any side, as for images without a finding,
        are left out.

    Raises
    ------
    ArgumentError
        A column is missing, or a cell is no number.
    """
    table, digest = tables.read_place(place, "--boxes")
    plain = by_plain_name(table.column_names)
    there = {side: plain[word] for side, words in _SIDES.items() for word in reversed(words) if word in plain}
    label = next((plain[word] for word in _LABELS if word in plain), None)
    missing = [side for side in ("left", "top") if side not in there]
    missing += [f"{a} (or {b})" for a, b in (("width", "right"), ("height", "bottom")) if not {a, b} & there.keys()]
    if missing or label is None:
        lacks = ", ".join([*missing, *([] if label else ["label"])])
        raise ArgumentError(
            f"{place} has no column {lacks}: boxes have columns label, left, top, width and height, in pixels; there"
            f" are {', '.join(table.column_names[:20])}"
        )
    numbers = {side: _numbers(table, column, place) for side, column in there.items()}
    left, top = numbers["left"], numbers["top"]
    width = numbers["width"] if "width" in numbers else numbers["right"] - left
    height = numbers["height"] if "height" in numbers else numbers["bottom"] - top
    said = ~np.isnan(np.stack([left, top, width, height]))
    if len(part := np.flatnonzero(said.any(0) & ~said.all(0))):
        raise ArgumentError(f"{place}, row {part[0] + tables.FIRST_ROW:,} has only part of a box: fill it in")
    if len(flat := np.flatnonzero(said.all(0) & ~((width > 0) & (height > 0)))):
        raise ArgumentError(f"{place}, row {flat[0] + tables.FIRST_ROW:,} has a box without area: mend it")
    reference = table[found_column(table.column_names, by, place)].fill_null("")
    columns = [reference, table[label].fill_null(""), top, left, height, width]
    return pa.table(columns, schema=BOXES).filter(pa.array(said.all(0))), digest


def _numbers(table: pa.Table, column: str, place: str) -> npt.NDArray[np.float64]:
    """Return a column's numbers, NaN where it is blank."""
    found = np.full(table.num_rows, np.nan)
    for i, text in enumerate(table[column].to_pylist()):
        if text is not None and text.lower() not in ("nan", "none"):
            try:
                found[i] = float(text)
            except ValueError:
                found[i] = np.inf
            if not np.isfinite(found[i]):
                raise ArgumentError(
                    f"{place}, row {i + tables.FIRST_ROW:,}, column {column} is no number: mend the cell"
                )
    return found
