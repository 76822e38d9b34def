"""Names of runs and sites are short, never the same, and never lead out of the page's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardkit.errors import ArgumentError
from trainer.evaluate.names import short_names


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["/a/nih", "s3://u:secret@bucket/nih/", "/b/ham"], ["a-nih", "bucket-nih", "ham"]),
        (["/r/nih/ft", "/old/nih/ft"], ["r-nih-ft", "old-nih-ft"]),
        (["gs://b/nih", "s3://b/nih"], ["gs-b-nih", "s3-b-nih"]),
        (["s3://b/nih", "s3://u:secret@b/nih"], ["s3-b-nih", "s3-b-nih-2"]),
        (["/nih", "/data/nih"], ["nih", "data-nih"]),
        (["/x/a-b", "/x/a/b", "/y/b"], ["x-a-b", "x-a-b-2", "y-b"]),
        (["/"], ["root"]),
    ],
)
def test_names_are_as_long_as_tells_them_apart(places: list[str], names: list[str]) -> None:
    found = short_names(places)
    assert list(found) == places
    assert list(found.values()) == names


def test_a_path_is_named_by_what_it_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nih" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "nih" / "below")
    assert short_names([".", ".."]) == {".": "below", "..": "nih"}


@pytest.mark.parametrize("twice", ["nih/", "./nih", "other/../nih"])
def test_a_place_that_is_named_twice_is_refused(twice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="named twice"):
        short_names(["nih", "ham", twice])
    with pytest.raises(ArgumentError, match="named twice"):
        short_names(["s3://b/nih", "s3://b/nih/"])
