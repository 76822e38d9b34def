"""Damage to the marker segments of JPEG, JPEG-LS and JPEG 2000 streams: what the entropy-coded data rely on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Change = tuple[str, bytes] | None
"""(what was done, the new stream); None where the stream has nothing of the kind."""
_J2K = b"\xff\x4f"
_ALONE = {0xD8, 0xD9, 0x01, 0x4F, *range(0xD0, 0xD8)}


def segments(stream: bytes) -> list[tuple[int, int, int]]:
    """Return the marker segments before the first entropy-coded data.

    Returns
    -------
    list of tuple
        Marker, start and end of each; the start is that of its FF.
    """
    found, at = [], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        code = stream[at + 1]
        if code in _ALONE:
            at += 2
            continue
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if end > len(stream):
            break
        found.append((code, at, end))
        if code in (0xDA, 0x90):  # SOS, SOT
            break
        at = end
    return found


def _one(stream: bytes, rng: Rng) -> tuple[int, int, int] | None:
    found = segments(stream)
    return found[int(rng.integers(len(found)))] if found else None


def _byte(stream: bytes, rng: Rng) -> Change:
    """Change any byte of any segment."""
    if (segment := _one(stream, rng)) is None:
        return None
    code, start, end = segment
    at = int(rng.integers(start + 2, end))
    value = int(rng.integers(256)) if rng.random() < 0.5 else stream[at] ^ (1 << int(rng.integers(8)))
    return f"segment {code:02X} byte {at - start - 4}: {stream[at]} -> {value}", stream[:at] + bytes([value]) + stream[
        at + 1 :
    ]


# Offsets behind a segment's length field: the field, values that are possible.
_FRAME = (
    (0, "precision", (2, 7, 8, 9, 11, 12, 15, 16)),
    (5, "components", (0, 1, 2, 3)),
    (7, "sampling", (0x11, 0x22)),
)
_FIELDS: dict[int, tuple[tuple[int, str, tuple[int, ...]], ...]] = {
    **dict.fromkeys((0xC0, 0xC1, 0xC3, 0xF7), _FRAME),
    0xDA: (
        (0, "components", (0, 1, 2)),
        (3, "predictor or near", (0, 1, 2, 4, 7, 9)),
        (4, "end of selection or interleave", (0, 1, 2, 63)),
        (5, "point transform", (0, 1, 2, 4, 15, 0x10)),
    ),
    0x51: (
        (35, "components", (0, 1, 3)),
        (36, "precision", (6, 7, 8, 9, 11, 13, 15, 0x87, 0x8B, 0x8F)),
        (5, "width", (0, 1, 64, 255)),
        (9, "height", (0, 1, 64, 255)),
        (21, "tile width", (1, 16, 64)),
    ),
    0x52: (
        (1, "progression", (0, 1, 2, 3, 4)),
        (3, "layers", (0, 1, 2)),
        (5, "levels", (0, 1, 3, 5, 6, 33)),
        (8, "block style", (0, 1, 8, 32, 64)),
        (9, "wavelet", (0, 1)),
    ),
    0x90: (
        (4, "tile-part length", (0, 1, 12, 14, 255)),
        (6, "tile-part number", (0, 1, 9)),
        (7, "tile-parts", (0, 1, 2, 9)),
    ),
}


def _field(stream: bytes, rng: Rng) -> Change:
    """Change one field to a value that a stream may have."""
    known = [segment for segment in segments(stream) if segment[0] in _FIELDS]
    if not known:
        return None
    code, start, _ = known[int(rng.integers(len(known)))]
    fields = _FIELDS[code]
    offset, name, values = fields[int(rng.integers(len(fields)))]
    value, at = int(rng.choice(values)), start + 4 + offset
    return f"segment {code:02X} {name}: {stream[at]} -> {value}", stream[:at] + bytes([value]) + stream[at + 1 :]


def _inserted(stream: bytes, rng: Rng) -> Change:
    """Insert a restart interval, or a comment with marker bytes inside, before the last segment."""
    found = segments(stream)
    if not found:
        return None
    at = found[-1][1]
    if stream.startswith(_J2K):
        text = b"\0\1" + bytes([0xFF, int(rng.choice([0x90, 0xD9, 0x93, 0x52, 0x4F])), 0, 10, 0, 0]) + rng.bytes(6)
        return "a comment with marker bytes", stream[:at] + _segment(0x64, text) + stream[at:]
    if rng.random() < 0.5:
        interval = int(rng.choice([0, 1, 8, 100, 65535]))
        return f"DRI {interval}", stream[:at] + _segment(0xDD, interval.to_bytes(2, "big")) + stream[at:]
    text = bytes([0xFF, int(rng.choice([0xD9, 0xDA, 0xC3, 0xC0, 0xD8]))]) + rng.bytes(10)
    return "a comment with marker bytes", stream[:at] + _segment(0xFE, text) + stream[at:]


def _segment(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _doubled(stream: bytes, rng: Rng) -> Change:
    if (segment := _one(stream, rng)) is None:
        return None
    code, start, end = segment
    return f"segment {code:02X} twice", stream[:end] + stream[start:end] + stream[end:]


def _removed(stream: bytes, rng: Rng) -> Change:
    if (segment := _one(stream, rng)) is None:
        return None
    code, start, end = segment
    return f"without segment {code:02X}", stream[:start] + stream[end:]


def _marker_in_data(stream: bytes, rng: Rng) -> Change:
    """Put a marker where entropy-coded data should be."""
    found = segments(stream)
    if not found or len(stream) - found[-1][2] < 32:
        return None
    at, code = (
        int(rng.integers(found[-1][2], len(stream) - 2)),
        int(rng.choice([0xD0, 0xD3, 0xD9, 0xDA, 0xFE, 0x90, 0x93])),
    )
    return f"marker {code:02X} in the data at {at} of {len(stream)}", stream[:at] + bytes([0xFF, code]) + stream[
        at + 2 :
    ]


ON_MARKERS: tuple[Callable[[bytes, Rng], Change], ...] = (
    _byte, _byte, _field, _field, _field, _inserted, _doubled, _removed, _marker_in_data, _marker_in_data,
)  # fmt: skip
