"""Tar archives: one pass over the headers makes the index of members, then each is read by itself.

Not `tarfile`: names stay bytes, an extended header has a limit before it is read, and what is wrong with one member or
with the rest of an archive is told apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, Protocol

from shardkit.sources.archives import limits
from shardkit.sources.archives.members import Member, by_name, plain, require
from shardkit.sources.archives.readers import Part, Reader, Seekable
from shardkit.sources.entries import Kind

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PADDING = 1 << 20  # zeros after which nothing more is looked for
_FILES, _LINK, _FOLDER, _LABEL = (b"0", b"\0", b"7"), b"1", b"5", b"V"
_NO_DATA: dict[bytes, Kind] = {b"2": "symlink", b"3": "special", b"4": "special", b"6": "special"}
_LONG, _PAX = {b"L": b"path", b"K": b"linkpath"}, (b"x", b"X", b"g")


class Forward(Protocol):
    """The bytes of a tar, asked for from the first to the last."""

    def at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` on, fewer at the end. Starts never go back."""
        ...

    def reaches(self, end: int) -> bool:
        """Return whether so many bytes are there."""
        ...


class Tar:
    """A tar archive whose members are known, as `members.Archive`.

    Parameters
    ----------
    reader : Reader
        The bytes of the tar, unpacked.
    members : dict of bytes -> Member
        By name.
    rest : Kind or None
        Why more cannot be listed.
    """

    def __init__(self, reader: Reader, members: dict[bytes, Member], rest: Kind | None) -> None:
        self._reader, self.members, self.rest = reader, members, rest

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        return 500 * (1 + len(self.members)) + self._reader.held

    def reader(self, member: Member) -> Reader:
        """Return the bytes of a member where they lie."""
        require(member)
        return Part(self._reader, member.start, member.size)

    def read(self, member: Member) -> bytes:
        """Return a member. A tar has no checksums of its files."""
        require(member)
        return self._reader.at(member.start, member.size)

    def open(self, member: Member) -> BinaryIO:
        """Return a member as a file."""
        return Seekable(self.reader(member))


def is_header(block: bytes) -> bool:
    """Return whether these bytes begin a tar archive: its first header, or the zeros that an empty one holds."""
    return len(block) == _BLOCK and (block == _ZEROS or _sound(block))


def walk(data: Forward) -> tuple[dict[bytes, Member], Kind | None]:
    """Return the members of a tar by name, and why the rest cannot be listed, if there is any."""
    steps = _Walk(data)
    found = [*islice(steps.members(), limits.MEMBERS + 1)]
    return by_name(found[: limits.MEMBERS]), "limit" if len(found) > limits.MEMBERS else steps.rest


class _Walk:
    """One way through the headers of a tar."""

    def __init__(self, data: Forward) -> None:
        self.rest: Kind | None = None
        self._data, self._at, self._ended = data, 0, False
        self._files: dict[bytes, Member] = {}  # what hard links may name

    def members(self) -> Iterator[Member]:
        """Yield members in the order in which they lie; folders are left out."""
        told: dict[bytes, bytes] = {}
        always: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            kind, size = header[156:157], _number(told.get(b"size", header[124:136]), 8 if b"size" not in told else 10)
            if size is None:
                self.rest = "damaged"
            elif kind in _LONG or kind in _PAX:
                facts = self._extended(kind, size)
                (always if kind == b"g" else told).update(facts)
            else:
                yield from self._member(header, kind, size, always | told)
                told = {}
            if self.rest is not None:
                return

    def _header(self) -> bytes | None:
        """Return the next header; None at the end, or where no more can be found."""
        zeros = 0
        while zeros <= _PADDING:
            block = self._data.at(self._at, _BLOCK)
            self._at += len(block)
            if len(block) < _BLOCK:
                break
            if block != _ZEROS:
                self._ended = False
                if _sound(block):
                    return block
                self.rest = "damaged"
                return None
            zeros, self._ended = zeros + _BLOCK, True
        if not self._ended:  # cut short, maybe just between two members
            self.rest = "damaged"
        return None

    def _extended(self, kind: bytes, size: int) -> dict[bytes, bytes]:
        """Return what a header of any length says of the member that follows."""
        if size > limits.EXTENDED:
            self.rest = "limit"
            return {}
        data = self._data.at(self._at, size)
        self._at += _padded(size)
        if len(data) < size:
            self.rest = "damaged"
            return {}
        if kind in _LONG:
            return {_LONG[kind]: data.rstrip(b"\0")}
        facts = _pax(data)
        if facts is None:
            self.rest = "damaged"
        return facts or {}

    def _member(self, header: bytes, kind: bytes, size: int, told: dict[bytes, bytes]) -> Iterator[Member]:
        name, safe = plain(told.get(b"path", _path(header)))
        if kind in _NO_DATA or kind in (_LINK, _FOLDER, _LABEL):
            if kind == _LINK:
                yield self._link(name, safe, told.get(b"linkpath", header[157:257].split(b"\0", 1)[0]))
            elif kind in _NO_DATA:
                yield Member(name, 0, _NO_DATA[kind] if safe else "unsafe_name")
            return
        start = self._at
        self._at += _padded(size)
        whole = self._data.reaches(start + size)
        self.rest = self.rest if whole else "damaged"
        if kind in _FILES and told.get(b"path", _path(header)).endswith(b"/") and not size:  # of old programs
            return
        sparse = any(key.startswith(b"GNU.sparse") for key in told)
        found: Kind = (
            "unsafe_name" if not safe
            else "damaged" if not whole
            else "packing" if kind not in _FILES or sparse
            else "limit" if size > limits.MEMBER
            else "file"
        )  # fmt: skip
        self._files[name] = Member(name, size, found, start, size)
        yield self._files[name]

    def _link(self, name: bytes, safe: bool, target: bytes) -> Member:
        """Return a hard link as the file that it is another name of."""
        file = self._files.get(plain(target)[0])
        if not safe:
            return Member(name, 0, "unsafe_name")
        return Member(name, 0, "damaged") if file is None else replace(file, name=name)


def _sound(block: bytes) -> bool:
    """Return whether a header has the sum that it says; some programs summed signed bytes."""
    told = _number(block[148:156], 8)
    text = block[:148] + block[156:]
    whole = sum(text) + 8 * ord(" ")
    return told is not None and told in (whole, whole - 256 * sum(byte > 127 for byte in text))


def _number(field: bytes, base: int) -> int | None:
    """Return a number of a header, in digits or, when it is large, in bytes; None where it is none."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", base) if digits.isdigit() or not digits else None
    except ValueError:
        return None


def _path(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax(data: bytes) -> dict[bytes, bytes] | None:
    """Return the records `length key=value` of a pax header; None where they are none."""
    facts, at = {}, 0
    while at < len(data) and data[at] != 0:
        digits, space, _ = data[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : at + length].partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(data):
            return None
        facts[key] = value[:-1]
        at += length
    return facts
