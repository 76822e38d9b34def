"""How files break: one small function a kind, from a sound file's spec to a defective file's bytes."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
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


def file_of(spec: ImageSpec, pixels: U16 | None = None, **tags: object) -> bytes:
    """Make a file with `pixels` as stored values (default: the radiograph) and `tags` set last, after encoding."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)) if pixels is None else pixels, spec.syntax)
    for name, value in tags.items():
        setattr(ds, name, value)
    return to_bytes(ds)


def header_of(spec: ImageSpec) -> Dataset:
    """Make a header with file meta and no pixels."""
    ds = header(spec)
    set_meta(ds, spec.syntax)
    return ds


# ---- not DICOM at all


def empty(spec: ImageSpec) -> bytes:
    """Nothing at all."""
    return b""


def text(spec: ImageSpec) -> bytes:
    """Make a log file, with a patient's name in it."""
    person = spec.study.patient
    return f"export log\r\n{spec.study.date} sent {person.name} ({person.number}) to archive: ok\r\n".encode() * 20


def zip_archive(spec: ImageSpec) -> bytes:
    """Make a zip file, as an office document is one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{spec.study.patient.family}.txt", (2019, 1, 1, 0, 0, 0)), text(spec))
    return out.getvalue()


def gzipped(spec: ImageSpec) -> bytes:
    """Make a sound file, compressed to save space."""
    return gzip.compress(sound_bytes(spec), mtime=0)


def apple_double(spec: ImageSpec) -> bytes:
    """Make what macOS writes beside a file on a foreign disk: Finder facts, here with where it came from."""
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
    """Make a code stream whose first half is overwritten: no SOI, no tables."""
    ds = pixels_in(spec)
    stream = _stream(ds)
    set_stream(ds, bytes(range(1, 251)) * (len(stream) // 500 + 1) + stream[len(stream) // 2 :])
    return to_bytes(ds)


def pixels_in(spec: ImageSpec) -> Dataset:
    """Make a data set of the radiograph, encoded in its transfer syntax."""
    ds = header(spec)
    set_pixels(ds, stored(spec, radiograph_of(spec)), spec.syntax)
    return ds


def _stream(ds: Dataset) -> bytes:
    return bytes(next(generate_frames(ds.PixelData, number_of_frames=1)))


def hole(spec: ImageSpec) -> bytes:
    """Forty bytes in the middle of the coded data are zero."""
    ds = pixels_in(spec)
    stream = bytearray(_stream(ds))
    middle = len(stream) // 2
    stream[middle : middle + 40] = bytes(40)
    set_stream(ds, bytes(stream))
    return to_bytes(ds)


def double_length(spec: ImageSpec) -> bytes:
    """Make a header that says 8 bits a sample, where the data have 16."""
    return file_of(spec, BitsAllocated=8, BitsStored=8, HighBit=7)


def no_rows(spec: ImageSpec) -> bytes:
    """Leave out a required tag."""
    ds = pixels_in(spec)
    del ds.Rows
    return to_bytes(ds)


def two_rows(spec: ImageSpec) -> bytes:
    """Give a required tag two values."""
    return file_of(spec, Rows=[spec.height, 0])


def huge_claim(spec: ImageSpec) -> bytes:
    """Make a header that promises 65535 x 65535 pixels and brings 256 bytes."""
    ds = header_of(spec)
    ds.Rows = ds.Columns = 65535
    ds.PixelData = bytes(256)
    ds["PixelData"].VR = "OW"
    return to_bytes(ds)


def other_dimensions(spec: ImageSpec) -> bytes:
    """Make a header whose size is not the code stream's."""
    return file_of(spec, Rows=spec.height + 16, Columns=spec.width + 8)


# ---- repairable


def no_meta(spec: ImageSpec) -> bytes:
    """Neither preamble nor file meta: the file starts with its data set."""
    return _data_set(sound_bytes(spec))


def wrong_syntax(spec: ImageSpec) -> bytes:
    """Make a file meta of implicit VR beside an explicit data set: seen where only the file meta was rewritten."""
    return declare(sound_bytes(spec), str(uids.ImplicitVRLittleEndian))


def declare(data: bytes, syntax: str) -> bytes:
    """Make a file with another transfer syntax in its file meta and the same data set."""
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
    """Make a comment segment between the last tile's data and EOC, as one vendor writes it."""
    ds = pixels_in(spec)
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
    ds = pixels_in(spec)
    set_stream(ds, lossless_jpeg.encode(stored(spec, radiograph_of(spec)), spec.bits, predictor=4, restart_rows=8))
    return to_bytes(ds)


def zero_sos(spec: ImageSpec) -> bytes:
    """Make a sequential 12-bit JPEG whose scan header says Se = 0 (63 is right): NEMA's own files have it."""
    ds = pixels_in(spec)
    stream = bytearray(_stream(ds))
    stream[stream.index(b"\xff\xda\x00\x08\x01") + 8] = 0
    set_stream(ds, bytes(stream))
    return to_bytes(ds)
