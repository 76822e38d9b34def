"""Bytes by their place: of a file in the export, of a part of it, or in memory; and the same as a file to seek in."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import obstore
from cachetools import LRUCache

from shardkit.errors import Quarantined
from shardkit.sources import files as export
from shardkit.sources.files import unreadable
from shardkit.sources.seeking import Opened
from shardkit.storage import is_remote, local_path

_CHANGED = "its archive changed while the build ran: `shardkit retry --class io_error` takes it in"
BLOCK = 1 << 18  # of a remote file, asked for at once
_BLOCKS = 16  # that a file to seek in keeps


def on_disk(url: str, path: bytes) -> Path:
    """Return where a file below a local folder lies."""
    return local_path(url) / os.fsdecode(path)


class Reader(Protocol):
    """Bytes by their place."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def held(self) -> int:
        """Bytes of memory that they take, about."""
        ...

    def at(self, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start` on, which must be there.

        Raises
        ------
        Quarantined
            io_error; `Unread` where the store may be away.
        """
        ...


@dataclass(frozen=True)
class FileReader:
    """Bytes of a file below a folder or in a bucket. It is opened for each read: it may be away meanwhile.

    Parameters
    ----------
    url : str
        The folder or bucket.
    path : bytes
        The file below it.
    """

    url: str
    path: bytes = field(repr=False)
    _state: tuple[int, int] = field(init=False)
    held: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Ask for size and time of change; a bucket does not keep the latter."""
        object.__setattr__(self, "_state", self._found())

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self._state[0]

    @property
    def identity(self) -> str:
        """What changes when the file does."""
        return f"{self._state[0]} {self._state[1]}"

    def _found(self) -> tuple[int, int]:
        try:
            if is_remote(self.url):
                found = obstore.head(export._store(self.url).remote, self.path.decode())
                return int(found["size"]), int(found["last_modified"].timestamp())
            facts = on_disk(self.url, self.path).stat()
            return facts.st_size, facts.st_mtime_ns
        except (OSError, obstore.exceptions.BaseError) as error:
            raise unreadable(error) from None

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `Reader.at`."""
        try:
            data = self._remote_bytes(start, length) if is_remote(self.url) else self._local_bytes(start, length)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise unreadable(error) from None
        if len(data) != length:
            raise Quarantined("io_error", _CHANGED)
        return data

    def _remote_bytes(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        store = export._store(self.url).remote
        return bytes(obstore.get_range(store, self.path.decode(), start=start, length=length))

    def _local_bytes(self, start: int, length: int) -> bytes:
        with on_disk(self.url, self.path).open("rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            if (facts.st_size, facts.st_mtime_ns) != self._state:
                raise Quarantined("io_error", _CHANGED)
            parts = []
            while length and (part := os.pread(file.fileno(), length, start)):
                parts.append(part)
                start, length = start + len(part), length - len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True)
class Part:
    """Bytes within those of another reader."""

    whole: Reader
    start: int
    size: int
    held: ClassVar[int] = 0  # of its own

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `Reader.at`."""
        return self.whole.at(self.start + start, length)


@dataclass(frozen=True)
class Memory:
    """Bytes at hand."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    @property
    def held(self) -> int:
        """The same: all are in memory."""
        return len(self.data)

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `Reader.at`."""
        return self.data[start : start + length]


class Seekable(Opened):
    """A reader as a file: small reads come from blocks, of which the last ones stay; large ones are one request."""

    def __init__(self, reader: Reader, block: int = BLOCK) -> None:
        super().__init__(reader.size)
        self._reader, self._block = reader, block
        self._blocks: LRUCache[int, bytes] = LRUCache(_BLOCKS)

    def part(self, start: int, end: int) -> bytes:
        """Return bytes, as `Opened.part`."""
        if end - start > 2 * self._block:
            return self._reader.at(start, end - start)
        parts = []
        while start < end:
            number, offset = divmod(start, self._block)
            parts.append(self._kept(number)[offset : offset + end - start])
            start += len(parts[-1])
        return b"".join(parts)

    def _kept(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * self._block
            self._blocks[number] = self._reader.at(start, min(self._block, self._size - start))
        return self._blocks[number]
