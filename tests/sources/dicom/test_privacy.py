"""Privacy: nothing planted in a header leaves it, and pseudonyms are stable, keyed and one to a value."""

from __future__ import annotations

import io
import json
import stat
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from shardkit import privacy
from shardkit.errors import ArgumentError
from shardkit.sources.dicom.elements import charset_problem
from shardkit.sources.dicom.metadata import stated
from shardkit.synthetic import records

TEXT = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyDescription",
    "SeriesDescription",
    "ImageComments",
    "InstitutionName",
    "StationName",
    "OperatorsName",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyID",
    "DeviceSerialNumber",
    "ProtocolName",
    "Manufacturer",
    "ManufacturerModelName",
    "BodyPartExamined",
    "ViewPosition",
    "Laterality",
    "ImageLaterality",
    "PatientOrientation",
    "PresentationIntentType",
    "VOILUTFunction",
    "DetectorType",
    "PatientSex",
    "PatientAge",
    "Modality",
    "BurnedInAnnotation",
    "SpecificCharacterSet",
    "WindowCenter",
    "WindowWidth",
    "KVP",
    "Exposure",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "LossyImageCompression",
    "AcquisitionNumber",
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # they quote what is wrong on purpose
secrets = st.from_regex(r"[A-Z][a-z]{5,9}(\^[A-Z][a-z]{4,6})?", fullmatch=True).map(lambda s: "Xq" + s)


def raw(dataset: Dataset, keyword: str, value: str, vr: str = "LO") -> None:
    """Plant `value` whatever the element's own value representation would allow."""
    tag = pydicom.tag.Tag(keyword)
    data = value.encode()
    dataset._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(data), data, 0, False, True)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    secret=secrets,
    keywords=st.lists(st.sampled_from(TEXT), min_size=1),
    lead=st.sampled_from(["", "CHEST ", "AGFA ", "L\\", "70\\"]),
    demographics=st.booleans(),
)
def test_no_planted_identifier_appears_in_the_metadata(
    secret: str, keywords: list[str], lead: str, demographics: bool
) -> None:
    dataset = Dataset()
    for keyword in keywords:
        raw(dataset, keyword, lead + secret)
    nested = Dataset()
    raw(nested, "BodyPartExamined", secret)
    raw(nested, "PatientName", secret)
    dataset.RequestAttributesSequence = [nested]
    dataset.AnatomicRegionSequence = [nested]
    dataset.private_block(0x0019, "VENDOR", create=True).add_new(0x01, "LO", secret)
    kept = json.dumps(privacy.metadata(stated(dataset), demographics)).lower()
    for part in secret.lower().split("^"):
        assert part not in kept


def test_every_text_of_a_realistic_header_stays_behind(image_spec: Any) -> None:
    spec = image_spec()
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(spec)))
    for demographics in (False, True):
        kept = json.dumps(privacy.metadata(stated(dataset), demographics))
        assert not [word for word in spec.study.identifiers() if word in kept]


def leaked(outcome: Any, secret: str) -> bool:
    assert outcome.converted is None or outcome.converted.facts is None or outcome.verdict == "written"
    facts = outcome.converted.facts if outcome.converted else {}
    return secret in json.dumps({k: str(v) for k, v in (facts or {}).items()}) + outcome.message


@pytest.mark.parametrize(
    ("keyword", "value", "secret"),
    [
        ("PhotometricInterpretation", "MONOCHROME2 DOE", "DOE"),
        pytest.param("RescaleIntercept", "4711081523", "4711081523"),
        pytest.param("RescaleSlope", "19630214", "19630214"),
        ("Modality", "DOE JANE", "DOE"),
        ("Rows", "DOE", "DOE"),
        ("BitsStored", "DOE", "DOE"),
        ("NumberOfFrames", "DOE", "DOE"),
        ("BurnedInAnnotation", "DOE", "DOE"),
    ],
)  # fmt: skip
def test_a_written_row_or_a_verdicts_message_repeats_no_header_value(
    judge: Any, image_spec: Any, keyword: str, value: str, secret: str
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(image_spec())))
    vr = "IS" if keyword in ("Rows", "BitsStored") else pydicom.datadict.dictionary_VR(keyword)
    raw(dataset, keyword, value + " " * (len(value) % 2), vr)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    assert not leaked(judge(out.getvalue()), secret)


def test_an_unknown_transfer_syntax_is_not_quoted(judge: Any, image_spec: Any) -> None:
    data = records.sound_bytes(image_spec(syntax="1.2.840.10008.1.2.4.80"))
    assert data.count(b"1.2.840.10008.1.2.4.80") == 1
    outcome = judge(data.replace(b"1.2.840.10008.1.2.4.80", b"DOE^JANE.1963.02.14.77"))
    assert outcome.reason == "unsupported_transfer_syntax"
    assert not leaked(outcome, "DOE")


