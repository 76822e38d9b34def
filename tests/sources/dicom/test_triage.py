"""Triage: errors before rules, rules in their order, and every code reachable or named as belonging elsewhere."""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest

from shardkit.build.scan import scan_entry
from shardkit.config import Rules
from shardkit.content import Box, Content, Statistics
from shardkit.errors import Dropped
from shardkit.sources import image_source
from shardkit.sources.entries import Entry, Kind
from shardkit.synthetic import records
from shardkit.synthetic.defects import DEFECTS, file_bytes
from shardkit.synthetic.radiographs import radiograph
from shardkit.triage import DROPS, QUARANTINES, halvings, judge_pixels

DEFAULT = Rules()
ELSEWHERE = {
    "duplicate_exact", "duplicate_near", "for_processing",  # the whole dataset decides
    "decode_timeout", "decoder_crash", "memory_limit",  # a child's death decides: the isolation's tests
    "encrypted", "archive_damaged", "archive_limit", "unsafe_name",  # tests/sources/archives
    "internal_error",  # means a bug; the fuzz tests in test_reading may meet it
    "unknown_format", "empty_slice",  # no DICOM: tests/sources/test_mixed.py, tests/sources/images
    "not_in_collection", "facts_ambiguous",  # a table decides: tests/build/test_known_facts.py
}  # fmt: skip
BY_HEADER: dict[str, tuple[dict[str, Any], Rules]] = {
    "secondary_capture": ({"SOPClassUID": uids.SecondaryCaptureImageStorage}, Rules(secondary_capture="drop")),
    "missing_patient_id": ({"PatientID": ""}, Rules(missing_patient_id="quarantine")),
    "modality_excluded": ({"Modality": "CT"}, DEFAULT),
    "burned_in": ({"BurnedInAnnotation": "YES"}, DEFAULT),
    "too_small": ({}, Rules(min_side=81)),
    "too_large": ({}, Rules(max_side=95)),
    "multiframe": ({"NumberOfFrames": 2}, DEFAULT),
    "not_grayscale": ({"PhotometricInterpretation": "PALETTE COLOR"}, DEFAULT),
    "not_an_image": ({"Modality": "SR"}, DEFAULT),
    "bad_value": ({"BitsStored": 17}, DEFAULT),
    "missing_required_tag": ({"BitsAllocated": None}, DEFAULT),
}


def changed(image_spec: Any, tags: dict[str, Any]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec())))
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    if tags.get("NumberOfFrames") == 2:
        dataset.PixelData = dataset.PixelData * 2
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize("reason", BY_HEADER)
def test_each_header_rule_gives_its_reason(judge: Any, image_spec: Any, reason: str) -> None:
    tags, rules = BY_HEADER[reason]
    outcome = judge(changed(image_spec, tags), rules)
    assert outcome.reason == reason
    assert outcome.verdict == ("dropped" if reason in DROPS else "quarantined")
    assert judge(changed(image_spec, {}), DEFAULT).verdict == "written"


@pytest.mark.parametrize("defect", [k for k, d in DEFECTS.items() if not d.twin])
def test_each_synthetic_defect_gets_its_outcome(judge: Any, image_spec: Any, defect: str) -> None:
    kind = DEFECTS[defect]
    spec = image_spec(
        defect=defect, bits=kind.bits or 12, syntax=kind.syntax or str(uids.ExplicitVRLittleEndian),
        modality=kind.modality or "CR", height=700, width=600,
    )  # fmt: skip
    outcome = judge(file_bytes(spec), DEFAULT, name="._file" if defect == "apple_double" else "file")
    assert (outcome.verdict, outcome.reason.removesuffix("_repaired").replace("ok", "")) == (kind.verdict, kind.reason)
    if outcome.verdict == "written":
        assert (outcome.converted.repairs, outcome.converted.flags) == (kind.repairs, kind.flags)


