"""Decoding: stored values are those pydicom gives, repairs change nothing else, and the decoder is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import pixel_array

from shardkit.sources.dicom import decoding, streams
from shardkit.synthetic import lossless_jpeg, records
from shardkit.synthetic.defects import file_bytes

REAL = {
    "nasty/deflated_8bit.dcm": "native",
    "nasty/j2k_sign_mismatch_13bit.dcm": "jpeg2k_decode",
    "nasty/modality_lut_signed.dcm": "native",
    "nasty/overlay_in_high_bits.dcm": "native",
    "nasty/signed_16bit.dcm": "native",
    "nasty/signed_9bit.dcm": "native",
    "nasty/voi_lut_sequence.dcm": "native",
    "radiographs/angio_XA1_J2KR.dcm": "jpeg2k_decode",
    "radiographs/colon_contrast_OT_nometa.dcm": "native",
    "radiographs/dental_panoramic_modalityLUT_M1.dcm": "jpeg8_decode",
    "radiographs/fluoro_RF_modalityLUT.dcm": "native",
    "radiographs/fuji_chest_10bit_M1_nopreamble": "native",
    "radiographs/fuji_hip_RG2_J2KI.dcm": "jpeg2k_decode",
    "radiographs/fuji_hip_RG2_J2KR.dcm": "jpeg2k_decode",
    "radiographs/fuji_hip_RG2_JLSN.dcm": "jpegls_decode",
    "radiographs/fuji_hip_RG2_JPLL.dcm": "jpeg8_decode",
    "radiographs/fuji_hip_RG2_JPLY_badSOS.dcm": "jpeg8_decode",
    "radiographs/fuji_hip_RG2_JPLY_fixedSOS.dcm": "jpeg8_decode",
    "radiographs/fuji_tibia_RG3_J2KI.dcm": "jpeg2k_decode",
    "radiographs/fuji_tibia_RG3_J2KR.dcm": "jpeg2k_decode",
    "radiographs/fuji_tibia_RG3_JLSL.dcm": "jpegls_decode",
    "radiographs/fuji_tibia_RG3_JLSN.dcm": "jpegls_decode",
    "radiographs/fuji_tibia_RG3_JPLY.dcm": "jpeg8_decode",
    "radiographs/fuji_tibia_RG3_RLE.dcm": "pylibjpeg",
    "radiographs/kodak_hand_2500x2048_J2K_sot.dcm": "jpeg2k_decode",
    "radiographs/konica_chest_8bit_M1_jpeg_2446x2010.dcm": "decode_jpeg",
    "radiographs/mammo_MG1_4664x3064_J2KI.dcm": "jpeg2k_decode",
    "radiographs/mammo_tomo_crop_overlay_oob.dcm": "jpeg8_decode",
    "radiographs/nih_chest_8bit_jpeg_M2.dcm": "decode_jpeg",
    "radiographs/nih_chest_8bit_jpeg_fakeM1.dcm": "decode_jpeg",
    "radiographs/nih_chest_8bit_native.dcm": "native",
    "radiographs/smpte_CR_16bit_signed.dcm": "native",
    "radiographs/vet_dog_thorax_DX_M1.dcm": "native",
    "syntaxes/XA1asCR_deflated.dcm": "native",
    "syntaxes/XA1asCR_explicit_be.dcm": "native",
    "syntaxes/XA1asCR_explicit_le.dcm": "native",
    "syntaxes/XA1asCR_implicit_le.dcm": "native",
}
JPEG = (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit)


def stored(raw: npt.NDArray[Any], bits: int, signed: bool) -> npt.NDArray[np.int64]:
    """The low `bits` bits of each word, sign-extended where signed."""
    values = raw.astype(np.int64) & ((1 << bits) - 1)
    return np.where(values >> (bits - 1) & 1, values - (1 << bits), values) if signed else values


def pydicom_raw(path: Path) -> tuple[pydicom.Dataset, npt.NDArray[Any]]:
    """pydicom's raw array, after the published repairs where it needs them."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = (
            uids.ImplicitVRLittleEndian if dataset.original_encoding[0] else uids.ExplicitVRLittleEndian
        )
    if dataset.file_meta.TransferSyntaxUID == uids.JPEGExtended12Bit:
        dataset.PixelData = encapsulate([mended(frame_of(dataset))])
    return dataset, pixel_array(dataset, raw=True)


def frame_of(dataset: pydicom.Dataset) -> bytes:
    return bytes(next(generate_frames(dataset.PixelData, number_of_frames=1)))


