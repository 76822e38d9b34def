"""Whole shards on a local disk, shared by all processes of a machine, under a limit in bytes.

    <folder>/<id>-<bytes>/shard     id: hash of what the manifest says of the shard's members

A folder stands for a shard; holding its lock (`flock`, gone with the process that held it) reserves the bytes and makes
one process fetch it while others wait. The shard is written to a file without a name and appears by a link, complete
and checked, so that a killed process leaves at most an empty folder, which the next one removes. A shard that is
evicted while somebody reads it stays readable for him.
"""

import asyncio
import errno
import fcntl
import logging
import os
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shardkit.errors import ArgumentError, StorageError
from shardkit.manifest import fingerprint
from shardkit.storage import sentences
from shardkit.stream.files import Files
from shardkit.stream.reader import Reader

_log = logging.getLogger("shardkit.stream")
_PIECE, _AT_ONCE = 8 << 20, 4
_POLL = 0.05  # seconds between looks at what another process fetches
_TOUCH = 60.0  # seconds; a shard's last use is noted no more often
_NAME = "shard"


@dataclass(frozen=True, slots=True)
class Contents:
    """What the manifest says of a shard: an id that covers it, and (offset, bytes, hash) of its members."""

    id: str
    members: list[tuple[int, int, bytes]]


class Shelf(Protocol):
    """Knows the contents of shards."""

    def contents(self, shard: str) -> Contents:
        """Of one shard."""
        ...


