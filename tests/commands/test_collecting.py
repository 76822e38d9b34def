"""`shardkit collections`, and how a build is told of tables."""

from pathlib import Path

import pytest

from shardkit import cli
from shardkit.sources.collections import COLLECTIONS
from shardkit.synthetic.collections import TREES


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
        assert f"{table.name}{'' if table.needed else ' (may be absent)'}: {table.about}" in said
    assert f"shardkit build --collection {name} --source" in said
    assert name in TREES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["collections", "nih15"], "there is no collection 'nih15': `shardkit collections` lists them"),
        (["build", "--collection", "nih15"], "there is no collection 'nih15'"),
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
