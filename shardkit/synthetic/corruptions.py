"""How files break: one small function a kind, from a sound file's spec to a defective file's bytes."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from shardkit.synthetic import lossless_jpeg
from shardkit.synthetic.records import (
    ImageSpec,
    header,
    radiograph_of,
    set_meta,
    set_pixels,
    set_stream,
    sound_bytes,
    stored,
    to_bytes,
)

U16: TypeAlias = npt.NDArray[np.uint16]


def _file(spec: ImageSpec, pixels: U16 | None = None, **tags: object) -> bytes:
    """A file with `pixels` as stored values (default: the radiograph) and `tags` set last, after encoding."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)) if pixels is None else pixels, spec.syntax)
    for name, value in tags.items():
        setattr(ds, name, value)
    return to_bytes(ds)


def _headless(spec: ImageSpec) -> Dataset:
    """A header with file meta and no pixels."""
    ds = header(spec)
    set_meta(ds, spec.syntax)
    return ds


# ---- not DICOM at all


def empty(spec: ImageSpec) -> bytes:
    """Nothing at all."""
    return b""


def text(spec: ImageSpec) -> bytes:
    """A log file, with a patient's name in it."""
    person = spec.study.patient
    return f"export log\r\n{spec.study.date} sent {person.name} ({person.number}) to archive: ok\r\n".encode() * 20


def zip_archive(spec: ImageSpec) -> bytes:
    """An archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{spec.study.patient.family}.txt", (2019, 1, 1, 0, 0, 0)), text(spec))
    return out.getvalue()


def gzipped(spec: ImageSpec) -> bytes:
    """A sound file, compressed to save space."""
    return gzip.compress(sound_bytes(spec), mtime=0)


def apple_double(spec: ImageSpec) -> bytes:
    """What macOS writes beside a file on a disk that is not its own: Finder facts, here with where it came from."""
    origin = f"https://pacs.example/{spec.study.patient.number}".encode()
    entry = struct.pack(">3I", 9, 38, len(origin))
    return b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x01" + entry + origin


# ---- broken on the way


def cut(spec: ImageSpec) -> bytes:
    """Cut at 60 % of the pixel data: native values missing, or the frame's fragment unfinished."""
    data = sound_bytes(spec)
    start = data.rindex(b"\xe0\x7f\x10\x00")  # the Pixel Data tag; a random match would only cut later
    return data[: start + int(0.6 * (len(data) - start))]


def garbage(spec: ImageSpec) -> bytes:
    """A code stream whose first half is overwritten: no SOI, no tables."""
    ds = _pixels_in(spec)
    stream = _stream(ds)
    set_stream(ds, bytes(range(1, 251)) * (len(stream) // 500 + 1) + stream[len(stream) // 2 :])
    return to_bytes(ds)


def _pixels_in(spec: ImageSpec) -> Dataset:
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)), spec.syntax)
    return ds


def _stream(ds: Dataset) -> bytes:
    return bytes(next(generate_frames(ds.PixelData, number_of_frames=1)))


def hole(spec: ImageSpec) -> bytes:
    """Forty bytes in the middle of the coded data are zero."""
    ds = _pixels_in(spec)
    stream = bytearray(_stream(ds))
    middle = len(stream) // 2
    stream[middle : middle + 40] = bytes(40)
    set_stream(ds, bytes(stream))
    return to_bytes(ds)


def double_length(spec: ImageSpec) -> bytes:
    """The header says 8 bits a sample, the data have 16."""
    return _file(spec, BitsAllocated=8, BitsStored=8, HighBit=7)


def no_rows(spec: ImageSpec) -> bytes:
    """A required tag is missing."""
    ds = _pixels_in(spec)
    del ds.Rows
    return to_bytes(ds)


def two_rows(spec: ImageSpec) -> bytes:
    """A required tag has two values."""
    return _file(spec, Rows=[spec.height, 0])


def huge_claim(spec: ImageSpec) -> bytes:
    """The header promises 65535 x 65535 pixels and brings 256 bytes."""
    ds = _headless(spec)
    ds.Rows = ds.Columns = 65535
    ds.PixelData = bytes(256)
    ds["PixelData"].VR = "OW"
    return to_bytes(ds)


def other_dimensions(spec: ImageSpec) -> bytes:
    """The header's size is not the code stream's."""
    return _file(spec, Rows=spec.height + 16, Columns=spec.width + 8)


# ---- repairable


def no_meta(spec: ImageSpec) -> bytes:
    """Neither preamble nor file meta: the file starts with its data set."""
    return _data_set(sound_bytes(spec))


def wrong_syntax(spec: ImageSpec) -> bytes:
    """The file meta says implicit VR, the data set is explicit: seen where only the file meta was rewritten."""
    return declare(sound_bytes(spec), str(uids.ImplicitVRLittleEndian))


def declare(data: bytes, syntax: str) -> bytes:
    """A file with another transfer syntax in its file meta and the same data set."""
    meta = dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta
    meta.TransferSyntaxUID = uids.UID(syntax)
    out = DicomBytesIO(data[:132])
    out.seek(132)
    write_file_meta_info(out, meta)
    return out.getvalue() + _data_set(data)


def _data_set(data: bytes) -> bytes:
    length = int.from_bytes(data[140:144], "little")  # value of (0002,0000), after 128 + "DICM" + 8 bytes of element
    return data[144 + length :]


