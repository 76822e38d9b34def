"""Whole shards on a local disk, shared by all processes of a machine, under a limit in bytes.

    <folder>/<id>-<bytes>/shard     id: hash of what the manifest says of the shard's members

A folder stands for a shard; holding its lock (`flock`, gone with the process that held it) reserves the bytes and makes
one process fetch it while others wait. The shard is written to a file without a name and appears by a link, complete
and checked, so that a killed process leaves at most an empty folder, which the next one removes. A shard that is
evicted stays readable for processes that have it open.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, StorageError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream.counters import CacheStats
from shardkit.loader.stream.files import AnonymousFile, read_once
from shardkit.loader.stream.locks import lock, release, unlock
from shardkit.loader.stream.reader import Reader, folder_of
from shardkit.storage import MissingObject, Unusable, reason, translate_errors
from shardkit.storage.waiting import StoreAway
from shardkit.terminal.output import logger

_log = logger("shardkit.stream")
_PIECE, _AT_ONCE = 8 << 20, 16  # bytes of a read, and how many reads at a time: bounds the memory of fills
_POLL = 0.05  # seconds between looks at what another process fetches
_TOUCH = 60.0  # seconds; a shard's last use is noted no more often
_PAUSE = 60.0  # seconds until what could not be cached is tried again
_NAME = "shard"
_ENTRY = re.compile(r"[0-9a-f]{32}-(\d+)")  # other files and folders are not ours

T = TypeVar("T")
Member = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Contents:
    """What the manifest says of a shard.

    Attributes
    ----------
    id : str
        32 hex digits that change with anything the manifest says of it.
    members : list of tuple
        Offset, bytes and hash of each member.
    """

    id: str
    members: list[Member]


class ShardIndex(Protocol):
    """Knows the contents of shards."""

    def contents(self, shard: str) -> Contents:
        """Say what is in one shard."""
        ...


class Cached:
    """A `Reader` that keeps whole shards on a local disk. What cannot be cached is read from the store.

    Parameters
    ----------
    inner : Reader
        Reads from the store.
    options : CacheOptions
        Where shards are kept, and how many bytes they may take.
    index : ShardIndex
        Knows what lies in a shard.
    patience : float
        Seconds to wait for a shard that another process fetches, or for room.
    stats : CacheStats, optional
        Where to count.

    Raises
    ------
    ArgumentError
        When the folder cannot be used.
    """

    def __init__(
        self,
        inner: Reader,
        options: CacheOptions,
        index: ShardIndex,
        patience: float = 60.0,
        stats: CacheStats | None = None,
    ) -> None:
        check_folder(options.folder)
        self._inner, self._folder, self._limit = inner, options.folder, options.bytes
        self._index, self._patience, self.stats = index, patience, stats or CacheStats()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="shardkit-cache")
        self._pieces = asyncio.Semaphore(_AT_ONCE)
        self._filling: dict[str, asyncio.Task[Path | None]] = {}
        self._known: dict[str, tuple[Path, float]] = {}  # shard -> where it is, when its use was noted
        self._refused: dict[str, float] = {}  # shard, or "" for all -> when to try to cache it again
        self._remove_dead()

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`. `fresh` also drops the shard's copy, unless the store says the same."""
        if fresh:
            data = await self._inner.read(name, start, length, fresh=True)
            if name in self._known and await self._copy(name, self._known[name][0], start, length) != data:
                self._drop(name)
            return data
        path = await self._ensure(name)
        copy = None if path is None else await self._copy(name, path, start, length)
        return await self._inner.read(name, start, length) if copy is None else copy

    async def size(self, name: str) -> int:
        """See `Reader`."""
        return await self._inner.size(name)

    async def close(self) -> None:
        """See `Reader`."""
        for task in self._filling.values():
            task.cancel()
        await asyncio.gather(*self._filling.values(), return_exceptions=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        await self._inner.close()

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    # --- copies

    async def _copy(self, name: str, path: Path, start: int, length: int) -> bytes | None:
        """Read a range of the shard's copy; None if it has gone."""
        try:
            return await self._in_thread(read_once, path, start, length)
        except IntegrityError:  # cut short
            self._drop(name)
        except OSError:  # evicted meanwhile, or a bad disk
            self._known.pop(name, None)
        return None

    async def _ensure(self, name: str) -> Path | None:
        """Find or bring in the shard; None if it cannot be had in time."""
        if name in self._known:
            path, noted = self._known[name]
            if path.exists():
                self.stats.hits_by_bin[folder_of(name)] += 1
                if time.monotonic() - noted > _TOUCH:
                    self._note(name, path)
                return path
            del self._known[name]
        self.stats.misses += 1
        if time.monotonic() < max(self._refused.get(name, 0.0), self._refused.get("", 0.0)):
            return None
        task = self._filling.get(name)
        if task is None:
            task = self._filling[name] = asyncio.create_task(self._try(name))
            task.add_done_callback(lambda task: self._filled(name, task))
        return await asyncio.shield(task)

    def _filled(self, name: str, task: asyncio.Task[Path | None]) -> None:
        self._filling.pop(name, None)
        _ = task.cancelled() or task.exception()  # seen, lest asyncio reports it where nobody waits any more

    def _note(self, name: str, path: Path) -> None:
        with suppress(OSError):
            os.utime(path)
        self._known[name] = (path, time.monotonic())

    def _drop(self, name: str) -> None:
        if name in self._known:
            path, _ = self._known.pop(name)
            _remove(path)

    # --- filling

    async def _try(self, name: str) -> Path | None:
        """Bring the shard in; None, and no further try for a while, where that fails."""
        try:
            return await self._bring(name)
        except (StoreAway, MissingObject, Unusable):  # no other way leads to it
            raise
        except (OSError, IntegrityError) as error:
            # The shard, the limit or patience are at fault for this shard, the disk for all.
            at_fault = name if isinstance(error, (StorageError, IntegrityError)) else ""
            self._refused[at_fault] = time.monotonic() + _PAUSE
            what = f"{name} is" if at_fault else f"{self._folder}: shards are"
            _log.warning("%s not cached for %.0f s, but read from the store: %s", what, _PAUSE, reason(error))
            return None

    async def _bring(self, name: str) -> Path:
        contents = await self._in_thread(self._index.contents, name)
        size = await self._inner.size(name)
        if size > self._limit:
            raise StorageError(f"it has {size:,} bytes and the cache a limit of {self._limit:,}")
        path = self._folder / f"{contents.id}-{size}" / _NAME
        deadline = time.monotonic() + self._patience
        while not path.exists() and not await self._fill(name, size, contents, path):
            if time.monotonic() > deadline:
                raise StorageError(f"no room, or no end of another process's fetch, in {self._patience:.0f} s")
            await asyncio.sleep(_POLL * random.uniform(0.5, 1.5))
        self._note(name, path)
        return path

    async def _fill(self, name: str, size: int, contents: Contents, path: Path) -> bool:
        """Fetch the shard, unless another process is at it or there is no room."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(path.parent)
        if held is None:
            return False
        try:
            if not path.exists():
                if not self._make_room(path.parent, size):
                    return False
                await self._fetch(name, size, contents, path)
            return True
        finally:
            release(path.parent, held)

    async def _fetch(self, name: str, size: int, contents: Contents, path: Path) -> None:
        """Bring the shard into an unnamed file, check its members, make it visible."""
        file = AnonymousFile(path.parent)

        async def bring(start: int, length: int, fresh: bool = False) -> None:
            async with self._pieces:
                data = await self._inner.read(name, start, length, fresh=fresh)
                await self._in_thread(file.write, data, start)

        try:
            await _all(bring(start, min(_PIECE, size - start)) for start in range(0, size, _PIECE))
            if bad := await self._in_thread(_bad, file, contents.members):
                await _all(bring(start, length, fresh=True) for start, length, _ in bad)
                if bad := await self._in_thread(_bad, file, bad):
                    _log.warning("%s: %d members differ from their hashes on the store; run verify", name, len(bad))
            file.publish(path)
        finally:
            file.close()
        self.stats.fills += 1
        self.stats.filled_bytes += size

    # --- room

    def _make_room(self, mine: Path, size: int) -> bool:
        """Evict the least recently used shards until `size` more bytes fit; what others reserved counts as used."""
        total, evictable = size, list[tuple[float, int, Path]]()
        for entry, bytes_ in self._entries():
            if entry == mine:
                continue
            try:
                evictable.append(((entry / _NAME).stat().st_mtime, bytes_, entry))
            except FileNotFoundError:
                if _remove_if_dead(entry):
                    continue
            total += bytes_
        for _, bytes_, entry in sorted(evictable):
            if total <= self._limit:
                break
            if _remove(entry / _NAME):
                self.stats.evictions += 1
                total -= bytes_
        return total <= self._limit

    def _entries(self) -> list[tuple[Path, int]]:
        found = []
        for entry in os.scandir(self._folder):
            if ours := _ENTRY.fullmatch(entry.name):
                found.append((Path(entry.path), int(ours[1])))
        return found

    def _remove_dead(self) -> None:
        for entry, _ in self._entries():
            if not (entry / _NAME).exists():
                _remove_if_dead(entry)


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or lacks the kinds of files and locks that a cache needs.

    Raises
    ------
    ArgumentError
        Names the folder and the reason.
    """
    try:
        with translate_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            AnonymousFile(folder).close()
            if (held := lock(folder)) is not None:
                unlock(held)
    except StorageError as error:
        raise ArgumentError(f"the cache cannot be used: {error}") from None


def _remove(path: Path) -> bool:
    """Remove a shard; whether it is gone. Processes that have it open read on."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    _remove_if_dead(path.parent)
    return True


def _remove_if_dead(entry: Path) -> bool:
    """Remove a folder that holds no shard and that nobody is filling; whether it is gone."""
    with suppress(OSError):
        if (held := lock(entry)) is not None:
            release(entry, held)
    return not entry.exists()


def _bad(file: AnonymousFile, members: list[Member]) -> list[Member]:
    """Those whose bytes differ from their hashes."""
    return [member for member in members if fingerprint(file.read(member[0], member[1])) != member[2]]
