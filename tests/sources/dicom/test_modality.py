"""What made an image: stated, told by the SOP class, or by nothing; and no header's value in what is said of it."""

from __future__ import annotations

import io
from typing import Any

import pydicom
import pydicom.uid as uids
import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset, FileMetaDataset

from shardkit import privacy
from shardkit.config import Rules
from shardkit.sources.dicom import modality
from shardkit.synthetic import records
from shardkit.triage import NO_MODALITY

TELLING = {
    uids.ComputedRadiographyImageStorage: "CR",
    uids.DigitalXRayImageStorageForPresentation: "DX",
    uids.DigitalXRayImageStorageForProcessing: "DX",
    uids.DigitalMammographyXRayImageStorageForPresentation: "MG",
    uids.DigitalMammographyXRayImageStorageForProcessing: "MG",
    uids.BreastTomosynthesisImageStorage: "MG",
    uids.DigitalIntraOralXRayImageStorageForPresentation: "IO",
    uids.DigitalIntraOralXRayImageStorageForProcessing: "IO",
    uids.XRayAngiographicImageStorage: "XA",
    uids.EnhancedXAImageStorage: "XA",
    uids.XRayRadiofluoroscopicImageStorage: "RF",
    uids.EnhancedXRFImageStorage: "RF",
    uids.CTImageStorage: "CT",
    uids.MRImageStorage: "MR",
    uids.UltrasoundImageStorage: "US",
    uids.SecondaryCaptureImageStorage: "",
    uids.MultiFrameGrayscaleWordSecondaryCaptureImageStorage: "",
    uids.UID("1.2.3.4"): "",
}


def _dataset(in_data: str = "", in_meta: str = "", stated: str | None = None) -> Dataset:
    dataset, dataset.file_meta = (made := Dataset()), FileMetaDataset()
    if in_data:
        made.SOPClassUID = in_data
    if in_meta:
        made.file_meta.MediaStorageSOPClassUID = uids.UID(in_meta)
    if stated is not None:
        made.Modality = stated
    return dataset


def _file(spec: Any, **changes: Any) -> bytes:
    """A sound file with tags set, or deleted where None; `meta` changes the file meta's SOP class."""
    dataset = pydicom.dcmread(io.BytesIO(records.sound_bytes(spec)))
    if "meta" in changes:
        dataset.file_meta.MediaStorageSOPClassUID = changes.pop("meta")
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize("uid", TELLING, ids=[uid.keyword or str(uid) for uid in TELLING])
def test_the_sop_class_of_data_set_or_file_meta_stands_in(uid: str) -> None:
    told = TELLING[uids.UID(uid)]
    for absent in (None, "", "  "):
        assert modality.effective(_dataset(in_data=uid, stated=absent)) == told
        assert modality.effective(_dataset(in_meta=uid, stated=absent)) == told
        assert modality.effective(_dataset("1.2.3", uid, absent)) == told
    assert modality.effective(_dataset(uid, uid, "px")) == "PX"


def test_every_class_that_tells_exists_and_tells_a_defined_term() -> None:
    for uid, code in modality._BY_CLASS.items():
        assert UID_dictionary[uid][1] == "SOP Class"
        assert code in privacy.MODALITIES
    assert NO_MODALITY not in privacy.MODALITIES
    assert set(Rules().modalities) <= privacy.MODALITIES


def test_a_file_of_few_tags_is_written_with_the_modality_its_class_tells(judge: Any, image_spec: Any) -> None:
    few = {"Modality": None, "SOPClassUID": None}
    for uid, code in (
        (uids.DigitalXRayImageStorageForPresentation, "DX"),
        (uids.ComputedRadiographyImageStorage, "CR"),
    ):
        outcome = judge(_file(image_spec(), meta=uid, **few), Rules())
        assert (outcome.verdict, outcome.scanned.modality) == ("written", code)
        assert outcome.converted.facts["modality"] == code
        assert judge(_file(image_spec(), meta=uid, **few), Rules(modalities=("MG",))).reason == "modality_excluded"


def test_what_nothing_tells_of_is_dropped_as_absent_and_taken_on_request(judge: Any, image_spec: Any) -> None:
    bare = _file(image_spec(), meta=uids.SecondaryCaptureImageStorage, Modality=None, SOPClassUID=None)
    outcome = judge(bare, Rules())
    assert outcome.reason == "modality_excluded"
    assert "absent" in outcome.message
    assert "--modalities" in outcome.message
    assert outcome.scanned.modality == "none"
    taken = judge(bare, Rules(modalities=("CR", "NONE")))
    assert taken.verdict == "written"
    assert taken.converted.facts["modality"] is None
    assert judge(_file(image_spec(), Modality="CT"), Rules(modalities=("CR", "NONE"))).reason == "modality_excluded"


@pytest.mark.parametrize(("stated", "shown"), [("CT", "CT"), ("QUELLWALDHOFER", "other"), (["CR", "DX"], "other")])
def test_no_value_but_a_defined_term_is_shown(judge: Any, image_spec: Any, stated: Any, shown: str) -> None:
    outcome = judge(_file(image_spec(), Modality=stated), Rules())
    assert (outcome.reason, outcome.scanned.modality) == ("modality_excluded", shown)
    assert f"({shown})" in outcome.message
    assert "QUELLWALD" not in outcome.message


def test_a_secondary_capture_is_known_by_its_file_meta_and_a_photograph_is_none(judge: Any, image_spec: Any) -> None:
    rules = Rules(secondary_capture="drop")
    for uid in (uids.SecondaryCaptureImageStorage, uids.MultiFrameGrayscaleWordSecondaryCaptureImageStorage):
        assert judge(_file(image_spec(), meta=uid, SOPClassUID=None), rules).reason == "secondary_capture"
    assert judge(_file(image_spec(), SOPClassUID=uids.VLPhotographicImageStorage), rules).verdict == "written"
