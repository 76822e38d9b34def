"""The directories of a TIFF file: tags with numbers, read without a library, bounded by the bytes that are there."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from shardkit.errors import Quarantined
from shardkit.sources.images.base import cut, exactly

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q", 18: "Q"}  # the whole numbers
_READ = frozenset((254, 256, 257, 258, 259, 262, 273, 274, 277, 279, 281, 284, 320, 324, 325, 339))
_PAGES, _FAR = 1 << 16, 1 << 62
_VALUES = 1 << 20  # of one tag


@dataclass(frozen=True, slots=True)
class Directory:
    """Whole numbers of the tags of one page, of those that are looked at."""

    tags: dict[int, tuple[int, ...]]

    def one(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return self.tags.get(tag, (default,))[0]

    def all(self, tag: int) -> tuple[int, ...]:
        """Return all numbers of a tag; none where it is absent."""
        return self.tags.get(tag, ())


def directories(file: BinaryIO) -> Iterator[Directory]:
    """Yield the pages of a TIFF or BigTIFF file, or of Exif.

    Parameters
    ----------
    file : file
        Seekable; offsets count from its start.

    Raises
    ------
    Quarantined
        truncated, decode_error.
    """
    file.seek(0)
    start = exactly(file, 8, "its header")
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    magic = struct.unpack(f"{order}H", start[2:4])[0] if order else 0
    if order is None or magic not in (42, 43):
        raise Quarantined("decode_error", "its header is not that of TIFF")
    big = magic == 43
    offset = struct.unpack(f"{order}Q", exactly(file, 8, "its header"))[0] if big else _number(order, start[4:8])
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= _PAGES:
            raise Quarantined("decode_error", "its pages lead back to themselves")
        seen.add(offset)
        directory, offset = _directory(file, offset, order, big)
        yield directory


def _number(order: str, raw: bytes) -> int:
    return int.from_bytes(raw, "little" if order == "<" else "big")


def _directory(file: BinaryIO, offset: int, order: str, big: bool) -> tuple[Directory, int]:
    """Return a page and the offset of the next."""
    _seek(file, offset)
    counted, entry, wide = (8, 20, 8) if big else (2, 12, 4)
    count = _number(order, exactly(file, counted, "a page's directory"))
    if count > 65535:
        raise Quarantined("decode_error", "a page's directory claims more tags than there are")
    raw = exactly(file, count * entry, "a page's directory")
    following = _number(order, exactly(file, wide, "a page's directory"))
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(0, len(raw), entry):
        tag, kind = struct.unpack_from(f"{order}HH", raw, at)
        number = _number(order, raw[at + 4 : at + 4 + wide])
        if tag in _READ and tag not in tags and kind in _TYPES and 0 < number <= _VALUES:
            tags[tag] = _values(file, order, _TYPES[kind], number, raw[at + 4 + wide : at + entry])
    return Directory(tags), following


def _seek(file: BinaryIO, offset: int) -> None:
    if offset >= _FAR:  # no file reaches there, and a seek would raise
        raise cut("a page's directory")
    file.seek(offset)


def _values(file: BinaryIO, order: str, code: str, count: int, field: bytes) -> tuple[int, ...]:
    layout = f"{order}{count}{code}"
    needed = struct.calcsize(layout)
    if needed > len(field):
        _seek(file, _number(order, field))
        field = exactly(file, needed, "a page's directory")
    return struct.unpack(layout, field[:needed])
