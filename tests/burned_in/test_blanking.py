"""Blanking leaves nothing of a text and changes nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.burned_in.blanking import areas, blank
from shardkit.burned_in.findings import Finding
from shardkit.dataset.sample_row import Kind
from shardkit.synthetic.planted_text import drawn, plant
from shardkit.synthetic.radiographs import radiograph

Pixels = npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return radiograph(400, 360, 12, np.random.default_rng(1), "knee") // 2 + np.uint16(1000)


def finding(top: int, left: int, height: int, width: int, kind: Kind = "text") -> Finding:
    return Finding(top, left, height, width, kind, 0.9)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("at", [(150, 60), (0, 60), (384, 60), (200, 0)])
@pytest.mark.parametrize("short", [0, 3])  # pixels that the box lacks on each side
def test_nothing_of_the_text_is_left(picture: Pixels, at: tuple[int, int], dark: bool, short: int) -> None:
    ink = drawn("DOE JANE 1963", "bold", 20)
    pixels, truth = plant(picture, 12, ink, "DOE JANE 1963", at, contrast=0.8, dark=dark)
    box = finding(truth.top + short, truth.left + short, truth.height - 2 * short, truth.width - 2 * short)
    painted = blank(pixels, [box])
    drawn_on = pixels != picture
    assert np.count_nonzero(drawn_on) > 500
    assert len(np.unique(painted[drawn_on])) == 1, "each pixel of the text, its soft edges too, has one grey"


def test_nothing_outside_of_the_areas_changes(picture: Pixels) -> None:
    before = picture.copy()
    boxes = [finding(50, 40, 20, 120), finding(300, 200, 100, 16, "unreadable")]
    painted = blank(picture, boxes)
    same = np.ones(picture.shape, np.bool_)
    for top, bottom, left, right in areas(picture, boxes):
        same[top:bottom, left:right] = False
    assert 0 < np.count_nonzero(~same) < 4 * (20 * 120 + 100 * 16)
    assert np.array_equal(painted[same], picture[same])
    assert np.array_equal(picture, before), "the image that was given is not written to"


def test_markers_are_kept_unless_they_are_asked_for(picture: Pixels) -> None:
    marker = finding(10, 10, 20, 60, "marker")
    assert np.array_equal(blank(picture, [marker]), picture)
    assert len(areas(picture, [marker], kinds=("marker",))) == 1


def test_an_area_has_the_grey_of_what_surrounds_it() -> None:
    pixels = np.full((100, 200), 700, np.uint16)
    pixels[40:60, 50:150] = 4095
    assert np.unique(blank(pixels, [finding(40, 50, 20, 100)])).tolist() == [700]


def test_a_finding_as_large_as_the_image_is_painted_too() -> None:
    pixels = np.arange(200, dtype=np.uint16).reshape(10, 20)
    assert len(np.unique(blank(pixels, [finding(0, 0, 10, 20)]))) == 1
