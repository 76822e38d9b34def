"""Grey values: one sense, one background, unsigned, in range, equal to a re-derivation from pydicom's array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from shardkit.errors import Quarantined
from shardkit.sources.dicom.decoding import Samples
from shardkit.sources.dicom.grayscale import modality_lut, polarity_conflict, to_uniform
from shardkit.sources.dicom.reading import PixelModule

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None)
REAL = [
    "nasty/deflated_8bit.dcm",
    "nasty/j2k_sign_mismatch_13bit.dcm",
    "nasty/modality_lut_signed.dcm",
    "nasty/overlay_in_high_bits.dcm",
    "nasty/signed_16bit.dcm",
    "nasty/signed_9bit.dcm",
    "nasty/voi_lut_sequence.dcm",
    "radiographs/angio_XA1_J2KR.dcm",
    "radiographs/colon_contrast_OT_nometa.dcm",
    "radiographs/dental_panoramic_modalityLUT_M1.dcm",
    "radiographs/fluoro_RF_modalityLUT.dcm",
    "radiographs/fuji_chest_10bit_M1_nopreamble",
    "radiographs/fuji_hip_RG2_J2KI.dcm",
    "radiographs/fuji_hip_RG2_J2KR.dcm",
    "radiographs/fuji_hip_RG2_JLSN.dcm",
    "radiographs/fuji_hip_RG2_JPLL.dcm",
    "radiographs/fuji_hip_RG2_JPLY_badSOS.dcm",
    "radiographs/fuji_hip_RG2_JPLY_fixedSOS.dcm",
    "radiographs/fuji_tibia_RG3_J2KI.dcm",
    "radiographs/fuji_tibia_RG3_J2KR.dcm",
    "radiographs/fuji_tibia_RG3_JLSL.dcm",
    "radiographs/fuji_tibia_RG3_JLSN.dcm",
    "radiographs/fuji_tibia_RG3_JPLY.dcm",
    "radiographs/fuji_tibia_RG3_RLE.dcm",
    "radiographs/kodak_hand_2500x2048_J2K_sot.dcm",
    "radiographs/konica_chest_8bit_M1_jpeg_2446x2010.dcm",
    "radiographs/mammo_MG1_4664x3064_J2KI.dcm",
    "radiographs/mammo_tomo_crop_overlay_oob.dcm",
    "radiographs/nih_chest_8bit_jpeg_M2.dcm",
    "radiographs/nih_chest_8bit_jpeg_fakeM1.dcm",
    "radiographs/nih_chest_8bit_native.dcm",
    "radiographs/smpte_CR_16bit_signed.dcm",
    "radiographs/vet_dog_thorax_DX_M1.dcm",
    "syntaxes/XA1asCR_deflated.dcm",
    "syntaxes/XA1asCR_explicit_be.dcm",
    "syntaxes/XA1asCR_explicit_le.dcm",
    "syntaxes/XA1asCR_implicit_le.dcm",
]


def facts(values: npt.NDArray[Any], bits: int, signed: bool = False, photometric: str = "MONOCHROME2") -> PixelModule:
    rows, cols = values.shape
    return PixelModule(rows, cols, 1, 1, 8 * values.dtype.itemsize, bits, signed, photometric)


def uniform(values: list[int], bits: int = 12, **rest: Any) -> Any:
    """to_uniform of one row of unsigned words; `tags` go into the header."""
    signed, photometric = rest.pop("signed", False), rest.pop("photometric", "MONOCHROME2")
    raw = np.array([values], np.int64).astype(rest.pop("dtype", np.uint16))
    dataset = Dataset()
    for keyword, value in rest.pop("tags", {}).items():
        setattr(dataset, keyword, value)
    samples = Samples(raw, "a codec", **{k: rest.pop(k) for k in ("lossy", "precision") if k in rest})
    return to_uniform(samples, facts(raw, bits, signed, photometric), dataset, **rest)


def lut(entries: list[int], first: int = 0, bits: int = 16, count: int | None = None) -> dict[str, Any]:
    """A header's Modality LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) if count is None else count, first, bits])
    item.add_new("LUTData", "US", entries)
    return {"ModalityLUTSequence": [item]}


def no_descriptor(entries: list[int]) -> dict[str, Any]:
    """A Modality LUT that has data and does not say what of."""
    found = lut(entries)
    del found["ModalityLUTSequence"][0].LUTDescriptor
    return found


