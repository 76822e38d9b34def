"""Lines of text are candidates wherever and however they are drawn; radiographs without any have none."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from shardkit.burned_in.boxes import Box
from shardkit.burned_in.candidates import _even, candidates
from shardkit.burned_in.detection import find
from shardkit.synthetic.planted_text import Planted, drawn, plant, skewed
from shardkit.synthetic.radiographs import REGIONS, radiograph

Pixels = npt.NDArray[np.uint16]


@cache
def picture(region: str = "chest", height: int = 700, width: int = 620) -> Pixels:
    """A radiograph with room above and below its greys for text."""
    pixels = radiograph(height, width, 12, np.random.default_rng(3), region) // 2 + np.uint16(1000)
    pixels.setflags(write=False)
    return pixels


def planted(text: str, size: int, at: tuple[int, int], contrast: float = 1.0, **how: object) -> tuple[Pixels, Planted]:
    return plant(picture(), 12, drawn(text, "sans", size), text, at, contrast=contrast, **how)  # type: ignore[arg-type]


def covered(truth: Planted, boxes: list[Box]) -> float:
    inside = np.zeros((truth.height, truth.width), np.bool_)
    for box in boxes:
        top, left = max(box.top - truth.top, 0), max(box.left - truth.left, 0)
        inside[top : max(box.top + box.height - truth.top, 0), left : max(box.left + box.width - truth.left, 0)] = True
    return float(inside.mean())


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [12, 20, 40, 64])
def test_a_line_of_text_is_found_in_either_tone_any_quarter_and_any_size(size: int, dark: bool, turns: int) -> None:
    pixels, truth = planted("MRN 48", size, (260, 200), 0.5, dark=dark, turns=turns)
    assert truth.contrast >= 0.499
    found = candidates(pixels, 12)
    assert covered(truth, found) >= 0.9
    best = max(found, key=lambda box: covered(truth, [box]))
    assert (best.upright, best.light) == (turns % 2 == 0, not dark)
    assert best.height * best.width <= 2.5 * truth.height * truth.width, "the box is the text's, not the picture's"


@pytest.mark.parametrize(
    "at", [(0, 150), (680, 150), (400, 0), (400, 460), (-4, 200), (686, 200), (300, -20), (300, 530)]
)
def test_text_at_an_edge_and_text_that_is_clipped_are_found(at: tuple[int, int]) -> None:
    pixels, truth = planted("18.07.1946 A", 24, at, 0.6)
    assert covered(truth, candidates(pixels, 12)) >= 0.8


@pytest.mark.parametrize("bits", [8, 16])
def test_other_depths_are_no_different(bits: int) -> None:
    base = (picture().astype(np.uint32) * ((1 << bits) - 1) // 4095).astype(np.uint16)
    pixels, truth = plant(base, bits, drawn("Okonkwo, J.", "serif", 16), "Okonkwo, J.", (500, 90), contrast=0.5)
    assert covered(truth, candidates(pixels, bits)) >= 0.9


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [14, 40])
def test_text_on_a_plate_is_found_whatever_lies_around_it(size: int, dark: bool) -> None:
    ink = drawn("MRN 482", "sans", size)
    height, width = ink.shape
    pixels = np.full((500, 620), 40 if dark else 215, np.uint16)
    pixels[300:] = np.linspace(0, 255, 620)
    grey, letters = (255, 165) if dark else (0, 75)  # to the same side of what is around
    plate = np.s_[194 : 206 + height, 84 : 96 + width]
    pixels[plate] = grey
    pixels[200 : 200 + height, 90 : 90 + width] = np.rint(grey + (letters - grey) * ink)
    found = candidates(pixels, 8)
    assert covered(Planted(200, 90, height, width, "", 1.0, 0.3), found) >= 0.9
    assert found[0].light == (not dark)


def test_a_plate_has_one_grey_and_what_wires_cross_has_none() -> None:
    letters = np.zeros((20, 60), np.bool_)
    letters[4:16, 3::8] = letters[4:16, 4::8] = True
    plate = np.where(letters, 120, 30).astype(np.uint16)
    assert _even(plate, letters, ~letters, True)
    assert not _even(plate + np.linspace(0, 80, 60).astype(np.uint16), letters, ~letters, True)


@pytest.mark.parametrize("degrees", [-3, 3])
def test_text_askew_is_found(degrees: int) -> None:
    ink = skewed(drawn("Okonkwo, John 1946", "sans", 18), degrees)
    pixels, truth = plant(picture(), 12, ink, "", (300, 120), contrast=0.6)
    assert covered(truth, candidates(pixels, 12)) >= 0.8


def test_small_synthetic_radiographs_have_none() -> None:
    rng = np.random.default_rng(6)
    for n in range(60):
        height, width = (int(side) for side in rng.integers(80, 160, 2))
        bits = (8, 10, 12, 14, 16)[n % 5]
        pixels = radiograph(height, width, bits, rng, REGIONS[n % len(REGIONS)])
        assert find(pixels, bits, read=False) == [], n


def test_the_inverse_image_has_the_same_lines() -> None:
    pixels, truth = planted("Garcia Lopez", 18, (80, 60), 0.6)
    assert covered(truth, candidates(4095 - pixels, 12)) >= 0.9


@pytest.mark.parametrize("region", ["chest", "hand", "knee", "skull", "lumbar spine", "shoulder", "breast"])
def test_a_radiograph_without_text_has_no_line_of_letters(region: str) -> None:
    assert [box for box in candidates(picture(region, 900, 760), 12) if box.score > 0.3] == []


def test_noise_bars_and_edges_are_not_text() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(2000, 400, (512, 512)).clip(0, 4095).astype(np.uint16)
    assert [b for b in candidates(noise, 12) if b.score > 0.5] == []
    edge = np.full((512, 512), 300, np.uint16)
    edge[100:400, 120:380] = 3000
    assert candidates(edge, 12) == []
    wire = edge.copy()
    for x in range(512):
        y = int(250 + 60 * np.sin(x / 40))
        wire[y : y + 4, x] = 4000
    assert candidates(wire, 12) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (64, 64)])
def test_small_and_flat_images_have_none(shape: tuple[int, int]) -> None:
    assert candidates(np.full(shape, 7, np.uint16), 8) == []


def test_a_read_only_view_is_taken_and_nothing_is_written() -> None:
    pixels, truth = planted("Schmidt-Berg", 20, (300, 200))
    wide = np.zeros((pixels.shape[0], pixels.shape[1] + 5), np.uint16)
    wide[:, 5:] = pixels
    view = wide[:, 5:]
    view.setflags(write=False)
    assert candidates(view, 12) == candidates(pixels, 12) != []
    assert np.array_equal(view, pixels)
    assert covered(truth, candidates(view, 12)) >= 0.9


@pytest.mark.parametrize("turns", range(2))
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [16, 28])
def test_white_over_bone_and_black_over_air_are_found_though_they_differ_by_little(
    size: int, dark: bool, turns: int
) -> None:
    """A fifth of the span is left of a full contrast where the background is nearly at the end of the range."""
    ramp = np.linspace(0, 5000, 620).clip(0, 3300) + np.random.default_rng(1).normal(0, 25, (700, 620))
    base = np.rint(4000 - ramp if dark else ramp + 95).clip(0, 4095).astype(np.uint16)
    at = (300, 470)
    pixels, truth = plant(
        base, 12, drawn("04.11.1951", "sans", size), "04.11.1951", at, contrast=1.0, dark=dark, turns=turns
    )
    assert 0.1 < truth.contrast < 0.35
    assert covered(truth, candidates(pixels, 12)) >= 0.9


def test_noise_that_is_cut_off_at_white_is_no_candidate() -> None:
    """A strip of air where half of the pixels are at the largest grey level."""
    pixels = radiograph(700, 620, 12, np.random.default_rng(3), "chest") // 2
    strip = np.random.default_rng(2).normal(4095, 200, (700, 90))
    pixels[:, :90] = np.clip(np.rint(ndimage.gaussian_filter(strip, 1.2)), 0, 4095).astype(np.uint16)
    assert candidates(pixels, 12) == []


@pytest.mark.parametrize("degrees", [-12, 0, 12])
@pytest.mark.parametrize("turns", range(4))
def test_two_letters_alone_are_found_beside_a_side_marker_too(degrees: int, turns: int) -> None:
    """As radiographers' initials of lead: below the L, tilted with it."""
    pixels, _ = plant(
        picture(), 12, skewed(drawn("L", "sans", 40), degrees), "L", (220, 200), contrast=0.9, turns=turns
    )
    ink = skewed(drawn("HS", "sans", 32), degrees)
    pixels, truth = plant(
        pixels, 12, ink, "HS", (270, 200) if turns % 2 == 0 else (220, 250), contrast=0.9, turns=turns
    )
    best = max(candidates(pixels, 12), key=lambda box: covered(truth, [box]) - box.height * box.width / 1e6)
    assert covered(truth, [best]) >= 0.9
    assert best.upright == (turns % 2 == 0)


@pytest.mark.parametrize("text", ["L", "H.", "H   S"])
def test_a_lone_letter_and_unlike_or_distant_ones_are_no_line(text: str) -> None:
    pixels, truth = planted(text, 32, (260, 200), 0.9)
    assert covered(truth, candidates(pixels, 12)) == 0
