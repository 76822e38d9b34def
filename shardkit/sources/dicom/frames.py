"""The pixels' bytes: what the header claims of them is compared with what is there, and a frame's are taken out.

The frames of a compressed file lie in fragments. Which are whose, the offset table tells, the basic or the extended
one; without a table it is a fragment each, or a frame begins where a fragment begins as a stream does (PS3.5 A.4).
"""

import struct
from itertools import pairwise

from pydicom.uid import ExplicitVRBigEndian

from shardkit.errors import Quarantined
from shardkit.sources.dicom.decoding import SIGNATURES, SUPPORTED
from shardkit.sources.dicom.elements import value
from shardkit.sources.dicom.reading import NATIVE, Header, PixelModule

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Span = tuple[int, int]
"""Offset and length."""


def check_structure(header: Header, module: PixelModule, part: int | None = None) -> tuple[str, ...]:
    """Compare claims with bytes before anything is decoded; return repairs made ("trailing_bytes").

    Parameters
    ----------
    header : Header
        What was parsed.
    module : PixelModule
        What it says of the pixels.
    part : int, optional
        The frame that will be decoded. Without one, of several compressed frames none is looked at.

    Raises
    ------
    Quarantined
        truncated, size_mismatch, decode_error, unsupported_transfer_syntax.
    """
    assert header.pixels is not None
    if header.syntax not in NATIVE | SUPPORTED:
        name = header.syntax if header.syntax.startswith("1.2.840.10008.") else "of a private kind"
        raise Quarantined(
            "unsupported_transfer_syntax",
            f"its transfer syntax ({name}) has no decoder here: transcode the file to explicit VR little endian and"
            " build again",
        )
    if header.pixels.length is None:
        _check_encapsulated(header, module, part)
        return ()
    if header.syntax not in NATIVE:
        raise Quarantined("size_mismatch", "a compressed transfer syntax with native pixel data")
    claimed, wanted = header.pixels.length, module.frame_bytes * module.frames
    if claimed < wanted:
        raise Quarantined("size_mismatch", f"the header claims {wanted:,} bytes of pixels, the element has {claimed:,}")
    there = header.size - header.pixels.offset
    if there < claimed:
        raise Quarantined("truncated", f"{claimed - there:,} of {claimed:,} bytes of pixel data are missing")
    if claimed >= 2 * wanted and claimed % wanted == 0:
        raise Quarantined("size_mismatch", f"the element has exactly {claimed // wanted} times the bytes of its pixels")
    return ("trailing_bytes",) if claimed > wanted + wanted % 2 else ()


def _check_encapsulated(header: Header, module: PixelModule, part: int | None) -> None:
    if header.syntax in NATIVE:
        raise Quarantined("size_mismatch", "a native transfer syntax with encapsulated pixel data")
    if module.frames > 1 and part is None:  # dropped by rule later: its framing does not matter
        return
    spans = _frame(header, module, part or 0)
    header.stream.seek(spans[0][0])
    first = header.stream.read(min(12, spans[0][1]))
    signatures = SIGNATURES[header.syntax]
    if signatures and not first.startswith(signatures):
        raise Quarantined("decode_error", "the compressed stream does not begin as its transfer syntax demands")


def _items(header: Header) -> list[Span]:
    """Return where every item lies: the offset table's, then the fragments.

    Walked here, not by `pydicom.encaps`: a cut or false chain gets a verdict, and nothing is copied to find that out.
    """
    assert header.pixels is not None
    position, spans = header.pixels.offset, list[Span]()
    while True:
        header.stream.seek(position)
        head = header.stream.read(8)
        if len(head) < 8:
            if len(spans) > 1 and position == header.size:  # whole fragments, only the delimiter is missing
                break
            raise Quarantined("truncated", "the file ends inside its compressed pixel data")
        if head[:4] == _SEQUENCE_END:
            break
        if head[:4] != _ITEM:
            raise Quarantined("decode_error", "the encapsulated pixel data are not a chain of items")
        (length,) = struct.unpack("<I", head[4:])
        if position + 8 + length > header.size:
            raise Quarantined("truncated", "the file ends inside its compressed pixel data")
        spans.append((position + 8, length))
        position += 8 + length
    if not sum(length for _, length in spans[1:]):
        raise Quarantined("decode_error", "the encapsulated pixel data hold no fragment")
    return spans


def _frame(header: Header, module: PixelModule, part: int) -> list[Span]:
    """Return the fragments of a frame, which hold something."""
    table, *fragments = _items(header)
    if module.frames == 1:
        return fragments
    if len(fragments) == module.frames:
        found = [fragments[part]]
    else:
        starts = _starts(header, module, table, fragments)
        found = fragments[starts[part] : starts[part + 1]]
    if not sum(length for _, length in found):
        raise Quarantined("decode_error", "a frame of the encapsulated pixel data holds nothing")
    return found


def _starts(header: Header, module: PixelModule, table: Span, fragments: list[Span]) -> list[int]:
    """Return the number of each frame's first fragment, and past the last."""
    offsets = _extended(header) or _basic(header, table)
    number = {offset - 8 - (fragments[0][0] - 8): index for index, (offset, _) in enumerate(fragments)}
    if offsets:
        starts = [number.get(offset, -1) for offset in offsets]
        wrong = "its offset table does not agree with its fragments"
    else:
        starts = [index for index, span in enumerate(fragments) if _begins_stream(header, span)]
        wrong = f"{len(fragments)} fragments and no offset table: which of {module.frames} frames are they?"
    if len(starts) != module.frames or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        raise Quarantined("decode_error", wrong)
    return [*starts, len(fragments)]


def _extended(header: Header) -> tuple[int, ...]:
    found = value(header.dataset, "ExtendedOffsetTable")
    return _numbers(found, "Q") if isinstance(found, bytes) else ()


def _basic(header: Header, table: Span) -> tuple[int, ...]:
    header.stream.seek(table[0])
    return _numbers(header.stream.read(table[1]), "I")


def _numbers(raw: bytes, code: str) -> tuple[int, ...]:
    size = struct.calcsize(f"<{code}")
    return struct.unpack(f"<{len(raw) // size}{code}", raw[: len(raw) // size * size])


def _begins_stream(header: Header, span: Span) -> bool:
    header.stream.seek(span[0])
    signatures = SIGNATURES[header.syntax]
    return bool(signatures) and header.stream.read(min(12, span[1])).startswith(signatures)


def frame(header: Header, module: PixelModule, part: int = 0) -> bytes | memoryview:
    """Return the bytes of a frame: native samples, or its fragments joined. Call check_structure first."""
    assert header.pixels is not None
    if header.pixels.length is not None:
        return _native(header, module, part)
    parts = []
    for offset, length in _frame(header, module, part):
        header.stream.seek(offset)
        parts.append(header.stream.read(length))
    return b"".join(parts)


def _native(header: Header, module: PixelModule, part: int) -> bytes | memoryview:
    assert header.pixels is not None
    size = module.frame_bytes
    start, length = header.pixels.offset + part * size, size + size % 2
    if part * size % 2 and header.syntax == ExplicitVRBigEndian and header.pixels.words:
        raise Quarantined(
            "unsupported_transfer_syntax", "its frames begin inside words: transcode it to explicit VR little endian"
        )
    if header.data is not None:
        return memoryview(header.data)[start : start + length]
    header.stream.seek(start)
    return header.stream.read(length)
