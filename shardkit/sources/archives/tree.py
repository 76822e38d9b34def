"""An export in which archives are folders: `FileTree`, with the members of archives among its files.

Every process opens an archive by itself, and keeps what it opened. A member is read alone; nothing is unpacked to disk.
"""

import functools
import heapq
import re
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from cachetools import LRUCache

from shardkit.errors import Quarantined, StorageError
from shardkit.sources.archives import limits
from shardkit.sources.archives.index import KeptIndex
from shardkit.sources.archives.members import NAMED, Archive, Member, Unlisted
from shardkit.sources.archives.opening import opened
from shardkit.sources.archives.readers import FileReader, on_disk
from shardkit.sources.entries import Entry, Kind
from shardkit.sources.files import FileTree, Unread, settled, unreadable
from shardkit.storage import Store, is_remote

_INSIDE = re.compile(NAMED.pattern.replace(b"$", b"/"), re.IGNORECASE)
_MEMORY = 256 << 20  # bytes of opened archives that a process keeps, about


@dataclass(frozen=True)
class ArchiveTree(FileTree):
    """Files below a folder or a bucket's url, and members of the archives among them.

    Parameters
    ----------
    url : str
        Folder, or url of a bucket.
    follow_symlinks : bool
        Whether to read what symbolic links point to.
    indexes : Path, optional
        Private folder for the indexes of tars.
    """

    indexes: Path | None = None

    def list(self) -> Iterator[Entry]:
        """Yield every name, sorted by path, with the members of an archive as if it were a folder.

        Raises
        ------
        StorageError
            When the bucket cannot be listed, or stays away.
        """
        waiting: list[tuple[bytes, list[Entry]]] = []  # members of archives, which sort after "a.zip-", before "a.zip0"
        for entry in super().list():
            while waiting and waiting[0][0] < entry.path:
                yield from heapq.heappop(waiting)[1]
            named = entry.kind == "file" and NAMED.search(entry.path)
            ask = functools.partial(self._listed, entry)
            found = settled(self, ask(), ask) if named else None
            if found is None or found.members is None:
                yield entry if found is None else replace(entry, kind=found.kind)
                continue
            if found.kind != "file":
                yield replace(entry, kind=found.kind)
            heapq.heappush(waiting, (entry.path + b"/", found.members))
        while waiting:
            yield from heapq.heappop(waiting)[1]

    def open(self, path: bytes, size: int) -> BinaryIO:
        """Open a seekable file for reading a header, as `FileTree.open`; what is damaged in an archive ends so, too."""
        found = self._member(path)
        return super().open(path, size) if found is None else found[0].open(found[1])

    def read(self, path: bytes) -> bytes:
        """Read a whole file, as `FileTree.read`; what is damaged in an archive ends so, too."""
        found = self._member(path)
        return super().read(path) if found is None else found[0].read(found[1])

    def _listed(self, entry: Entry) -> "_Listed":
        """Return what a file that is named like an archive holds."""
        try:
            if self._shadowed(entry.path):
                return _Listed("same_name")
            archive = self._opened(entry.path, saves=True)
            if archive is None:
                return _Listed("file")
            found = sorted(_entries(archive, entry.path, entry.path.rpartition(b"/")[0]), key=attrgetter("path"))
        except Unlisted as trouble:
            return _Listed(trouble.kind)
        except Unread:
            return _Listed("file", unsure=True)
        except Quarantined:  # whoever reads it as a file is told why that fails
            return _Listed("file")
        except StorageError:  # the private folder's
            raise
        except MemoryError:
            return _Listed("limit")
        except Exception:  # whatever an archive does to its reader, it is one bad file of many
            return _Listed("damaged")
        return _Listed(archive.rest or ("file" if found else "no_members"), _unique(found))

    def _shadowed(self, path: bytes) -> bool:
        """Return whether a bucket has objects below the name of this one: then a member's path may be another's."""
        try:
            return is_remote(self.url) and next(Store(self.url).list(path.decode() + "/"), None) is not None
        except StorageError as error:
            raise unreadable(error) from None

    def _opened(self, path: bytes, saves: bool = False) -> Archive | None:
        reader = FileReader(self.url, path)
        kept = None if self.indexes is None else KeptIndex(self.indexes, path, reader.identity, saves)
        return opened(path, reader, kept)

    def _member(self, path: bytes) -> tuple[Archive, Member] | None:
        """Return the member that a path names, and the archive that it is in; None for a file of its own."""
        for found in _INSIDE.finditer(path):
            outer = path[: found.end() - 1]
            state = self._state(outer)
            try:
                archive = _OPENED.get((self, outer, state), functools.partial(self._archive, outer)) if state else None
                if archive is not None:
                    return _within(archive, path[found.end() :])
            except Unlisted as trouble:
                Entry(outer, 0, trouble.kind).require_file()
        return None

    def _state(self, path: bytes) -> tuple[int, ...] | None:
        """Return what changes with a local file; None where there is none: folders may be named like archives."""
        if is_remote(self.url):
            return (0,)
        try:
            facts = on_disk(self.url, path).stat()
        except OSError:  # whoever reads the path itself is told why it fails
            return None
        return (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else None

    def _archive(self, path: bytes) -> Archive | None:
        """Open the archive at a path; None for what is none."""
        try:
            return None if self._shadowed(path) else self._opened(path)
        except Unread:
            raise
        except Quarantined:  # whoever reads it as a file is told why that fails
            return None


@dataclass(frozen=True, slots=True)
class _Listed:
    """What became of an archive in the listing: `kind` is its own, "file" where nothing is to be said of it."""

    kind: Kind
    members: list[Entry] | None = None
    unsure: bool = False


class _Opened:
    """Archives that this process has opened, the last used of them, by url and path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: LRUCache[object, Archive | None] = LRUCache(_MEMORY, getsizeof=_weight)

    def get(self, key: object, make: Callable[[], Archive | None]) -> Archive | None:
        """Return an archive, opened by `make` unless it is here."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
        return made


def _weight(archive: Archive | None) -> int:
    return 100 if archive is None else min(_MEMORY, archive.weight)


_OPENED = _Opened()


def _within(archive: Archive, name: bytes) -> tuple[Archive, Member]:
    """Return a member by its name, or one of an archive that is a member, and the archive that it is in."""
    if (member := archive.members.get(name)) is not None:
        return archive, member
    for found in _INSIDE.finditer(name):
        outer = archive.members.get(name[: found.end() - 1])
        if outer is not None and outer.kind == "file":
            inner = _OPENED.get((archive, outer.name), functools.partial(_nested, archive, outer))
            if inner is not None and (member := inner.members.get(name[found.end() :])) is not None:
                return inner, member
    raise Quarantined("io_error", "its archive does not hold it any more: was it changed while the build ran?")


def _nested(archive: Archive, member: Member) -> Archive | None:
    """Open an archive that is a member of one."""
    return opened(member.name, archive.reader(member))


def _entries(archive: Archive, path: bytes, folder: bytes, depth: int = 0) -> Iterator[Entry]:
    """Yield the members of an archive as entries, those of archives in it among them, in any order.

    `path` is the archive's own, `folder` where its members would lie if it were unpacked.
    """
    path, folder = path + b"/", folder + b"/" if folder else b""
    for member in archive.members.values():
        below, beside = path + member.name, folder + member.name
        entry = Entry(below, member.size, member.kind, None, beside)
        if member.kind != "file" or not NAMED.search(member.name):
            yield entry
            continue
        try:
            inner = _nested(archive, member)
            if inner is not None and depth >= limits.DEPTH:
                raise Unlisted("limit")
        except Unlisted as trouble:
            yield replace(entry, kind=trouble.kind)
            continue
        except Unread:
            raise
        except Quarantined:
            inner = None  # reading it as a file will tell why
        if inner is None:
            yield entry
            continue
        kind = inner.rest or ("no_members" if not inner.members else None)
        if kind is not None:
            yield replace(entry, kind=kind)
        yield from _entries(inner, below, beside.rpartition(b"/")[0], depth + 1)


def _unique(found: list[Entry]) -> list[Entry]:
    """Return sorted entries, those with one path as one: an archive may hold a.zip and, in a folder a.zip, files."""
    kept: list[Entry] = []
    for entry in found:
        if kept and kept[-1].path == entry.path:
            kept[-1] = replace(kept[-1], kind="same_name")
        else:
            kept.append(entry)
    return kept