def test_every_code_is_reached_by_a_test_here_or_named_as_belonging_elsewhere() -> None:
    reached = set(BY_HEADER) | {d.reason for d in DEFECTS.values()} - {"", "duplicate_exact", "for_processing"}
    reached |= {"not_integer_pixels", "unsupported_transfer_syntax", "parse_error"}  # real files in test_reading
    reached |= {"io_error"}  # the test below
    reached |= {"burned_in_text", "recognizable"}  # in tests/build/test_text.py
    assert reached | ELSEWHERE == {*DROPS, *QUARANTINES}
    assert not reached & ELSEWHERE


ENDS = {
    **dict.fromkeys(("file", "unreadable", "too_long"), ("quarantined", "io_error")),
    "outside": ("dropped", "not_in_collection"),
    "table": ("dropped", "not_an_image"),
    "ambiguous": ("quarantined", "facts_ambiguous"),
    "encrypted": ("quarantined", "encrypted"),
    "damaged": ("quarantined", "archive_damaged"),
    "limit": ("quarantined", "archive_limit"),
    "unsafe_name": ("quarantined", "unsafe_name"),
    **dict.fromkeys(("same_name", "packing", "split"), ("quarantined", "archive_damaged")),
    "no_members": ("quarantined", "empty_file"),
}
"""Kind of entry -> what becomes of it, where that is not a name that is no DICOM file."""


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_is_no_readable_file_is_quarantined_in_its_own_words(tmp_path: Any, kind: Any) -> None:
    source = image_source(str(tmp_path))
    scanned = scan_entry(source, Entry(b"gone", 10, kind), DEFAULT)
    others = {
        scan_entry(source, Entry(b"gone", 10, other), DEFAULT).message for other in get_args(Kind) if other != kind
    }
    verdict, reason = ENDS.get(kind, ("quarantined", "not_dicom"))
    assert (scanned.verdict, scanned.reason) == (verdict, reason)
    assert scanned.message not in others


