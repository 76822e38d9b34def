"""Damage to bytes that knows nothing of their meaning: to pixel data, and to elements of the finished file."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement

from tools.fuzz.draft import Unfit

Rng = np.random.Generator
Change = tuple[str, bytes]
"""(what was done, the new bytes)"""
_LONG = ("OB", "OW", "SQ", "UN", "UT", "OF", "UC", "UR", "OD", "OL", "OV")

# ---- to the pixel bytes, native or compressed


def _place(data: bytes, rng: Rng) -> int:
    """Draw an offset: anywhere, or near either end, where headers and end markers lie."""
    if len(data) < 64:
        raise Unfit
    kind = rng.random()
    if kind < 0.15:
        return int(rng.integers(min(256, len(data))))
    return int(rng.integers(len(data))) if kind < 0.9 else len(data) - 1 - int(rng.integers(32))


def _flips(data: bytes, rng: Rng) -> Change:
    out, count = bytearray(data), int(rng.choice([1, 2, 8]))
    places = [_place(data, rng) for _ in range(count)]
    for at in places:
        out[at] ^= 1 << int(rng.integers(8))
    return f"{count} bits flipped at {places[:3]}", bytes(out)


def _hole(data: bytes, rng: Rng) -> Change:
    at, length, fill = _place(data, rng), int(rng.choice([4, 64, 512, 2048])), int(rng.choice([0, 0, 255]))
    piece = data[at : at + length]
    return f"{len(piece)} bytes set to {fill} at {at} of {len(data)}", data[:at] + bytes([fill]) * len(piece) + data[
        at + length :
    ]


def _cut(data: bytes, rng: Rng) -> Change:
    at = _place(data, rng)
    return f"cut at {at} of {len(data)}", data[:at]


def _cut_then_closed(data: bytes, rng: Rng) -> Change:
    at = _place(data, rng)
    return f"cut at {at} of {len(data)}, closed by FFD9", data[:at] + b"\xff\xd9"


def _inserted(data: bytes, rng: Rng) -> Change:
    at, count = _place(data, rng), int(rng.choice([1, 2, 7, 100]))
    return f"{count} bytes inserted at {at} of {len(data)}", data[:at] + rng.bytes(count) + data[at:]


def _deleted(data: bytes, rng: Rng) -> Change:
    at, count = _place(data, rng), int(rng.choice([1, 2, 7, 100]))
    return f"{count} bytes deleted at {at} of {len(data)}", data[:at] + data[at + count :]


def _swapped(data: bytes, rng: Rng) -> Change:
    size = int(rng.choice([16, 256, 1024]))
    if len(data) < 3 * size:
        raise Unfit
    a = int(rng.integers(len(data) - 2 * size))
    b = int(rng.integers(a + size, len(data) - size + 1))
    return (
        f"{size} bytes swapped between {a} and {b}",
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :],
    )


def _padded(data: bytes, rng: Rng) -> Change:
    count, fill = int(rng.choice([1, 2, 70, 300, len(data)])), int(rng.integers(3))
    tail = (bytes(count), b"\xff" * count, rng.bytes(count))[fill]
    return f"{count} bytes of {('zeros', 'FF', 'noise')[fill]} after the end", data + tail


ON_PIXELS = (_flips, _flips, _hole, _hole, _cut, _cut_then_closed, _inserted, _deleted, _swapped, _padded)


# ---- to the finished file


def _flips_anywhere(data: bytes, rng: Rng) -> Change:
    out, places = (
        bytearray(data),
        [int(p) for p in rng.integers(128, max(129, min(len(data), 1400)), int(rng.choice([1, 3])))],
    )
    for at in places:
        if at < len(out):
            out[at] ^= 1 << int(rng.integers(8))
    return f"bits flipped in the header at {places}", bytes(out)


def _file_cut(data: bytes, rng: Rng) -> Change:
    at = int(rng.integers(len(data)))
    return f"file cut at {at} of {len(data)}", data[:at]


def _file_extended(data: bytes, rng: Rng) -> Change:
    count = int(rng.choice([1, 2, 8, 1000]))
    return f"{count} bytes after the file", data + (bytes(count) if rng.random() < 0.5 else rng.bytes(count))


def _no_preamble(data: bytes, rng: Rng) -> Change:
    return "no preamble", data[132:]


def _element(data: bytes, rng: Rng) -> tuple[int, RawDataElement]:
    """Draw an element of the pixel module, of the pixel data, or any other: its tag, and it."""
    try:
        ds = pydicom.dcmread(BytesIO(data), force=True)
        # Iterating would convert them.
        raw: list[tuple[int, object]] = [(int(tag), ds.get_item(tag)) for tag in ds.keys()]  # noqa: SIM118
    except Exception:
        raise Unfit from None
    found = [(tag, e) for tag, e in raw if isinstance(e, RawDataElement) and e.value_tell]
    near = [(tag, e) for tag, e in found if tag >> 16 in (0x28, 0x7FE0)]
    chosen = near if near and rng.random() < 0.8 else found
    if not chosen:
        raise Unfit
    return chosen[int(rng.integers(len(chosen)))]


def _element_length(data: bytes, rng: Rng) -> Change:
    tag, element = _element(data, rng)
    long = element.is_implicit_VR or element.VR in _LONG
    order = "<" if element.is_little_endian else ">"
    old = element.length & 0xFFFFFFFF
    new = int(rng.choice([0, 1, 2, old + 1, old + 2, max(0, old - 2), old * 2, old // 2, 0xFFFF, 0xFFFFFFFF]))
    field_ = struct.pack(f"{order}I" if long else f"{order}H", new & (0xFFFFFFFF if long else 0xFFFF))
    at = element.value_tell - len(field_)
    return f"length of {tag:08X} {old} -> {new}", data[:at] + field_ + data[at + len(field_) :]


def _element_vr(data: bytes, rng: Rng) -> Change:
    tag, element = _element(data, rng)
    if element.is_implicit_VR:
        raise Unfit
    long = element.VR in _LONG
    at = element.value_tell - (8 if long else 4)
    new = str(rng.choice(["OB", "OW", "UN", "US", "SS", "UL", "LO", "XX", "SQ"]))
    return f"VR of {tag:08X} {element.VR} -> {new}", data[:at] + new.encode() + data[at + 2 :]


def _element_value(data: bytes, rng: Rng) -> Change:
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
