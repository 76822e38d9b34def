"""What a header states about an image and its patient, as records that need no DICOM.

`Stated` is checked by `shardkit.privacy.metadata` before anything is kept; an `Identity` is hashed.
"""

from pydicom.dataset import Dataset

from shardkit.privacy import Stated
from shardkit.sources.base import Identity
from shardkit.sources.dicom.elements import numbers, text


def stated(dataset: Dataset, part: int = 0) -> Stated:
    """Return the metadata that a header states of a frame, unchecked."""
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
        pixel_spacing=numbers(dataset, "PixelSpacing") or _spacing_of_frame(dataset, part),
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


def _spacing_of_frame(dataset: Dataset, part: int) -> tuple[float, ...] | None:
    """Return the pixel spacing of an enhanced image: of the frame, or shared by all (PS3.3 C.7.6.16.2.1)."""
    for sequence, index in (("PerFrameFunctionalGroupsSequence", part), ("SharedFunctionalGroupsSequence", 0)):
        try:
            return numbers(dataset[sequence].value[index]["PixelMeasuresSequence"].value[0], "PixelSpacing")
        except Exception:  # absent, or anything else than a sequence of items: it tells nothing
            continue
    return None


def identity(dataset: Dataset, rows: int, cols: int, part: int | None = None) -> Identity:
    """Return whom and what an image of `rows` x `cols` pixels is of, in clear text.

    Parameters
    ----------
    dataset : Dataset
        The header.
    rows, cols : int
        Size of the image.
    part : int, optional
        Which frame it is, of several.
    """
    study = text(dataset, "StudyInstanceUID")
    device = [text(dataset, k) for k in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")]
    taken = [text(dataset, k) for k in ("BodyPartExamined", "ViewPosition", "ImageLaterality", "AcquisitionNumber")]
    number, uid = "" if part is None else f"#{part}", text(dataset, "SOPInstanceUID")
    return Identity(
        image=f"{uid}{number}" if uid else "",
        patient=text(dataset, "PatientID"),
        study=study,
        series=text(dataset, "SeriesInstanceUID"),
        device="\0".join(device) if any(device) else "",
        accession=text(dataset, "AccessionNumber"),
        processed_pair="\0".join([study, f"{rows}x{cols}{number}", *taken]) if study else "",
    )
