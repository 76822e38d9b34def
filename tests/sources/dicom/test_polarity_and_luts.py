"""Which end of the grey values is bright, and grey values that a Modality LUT gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from shardkit.errors import Quarantined
from shardkit.sources.dicom.grayscale import modality_lut, polarity_conflict

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def lut_tags(entries: list[int], first: int = 0, bits: int = 16, count: int | None = None) -> dict[str, Any]:
    """A header's Modality LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) if count is None else count, first, bits])
    item.add_new("LUTData", "US", entries)
    return {"ModalityLUTSequence": [item]}


def lut_tags_without_descriptor(entries: list[int]) -> dict[str, Any]:
    """A Modality LUT that has data and does not say what of."""
    tags = lut_tags(entries)
    del tags["ModalityLUTSequence"][0].LUTDescriptor
    return tags


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [None, "1", "2.5", "-1", "-10"])
@pytest.mark.parametrize("table", ["none", "increasing", "decreasing"])
def test_polarity_is_monochrome1_xor_negative_slope_and_a_modality_lut_leaves_only_monochrome1(
    uniform: Any, photometric: str, slope: str | None, table: str
) -> None:
    tags: dict[str, Any] = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": "-3"}
    values, entries = [0, 1, 5, 15], list(range(16))
    if table != "none":
        entries = entries if table == "increasing" else entries[::-1]
        tags |= lut_tags(entries)
    got = uniform(values, bits=4, photometric=photometric, tags=tags)
    negative = table == "none" and slope is not None and slope.startswith("-")
    inverted = (photometric == "MONOCHROME1") != negative
    want = [entries[v] for v in values]
    assert got.inverted == inverted
    assert got.pixels[0].tolist() == [15 - w if inverted else w for w in want]


@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY"])
def test_the_presentation_lut_shape_is_never_applied_on_top(uniform: Any, shape: str) -> None:
    tags = {"PresentationLUTShape": shape}
    assert uniform([0, 7], bits=3, photometric="MONOCHROME1", tags=tags).pixels[0].tolist() == [7, 0]


@PROPERTY
@given(st.integers(2, 16), st.data())
def test_full_inversion_uses_the_bit_depth_and_imagemax_the_brightest_pixel(uniform: Any, bits: int, data: Any) -> None:
    values = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=20))
    full = uniform(values, bits, photometric="MONOCHROME1").pixels[0].tolist()
    by_max = uniform(values, bits, photometric="MONOCHROME1", invert="imagemax").pixels[0].tolist()
    assert full == [(1 << bits) - 1 - v for v in values]
    assert by_max == [max(values) - v for v in values]
    assert uniform(full, bits, photometric="MONOCHROME1").pixels[0].tolist() == values


@pytest.mark.parametrize(
    ("photometric", "tags", "conflict"),
    [
        ("MONOCHROME1", {"PresentationLUTShape": "INVERSE"}, False),
        ("MONOCHROME2", {"PresentationLUTShape": "IDENTITY"}, False),
        ("MONOCHROME1", {"PresentationLUTShape": "IDENTITY"}, True),
        ("MONOCHROME2", {"PresentationLUTShape": "INVERSE"}, True),
        ("MONOCHROME2", {"PresentationLUTShape": "anything"}, False),
        ("MONOCHROME2", {"VOILUTSequence": lut_tags([*range(16)])["ModalityLUTSequence"]}, False),
        ("MONOCHROME2", {"VOILUTSequence": lut_tags([*range(16)][::-1])["ModalityLUTSequence"]}, True),
        ("MONOCHROME1", {"VOILUTSequence": lut_tags([*range(16)][::-1])["ModalityLUTSequence"]}, True),
        ("MONOCHROME2", {"VOILUTSequence": [Dataset()]}, False),
    ],
)
def test_a_header_that_displays_the_other_sense_is_flagged_and_not_followed(
    uniform: Any, photometric: str, tags: dict[str, Any], conflict: bool
) -> None:
    got = uniform([0, 15], bits=4, photometric=photometric, tags=tags)
    assert got.flags == (("polarity_conflict",) if conflict else ())
    assert got.inverted == (photometric == "MONOCHROME1")


def test_an_empty_modality_lut_item_is_no_lut(uniform: Any) -> None:
    assert uniform([1, 7], tags={"ModalityLUTSequence": [Dataset()]}).pixels[0].tolist() == [1, 7]


def test_values_outside_a_modality_lut_take_its_ends(uniform: Any) -> None:
    got = uniform([0, 4, 5, 6, 9], tags=lut_tags([10, 20, 30], first=4))
    assert got.pixels[0].tolist() == [10, 10, 20, 30, 30]
    assert got.bits == 12


def test_a_modality_lut_of_signed_pixels_may_begin_below_zero(uniform: Any) -> None:
    got = uniform([-2, -1, 0, 1], signed=True, tags=lut_tags([1, 2, 3, 4], first=65534))
    assert got.pixels[0].tolist() == [1, 2, 3, 4]


def test_a_modality_lut_of_signed_pixels_may_begin_above_zero(uniform: Any) -> None:
    assert uniform([5, 6, 7], signed=True, tags=lut_tags([1, 2, 3], first=5)).pixels[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "count", "entries"), [(bytes([9, 7, 5, 3]), 4, [9, 7, 5, 3]), (b"\x34\x12", 1, [0x1234] * 4)]
)
def test_entries_of_a_lut_are_bytes_only_where_there_is_no_room_for_words(
    uniform: Any, data: bytes, count: int, entries: list[int]
) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, 16])
    item.add_new("LUTData", "OW", data)
    assert uniform([0, 1, 2, 3], tags={"ModalityLUTSequence": [item]}).pixels[0].tolist() == entries


@pytest.mark.parametrize("little", [True, False])
def test_words_of_a_lut_have_the_byte_order_of_their_file(little: bool) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [2, 0, 16])
    item.add_new("LUTData", "OW", np.array([1, 256], "<u2" if little else ">u2").tobytes())
    dataset = Dataset()
    dataset.set_original_encoding(False, little)
    dataset.VOILUTSequence = [item]
    assert not polarity_conflict(dataset, "MONOCHROME2"), "it increases"
    dataset.ModalityLUTSequence = [item]
    found = modality_lut(dataset, signed=False)
    assert found is not None
    assert (found[0], found[1].tolist()) == (0, [1, 256])


def test_a_modality_lut_count_of_zero_stands_for_65536_entries(uniform: Any) -> None:
    entries = np.arange(65536)[::-1]
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    got = uniform([0, 65535, 1], bits=16, tags={"ModalityLUTSequence": [item]})
    assert got.pixels[0].tolist() == [65535, 0, 65534]


@pytest.mark.parametrize(
    "tags",
    [
        lut_tags([1, 2], count=3),
        lut_tags([1, 2], bits=17),
        lut_tags([1, 2], bits=0),
        lut_tags_without_descriptor([1, 2]),
    ],
)
def test_a_modality_lut_that_cannot_be_read_is_a_bad_value(uniform: Any, tags: dict[str, Any]) -> None:
    with pytest.raises(Quarantined) as caught:
        uniform([1], tags=tags)
    assert caught.value.reason == "bad_value"
