"""Overlaps of real radiographs: ChestX-ray14 at 1,024 pixels and averaged to 256."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from shardkit.dataset.overlap import overlaps

SHARED, ALONE = 24, 12
"""Images that both datasets get, and that one of them has alone."""


def dicom(picture: Path, number: int) -> bytes:
    """A grey picture as a DICOM file."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(f"1.2.826.0.1.{number}")
    data.StudyInstanceUID, data.PatientID = f"1.2.826.0.2.{number}", str(number)
    data.Modality, data.BodyPartExamined, data.PhotometricInterpretation = "CR", "CHEST", "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 8, 8, 7, 0, 1
    data.PixelData = pixels.tobytes()
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def names(dataset: Path) -> dict[str, str]:
    """Key -> name of the picture."""
    rows = pq.read_table(dataset.with_name(f"{dataset.name}.private") / "ledger.parquet").to_pylist()
    return {row["key"]: row["path"] for row in rows if row["verdict"] == "written"}


@pytest.mark.deep
def test_all_images_that_two_sizes_of_a_collection_share_are_found_and_no_others(
    labelled: Path, tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    large, small = ({path.name: path for path in (labelled / name / "images").iterdir()} for name in ("nih", "nih256"))
    both = sorted(large.keys() & small.keys())[:SHARED]
    rest = sorted(small.keys() - large.keys())[:ALONE]
    assert len(both) == SHARED
    for folder, pictures in (("a", [large[n] for n in both]), ("b", [small[n] for n in both + rest])):
        (tmp_path / folder).mkdir()
        for number, picture in enumerate(pictures):
            (tmp_path / folder / f"{picture.stem}.dcm").write_bytes(dicom(picture, number + 1))
    sets = [make_dataset(tmp_path / folder, tmp_path / f"set_{folder}", bins="auto:2") for folder in "ab"]
    (found,) = overlaps([str(one) for one in sets])
    here, there = map(names, sets)
    pairs = [(here[row["key"]], there[row["other_key"]]) for row in found.pairs.to_pylist()]
    assert sorted(pairs) == [(f"{Path(n).stem}.dcm",) * 2 for n in both]
    assert found.kinds()["near"] == SHARED