def mended(stream: bytes) -> bytes:
    """A sequential JPEG with its end of spectral selection set to 63."""
    at = stream.index(b"\xff\xda\x00\x08\x01") + 8
    return stream[:at] + b"\x3f" + stream[at + 1 :]


def with_stream(dataset: pydicom.Dataset, stream: bytes) -> bytes:
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize("name", REAL)
def test_stored_values_equal_pydicoms_and_lossy_jpeg_within_one_level(
    real_dicom: Path, decoded: Any, name: str
) -> None:
    """Lossy JPEG is the one exception: decoders differ by one grey level, so +-1 is allowed there and only there."""
    ours = decoded(name)
    dataset, raw = pydicom_raw(real_dicom / name)
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    if dataset.file_meta.TransferSyntaxUID in JPEG:
        # Modulo the range: pydicom's decoder wraps an overshoot beyond BitsStored, ours hands it on to be clipped.
        assert set(np.unique((ours.raw.astype(int) - raw.astype(int)) % (1 << bits))) <= {0, 1, (1 << bits) - 1}
    else:
        np.testing.assert_array_equal(stored(ours.raw, bits, signed), stored(raw, bits, signed))


@pytest.mark.parametrize("name", REAL)
def test_the_decoder_is_recorded_with_its_version(decoded: Any, name: str) -> None:
    decoder = decoded(name).samples.decoder
    assert decoder.endswith(REAL[name])
    if decoder != "native":
        library, version, _ = decoder.split()
        assert library in ("imagecodecs", "pydicom", "simplejpeg")
        assert version[0].isdigit()


def test_a_zero_end_of_spectral_selection_is_repaired_bit_identically(decoded: Any) -> None:
    bad, fixed = (decoded(f"radiographs/fuji_hip_RG2_JPLY_{kind}.dcm") for kind in ("badSOS", "fixedSOS"))
    assert (bad.repairs, fixed.repairs) == (("jpeg_sos",), ())
    np.testing.assert_array_equal(bad.raw, fixed.raw)


def test_a_comment_before_the_end_of_codestream_is_cut_bit_identically(judge: Any, image_spec: Any) -> None:
    spec = image_spec(syntax=str(uids.JPEG2000Lossless))
    sound, padded = (
        judge(records.sound_bytes(spec)),
        judge(file_bytes(image_spec(syntax=spec.syntax, defect="padded_j2k"))),
    )
    assert (padded.reason, padded.converted.repairs) == ("ok_repaired", ("j2k_com",))
    assert padded.converted.facts["pixel_hash"] == sound.converted.facts["pixel_hash"]
    dataset = pydicom.dcmread(io.BytesIO(file_bytes(image_spec(syntax=spec.syntax, defect="padded_j2k"))))
    original = frame_of(pydicom.dcmread(io.BytesIO(records.sound_bytes(spec)))).rstrip(b"\0")
    assert decoding.repair_j2k_com(frame_of(dataset)) == original


def test_a_sound_stream_needs_no_repair(real_dicom: Path) -> None:
    lossless = frame_of(pydicom.dcmread(real_dicom / "radiographs/fuji_hip_RG2_JPLL.dcm"))
    baseline = frame_of(pydicom.dcmread(real_dicom / "radiographs/nih_chest_8bit_jpeg_M2.dcm"))
    for stream in (lossless, baseline):  # a lossless scan's Se is rightly 0
        assert decoding.repair_jpeg_sos(stream, streams.jpeg(stream)) == (stream, ())


@pytest.mark.parametrize("syntax", [uids.JPEGLSLossless, uids.JPEG2000Lossless, uids.JPEGLosslessSV1])
def test_a_stream_of_another_size_than_the_header_is_a_dimension_mismatch(
    judge: Any, image_spec: Any, syntax: uids.UID
) -> None:
    outcome = judge(file_bytes(image_spec(syntax=str(syntax), defect="other_dimensions")))
    assert (outcome.verdict, outcome.reason) == ("quarantined", "dimension_mismatch")


def test_a_transposed_stream_is_a_dimension_mismatch(judge: Any, image_spec: Any) -> None:
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec(syntax=str(uids.JPEGLSLossless)))))
    dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows
    assert judge(with_stream(dataset, frame_of(dataset))).reason == "dimension_mismatch"


def test_a_stream_that_does_not_begin_as_its_syntax_demands_is_a_decode_error(judge: Any, image_spec: Any) -> None:
    outcome = judge(file_bytes(image_spec(syntax=str(uids.JPEGLosslessSV1), defect="broken_jpeg")))
    assert (outcome.verdict, outcome.reason) == ("quarantined", "decode_error")


