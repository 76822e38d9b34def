"""What goes wrong with a file: one small function a kind. Every mutant is a pure function of (seed, index).

A mutation works on a `Draft`, a file taken apart: header, pixels, framing. Those of `ON_FILE` work on finished bytes.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uids
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from tools.fuzz.markers import ON_MARKERS
from tools.fuzz.seeds import POOL, SYNTAXES, Seed, real, synthetic

Rng = np.random.Generator
_REAL_SHARE = 0.15


class Unfit(Exception):
    """The mutation does not go with this file: another is drawn."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file. `what` says how, in order."""

    index: int
    codec: str
    seed: str
    what: tuple[str, ...]
    data: bytes


@dataclass(slots=True)
class Draft:
    """A file on its way. `fragments` are the lengths that a stream is split into; `table` is the offset table."""

    dataset: Dataset
    pixels: bytes
    native: bool
    fragments: tuple[int, ...] = ()
    table: bytes = b""
    delimiter: bool = True
    encoding: tuple[bool, bool] | None = None  # (implicit, little endian), where the syntax is not to decide
    done: list[str] = field(default_factory=list)


def mutant(seed: int, index: int, folder: Path | None = None) -> Mutant:
    """Mutant `index` of a run, whatever else is made. `folder` holds real files; without them synthetic ones stand in."""
    rng = np.random.default_rng((seed, index))
    number, share = int(rng.integers(POOL)), rng.random()
    found = real(folder) if folder is not None else ()
    source = found[int(rng.integers(len(found)))]() if found and share < _REAL_SHARE else synthetic(number)
    for _ in range(20):
        try:
            return _mutant(source, index, rng)
        except Unfit:
            continue
    raise AssertionError(f"no mutation goes with {source.name}")


def _mutant(source: Seed, index: int, rng: Rng) -> Mutant:
    draft = Draft(copy.deepcopy(source.dataset), source.pixels, source.native)
    on_file: list[Callable[[bytes, Rng], tuple[str, bytes]]] = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.75, 0.2, 0.05]))):
        family = rng.choice(["pixels", "markers", "header", "framing", "file"], p=[0.38, 0.22, 0.18, 0.1, 0.12])
        if family == "file":
            on_file.append(ON_FILE[int(rng.integers(len(ON_FILE)))])
        elif family == "header":
            draft.done.append(HEADER[int(rng.integers(len(HEADER)))](draft, rng))
        elif family == "framing":
            draft.done.append(FRAMING[int(rng.integers(len(FRAMING)))](draft, rng))
        elif family == "markers" and not draft.native and str(source.syntax) != uids.RLELossless:
            change = ON_MARKERS[int(rng.integers(len(ON_MARKERS)))](draft.pixels, rng)
            if change is None:
                raise Unfit
            draft.done.append(change[0])
            draft.pixels = change[1]
        else:
            what, draft.pixels = ON_PIXELS[int(rng.integers(len(ON_PIXELS)))](draft.pixels, rng)
            draft.done.append(what)
    data = _written(draft)
    for change_file in on_file:
        what, data = change_file(data, rng)
        draft.done.append(what)
    return Mutant(index, source.codec, source.name, tuple(draft.done), data)


def _written(draft: Draft) -> bytes:
    ds = draft.dataset
    ds.PixelData = draft.pixels + b"\0" * (len(draft.pixels) % 2) if draft.native else _encapsulated(draft)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    words = (uids.ImplicitVRLittleEndian, uids.ExplicitVRBigEndian)
    ds["PixelData"].VR = "OW" if syntax in words or (draft.native and ds.get("BitsAllocated") != 8) else "OB"
    ds["PixelData"].is_undefined_length = not draft.native
    out = BytesIO()
    try:
        with disable_value_validation():
            if draft.encoding is None:
                dcmwrite(out, ds, enforce_file_format=True)
            else:
                implicit, little = draft.encoding
                dcmwrite(out, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)
    except Exception:  # pydicom refuses to write it
        raise Unfit from None
    return out.getvalue() if draft.delimiter else out.getvalue().removesuffix(b"\xfe\xff\xdd\xe0\0\0\0\0")


def _encapsulated(draft: Draft) -> bytes:
    parts, at = [_item(draft.table)], 0
    for length in (*draft.fragments, len(draft.pixels) - sum(draft.fragments)):
        part = draft.pixels[at : at + length]
        parts.append(_item(part + b"\0" * (len(part) % 2)))
        at += length
    return b"".join(parts)


def _item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


# ---- on the pixel bytes, native or compressed


def _place(data: bytes, rng: Rng) -> int:
    """An offset: anywhere, or near either end, where headers and end markers lie."""
    if len(data) < 64:
        raise Unfit
    kind = rng.random()
    if kind < 0.15:
        return int(rng.integers(min(256, len(data))))
    return int(rng.integers(len(data))) if kind < 0.9 else len(data) - 1 - int(rng.integers(32))