ORDER: list[tuple[str, dict[str, Any]]] = [
    ("not_an_image", {"Modality": "SR"}),
    ("missing_required_tag", {"BitsAllocated": None}),
    ("size_mismatch", {"Rows": 5000}),
    ("not_grayscale", {"PhotometricInterpretation": "PALETTE COLOR"}),
    ("multiframe", {"NumberOfFrames": 2}),
    ("modality_excluded", {"Modality": "CT"}),
    ("too_small", {"Rows": 20}),
    ("burned_in", {"BurnedInAnnotation": "YES"}),
    ("secondary_capture", {"SOPClassUID": uids.SecondaryCaptureImageStorage}),
    ("missing_patient_id", {"PatientID": ""}),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_of_several_faults_the_first_in_order_is_given(judge: Any, image_spec: Any, first: int) -> None:
    rules = Rules(secondary_capture="drop", missing_patient_id="quarantine")
    tags: dict[str, Any] = {}
    for _, more in reversed(ORDER[first:]):
        tags |= more
    assert judge(changed(image_spec, tags), rules).reason == ORDER[first][0]


def test_oversize_images_are_halved_on_request(judge: Any, image_spec: Any) -> None:
    data = records.sound_bytes(image_spec(height=301, width=160))
    assert judge(data, Rules(max_side=100)).reason == "too_large"
    facts = judge(data, Rules(max_side=100, oversize="halve")).converted.facts
    assert (facts["height"], facts["width"], facts["halvings"]) == (76, 40, 2)
    assert halvings(3072, 3072, 3072) == 0
    assert halvings(3073, 1, 3072) == 1


def test_the_least_content_is_a_rule(judge: Any, image_spec: Any) -> None:
    def filled(share: float) -> bytes:
        """A picture in a black frame that leaves it this share of the area."""
        spec = image_spec(height=400, width=400)
        picture, side = np.zeros((400, 400), np.uint16), round(400 * share**0.5)
        picture[50 : 50 + side, 90 : 90 + side] = radiograph(side, side, 12, np.random.default_rng(5), "chest")
        dataset = records.header(spec)
        records.set_pixels(dataset, records.stored(spec, picture), spec.syntax)
        return records.to_bytes(dataset)

    for share, least, reason in (
        (0.03, 0.05, "small_content"),
        (0.03, 0.02, "ok"),
        (0.3, 0.05, "ok"),
        (0.3, 0.5, "small_content"),
    ):
        outcome = judge(filled(share), Rules(min_content=least))
        assert outcome.reason == reason, (share, least)
    assert "--min-content 0.5" in outcome.message


def _looks(contrast: float, greatest: int, structure: float = 1.0, area: float = 1.0) -> str:
    """Reason of an image with content of this contrast, "" where it is fine."""
    content = Content(Box(0, 0, 9, 9), area, structure, contrast, np.ones((1, 1), bool))
    statistics = Statistics(0, greatest, 0.0, 1.0, 0, 0, greatest, greatest)
    try:
        judge_pixels(content, statistics, DEFAULT)
    except Dropped as drop:
        return drop.reason
    return ""


@pytest.mark.parametrize(
    ("greatest", "least"), [(255, 0.512), (1023, 2.048), (4095, 8.192), (65535, 8.192)]
)  # 0.002 of 256, 1,024, 4,096, and no more
def test_blankness_is_relative_to_the_depth_in_use(greatest: int, least: float) -> None:
    assert _looks(0.999 * least, greatest) == "blank"
    assert _looks(1.001 * least, greatest) == ""


def test_noise_is_blank_and_a_speck_on_it_is_small_content() -> None:
    assert [_looks(100, 4095, structure) for structure in (0.39, 0.41)] == ["blank", ""]
    assert [_looks(100, 4095, 0.1, area) for area in (0.0, 0.049, 0.051)] == ["blank", "small_content", "blank"]
    assert [_looks(100, 4095, 1.0, area) for area in (0.049, 0.05)] == ["small_content", ""]


def _header(image_spec: Any, absent: tuple[str, ...] = (), **tags: Any) -> bytes:
    """A sound file with other tags and without some."""
    dataset = pydicom.dcmread(io.BytesIO(changed(image_spec, tags)))
    for keyword in absent:
        del dataset[keyword]
        dataset.file_meta.pop(f"MediaStorage{keyword}", None)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        (("PixelData",), "no_pixel_data"),
        (("PixelData", "Rows", "BitsAllocated"), "no_pixel_data"),
        (("PixelData", "SOPClassUID", "Rows"), "no_pixel_data"),
        (("PixelData", "SOPClassUID", "BitsAllocated"), "no_pixel_data"),
        (("PixelData", "SOPClassUID", "Rows", "BitsAllocated"), "missing_required_tag"),
    ],
)
def test_a_header_without_pixels_is_told_from_no_header_of_an_image(
    judge: Any, image_spec: Any, absent: tuple[str, ...], reason: str
) -> None:
    assert judge(_header(image_spec, absent), DEFAULT).reason == reason


def test_a_file_that_ends_inside_its_header_is_truncated_and_not_without_pixels(judge: Any, image_spec: Any) -> None:
    data = changed(image_spec, {})
    (rows,) = (at for at in range(len(data)) if data[at : at + 6] == b"\x28\x00\x10\x00US")
    assert judge(data[: rows + 7], DEFAULT).reason == "truncated"


def test_colour_is_dropped_before_its_layout_is_looked_at(judge: Any, image_spec: Any) -> None:
    colour = _header(image_spec, SamplesPerPixel=3, PhotometricInterpretation="RGB")  # and pixels of one sample
    assert judge(colour, DEFAULT).reason == "not_grayscale"


def test_an_unknown_character_set_is_a_flag(judge: Any, image_spec: Any) -> None:
    outcome = judge(_header(image_spec, SpecificCharacterSet="ISO_IR 999"), DEFAULT)
    assert outcome.verdict == "written"
    assert outcome.converted.flags == ("charset",)


@pytest.mark.parametrize("bits", [1, 32])
def test_words_of_other_sizes_make_no_radiograph(judge: Any, image_spec: Any, bits: int) -> None:
    size = bits * 96 * 80 // 8
    tags: dict[str, Any] = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelData": bytes(size)}
    outcome = judge(_header(image_spec, **tags), DEFAULT)
    assert (outcome.reason, f"BitsAllocated {bits}" in outcome.message) == ("bad_value", True)
