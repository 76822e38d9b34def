"""`shardkit collections`, and how a build is told of tables."""

from pathlib import Path

import pytest

from shardkit import cli
from shardkit.sources.collections import COLLECTIONS
from shardkit.synthetic.collections import TREES, make_collection


def test_collections_are_listed_a_line_each_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["collections"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(COLLECTIONS)
    assert lines[0].split() == ["nih14", "112120", "NIH", "ChestX-ray14"]


@pytest.mark.parametrize("name", COLLECTIONS)
def test_of_a_collection_all_that_is_known_is_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["collections", name]) == 0
    said, known = capsys.readouterr().out, COLLECTIONS[name]
    for words in (known.title, known.terms, known.citation, *known.layout, *known.traps):
        assert words in said
    for table in known.tables:
        assert f"{table.called}{'' if table.needed else ' (may be absent)'}: {table.about}" in said
    assert f"shardkit build --collection {name} --source" in said
    assert name in TREES


def test_a_scan_counts_as_a_build_would_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_collection("nih14", tmp_path / "NIH")
    (tmp_path / "facts.csv").write_text("path,patient,sex\n00000001_000.png,A,M\ngone.png,B,9\n")
    before = sorted(tmp_path.rglob("*"))
    scan = ["scan", "--workers", "1", "--source", str(tmp_path / "NIH")]
    assert cli.run([*scan, "--collection", "nih14"]) == 0
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "5 dropped not_in_collection",
        "6 to convert",
        "11 files; 0 Mpx worth converting",
        "modalities: none was read",
        "4 tables of nih14 were read",
        "6 of the 112,120 images of nih14 are here",
        "nih14: 6 rows by the files that they name: 5 matched, 0 ambiguous, 1 unmatched; files without a row: 1",
        (
            "nih14, column age: cells without a known meaning count as blank: 1 (first in row 4); known are years from"
            " 0 to 120, or DICOM's 058Y"
        ),
    ]
    assert cli.run([*scan, "--facts", str(tmp_path / "facts.csv"), "--facts-columns", "study=patient"]) == 0
    said = capsys.readouterr().out
    assert "1 to convert" in " ".join(said.split())
    assert "2 rows by the files that they name: 1 matched, 0 ambiguous, 1 unmatched; files without a row: 10" in said
    assert cli.run([*scan, "--collection", "nih14", "--facts", "x.csv"]) == 1
    assert "--collection has facts of its own" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["collections", "nih15"], "there is no collection 'nih15': did you mean nih14?"),
        (["collections", "x"], "there is no collection 'x': `shardkit collections` lists them"),
        (["build", "--collection", "NIH"], "there is no collection 'NIH': did you mean nih14?"),
        (["build", "--collection", "nih14"], "holds no image of nih14 (such as images_001/images/00000001_000.png)"),
        (["build", "--facts", "gone.csv"], "gone.csv is no file: name a CSV or Parquet file"),
        (["build", "--facts-columns", "who=x"], "there is no fact 'who': known are path, patient"),
        (
            ["build", "--facts-columns", "path=x"],
            "--facts-columns names columns of a table: name the table with --facts",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(b"x")
    more = ["--source", "source", "--out", "out"] if words[0] == "build" else []
    assert cli.run([*words, *more]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