def _flips(data: bytes, rng: Rng) -> tuple[str, bytes]:
    out, count = bytearray(data), int(rng.choice([1, 2, 8]))
    places = [_place(data, rng) for _ in range(count)]
    for at in places:
        out[at] ^= 1 << int(rng.integers(8))
    return f"{count} bits flipped at {places[:3]}", bytes(out)


def _hole(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at, length, fill = _place(data, rng), int(rng.choice([4, 64, 512, 2048])), int(rng.choice([0, 0, 255]))
    piece = data[at : at + length]
    return f"{len(piece)} bytes set to {fill} at {at} of {len(data)}", data[:at] + bytes([fill]) * len(piece) + data[at + length :]


def _cut(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at = _place(data, rng)
    return f"cut at {at} of {len(data)}", data[:at]


def _cut_then_closed(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at = _place(data, rng)
    return f"cut at {at} of {len(data)}, closed by FFD9", data[:at] + b"\xff\xd9"


def _inserted(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at, count = _place(data, rng), int(rng.choice([1, 2, 7, 100]))
    return f"{count} bytes inserted at {at} of {len(data)}", data[:at] + rng.bytes(count) + data[at:]


def _deleted(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at, count = _place(data, rng), int(rng.choice([1, 2, 7, 100]))
    return f"{count} bytes deleted at {at} of {len(data)}", data[:at] + data[at + count :]


def _swapped(data: bytes, rng: Rng) -> tuple[str, bytes]:
    size = int(rng.choice([16, 256, 1024]))
    if len(data) < 3 * size:
        raise Unfit
    a = int(rng.integers(len(data) - 2 * size))
    b = int(rng.integers(a + size, len(data) - size + 1))
    return (
        f"{size} bytes swapped between {a} and {b}",
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :],
    )


def _padded(data: bytes, rng: Rng) -> tuple[str, bytes]:
    count, fill = int(rng.choice([1, 2, 70, 300, len(data)])), int(rng.integers(3))
    tail = (bytes(count), b"\xff" * count, rng.bytes(count))[fill]
    return f"{count} bytes of {('zeros', 'FF', 'noise')[fill]} after the end", data + tail


ON_PIXELS = (_flips, _flips, _hole, _hole, _cut, _cut_then_closed, _inserted, _deleted, _swapped, _padded)


# ---- on the header

_NUMBERS = {
    "Rows": (1, 2, 63, 64, 65535),
    "Columns": (1, 2, 63, 64, 65535),
    "BitsAllocated": (1, 8, 12, 16, 32),
    "BitsStored": (1, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17),
    "HighBit": (0, 7, 8, 11, 12, 14, 15, 31),
    "PixelRepresentation": (0, 1, 2),
    "SamplesPerPixel": (0, 1, 2, 3),
    "NumberOfFrames": (0, 1, 2, 1000),
    "PixelPaddingValue": (0, 1, 255, 1000, 4095, 65535),
    "PixelPaddingRangeLimit": (0, 100, 65535),
}
_TEXTS = {
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "MONOCHROME2 \0", "YBR_FULL_422", ""),
    "RescaleSlope": ("1", "-1", "0", "2.5", "", "x", "1e400"),
    "RescaleIntercept": ("0", "-1024", "nan", "x"),
    "PresentationLUTShape": ("IDENTITY", "INVERSE"),
    "Modality": ("DX", "CT", "SR", "", "OT\\DX"),
    "PlanarConfiguration": (0, 1),
}


def _number(draft: Draft, rng: Rng) -> str:
    name = str(rng.choice(list(_NUMBERS)))
    value = int(rng.choice(_NUMBERS[name]))
    setattr(draft.dataset, name, value)
    return f"{name} = {value}"


def _text(draft: Draft, rng: Rng) -> str:
    name = str(rng.choice(list(_TEXTS)))
    value = _TEXTS[name][int(rng.integers(len(_TEXTS[name])))]
    if value in ("x", "1e400"):  # pydicom takes no such number, but reads any text
        draft.dataset.add_new(name, "LO", value)
    else:
        with disable_value_validation():
            setattr(draft.dataset, name, value)
    return f"{name} = {value!r}"


def _size(draft: Draft, rng: Rng) -> str:
    ds, kind = draft.dataset, int(rng.integers(4))
    if kind == 0:
        ds.Rows, ds.Columns = ds.Columns, ds.Rows
        return "Rows and Columns exchanged"
    if kind == 1:
        ds.Rows, ds.Columns = max(1, ds.Rows // 2), min(65535, ds.Columns * 2)
        return "half the Rows, twice the Columns"
    name, step = str(rng.choice(["Rows", "Columns"])), int(rng.choice([-8, -1, 1, 8]))
    setattr(ds, name, max(1, int(ds[name].value) + step))
    return f"{name} {step:+d}"


def _removed(draft: Draft, rng: Rng) -> str:
    names = [*_NUMBERS, *_TEXTS, "SOPClassUID", "PatientID"]
    name = str(rng.choice([name for name in names if name in draft.dataset]))
    delattr(draft.dataset, name)
    return f"without {name}"


def _other_syntax(draft: Draft, rng: Rng) -> str:
    label = str(rng.choice([*SYNTAXES, "private", "absent"]))
    if draft.encoding is not None:
        raise Unfit
    if label == "absent":
        draft.encoding = (draft.dataset.file_meta.TransferSyntaxUID == uids.ImplicitVRLittleEndian, True)
        del draft.dataset.file_meta.TransferSyntaxUID
        return "no transfer syntax"
    syntax = UID("1.2.840.113619.5.2") if label == "private" else SYNTAXES[label][0]
    if syntax == uids.DeflatedExplicitVRLittleEndian or draft.dataset.file_meta.TransferSyntaxUID in (
        uids.ExplicitVRBigEndian,
        uids.DeflatedExplicitVRLittleEndian,
    ):
        raise Unfit  # the writer would not just name it
    draft.encoding = (draft.dataset.file_meta.TransferSyntaxUID == uids.ImplicitVRLittleEndian, True)
    draft.dataset.file_meta.TransferSyntaxUID = syntax
    return f"declared as {label}"


def _other_encoding(draft: Draft, rng: Rng) -> str:
    """The data set is implicit where the syntax says explicit, or the reverse."""
    syntax = draft.dataset.file_meta.get("TransferSyntaxUID")
    if syntax in (uids.DeflatedExplicitVRLittleEndian, uids.ExplicitVRBigEndian) or draft.encoding is not None:
        raise Unfit
    implicit = syntax != uids.ImplicitVRLittleEndian
    draft.encoding = (implicit, True)
    return f"data set written {'implicit' if implicit else 'explicit'}"


def _modality_table(draft: Draft, rng: Rng) -> str:
    item, kind = Dataset(), int(rng.integers(4))
    if kind:
        count = int(rng.choice([4, 256, 4096]))
        item.add_new(0x00283002, "US", [count, int(rng.choice([0, 0, 100])), int(rng.choice([8, 12, 16, 99]))])
        table = np.sort(rng.integers(0, 4096, count if kind > 1 else count // 2)).astype("<u2")
        item.add_new(0x00283006, "OW", table.tobytes())
        item.ModalityLUTType = "US"
    draft.dataset.ModalityLUTSequence = [item]
    return ("Modality LUT without a descriptor", "Modality LUT too short", "a Modality LUT", "a Modality LUT")[kind]


def _marked_bits(draft: Draft, rng: Rng) -> str:
    """Something in the high bits that BitsStored leaves unused, at one corner or everywhere."""
    bits = draft.dataset.get("BitsStored")
    if not draft.native or draft.dataset.get("BitsAllocated") != 16 or not isinstance(bits, int) or bits > 15:
        raise Unfit
    order = ">u2" if draft.dataset.file_meta.get("TransferSyntaxUID") == uids.ExplicitVRBigEndian else "<u2"
    values = np.frombuffer(draft.pixels[: len(draft.pixels) // 2 * 2], order).copy()
    count = values.size if rng.random() < 0.5 else values.size // 8
    noise = rng.integers(0, 1 << (16 - bits), count).astype(np.uint16) << np.uint16(bits)
    values[:count] |= noise
    draft.pixels = values.tobytes()
    return f"noise above BitsStored in {count} pixels"


HEADER = (_number, _number, _number, _text, _text, _size, _removed, _other_syntax, _other_encoding, _modality_table, _marked_bits)


# ---- on the framing of a stream; of native data, its length


def _split(draft: Draft, rng: Rng) -> str:
    if draft.native or len(draft.pixels) < 64:
        raise Unfit
    cuts = np.sort(rng.integers(1, len(draft.pixels), int(rng.integers(1, 6)))) // 2 * 2
    draft.fragments = tuple(int(n) for n in np.diff(cuts, prepend=0))
    return f"split in {len(draft.fragments) + 1} fragments"


def _odd_split(draft: Draft, rng: Rng) -> str:
    """A fragment of odd length, which framing pads by a byte inside the stream."""
    if draft.native or len(draft.pixels) < 64:
        raise Unfit
    draft.fragments = (int(rng.integers(len(draft.pixels) // 2)) * 2 + 1,)
    return "split at an odd offset"


def _reordered(draft: Draft, rng: Rng) -> str:
    if draft.native or len(draft.pixels) < 64:
        raise Unfit
    half = len(draft.pixels) // 4 * 2
    draft.pixels = draft.pixels[half:] + draft.pixels[:half]
    draft.fragments = (len(draft.pixels) - half,)
    return "fragments in reverse order"


def _table(draft: Draft, rng: Rng) -> str:
    if draft.native:
        raise Unfit
    draft.table = rng.bytes(int(rng.choice([4, 8, 12, 3]))) if rng.random() < 0.7 else bytes(8)
    return f"garbage in the offset table ({len(draft.table)} bytes)"


def _no_delimiter(draft: Draft, rng: Rng) -> str:
    if draft.native:
        raise Unfit
    draft.delimiter = False
    return "no sequence delimiter"


def _doubled(draft: Draft, rng: Rng) -> str:
    draft.pixels = draft.pixels * 2
    return "pixels twice"


FRAMING = (_split, _odd_split, _reordered, _table, _no_delimiter, _doubled)


# ---- on the finished file


def _flips_anywhere(data: bytes, rng: Rng) -> tuple[str, bytes]:
    out, places = bytearray(data), [int(p) for p in rng.integers(128, max(129, min(len(data), 1400)), int(rng.choice([1, 3])))]
    for at in places:
        if at < len(out):
            out[at] ^= 1 << int(rng.integers(8))
    return f"bits flipped in the header at {places}", bytes(out)


def _file_cut(data: bytes, rng: Rng) -> tuple[str, bytes]:
    at = int(rng.integers(len(data)))
    return f"file cut at {at} of {len(data)}", data[:at]


def _file_extended(data: bytes, rng: Rng) -> tuple[str, bytes]:
    count = int(rng.choice([1, 2, 8, 1000]))
    return f"{count} bytes after the file", data + (bytes(count) if rng.random() < 0.5 else rng.bytes(count))


def _no_preamble(data: bytes, rng: Rng) -> tuple[str, bytes]:
    return "no preamble", data[132:]


def _element(data: bytes, rng: Rng) -> tuple[int, RawDataElement]:
    """(tag, raw element) of one element of the pixel module, of the pixel data, or of any other."""
    try:
        ds = pydicom.dcmread(BytesIO(data), force=True)
        raw = [(int(tag), ds.get_item(tag)) for tag in ds.keys()]  # noqa: SIM118  # iterating would convert them
    except Exception:
        raise Unfit from None
    found = [(tag, e) for tag, e in raw if isinstance(e, RawDataElement) and e.value_tell]
    near = [(tag, e) for tag, e in found if tag >> 16 in (0x28, 0x7FE0)]
    chosen = near if near and rng.random() < 0.8 else found
    if not chosen:
        raise Unfit
    return chosen[int(rng.integers(len(chosen)))]


def _element_length(data: bytes, rng: Rng) -> tuple[str, bytes]:
    tag, element = _element(data, rng)
    long = element.is_implicit_VR or element.VR in ("OB", "OW", "SQ", "UN", "UT", "OF", "UC", "UR", "OD", "OL", "OV")
    order = "<" if element.is_little_endian else ">"
    old = element.length & 0xFFFFFFFF
    new = int(rng.choice([0, 1, 2, old + 1, old + 2, max(0, old - 2), old * 2, old // 2, 0xFFFF, 0xFFFFFFFF]))
    field_ = struct.pack(f"{order}I" if long else f"{order}H", new & (0xFFFFFFFF if long else 0xFFFF))
    at = element.value_tell - len(field_)
    return f"length of {tag:08X} {old} -> {new}", data[:at] + field_ + data[at + len(field_) :]


def _element_vr(data: bytes, rng: Rng) -> tuple[str, bytes]:
    tag, element = _element(data, rng)
    if element.is_implicit_VR:
        raise Unfit
    long = element.VR in ("OB", "OW", "SQ", "UN", "UT", "OF", "UC", "UR", "OD", "OL", "OV")
    at = element.value_tell - (8 if long else 4)
    new = str(rng.choice(["OB", "OW", "UN", "US", "SS", "UL", "LO", "XX", "SQ"]))
    return f"VR of {tag:08X} {element.VR} -> {new}", data[:at] + new.encode() + data[at + 2 :]


def _element_value(data: bytes, rng: Rng) -> tuple[str, bytes]:
    tag, element = _element(data, rng)
    if not 0 < element.length < 64:
        raise Unfit
    at = element.value_tell
    value = rng.bytes(element.length)
    return f"noise in the value of {tag:08X}", data[:at] + value + data[at + element.length :]


ON_FILE = (
    _flips_anywhere, _flips_anywhere, _file_cut, _file_extended, _no_preamble,
    _element_length, _element_length, _element_vr, _element_vr, _element_value,
)  # fmt: skip
