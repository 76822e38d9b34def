"""Reading: every file gets one verdict with a known reason, whatever its bytes; claims allocate nothing."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from shardkit.build.conversion import convert_file
from shardkit.build.isolation import IsolatedPool, result
from shardkit.build.scan import scan_entry
from shardkit.config import BuildConfig, Rules
from shardkit.errors import Quarantined
from shardkit.sources import image_source
from shardkit.sources.entries import Entry
from shardkit.synthetic import corruptions, records
from shardkit.synthetic.defects import file_bytes
from shardkit.triage import DROPS, QUARANTINES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # they quote what is wrong on purpose

FUZZ = settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)

HOSTILE = {
    "dicomdir_tree/77654033/CR1/6154": ("dropped", "too_small"),
    "dicomdir_tree/77654033/CR2/6247": ("dropped", "too_small"),
    "dicomdir_tree/77654033/CR3/6278": ("dropped", "too_small"),
    "dicomdir_tree/DICOMDIR": ("dropped", "not_an_image"),
    "nasty/bad_vr_frames_1A.dcm": ("quarantined", "bad_value"),
    "nasty/deeply_nested_sequence.dcm": ("quarantined", "parse_error"),
    "nasty/deflated_8bit.dcm": ("dropped", "modality_excluded"),
    "nasty/deflated_frame_ts.dcm": ("dropped", "not_an_image"),
    "nasty/float_pixel_data.dcm": ("dropped", "not_integer_pixels"),
    "nasty/invalid_compression.dcm": ("quarantined", "decode_error"),
    "nasty/j2k_embedded_delimiter.dcm": ("dropped", "modality_excluded"),
    "nasty/j2k_sign_mismatch_13bit.dcm": ("dropped", "modality_excluded"),
    "nasty/jpeg_process_6_8.dcm": ("quarantined", "unsupported_transfer_syntax"),
    "nasty/meta_missing_tsyntax.dcm": ("quarantined", "missing_required_tag"),
    "nasty/modality_lut_signed.dcm": ("dropped", "modality_excluded"),
    "nasty/mr_truncated_native.dcm": ("quarantined", "truncated"),
    "nasty/multivalued_rows.dcm": ("quarantined", "bad_value"),
    "nasty/nested_priv_SQ.dcm": ("quarantined", "missing_required_tag"),
    "nasty/no_meta.dcm": ("quarantined", "not_dicom"),  # a stray byte stands before its first element
    "nasty/no_pixeldata_CR.dcm": ("dropped", "no_pixel_data"),
    "nasty/no_pixeldata_CR_japanese.dcm": ("dropped", "no_pixel_data"),
    "nasty/no_rows.dcm": ("quarantined", "missing_required_tag"),
    "nasty/oob_65535x65535_256bytes.dcm": ("quarantined", "size_mismatch"),
    "nasty/overlay_in_high_bits.dcm": ("dropped", "modality_excluded"),
    "nasty/palette_color.dcm": ("dropped", "not_grayscale"),
    "nasty/readme_named.dcm": ("quarantined", "not_dicom"),
    "nasty/rgb_3x3.dcm": ("dropped", "not_grayscale"),
    "nasty/signed_16bit.dcm": ("dropped", "modality_excluded"),
    "nasty/signed_9bit.dcm": ("dropped", "modality_excluded"),
    "nasty/sr_report.dcm": ("dropped", "not_an_image"),
    "nasty/voi_lut_sequence.dcm": ("dropped", "modality_excluded"),
    "nasty/ybr_jpeg.dcm": ("dropped", "not_grayscale"),
    "nasty/zero_bytes.dcm": ("quarantined", "empty_file"),
    "radiographs/angio_XA1_J2KR.dcm": ("dropped", "modality_excluded"),
    "radiographs/angio_XA_12frames_jpll.dcm": ("dropped", "multiframe"),
    "radiographs/colon_contrast_OT_nometa.dcm": ("dropped", "modality_excluded"),
    "radiographs/fluoro_RF_modalityLUT.dcm": ("dropped", "modality_excluded"),
    "radiographs/mammo_MG1_4664x3064_J2KI.dcm": ("dropped", "too_large"),
    "radiographs/smpte_CR_8bit_rgb_sameuid.dcm": ("dropped", "not_grayscale"),
    "radiographs/tomosynthesis_4frames_J2K.dcm": ("dropped", "multiframe"),
}


def known(outcome: Any) -> bool:
    """Whether a verdict of the three with a reason from the tables."""
    reasons = {"written": ("ok", "ok_repaired"), "dropped": DROPS, "quarantined": QUARANTINES}
    return outcome.reason in reasons[outcome.verdict]


def saved(dataset: pydicom.Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_header_of_each_hostile_real_file_gets_its_verdict(real_dicom: Path, name: str) -> None:
    entry = Entry(name.encode(), (real_dicom / name).stat().st_size, "file")
    scanned = scan_entry(image_source(str(real_dicom)), entry, Rules())
    assert (scanned.verdict, scanned.reason) == HOSTILE[name]


def test_every_other_real_file_passes_the_scan_by_default(real_dicom: Path) -> None:
    seen = 0
    for path in real_dicom.rglob("*"):
        name = path.relative_to(real_dicom).as_posix()
        if path.is_file() and name not in {*HOSTILE, "README.md", "manifest.csv"}:
            entry = Entry(name.encode(), path.stat().st_size, "file")
            assert scan_entry(image_source(str(real_dicom)), entry, Rules()).verdict is None, name
            seen += 1
    assert seen + len(HOSTILE) == 66


def test_a_broken_encapsulation_is_quarantined_once_its_modality_is_asked_for(
    real_dicom: Path, judge: Callable[..., Any]
) -> None:
    outcome = judge((real_dicom / "nasty/j2k_embedded_delimiter.dcm").read_bytes())
    assert (outcome.verdict, outcome.reason) == ("quarantined", "decode_error")


@pytest.mark.parametrize("missing", [1, 2, 62, 1000])
def test_native_pixels_cut_short_are_truncated(judge: Any, image_spec: Any, missing: int) -> None:
    outcome = judge(records.sound_bytes(image_spec())[:-missing])
    assert (outcome.verdict, outcome.reason) == ("quarantined", "truncated")


@pytest.mark.parametrize("missing", [9, 40, 2000])
def test_a_fragment_cut_short_is_truncated(judge: Any, image_spec: Any, missing: int) -> None:
    outcome = judge(records.sound_bytes(image_spec(syntax=str(uids.JPEGLSLossless)))[:-missing])
    assert (outcome.verdict, outcome.reason) == ("quarantined", "truncated")


def test_a_missing_sequence_delimiter_after_whole_fragments_is_tolerated(judge: Any, image_spec: Any) -> None:
    data = records.sound_bytes(image_spec(syntax=str(uids.JPEGLSLossless)))
    assert data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    whole, cut = judge(data), judge(data[:-8])
    assert cut.verdict == "written"
    assert cut.converted.facts["pixel_hash"] == whole.converted.facts["pixel_hash"]


def test_no_cut_inside_the_header_passes_as_a_file_without_pixels(judge: Any, image_spec: Any) -> None:
    data = records.sound_bytes(image_spec())
    dataset = pydicom.dcmread(io.BytesIO(data))
    family = data.index(b"MTRADORN^IRMGARD")
    assert dataset.OperatorsName == "MTRADORN^IRMGARD"
    for cut in (family + 3, data.index(b"pain after fall") + 5, data.index(b"PID48210770001", family) + 4):
        assert judge(data[:cut]).verdict == "quarantined"


@pytest.mark.parametrize(
    "syntax",
    [
        uids.ImplicitVRLittleEndian,
        uids.DeflatedExplicitVRLittleEndian,
        uids.ExplicitVRBigEndian,
        uids.RLELossless,
        uids.JPEGLosslessSV1,
        uids.JPEGLSLossless,
        uids.JPEG2000Lossless,
    ],
)
def test_every_lossless_syntax_gives_the_pixels_of_explicit_little_endian(
    judge: Any, image_spec: Any, syntax: uids.UID
) -> None:
    plain = judge(records.sound_bytes(image_spec())).converted.facts["pixel_hash"]
    if syntax == uids.ExplicitVRBigEndian:
        dataset = records.header(image_spec())
        records.set_meta(dataset, syntax)
        dataset.PixelData = records.radiograph_of(image_spec()).astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        data = records.to_bytes(dataset)
    else:
        data = records.sound_bytes(image_spec(syntax=str(syntax)))
    outcome = judge(data)
    assert outcome.verdict == "written"
    assert outcome.converted.facts["transfer_syntax"] == syntax
    assert outcome.converted.facts["pixel_hash"] == plain


@pytest.mark.parametrize(
    ("first", "second"),
    [("XA1asCR_explicit_le", f"XA1asCR_{n}") for n in ("implicit_le", "deflated", "explicit_be")],
)  # fmt: skip
def test_real_native_syntaxes_of_one_image_agree(decoded: Any, first: str, second: str) -> None:
    a, b = (decoded(f"syntaxes/{name}.dcm").raw for name in (first, second))
    assert b.dtype.isnative
    np.testing.assert_array_equal(a, b)


def test_a_file_without_preamble_and_meta_is_read_and_the_repair_recorded(judge: Any, image_spec: Any) -> None:
    whole = judge(records.sound_bytes(image_spec()))
    bare = judge(file_bytes(image_spec(defect="no_meta")))
    assert (bare.verdict, bare.reason, bare.converted.repairs) == ("written", "ok_repaired", ("assumed_ts",))
    assert bare.converted.facts["pixel_hash"] == whole.converted.facts["pixel_hash"]


def test_bytes_after_the_frame_are_ignored_and_recorded(judge: Any, image_spec: Any) -> None:
    spec = image_spec()
    dataset = records.header(spec)
    records.set_meta(dataset, spec.syntax)
    frame = records.radiograph_of(spec).tobytes()
    dataset.PixelData = frame + b"\x55" * 10
    dataset["PixelData"].VR = "OW"
    outcome = judge(records.to_bytes(dataset))
    assert (outcome.reason, outcome.converted.repairs) == ("ok_repaired", ("trailing_bytes",))
    sound = judge(records.sound_bytes(spec))
    assert outcome.converted.facts["pixel_hash"] == sound.converted.facts["pixel_hash"]


def test_a_pad_byte_and_later_elements_are_no_repair(judge: Any, image_spec: Any) -> None:
    data = records.sound_bytes(image_spec(height=97, width=81, bits=8))
    padding = b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0"
    outcome = judge(data + padding)
    assert (outcome.reason, outcome.converted.repairs) == ("ok", ())


@pytest.mark.parametrize("bits", [8, 12])
def test_an_unexpected_encapsulation_or_its_lack_is_a_size_mismatch(judge: Any, image_spec: Any, bits: int) -> None:
    native = records.sound_bytes(image_spec(bits=bits))
    wrapped = records.sound_bytes(image_spec(bits=bits, syntax=str(uids.RLELossless)))
    explicit, rle = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"  # equally long
    assert judge(native.replace(explicit, rle)).reason == "size_mismatch"
    assert judge(wrapped.replace(rle, explicit)).reason == "size_mismatch"


def test_a_zip_archive_is_named_as_such(judge: Any, image_spec: Any) -> None:
    outcome = judge(file_bytes(image_spec(defect="zip")))
    assert (outcome.verdict, outcome.reason) == ("quarantined", "not_dicom")
    assert "zip" in outcome.message


@pytest.mark.parametrize("name", ["huge_claim", "real"])
def test_a_claim_of_65535_by_65535_allocates_nothing(
    judge: Any, image_spec: Any, request: pytest.FixtureRequest, name: str
) -> None:
    if name == "real":
        data = (request.getfixturevalue("real_dicom") / "nasty/oob_65535x65535_256bytes.dcm").read_bytes()
    else:
        data = file_bytes(image_spec(defect="huge_claim"))
    judge(data)
    tracemalloc.start()
    try:
        outcome = judge(data, Rules(modalities=("CR",), max_side=1 << 16))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert (outcome.verdict, outcome.reason) == ("quarantined", "size_mismatch")


def test_a_compressed_frame_far_smaller_than_claimed_allocates_little(judge: Any, image_spec: Any) -> None:
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec(syntax=str(uids.RLELossless)))))
    dataset.Rows = dataset.Columns = 20000
    dataset.PixelData = encapsulate([b"\1\0\0\0\x40\0\0\0" + bytes(64)])
    data = saved(dataset)
    tracemalloc.start()
    try:
        assert judge(data, Rules(oversize="halve")).verdict == "quarantined"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@FUZZ
@given(data=st.binary(max_size=2000), dicm=st.booleans())
def test_random_bytes_always_get_a_verdict_with_a_known_reason(judge: Any, data: bytes, dicm: bool) -> None:
    outcome = judge(bytes(128) + b"DICM" + data if dicm else data)
    assert known(outcome), outcome
    assert outcome.verdict == "quarantined" or dicm


@FUZZ
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    in_header=st.booleans(),
    cut=st.none() | st.floats(0, 1),
)
def test_a_mutated_real_file_always_gets_a_verdict_with_a_known_reason(
    judge: Any, real_dicom: Path, edits: list[tuple[float, int]], in_header: bool, cut: float | None
) -> None:
    data = bytearray((real_dicom / "radiographs/vet_dog_thorax_DX_M1.dcm").read_bytes())
    for at, value in edits:
        data[int(at * (2400 if in_header else len(data)))] = value
    outcome = judge(bytes(data if cut is None else data[: int(cut * len(data))]))
    assert known(outcome), outcome


def test_damaged_compressed_streams_get_a_verdict_whatever_the_decoder_does(tmp_path: Path, image_spec: Any) -> None:
    rng, shape = np.random.default_rng(0), (96, 80)
    spec = BuildConfig.of(str(tmp_path), "", tmp_path, codec="raw").conversion
    syntaxes = (
        uids.RLELossless, uids.JPEGLosslessSV1, uids.JPEGLSLossless, uids.JPEG2000Lossless, uids.JPEGExtended12Bit
    )  # fmt: skip
    children, waiting, deaths = IsolatedPool(1), [], list[str]()
    try:
        for syntax in syntaxes:
            data = records.sound_bytes(image_spec(syntax=str(syntax)))
            start = data.rindex(b"\xe0\x7f\x10\x00") + 28
            for k in range(12):
                damaged = bytearray(data)
                for at in rng.integers(start, len(data) if k % 2 else start + 100, 1 + k // 3):
                    damaged[at] = rng.integers(256)
                name = f"{syntax}-{k}".encode()
                (tmp_path / name.decode()).write_bytes(damaged)
                waiting.append(children.submit(convert_file, spec, Entry(name, len(data), "file"), shape, timeout=20))
        for future in waiting:
            try:
                assert known(result(future, 20))
            except Quarantined as verdict:
                deaths.append(verdict.reason)
    finally:
        children.close()
    assert set(deaths) <= {"decode_timeout", "decoder_crash", "memory_limit"}


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("trailing", [0, 12])
@pytest.mark.parametrize(
    ("is_really", "declared"),
    [
        (uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian),
        (uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian),
    ],
)
def test_the_encoding_that_the_data_set_has_counts_and_not_the_one_declared(
    judge: Callable[..., Any], image_spec: Any, is_really: str, declared: str, bits: int, trailing: int
) -> None:
    spec = image_spec(bits=bits, syntax=str(is_really))
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(spec)))
    dataset.PixelData = dataset.PixelData + bytes(trailing)
    data = corruptions.declare(records.to_bytes(dataset), str(declared))
    outcome, plain = judge(data), judge(records.sound_bytes(image_spec(bits=bits)))
    assert outcome.verdict == "written", outcome.message
    assert outcome.converted.repairs == (("wrong_ts", "trailing_bytes") if trailing else ("wrong_ts",))
    assert outcome.converted.facts["pixel_hash"] == plain.converted.facts["pixel_hash"]
    assert outcome.converted.facts["transfer_syntax"] == is_really


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.3.46.670589.33.1.4.1", "1.2.840.10008.1.2.4.100"])
@pytest.mark.parametrize("native", [True, False])
def test_a_transfer_syntax_without_a_decoder_is_named_so_whatever_its_pixels(
    judge: Callable[..., Any], image_spec: Any, syntax: str, native: bool
) -> None:
    spec = image_spec(syntax=str(uids.ExplicitVRLittleEndian if native else uids.JPEGLSLossless))
    outcome = judge(corruptions.declare(records.sound_bytes(spec), syntax))
    assert (outcome.verdict, outcome.reason) == ("quarantined", "unsupported_transfer_syntax")
    assert "build again" in outcome.message


def test_zero_frames_are_one_as_pydicom_reads_them(judge: Callable[..., Any], image_spec: Any) -> None:
    data = records.sound_bytes(image_spec())
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.NumberOfFrames = 0
    outcome = judge(records.to_bytes(dataset))
    assert outcome.converted.facts["pixel_hash"] == judge(data).converted.facts["pixel_hash"]


@pytest.mark.parametrize(("times", "verdict"), [(2, "quarantined"), (3, "quarantined"), (1.5, "written")])
def test_a_multiple_of_the_claimed_pixels_is_no_padding(
    judge: Callable[..., Any], image_spec: Any, times: float, verdict: str
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec())))
    size = len(dataset.PixelData)
    dataset.PixelData = (dataset.PixelData * 3)[: int(times * size)]
    outcome = judge(records.to_bytes(dataset))
    assert outcome.verdict == verdict
    assert outcome.reason == ("size_mismatch" if verdict == "quarantined" else "ok_repaired")


def test_an_image_of_which_only_the_file_meta_is_left_is_truncated_and_no_image_without_pixels(
    judge: Callable[..., Any], image_spec: Any
) -> None:
    data = records.sound_bytes(image_spec())
    length = int.from_bytes(data[140:144], "little")
    for rest in (b"", b"\0\0"):
        outcome = judge(data[: 144 + length] + rest)
        assert (outcome.verdict, outcome.reason) == ("quarantined", "truncated")


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian])
def test_a_data_set_that_an_element_of_the_file_meta_swallows_is_truncated(
    judge: Callable[..., Any], image_spec: Any, syntax: str
) -> None:
    data = records.sound_bytes(image_spec())
    start = 144 + int.from_bytes(data[140:144], "little")
    meta = corruptions.declare(data, str(syntax))[: -len(data[start:])]
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = squeeze.compress(data[start:]) + squeeze.flush()
    body = deflated if syntax == uids.DeflatedExplicitVRLittleEndian else data[start:]
    assert judge(meta + body).verdict == "written"
    at = meta.rindex(b"\x02\x00\x13\x00SH") + 6
    swallowing = meta[:at] + (len(meta) - at - 2 + len(body)).to_bytes(2, "little") + meta[at + 2 :]
    outcome = judge(swallowing + body)
    assert (outcome.verdict, outcome.reason) == ("quarantined", "truncated")
