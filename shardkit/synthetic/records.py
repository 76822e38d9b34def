"""What one file of a synthetic export is made from, and how a sound one becomes DICOM bytes.

An `ImageSpec` says everything about one file, so its bytes are a pure function of it: files can be written in
any order, by any number of processes, and a twin is its original's spec with one field changed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

from shardkit.synthetic.radiographs import radiograph

LOSSLESS_JPEG = uids.JPEGLosslessSV1
LOSSY = (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLSNearLossless)

SOP_CLASSES = {
    "CR": uids.ComputedRadiographyImageStorage,
    "DX": uids.DigitalXRayImageStorageForPresentation,
    "PX": uids.DigitalXRayImageStorageForPresentation,
    "MG": uids.DigitalMammographyXRayImageStorageForPresentation,
    "IO": uids.DigitalIntraOralXRayImageStorageForPresentation,
}

# BodyPartExamined, usual views
BODY_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "knee": ("KNEE", ("AP", "LATERAL")),
    "shoulder": ("SHOULDER", ("AP", "AXIAL")),
    "ankle": ("ANKLE", ("AP", "LATERAL")),
    "elbow": ("ELBOW", ("AP", "LATERAL")),
    "foot": ("FOOT", ("DP", "OBLIQUE")),
    "wrist": ("WRIST", ("PA", "LATERAL")),
    "hand": ("HAND", ("PA", "OBLIQUE")),
    "cervical spine": ("CSPINE", ("AP", "LATERAL")),
    "clavicle": ("CLAVICLE", ("AP",)),
    "thoracic spine": ("TSPINE", ("AP", "LATERAL")),
    "lumbar spine": ("LSPINE", ("AP", "LATERAL")),
    "skull": ("SKULL", ("PA", "LATERAL")),
    "ribs": ("RIB", ("AP", "OBLIQUE")),
    "scapula": ("SCAPULA", ("AP",)),
    "chest": ("CHEST", ("PA", "AP")),
    "breast": ("BREAST", ("CC", "MLO")),
}
MODELS = (
    ("SIEMENS", "Ysio Max"),
    ("Philips Medical Systems", "DigitalDiagnost"),
    ("FUJIFILM Corporation", "CR-IR 362"),
    ("AGFA", "DX-M"),
    ("GE Healthcare", "Optima XR656"),
)


@dataclass(frozen=True, slots=True)
class Patient:
    """Invented person; every text is distinctive enough to search for."""

    family: str
    given: str
    number: str
    birth: str  # YYYYMMDD
    sex: str

    @property
    def name(self) -> str:
        """As in PatientName."""
        return f"{self.family}^{self.given}"


@dataclass(frozen=True, slots=True)
class Study:
    """One visit of a patient; `folder` is its place in the export."""

    patient: Patient
    uid: str
    date: str  # YYYYMMDD
    accession: str
    institution: str
    station: str
    operator: str
    physician: str
    description: str
    serial: str
    folder: str

    def identifiers(self) -> set[str]:
        """Every planted text of this study that must never leave the hospital."""
        person = self.patient
        return {
            person.family,
            person.given,
            person.name,
            person.number,
            person.birth,
            self.uid,
            self.date,
            self.accession,
            self.institution,
            self.station,
            self.operator,
            self.physician,
            self.description,
            self.serial,
            self.folder,
        }


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One file.  `seed` draws its pixels; `defect` names what is wrong with it ("" for a sound file)."""

    path: str
    study: Study
    seed: tuple[int, ...]
    region: str
    view: str
    modality: str
    height: int
    width: int
    bits: int
    photometric: str
    syntax: str
    sop_uid: str
    series_uid: str
    number: int
    defect: str = ""
    target: str = ""  # path of the original, for a link


def radiograph_of(spec: ImageSpec) -> npt.NDArray[np.uint16]:
    """Return the intended picture: uint16 (height, width), MONOCHROME2 sense, within `bits`."""
    return radiograph(spec.height, spec.width, spec.bits, np.random.default_rng(spec.seed), spec.region)


