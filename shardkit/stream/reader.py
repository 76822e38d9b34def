"""Readers of byte ranges, and the wrappers that give them retries, deadlines and a log.

All of it is asynchronous: an overdue read is cancelled, and a loader that stops leaves no read behind.
"""

import asyncio
import random
import re
import time
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.exceptions import BaseError

from shardkit.errors import ArgumentError, StorageError
from shardkit.regular import check_name, size
from shardkit.storage import AccessRefused, MissingObject, Store, sentences
from shardkit.stream.files import Files, Threads, cut_short
from shardkit.terminal import logger

_log = logger("shardkit.stream")
_BIN = re.compile(r"(?:^|/)(\d+x\d+)/")
_BEYOND_THE_END = "416 Range Not Satisfiable"


class Reader(Protocol):
    """Byte ranges of named objects."""

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """Exactly `length` bytes from `start`, past any cache if `fresh`. Raises StorageError."""
        ...

    async def size(self, name: str) -> int:
        """Bytes of the object. Raises StorageError."""
        ...

    async def close(self) -> None:
        """Give back threads and connections."""
        ...


class StoreReader:
    """Reads a local folder with a few threads, or a bucket with one request a range and no retries of its own."""

    def __init__(self, url: str, threads: int = 8) -> None:
        place = Store(url)
        self.url, self._root = place.url, place.root or Path()
        self._bucket: Any = None
        self._threads: Threads | None = None
        self._files = Files(self._root)
        if place.root is None:
            with sentences(self.url):
                # No client_options: they would replace those of the environment, a proxy or plain http among them.
                self._bucket = obstore.store.from_url(self.url, retry_config={"max_retries": 0})
        else:
            self._threads = Threads(threads, "shardkit-read")

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`."""
        where = f"{self.url}/{name}"
        check_name(self.url, name)
        with sentences(where):
            if self._threads is not None:
                reading = self._threads.submit(self._files.read, name, start, length)
                return await asyncio.wrap_future(reading)
            data = await self._get(name, start, length)
        if len(data) != length:  # no error to a bucket: it gives what there is of a range
            raise cut_short(where, start + length)
        return data

    async def _get(self, name: str, start: int, length: int) -> bytes:
        try:
            return bytes(await obstore.get_range_async(self._bucket, name, start=start, length=length))
        except BaseError as error:
            if _BEYOND_THE_END in str(error):
                return b""
            raise

    async def size(self, name: str) -> int:
        """See `Reader`."""
        with sentences(f"{self.url}/{name}"):
            if self._threads is not None:
                return await asyncio.wrap_future(self._threads.submit(size, self._root, name))
            return int((await obstore.head_async(self._bucket, name))["size"])

    async def close(self) -> None:
        """See `Reader`."""
        if self._threads is not None:
            self._threads.close()
        self._files.close()


class Retrying:
    """Repeats failed reads with growing pauses, up to `attempts` times and `deadline` seconds in all.

    A try that takes longer than its share of the deadline is cancelled. What cannot get better is not repeated: a
    missing object, refused access.
    """

    def __init__(self, inner: Reader, attempts: int = 5, deadline: float = 60.0, pause: float = 0.1) -> None:
        if attempts < 1 or deadline <= 0:
            raise ArgumentError(
                f"attempts={attempts} and deadline={deadline} leave no try: use at least 1 and some seconds"
            )
        self._inner, self._attempts, self._deadline, self._pause = inner, attempts, deadline, pause
        self.retries = 0

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`. A body of another length counts as failed."""

        async def once() -> bytes:
            data = await self._inner.read(name, start, length, fresh=fresh)
            if len(data) != length:
                raise StorageError(f"got {len(data):,} of {length:,} bytes")
            return data

        found: bytes = await self._repeat(once, f"{name}: bytes {start:,} to {start + length:,}")
        return found

    async def size(self, name: str) -> int:
        """See `Reader`."""
        return int(await self._repeat(lambda: self._inner.size(name), name))

    async def _repeat(self, once: Any, what: str) -> Any:
        begun = time.monotonic()
        for attempt in range(1, self._attempts + 1):
            left = self._deadline - (time.monotonic() - begun)
            try:
                # The last try may take all that is left, the ones before half of it.
                return await asyncio.wait_for(once(), left if attempt == self._attempts else left / 2)
            except (MissingObject, AccessRefused):
                raise
            except (StorageError, OSError, TimeoutError) as error:
                took = time.monotonic() - begun
                late = isinstance(error, TimeoutError)
                reason = "no answer in time" if late else str(error)
                pause = self._pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
                if attempt == self._attempts or took + pause >= self._deadline:
                    raise StorageError(
                        f"{what} could not be read in {attempt} attempts and {took:.1f} s: {reason};"
                        " check the store, or raise the deadline"
                    ) from None
            self.retries += 1
            _log.warning("%s: attempt %d failed (%s), trying again", what, attempt, reason)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

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
    """The bin of a shard's object: a folder above it with a bin's name, else the one that it lies in."""
    found = _BIN.search(name)
    return found[1] if found else name.rpartition("/")[0].rpartition("/")[2]
