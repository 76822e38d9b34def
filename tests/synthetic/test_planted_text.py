"""The truth about planted text is where pixels changed, and how much."""

from __future__ import annotations

import numpy as np
import pytest

from shardkit.synthetic.planted_text import FONTS, KINDS, SCRIPTS, drawn, phrase, plant, span_of


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("dark", [False, True])
def test_the_box_is_that_of_the_ink_and_nothing_else_changes(dark: bool, turns: int) -> None:
    pixels = np.random.default_rng(0).integers(1500, 2500, (200, 220)).astype(np.uint16)
    before = pixels.copy()
    painted, truth = plant(pixels, 12, drawn("Rossi 7", "bold", 24), "Rossi 7", (60, 50), dark=dark, turns=turns)
    rows, columns = np.nonzero(painted != pixels)
    assert (pixels == before).all()
    assert abs(rows.min() - truth.top) <= 1
    assert abs(rows.max() + 1 - truth.top - truth.height) <= 1
    assert abs(columns.min() - truth.left) <= 1
    assert abs(columns.max() + 1 - truth.left - truth.width) <= 1
    level = painted.min() if dark else painted.max()
    assert truth.contrast == pytest.approx(1.0, abs=0.02)
    assert abs(int(level) - int(np.median(pixels))) >= span_of(pixels)


def test_what_lies_beyond_the_edge_is_not_in_the_box_and_levels_end_with_the_range() -> None:
    pixels = np.full((100, 120), 4000, np.uint16)
    pixels[50:] = 0
    ink = drawn("12.03.1961", "sans", 20)
    painted, truth = plant(pixels, 12, ink, "12.03.1961", (5, -30))
    assert truth.left <= 2
    assert truth.text == "12.03.1961"
    assert truth.shown == pytest.approx((ink.shape[1] - 30) / ink.shape[1])
    assert painted.max() == 4095
    assert truth.contrast == pytest.approx(95 / 4000, rel=0.01)
    with pytest.raises(ValueError, match="outside"):
        plant(pixels, 12, ink, "12.03.1961", (200, 0))


def test_every_kind_has_text_that_its_font_draws() -> None:
    rng = np.random.default_rng(1)
    for kind in (*KINDS, "greek", "cyrillic", "hebrew", "arabic"):
        assert drawn(phrase(kind, rng), "sans", 16).max() == 1
    for font in (*FONTS, "default"):
        assert drawn("A", font, 12).shape[0] >= 8
    assert set(SCRIPTS) > {"chinese", "korean"}
    with pytest.raises(ValueError, match="no text of kind 'runes'"):
        phrase("runes", rng)
