"""The benchmark of planted identifiers finds what is left of them, and what must stay and was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import deid, deid_cases
from benchmarks.deid_cases import CLASSES, File
from shardkit.synthetic.planted_text import drawn, plant


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of a small run."""
    out = tmp_path_factory.mktemp("deid") / "deid.json"
    deid.run(studies=4, scale=0.2, out=out)
    return out


def test_nothing_planted_is_left_and_nothing_else_is_lost(whole: Path) -> None:
    result = json.loads(whole.read_text())
    assert result["missed"] == []
    assert result["classes"].keys() == CLASSES.keys()
    for name, one in result["classes"].items():
        assert one["planted"] == one["handled"] > 0, name
        assert one["residual"] == 0
    assert "**100.00 %** | **0**" in deid.readme(result)
    assert whole.with_suffix(".png").stat().st_size > 1000


def test_every_way_to_leave_a_word_is_seen(tmp_path: Path) -> None:
    words = deid_cases._Words(0)
    word, date, uid = words.word(), words.date(), words.uid()
    table = pa.table({"a": [f"x {word} y"], "b": [["one", f"{date[:4]}-{date[4:6]}-{date[6:]}"]], "c": [b"raw"]})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
    (tmp_path / "page.html").write_text(f"<p>{uid}</p>")
    (tmp_path / f"{words.word()}.tar.txt").write_text("none")
    found = [word for text in deid.all_texts(tmp_path) for word in deid._PLANTED.findall(text)]
    assert {word.encode(), uid.encode(), f"{date[:4]}-{date[4:6]}-{date[6:]}".encode()} <= {*found}
    assert len({one for one in found if one.startswith(b"ZQX")}) == 2


def test_honest_numbers_are_no_dates() -> None:
    assert deid._PLANTED.findall(b"ab17230405 17230405ff 0.17230405 1.17230405") == []
    assert deid._PLANTED.findall(b"17230405 '1723.04.05'") == [b"17230405", b"1723.04.05"]


def test_text_that_is_left_and_pixels_that_changed_are_counted() -> None:
    clean = np.full((40, 60), 100, np.uint16)
    ink = drawn("AB 12", "sans", 16)
    written, truth = plant(clean, 12, ink, "AB 12", (4, 4))
    told: list[tuple[str, bool, bool]] = []

    def note(_: int, name: str, handled: bool, residual: bool, why: str) -> None:
        told.append((name, handled, residual))

    for text, pixels in ((truth, written), (truth, clean), (None, written), (None, clean)):
        file = File("a.dcm", {}, "s", "p", {}, clean, written, text)
        deid._judge_pixels(0, file, ({}, pixels), note)
    assert told == [
        ("pixels hidden", False, True),
        ("pixels hidden", True, False),
        ("pixels kept", True, False),
        ("pixels kept", False, False),
    ]


def test_pseudonyms_are_one_for_one() -> None:
    names = [("s1", "p1", "S1", "P1"), ("s1", "p1", "S1", "P2"), ("s2", "p2", "S1", "P3"), ("s3", "p3", "S3", "P4")]
    nothing = np.zeros((1, 1), np.uint16)
    files = [File("", {}, study, patient, {}, nothing, nothing) for study, patient, _, _ in names]
    samples: list[Any] = [({"study": study, "patient": patient}, nothing) for _, _, study, patient in names]
    assert deid._pairs(files, samples) == {"study": [False, False, False, True], "patient": [False, False, True, True]}
