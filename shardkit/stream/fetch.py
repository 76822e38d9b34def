"""Fetches what micro-batches need, ahead of them, and checks every byte against the manifest.

One thread runs an event loop; a request is a micro-batch's ranges, an answer its bytes or, for each range that cannot
be had sound, the error. Ranges that lie close together in a shard are read as one.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shardkit.errors import IntegrityError, ShardkitError, StorageError
from shardkit.manifest import fingerprint
from shardkit.stream.reader import Reader

GAP = 16 << 10  # bytes between ranges that are read along rather than asked for apart
SPAN = 8 << 20  # bytes of a joint read at most: more in one request is slower than two


@dataclass(frozen=True, slots=True)
class Want:
    """A range of a shard and the hash its bytes must have. `what` names it in messages."""

    shard: str
    start: int
    length: int
    hash: bytes
    what: str


Got = bytes | ShardkitError


@dataclass
class FetchStats:
    """Counts of a fetcher; `seconds` adds up over concurrent reads."""

    requests: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    refetched: int = 0
    bad: int = 0


class Fetcher:
    """Runs reads of a `Reader` on a thread of its own, at most `connections` at a time."""

    def __init__(self, make_reader: Callable[[], Reader], connections: int = 32) -> None:
        self.stats = FetchStats()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shardkit-fetch", daemon=True)
        self._thread.start()
        self._limit = asyncio.Semaphore(connections)
        self.reader = make_reader()

    def submit(self, wants: Sequence[Want], then: Callable[[list[Got]], Coroutine[Any, Any, Any]]) -> "Future[Any]":
        """Fetch the ranges, then hand the answers, in order, to `then` on the loop; the future has its result."""

        async def run() -> Any:
            return await then(await self._fetch(wants))

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, soon."""
        with suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(function)

    async def _fetch(self, wants: Sequence[Want]) -> list[Got]:
        got: list[Got] = [StorageError("not read")] * len(wants)

        async def one(span: list[int]) -> None:
            for index, data in zip(span, await self._span([wants[i] for i in span]), strict=True):
                got[index] = data

        await asyncio.gather(*(one(span) for span in spans(wants)))
        return got

    async def _span(self, wants: list[Want]) -> list[Got]:
        """Ranges close together, in one read; each on its own where that fails or a hash is wrong."""
        start, end = wants[0].start, max(w.start + w.length for w in wants)
        try:
            data = await self._read(wants[0].shard, start, end - start)
        except StorageError as error:
            if len(wants) == 1:
                self.stats.bad += 1
                return [error]
            return [await self._again(want, fresh=False) for want in wants]
        out: list[Got] = []
        for want in wants:
            part = data if len(wants) == 1 else data[want.start - start : want.start - start + want.length]
            out.append(part if fingerprint(part) == want.hash else await self._again(want, fresh=True))
        return out

    async def _again(self, want: Want, fresh: bool) -> Got:
        """One range once more, past the cache if its bytes were wrong."""
        self.stats.refetched += 1
        try:
            data = await self._read(want.shard, want.start, want.length, fresh)
        except StorageError as error:
            self.stats.bad += 1
            return error
        if fingerprint(data) == want.hash:
            return data
        if not fresh:
            return await self._again(want, fresh=True)
        self.stats.bad += 1
        return IntegrityError(
            f"{want.shard}: {want.what} at byte {want.start:,} differs from its hash, read twice; run verify"
        )

    async def _read(self, shard: str, start: int, length: int, fresh: bool = False) -> bytes:
        async with self._limit:
            begun = time.perf_counter()
            data = await self.reader.read(shard, start, length, fresh=fresh)
            self.stats.seconds += time.perf_counter() - begun
        self.stats.requests += 1
        self.stats.read_bytes += length
        return data

    def close(self) -> None:
        """Cancel what is under way and end the thread. Returns in bounded time."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=10)
        except TimeoutError:
            pass
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self._loop.close()

    async def _stop(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.reader.close()


def spans(wants: Sequence[Want]) -> list[list[int]]:
    """Indices of the ranges, grouped into joint reads: neighbours in a shard with gaps up to `GAP`, up to `SPAN`."""
    order = sorted(range(len(wants)), key=lambda i: (wants[i].shard, wants[i].start, wants[i].length))
    out: list[list[int]] = []
    for i in order:
        want = wants[i]
        if out:
            first, last = wants[out[-1][0]], max((wants[j] for j in out[-1]), key=lambda w: w.start + w.length)
            near = want.shard == first.shard and want.start - (last.start + last.length) <= GAP
            if near and want.start + want.length - first.start <= SPAN:
                out[-1].append(i)
                continue
        out.append([i])
    return out
