"""Readers of byte ranges, and the wrappers that give them retries, deadlines and a log.

All of it is asynchronous: an overdue read is cancelled, and a loader that stops leaves no read behind.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.exceptions import BaseError

from shardkit.errors import IntegrityError
from shardkit.loader.stream.files import Files, Threads, cut_short
from shardkit.storage import NO_RETRIES, MissingObject, Store, Unusable, translate_errors
from shardkit.storage.regular import check_name, size
from shardkit.storage.remote import check_process
from shardkit.storage.waiting import DEADLINE, LONGEST_TRY, StoreAway, Throttle, check_patience, patience, pause
from shardkit.terminal.output import logger

_log = logger("shardkit.stream")
_BIN = re.compile(r"(?:^|/)(\d+x\d+)/")
_BEYOND_THE_END = "416 Range Not Satisfiable"


class Reader(Protocol):
    """Byte ranges of named objects."""

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """Read a range of an object.

        Parameters
        ----------
        name : str
            Path of the object below the dataset.
        start, length : int
            First byte, and bytes.
        fresh : bool
            Whether to read past any cache.

        Returns
        -------
        bytes
            Exactly `length` of them.

        Raises
        ------
        IntegrityError
            Where the object ends before.
        StorageError
            Where they cannot be had.
        """
        ...

    async def size(self, name: str) -> int:
        """Return the bytes that an object has, or raise StorageError."""
        ...

    async def close(self) -> None:
        """Give back threads and connections."""
        ...


@dataclass(frozen=True)
class Direct:
    """How threads read ranges of local files by themselves: an event loop costs more than such a read.

    Attributes
    ----------
    threads : Threads
        Those that read.
    read : callable
        Returns the range of an object by its name, first byte and length. It raises OSError and IntegrityError.
    patience : float
        Seconds to wait for reads at most. A mount may hang.
    """

    threads: Threads
    read: Callable[[str, int, int], bytes]
    patience: float = LONGEST_TRY


class StoreReader:
    """Reads a local folder with a few threads, or a bucket with one request a range and no retries of its own.

    Parameters
    ----------
    store : Store or str
        The store, or its url.
    threads : int
        Threads that read a folder.
    """

    def __init__(self, store: Store | str, threads: int = 8) -> None:
        store = store if isinstance(store, Store) else Store(store)
        self.url, self._root = store.url, store.root or Path()
        self._bucket: Any = None
        self._threads: Threads | None = None
        self._files = Files(self._root)
        if store.root is None:
            self._bucket = store.opened(**NO_RETRIES)
        else:
            self._threads = Threads(threads, "shardkit-read")

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`."""
        where = f"{self.url}/{name}"
        check_name(self.url, name)
        with translate_errors(where):
            if self._threads is not None:
                reading = self._threads.submit(self._files.read, name, start, length)
                return await asyncio.wrap_future(reading)
            data = await self._get(name, start, length)
        if len(data) != length:  # no error to a bucket: it gives what there is of a range
            raise cut_short(where, start + length)
        return data

    @property
    def direct(self) -> Direct | None:
        """How threads read it by themselves; None where it is no folder."""
        return None if self._threads is None else Direct(self._threads, self._files.read)

    async def _get(self, name: str, start: int, length: int) -> bytes:
        check_process()
        try:
            return bytes(await obstore.get_range_async(self._bucket, name, start=start, length=length))
        except BaseError as error:
            if _BEYOND_THE_END in str(error):
                return b""
            raise

    async def size(self, name: str) -> int:
        """See `Reader`."""
        with translate_errors(f"{self.url}/{name}"):
            if self._threads is not None:
                return await asyncio.wrap_future(self._threads.submit(size, self._root, name))
            return int((await obstore.head_async(self._bucket, name))["size"])

    async def close(self) -> None:
        """See `Reader`."""
        if self._threads is not None:
            self._threads.close()
        self._files.close()


class Retrying:
    """Repeats failed reads. What fails decides for how long.

    A store that is away or refuses is waited for, with growing pauses; then `StoreAway` is raised. What cannot get
    better is raised at once: a missing object, a store that is not set up for reading.

    Parameters
    ----------
    inner : Reader
        What fails.
    attempts : int
        How often an object is read that ends too early.
    deadline : float
        Seconds that a read waits for a store.
    pause : float
        Seconds before the second try, at most.
    """

    def __init__(self, inner: Reader, attempts: int = 5, deadline: float = DEADLINE, pause: float = 0.1) -> None:
        check_patience(attempts, deadline)
        self._inner, self._attempts, self._deadline, self._pause = inner, attempts, deadline, pause
        self._lines = Throttle()

    @property
    def direct(self) -> Direct | None:
        """How threads read what is inside by themselves, once: what fails is read again by `read`."""
        found: Direct | None = getattr(self._inner, "direct", None)
        return found and replace(found, patience=patience(self._deadline, self._deadline))

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`. A body of another length counts as an object that ends too early."""

        async def once() -> bytes:
            data = await self._inner.read(name, start, length, fresh=fresh)
            if len(data) != length:
                raise IntegrityError(f"{name}: got {len(data):,} of {length:,} bytes from byte {start:,}; run verify")
            return data

        found: bytes = await self._repeat(once, f"{name}: bytes {start:,} to {start + length:,}")
        return found

    async def size(self, name: str) -> int:
        """See `Reader`."""
        return int(await self._repeat(lambda: self._inner.size(name), name))

    async def _repeat(self, once: Any, what: str) -> Any:
        begun, tries, short, reason = time.monotonic(), 0, 0, ""
        while True:
            left = self._deadline - (time.monotonic() - begun)
            tries += 1
            try:
                return await asyncio.wait_for(once(), patience(left, self._deadline))
            except (MissingObject, Unusable):
                raise
            except IntegrityError as error:
                short, reason = short + 1, str(error)
                if short == self._attempts:
                    raise
            except TimeoutError:
                if not reason or left > self._deadline / 4:  # near the end there is hardly time for an answer
                    reason = "no answer in time"
            except OSError as error:
                reason = str(error)
            took = time.monotonic() - begun
            rest = pause(tries, self._pause)
            if took + rest >= self._deadline:
                raise StoreAway(
                    f"{what} could not be read in {tries} tries and {took:.1f} s: {reason}; check the store and go on"
                    " from the last state, or raise the deadline"
                )
            self._tell(what, reason)
            await asyncio.sleep(rest)

    def _tell(self, what: str, reason: str) -> None:
        if (held := self._lines.passed()) is not None:
            others = f" (and {held:,} reads before it)" if held else ""
            _log.warning("%s: failed%s, trying again for up to %.0f s: %s", what, others, self._deadline, reason)

    async def close(self) -> None:
        """See `Reader`."""
        await self._inner.close()


class Logged:
    """Writes a debug line a read: object, range, seconds."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`."""
        begun = time.monotonic()
        data = await self._inner.read(name, start, length, fresh=fresh)
        _log.debug("%s: bytes %d to %d in %.3f s", name, start, start + length, time.monotonic() - begun)
        return data

    async def size(self, name: str) -> int:
        """See `Reader`."""
        return await self._inner.size(name)

    async def close(self) -> None:
        """See `Reader`."""
        await self._inner.close()


def folder_of(name: str) -> str:
    """Name the bin of a shard's object: a folder above it with a bin's name, else the one that it lies in."""
    found = _BIN.search(name)
    return found[1] if found else name.rpartition("/")[0].rpartition("/")[2]