def stored(spec: ImageSpec, picture: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the values in the file: turned around by the full range for MONOCHROME1."""
    return picture if spec.photometric == "MONOCHROME2" else np.uint16(2**spec.bits - 1) - picture


def header(spec: ImageSpec) -> Dataset:
    """All tags but the pixels of a sound file, with identifiers planted wherever real exports have them."""
    rng = np.random.default_rng((*spec.seed, 1))
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASSES[spec.modality], spec.sop_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = spec.study.uid, spec.series_uid
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = spec.modality, spec.number, 1
    if spec.modality != "CR":
        ds.PresentationIntentType = "FOR PRESENTATION"
    _acquisition(ds, spec, rng)
    _person(ds, spec.study)
    _pixel_module(ds, spec)
    return ds


def _acquisition(ds: Dataset, spec: ImageSpec, rng: np.random.Generator) -> None:
    """Write what may be kept: body part, view, machine type, geometry, exposure, window."""
    ds.BodyPartExamined, ds.ViewPosition = BODY_PARTS[spec.region][0], spec.view
    if spec.region not in ("chest", "ribs", "skull") and not spec.region.endswith("spine"):
        ds.ImageLaterality = "L" if rng.random() < 0.5 else "R"
    ds.PatientOrientation = ["L", "F"]
    ds.Manufacturer, ds.ManufacturerModelName = MODELS[int(rng.integers(len(MODELS)))]
    spacing = str(np.round(rng.choice([0.1, 0.139, 0.143, 0.148, 0.2]), 3))
    ds.ImagerPixelSpacing = [spacing, spacing]
    if rng.random() < 0.5:
        ds.PixelSpacing = [spacing, spacing]
    ds.KVP, ds.Exposure, ds.ExposureTime = (
        str(int(rng.integers(45, 121))),
        int(rng.integers(1, 40)),
        int(rng.integers(5, 90)),
    )
    ds.WindowCenter, ds.WindowWidth = (
        str(2 ** (spec.bits - 1)),
        str(int(2**spec.bits * rng.uniform(0.6, 1.0))),
    )
    if spec.syntax in LOSSY:
        ds.LossyImageCompression = "01"


def _person(ds: Dataset, study: Study) -> None:
    """Write what must never leave: names, numbers, dates, places, free text, nested and private copies of them."""
    person = study.patient
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = person.name, person.number, person.birth
    ds.PatientSex, ds.PatientAge = person.sex, f"{int(study.date[:4]) - int(person.birth[:4]):03d}Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = study.date
    ds.StudyTime, ds.AccessionNumber, ds.StudyID = "101500", study.accession, study.accession[-6:]
    ds.InstitutionName, ds.StationName, ds.OperatorsName = study.institution, study.station, study.operator
    ds.ReferringPhysicianName, ds.DeviceSerialNumber = study.physician, study.serial
    ds.StudyDescription = study.description
    ds.ImageComments = f"repeat for {person.family}, dob {person.birth}"
    request = Dataset()
    request.RequestedProcedureDescription = f"control {person.family}"
    request.RequestingPhysician = study.physician
    ds.RequestAttributesSequence = [request]
    block = ds.private_block(0x0019, "SHARDKIT SYNTHETIC", create=True)
    block.add_new(0x01, "LO", person.name)
    block.add_new(0x02, "LO", person.number)


def _pixel_module(ds: Dataset, spec: ImageSpec) -> None:
    """Describe the pixel grid."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, spec.photometric
    ds.Rows, ds.Columns = spec.height, spec.width
    ds.BitsAllocated = 8 if spec.bits == 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = spec.bits, spec.bits - 1, 0


def set_pixels(ds: Dataset, values: npt.NDArray[np.uint16], syntax: str) -> None:
    """Encode `values`, uint16 (rows, cols), into `ds` in the transfer syntax and give `ds` its file meta."""
    array = values.astype(np.uint8 if ds.BitsAllocated == 8 else "<u2")
    set_meta(ds, syntax)
    if syntax in (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, LOSSLESS_JPEG):
        lossless = syntax == LOSSLESS_JPEG
        level = 100 if lossless else 95
        stream = imagecodecs.jpeg8_encode(
            array,
            level=level,
            lossless=lossless,
            predictor=1 if lossless else None,
            bitspersample=int(ds.BitsStored),
        )
        set_stream(ds, bytes(stream))
    elif syntax in (uids.RLELossless, uids.JPEG2000Lossless, uids.JPEGLSLossless, uids.JPEGLSNearLossless):
        _native(ds, array)
        plugin = "pyjpegls" if syntax in (uids.JPEGLSLossless, uids.JPEGLSNearLossless) else "pylibjpeg"
        error = 2 if syntax == uids.JPEGLSNearLossless else None
        set_meta(ds, uids.ExplicitVRLittleEndian)
        ds.compress(uids.UID(syntax), array, encoding_plugin=plugin, generate_instance_uid=False, jls_error=error)
    else:
        _native(ds, array)


def _native(ds: Dataset, array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    data = array.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"


def set_stream(ds: Dataset, stream: bytes) -> None:
    """Put one finished code stream into `ds`."""
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def set_meta(ds: Dataset, syntax: str) -> None:
    """File meta information for `ds` in the transfer syntax."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = uids.UID(syntax)
    ds.file_meta = meta


def to_bytes(ds: Dataset) -> bytes:
    """Return the file's bytes, with preamble."""
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def sound_bytes(spec: ImageSpec) -> bytes:
    """Return the bytes of a file with nothing wrong."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)), spec.syntax)
    return to_bytes(ds)
