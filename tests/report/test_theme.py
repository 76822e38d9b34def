"""Colours: text is legible on everything it may stand on, in both schemes, and plots use no colour of their own."""

import re
from importlib.resources import files
from itertools import product

import pytest

from shardkit.report import theme

SHEETS = {
    f"{package}/{path.name}": path.read_text("utf-8")
    for package in ("shardkit.report", "trainer.report", "benchmarks")
    for path in files(package).joinpath("templates").iterdir()
}
TEXT = {name for sheet in SHEETS.values() for name in re.findall(r"(?<![-\w])color:var\(--(\w+)\)", sheet)}
LINES = {*theme.SERIES, "pale"}
"""What plots draw series with, and words beside them."""


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(name: str, surface: str, scheme: int) -> float:
    least, most = sorted(_luminance(theme.PALETTE[of][scheme]) for of in (name, surface))
    return (most + 0.05) / (least + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half_and_lines_of_three(scheme: int) -> None:
    assert {"ink", "soft", "blue", "red"} <= TEXT
    words = {"ink", "soft", "red"}  # of plots
    for name, surface in product(TEXT | words, theme.SURFACES):
        assert _contrast(name, surface, scheme) >= 4.5, (name, surface)
    for name in LINES:
        assert _contrast(name, "paper", scheme) >= 3, name


def test_templates_name_colours_of_the_palette_alone() -> None:
    for place, sheet in SHEETS.items():
        named = set(re.findall(r"var\(--(\w+)", sheet))
        assert named <= {*theme.PALETTE}, place
        # Radiographs lie on black with an amber box, whatever the screen.
        assert set(re.findall(r"#[0-9a-f]{3,8}\b(?=[;}\s])", sheet)) <= {"#0c1016", "#f0b429"}, place


def test_no_two_colours_are_drawn_alike() -> None:
    light = [values[0] for values in theme.PALETTE.values()]
    assert len({*light}) == len(light)