@pytest.mark.parametrize("fragments", [1, 2, 7])
def test_fragments_of_one_frame_are_joined(judge: Any, image_spec: Any, fragments: int) -> None:
    data = records.sound_bytes(image_spec(syntax=str(uids.JPEGLSLossless)))
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PixelData = encapsulate([frame_of(dataset)], fragments_per_frame=fragments)
    dataset["PixelData"].is_undefined_length = True
    assert judge(records.to_bytes(dataset)).converted.facts["pixel_hash"] == judge(data).converted.facts["pixel_hash"]


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize(
    "name",
    [
        "nih_chest_8bit_jpeg_M2",
        "fuji_hip_RG2_JPLY_fixedSOS",
        "fuji_hip_RG2_JPLL",
        "fuji_tibia_RG3_JLSL",
        "fuji_tibia_RG3_J2KR",
        "fuji_tibia_RG3_J2KI",
        "fuji_tibia_RG3_RLE",
    ],
)
def test_a_well_framed_but_incomplete_stream_is_never_written(
    real_dicom: Path, judge: Any, name: str, share: float
) -> None:
    dataset = pydicom.dcmread(real_dicom / f"radiographs/{name}.dcm")
    stream = frame_of(dataset)
    outcome = judge(with_stream(dataset, stream[: int(len(stream) * share) // 2 * 2]))
    assert (outcome.verdict, outcome.reason) == ("quarantined", "decode_error")


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_an_incomplete_htj2k_stream_is_a_decode_error(judge: Any, image_spec: Any, share: float) -> None:
    spec = image_spec()
    dataset = records.header(spec)
    records.set_meta(dataset, str(uids.HTJ2KLossless))
    stream = bytes(imagecodecs.htj2k_encode(records.radiograph_of(spec), reversible=True))
    records.set_stream(dataset, stream)
    assert judge(records.to_bytes(dataset)).verdict == "written"
    records.set_stream(dataset, stream[: int(len(stream) * share) // 2 * 2])
    assert judge(records.to_bytes(dataset)).reason == "decode_error"


@pytest.mark.parametrize(("name", "after"), [("fuji_hip_RG2_JPLL", 6), ("nih_chest_8bit_jpeg_M2", 4)])
def test_a_jpeg_that_ends_inside_its_scan_header_is_a_decode_error(
    real_dicom: Path, judge: Any, name: str, after: int
) -> None:
    dataset = pydicom.dcmread(real_dicom / f"radiographs/{name}.dcm")
    stream = frame_of(dataset)
    outcome = judge(with_stream(dataset, stream[: stream.index(b"\xff\xda") + after]))
    assert outcome.reason == "decode_error"


@pytest.mark.parametrize(
    "vr",
    [
        "OB",
        "OW",
    ],
)  # fmt: skip
def test_big_endian_8_bit_pixels_equal_pydicoms_for_both_representations(judge: Any, image_spec: Any, vr: str) -> None:
    spec = image_spec(bits=8, height=97, width=81, syntax=str(uids.ExplicitVRBigEndian))
    picture = records.radiograph_of(spec).astype(np.uint8)
    picture[-1, -1] = 77
    dataset = records.header(spec)
    records.set_meta(dataset, spec.syntax)
    padded = np.frombuffer(picture.tobytes() + b"\0", "u2")
    dataset.PixelData = (padded.byteswap() if vr == "OW" else padded).tobytes()
    dataset["PixelData"].VR = vr
    data = records.to_bytes(dataset)
    np.testing.assert_array_equal(pixel_array(pydicom.dcmread(io.BytesIO(data)), raw=True), picture)
    plain = judge(records.sound_bytes(image_spec(bits=8, height=97, width=81)))
    outcome = judge(data)
    assert outcome.verdict == plain.verdict == "written"
    stream = io.BytesIO(outcome.converted.encoded.image)
    np.testing.assert_array_equal(np.load(stream), picture)


def with_codestream(image_spec: Any, syntax: str, stream: bytes, bits: int = 12) -> bytes:
    spec = image_spec(bits=bits)
    dataset = records.header(spec)
    records.set_meta(dataset, syntax)
    records.set_stream(dataset, stream)
    return records.to_bytes(dataset)


def damaged(stream: bytes, start: int, rng: np.random.Generator) -> dict[str, bytes]:
    at = int(rng.integers(start, len(stream) - 60))
    return {
        "hole": stream[:at] + bytes(40) + stream[at + 40 :],
        "cut, then closed": stream[:at] + b"\xff\xd9",
        "bytes lost": stream[:at] + stream[at + 5 :],
    }


def hand(image_spec: Any, bits: int) -> Any:
    return records.radiograph_of(image_spec(bits=bits))


DAMAGEABLE: dict[str, tuple[str, int, Any]] = {
    "baseline": (uids.JPEGBaseline8Bit, 8, lambda p: imagecodecs.jpeg8_encode(p.astype(np.uint8), level=90)),
    "extended": (uids.JPEGExtended12Bit, 12, lambda p: imagecodecs.jpeg8_encode(p, level=90, bitspersample=12)),
    "lossless": (uids.JPEGLosslessSV1, 12, lambda p: lossless_jpeg.encode(p, 12)),
    "jpeg-ls": (uids.JPEGLSLossless, 12, imagecodecs.jpegls_encode),
    "near-lossless": (uids.JPEGLSNearLossless, 12, lambda p: imagecodecs.jpegls_encode(p, level=2)),
    "htj2k": (uids.HTJ2KLossless, 12, lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
}


@pytest.mark.parametrize("kind", DAMAGEABLE)
def test_damaged_coded_data_are_a_decode_error_and_never_a_drop(judge: Any, image_spec: Any, kind: str) -> None:
    """Of the formats whose coded data have some redundancy; JPEG 2000's and run lengths have none.

    A hole in DCT blocks may decode to as many blocks, alike in all decoders: only what is missing is surely noticed.
    """
    syntax, bits, encode = DAMAGEABLE[kind]
    stream = bytes(encode(hand(image_spec, bits)))
    assert judge(with_codestream(image_spec, syntax, stream, bits)).verdict == "written"
    start = 120 if "htj2k" in kind else streams.jpeg(stream).scans[0].start
    silent = []
    for seed in range(12):
        for name, data in damaged(stream, start, np.random.default_rng(seed)).items():
            outcome = judge(with_codestream(image_spec, syntax, data, bits))
            if outcome.reason != "decode_error" and (name.startswith("cut") or kind not in ("baseline", "extended")):
                silent.append((seed, name, outcome.reason, outcome.converted and outcome.converted.repairs))
    assert len(silent) <= 1, silent


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_overshoot_of_irreversible_htj2k_is_clamped_and_not_wrapped(judge: Any, image_spec: Any, bits: int) -> None:
    picture = hand(image_spec, bits).copy()
    picture[20:40, 20:40], picture[40:60, 20:40] = (1 << bits) - 1, 0
    samples = picture.astype(np.uint8 if bits == 8 else np.uint16)
    stream = bytes(imagecodecs.htj2k_encode(samples, reversible=False))
    outcome = judge(with_codestream(image_spec, uids.HTJ2K, stream, bits))
    assert outcome.verdict == "written", outcome.message
    got = np.load(io.BytesIO(outcome.converted.encoded.image)).astype(int)
    assert np.abs(got - picture).max() <= 0.05 * (1 << bits)


@pytest.mark.parametrize(
    ("code", "named"), [(0xC9, "arithmetic coding"), (0xC5, "hierarchical"), (0xCB, "arithmetic coding")]
)
def test_a_jpeg_process_without_a_decoder_is_named_with_a_remedy(
    judge: Any, image_spec: Any, code: int, named: str
) -> None:
    stream = bytearray(imagecodecs.jpeg8_encode(hand(image_spec, 8).astype(np.uint8), level=90))
    stream[stream.index(b"\xff\xc0") + 1] = code
    outcome = judge(with_codestream(image_spec, uids.JPEGBaseline8Bit, bytes(stream), 8))
    assert outcome.reason == "decode_error"
    assert named in outcome.message
    assert "build again" in outcome.message


def test_the_stream_and_not_the_transfer_syntax_says_which_process_it_is(judge: Any, image_spec: Any) -> None:
    """A lossless stream under the syntax of baseline JPEG, and HTJ2K under that of JPEG 2000."""
    picture = hand(image_spec, 12)
    streams_of = (
        (uids.JPEGBaseline8Bit, lossless_jpeg.encode(picture, 12)),
        (uids.JPEG2000Lossless, bytes(imagecodecs.htj2k_encode(picture, reversible=True))),
    )
    for syntax, stream in streams_of:
        outcome = judge(with_codestream(image_spec, syntax, stream))
        np.testing.assert_array_equal(np.load(io.BytesIO(outcome.converted.encoded.image)), picture)
        assert outcome.converted.facts["lossy"] is False
        assert outcome.converted.repairs == ("wrong_ts",)
