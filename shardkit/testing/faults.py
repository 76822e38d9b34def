"""A reader that fails on purpose: what an object store does on a bad day, by seed.

Loader(url, ..., wrap=lambda reader: FaultStore(reader, seed=0, rate=0.1))
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from shardkit.errors import ArgumentError, StorageError
from shardkit.loader.stream.reader import Reader
from shardkit.plan.shuffle import key_of
from shardkit.storage import AccessRefused

FAULTS = ("reset", "stall", "unavailable", "refused", "truncated", "short", "wrong")
"""Connection reset; no answer ever; 503; 403; body cut short, as the client reports it; fewer bytes without an
error; other bytes than asked for."""


class FaultStore:
    """Wraps a `Reader` and makes some of its reads fail.

    Which read fails and how depends on the seed, the range and how often it was asked for before, so that it does not
    depend on timing.

    Parameters
    ----------
    inner : Reader
        What is read from.
    seed : int
        What faults are drawn from.
    rate : float
        Chance that a read fails.
    kinds : iterable of str
        Ways to fail, out of `FAULTS`.
    persistent : bool
        Whether a range that failed once fails always.
    times : int, optional
        How often a byte may be in a range that fails, at most.

    Attributes
    ----------
    counts : Counter
        Faults by kind.

    Raises
    ------
    ArgumentError
        For a kind that is none of `FAULTS`.
    """

    def __init__(
        self,
        inner: Reader,
        seed: int = 0,
        rate: float = 0.1,
        kinds: Iterable[str] = FAULTS,
        persistent: bool = False,
        times: int | None = None,
    ) -> None:
        self._inner, self._seed, self._rate, self._kinds = inner, seed, rate, tuple(kinds)
        self._persistent, self._times = persistent, times
        self._failed: dict[str, list[tuple[int, int]]] = {}
        if not self._kinds or set(self._kinds) - set(FAULTS):
            raise ArgumentError(f"kinds={self._kinds} are not faults: choose from {', '.join(FAULTS)}")
        self._asked: Counter[tuple[str, int, int]] = Counter()
        self.counts: Counter[str] = Counter()

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """See `Reader`."""
        kind = self._fault(name, start, length)
        if kind is None:
            return await self._inner.read(name, start, length, fresh=fresh)
        self.counts[kind] += 1
        if kind == "reset":
            raise StorageError(f"{name}: connection reset by peer")
        if kind == "unavailable":
            raise StorageError(f"{name}: 503 Slow Down")
        if kind == "refused":
            raise AccessRefused(f"{name}: 403 Forbidden")
        if kind == "stall":
            await asyncio.Event().wait()
        data = await self._inner.read(name, start, length, fresh=fresh)
        if kind == "truncated":
            raise StorageError(f"{name}: end of file before message length reached")
        if kind == "short":
            return data[: length // 2]
        middle = length // 2
        return data[:middle] + bytes(b ^ 0x55 for b in data[middle : middle + 8]) + data[middle + 8 :]

    async def size(self, name: str) -> int:
        """See `Reader`; never fails."""
        return await self._inner.size(name)

    async def close(self) -> None:
        """See `Reader`."""
        await self._inner.close()

    def _fault(self, name: str, start: int, length: int) -> str | None:
        asked = self._asked[name, start, length]
        self._asked[name, start, length] += 1
        word = key_of(self._seed, name, start, length, 0 if self._persistent else asked)
        if word % (1 << 20) >= self._rate * (1 << 20):
            return None
        failed = self._failed.setdefault(name, [])
        before = sum(first < start + length and start < end for first, end in failed)
        if self._times is not None and before >= self._times:
            return None
        failed.append((start, start + length))
        return self._kinds[(word >> 20) % len(self._kinds)]
