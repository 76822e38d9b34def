"""Content: what is border and what is anatomy, exact statistics, a hash of what a picture shows, burned-in text."""

from __future__ import annotations

import io
from itertools import combinations
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit import content
from shardkit.config import Rules
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import Dropped
from shardkit.sources.dicom.grayscale import to_uniform
from shardkit.synthetic import records
from shardkit.synthetic.radiographs import radiograph
from shardkit.triage import judge_pixels

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
    "make",
    [
        lambda rng: rng.normal(500, 2, (800, 640)),
        lambda rng: rng.integers(0, 4096, (800, 640)),
        lambda rng: np.pad(rng.normal(33000, 90, (700, 560)), ((60, 40), (40, 40))),
    ],
    ids=["faint", "strong", "behind a border"],
)
def test_pure_noise_is_blank(make: Any) -> None:
    pixels = np.asarray(make(np.random.default_rng(1))).astype(np.uint16)
    found = content.find_content(pixels)
    with pytest.raises(Dropped) as caught:
        judge_pixels(found, content.statistics(pixels, found.mask), Rules())
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


PICTURE = (900, 700)
HIGH, WIDE = PICTURE
FIELD = content.Box(96, 60, 700, 520)  # whole blocks of the reduction
SIDES = content.Box(0, 60, 900, 520)


def chest(bits: int = 12, seed: int = 5) -> Any:
    """A radiograph without a border, but for a pedestal of 1: 0 stays for padding."""
    picture = np.maximum(radiograph(*PICTURE, 12, np.random.default_rng(seed), "chest"), 1)
    assert content.find_content(picture).box == content.Box(0, 0, *PICTURE)
    return np.maximum(picture >> (12 - bits), 1)


def inside(box: content.Box) -> tuple[slice, slice]:
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)


def framed(picture: Any, border: Any = 0, field: content.Box = FIELD) -> Any:
    """The part of a picture that lies in a field, in a border of this level."""
    out = np.array(np.broadcast_to(border, picture.shape), np.uint16)
    out[inside(field)] = picture[inside(field)]
    return out


def black_border_below_a_pedestal() -> Any:
    return framed(32000 + chest(10), field=SIDES), SIDES


def black_border_below_a_pedestal_of_few_levels() -> Any:
    return framed(60000 + chest(8), field=SIDES), SIDES


def white_collimation() -> Any:
    return framed(chest(), 4095), FIELD


def noisy_border() -> Any:
    return framed(chest(), 30 + np.abs(np.random.default_rng(2).normal(0, 12, PICTURE)).astype(np.uint16)), FIELD


def low_contrast_beside_a_marker() -> Any:
    picture = 1000 + chest() // 64
    picture[60:120, 600:640] = 4095
    return picture, content.Box(0, 0, *PICTURE)


def dim_shoulder_at_the_edge() -> Any:
    """1.5 % of the range above the black that surrounds it, a little apart from the rest."""
    picture = framed(chest())
    picture[300:520, :50] = 40 + chest()[300:520, :50] // 100
    return picture, content.Box(FIELD.top, 0, FIELD.height, FIELD.left + FIELD.width)


def bright_abdomen_at_the_edge() -> Any:
    """Structure of 3 % of the range where everything is brighter than the rest."""
    picture = chest() * 3 // 4
    picture[-180:] = 3900 + chest()[:180] // 25
    return picture, content.Box(0, 0, *PICTURE)


@pytest.mark.parametrize(
    "make",
    [
        black_border_below_a_pedestal, black_border_below_a_pedestal_of_few_levels, white_collimation, noisy_border,
        low_contrast_beside_a_marker, dim_shoulder_at_the_edge, bright_abdomen_at_the_edge,
    ],
)  # fmt: skip
def test_borders_are_cut_and_anatomy_is_not(make: Any) -> None:
    pixels, want = make()
    found = content.find_content(pixels)
    slack = 2 * ceil_div(max(PICTURE), content.ANALYSIS)
    for ours, wanted in (
        (found.box.top, want.top),
        (found.box.left, want.left),
        (found.box.top + found.box.height, want.top + want.height),
        (found.box.left + found.box.width, want.left + want.width),
    ):
        assert abs(ours - wanted) <= slack
    judge_pixels(found, content.statistics(pixels, found.mask), Rules())


