"""A DICOM file taken apart, so that its parts can be damaged one by one, and put together again."""

from __future__ import annotations

import copy
import struct
from dataclasses import dataclass, field
from io import BytesIO

import pydicom.uid as uids
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from tools.fuzz.seeds import Seed


class Unfit(Exception):
    """The mutation does not go with this file: another is drawn."""


@dataclass(slots=True)
class Draft:
    """A file on its way.

    Attributes
    ----------
    dataset
        All but the pixel data.
    pixels
        Value of the pixel data: native bytes, or one frame's stream.
    native
        Which of the two it is.
    fragments
        Lengths that a stream is split into.
    table
        The offset table.
    delimiter
        Whether the sequence of fragments ends as it should.
    encoding
        (implicit, little endian), where the transfer syntax is not to decide.
    done
        What was done to it.
    """

    dataset: Dataset
    pixels: bytes
    native: bool
    fragments: tuple[int, ...] = ()
    table: bytes = b""
    delimiter: bool = True
    encoding: tuple[bool, bool] | None = None  # (implicit, little endian), where the syntax is not to decide
    done: list[str] = field(default_factory=list)


def draft_of(seed: Seed) -> Draft:
    """Return a draft that may be changed: the seed stays as it is."""
    return Draft(copy.deepcopy(seed.dataset), seed.pixels, seed.native)


def written(draft: Draft) -> bytes:
    """Return the file's bytes.

    Raises
    ------
    Unfit
        Where pydicom does not write it.
    """
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
    except Exception:
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
