"""What decoders that are not ours make of a file, and whether that is what was written.

pydicom with each of its plugins reads the stored values once, GDCM once more with a parser of its own. Both run in a
child process: native decoders crash. A decoder that complains of damaged data while it decodes has read nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.uid as uids
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from tools.fuzz.rules import Ints, modality_table, uniform

COMPLAINS = "complains: "
_DAMAGE = re.compile(rb"corrupt|premature|damaged|malformed|failed", re.IGNORECASE)
_BY_HEADER = ("gdcm", "pillow")  # plugins left out: GDCM is asked itself, Pillow has the libraries that we have
_WRAPS = "pydicom pylibjpeg"
_DCT = (uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit)
_J2K = (uids.JPEG2000, uids.JPEG2000Lossless, uids.HTJ2K, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one decoder made of a file.

    Attributes
    ----------
    decoder
        Its name.
    values
        (rows, cols), None where there are none.
    failure
        Why there are none.
    bits, signed
        Depth and sign by the stream, where the decoder tells.
    """

    decoder: str
    values: Ints | None
    failure: str = ""
    bits: int | None = None  # by the stream, where the decoder tells
    signed: bool | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one decoder says of written pixels.

    Attributes
    ----------
    decoder
        Its name.
    verdict
        "equal", "within 1", "differs" or "raises".
    detail
        Words for people.
    """

    decoder: str
    verdict: str
    detail: str = ""


def readings(data: bytes, decoders: tuple[str, ...] = ("pydicom", "gdcm")) -> list[Reading]:
    """Return every independent decoder's reading of the file's only frame."""
    found = list(_by_pydicom(data)) if "pydicom" in decoders else []
    return [*found, _by_gdcm(data)] if "gdcm" in decoders else found


# ---- the decoders


def _header(data: bytes) -> Dataset:
    ds = pydicom.dcmread(BytesIO(data), force=True)
    if "PixelData" not in ds:  # fragments without an end: they may yet lack only the delimiter
        ds = pydicom.dcmread(BytesIO(data + b"\xfe\xff\xdd\xe0\0\0\0\0"), force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        native = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
        ds.file_meta.TransferSyntaxUID = native if little else uids.ExplicitVRBigEndian
    if ds.get("NumberOfFrames") in (0, ""):
        del ds.NumberOfFrames
    return ds


def _by_pydicom(data: bytes) -> Iterator[Reading]:
    try:
        ds = _header(data)
        syntax = ds.file_meta.TransferSyntaxUID
        plugins = [""]
        if syntax.is_encapsulated:
            plugins = [p for p in get_decoder(syntax).available_plugins if p not in _BY_HEADER]
    except Exception as error:
        yield Reading("pydicom", None, type(error).__name__)
        return
    for plugin in plugins:
        with _complaints() as said:
            try:
                values, failure = pixel_array(ds, raw=True, decoding_plugin=plugin).astype(np.int64), ""
            except BaseException as error:  # a panic in a Rust library is no Exception
                values, failure = None, f"{type(error).__name__}: {' '.join(str(error).split())[-60:]}"
        if damage := _damage(said):
            values, failure = None, damage
        if values is not None and values.ndim == 3:  # an element twice as long is two frames to it
            values = values[0]
        yield Reading(f"pydicom {plugin}".strip(), values, failure)


def _words(ds: Dataset) -> Reading:
    """Read native words as they stand, because decoders mask what lies above BitsStored."""
    order = "<" if ds.original_encoding[1] else ">"
    count = int(ds.Rows) * int(ds.Columns)
    values = np.frombuffer(ds.PixelData, f"{order}u{int(ds.BitsAllocated) // 8}", count)
    return Reading("words", values.reshape(int(ds.Rows), int(ds.Columns)).astype(np.int64))


def _by_gdcm(data: bytes) -> Reading:
    import gdcm  # type: ignore[import-untyped]

    with tempfile.NamedTemporaryFile(suffix=".dcm") as file, _complaints() as said:
        file.write(_usual_high_bit(data))
        file.flush()
        reader = gdcm.ImageReader()
        reader.SetFileName(file.name)
        if not reader.Read():
            return Reading("gdcm", None, "cannot read the file")
        image = reader.GetImage()
        form = image.GetPixelFormat()
        name, bits, signed = (
            form.GetScalarTypeAsString(),
            int(form.GetBitsStored()),
            bool(form.GetPixelRepresentation()),
        )
        cols, rows = image.GetDimension(0), image.GetDimension(1)
        try:
            buffer = image.GetBuffer()
        except Exception as error:
            return Reading("gdcm", None, type(error).__name__)
    if damage := _damage(said):
        return Reading("gdcm", None, damage)
    raw = buffer.encode("utf-8", "surrogateescape") if buffer else b""
    try:
        values = np.frombuffer(raw, np.dtype(name.lower())).reshape(rows, cols).astype(np.int64)
    except (TypeError, ValueError):
        return Reading("gdcm", None, "no pixels, or not rows x columns")
    return Reading("gdcm", values, "", bits, signed)


def _usual_high_bit(data: bytes) -> bytes:
    """Set HighBit to BitsStored - 1: where the two disagree GDCM shifts what lossless JPEG gives.

    A stream's values are aligned to the right whatever HighBit says, and pydicom takes all values as such.
    """
    for form in (b"\x28\x00%c\x01US\x02\x00", b"\x28\x00%c\x01\x02\x00\x00\x00"):
        bits, high = (data.find(form % element) + 8 for element in (1, 2))
        if min(bits, high) > 8:
            value = int.from_bytes(data[bits : bits + 2], "little") - 1
            return data[:high] + (value & 0xFFFF).to_bytes(2, "little") + data[high + 2 :]
    return data


@contextmanager
def _complaints() -> Iterator[list[bytes]]:
    """Collect what native code prints meanwhile, in a list that holds it afterwards: it warns of damage only there."""
    found: list[bytes] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield found
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            found.append(said.read())


def _damage(said: list[bytes]) -> str:
    found = _DAMAGE.search(text := b"".join(said))
    return f"{COMPLAINS}{text[found.start() :][:60].decode(errors='replace').splitlines()[0]}" if found else ""


# ---- the comparison


def opinions(
    data: bytes,
    written: npt.NDArray[np.uint16],
    bits: int,
    either_sense: bool,
    deeper: bool,
    decoders: tuple[str, ...] = ("pydicom", "gdcm"),
) -> list[Opinion]:
    """Return what each decoder says of written pixels.

    Parameters
    ----------
    data
        The file that they were made from.
    written, bits
        (rows, cols), and their depth.
    either_sense
        Accept the inverted image, too: for files flagged as having a doubtful polarity.
    deeper
        Accept values that are not reduced to the header's depth: for files flagged as exceeding it.
    decoders
        Which of them to ask.
    """
    found = readings(data, decoders)
    try:
        ds = _header(data)
        ours = (int(ds.get("BitsStored") or ds.BitsAllocated), ds.get("PixelRepresentation") == 1)
        step = _rounding(ds) if _loses(ds) else 0
    except Exception as error:
        return [Opinion("pydicom", "raises", type(error).__name__)]
    # Where stream and header disagree on depth and sign, either may be right.
    told = [(r.bits, r.signed) for r in found if r.bits is not None and r.signed is not None]
    senses = dict.fromkeys([ours, *told, *((ours[0], signed) for _, signed in told), *((b, ours[1]) for b, _ in told)])
    if deeper:
        senses[bits, ours[1]] = None
        if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
            found.append(_words(ds))
    out = []
    for reading in found:
        if reading.values is None:
            out.append(Opinion(reading.decoder, "raises", reading.failure))
            continue
        verdicts = []
        # pydicom's plugin wraps a DCT's overshoot around, where others clip it: at the ends it is not asked.
        ends = (written <= 1) | (written >= (1 << bits) - 2) if reading.decoder == _WRAPS and _dct(ds) else False
        for sense in senses:
            try:
                pixels, depth, near = uniform(reading.values, ds, *sense)
                verdicts.append(_compared(pixels, depth, near | ends, written, bits, either_sense, step))
            except Exception as error:
                verdicts.append(("raises", f"{type(error).__name__}: {error}"))
        best = min(verdicts, key=lambda v: ("equal", "within 1", "differs", "raises").index(v[0]))
        out.append(Opinion(reading.decoder, *best))
    return out


def _compared(
    pixels: Ints,
    depth: int,
    near: npt.NDArray[np.bool_],
    written: npt.NDArray[np.uint16],
    bits: int,
    either_sense: bool,
    step: int,
) -> tuple[str, str]:
    if pixels.shape != written.shape:
        return "differs", f"{pixels.shape} pixels, written {written.shape}"
    if depth != bits:
        return "differs", f"{depth} bits, written {bits}"
    off = np.abs(pixels - written.astype(np.int64))
    if either_sense:
        off = np.minimum(off, np.abs((1 << bits) - 1 - pixels - written.astype(np.int64)))
    if not off.any():
        return "equal", ""
    # A few pixels may differ by two: a rounding inside the transform comes before the one at its end.
    if off[~near].max(initial=0) <= 2 * step and (off[~near] > step).mean() < 1e-3:
        return "within 1", ""
    return "differs", f"{100 * float((off > step).mean()):.1f} % of pixels, by up to {int(off.max())} of {bits} bits"


def _rounding(ds: Dataset) -> int:
    """Return how many grey levels one stored value makes: 1, or the steepest step of a Modality LUT."""
    table = modality_table(ds, ds.get("PixelRepresentation") == 1)
    return 1 if table is None else max(1, int(np.abs(np.diff(table[1])).max(initial=1)))


def _dct(ds: Dataset) -> bool:
    return ds.file_meta.TransferSyntaxUID in _DCT


def _loses(ds: Dataset) -> bool:
    """Return whether decoders may round differently: DCT, or the irreversible wavelet."""
    if _dct(ds):
        return True
    if ds.file_meta.TransferSyntaxUID not in _J2K:
        return False
    stream = bytes(ds.get("PixelData") or b"")
    at = stream.find(b"\xff\x52")
    return at >= 0 and at + 13 < len(stream) and stream[at + 13] == 0
