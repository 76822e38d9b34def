"""Fetches what micro-batches need, ahead of them, and checks every byte against the manifest.

One thread runs an event loop; a request is a micro-batch's ranges, an answer its bytes or, for each range whose bytes
stay wrong, the error. A store that cannot be read is the request's error. Ranges that lie close together in a shard are
read as one.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.loader.stream.counters import FetchStats
from shardkit.loader.stream.reader import Direct, Reader, folder_of

GAP = 16 << 10  # bytes between ranges that are read along rather than asked for apart
SPAN = 8 << 20  # bytes of a joint read at most: more in one request is slower than two
_PATIENCE = 10.0  # seconds that closing waits for reads to end


@dataclass(frozen=True, slots=True)
class Want:
    """A range of a shard.

    Attributes
    ----------
    shard : str
        Name of the object.
    start, length : int
        First byte, and bytes.
    hash : bytes
        What the bytes' fingerprint must be.
    what : str
        Names it in messages.
    """

    shard: str
    start: int
    length: int
    hash: bytes
    what: str


Got = bytes | IntegrityError


class Fetcher:
    """Runs reads of a `Reader` on a thread of its own.

    Parameters
    ----------
    make_reader : callable
        Makes the reader; what it raises is raised.
    connections : int
        Reads at a time.
    attempts : int
        How often bytes are read that differ from their hash, at least twice; past the cache from the second time.
    stats : FetchStats, optional
        Where to count.
    """

    def __init__(
        self,
        make_reader: Callable[[], Reader],
        connections: int = 32,
        attempts: int = 2,
        stats: FetchStats | None = None,
    ) -> None:
        if connections < 1:
            raise ArgumentError(f"connections={connections} cannot read anything: use at least 1")
        self.stats = stats or FetchStats()
        self.reader = make_reader()  # first: it may raise, and would leave a thread behind
        self._direct: Direct | None = getattr(self.reader, "direct", None)
        self._limit, self._attempts = asyncio.Semaphore(connections), max(attempts, 2)
        self._closed, self._closing = False, threading.Lock()
        self._under_way: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="shardkit-fetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def submit(self, wants: Sequence[Want], then: Callable[[list[Got]], Coroutine[Any, Any, Any]]) -> "Future[Any]":
        """Fetch ranges, then hand the answers to a function.

        Parameters
        ----------
        wants : sequence of Want
            What to fetch.
        then : callable
            Is given the answers, in order, on the event loop: bytes, or IntegrityError where they stay wrong.

        Returns
        -------
        Future
            What `then` gave; StorageError where the store cannot be read. A fetcher that is closed, now or before the
            answer, cancels it.
        """

        async def run() -> Any:
            return await then(await self._fetch(wants))

        with self._closing:  # or the loop might stop before it knows of the request, which then never ends
            if self._closed:
                future: Future[Any] = Future()
                future.cancel()
                return future
            future = asyncio.run_coroutine_threadsafe(run(), self._loop)
            self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, soon."""
        with suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(function)

    async def _fetch(self, wants: Sequence[Want]) -> list[Got]:
        got: list[Got] = [b""] * len(wants)

        async def one(span: list[int], read: "_Read | None") -> None:
            for index, answer in zip(span, await self._span([wants[i] for i in span], read), strict=True):
                got[index] = answer

        rest = []
        joint = spans(wants)
        for span, read in zip(joint, await self._direct_reads(wants, joint), strict=True):
            if read is not None and not read.wrong:
                for index, part in zip(span, read.parts, strict=True):
                    got[index] = part
            else:
                rest.append(one(span, read))
        await asyncio.gather(*rest)
        return got

    async def _direct_reads(self, wants: Sequence[Want], joint: list[list[int]]) -> "list[_Read | None]":
        """Have threads do joint reads by themselves; None for those that are to be done in the other way."""
        done: list[_Read | None] = [None] * len(joint)
        if (direct := self._direct) is None or not joint:
            return done

        def one(number: int) -> None:
            begun, those = time.perf_counter(), [wants[i] for i in joint[number]]
            with suppress(OSError, IntegrityError):
                data = direct.read(those[0].shard, *_extent(those))
                done[number] = _Read.of(data, those, time.perf_counter() - begun)

        reading = [asyncio.wrap_future(part) for part in direct.threads.share(one, len(joint))]
        try:
            ended, _ = await asyncio.wait(reading, timeout=direct.patience)
            for part in ended:
                part.result()
        finally:
            for part in reading:  # of one that hangs nothing shall be told to a loop that may be closed
                part.cancel()
        found = list(done)  # a read that ends later changes nothing
        for span, read in zip(joint, found, strict=True):
            if read is not None:
                self._count(wants[span[0]].shard, read.length, read.took)
        return found

    async def _span(self, wants: list[Want], read: "_Read | None") -> list[Got]:
        """Ranges close together, in one read; each on its own where that ends too early or a hash is wrong."""
        if read is None:
            try:
                read = _Read.of(await self._read(wants[0].shard, *_extent(wants)), wants)
            except IntegrityError as error:
                if len(wants) == 1:
                    self.stats.bad += 1
                    return [error]
                return list(await asyncio.gather(*(self._again(want, 1) for want in wants)))
        out: list[Got] = list(read.parts)
        better = await asyncio.gather(*(self._again(wants[i], 2) for i in read.wrong))
        for i, got in zip(read.wrong, better, strict=True):
            out[i] = got
        return out

    async def _again(self, want: Want, attempt: int) -> Got:
        """One range once more, and for as many attempts as there are left; past the cache if its bytes were wrong."""
        for fresh in (number > 1 for number in range(attempt, self._attempts + 1)):
            self.stats.refetched += 1
            try:
                data = await self._read(want.shard, want.start, want.length, fresh)
            except IntegrityError as error:
                self.stats.bad += 1
                return error
            if fingerprint(data) == want.hash:
                return data
        self.stats.bad += 1
        return IntegrityError(
            f"{want.shard}: {want.what} at byte {want.start:,} differs from its hash, read {self._attempts} times;"
            " run verify"
        )

    async def _read(self, shard: str, start: int, length: int, fresh: bool = False) -> bytes:
        async with self._limit:
            begun = time.perf_counter()
            try:
                data = await self.reader.read(shard, start, length, fresh=fresh)
            except BaseException:
                self._count_seconds(shard, time.perf_counter() - begun)
                raise
        self._count(shard, length, time.perf_counter() - begun)
        return data

    def _count(self, shard: str, length: int, took: float) -> None:
        self.stats.requests += 1
        self.stats.read_bytes += length
        self._count_seconds(shard, took)

    def _count_seconds(self, shard: str, took: float) -> None:
        self.stats.seconds += took
        self.stats.bins[folder_of(shard)] += took

    def close(self) -> None:
        """Cancel what is under way and end the thread. Returns in bounded time, and may be called twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        stopping = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        stopping.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(timeout=_PATIENCE)
        if self._thread.is_alive():  # something hangs, and nobody shall wait for it
            for future in list(self._under_way):
                future.cancel()
        elif stopping.done():  # not where the thread is gone for another reason, as in a forked process
            stopping.result()

    async def _stop(self) -> None:
        """Cancel all tasks until they have ended: before Python 3.12, wait_for may lose a cancellation."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            ended, _ = await asyncio.wait(tasks, timeout=0.5)
            for task in ended:
                _ = task.cancelled() or task.exception()  # seen, lest asyncio reports it
        await self.reader.close()


