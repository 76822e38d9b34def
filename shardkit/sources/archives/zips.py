"""Zip archives: the directory at the end names all members; each is read by itself, its checksum compared.

Not `zipfile`: names stay the bytes that they are, a member from a bucket is one request, members that share their bytes
are seen, and whatever is wrong is one kind of error.
"""

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import BinaryIO

from shardkit.sources.archives import limits
from shardkit.sources.archives.members import Member, Unlisted, by_name, damaged, plain, require
from shardkit.sources.archives.readers import BLOCK, Memory, Part, Reader, Seekable
from shardkit.sources.archives.unpacking import METHODS, STORED, Source, Unpacked, unpacked
from shardkit.sources.entries import Kind

START = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""What zip archives begin with, unless a program that unpacks them lies before."""
_END, _END64, _LOCATOR64, _ROW, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_end = struct.Struct("<4s4H2LH")
_end64 = struct.Struct("<4sQ2H2L4Q")
_locator64 = struct.Struct("<4sLQL")
_row = struct.Struct("<4s4B4HL2L5H2L")
_local = struct.Struct("<4s5H3L2H")
_FULL, _EXTRA64 = 0xFFFFFFFF, 1  # a size that another field holds
_FAT, _UNIX = 0, 3  # systems that made an archive
_ENCRYPTED, _HIDDEN = 1, 1 << 13  # flags
_SLACK = 512  # bytes that a member's header may have beside its name
_PIECE = 16 * BLOCK
_MODES: dict[int, Kind] = {
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "special",
    stat.S_IFSOCK: "special",
    stat.S_IFCHR: "special",
    stat.S_IFBLK: "special",
}


class Zip:
    """A zip archive, as `members.Archive`.

    Parameters
    ----------
    reader : Reader
        Its bytes.

    Raises
    ------
    Unlisted
        Its directory is not there, or cannot be right.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        tail = _Tail(reader)
        ending = _ending(tail)
        start = ending.at - ending.size
        data = tail.at(start, ending.size)
        found = [*_members(data, ending.count, start - ending.offset)]
        self.members = by_name(_checked(found, start))
        self.rest: Kind | None = None

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        return 500 * (1 + len(self.members)) + self._reader.held

    def read(self, member: Member) -> bytes:
        """Return a member, checked."""
        require(member)
        pieces = [*self._unpacked(member, member.packed)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def open(self, member: Member) -> BinaryIO:
        """Return a member as a file."""
        require(member)
        if member.method == STORED:
            return Seekable(self.reader(member))
        return Unpacked(self._unpacked(member, BLOCK), member.size)

    def reader(self, member: Member) -> Reader:
        """Return the bytes of a member: where they lie if it is stored, otherwise unpacked in memory.

        Raises
        ------
        Unlisted
            There are too many.
        """
        require(member)
        if member.method != STORED:
            if member.size > limits.NESTED:
                raise Unlisted("limit")
            return Memory(self.read(member))
        begin, _ = self._begin(member, 0)
        return Part(self._reader, begin, member.size)

    def _unpacked(self, member: Member, ahead: int) -> Iterator[bytes]:
        return unpacked(member.method, self._packed(member, ahead), member.size, member.crc)

    def _packed(self, member: Member, ahead: int) -> Source:
        """Return what gives the packed bytes: `ahead` of them come with the header, the others in larger pieces."""

        def pieces() -> Iterator[bytes]:
            begin, first = self._begin(member, min(ahead, member.packed))
            yield first
            for at in range(begin + len(first), begin + member.packed, _PIECE):
                yield self._reader.at(at, min(_PIECE, begin + member.packed - at))

        following = filter(None, pieces())
        return lambda: next(following, b"")

    def _begin(self, member: Member, ahead: int) -> tuple[int, bytes]:
        """Return where the packed bytes of a member begin, and about `ahead` of them, by one request."""
        length = _local.size + len(member.name) + _SLACK + ahead
        data = self._reader.at(member.start, min(length, self._reader.size - member.start))
        if not data.startswith(_LOCAL) or len(data) < _local.size:
            raise damaged("its header is not where its archive says")
        *_, name, extra = _local.unpack_from(data)
        header = _local.size + name + extra
        if member.start + header + member.packed > self._reader.size:
            raise damaged("it lies beyond the end of its archive")
        return member.start + header, data[header : header + ahead]


@dataclass(frozen=True, slots=True)
class _Ending:
    """What the end of an archive says of its directory, which ends at `at`."""

    at: int
    disk: int
    first_disk: int
    here: int
    count: int
    size: int
    offset: int


class _Tail:
    """The end of an archive, read at once: of most, it holds the directory, too."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self.start = reader, max(0, reader.size - BLOCK)
        self.data = reader.at(self.start, reader.size - self.start)

    def at(self, start: int, length: int) -> bytes:
        """Return bytes by their place in the archive."""
        if start < self.start:
            return self._reader.at(start, length)
        return self.data[start - self.start :][:length]


def _ending(tail: _Tail) -> _Ending:
    at = _place(tail.data)
    found = _Ending(tail.start + at, *_end.unpack_from(tail.data, at)[1:-1])
    if at >= _locator64.size and tail.data.startswith(_LOCATOR64, at - _locator64.size):
        found = _ending64(tail, found.at - _locator64.size)
    if found.disk or found.first_disk or found.here != found.count:
        raise Unlisted("split")
    if found.size > limits.DIRECTORY or found.count > limits.MEMBERS:
        raise Unlisted("limit")
    if found.at - found.size < found.offset:  # more may lie before an archive than it counts, such as a program
        raise Unlisted("damaged")
    return found


def _place(tail: bytes) -> int:
    """Return where the last record begins: the one whose comment reaches to the end, for comments may hold others."""
    last = at = tail.rfind(_END, 0, max(0, len(tail) - _end.size + len(_END)))
    while at >= 0:
        if at + _end.size + _end.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(_END, 0, at + len(_END) - 1)
    if last < 0:
        raise Unlisted("damaged")
    return last  # bytes were added behind it


def _ending64(tail: _Tail, locator: int) -> _Ending:
    """Return the same with sizes of 64 bits: that record lies before its locator, or where this says."""
    _, _, told, _ = _locator64.unpack(tail.at(locator, _locator64.size))
    for at in (locator - _end64.size, told):
        if 0 <= at <= locator - _end64.size:
            record = tail.at(at, _end64.size)
            if record.startswith(_END64):
                return _Ending(at, *_end64.unpack(record)[4:])
    raise Unlisted("damaged")


def _members(data: bytes, count: int, before: int) -> Iterator[Member]:
    """Yield the files that a directory names; folders are left out. `before` bytes lie before the archive itself."""
    at = rows = 0
    while data.startswith(_ROW, at):
        rows += 1
        if rows > limits.MEMBERS or at + _row.size > len(data):
            raise Unlisted("limit" if rows > limits.MEMBERS else "damaged")
        _, _, system, _, _, flags, method, _, _, crc, packed, size, names, extras, comment, _, _, mode, start = (
            _row.unpack_from(data, at)
        )
        at += _row.size
        name, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comment
        if at > len(data):
            raise Unlisted("damaged")
        if _FULL in (size, packed, start):
            size, packed, start = _sizes64(extra, size, packed, start)
        if system == _FAT and b"/" not in name:
            name = name.replace(b"\\", b"/")
        kind = _MODES.get(stat.S_IFMT(mode >> 16)) if system == _UNIX else None
        folder = name.endswith(b"/")
        if folder and not size and kind is None:
            continue
        name, safe = plain(name)
        kind = (
            "unsafe_name" if not safe
            else "encrypted" if flags & (_ENCRYPTED | _HIDDEN)
            else kind if kind is not None
            else "packing" if method not in METHODS
            else "damaged" if folder or (method == STORED and size != packed)
            else "file"
        )  # fmt: skip
        yield Member(name, size, kind, start + before, packed, method, crc)
    if rows % (1 << 16) != count % (1 << 16):  # old programs count so far only
        raise Unlisted("damaged")


def _sizes64(extra: bytes, *values: int) -> Iterator[int]:
    """Yield sizes and offset, those that are too large for 32 bits from the extra field that holds them."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == _EXTRA64:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    for value in values:
        if value != _FULL:
            yield value
        elif len(wide) < 8:
            raise Unlisted("damaged")
        else:
            yield int.from_bytes(wide[:8], "little")
            wide = wide[8:]


def _checked(found: list[Member], end: int) -> Iterator[Member]:
    """Yield members by their place, those that cannot be what they claim with the reason.

    A bomb has one kernel for many members: their bytes must be theirs alone. What lies above the ratio of sizes counts
    for each, and for all together.
    """
    taken = above = 0
    found.sort(key=attrgetter("start"))
    for member in found:
        after = member.start + _local.size + member.packed
        apart = taken <= member.start and after <= end
        taken = max(taken, after)
        much = member.size > limits.MEMBER or limits.expands(member.size, member.packed, limits.FREE)
        above += 0 if much else max(0, member.size - limits.RATIO * member.packed)
        if apart and not much and above <= limits.ALL_FREE:
            yield member
        else:
            yield replace(member, kind="limit" if apart else "damaged") if member.kind == "file" else member