class Cached:
    """A `Reader` that keeps whole shards in `folder`, at most `limit` bytes of them.

    patience: seconds to wait for a shard that another process fetches, or for room; then the range is read from the
    store. Raises ArgumentError when a folder cannot be used.
    """

    def __init__(self, inner: Reader, folder: Path, limit: int, shelf: Shelf, patience: float = 60.0) -> None:
        self._inner, self._folder, self._limit, self._shelf, self._patience = inner, folder, limit, shelf, patience
        try:
            with sentences(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
        except StorageError as error:
            raise ArgumentError(f"the cache cannot be used: {error}") from None
        self._files = Files()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="shardkit-cache")
        self._filling: dict[str, asyncio.Task[Path | None]] = {}
        self._known: dict[str, tuple[Path, float]] = {}  # shard -> where it is, when its use was noted
        self.hits = self.misses = self.fills = self.evictions = self.filled_bytes = 0
        self._remove_dead()

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`. `fresh` also drops the shard's copy, which turned out bad."""
        if fresh:
            self._drop(name)
            return await self._inner.read(name, start, length, fresh=True)
        path = await self._ensure(name)
        if path is not None:
            loop = asyncio.get_running_loop()
            with suppress(OSError):  # evicted meanwhile, or a bad disk: the store has it
                return await loop.run_in_executor(self._threads, self._files.read, path, start, length)
            self._known.pop(name, None)
        return await self._inner.read(name, start, length)

    async def size(self, name: str) -> int:
        """See `Reader`."""
        return await self._inner.size(name)

    async def close(self) -> None:
        """See `Reader`."""
        for task in self._filling.values():
            task.cancel()
        await asyncio.gather(*self._filling.values(), return_exceptions=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._files.close()
        await self._inner.close()

    async def _ensure(self, name: str) -> Path | None:
        """Where the shard is; None if it cannot be had in time."""
        known = self._known.get(name)
        if known is not None and known[0].exists():
            self.hits += 1
            if time.time() - known[1] > _TOUCH:
                self._note(name, known[0])
            return known[0]
        self.misses += 1
        task = self._filling.get(name)
        if task is None:
            task = self._filling[name] = asyncio.create_task(self._fill(name))
            task.add_done_callback(lambda _: self._filling.pop(name, None))
        try:
            return await asyncio.shield(task)
        except (StorageError, OSError) as error:
            _log.warning("%s is not cached: %s", name, error)
            return None

    def _note(self, name: str, path: Path) -> None:
        with suppress(OSError):
            os.utime(path)
        self._known[name] = (path, time.time())

    async def _fill(self, name: str) -> Path | None:
        loop = asyncio.get_running_loop()
        contents = await loop.run_in_executor(self._threads, self._shelf.contents, name)
        size = await self._inner.size(name)
        if size > self._limit:
            raise StorageError(f"it has {size:,} bytes and the cache a limit of {self._limit:,}")
        entry = self._folder / f"{contents.id}-{size}"
        path, deadline = entry / _NAME, time.monotonic() + self._patience
        while time.monotonic() < deadline:
            if path.exists():
                self._note(name, path)
                return path
            lock = _lock(entry)
            if lock is None:
                await asyncio.sleep(_POLL)
                continue
            try:
                if not path.exists():
                    if not self._make_room(entry, size):
                        with suppress(OSError):
                            entry.rmdir()
                        await asyncio.sleep(_POLL)
                        continue
                    await self._fetch(name, size, contents, path)
            finally:
                os.close(lock)
        return None

    async def _fetch(self, name: str, size: int, contents: Contents, path: Path) -> None:
        """Bring the shard into an unnamed file, check its members, make it visible."""
        loop = asyncio.get_running_loop()
        file = _unnamed(path.parent)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def bring(start: int, length: int, fresh: bool = False) -> None:
            async with limit:
                data = await self._inner.read(name, start, length, fresh=fresh)
                await loop.run_in_executor(self._threads, _write, file, data, start)

        try:
            await _all(bring(start, min(_PIECE, size - start)) for start in range(0, size, _PIECE))
            bad = await loop.run_in_executor(self._threads, _bad_members, file, contents)
            for start, length, _ in bad:
                await bring(start, length, fresh=True)
            if bad and (still := await loop.run_in_executor(self._threads, _bad_members, file, contents)):
                _log.warning("%s: %d members differ from their hashes on the store; run verify", name, len(still))
            os.link(f"/proc/self/fd/{file}", path, follow_symlinks=True)
        finally:
            os.close(file)
        self.fills += 1
        self.filled_bytes += size

    def _make_room(self, mine: Path, size: int) -> bool:
        """Evict the least recently used shards until `size` more bytes fit; what others reserved counts as used."""
        total, evictable = 0, list[tuple[float, int, Path]]()
        for entry, bytes_ in self._entries():
            if entry == mine:
                continue
            try:
                evictable.append(((entry / _NAME).stat().st_mtime, bytes_, entry))
            except OSError:
                if _remove_if_dead(entry):
                    continue
            total += bytes_
        for _, bytes_, entry in sorted(evictable):
            if total + size <= self._limit:
                break
            with suppress(OSError):
                (entry / _NAME).unlink()
                self._files.forget(entry / _NAME)
                self.evictions += 1
            total -= bytes_
            with suppress(OSError):
                entry.rmdir()
        return total + size <= self._limit

    def _entries(self) -> list[tuple[Path, int]]:
        found = []
        for entry in os.scandir(self._folder):
            _, dash, size = entry.name.rpartition("-")
            if dash and size.isdigit():
                found.append((Path(entry.path), int(size)))
        return found

    def _remove_dead(self) -> None:
        for entry, _ in self._entries():
            if not (entry / _NAME).exists():
                _remove_if_dead(entry)

    def _drop(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is not None:
            with suppress(OSError):
                known[0].unlink()
            self._files.forget(known[0])


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines; the first that fails cancels the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _lock(entry: Path) -> int | None:
    """Lock an entry's folder, making it; a descriptor to close, or None while another process holds it."""
    with suppress(OSError):
        entry.mkdir(exist_ok=True)
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), entry.stat()):  # else it was removed between
                return descriptor
        os.close(descriptor)
    return None


def _remove_if_dead(entry: Path) -> bool:
    """Remove a folder that holds no shard and that nobody is filling; whether it is gone."""
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in entry.iterdir():
            if left.name != _NAME:
                left.unlink()
        entry.rmdir()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unnamed(folder: Path) -> int:
    """A descriptor of a file that vanishes with it unless it is linked."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        raise StorageError(f"{folder}: this filesystem has no unnamed files; put the cache on another") from None


def _write(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, start)
        view, start = view[done:], start + done


def _bad_members(file: int, contents: Contents) -> list[tuple[int, int, bytes]]:
    return [m for m in contents.members if fingerprint(os.pread(file, m[1], m[0])) != m[2]]
