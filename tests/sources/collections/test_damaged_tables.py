"""Tables of collections with something wrong in them: one sentence, or what is left is read. Never a traceback."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardkit.errors import ArgumentError
from shardkit.sources.collections import COLLECTIONS, Tree
from shardkit.sources.files import FileTree
from shardkit.synthetic.collections import TREES, make_collection

Rows = list[list[str]]


def _tables(tree: Path) -> list[Path]:
    return [path for path in sorted(tree.rglob("*")) if path.name.endswith((".csv", ".csv.gz", ".txt", ".json"))]


def _changes(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Give a table with one thing wrong each; of many alike columns, the first ones count."""
    yield "no rows", rows[:1]
    for at, name in enumerate(rows[0][:10]):
        yield f"no column {name}", [row[:at] + row[at + 1 :] for row in rows]
        for cell in ("", "SECRET words", "9" * 400):
            below = [[*row[:at], cell, *row[at + 1 :]] for row in rows[1:]]
            yield f"{cell[:9]!r} in column {name}", [rows[0], *below]
    yield "half a row", [*rows, rows[-1][: len(rows[-1]) // 2]]
    yield "rows twice", [*rows, *rows[1:]]


def _written(path: Path, rows: Rows) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", delimiter=" " if path.suffix == ".txt" else ",").writerows(rows)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _read(name: str, place: Path) -> str:
    """Read facts and labels; returns what is said where that cannot be."""
    files = FileTree(str(place))
    try:
        tree = Tree(files, files.list())
        COLLECTIONS[name].told(tree)
        COLLECTIONS[name].labels(tree)
    except ArgumentError as error:
        return str(error)
    return ""


_PLAIN = ("nih14", "covidx")  # tables, lists


@pytest.mark.parametrize(
    "name", [name if name in _PLAIN else pytest.param(name, marks=pytest.mark.deep) for name in TREES]
)
def test_a_damaged_table_ends_in_a_sentence_that_shows_no_cell(name: str, tmp_path: Path) -> None:
    make_collection(name, tmp_path)
    assert _read(name, tmp_path) == ""
    for path in _tables(tmp_path):
        whole = path.read_bytes()
        data = gzip.decompress(whole) if path.suffix == ".gz" else whole
        rows = list(csv.reader(io.StringIO(data.decode()), delimiter=" " if path.suffix == ".txt" else ","))
        for what, changed in _changes(rows) if path.suffix != ".json" else ():
            _written(path, changed)
            said = _read(name, tmp_path)
            assert "SECRET" not in said, (path.name, what)
            assert not said or path.name.partition(".")[0][:8] in said or "put it beside" in said, (
                path.name,
                what,
                said,
            )
        for damage in _DAMAGES:
            path.write_bytes(damage(whole))
            assert "SECRET" not in _read(name, tmp_path), path.name
        path.write_bytes(whole)


_DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data + b'\n"SECRET',
    lambda data: data.replace(b",", b";"),
    lambda data: b"\xff\xfe" + data,
    lambda data: data[::-1],
    lambda data: json.dumps({"images": [], "annotations": [{"image_id": 1, "bbox": ["SECRET"]}]}).encode(),
)