def padded_j2k(spec: ImageSpec) -> bytes:
    """A comment segment between the last tile's data and EOC, as one vendor writes it."""
    ds = _pixels_in(spec)
    stream = _stream(ds)
    end = stream.rindex(b"\xff\xd9")
    comment = b"PADDING" + bytes(25)
    set_stream(
        ds,
        stream[:end] + b"\xff\x64" + (len(comment) + 4).to_bytes(2, "big") + b"\0\0" + comment + b"\xff\xd9",
    )
    return to_bytes(ds)


def restarts(spec: ImageSpec) -> bytes:
    """Lossless JPEG with predictor 4 and a restart interval of eight rows."""
    ds = _pixels_in(spec)
    set_stream(ds, lossless_jpeg.encode(stored(spec, radiograph_of(spec)), spec.bits, predictor=4, restart_rows=8))
    return to_bytes(ds)


def zero_sos(spec: ImageSpec) -> bytes:
    """A sequential 12-bit JPEG whose scan header says Se = 0 (63 is right): NEMA's own files have it."""
    ds = _pixels_in(spec)
    stream = bytearray(_stream(ds))
    stream[stream.index(b"\xff\xda\x00\x08\x01") + 8] = 0
    set_stream(ds, bytes(stream))
    return to_bytes(ds)


# ---- odd, but sound


def no_modality(spec: ImageSpec) -> bytes:
    """Few tags are left of it: of what made it, only the file meta's SOP class tells."""
    ds = _pixels_in(spec)
    del ds.Modality, ds.SOPClassUID
    return to_bytes(ds)


# ---- dropped by a rule


def rgb(spec: ImageSpec) -> bytes:
    """A colour picture."""
    grey = (radiograph_of(spec) >> max(spec.bits - 8, 0)).astype(np.uint8)
    ds = _headless(replace(spec, bits=8))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    data = np.stack([grey, grey, grey // 2], -1).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
    return to_bytes(ds)


def multiframe(spec: ImageSpec) -> bytes:
    """Three frames."""
    picture = stored(spec, radiograph_of(spec))
    ds = _headless(spec)
    ds.NumberOfFrames = 3
    ds.PixelData = np.stack([picture, picture[::-1], picture]).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return to_bytes(ds)


def ct(spec: ImageSpec) -> bytes:
    """A CT slice."""
    return _file(spec, Modality="CT", SOPClassUID=uids.CTImageStorage, RescaleIntercept="-1024", RescaleSlope="1")


def report(spec: ImageSpec) -> bytes:
    """A structured report."""
    ds = _headless(spec)
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
    """A complete header without pixels."""
    return to_bytes(_headless(spec))


def burned_in(spec: ImageSpec) -> bytes:
    """Text in the pixels, and declared."""
    return _file(spec, BurnedInAnnotation="YES")


def blank(spec: ImageSpec) -> bytes:
    """A constant with the faintest noise."""
    noise = np.random.default_rng(spec.seed).normal(0, 1.0, (spec.height, spec.width))
    return _file(spec, np.rint(2 ** (spec.bits - 1) + noise).astype(np.uint16))


def small_content(spec: ImageSpec) -> bytes:
    """A bright label, a quarter percent of the area, in an empty field without noise."""
    picture = np.zeros((spec.height, spec.width), np.uint16)
    row, col = spec.height // 8, spec.width // 8
    picture[row : row + spec.height // 20, col : col + spec.width // 20] = int(0.9 * 2**spec.bits)
    return _file(spec, stored(spec, picture))


def too_small(spec: ImageSpec) -> bytes:
    """16 x 16 pixels."""
    return sound_bytes(replace(spec, height=16, width=16))


def too_large(spec: ImageSpec) -> bytes:
    """A side longer than the largest allowed, whatever the export's scale."""
    return sound_bytes(replace(spec, height=3200, width=300))


def for_processing(spec: ImageSpec) -> bytes:
    """The raw twin: linear where the presented one is enhanced, air bright, no window."""
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
    """The tag says the opposite of the pixels."""
    other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
    return _file(spec, PhotometricInterpretation=other[spec.photometric])


def no_patient_id(spec: ImageSpec) -> bytes:
    """No patient ID."""
    ds = _pixels_in(spec)
    del ds.PatientID
    return to_bytes(ds)


def exceeding(spec: ImageSpec) -> bytes:
    """BitsStored says one bit less than the picture has: its brighter half lies above the declared range."""
    return _file(spec, BitsStored=spec.bits - 1, HighBit=spec.bits - 2)


def high_bits(spec: ImageSpec) -> bytes:
    """An old graphic left in the first unused high bit, which nothing in the header declares."""
    return _file(spec, stored(spec, radiograph_of(spec)) | (_graphic(spec) << np.uint16(spec.bits)))


def _graphic(spec: ImageSpec) -> U16:
    plane = np.zeros((spec.height, spec.width), np.uint16)
    plane[spec.height // 3 : spec.height // 3 + 4, spec.width // 4 : spec.width // 2] = 1
    return plane


def overlay(spec: ImageSpec) -> bytes:
    """A graphic in the first unused high bit, declared as overlay plane 6000 the old way."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)) | (_graphic(spec) << np.uint16(spec.bits)), spec.syntax)
    ds.add_new(0x60000010, "US", spec.height)
    ds.add_new(0x60000011, "US", spec.width)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", spec.bits)
    return to_bytes(ds)
