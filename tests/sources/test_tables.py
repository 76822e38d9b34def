"""Tables as people have them: what is read, and the one sentence on what cannot be."""

import gzip
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.errors import ArgumentError
from shardkit.sources.tables import read, read_place
from shardkit.storage import growing


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"path,x\na.png,1\n", {"path": ["a.png"], "x": ["1"]}),
        (b"\xef\xbb\xbfpath;x\r\na.png;1,5\r\n", {"path": ["a.png"], "x": ["1,5"]}),
        (b"path\tx\n  a b.png \t\n", {"path": ["a b.png"], "x": [None]}),
        (b'path,x\na.png,"one ""two"",\nthree"\n', {"path": ["a.png"], "x": ['one "two",\nthree']}),
        (b"path,x\n\n\na.png,1\n\n", {"path": ["a.png"], "x": ["1"]}),
        (b"Image,W[x,y]\na,1,2\n", {"Image": ["a"], "W[x": ["1"], "y]": ["2"]}),
        (b"Image,x,,\na,1\nb,2\n", {"Image": ["a", "b"], "x": ["1", "2"]}),
        (b"Image,x,\na,1,\n", {"Image": ["a"], "x": ["1"]}),
        (b",Image\n0,a\n", {"Image": ["a"]}),
        (b"Image\na\n", {"Image": ["a"]}),
        (b"Image,x\n", {"Image": [], "x": []}),
    ],
)
def test_columns_are_trimmed_text_whatever_parts_and_quotes_them(data: bytes, expected: dict[str, object]) -> None:
    assert read(data, "t.csv").to_pydict() == expected
    assert read(gzip.compress(data), "t.csv.gz").to_pydict() == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n", "row 1 names no column"),
        (b"path,x,path\n1,2,3\n", r"row 1 names two columns path \(1 and 3\): rename one"),
        (b"path,x\na,1\n\nSECRET,2,3\n", "row 3 has 3 cells where the header has 2"),
        (b"path,x\nSECRET\n", "row 2 has 1 cells where the header has 2"),
        ("path,x\na,1\nSECRET,é\n".encode("latin-1"), "row 3.* is not UTF-8: save it as UTF-8"),
        (b"path,x\n" + b"SECRET,1\n" * 150_000 + b"SECRET,\xe9\n", "row 150002, column x holds text that is not UTF-8"),
        ("path,x\n".encode("utf-16"), "t.csv is UTF-16"),
        (b'path,x\na,"SECRET\nb,2\n', "row 2, column x opens a quote that is not closed"),
        (b"PK\x03\x04", "a workbook or a zip file: save it as CSV"),
        (b"PAR1 and no more", "no Parquet file that can be read"),
        (b"\x1f\x8b\x08 SECRET", "damaged"),
    ],
)
def test_a_defect_is_one_sentence_with_its_row_that_shows_no_cell(data: bytes, said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as error:
        read(data, "t.csv")
    assert "SECRET" not in str(error.value)


def test_parquet_gives_the_text_that_csv_has(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": ["a ", "", None],
            "patient": pa.array([61.0, None, float("nan")]),
            "spacing": [0.5, 1.0, 2.25],
            "male": [True, False, None],
            "kind": pa.array(["x", "y", None]).dictionary_encode(),
            "number": pa.array([7, 8, None], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found, digest = read_place(tmp_path / "t.parquet", "--facts")
    assert len(digest) == 64
    assert found.to_pydict() == {
        "path": ["a", None, None],
        "patient": ["61", None, None],
        "spacing": ["0.5", "1", "2.25"],
        "male": ["1", "0", None],
        "kind": ["x", "y", None],
        "number": ["7", "8", None],
    }
    pq.write_table(pa.table({"x": [[1]]}), tmp_path / "nested.parquet")
    with pytest.raises(ArgumentError, match="column x holds list"):
        read_place(tmp_path / "nested.parquet", "--facts")


def test_only_wanted_columns_are_read() -> None:
    assert read(b"a,b,c\n1,2,3\n", "t.csv", wanted=["c", "a", "gone"]).to_pydict() == {"a": ["1"], "c": ["3"]}


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"--facts: .*gone\.csv is no file: name a CSV or Parquet file"):
        read_place(tmp_path / "gone.csv", "--facts")


def test_a_table_of_many_blocks_is_the_same_coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some blocks after the first a column gains words, blanks, and at last so many that it is text."""
    rows = [[f"p/{i}.png", str(i % 3), ["", " x ", "x", "y"][i % 4 if i > 90_000 else 1]] for i in range(100_000)]
    rows += [["z", str(i), ""] for i in range(50)]
    place = tmp_path / "t.csv"
    place.write_text("path,n,word\n" + "".join(f"{','.join(row)}\n" for row in rows))
    assert place.stat().st_size > 1 << 20  # blocks that the file is read in
    columns = dict(zip(("path", "n", "word"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), tmp_path / "t.parquet")
    monkeypatch.setattr(growing, "MANY", 20)
    clear, digest = read_place(place, "--table")
    assert digest == hashlib.sha256(place.read_bytes()).hexdigest()
    assert clear.to_pydict() == {name: [cell.strip() or None for cell in cells] for name, cells in columns.items()}
    for path in (place, tmp_path / "t.parquet"):
        coded, _ = read_place(path, "--table", coded=True)
        assert coded.to_pydict() == clear.to_pydict()
        assert [pa.types.is_dictionary(field.type) for field in coded.schema] == [False, False, True]
        assert coded["word"].type.index_type == pa.int8()
