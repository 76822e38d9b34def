"""What a header states about an image and its patient, as records that need no DICOM.

`Stated` is checked by `shardkit.privacy.metadata` before anything is kept; an `Identity` is hashed.
"""

from pydicom.dataset import Dataset

from shardkit.privacy import Stated
from shardkit.sources.base import Identity
from shardkit.sources.dicom.elements import numbers, text


def stated(dataset: Dataset) -> Stated:
    """Return the metadata that a header states, unchecked."""
    return Stated(
        body_part=text(dataset, "BodyPartExamined"),
        view=text(dataset, "ViewPosition"),
        presentation=text(dataset, "PresentationIntentType"),
        voi_function=text(dataset, "VOILUTFunction"),
        detector=text(dataset, "DetectorType"),
        sex=text(dataset, "PatientSex"),
        manufacturer=text(dataset, "Manufacturer"),
        age=text(dataset, "PatientAge"),
        laterality=tuple(text(dataset, k) for k in ("ImageLaterality", "Laterality", "FrameLaterality")),
        orientation=_orientation(dataset),
        pixel_spacing=numbers(dataset, "PixelSpacing"),
        imager_spacing=numbers(dataset, "ImagerPixelSpacing"),
        kvp=numbers(dataset, "KVP"),
        exposure=numbers(dataset, "Exposure"),
        slope=numbers(dataset, "RescaleSlope"),
        intercept=numbers(dataset, "RescaleIntercept"),
        window_center=numbers(dataset, "WindowCenter"),
        window_width=numbers(dataset, "WindowWidth"),
    )


def _orientation(dataset: Dataset) -> tuple[str, ...]:
    try:
        return tuple(str(v) for v in dataset.get("PatientOrientation") or ())
    except Exception:
        return ()


def identity(dataset: Dataset, rows: int, cols: int) -> Identity:
    """Return whom and what an image of `rows` x `cols` pixels is of, in clear text."""
    study = text(dataset, "StudyInstanceUID")
    device = [text(dataset, k) for k in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")]
    taken = [text(dataset, k) for k in ("BodyPartExamined", "ViewPosition", "ImageLaterality", "AcquisitionNumber")]
    return Identity(
        image=text(dataset, "SOPInstanceUID"),
        patient=text(dataset, "PatientID"),
        study=study,
        series=text(dataset, "SeriesInstanceUID"),
        device="\0".join(device) if any(device) else "",
        accession=text(dataset, "AccessionNumber"),
        processed_pair="\0".join([study, f"{rows}x{cols}", *taken]) if study else "",
    )
