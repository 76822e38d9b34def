"""Headers that lie, and framing that is odd: the bytes of the pixels stay as they are."""

from __future__ import annotations

import numpy as np
import pydicom.uid as uids
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tools.fuzz.draft import Draft, Unfit
from tools.fuzz.seeds import SYNTAXES

Rng = np.random.Generator

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
    "PhotometricInterpretation": (
        "MONOCHROME1",
        "MONOCHROME2",
        "RGB",
        "PALETTE COLOR",
        "MONOCHROME2 \0",
        "YBR_FULL_422",
        "",
    ),
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
    """Write the data set implicit where the syntax says explicit, or the reverse."""
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
    """Set high bits that BitsStored leaves unused, at one corner or everywhere."""
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


HEADER = (
    _number,
    _number,
    _number,
    _text,
    _text,
    _size,
    _removed,
    _other_syntax,
    _other_encoding,
    _modality_table,
    _marked_bits,
)


# ---- framing of a stream; of native data, its length


def _split(draft: Draft, rng: Rng) -> str:
    if draft.native or len(draft.pixels) < 64:
        raise Unfit
    # No fragment is empty: the decoders that are asked stop at one or refuse it, and tell nothing of ours.
    cuts = np.unique(np.maximum(rng.integers(1, len(draft.pixels), int(rng.integers(1, 6))) // 2 * 2, 2))
    draft.fragments = tuple(int(n) for n in np.diff(cuts, prepend=0))
    return f"split in {len(draft.fragments) + 1} fragments"


def _odd_split(draft: Draft, rng: Rng) -> str:
    """Split off a fragment of odd length, which framing pads by a byte inside the stream."""
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
