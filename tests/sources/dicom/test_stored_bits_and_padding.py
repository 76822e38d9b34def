"""Words of more or fewer bits than BitsStored, with signs, overlays and noise; and padding, which becomes 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from shardkit.errors import Quarantined
from shardkit.sources.dicom.decoding import Samples
from shardkit.sources.dicom.grayscale import to_uniform
from shardkit.sources.dicom.reading import PixelModule

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def test_padding_is_found_before_inversion_and_is_background_after(uniform: Any) -> None:
    got = uniform([100, 4095, 7, 100], photometric="MONOCHROME1", tags={"PixelPaddingValue": 100})
    assert got.pixels[0].tolist() == [0, 0, 4088, 0]
    assert got.padding == 0.5


@pytest.mark.parametrize(("value", "limit"), [(10, 20), (20, 10)])
def test_a_padding_range_covers_both_ends_in_either_order(uniform: Any, value: int, limit: int) -> None:
    got = uniform([9, 10, 15, 20, 21], tags={"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit})
    assert got.pixels[0].tolist() == [9, 0, 0, 0, 21]
    assert got.padding == pytest.approx(0.6)


def test_padding_outside_bits_stored_is_background_and_no_excess(uniform: Any) -> None:
    got = uniform([65535, 4095, 1], photometric="MONOCHROME1", tags={"PixelPaddingValue": 65535})
    assert got.pixels[0].tolist() == [0, 0, 4094]
    assert (got.bits, got.flags) == (12, ())


def test_padding_of_signed_pixels_is_read_with_their_sign(uniform: Any) -> None:
    tags = {"PixelPaddingValue": -2000}
    got = uniform([-2000, -1, 0, 2047], signed=True, tags=tags)
    assert got.pixels[0].tolist() == [0, 2047, 2048, 4095]
    assert got.padding == 0.25


def test_an_absent_or_unmet_padding_value_pads_nothing(uniform: Any) -> None:
    assert uniform([1, 2, 3]).padding == uniform([1, 2, 3], tags={"PixelPaddingValue": 9}).padding == 0


@PROPERTY
@given(st.integers(2, 16), st.booleans(), st.data())
def test_signed_values_are_shifted_whether_or_not_their_sign_fills_the_word(
    uniform: Any, bits: int, extended: bool, data: Any
) -> None:
    low = -(1 << (bits - 1))
    values = data.draw(st.lists(st.integers(low, -low - 1), min_size=1, max_size=20))
    words = [v & (0xFFFF if extended else (1 << bits) - 1) for v in values]
    got = uniform(words, bits, signed=True)
    assert got.pixels[0].tolist() == [v - low for v in values]
    assert (got.bits, got.flags) == (bits, ())


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_the_high_bits_is_masked_without_a_flag(pixel_module: Any, signed: bool) -> None:
    dataset = Dataset()
    dataset.add_new(0x60000102, "US", 12)
    raw = np.array([[0x1005, 0x0005, 0xF7FF]], np.uint16)
    got = to_uniform(Samples(raw, "a codec"), pixel_module(raw, 12, signed), dataset)
    shift = 2048 if signed else 0
    assert got.pixels[0].tolist() == [5 + shift, 5 + shift, 0x7FF + shift]
    assert (got.bits, got.flags) == (12, ())


def test_an_overlay_over_an_8_bit_stream_is_masked() -> None:
    dataset = Dataset()
    dataset.add_new(0x60000102, "US", 12)
    raw = np.array([[1, 255]], np.uint8)
    about = PixelModule(1, 2, 1, 1, 16, 12, False, "MONOCHROME2")
    got = to_uniform(Samples(raw, "a codec", precision=8), about, dataset)
    assert (got.pixels[0].tolist(), got.bits, got.flags) == ([1, 255], 8, ("stream_bits",))


def test_values_beyond_bits_stored_raise_the_depth_and_are_flagged_and_not_wrapped(uniform: Any) -> None:
    got = uniform([*range(0, 3001, 100)], bits=10)
    assert got.pixels[0].tolist() == [*range(0, 3001, 100)]
    assert (got.bits, got.flags) == (12, ("values_exceed_bits",))


def test_signed_values_beyond_bits_stored_keep_their_distances(uniform: Any) -> None:
    got = uniform([*range(-3000, 5001, 200)], bits=10, signed=True)
    assert np.diff(got.pixels[0].astype(int)).tolist() == [200] * 40
    assert got.flags == ("values_exceed_bits",)


def test_a_lossy_overshoot_is_clipped_to_bits_stored_and_flagged(uniform: Any) -> None:
    got = uniform([0, 1030, 5, *[9] * 100], bits=10, lossy=True)
    assert got.pixels[0, :3].tolist() == [0, 1023, 5]
    assert (got.bits, got.flags) == (10, ("values_exceed_bits",))


@pytest.mark.parametrize("values", [[0, 1160, *[9] * 100], [0, 1030, 1030, *[9] * 100]])
def test_a_lossy_stream_that_exceeds_by_more_than_overshoot_keeps_its_values(uniform: Any, values: list[int]) -> None:
    """Too far, or in too many pixels: the stream knows better than BitsStored."""
    got = uniform(values, bits=10, lossy=True, precision=12)
    assert got.pixels[0].tolist() == values
    assert (got.bits, got.flags) == (11, ("values_exceed_bits",))


def test_the_real_lossy_tibia_overshoots_and_is_clipped(decoded: Any) -> None:
    ours = decoded("radiographs/fuji_tibia_RG3_JPLY.dcm")
    assert int(ours.raw.max()) > 1023
    got = to_uniform(ours.samples, ours.facts, ours.header.dataset)
    assert (got.bits, got.flags) == (10, ("values_exceed_bits",))


def test_noise_in_unused_high_bits_is_masked_and_recorded(uniform: Any) -> None:
    smooth = np.linspace(100, 900, 400).astype(int)
    noise = np.random.default_rng(0).integers(0, 64, 400) << 10
    got = uniform((smooth | noise).tolist(), bits=10)
    assert got.pixels[0].tolist() == smooth.tolist()
    assert (got.bits, got.flags, got.repairs) == (10, (), ("high_bits",))


def test_a_constant_in_unused_high_bits_is_masked(uniform: Any) -> None:
    got = uniform([v | 0x8000 for v in range(0, 1000, 10)], bits=10)
    assert got.pixels[0].tolist() == [*range(0, 1000, 10)]
    assert got.repairs == ("high_bits",)


def test_noise_above_signed_values_is_masked_with_their_sign(uniform: Any) -> None:
    smooth = np.linspace(-500, 500, 400).astype(int)
    noise = np.random.default_rng(0).integers(0, 64, 400) << 10
    got = uniform(((smooth & 1023) | noise).tolist(), bits=10, signed=True)
    assert got.pixels[0].tolist() == (smooth + 512).tolist()
    assert got.repairs == ("high_bits",)


@pytest.mark.parametrize("shift", [1, 4])
def test_high_bit_counts_only_where_the_words_are_aligned_to_it(pixel_module: Any, shift: int) -> None:
    values = np.arange(0, 4000, 40)
    for words, repairs in ((values << shift, ("high_bit",)), (values, ())):
        raw = words.astype(np.uint16)[None]
        about = replace(pixel_module(raw, 12), high_bit=11 + shift)
        got = to_uniform(Samples(raw, "native"), about, Dataset())
        assert got.pixels[0].tolist() == values.tolist()
        assert (got.bits, got.flags, got.repairs) == (12, (), repairs)


def test_a_stream_of_fewer_bits_than_bits_stored_is_inverted_at_its_own_depth(uniform: Any) -> None:
    got = uniform([0, 100, 255], photometric="MONOCHROME1", dtype=np.uint8, precision=8)
    assert got.pixels[0].tolist() == [255, 155, 0]
    assert (got.bits, got.flags) == (8, ("stream_bits",))


def test_a_signed_stream_under_an_unsigned_header_gives_its_low_bits(pixel_module: Any) -> None:
    raw = np.array([[-2048, -1, 0, 2047]], np.int16)
    got = to_uniform(
        Samples(raw, "a codec", precision=12, signed=True), pixel_module(raw.view(np.uint16), 12), Dataset()
    )
    assert got.pixels[0].tolist() == [2048, 4095, 0, 2047]
    assert (got.bits, got.flags) == (12, ("stream_sign",))


def test_a_signed_stream_that_cannot_be_read_without_loss_is_a_bad_value(pixel_module: Any) -> None:
    raw = np.array([[-3000, 3000]], np.int16)
    with pytest.raises(Quarantined) as caught:
        to_uniform(Samples(raw, "a codec", precision=16, signed=True), pixel_module(raw.view(np.uint16), 12), Dataset())
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("extended", [True, False])
def test_an_unsigned_stream_under_a_signed_header_is_read_with_the_header_s_sign(
    pixel_module: Any, extended: bool
) -> None:
    words = [v & (0xFFFF if extended else 0xFFF) for v in (-2000, -1, 0, 2000)]
    raw = np.array([words], np.uint16)
    got = to_uniform(Samples(raw, "a codec", precision=16, signed=False), pixel_module(raw, 12, signed=True), Dataset())
    assert got.pixels[0].tolist() == [48, 2047, 2048, 4048]
    assert (got.bits, got.flags) == (12, ("stream_sign",))
