"""Content: borders black and white, exact statistics, a hash that knows copies from others, signs of burned-in text."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from shardkit.dicom import content
from shardkit.dicom.grayscale import to_uniform
from shardkit.dicom.triage import judge_pixels
from shardkit.errors import Dropped
from shardkit.testing import records

CLINICAL = [
    "angio_XA1_J2KR.dcm",
    "colon_contrast_OT_nometa.dcm",
    "dental_panoramic_modalityLUT_M1.dcm",
    "fluoro_RF_modalityLUT.dcm",
    "fuji_chest_10bit_M1_nopreamble",
    "fuji_hip_RG2_J2KR.dcm",
    "fuji_tibia_RG3_J2KR.dcm",
    "kodak_hand_2500x2048_J2K_sot.dcm",
    "konica_chest_8bit_M1_jpeg_2446x2010.dcm",
    "mammo_MG1_4664x3064_J2KI.dcm",
    "mammo_tomo_crop_overlay_oob.dcm",
    "nih_chest_8bit_native.dcm",
    "vet_dog_thorax_DX_M1.dcm",
]
FAMILIES = (
    [f"fuji_hip_RG2_{kind}.dcm" for kind in ("J2KR", "J2KI", "JPLL", "JLSN", "JPLY_badSOS", "JPLY_fixedSOS")],
    [f"fuji_tibia_RG3_{kind}.dcm" for kind in ("J2KR", "J2KI", "JLSL", "JLSN", "JPLY", "RLE")],
    ["nih_chest_8bit_native.dcm", "nih_chest_8bit_jpeg_M2.dcm"],
)


def uniform(decoded: Any, name: str) -> Any:
    ours = decoded(f"radiographs/{name}")
    return to_uniform(ours.samples, ours.facts, ours.header.dataset)


def phash(pixels: Any) -> int:
    return content.perceptual_hash(content.thumbnail(content.reduce(pixels, content.ANALYSIS)))


@pytest.mark.parametrize("name", CLINICAL)
def test_every_real_clinical_image_has_content(decoded: Any, name: str) -> None:
    pixels = uniform(decoded, name).pixels
    found = content.find_content(pixels)
    assert 0.3 <= found.area <= 1
    box = found.box
    assert 0 <= box.top < box.top + box.height <= pixels.shape[0]
    assert 0 <= box.left < box.left + box.width <= pixels.shape[1]
    assert box.height * box.width >= found.area * pixels.size * 0.98


@pytest.mark.parametrize("kind", ["constant", "label", "white with label"])
def test_images_without_anatomy_have_none(kind: str) -> None:
    shape = (800, 640)
    pixels = np.full(shape, 60000 if kind == "white with label" else 500, np.uint16)
    if "label" in kind:
        pixels[40:70, 40:90] = 3000
    assert content.find_content(pixels).area <= 0.014


@pytest.mark.parametrize(
    "make", [lambda rng: rng.normal(500, 2, (800, 640)), lambda rng: rng.integers(0, 4096, (800, 640))]
)
def test_pure_noise_is_blank(make: Any) -> None:
    pixels = np.asarray(make(np.random.default_rng(1))).astype(np.uint16)
    found = content.find_content(pixels)
    with pytest.raises(Dropped) as caught:
        judge_pixels(found, content.statistics(pixels, found.box))
    assert caught.value.reason == "blank"


def test_the_white_collimation_of_the_real_tibia_is_outside_the_box(decoded: Any) -> None:
    image = uniform(decoded, "fuji_tibia_RG3_J2KR.dcm")
    box = content.find_content(image.pixels).box
    outside = np.ones(image.pixels.shape, bool)
    outside[box.top : box.top + box.height, box.left : box.left + box.width] = False
    white = image.pixels >= 0.97 * image.pixels.max()
    assert outside.mean() > 0.2
    assert white[outside].mean() > 0.99
    columns = ~white[:, box.left : box.left + box.width]
    assert columns[:, [24, -25]].mean() > 0.3  # the box ends where the exposed field ends


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(100, 900), st.integers(100, 900), st.booleans(), st.integers(0, 2**32))
def test_the_box_encloses_a_field_to_a_block_of_the_reduction(rows: int, cols: int, white: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(0, rows // 3)), int(rng.integers(0, cols // 3))
    bottom, right = int(rng.integers(rows // 2, rows + 1)), int(rng.integers(cols // 2, cols + 1))
    pixels = np.full((rows, cols), 4095 if white else 0, np.uint16)
    pixels[top:bottom, left:right] = rng.integers(1000, 3000, (bottom - top, right - left))
    box = content.find_content(pixels).box
    slack = 2 * -(-max(rows, cols) // content.ANALYSIS)
    assert box.top in range(top - slack, top + slack + 1)
    assert box.left in range(left - slack, left + slack + 1)
    assert abs(box.top + box.height - bottom) <= slack
    assert abs(box.left + box.width - right) <= slack


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 16), st.integers(0, 2**32))
def test_statistics_equal_numpys(rows: int, cols: int, bits: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 1 << bits, (rows + 7, cols + 5)).astype(np.uint16)
    box = content.Box(3, 2, rows, cols)
    got, inside = content.statistics(pixels, box), pixels[3 : 3 + rows, 2 : 2 + cols].astype(np.float64)
    assert (got.min, got.max) == (inside.min(), inside.max())
    assert got.mean == pytest.approx(inside.mean(), rel=1e-12)
    assert got.std == pytest.approx(inside.std(), rel=1e-9, abs=1e-9)
    want = np.percentile(inside, [0.5, 1, 99, 99.5], method="inverted_cdf").tolist()
    assert [got.p0_5, got.p1, got.p99, got.p99_5] == want


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 80))
def test_reduction_is_the_mean_of_whole_blocks(rows: int, cols: int, longest: int) -> None:
    pixels = np.random.default_rng(rows * 71 + cols).integers(0, 65536, (rows, cols)).astype(np.uint16)
    k = -(-max(rows, cols) // longest)
    got = content.reduce(pixels, longest)
    assert max(got.shape) <= longest
    ky, kx = min(k, rows), min(k, cols)
    want = pixels[:ky, :kx].astype(np.float64).mean()
    assert got[0, 0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=["hip", "tibia", "chest"])
def test_lossy_copies_share_the_perceptual_hash(decoded: Any, family: list[str]) -> None:
    assert len({phash(uniform(decoded, name).pixels) for name in family}) == 1


def test_different_images_differ_in_ten_bits_or_more(decoded: Any) -> None:
    hashes = [phash(uniform(decoded, name).pixels) for name in CLINICAL]
    for a, b in combinations(hashes, 2):
        assert (a ^ b).bit_count() >= 10


def test_the_inverted_twin_is_the_complement(decoded: Any) -> None:
    a, b = (phash(uniform(decoded, f"nih_chest_8bit_jpeg_{kind}.dcm").pixels) for kind in ("M2", "fakeM1"))
    assert (a ^ b).bit_count() >= 62


def test_hashes_fit_63_bits_and_ignore_brightness_and_contrast(decoded: Any) -> None:
    pixels = uniform(decoded, "nih_chest_8bit_native.dcm").pixels
    assert phash(pixels) < 1 << 63
    assert (phash(pixels) ^ phash(pixels * np.uint16(16) + np.uint16(100))).bit_count() <= 1


@pytest.mark.parametrize("at", ["top", "bottom"])
def test_text_drawn_near_an_edge_is_suspected_and_the_same_picture_without_is_not(image_spec: Any, at: str) -> None:
    picture = records.radiograph_of(image_spec(height=900, width=700, region="chest"))
    assert not content.burned_in_suspect(picture, 12)
    canvas = Image.fromarray(np.zeros(picture.shape, np.uint8))
    font = ImageFont.load_default(size=26)
    ImageDraw.Draw(canvas).text((30, 30 if at == "top" else 840), "DOE JANE 14.02.1963", fill=255, font=font)
    marked = picture.copy()
    marked[np.asarray(canvas) > 128] = 4095
    assert content.burned_in_suspect(marked, 12)


@pytest.mark.parametrize("name", ["fuji_hip_RG2_J2KR.dcm", "nih_chest_8bit_native.dcm", "vet_dog_thorax_DX_M1.dcm"])
def test_real_pictures_without_text_are_not_suspected(decoded: Any, name: str) -> None:
    image = uniform(decoded, name)
    assert not content.burned_in_suspect(image.pixels, image.bits)