@pytest.mark.parametrize(
    ("keyword", "value", "field", "want"),
    [
        ("BodyPartExamined", "chest", "body_part", "CHEST"),
        ("BodyPartExamined", "LOWER_LEG", "body_part", "LOWERLEG"),
        ("ViewPosition", "ap", "view", "AP"),
        ("ImageLaterality", "L", "laterality", "L"),
        ("Manufacturer", "FUJIFILM Corporation", "manufacturer", "Fujifilm"),
        ("Manufacturer", "GE Healthcare", "manufacturer", "GE"),
        ("KVP", "72", "kvp", 72.0),
        ("KVP", "501", "kvp", None),
        ("WindowCenter", "2048.5", "window_center", [2048.5]),
        ("PresentationIntentType", "FOR PRESENTATION", "presentation", "FOR PRESENTATION"),
        ("PatientOrientation", "L\\F", "orientation", "L\\F"),
        ("PatientOrientation", "LL\\F", "orientation", None),
        ("PixelSpacing", "0.1\\0.2", "spacing_col", 0.2),
        ("PixelSpacing", "0\\0", "spacing_col", None),
    ],
)
def test_known_values_are_kept_and_others_are_not(keyword: str, value: str, field: str, want: Any) -> None:
    dataset = Dataset()
    raw(dataset, keyword, value, pydicom.datadict.dictionary_VR(keyword))
    columns: Mapping[str, object] = privacy.metadata(stated(dataset))
    assert columns[field] == want


@pytest.mark.parametrize(
    ("age", "want"), [("047Y", "45-49"), ("090Y", "90+"), ("104Y", "90+"), ("018M", "0-4"), ("47", None), ("XYZ", None)]
)
def test_age_is_kept_in_steps_and_only_on_request(age: str, want: str | None) -> None:
    dataset = Dataset()
    raw(dataset, "PatientAge", age, "AS")
    raw(dataset, "PatientSex", "F", "CS")
    asked, usual = privacy.metadata(stated(dataset), demographics=True), privacy.metadata(stated(dataset))
    assert (asked["age"], asked["sex"]) == (want, "F")
    assert (usual["age"], usual["sex"]) == (None, None)


def test_a_new_key_is_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "private" / "key"
    key = privacy.load_key(path)
    assert len(key) == privacy.KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert privacy.load_key(path) == key == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_several_who_make_a_key_at_once_all_use_one(tmp_path: Path) -> None:
    for trial in range(20):
        path, barrier = tmp_path / f"{trial}" / "key", threading.Barrier(4)
        with ThreadPoolExecutor(4) as threads:
            keys = set(threads.map(lambda _, p=path, b=barrier: (b.wait(), privacy.load_key(p))[1], range(4)))
        assert keys == {path.read_bytes()}
        assert [p.name for p in path.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_file_of_another_size_is_refused_and_left_alone(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    with pytest.raises(ArgumentError, match="not a pseudonym key"):
        privacy.load_key(path)
    assert path.read_bytes() == bytes(size)


def test_pseudonyms_are_stable_across_versions() -> None:
    name = privacy.Pseudonyms(bytes(range(32)))
    import hashlib
    import hmac

    want = hmac.new(bytes(range(32)), b"patient\0id 42", hashlib.sha256).hexdigest()[:32]
    assert name("patient", "id 42") == want


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(a=st.text(max_size=12), b=st.text(max_size=12), left=st.sampled_from(["", " ", "\t"]))
def test_pseudonyms_are_trimmed_namespaced_and_keyed(a: str, b: str, left: str) -> None:
    name, other = privacy.Pseudonyms(b"k" * 32), privacy.Pseudonyms(b"l" * 32)
    assert name("patient", left + a + " ") == name("patient", a)
    assert name("patient", a) != name("study", a)
    assert name("patient", a) != other("patient", a)
    assert (name("patient", a) == name("patient", b)) == (a.strip() == b.strip())
    assert len(name("patient", a)) == 32
    assert len(a) < 4 or a not in name("patient", a) or set(a) <= set("0123456789abcdef")


def test_the_fingerprint_tells_keys_apart_and_is_no_pseudonym_of_a_value() -> None:
    one, two = privacy.Pseudonyms(b"k" * 32), privacy.Pseudonyms(b"l" * 32)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == privacy.Pseudonyms(b"k" * 32).fingerprint
    assert len(one.fingerprint) == 16


def test_split_shares_are_near_80_5_15_and_stay_for_a_patient() -> None:
    name = privacy.Pseudonyms(b"k" * 32)
    patients = [name("patient", str(i)) for i in range(20000)]
    shares = {k: n / 20000 for k, n in Counter(map(name.split, patients)).items()}
    near = {"train": 0.80, "val": 0.05, "test": 0.15}
    assert shares == {k: pytest.approx(v, abs=0.012 * v**0.5) for k, v in near.items()}
    assert [name.split(p) for p in patients[:50]] == [privacy.Pseudonyms(b"k" * 32).split(p) for p in patients[:50]]


def test_an_unknown_character_set_is_a_problem_and_known_ones_are_none() -> None:
    dataset = Dataset()
    assert not charset_problem(dataset)
    for value, want in (("ISO_IR 100", False), (["", "ISO 2022 IR 87"], False), ("KLINGON", True)):
        dataset._dict.pop(pydicom.tag.Tag("SpecificCharacterSet"), None)
        raw(dataset, "SpecificCharacterSet", value if isinstance(value, str) else "\\".join(value), "CS")
        assert charset_problem(dataset) == want