@dataclass(frozen=True, slots=True)
class _Read:
    """What a joint read gave.

    Attributes
    ----------
    parts : list of bytes
        Each range's.
    wrong : list of int
        Those of them that differ from their hash.
    length : int
        Bytes in all.
    took : float
        Seconds, where they are not counted yet.
    """

    parts: list[bytes]
    wrong: list[int]
    length: int
    took: float

    @classmethod
    def of(cls, data: bytes, wants: list[Want], took: float = 0.0) -> Self:
        start = wants[0].start
        parts = [data] if len(wants) == 1 else [data[w.start - start : w.start - start + w.length] for w in wants]
        wrong = [i for i, want in enumerate(wants) if fingerprint(parts[i]) != want.hash]
        return cls(parts, wrong, len(data), took)


def _extent(wants: list[Want]) -> tuple[int, int]:
    """Return the first byte of a joint read, and how many it has."""
    start = wants[0].start
    return start, max(want.start + want.length for want in wants) - start


def spans(wants: Sequence[Want]) -> list[list[int]]:
    """Group ranges into joint reads, neighbours in a shard with gaps up to `GAP`, up to `SPAN`; returns indices."""
    out: list[list[int]] = []
    end = 0  # of the last group
    for i in sorted(range(len(wants)), key=lambda i: (wants[i].shard, wants[i].start, wants[i].length)):
        want, stop = wants[i], wants[i].start + wants[i].length
        first = wants[out[-1][0]] if out else want
        near = want.shard == first.shard and want.start - end <= GAP
        if out and near and stop - first.start <= SPAN:
            out[-1].append(i)
            end = max(end, stop)
        else:
            out.append([i])
            end = stop
    return out
