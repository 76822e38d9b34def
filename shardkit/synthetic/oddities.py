"""Sound files with something odd about them: what a rule drops, and what is written all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom.dataset import Dataset

from shardkit.synthetic.corruptions import file_of, header_of, pixels_in
from shardkit.synthetic.records import (
    ImageSpec,
    header,
    radiograph_of,
    set_meta,
    set_pixels,
    sound_bytes,
    stored,
    to_bytes,
)

U16: TypeAlias = npt.NDArray[np.uint16]


# ---- odd, but sound


def no_modality(spec: ImageSpec) -> bytes:
    """Few tags are left of it: of what made it, only the file meta's SOP class tells."""
    ds = pixels_in(spec)
    del ds.Modality, ds.SOPClassUID
    return to_bytes(ds)


# ---- dropped by a rule


def rgb(spec: ImageSpec) -> bytes:
    """Make a colour picture."""
    grey = (radiograph_of(spec) >> max(spec.bits - 8, 0)).astype(np.uint8)
    ds = header_of(replace(spec, bits=8))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    data = np.stack([grey, grey, grey // 2], -1).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
    return to_bytes(ds)


def multiframe(spec: ImageSpec) -> bytes:
    """Three frames."""
    picture = stored(spec, radiograph_of(spec))
    ds = header_of(spec)
    ds.NumberOfFrames = 3
    ds.PixelData = np.stack([picture, picture[::-1], picture]).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return to_bytes(ds)


def ct(spec: ImageSpec) -> bytes:
    """Make a CT slice."""
    return file_of(spec, Modality="CT", SOPClassUID=uids.CTImageStorage, RescaleIntercept="-1024", RescaleSlope="1")


def report(spec: ImageSpec) -> bytes:
    """Make a structured report."""
    ds = header_of(spec)
    for name in (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
    ):
        delattr(ds, name)
    ds.Modality, ds.SOPClassUID, ds.ValueType = "SR", uids.BasicTextSRStorage, "CONTAINER"
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.TextValue = f"{spec.study.patient.name}: no fracture."
    ds.ContentSequence = [finding]
    set_meta(ds, spec.syntax)
    return to_bytes(ds)


def no_pixels(spec: ImageSpec) -> bytes:
    """Make a complete header without pixels."""
    return to_bytes(header_of(spec))


def burned_in(spec: ImageSpec) -> bytes:
    """Text in the pixels, and declared."""
    return file_of(spec, BurnedInAnnotation="YES")


def blank(spec: ImageSpec) -> bytes:
    """Make a constant with the faintest noise."""
    noise = np.random.default_rng(spec.seed).normal(0, 1.0, (spec.height, spec.width))
    return file_of(spec, np.rint(2 ** (spec.bits - 1) + noise).astype(np.uint16))


def small_content(spec: ImageSpec) -> bytes:
    """Make a bright label, a quarter percent of the area, in an empty field without noise."""
    picture = np.zeros((spec.height, spec.width), np.uint16)
    row, col = spec.height // 8, spec.width // 8
    picture[row : row + spec.height // 20, col : col + spec.width // 20] = int(0.9 * 2**spec.bits)
    return file_of(spec, stored(spec, picture))


def too_small(spec: ImageSpec) -> bytes:
    """16 x 16 pixels."""
    return sound_bytes(replace(spec, height=16, width=16))


def too_large(spec: ImageSpec) -> bytes:
    """Make a side longer than the largest allowed, whatever the export's scale."""
    return sound_bytes(replace(spec, height=3200, width=300))


def for_processing(spec: ImageSpec) -> bytes:
    """Make the raw twin: linear where the presented one is enhanced, air bright, no window."""
    full = 2**spec.bits - 1
    share = radiograph_of(spec).astype(np.float32) / full
    raw = np.rint(full * np.exp(-2.2 * share)).astype(np.uint16)
    ds = header(replace(spec, photometric="MONOCHROME1"))
    set_pixels(ds, raw, spec.syntax)
    ds.PresentationIntentType = "FOR PROCESSING"
    ds.SOPClassUID = uids.DigitalXRayImageStorageForProcessing
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    del ds.WindowCenter, ds.WindowWidth
    return to_bytes(ds)


# ---- odd, and written


def wrong_photometric(spec: ImageSpec) -> bytes:
    """Make a tag say the opposite of the pixels."""
    other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
    return file_of(spec, PhotometricInterpretation=other[spec.photometric])


def no_patient_id(spec: ImageSpec) -> bytes:
    """No patient ID."""
    ds = pixels_in(spec)
    del ds.PatientID
    return to_bytes(ds)


def exceeding(spec: ImageSpec) -> bytes:
    """BitsStored says one bit less than the picture has: its brighter half lies above the declared range."""
    return file_of(spec, BitsStored=spec.bits - 1, HighBit=spec.bits - 2)


def high_bits(spec: ImageSpec) -> bytes:
    """Leave an old graphic in the first unused high bit, which nothing in the header declares."""
    return file_of(spec, stored(spec, radiograph_of(spec)) | (_graphic(spec) << np.uint16(spec.bits)))


def _graphic(spec: ImageSpec) -> U16:
    plane = np.zeros((spec.height, spec.width), np.uint16)
    plane[spec.height // 3 : spec.height // 3 + 4, spec.width // 4 : spec.width // 2] = 1
    return plane


def overlay(spec: ImageSpec) -> bytes:
    """Leave a graphic in the first unused high bit, declared as overlay plane 6000 the old way."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)) | (_graphic(spec) << np.uint16(spec.bits)), spec.syntax)
    ds.add_new(0x60000010, "US", spec.height)
    ds.add_new(0x60000011, "US", spec.width)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", spec.bits)
    return to_bytes(ds)