def test_a_lead_letter_in_the_border_is_no_anatomy() -> None:
    pixels = framed(chest())
    pixels[20:60, 20:40] = 4000
    assert content.find_content(pixels).box == FIELD


SIGNED = {"signed, padding 0": (True, 0, True), "signed, padding -2000": (True, -2000, True)}
UNSIGNED = {"pedestal, padding 0": (False, 0, True), "pedestal, black border": (False, 0, False)}


@pytest.mark.parametrize("kind", [*SIGNED, *UNSIGNED])
def test_ten_bits_far_from_their_padding_are_written_with_their_own_range(
    judge: Any, image_spec: Any, kind: str
) -> None:
    signed, padding, declared = (SIGNED | UNSIGNED)[kind]
    picture = chest(10).astype(np.int32) + (0 if signed else 32000)
    values = np.full(PICTURE, padding, np.int32)
    values[inside(SIDES)] = picture[inside(SIDES)]
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec(height=HIGH, width=WIDE, bits=16))))
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = int(signed), "MONOCHROME2"
    dataset.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    if declared:
        dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    facts = judge(out.getvalue()).converted.facts
    shift = 32768 if signed else 0
    low, high = np.percentile(picture[inside(SIDES)] + shift, [0.5, 99.5])
    assert (facts["box_top"], facts["box_left"], facts["box_height"], facts["box_width"]) == (
        SIDES.top, SIDES.left, SIDES.height, SIDES.width,
    )  # fmt: skip
    assert facts["min"] >= picture.min() + shift
    assert abs(facts["p0_5"] - low) <= 0.02 * (high - low)
    assert abs(facts["p99_5"] - high) <= 0.02 * (high - low)


def test_padding_is_left_out_wherever_it_lies() -> None:
    pixels = 32000 + chest(10)
    pixels[400:600, 300:500] = 0
    pixels[150] = 0  # half a block of the reduction
    found = content.find_content(pixels, padded=True)
    stats = content.statistics(pixels, found.mask, padded=True)
    assert found.box == content.Box(0, 0, *PICTURE)
    assert found.contrast < 1024
    assert 32000 < stats.min <= stats.p0_5 < stats.p99_5 < 33024
    assert not found.mask[210:290, 160:240].any()


