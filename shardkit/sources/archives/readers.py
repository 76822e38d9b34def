"""Bytes by their place: of a file in the export, of a part of it, or in memory; and the same as a file to seek in."""

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from io import BytesIO
from typing import ClassVar, Protocol

import obstore

from shardkit.errors import Quarantined
from shardkit.sources import files as export
from shardkit.sources.files import unreadable
from shardkit.storage import is_remote, local_path

_CHANGED = "its archive changed while the build ran: `shardkit retry --class io_error` takes it in"
BLOCK = 1 << 18  # of a remote file, asked for at once
_BLOCKS = 16  # that a file to seek in keeps


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
            facts = os.stat(self._local())
            return facts.st_size, facts.st_mtime_ns
        except (OSError, obstore.exceptions.BaseError) as error:
            raise unreadable(error) from None

    def _local(self) -> bytes:
        return os.path.join(os.fsencode(local_path(self.url)), self.path)

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
        with open(self._local(), "rb", buffering=0) as file:
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


class Seekable(BytesIO):
    """A reader as a file: small reads come from blocks, of which the last ones stay; large ones are one request."""

    def __init__(self, reader: Reader, block: int = BLOCK) -> None:
        super().__init__()
        self._reader, self._at, self._block = reader, 0, block
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, count: int | None = -1, /) -> bytes:
        size = self._reader.size
        end = size if count is None or count < 0 else min(size, self._at + count)
        if end - self._at > 2 * self._block:
            data = self._reader.at(self._at, end - self._at)
            self._at = end
            return data
        parts = []
        while self._at < end:
            number, offset = divmod(self._at, self._block)
            part = self._kept(number)[offset : offset + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _kept(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * self._block
        block = self._reader.at(start, min(self._block, self._reader.size - start))
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + (0, self._at, self._reader.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at
