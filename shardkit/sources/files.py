"""The export: files below a local path or a bucket, listed in a fixed order and read whole or from their start.

Whatever is not a plain file is listed too, so that it ends in the ledger: symbolic links, pipes, unreadable folders.
A store that is away is no bad file: who reads a file that fails asks the store, and waits for it (`settled`).
"""

import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import obstore

from shardkit.errors import ArgumentError, Quarantined, StorageError
from shardkit.sources.entries import Entry, Kind
from shardkit.sources.seeking import Opened
from shardkit.storage import (
    AWAY,
    NO_RETRIES,
    MissingObject,
    Store,
    Unanswered,
    is_remote,
    local_path,
    no_folder,
    shown,
    translate_errors,
)
from shardkit.storage.waiting import pause, waited

_LINKS: dict[int | None, Kind] = {
    errno.ENOENT: "broken_link",
    errno.ENOTDIR: "broken_link",
    errno.ELOOP: "endless_link",
}
_HEAD = 1 << 18  # one request brings nearly every header
_RETRIES: dict[str, Any] = {"retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}}
"""The client's own, for a moment only: a file's time limit counts meanwhile."""
_DEADLINE = 300.0  # seconds that a build waits for its source
_TRIES = 3  # at a file that fails while the store answers
R = TypeVar("R", bound=Any)


@dataclass(frozen=True)
class FileTree:
    """Files below a folder or a bucket's url.

    Parameters
    ----------
    url : str
        Folder, or url of a bucket.
    follow_symlinks : bool
        Whether to read what symbolic links point to.
    """

    url: str
    follow_symlinks: bool = False

    def check(self) -> None:
        """Refuse a local path that is no folder.

        Raises
        ------
        ArgumentError
            Where it is none.
        """
        if not is_remote(self.url) and (absent := no_folder(local_path(self.url))):
            raise ArgumentError(f"--source: {absent}: name the folder or bucket that holds the export")

    def answers(self) -> bool:
        """Return whether files can be had at all.

        Raises
        ------
        StorageError
            Where no wait helps: the store refuses, or the place is gone.
        """
        try:
            self._ask()
        except Unanswered:
            return False
        return True

    def wait(self) -> None:
        """Wait until the source is there.

        Raises
        ------
        StorageError
            When it stays away for some minutes, and as `answers`.
        """
        waited(self._ask, shown(self.url), _DEADLINE, "run the same command again when it is back, to go on")

    def _ask(self) -> None:
        """Look for a file. An empty place counts as away, too: files were listed there, so a share is not mounted."""
        if is_remote(self.url):
            there: Any = next(Store(self.url, **NO_RETRIES).list(""), None)
        else:
            root = local_path(self.url)
            if not root.is_dir():
                raise Unanswered(f"{root}: the folder is not there")
            with translate_errors(str(root)), os.scandir(root) as names:
                there = next(names, None)
        if there is None:
            raise Unanswered(f"{shown(self.url)}: no file is there any more")

    def list(self) -> Iterator[Entry]:
        """Yield every name, sorted by path.

        Raises
        ------
        StorageError
            When the bucket cannot be listed.
        """
        if is_remote(self.url):
            for name, size in Store(self.url).list(""):
                yield Entry(name.encode(), size, "file")
        else:
            root = os.fsencode(local_path(self.url))
            facts = os.stat(root)
            yield from self._walk(root, b"", frozenset({(facts.st_dev, facts.st_ino)}))

    def _walk(self, root: bytes, below: bytes, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
        folder = os.path.join(root, below)
        try:
            with os.scandir(folder) as found:
                # A folder sorts as its files' paths do, with the slash: as a bucket lists them.
                names = sorted(found, key=_as_in_a_bucket)
        except OSError as error:
            yield Entry(below, 0, self._trouble(error))
            return
        for name in (one.name for one in names):
            path = os.path.join(below, name)
            facts = self._facts(os.path.join(root, path))
            if isinstance(facts, str):
                yield Entry(path, 0, facts)
                continue
            identity = (facts.st_dev, facts.st_ino)
            if stat.S_ISDIR(facts.st_mode):
                if identity in above:  # a link to a folder above it: following it would never end
                    yield Entry(path, 0, "loop")
                else:
                    yield from self._walk(root, path, above | {identity})
            else:
                yield Entry(path, facts.st_size, "file" if stat.S_ISREG(facts.st_mode) else "special")

    def _facts(self, path: bytes) -> "os.stat_result | Kind":
        """Return what stands behind a name, or why nothing can be read there."""
        try:
            facts = os.lstat(path)
        except OSError as error:
            return self._trouble(error)
        if not stat.S_ISLNK(facts.st_mode):
            return facts
        try:
            facts = os.stat(path)  # even if it is not followed: it may lead nowhere
        except OSError as error:
            return _LINKS.get(error.errno) or (self._trouble(error) if self.follow_symlinks else "symlink")
        return facts if self.follow_symlinks else "symlink"

    def _trouble(self, error: OSError) -> Kind:
        """Return what a name is that cannot be read. Raises StorageError for a share that is away."""
        if error.errno in AWAY:
            with translate_errors(self.url):
                raise error
        return "too_long" if error.errno == errno.ENAMETOOLONG else "unreadable"

    def open(self, path: bytes, size: int) -> BinaryIO:
        """Open a seekable file for reading a header.

        Parameters
        ----------
        path : bytes
            Below the place.
        size : int
            Its bytes.

        Raises
        ------
        Quarantined
            io_error.
        """
        try:
            if not is_remote(self.url):
                return _Local(os.path.join(os.fsencode(local_path(self.url)), path), size)
            store, name = _store(self.url).remote, path.decode()
            if size <= _HEAD:
                return BytesIO(bytes(obstore.get(store, name).bytes()))
            return cast(BinaryIO, _Remote(store, name, size))
        except (OSError, obstore.exceptions.BaseError) as error:
            raise unreadable(error) from None

    def read(self, path: bytes) -> bytes:
        """Read a whole file.

        Parameters
        ----------
        path : bytes
            Below the place.

        Raises
        ------
        Quarantined
            io_error.
        """
        try:
            if is_remote(self.url):
                return _store(self.url).get(path.decode())
            return Path(os.fsdecode(os.path.join(os.fsencode(local_path(self.url)), path))).read_bytes()
        except (OSError, obstore.exceptions.BaseError) as error:
            raise unreadable(error) from None

    def changed_at(self, path: bytes) -> int | None:
        """Return when a local file was changed last, in ns; None where nothing tells."""
        if is_remote(self.url):
            return None
        try:
            return os.stat(os.path.join(os.fsencode(local_path(self.url)), path)).st_mtime_ns
        except OSError:
            return None


def _as_in_a_bucket(entry: "os.DirEntry[bytes]") -> bytes:
    """Sort key: a folder counts with its slash, as in its files' names."""
    return entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name


@functools.lru_cache(maxsize=8)
def _store(url: str) -> Store:
    """One client per bucket and process."""
    return Store(url, **_RETRIES)


class _Local(BufferedReader):
    """A file that allocates no more than it holds: others take all that is asked for, and a header asks for 4 GiB."""

    def __init__(self, path: bytes, size: int) -> None:
        super().__init__(FileIO(path))
        self._size = size

    def read(self, count: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if count is None or count < 0 else min(count, left))


class _Remote(Opened):
    """A file over range requests: the first block at once, others as they are asked for.

    Not `obstore.open_reader`, which drops its buffer at every seek: reading one header takes eight.
    """

    def __init__(self, store: object, name: str, size: int) -> None:
        super().__init__(size)
        self._store, self._name = store, name
        self._blocks: dict[int, bytes] = {}

    def part(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            number, offset = divmod(start, _HEAD)
            if number not in self._blocks:
                length = min(_HEAD, self._size - number * _HEAD)
                try:
                    block = obstore.get_range(self._store, self._name, start=number * _HEAD, length=length)  # type: ignore[arg-type]
                except (OSError, obstore.exceptions.BaseError) as error:
                    raise unreadable(error) from None
                self._blocks[number] = bytes(block)
            part = self._blocks[number][offset : offset + end - start]
            if not part:
                break
            parts.append(part)
            start += len(part)
        return b"".join(parts)


class Unread(Quarantined):
    """A file whose bytes cannot be had, maybe because its store is away."""


def unreadable(error: BaseException) -> Quarantined:
    """Return the verdict on a file whose bytes cannot be had. The store's words name paths: only the kind is kept."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else None
    if isinstance(error, StorageError):
        words = "the store refused or failed"
    return _kind(error)("io_error", f"the file cannot be read: {words or type(error).__name__}")


def _kind(error: BaseException) -> type[Quarantined]:
    if isinstance(error, (StorageError, obstore.exceptions.BaseError)):
        certain = isinstance(error, (MissingObject, FileNotFoundError))
    else:  # a disk's; where a share was, nothing is
        certain = not isinstance(error, OSError) or error.errno not in (*AWAY, errno.ENOENT)
    return Quarantined if certain else Unread


def settled(files: FileTree, found: R, again: Callable[[], R]) -> R:
    """Return what became of a file, once it is not `unsure`, or for the last time, if it fails while its store answers.

    Parameters
    ----------
    files : FileTree
        Where the file is.
    found : record with a field `unsure`
        What became of it.
    again : callable
        Tries it again.

    Raises
    ------
    StorageError
        Where the store stays away, which is no verdict.
    """
    tries = 0
    while found.unsure and tries < _TRIES:
        if files.answers():
            tries += 1
            time.sleep(pause(tries))
        else:
            tries = 0
            files.wait()
        found = again()
    return replace(found, unsure=False)
