"""Grey values: one sense, one background, unsigned, in range, equal to a re-derivation from pydicom's array."""

from __future__ import annotations

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
from shardkit.sources.dicom.grayscale import to_uniform

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
    from pydicom.pixels.utils import pixel_array

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


@PROPERTY
@given(
    bits=st.integers(1, 16), signed=st.booleans(), one=st.booleans(), slope=st.sampled_from(["1", "-1"]),
    padding=st.none() | st.integers(-40000, 70000), limit=st.none() | st.integers(-40000, 70000),
    words=st.lists(st.integers(0, 65535), min_size=1, max_size=30), lossy=st.booleans(),
    invert=st.sampled_from(["full", "imagemax"]),
)  # fmt: skip
def test_pixels_are_always_uint16_within_the_stated_bits(
    pixel_module: Any, bits: int, signed: bool, one: bool, slope: str, padding: int | None, limit: int | None,
    words: list[int], lossy: bool, invert: Any,
) -> None:  # fmt: skip
    dataset = Dataset()
    dataset.RescaleSlope = slope
    for keyword, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
        if value is not None:
            dataset.add_new(keyword, "SL", value)
    raw = np.array([words], np.uint16)
    about = pixel_module(raw, bits, signed, "MONOCHROME1" if one else "MONOCHROME2")
    got = to_uniform(Samples(raw, "a codec", lossy=lossy), about, dataset, invert=invert)
    assert got.pixels.dtype == np.uint16
    assert got.pixels.shape == raw.shape
    assert got.bits <= 16
    assert int(got.pixels.max()) < 1 << got.bits
    assert 0 <= got.padding <= 1
    assert got.bits == bits or got.flags == ("values_exceed_bits",)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_slope_or_intercept_of_two_numbers_is_a_bad_value(uniform: Any, keyword: str) -> None:
    with pytest.raises(Quarantined, match=f"{keyword} is not one number") as caught:
        uniform([1], tags={keyword: [1, 2]})
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("slope", ["0", "inf", "nan"])
def test_a_slope_of_zero_or_none_finite_is_a_bad_value(pixel_module: Any, slope: str) -> None:
    dataset = Dataset()
    dataset.add_new("RescaleSlope", "FD", float(slope))
    raw = np.zeros((1, 1), np.uint16)
    with pytest.raises(Quarantined) as caught:
        to_uniform(Samples(raw, "a codec"), pixel_module(raw, 12), dataset)
    assert caught.value.reason == "bad_value"


def test_the_source_array_is_left_as_it_was(pixel_module: Any) -> None:
    raw = np.arange(16, dtype=np.uint16).reshape(4, 4)
    raw.flags.writeable = False
    got = to_uniform(Samples(raw, "a codec"), pixel_module(raw, 4, photometric="MONOCHROME1"), Dataset())
    assert got.pixels.flags.writeable
    assert raw[0, 0] == 0
