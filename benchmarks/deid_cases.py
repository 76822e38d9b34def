"""An export with identifiers planted in it, each known: in headers, pixels, overlays, names of files and tables.

Words begin with a mark, dates lie in the 18th century and UIDs below a root of their own, so that what is left of them
is found by looking at every text of a dataset, and nothing else looks like them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset

from shardkit.synthetic.export import plan_export
from shardkit.synthetic.planted_text import FONTS, KINDS, Planted, drawn, phrase, plant
from shardkit.synthetic.records import LOSSY, ImageSpec, header, radiograph_of, set_pixels, stored, to_bytes

Pixels = npt.NDArray[np.uint16]

WORD, YEAR, ROOT = "ZQX", 1700, "1.2.826.0.1.3680043.10.99999"
"""How planted words, years and UIDs begin."""
CLASSES = {
    "text removed": "names, addresses, numbers, comments and descriptions in the header",
    "private tags removed": "private tags of two vendors",
    "sequences removed": "nested two deep",
    "dates removed": "dates and times, of the study and of birth",
    "UIDs replaced": "instance, series and study: gone, and equal where they were equal",
    "patients replaced": "patient IDs: gone, and equal where they were equal",
    "file names removed": "names of files and folders",
    "tables removed": "columns of a table of labels",
    "metadata kept": "body part, view, spacing, kVp and exposure",
    "pixels hidden": "text drawn into the pixels",
    "pixels kept": "images without text, side markers, and images under an overlay: exact",
}
HIDDEN = tuple(CLASSES)[:8]
"""Classes of words that must not be found in a dataset."""
_TEXTS = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "PatientAddress",
    "PatientTelephoneNumbers", "MedicalRecordLocator", "AccessionNumber", "StudyID", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "OperatorsName", "ReferringPhysicianName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "DeviceSerialNumber", "StudyDescription",
    "SeriesDescription", "ImageComments", "AdditionalPatientHistory", "PatientComments", "RequestedProcedureID",
    "ProtocolName", "DetectorID", "PlateID",
)  # fmt: skip
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate", "DateOfLastCalibration")
_MARKERS = ("AP", "PA", "ERECT", "SUPINE", "PORTABLE", "WEIGHT BEARING")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass
class File:
    """A file of the export and what is known of it.

    Attributes
    ----------
    path : str
        Below the export.
    words : dict
        Class of `HIDDEN` -> words, dates and UIDs that must go.
    study, patient : str
        Study Instance UID and patient ID.
    kept : dict
        Column of the manifest -> the value that it must have.
    clean, written : ndarray of uint16, (height, width)
        The picture without text, and as it is in the file; MONOCHROME2 sense.
    text : Planted, optional
        What was drawn that must be hidden.
    """

    path: str
    words: dict[str, list[str]]
    study: str
    patient: str
    kept: dict[str, object]
    clean: Pixels = field(repr=False)
    written: Pixels = field(repr=False)
    text: Planted | None = None


class _Words:
    """Makes words, dates and UIDs, none of them twice."""

    def __init__(self, seed: int) -> None:
        self._rng, self._count = np.random.default_rng((seed, 7)), 0

    def word(self) -> str:
        self._count += 1
        number, text = self._count, ""
        for _ in range(4):
            number, digit = divmod(number, len(_LETTERS))
            text = _LETTERS[digit] + text
        return WORD + "".join(self._rng.choice(list(_LETTERS), 5)) + text

    def date(self) -> str:
        self._count += 1
        year, rest = divmod(self._count, 12 * 28)
        return f"{YEAR + year % 100}{1 + rest // 28:02}{1 + rest % 28:02}"

    def uid(self) -> str:
        self._count += 1
        return f"{ROOT}.{int(self._rng.integers(10**9, 10**10))}.{self._count}"


def make(export: Path, table: Path, studies: int, scale: float, seed: int) -> list[File]:
    """Write the export, and a table of labels of its files.

    Parameters
    ----------
    export, table : Path
        The folder, and the CSV file.
    studies : int
        How many.
    scale : float
        Factor on the sides of the radiographs.
    seed : int
        Seed of all of it.
    """
    words, found = _Words(seed), list[File]()
    studies_of, patients_of, folders_of = dict[str, str](), dict[str, str](), dict[str, str]()
    for number, planned in enumerate(plan_export(studies, seed=seed, defects=0.0, scale=scale)):
        spec = replace(planned, syntax=uids.JPEGLSLossless if planned.syntax in LOSSY else planned.syntax)
        study = studies_of.setdefault(spec.study.uid, words.uid())
        patient = patients_of.setdefault(spec.study.patient.number, words.word())
        folder = folders_of.setdefault(spec.study.uid, words.word())
        name = words.word()
        file = _file(spec, number, f"{folder}/{name}.dcm", study, patient, words)
        file.words["file names removed"] += [folder, name]
        (export / folder).mkdir(parents=True, exist_ok=True)
        (export / file.path).write_bytes(_bytes(spec, number, file, words))
        found.append(file)
    with table.open("w", newline="") as sheet:
        writer = csv.writer(sheet)
        writer.writerow(["path", "PatientName", "MRN", "Comment", "Fracture"])
        for number, file in enumerate(found):
            told = [words.word() for _ in range(3)]
            file.words["tables removed"] += told
            writer.writerow([file.path, *told, number % 2])
    return found


def _file(spec: ImageSpec, number: int, path: str, study: str, patient: str, words: _Words) -> File:
    picture = radiograph_of(spec)
    rng = np.random.default_rng((*spec.seed, 8))
    written, text = picture, None
    if number % 4 == 0:
        written, text = _drawn(picture, spec.bits, phrase(str(rng.choice(KINDS)), rng), rng)
    elif number % 4 == 1:
        written, _ = _drawn(picture, spec.bits, str(rng.choice(_MARKERS)), rng)
    return File(path, {name: [] for name in HIDDEN}, study, patient, {}, picture, written, text)


def _drawn(picture: Pixels, bits: int, text: str, rng: np.random.Generator) -> tuple[Pixels, Planted | None]:
    """Draw a text where it has contrast; none where a small image has no room for it."""
    for _ in range(40):
        ink = drawn(text, str(rng.choice(list(FONTS))), int(rng.integers(16, 40)))
        room = [side - length for side, length in zip(picture.shape, ink.shape, strict=True)]
        if min(room) > 8:
            at = (int(rng.integers(4, room[0] - 3)), int(rng.integers(4, room[1] - 3)))
            dark = bool(rng.random() < 0.3)
            painted, truth = plant(picture, bits, ink, text, at, contrast=0.8, dark=dark)
            if truth.contrast >= 0.6:
                return painted, truth
    return picture, None


def _bytes(spec: ImageSpec, number: int, file: File, words: _Words) -> bytes:
    ds = header(spec)
    for name in _TEXTS:
        setattr(ds, name, _told(file, "text removed", words.word()))
    for name in _DATES:
        setattr(ds, name, _told(file, "dates removed", words.date()))
    ds.PatientID = _told(file, "patients replaced", file.patient)
    ds.StudyInstanceUID = _told(file, "UIDs replaced", file.study)
    ds.SeriesInstanceUID = _told(file, "UIDs replaced", words.uid())
    ds.SOPInstanceUID = _told(file, "UIDs replaced", words.uid())
    for group, maker in ((0x0019, "SHARDKIT SYNTHETIC"), (0x0021, "SHARDKIT OTHER")):
        block = ds.private_block(group, maker, create=True)
        for element in (1, 2):
            block.add_new(element, "LO", _told(file, "private tags removed", words.word()))
    ds.RequestAttributesSequence = [_nested(file, words)]
    if number % 4 == 2:
        _overlay(ds, file, words)
    set_pixels(ds, stored(spec, file.written), spec.syntax)
    file.kept = {
        "view": str(ds.ViewPosition),
        "spacing_row": float((ds.get("PixelSpacing") or ds.ImagerPixelSpacing)[0]),
        "kvp": float(ds.KVP),
        "exposure": float(ds.Exposure),
        "modality": str(ds.Modality),
        "laterality": ds.get("ImageLaterality"),
    }
    return to_bytes(ds)


def _nested(file: File, words: _Words) -> Dataset:
    inner, outer = Dataset(), Dataset()
    inner.CodeMeaning = _told(file, "sequences removed", words.word())
    outer.RequestedProcedureDescription = _told(file, "sequences removed", words.word())
    outer.RequestingPhysician = _told(file, "sequences removed", words.word())
    outer.RequestedProcedureCodeSequence = [inner]
    return outer


def _overlay(ds: Dataset, file: File, words: _Words) -> None:
    """Add a plane with text beside the pixels, and its label."""
    rows, cols = file.clean.shape
    plane = np.zeros((rows, cols), np.uint8)
    ink = drawn("DOE JANE 1961", "sans", 16) > 0.5
    part = plane[4 : 4 + ink.shape[0], 4 : 4 + ink.shape[1]]
    part[...] = ink[: part.shape[0], : part.shape[1]]
    data = np.packbits(plane, axis=None, bitorder="little").tobytes()
    ds.add_new(0x60000010, "US", rows)
    ds.add_new(0x60000011, "US", cols)
    ds.add_new(0x60000022, "LO", _told(file, "text removed", words.word()))
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", data + b"\0" * (len(data) % 2))


def _told(file: File, kind: str, word: str) -> str:
    file.words[kind].append(word)
    return word
