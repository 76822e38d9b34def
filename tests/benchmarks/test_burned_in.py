"""The benchmark of burned-in text counts what is known: all of planted texts and nothing of what was not planted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import burned_in, burned_in_cases
from shardkit.burned_in.findings import Finding
from shardkit.synthetic.planted_text import Planted


def test_a_text_is_covered_by_what_would_be_blanked_alone() -> None:
    truth = Planted(10, 20, 10, 100, "x", 1.0, 1.0)
    half = [Finding(0, 0, 50, 70, "text", 1.0)]
    assert burned_in_cases.covered(truth, half) == 0.5
    assert burned_in_cases.covered(truth, [Finding(0, 0, 50, 200, "marker", 1.0)]) == 0
    assert burned_in_cases.covered(truth, [*half, Finding(5, 60, 50, 200, "unreadable", 1.0)]) == 1


def test_cases_have_the_contrast_of_their_cell_and_are_the_same_for_a_seed() -> None:
    carriers = burned_in_cases.synthetic(0, 400, 380)[:2]
    one, other = (list(burned_in_cases.cases(carriers, 12, 5, None)) for _ in range(2))
    assert len(one) == 12
    for a, b in zip(one, other, strict=True):
        assert a.cell == b.cell
        assert np.array_equal(a.pixels, b.pixels)
        assert a.truth.contrast >= 0.999 * float(str(a.cell["contrast"]))
        assert a.cell["kind"] not in {"chinese", "japanese", "korean"}, "which need a font file"


@pytest.mark.deep
def test_a_quick_run_leaves_figures_a_table_and_a_plot(tmp_path: Path) -> None:
    out = tmp_path / "burned-in.json"
    burned_in.run(quick=True, out=out)
    result = json.loads(out.read_text())
    assert result["planted"]["latin"]["stage_one"] >= 0.95 * result["planted"]["latin"]["texts"]
    assert [row["flagged"] for row in result["clean"]] == [[]]
    assert sum(row["texts"] for row in result["planted"]["cells"]["size"].values()) == 40
    assert "no text planted" in burned_in.readme(result)
    assert out.with_suffix(".png").stat().st_size > 1000