@pytest.mark.parametrize("border", [0, 4095], ids=["black", "white"])
def test_statistics_are_those_of_the_field_whatever_box_or_border_is_around_it(border: int) -> None:
    """The field is tilted, so that its box holds border too."""
    picture = chest()
    row, col = np.mgrid[:HIGH, :WIDE]
    field = (np.abs(row - 450 + 0.15 * (col - 350)) < 300) & (np.abs(col - 350 - 0.15 * (row - 450)) < 220)
    pixels = np.where(field, picture, border).astype(np.uint16)
    found = content.find_content(pixels)
    got, want = content.statistics(pixels, found.mask), picture[field]
    box = np.zeros(PICTURE, bool)
    box[inside(found.box)] = True
    assert 1.15 * field.sum() < box.sum() < 1.5 * field.sum()
    assert got.mean == pytest.approx(want.mean(), rel=0.01)
    assert got.std == pytest.approx(want.std(), rel=0.02)
    low, high = np.percentile(want, [0.5, 99.5])
    assert abs(got.p0_5 - low) <= 0.01 * (high - low)
    assert abs(got.p99_5 - high) <= 0.01 * (high - low)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.integers(100, 900),
    st.integers(100, 900),
    st.booleans(),
    st.sampled_from([0, 30000, 61000]),
    st.integers(0, 2**32),
)
def test_the_box_encloses_a_field_to_a_block_of_the_reduction(
    rows: int, cols: int, white: bool, pedestal: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(0, rows // 3)), int(rng.integers(0, cols // 3))
    bottom, right = int(rng.integers(rows // 2, rows + 1)), int(rng.integers(cols // 2, cols + 1))
    pixels = np.full((rows, cols), 4095 + pedestal // 61000 * 61440 if white else 0, np.uint16)
    pixels[top:bottom, left:right] = pedestal + rng.integers(1000, 3000, (bottom - top, right - left))
    box = content.find_content(pixels).box
    slack = 2 * ceil_div(max(rows, cols), content.ANALYSIS)
    assert box.top in range(top - slack, top + slack + 1)
    assert box.left in range(left - slack, left + slack + 1)
    assert abs(box.top + box.height - bottom) <= slack
    assert abs(box.left + box.width - right) <= slack


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 16), st.integers(0, 2**32))
def test_statistics_equal_numpys(rows: int, cols: int, bits: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 1 << bits, (rows + 7, cols + 5)).astype(np.uint16)
    mask = np.zeros(pixels.shape, bool)
    mask[3 : 3 + rows, 2 : 2 + cols] = True
    got, inside = content.statistics(pixels, mask), pixels[mask].astype(np.float64)
    assert (got.min, got.max) == (inside.min(), inside.max())
    assert got.mean == pytest.approx(inside.mean(), rel=1e-12)
    assert got.std == pytest.approx(inside.std(), rel=1e-9, abs=1e-9)
    want = np.percentile(inside, [0.5, 1, 99, 99.5], method="inverted_cdf").tolist()
    assert [got.p0_5, got.p1, got.p99, got.p99_5] == want


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 1400), st.integers(1, 1400), st.integers(0, 2**32))
def test_statistics_of_any_blocks_equal_numpys(rows: int, cols: int, seed: int) -> None:
    """A partial block goes with the last whole one."""
    rng, scale = np.random.default_rng(seed), ceil_div(max(rows, cols), content.ANALYSIS)
    pixels = rng.integers(0, 4096, (rows, cols)).astype(np.uint16)
    blocks = rng.random(content.reduce(pixels, content.ANALYSIS).shape) < rng.random()
    blocks[0, 0] = True
    down, across = (np.minimum(np.arange(n) // scale, m - 1) for n, m in zip(pixels.shape, blocks.shape, strict=True))
    got, want = content.statistics(pixels, blocks), pixels[blocks[down][:, across]]
    assert (got.min, got.max) == (want.min(), want.max())
    assert got.mean == pytest.approx(want.mean(), rel=1e-12)
    assert [got.p1, got.p99] == np.percentile(want, [1, 99], method="inverted_cdf").tolist()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 80))
def test_reduction_is_the_mean_of_whole_blocks(rows: int, cols: int, longest: int) -> None:
    pixels = np.random.default_rng(rows * 71 + cols).integers(0, 65536, (rows, cols)).astype(np.uint16)
    k = ceil_div(max(rows, cols), longest)
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


@settings(max_examples=60, derandomize=True, database=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_halving_is_the_exact_mean_of_two_by_two_rounded_half_up_with_the_edge_repeated(
    rows: int, cols: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (rows, cols)).astype(np.uint16)
    got = content.halve(pixels)
    assert got.shape == (ceil_div(rows, 2), ceil_div(cols, 2))
    for i in range(got.shape[0]):
        for j in range(got.shape[1]):
            four = [
                int(pixels[min(r, rows - 1), min(c, cols - 1)]) for r in (2 * i, 2 * i + 1) for c in (2 * j, 2 * j + 1)
            ]
            assert got[i, j] == (sum(four) + 2) // 4
