"""A member of an archive, and what its name may be."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import BinaryIO, Protocol

from shardkit.errors import Quarantined
from shardkit.sources.archives.readers import Reader
from shardkit.sources.entries import Entry, Kind

NAMED = re.compile(rb"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
"""Ends of the names of archives; the bytes must agree."""
_DRIVE = re.compile(rb"[A-Za-z]:")  # "C:x.png" is absolute where drives are: below the folder that is current there
_ODD = (b"//", b"/.", b"\\", b"\0")
_STEPS = re.compile(rb"[/\\]")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, or why it cannot be read.

    Attributes
    ----------
    name : bytes
        Below the archive, as it would be unpacked.
    size : int
        Bytes of the file.
    kind : Kind
        Whether it can be read.
    start : int
        Where it begins: its header in a zip, its bytes in a tar.
    packed : int
        Bytes that it takes there.
    method : int
        How they are packed, in a zip.
    crc : int
        CRC-32 of the file, in a zip.
    """

    name: bytes = field(repr=False)
    size: int
    kind: Kind
    start: int = 0
    packed: int = 0
    method: int = 0
    crc: int = 0


class Unlisted(Exception):
    """An archive of which no member can be named. `kind` says why."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind: Kind = kind


class Archive(Protocol):
    """An archive whose members are known.

    Attributes
    ----------
    members : dict of bytes -> Member
        By name.
    rest : Kind or None
        Why more members, if there are any, cannot be named.
    """

    members: dict[bytes, Member]
    rest: Kind | None

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes, about."""
        ...

    def open(self, member: Member) -> BinaryIO:
        """Return a member as a file to seek in; what is not asked for is not unpacked."""
        ...

    def read(self, member: Member) -> bytes:
        """Return all of a member, checked as far as the archive allows."""
        ...

    def reader(self, member: Member) -> Reader:
        """Return the bytes of a member by their place."""
        ...


def damaged(words: str) -> Quarantined:
    """Return the verdict on a member that cannot be unpacked."""
    return Quarantined("archive_damaged", f"{words}: copy its archive again, or pack it anew")


def plain(name: bytes) -> tuple[bytes, bool]:
    """Return a name without empty steps and dots, and whether it stays below the archive."""
    if not (name[:1] in b"/." or name[-1:] == b"/" or b":" in name[:2] or any(odd in name for odd in _ODD)):
        return name, True  # as nearly all are
    steps = [step for step in name.split(b"/") if step not in (b"", b".")]
    leads_out = name.startswith((b"/", b"\\")) or b".." in _STEPS.split(name) or _DRIVE.match(name) is not None
    if leads_out or b"\0" in name or not steps:
        return name, False
    return b"/".join(steps), True


def by_name(found: Iterable[Member]) -> dict[bytes, Member]:
    """Return members sorted by name. Of several with one name nobody knows which is meant: that name is damaged."""
    members: dict[bytes, Member] = {}
    for one in sorted(found, key=attrgetter("name")):
        first = members.get(one.name)
        members[one.name] = one if first is None else replace(first, kind="same_name")
    return members


def require(member: Member) -> None:
    """Raise the verdict on a member that cannot be read."""
    Entry(member.name, member.size, member.kind).require_file()
