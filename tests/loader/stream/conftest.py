"""What tests of streaming share: shards of random members with their hashes, and readers that count, lie and stall."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ShardkitError, StorageError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream.cache import Cached, Contents
from shardkit.loader.stream.fetch import Fetcher, Want
from shardkit.loader.stream.reader import StoreReader

SEAM = 300  # bytes between members, as headers of a tar


@dataclass(frozen=True)
class Goods:
    """Shards in a folder, and what a manifest would say of them; a `Shelf`."""

    folder: Path
    members: dict[str, list[tuple[int, int, bytes]]]

    def contents(self, shard: str) -> Contents:
        text = f"{shard} {self.members[shard]}"
        return Contents(hashlib.sha256(text.encode()).hexdigest()[:32], self.members[shard])

    def wants(self, shard: str) -> list[Want]:
        return [Want(shard, at, size, mark, f"the image {shard}#{at}") for at, size, mark in self.members[shard]]

    @property
    def every(self) -> list[Want]:
        return [want for shard in self.members for want in self.wants(shard)]

    def data(self, want: Want) -> bytes:
        return (self.folder / want.shard).read_bytes()[want.start : want.start + want.length]

    def answers(self, wants: list[Want]) -> list[bytes]:
        return [self.data(want) for want in wants]

    def size(self, shard: str) -> int:
        return (self.folder / shard).stat().st_size

    def saved(self) -> Path:
        """A file that tells a child process of the members."""
        path = self.folder.with_suffix(".json")
        path.write_text(json.dumps({s: [(a, n, h.hex()) for a, n, h in m] for s, m in self.members.items()}))
        return path


class Watched:
    """Wraps a reader: notes every call, and does to it what `trick` says; counts reads under way."""

    def __init__(self, inner: Any, trick: Callable[..., Any] | None = None) -> None:
        self.inner, self.trick = inner, trick
        self.calls: list[tuple[str, int, int, bool]] = []
        self.sizes = self.now = self.most = self.cancelled = self.closed = 0

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        self.calls.append((name, start, length, fresh))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.trick is None:
                return bytes(await self.inner.read(name, start, length, fresh=fresh))
            return bytes(await self.trick(self.inner, name, start, length, fresh))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1

    async def size(self, name: str) -> int:
        self.sizes += 1
        return int(await self.inner.size(name))

    async def close(self) -> None:
        self.closed += 1
        await self.inner.close()


class Kit:
    """Helpers, handed out as a fixture because test folders are no packages."""

    Watched = Watched
    PAGES = 64 << 10  # what whole pages of a few files may take beyond their bytes

    @staticmethod
    def goods(folder: Path, shards: int = 3, members: int = 6, size: int = 20_000, seed: int = 0) -> Goods:
        """Write shards of `members` random members of about `size` bytes each."""
        draw = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        found = {}
        for number in range(shards):
            name, data, rows = f"shards/{number:03d}.tar", bytearray(), []
            for _ in range(members):
                data += draw.bytes(SEAM)
                member = draw.bytes(int(draw.integers(size // 2, size)))
                rows.append((len(data), len(member), fingerprint(member)))
                data += member
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            found[name] = rows
        return Goods(folder, found)

    @staticmethod
    def run(job: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
        """A coroutine's result, in bounded time."""
        return asyncio.run(asyncio.wait_for(job, seconds))

    @staticmethod
    def ask(fetcher: Fetcher, wants: list[Want]) -> list[bytes | ShardkitError]:
        async def then(got: list[Any]) -> list[Any]:
            return got

        return list(fetcher.submit(wants, then).result(timeout=30))

    @classmethod
    def fetched(cls, reader: Any, wants: list[Want], connections: int = 8) -> list[bytes | ShardkitError]:
        """The answers of a fetcher made for them."""
        with contextlib.closing(Fetcher(lambda: reader, connections)) as fetcher:
            return cls.ask(fetcher, wants)

    @staticmethod
    async def never(*_: Any) -> bytes:
        """A trick: no answer."""
        await asyncio.Event().wait()
        raise AssertionError

    @staticmethod
    async def slow(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        """A trick: an answer after a tenth of a second."""
        await asyncio.sleep(0.1)
        return bytes(await inner.read(name, start, length, fresh=fresh))

    @staticmethod
    async def broken(*_: Any) -> bytes:
        """A trick: an error."""
        raise StorageError("the line is cut")

    @staticmethod
    def threads() -> set[str]:
        """Kinds of shardkit's threads that run."""
        names = (thread.name for thread in threading.enumerate())
        return {name.rstrip("_0123456789") for name in names if name.startswith("shardkit")}

    @classmethod
    def settles(cls, holds: Callable[[], bool], seconds: float = 5) -> bool:
        """Whether something comes true soon."""
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(0.01)
        return holds()

    @staticmethod
    def open_files(below: Path) -> list[str]:
        """What descriptors of this process that lie below a folder point at."""
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()))
        return [path for path in found if path.startswith(f"{below}/")]

    @staticmethod
    def one_sentence(error: BaseException | str) -> bool:
        text = str(error)
        return bool(text) and "\n" not in text and "Traceback" not in text and len(text) < 500

    @staticmethod
    def child(script: str, *words: object, **options: Any) -> subprocess.Popen[str]:
        """A Python process whose warnings are errors."""
        command = [sys.executable, "-W", "error", "-c", script, *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)

    @staticmethod
    def taken(disk: Path) -> int:
        """Bytes of a disk that are taken."""
        facts = os.statvfs(disk)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    @staticmethod
    def files(place: Path) -> list[tuple[Path, int]]:
        """Files of a cache and their sizes, while others may add and remove some."""
        found = []
        for folder, _, names in os.walk(place):
            for path in (Path(folder) / name for name in names):
                with contextlib.suppress(FileNotFoundError):
                    found.append((path, path.stat().st_size))
        return found

    @classmethod
    def shards(cls, place: Path) -> dict[str, Path]:
        """Shards in a cache by their entry; fails for anything else."""
        for path, size in cls.files(place):
            assert path.name == "shard"
            assert path.parent.name.endswith(f"-{size}")
        return {path.parent.name: path for path, _ in cls.files(place)}

    @classmethod
    def used(cls, place: Path) -> int:
        return sum(size for _, size in cls.files(place))

    @staticmethod
    def corrupt(path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def goods(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Goods:
    """Three shards of six members. Tests read them and leave them as they are."""
    return kit.goods(tmp_path_factory.mktemp("goods") / "set")


@pytest.fixture
def store(goods: Goods) -> StoreReader:
    return StoreReader(str(goods.folder))


@pytest.fixture
def tidy(kit: Kit, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test that leaves threads, unfinished tasks or exceptions that nobody looked at."""
    before = kit.threads()
    yield
    assert kit.settles(lambda: kit.threads() <= before), kit.threads()
    gc.collect()
    said = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    assert said == []


# ---- caches


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_cache(kit: Kit, goods: Goods, place: Path) -> Callable[..., Any]:
    """A cache of all the goods unless told otherwise, around a reader that is watched: `cached.inner`."""

    def build(limit: int = 1 << 30, of: Any = None, trick: Any = None, folder: Path = place, **options: Any) -> Any:
        of = of or goods
        watched = kit.Watched(StoreReader(str(of.folder)), trick)
        cached = Cached(watched, CacheOptions(folder=folder, bytes=limit), of, **options)
        cached.inner = watched  # type: ignore[attr-defined]
        return cached

    return build


@pytest.fixture
def ask(kit: Kit, tidy: None) -> Iterator[Callable[..., Any]]:
    """Asks a cache for members by one fetcher a cache, all of them closed at the end."""
    fetchers: dict[int, Fetcher] = {}

    def asked(cached: Any, wants: list[Any]) -> Any:
        if id(cached) not in fetchers:
            fetchers[id(cached)] = Fetcher(lambda: cached, 16)
        return kit.ask(fetchers[id(cached)], wants)

    yield asked
    for fetcher in fetchers.values():
        fetcher.close()


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> Path:
    """A disk of its own, which tells exactly how much of it is taken."""
    return small_disk("64m")


@pytest.fixture
def tiny_disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("512k")
