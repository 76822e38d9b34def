"""Drawings belong to the page they stand in: its colours, its fonts, no names, no references."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from shardkit.report import Plot, colour, save_png, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _draw(axes: "Axes") -> None:
    axes.plot([1, 2, 3], [1.0, 4.0, 9.0], "o-", color=colour("blue"), gid="class:thick")
    axes.set(xlabel="steps & <more>", title="a $ sign\x00 and \udcff")


def test_colours_are_the_pages_and_letters_are_text_in_its_font() -> None:
    drawn = svg(Plot(_draw, 'rises from "1" to 9 & on'))
    assert not re.search(r"#[0-9a-f]{6}|url\(|href|https?:|font-|\bid=", drawn)
    root = ElementTree.fromstring(drawn)
    assert (root.get("role"), root.get("aria-label")) == ("img", 'rises from "1" to 9 & on')
    assert "steps & <more>" in [text.text for text in root.iter("text")]
    assert "stroke:var(--blue)" in next(g for g in root.iter("g") if g.get("class") == "thick")[0].attrib["style"]


def test_letters_that_xml_does_not_have_are_replaced() -> None:
    root = ElementTree.fromstring(svg(Plot(_draw, "")))
    assert "a $ sign\ufffd and \ufffd" in [text.text for text in root.iter("text")]


def test_marks_are_drawn_where_the_values_are() -> None:
    root = ElementTree.fromstring(svg(Plot(_draw, "")))
    group = next(g for g in root.iter("g") if g.get("class") == "thick")
    line = [tuple(map(float, at.split())) for at in re.split("[ML]", group[0].attrib["d"])[1:]]
    marks = [
        tuple(map(float, re.findall(r"[\d.]+", path.attrib["transform"]))) for path in group if path.get("transform")
    ]
    assert marks == line


def test_a_drawing_is_the_same_bytes_whatever_was_drawn_before_and_whatever_a_user_has_set(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 40\naxes.facecolor: red\n")
    code = (
        "from shardkit.report import Plot, svg\n"
        "plot = Plot(lambda axes: axes.plot([1, 2], [3, 4], 'o-'), 'x')\n"
        "print(svg(plot) == svg(plot), svg(plot))\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True, capture_output=True, text=True,
        ).stdout
        for folder in (tmp_path, Path(__file__).parent)
    ]  # fmt: skip
    assert told[0] == told[1]
    assert told[0].startswith("True <svg ")


def test_settings_of_others_are_left_as_they_were() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    svg(Plot(_draw, ""))
    assert dict(mpl.rcParams) == before


def test_several_plots_make_one_picture_with_one_legend(tmp_path: Path) -> None:
    plots = [
        Plot(_draw, "", "one", (200, 100), (("disk", "blue"), ("S3", "amber"))),
        Plot(_draw, "", "two", (300, 100)),
    ]
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        save_png(plots, path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0]
    assert pixels.max() == 255, "white behind it, whatever the viewer's screen"
    amber = np.array([int(colour("amber")[at : at + 2], 16) for at in (1, 3, 5)])
    assert (np.abs(pixels.astype(int) - amber).max(-1) < 3).any(), "in the legend alone"


def test_commands_start_without_what_draws() -> None:
    code = (
        "import sys, shardkit.cli, shardkit.commands.building, shardkit.build.run\n"
        "print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
