"""The benchmark of burned-in text counts what is known: all of planted texts and nothing of what was not planted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import burned_in, burned_in_cases
from shardkit.burned_in import detection
from shardkit.burned_in.findings import Finding
from shardkit.synthetic.planted_text import Planted


def test_a_text_is_covered_by_what_would_be_blanked_alone() -> None:
    truth = Planted(10, 20, 10, 100, "x", 1.0, 1.0)
    half = [Finding(0, 0, 50, 70, "text", 1.0)]
    assert burned_in_cases.covered([truth], half) == 0.5
    assert burned_in_cases.covered([truth], [Finding(0, 0, 50, 200, "marker", 1.0)]) == 0
    assert burned_in_cases.covered([truth], [*half, Finding(5, 60, 50, 200, "unreadable", 1.0)]) == 1
    below = Planted(40, 20, 10, 100, "y", 1.0, 1.0)
    assert burned_in_cases.covered([truth, below], [Finding(5, 0, 20, 200, "text", 1.0)]) == 0, "of lines, the least"


def test_cases_have_the_contrast_of_their_cell_and_are_the_same_for_a_seed() -> None:
    carriers = burned_in_cases.synthetic(0, 400, 380)[:2]
    one, other = (list(burned_in_cases.cases(carriers, 12, 5, None)) for _ in range(2))
    assert len(one) == 12
    for a, b in zip(one, other, strict=True):
        assert a.cell == b.cell
        assert np.array_equal(a.pixels, b.pixels)
        assert min(line.contrast for line in a.truth) >= 0.999 * float(str(a.cell["contrast"]))
        assert a.cell["kind"] not in {"chinese", "japanese", "korean"}, "which need a font file"


@pytest.mark.parametrize("turns", range(4))
def test_the_truth_of_a_line_lies_where_its_ink_is(turns: int) -> None:
    carrier = burned_in_cases.Carrier("stripes", np.full((700, 800), 90, np.uint16), 8)
    carrier.pixels[:, ::2] = 140
    looks = {"plain", "skewed", "lines", "negative", "jpeg", "plate"}
    for case in (c for c in burned_in_cases.cases([carrier], 60, 2, None) if c.cell["turns"] == turns):
        looks.discard(str(case.cell["look"]))
        if case.cell["look"] in ("jpeg", "plate"):  # change more than the ink
            continue
        changed = np.abs(case.pixels.astype(np.int32) - carrier.pixels) > 20
        inside = np.zeros_like(changed)
        for line in case.truth:
            box = np.s_[line.top : line.top + line.height, line.left : line.left + line.width]
            assert changed[box].mean() > 0.05
            inside[box] = True
        assert case.cell["look"] == "lines" or not changed[~inside].any(), case.cell
    assert not looks


def test_what_a_person_saw_says_which_flags_were_false(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carriers = [burned_in_cases.Carrier(f"{n}.png", np.zeros((50, 50), np.uint16), 8, f"sum{n}") for n in range(4)]
    monkeypatch.setattr(detection, "find", lambda *args, **how: [Finding(0, 0, 9, 40, "text", 1.0)])
    path = tmp_path / "seen.csv"
    path.write_text("file,verdict\n0.png,text\nsum1,no text\n2.png,marker\n")
    row = burned_in._clean("real", carriers, burned_in_cases.seen_in(path))
    assert row["flagged"] == {"0.png": "text", "1.png": "no text", "2.png": "marker", "3.png": None}
    assert (row["false_alarms"], row["unseen"], row["missed"]) == (2, 1, [])
    monkeypatch.setattr(detection, "find", lambda *args, **how: [Finding(0, 0, 9, 40, "marker", 1.0)])
    row = burned_in._clean("real", carriers, burned_in_cases.seen_in(path))
    assert (row["flagged"], row["missed"]) == ({}, ["0.png"])
    for text, says in (
        ("file,verdict\n0.png,DOE\n", "line 2: a verdict is one of text, marker, no text"),
        ("file,verdict\n0.png,text\n0.png,text\n", "line 3: the file is there twice"),
        ("file,text\n0.png,DOE\n", "columns have to be file and verdict"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=says) as raised:
            burned_in_cases.seen_in(path)
        assert "DOE" not in str(raised.value)


@pytest.mark.deep
def test_a_quick_run_leaves_figures_a_table_and_a_plot(tmp_path: Path) -> None:
    out = tmp_path / "burned-in.json"
    burned_in.run(quick=True, out=out)
    result = json.loads(out.read_text())
    assert result["planted"]["latin"]["stage_one"] >= 0.95 * result["planted"]["latin"]["texts"]
    assert [row["flagged"] for row in result["clean"]] == [{}]
    assert set(result["planted"]["cells"]["look"]) == set(burned_in_cases.LOOKS)
    sizes = result["planted"]["cells"]["size"].values()
    assert sum(row["texts"] for row in sizes) == result["planted"]["latin"]["texts"] > 0
    assert "no text planted" in burned_in.readme(result)
    assert out.with_suffix(".png").stat().st_size > 1000