def rederived(dataset: Dataset, raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The rules in their plainest words, from decoded words; lossy overshoot excepted, which the caller clips."""
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    values = raw.astype(np.int64)
    if signed or any(
        (group, 0x0102) in dataset and int(dataset[group, 0x0102].value) for group in range(0x6000, 0x6020, 2)
    ):
        values = values & ((1 << bits) - 1)
    if signed:
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    values = np.clip(values, -(1 << (bits - 1)) if signed else 0, (1 << (bits - signed)) - 1)
    padding = (
        values == int(dataset.PixelPaddingValue) if "PixelPaddingValue" in dataset else np.zeros(values.shape, bool)
    )
    slope = float(dataset.get("RescaleSlope") or 1)
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        data = item["LUTData"].value
        table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data)
        first = int(item.LUTDescriptor[1])
        first = first - 65536 if signed and first > 32767 else first
        out = table.astype(np.int64)[np.clip(values - first, 0, len(table) - 1)]
        bits, slope = int(table.max()).bit_length(), 1.0
    else:
        out = values + ((1 << (bits - 1)) if signed else 0)
    if (dataset.PhotometricInterpretation == "MONOCHROME1") != (slope < 0):
        out = (1 << bits) - 1 - out
    out[padding] = 0
    return out


@pytest.mark.parametrize("name", REAL)
def test_pixels_of_real_files_equal_a_plain_rederivation(real_dicom: Path, decoded: Any, name: str) -> None:
    """From pydicom's raw array; for lossy JPEG from our words, which test_decoding compares with pydicom's."""
    import pydicom
    import pydicom.uid as uids
    from pydicom.pixels import pixel_array

    ours = decoded(name)
    got = to_uniform(ours.samples, ours.facts, ours.header.dataset)
    dataset = pydicom.dcmread(real_dicom / name, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
    jpeg = dataset.file_meta.TransferSyntaxUID in (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit)
    raw = ours.raw if jpeg else pixel_array(dataset, raw=True)
    np.testing.assert_array_equal(got.pixels, rederived(dataset, raw))
    assert got.pixels.dtype == np.uint16
    assert int(got.pixels.max()) < 1 << got.bits


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [None, "1", "2.5", "-1", "-10"])
@pytest.mark.parametrize("table", ["none", "increasing", "decreasing"])
def test_polarity_is_monochrome1_xor_negative_slope_and_a_modality_lut_leaves_only_monochrome1(
    photometric: str, slope: str | None, table: str
) -> None:
    tags: dict[str, Any] = {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": "-3"}
    values, entries = [0, 1, 5, 15], list(range(16))
    if table != "none":
        entries = entries if table == "increasing" else entries[::-1]
        tags |= lut(entries)
    got = uniform(values, bits=4, photometric=photometric, tags=tags)
    negative = table == "none" and slope is not None and slope.startswith("-")
    inverted = (photometric == "MONOCHROME1") != negative
    want = [entries[v] for v in values]
    assert got.inverted == inverted
    assert got.pixels[0].tolist() == [15 - w if inverted else w for w in want]


@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY"])
def test_the_presentation_lut_shape_is_never_applied_on_top(shape: str) -> None:
    tags = {"PresentationLUTShape": shape}
    assert uniform([0, 7], bits=3, photometric="MONOCHROME1", tags=tags).pixels[0].tolist() == [7, 0]


@PROPERTY
@given(st.integers(2, 16), st.data())
def test_full_inversion_uses_the_bit_depth_and_imagemax_the_brightest_pixel(bits: int, data: Any) -> None:
    values = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=20))
    full = uniform(values, bits, photometric="MONOCHROME1").pixels[0].tolist()
    by_max = uniform(values, bits, photometric="MONOCHROME1", invert="imagemax").pixels[0].tolist()
    assert full == [(1 << bits) - 1 - v for v in values]
    assert by_max == [max(values) - v for v in values]
    assert uniform(full, bits, photometric="MONOCHROME1").pixels[0].tolist() == values


@PROPERTY
@given(
    bits=st.integers(1, 16), signed=st.booleans(), one=st.booleans(), slope=st.sampled_from(["1", "-1"]),
    padding=st.none() | st.integers(-40000, 70000), limit=st.none() | st.integers(-40000, 70000),
    words=st.lists(st.integers(0, 65535), min_size=1, max_size=30), lossy=st.booleans(),
    invert=st.sampled_from(["full", "imagemax"]),
)  # fmt: skip
def test_pixels_are_always_uint16_within_the_stated_bits(
    bits: int, signed: bool, one: bool, slope: str, padding: int | None, limit: int | None,
    words: list[int], lossy: bool, invert: Any,
) -> None:  # fmt: skip
    dataset = Dataset()
    dataset.RescaleSlope = slope
    for keyword, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
        if value is not None:
            dataset.add_new(keyword, "SL", value)
    raw = np.array([words], np.uint16)
    about = facts(raw, bits, signed, "MONOCHROME1" if one else "MONOCHROME2")
    got = to_uniform(Samples(raw, "a codec", lossy=lossy), about, dataset, invert=invert)
    assert got.pixels.dtype == np.uint16
    assert got.pixels.shape == raw.shape
    assert got.bits <= 16
    assert int(got.pixels.max()) < 1 << got.bits
    assert 0 <= got.padding <= 1
    assert got.bits == bits or got.flags == ("values_exceed_bits",)


def test_padding_is_found_before_inversion_and_is_background_after() -> None:
    got = uniform([100, 4095, 7, 100], photometric="MONOCHROME1", tags={"PixelPaddingValue": 100})
    assert got.pixels[0].tolist() == [0, 0, 4088, 0]
    assert got.padding == 0.5


@pytest.mark.parametrize(("value", "limit"), [(10, 20), (20, 10)])
def test_a_padding_range_covers_both_ends_in_either_order(value: int, limit: int) -> None:
    got = uniform([9, 10, 15, 20, 21], tags={"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit})
    assert got.pixels[0].tolist() == [9, 0, 0, 0, 21]
    assert got.padding == pytest.approx(0.6)


def test_padding_outside_bits_stored_is_background_and_no_excess() -> None:
    got = uniform([65535, 4095, 1], photometric="MONOCHROME1", tags={"PixelPaddingValue": 65535})
    assert got.pixels[0].tolist() == [0, 0, 4094]
    assert (got.bits, got.flags) == (12, ())


def test_padding_of_signed_pixels_is_read_with_their_sign() -> None:
    tags = {"PixelPaddingValue": -2000}
    got = uniform([-2000, -1, 0, 2047], signed=True, tags=tags)
    assert got.pixels[0].tolist() == [0, 2047, 2048, 4095]
    assert got.padding == 0.25


def test_an_absent_or_unmet_padding_value_pads_nothing() -> None:
    assert uniform([1, 2, 3]).padding == uniform([1, 2, 3], tags={"PixelPaddingValue": 9}).padding == 0


@PROPERTY
@given(st.integers(2, 16), st.booleans(), st.data())
def test_signed_values_are_shifted_whether_or_not_their_sign_fills_the_word(
    bits: int, extended: bool, data: Any
) -> None:
    low = -(1 << (bits - 1))
    values = data.draw(st.lists(st.integers(low, -low - 1), min_size=1, max_size=20))
    words = [v & (0xFFFF if extended else (1 << bits) - 1) for v in values]
    got = uniform(words, bits, signed=True)
    assert got.pixels[0].tolist() == [v - low for v in values]
    assert (got.bits, got.flags) == (bits, ())


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_the_high_bits_is_masked_without_a_flag(signed: bool) -> None:
    dataset = Dataset()
    dataset.add_new(0x60000102, "US", 12)
    raw = np.array([[0x1005, 0x0005, 0xF7FF]], np.uint16)
    got = to_uniform(Samples(raw, "a codec"), facts(raw, 12, signed), dataset)
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


def test_values_beyond_bits_stored_raise_the_depth_and_are_flagged_and_not_wrapped() -> None:
    got = uniform([*range(0, 3001, 100)], bits=10)
    assert got.pixels[0].tolist() == [*range(0, 3001, 100)]
    assert (got.bits, got.flags) == (12, ("values_exceed_bits",))


def test_signed_values_beyond_bits_stored_keep_their_distances() -> None:
    got = uniform([*range(-3000, 5001, 200)], bits=10, signed=True)
    assert np.diff(got.pixels[0].astype(int)).tolist() == [200] * 40
    assert got.flags == ("values_exceed_bits",)


def test_a_lossy_overshoot_is_clipped_to_bits_stored_and_flagged() -> None:
    got = uniform([0, 1030, 5, *[9] * 100], bits=10, lossy=True)
    assert got.pixels[0, :3].tolist() == [0, 1023, 5]
    assert (got.bits, got.flags) == (10, ("values_exceed_bits",))


@pytest.mark.parametrize("values", [[0, 1160, *[9] * 100], [0, 1030, 1030, *[9] * 100]])
def test_a_lossy_stream_that_exceeds_by_more_than_overshoot_keeps_its_values(values: list[int]) -> None:
    """Too far, or in too many pixels: the stream knows better than BitsStored."""
    got = uniform(values, bits=10, lossy=True, precision=12)
    assert got.pixels[0].tolist() == values
    assert (got.bits, got.flags) == (11, ("values_exceed_bits",))


def test_noise_in_unused_high_bits_is_masked_and_recorded() -> None:
    smooth = np.linspace(100, 900, 400).astype(int)
    noise = np.random.default_rng(0).integers(0, 64, 400) << 10
    got = uniform((smooth | noise).tolist(), bits=10)
    assert got.pixels[0].tolist() == smooth.tolist()
    assert (got.bits, got.flags, got.repairs) == (10, (), ("high_bits",))


def test_a_constant_in_unused_high_bits_is_masked() -> None:
    got = uniform([v | 0x8000 for v in range(0, 1000, 10)], bits=10)
    assert got.pixels[0].tolist() == [*range(0, 1000, 10)]
    assert got.repairs == ("high_bits",)


def test_noise_above_signed_values_is_masked_with_their_sign() -> None:
    smooth = np.linspace(-500, 500, 400).astype(int)
    noise = np.random.default_rng(0).integers(0, 64, 400) << 10
    got = uniform(((smooth & 1023) | noise).tolist(), bits=10, signed=True)
    assert got.pixels[0].tolist() == (smooth + 512).tolist()
    assert got.repairs == ("high_bits",)


@pytest.mark.parametrize("shift", [1, 4])
def test_high_bit_counts_only_where_the_words_are_aligned_to_it(shift: int) -> None:
    values = np.arange(0, 4000, 40)
    for words, repairs in ((values << shift, ("high_bit",)), (values, ())):
        raw = words.astype(np.uint16)[None]
        about = replace(facts(raw, 12), high_bit=11 + shift)
        got = to_uniform(Samples(raw, "native"), about, Dataset())
        assert got.pixels[0].tolist() == values.tolist()
        assert (got.bits, got.flags, got.repairs) == (12, (), repairs)


def test_a_stream_of_fewer_bits_than_bits_stored_is_inverted_at_its_own_depth() -> None:
    got = uniform([0, 100, 255], photometric="MONOCHROME1", dtype=np.uint8, precision=8)
    assert got.pixels[0].tolist() == [255, 155, 0]
    assert (got.bits, got.flags) == (8, ("stream_bits",))


def test_a_signed_stream_under_an_unsigned_header_gives_its_low_bits() -> None:
    raw = np.array([[-2048, -1, 0, 2047]], np.int16)
    got = to_uniform(Samples(raw, "a codec", precision=12, signed=True), facts(raw.view(np.uint16), 12), Dataset())
    assert got.pixels[0].tolist() == [2048, 4095, 0, 2047]
    assert (got.bits, got.flags) == (12, ("stream_sign",))


def test_a_signed_stream_that_cannot_be_read_without_loss_is_a_bad_value() -> None:
    raw = np.array([[-3000, 3000]], np.int16)
    with pytest.raises(Quarantined) as caught:
        to_uniform(Samples(raw, "a codec", precision=16, signed=True), facts(raw.view(np.uint16), 12), Dataset())
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("extended", [True, False])
def test_an_unsigned_stream_under_a_signed_header_is_read_with_the_header_s_sign(extended: bool) -> None:
    words = [v & (0xFFFF if extended else 0xFFF) for v in (-2000, -1, 0, 2000)]
    raw = np.array([words], np.uint16)
    got = to_uniform(Samples(raw, "a codec", precision=16, signed=False), facts(raw, 12, signed=True), Dataset())
    assert got.pixels[0].tolist() == [48, 2047, 2048, 4048]
    assert (got.bits, got.flags) == (12, ("stream_sign",))


def test_an_empty_modality_lut_item_is_no_lut() -> None:
    assert uniform([1, 7], tags={"ModalityLUTSequence": [Dataset()]}).pixels[0].tolist() == [1, 7]


@pytest.mark.parametrize(
    ("photometric", "tags", "conflict"),
    [
        ("MONOCHROME1", {"PresentationLUTShape": "INVERSE"}, False),
        ("MONOCHROME2", {"PresentationLUTShape": "IDENTITY"}, False),
        ("MONOCHROME1", {"PresentationLUTShape": "IDENTITY"}, True),
        ("MONOCHROME2", {"PresentationLUTShape": "INVERSE"}, True),
        ("MONOCHROME2", {"PresentationLUTShape": "anything"}, False),
        ("MONOCHROME2", {"VOILUTSequence": lut([*range(16)])["ModalityLUTSequence"]}, False),
        ("MONOCHROME2", {"VOILUTSequence": lut([*range(16)][::-1])["ModalityLUTSequence"]}, True),
        ("MONOCHROME1", {"VOILUTSequence": lut([*range(16)][::-1])["ModalityLUTSequence"]}, True),
        ("MONOCHROME2", {"VOILUTSequence": [Dataset()]}, False),
    ],
)
def test_a_header_that_displays_the_other_sense_is_flagged_and_not_followed(
    photometric: str, tags: dict[str, Any], conflict: bool
) -> None:
    got = uniform([0, 15], bits=4, photometric=photometric, tags=tags)
    assert got.flags == (("polarity_conflict",) if conflict else ())
    assert got.inverted == (photometric == "MONOCHROME1")


def test_the_real_lossy_tibia_overshoots_and_is_clipped(decoded: Any) -> None:
    ours = decoded("radiographs/fuji_tibia_RG3_JPLY.dcm")
    assert int(ours.raw.max()) > 1023
    got = to_uniform(ours.samples, ours.facts, ours.header.dataset)
    assert (got.bits, got.flags) == (10, ("values_exceed_bits",))


def test_values_outside_a_modality_lut_take_its_ends() -> None:
    got = uniform([0, 4, 5, 6, 9], tags=lut([10, 20, 30], first=4))
    assert got.pixels[0].tolist() == [10, 10, 20, 30, 30]
    assert got.bits == 12


def test_a_modality_lut_of_signed_pixels_may_begin_below_zero() -> None:
    got = uniform([-2, -1, 0, 1], signed=True, tags=lut([1, 2, 3, 4], first=65534))
    assert got.pixels[0].tolist() == [1, 2, 3, 4]


def test_a_modality_lut_of_signed_pixels_may_begin_above_zero() -> None:
    assert uniform([5, 6, 7], signed=True, tags=lut([1, 2, 3], first=5)).pixels[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "count", "entries"), [(bytes([9, 7, 5, 3]), 4, [9, 7, 5, 3]), (b"\x34\x12", 1, [0x1234] * 4)]
)
def test_entries_of_a_lut_are_bytes_only_where_there_is_no_room_for_words(
    data: bytes, count: int, entries: list[int]
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


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_slope_or_intercept_of_two_numbers_is_a_bad_value(keyword: str) -> None:
    with pytest.raises(Quarantined, match=f"{keyword} is not one number") as caught:
        uniform([1], tags={keyword: [1, 2]})
    assert caught.value.reason == "bad_value"


def test_a_modality_lut_count_of_zero_stands_for_65536_entries() -> None:
    entries = np.arange(65536)[::-1]
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    got = uniform([0, 65535, 1], bits=16, tags={"ModalityLUTSequence": [item]})
    assert got.pixels[0].tolist() == [65535, 0, 65534]


@pytest.mark.parametrize(
    "tags", [lut([1, 2], count=3), lut([1, 2], bits=17), lut([1, 2], bits=0), no_descriptor([1, 2])]
)
def test_a_modality_lut_that_cannot_be_read_is_a_bad_value(tags: dict[str, Any]) -> None:
    with pytest.raises(Quarantined) as caught:
        uniform([1], tags=tags)
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("slope", ["0", "inf", "nan"])
def test_a_slope_of_zero_or_none_finite_is_a_bad_value(slope: str) -> None:
    dataset = Dataset()
    dataset.add_new("RescaleSlope", "FD", float(slope))
    with pytest.raises(Quarantined) as caught:
        to_uniform(Samples(np.zeros((1, 1), np.uint16), "a codec"), facts(np.zeros((1, 1), np.uint16), 12), dataset)
    assert caught.value.reason == "bad_value"


def test_the_source_array_is_left_as_it_was() -> None:
    raw = np.arange(16, dtype=np.uint16).reshape(4, 4)
    raw.flags.writeable = False
    got = to_uniform(Samples(raw, "a codec"), facts(raw, 4, photometric="MONOCHROME1"), Dataset())
    assert got.pixels.flags.writeable
    assert raw[0, 0] == 0
