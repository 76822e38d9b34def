"""A cache gives the store's bytes under its limit, whoever shares it, is killed beside it, or damages its files."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError, IntegrityError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream import cache
from shardkit.loader.stream.cache import Cached
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Retrying, StoreReader

# A process that reads members of random shards through a cache and checks them. Notes its reads of the store in a log.
# argv: folder of shards, json of members, cache, limit, log, seed, reads, seconds that a read of the store takes.
READING = """
import asyncio, hashlib, json, os, pathlib, random, sys
from shardkit.errors import ShardkitError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream.cache import Cached, Contents
from shardkit.loader.stream.fetch import Fetcher, Want
from shardkit.loader.stream.reader import Retrying, StoreReader

folder, members, place, limit, log, seed, reads, pause = sys.argv[1:]
text = pathlib.Path(members).read_text()
members = {s: [(a, n, bytes.fromhex(h)) for a, n, h in rows] for s, rows in json.loads(text).items()}

class Shelf:
    def contents(self, shard):
        return Contents(hashlib.sha256(f"{shard} {members[shard]}".encode()).hexdigest()[:32], members[shard])

class Noted(StoreReader):
    async def read(self, name, start, length, **options):
        with open(log, "a") as file:
            file.write(f"{name} {start} {length}\\n")
        await asyncio.sleep(float(pause))
        return await super().read(name, start, length, **options)

async def then(got):
    return got

def make():
    options = CacheOptions(folder=pathlib.Path(place), bytes=int(limit))
    return Cached(Retrying(Noted(folder)), options, Shelf(), patience=20)

fetcher, draw = Fetcher(make, 4), random.Random(int(seed))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(reads)):
    shard = draw.choice(sorted(members))
    wants = [Want(shard, *draw.choice(members[shard]), "image") for _ in range(3)]
    for want, got in zip(wants, fetcher.submit(wants, then).result(60), strict=True):
        if isinstance(got, ShardkitError):
            sys.exit(f"{type(got).__name__}: {got}")
print("done", fetcher.reader.stats.fills, fetcher.reader.stats.evictions, flush=True)
fetcher.close()
"""


PAGES = 64 << 10  # what whole pages of a few files may take beyond their bytes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(kit: Any, goods: Any, place: Path) -> Callable[..., Any]:
    """A cache of all the goods unless told otherwise, around a reader that is watched: `cached.inner`."""

    def build(limit: int = 1 << 30, of: Any = None, trick: Any = None, folder: Path = place, **options: Any) -> Any:
        of = of or goods
        watched = kit.Watched(StoreReader(str(of.folder)), trick)
        cached = Cached(watched, CacheOptions(folder=folder, bytes=limit), of, **options)
        cached.inner = watched  # type: ignore[attr-defined]
        return cached

    return build


@pytest.fixture
def ask(kit: Any, tidy: None) -> Iterator[Callable[..., Any]]:
    """Asks a cache for members by one fetcher a cache, all of them closed at the end."""
    fetchers: dict[int, Fetcher] = {}

    def asked(cached: Any, wants: list[Any]) -> Any:
        if id(cached) not in fetchers:
            fetchers[id(cached)] = Fetcher(lambda: cached, 16)
        return kit.ask(fetchers[id(cached)], wants)

    yield asked
    for fetcher in fetchers.values():
        fetcher.close()


def _bytes(goods: Any, wants: list[Any]) -> list[bytes]:
    return [goods.data(want) for want in wants]


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> Path:
    """A disk of its own, which tells exactly how much of it is taken."""
    return small_disk("64m")


@pytest.fixture
def tiny_disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("512k")


def _taken(disk: Path) -> int:
    facts = os.statvfs(disk)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _files(place: Path) -> list[tuple[Path, int]]:
    """Files of the cache and their sizes, while others may add and remove some."""
    found = []
    for folder, _, names in os.walk(place):
        for path in (Path(folder) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                found.append((path, path.stat().st_size))
    return found


def _shards(place: Path) -> dict[str, Path]:
    """Shards in the cache by their entry; fails for anything else."""
    for path, size in _files(place):
        assert path.name == "shard"
        assert path.parent.name.endswith(f"-{size}")
    return {path.parent.name: path for path, _ in _files(place)}


def _used(place: Path) -> int:
    return sum(size for _, size in _files(place))


# ---- bytes and counts


def test_whole_shards_are_fetched_once_and_every_member_comes_from_the_copy(
    make: Any, ask: Any, goods: Any, place: Path
) -> None:
    cached = make()
    for _ in range(3):
        for want in random.Random(0).sample(goods.every, 18):
            assert ask(cached, [want]) == [goods.data(want)]
    assert sorted(cached.inner.calls) == [(shard, 0, goods.size(shard), False) for shard in sorted(goods.members)]
    assert (cached.stats.fills, cached.stats.misses, cached.stats.hits, cached.stats.evictions) == (3, 3, 51, 0)
    assert cached.stats.filled_bytes == _used(place) == sum(goods.size(shard) for shard in goods.members)
    assert sorted(path.read_bytes() for path in _shards(place).values()) == sorted(
        (goods.folder / shard).read_bytes() for shard in goods.members
    )


def test_a_later_process_finds_what_an_earlier_one_fetched(make: Any, ask: Any, goods: Any) -> None:
    assert ask(make(), goods.every) == _bytes(goods, goods.every)
    later = make()
    assert ask(later, goods.every) == _bytes(goods, goods.every)
    assert (later.inner.calls, later.stats.fills) == ([], 0)


def test_many_readers_of_a_shard_wait_for_one_fetch(
    kit: Any, make: Any, ask: Any, goods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)
    cached, shard = make(trick=kit.slow), next(iter(goods.members))
    wants = goods.wants(shard)[::-1] * 3
    assert ask(cached, wants) == _bytes(goods, wants)
    pieces = [
        (shard, start, min(10_000, goods.size(shard) - start), False) for start in range(0, goods.size(shard), 10_000)
    ]
    assert cached.inner.calls == pieces


def test_pieces_under_way_are_bounded_over_all_shards(
    kit: Any, make: Any, ask: Any, goods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 3_000)
    cached = make(trick=kit.slow)
    assert ask(cached, goods.every) == _bytes(goods, goods.every)
    assert cached.inner.most == cache._AT_ONCE


def test_equal_names_of_two_datasets_do_not_collide(
    kit: Any, make: Any, ask: Any, goods: Any, tmp_path: Path, place: Path
) -> None:
    other = kit.goods(tmp_path / "other", seed=1)
    caches = [(make(), goods), (make(of=other), other)]
    assert list(goods.members) == list(other.members)
    for cached, of in caches * 2:
        assert ask(cached, of.every) == _bytes(of, of.every)
    assert len(_shards(place)) == 6


# ---- the limit


def test_the_limit_holds_and_the_coldest_shard_goes(make: Any, ask: Any, goods: Any, place: Path) -> None:
    a, b, c = goods.members
    cached = make(limit=sum(goods.size(shard) for shard in (a, b, c)) - 1)
    ask(cached, goods.wants(a))
    ask(cached, goods.wants(b))
    (entry_a,) = place.glob(f"{goods.contents(a).id}-*/shard")
    os.utime(entry_a, (1, 1))
    ask(cached, goods.wants(c))
    assert {path.parent.name[:32] for path in _shards(place).values()} == {goods.contents(s).id for s in (b, c)}
    assert cached.stats.evictions == 1
    assert sorted(path.name for path in place.iterdir()) == sorted(_shards(place)), "an empty folder is left"
    assert ask(cached, goods.every) == _bytes(goods, goods.every)


def test_a_shard_in_use_is_not_the_coldest(
    make: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = goods.members
    cached = make(limit=sum(goods.size(shard) for shard in (a, b, c)) - 1)
    for shard in (a, b):
        ask(cached, goods.wants(shard))
    for path in _shards(place).values():
        os.utime(path, (1, 1))
    monkeypatch.setattr(cache, "_TOUCH", 0.0)
    ask(cached, goods.wants(a))
    ask(cached, goods.wants(c))
    assert {path.parent.name[:32] for path in _shards(place).values()} == {goods.contents(s).id for s in (a, c)}


def test_the_limit_holds_at_all_times_while_shards_come_and_go(
    kit: Any, make: Any, ask: Any, tmp_path: Path, disk: Path
) -> None:
    """Of the disk's space, not only of the files to be seen: those being written, and deleted ones, take some too."""
    of = kit.goods(tmp_path / "many", shards=8, size=100_000)
    limit = 2 * max(of.size(shard) for shard in of.members) + 1000
    caches, seen, stop = [make(limit, of=of, folder=disk) for _ in range(2)], list[int](), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(_taken(disk))

    watcher = threading.Thread(target=watch)
    watcher.start()
    draw = random.Random(3)
    for _ in range(80):
        want = draw.choice(of.every)
        assert ask(draw.choice(caches), [want]) == [of.data(want)]
    stop.set()
    watcher.join()
    assert limit // 2 < max(seen) <= limit + PAGES
    assert sum(cached.stats.evictions for cached in caches) > 10
    assert kit.open_files(disk) == []


def test_a_shard_larger_than_the_limit_is_read_and_not_cached(
    make: Any, ask: Any, goods: Any, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = next(iter(goods.members))
    cached = make(limit=goods.size(shard) - 1)
    for want in goods.wants(shard):
        assert ask(cached, [want]) == [goods.data(want)]
    assert _shards(place) == {}
    assert [length for _, _, length, _ in cached.inner.calls] == [want.length for want in goods.wants(shard)]
    assert cached.inner.sizes == 1, "every read asks anew whether the shard fits"
    assert len(caplog.records) == 1
    assert "a limit of" in caplog.text


# ---- damage


def _corrupt(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_corrupted_copy_is_dropped_and_fetched_anew(make: Any, ask: Any, goods: Any, place: Path) -> None:
    cached, want = make(), goods.every[2]
    ask(cached, [want])
    (path,) = _shards(place).values()
    _corrupt(path, want.start + 3)
    assert ask(cached, [want]) == [goods.data(want)]
    assert _shards(place) == {}
    assert cached.inner.calls[-1] == (want.shard, want.start, want.length, True)
    assert ask(cached, [want]) == [goods.data(want)]
    assert cached.stats.fills == 2
    (path,) = _shards(place).values()
    assert path.read_bytes() == (goods.folder / want.shard).read_bytes()


@pytest.mark.parametrize("how", ["cut", "deleted", "folder deleted", "cache deleted"])
def test_a_copy_that_was_cut_or_deleted_is_fetched_anew(make: Any, ask: Any, goods: Any, place: Path, how: str) -> None:
    cached, want = make(), goods.every[5]
    ask(cached, [want])
    (path,) = _shards(place).values()
    if how == "cut":
        os.truncate(path, want.start + 1)
    elif how == "deleted":
        path.unlink()
    else:
        shutil.rmtree(path.parent if how == "folder deleted" else place)
    for _ in range(2):
        assert ask(cached, [want]) == [goods.data(want)]
    assert cached.stats.fills == 2
    assert len(_shards(place)) == 1


def test_an_image_that_is_damaged_on_the_store_keeps_the_copy_of_the_others(
    kit: Any, make: Any, ask: Any, tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else every look at it would fetch the whole shard again."""
    of = kit.goods(tmp_path / "bad", shards=1)
    bad, good = of.every[1], of.every[4]
    _corrupt(of.folder / bad.shard, bad.start)
    cached = make(of=of)
    for _ in range(3):
        (error,) = ask(cached, [bad])
        assert isinstance(error, IntegrityError)
        assert ask(cached, [good]) == [of.data(good)]
    assert cached.stats.fills == 1
    assert len(_shards(place)) == 1
    assert "1 members differ from their hashes on the store; run verify" in caplog.text


def test_wrong_bytes_on_the_way_in_are_noticed_and_read_again(
    make: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)
    wrong = [20_000]

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        data = bytearray(await inner.read(name, start, length, fresh=fresh))
        if start in wrong:
            wrong.remove(start)
            data[length // 2] ^= 1
        return bytes(data)

    cached, shard = make(trick=trick), next(iter(goods.members))
    assert ask(cached, goods.wants(shard)) == _bytes(goods, goods.wants(shard))
    assert len([call for call in cached.inner.calls if call[3]]) <= 1
    (path,) = _shards(place).values()
    inside = [(path.read_bytes()[w.start : w.start + w.length], goods.data(w)) for w in goods.wants(shard)]
    assert all(one == other for one, other in inside)


def test_a_store_that_fails_in_the_middle_leaves_nothing_and_ranges_are_read(
    make: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)
    from shardkit.errors import StorageError

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        if start == 30_000:
            raise StorageError("the line is cut")
        return await inner.read(name, start, length, fresh=fresh)

    cached, shard = make(trick=trick), next(iter(goods.members))
    for _ in range(3):
        assert ask(cached, goods.wants(shard)) == _bytes(goods, goods.wants(shard))
    assert list(place.iterdir()) == []
    assert cached.inner.sizes == 1, "a failed fetch of a whole shard is repeated with every read"


# ---- other processes


def test_a_shard_that_another_process_never_finishes_is_waited_for_once(
    make: Any, ask: Any, goods: Any, place: Path
) -> None:
    shard = next(iter(goods.members))
    entry = place / f"{goods.contents(shard).id}-{goods.size(shard)}"
    cached = make(patience=0.3)
    entry.mkdir()
    held = os.open(entry, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        begun = time.monotonic()
        for want in goods.wants(shard):
            assert ask(cached, [want]) == [goods.data(want)]
        assert 0.3 < time.monotonic() - begun < 1.5
    finally:
        os.close(held)
    assert make(patience=0.3).stats.fills == 0


def test_room_that_others_reserve_is_respected(make: Any, ask: Any, goods: Any, place: Path) -> None:
    a, b, _ = goods.members
    cached = make(limit=max(goods.size(a), goods.size(b)) + 100, patience=0.2)
    entry = place / f"{goods.contents(a).id}-{goods.size(a)}"
    entry.mkdir()
    held = os.open(entry, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert ask(cached, goods.wants(b)) == _bytes(goods, goods.wants(b))
        assert cached.stats.fills == 0
        assert [path.name for path in place.iterdir()] == [entry.name]
    finally:
        os.close(held)


def _start(kit: Any, of: Any, place: Path, log: Path, **options: Any) -> Any:
    said = {"limit": 1 << 30, "seed": 0, "reads": 1, "pause": 0.0, **options}
    words = (of.folder, of.saved(), place, said["limit"], log, said["seed"], said["reads"], said["pause"])
    return kit.child(READING, *words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def _begin(*children: Any) -> None:
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()


def _end(child: Any) -> str:
    out, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (0, "")
    return str(out)


def test_processes_that_want_a_shard_at_the_same_time_fetch_it_once(kit: Any, tmp_path: Path, place: Path) -> None:
    of = kit.goods(tmp_path / "one", shards=1)
    log = tmp_path / "log"
    children = [_start(kit, of, place, log, reads=20, pause=0.3) for _ in range(3)]
    _begin(*children)
    fills = [_end(child).split()[1] for child in children]
    assert sorted(fills) == ["0", "0", "1"]
    shard = next(iter(of.members))
    assert log.read_text() == f"{shard} 0 {of.size(shard)}\n"


def test_a_killed_fetch_leaves_no_data_and_the_next_process_goes_on(kit: Any, tmp_path: Path, place: Path) -> None:
    of = kit.goods(tmp_path / "one", shards=1)
    log = tmp_path / "log"
    child = _start(kit, of, place, log, pause=60)
    _begin(child)
    assert kit.settles(log.exists)
    assert [path.is_dir() for path in place.rglob("*")] == [True]
    child.kill()
    child.communicate()
    assert _shards(place) == {}
    following = _start(kit, of, place, log)
    assert following.stdout.readline() == "ready\n"
    assert list(place.iterdir()) == [], "an empty entry outlives the start of the next process"
    following.stdin.write("\n")
    assert _end(following).split() == ["done", "1", "0"]
    assert len(_shards(place)) == 1


def test_processes_share_a_cache_of_little_more_than_a_shard_while_some_are_killed(
    kit: Any, tmp_path: Path, disk: Path, make: Any
) -> None:
    of = kit.goods(tmp_path / "many", shards=6, size=60_000)
    limit, log, draw = int(1.4 * max(of.size(shard) for shard in of.members)), tmp_path / "log", random.Random(4)
    place = disk / "cache"

    def start(seed: int, reads: int = 100_000) -> Any:
        child = _start(kit, of, place, log, limit=limit, seed=seed, reads=reads, pause=0.002)
        _begin(child)
        return child

    running = [start(seed) for seed in range(3)]
    for seed in range(3, 8):
        for _ in range(10):
            time.sleep(draw.uniform(0, 0.04))
            assert _taken(disk) <= limit + PAGES
        victim = running.pop(draw.randrange(len(running)))
        victim.kill()
        out, said = victim.communicate()
        assert (victim.returncode, out, said) == (-9, "", ""), "a reader failed before it was killed"
        _shards(place)
        running.append(start(seed))
    for child in running:
        child.kill()
        assert child.communicate() == ("", "")
    _end(start(99, reads=30))
    cached = make(limit, of=of, folder=place)
    assert {path.name for path in place.iterdir()} == set(_shards(place))
    for name, path in _shards(place).items():
        (shard,) = [shard for shard in of.members if of.contents(shard).id == name[:32]]
        assert path.read_bytes() == (of.folder / shard).read_bytes()
    assert 0 < _used(place) <= limit
    kit.run(cached.close())


# ---- the folder, and the end


def test_a_full_disk_means_reading_from_the_store_and_no_try_with_every_read(
    kit: Any, make: Any, ask: Any, tmp_path: Path, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = kit.goods(tmp_path / "large", shards=4, members=4, size=100_000)
    cached = make(of=of, folder=tiny_disk / "cache")
    for _ in range(3):
        for want in of.every:
            assert ask(cached, [want]) == [of.data(want)]
    assert cached.stats.fills in (1, 2)
    assert len(_shards(tiny_disk / "cache")) == cached.stats.fills
    assert cached.inner.sizes == cached.stats.fills + 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in said
    assert kit.one_sentence(said)


def test_a_folder_that_cannot_be_written_is_refused(kit: Any, make: Any, tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for folder in (tiny_disk, tiny_disk / "cache"):
        with pytest.raises(ArgumentError, match=f"the cache cannot be used: {tiny_disk}.*[Rr]ead-only") as caught:
            make(folder=folder)
        assert kit.one_sentence(caught.value)


@pytest.mark.parametrize("case", ["a file", "below a file", "a filesystem without unnamed files"])
def test_a_folder_that_is_none_is_refused(kit: Any, make: Any, tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("x")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}
    with pytest.raises(ArgumentError, match="the cache cannot be used: ") as caught:
        make(folder=places.get(case, Path("/proc")))
    assert kit.one_sentence(caught.value)


def test_other_files_in_the_folder_are_left_alone(make: Any, ask: Any, goods: Any, place: Path) -> None:
    (place / "empty-2024").mkdir(parents=True)
    (place / "job-99999999999").mkdir()
    (place / "readme.txt").write_text("x")
    cached = make(limit=max(goods.size(shard) for shard in goods.members))
    assert ask(cached, goods.every) == _bytes(goods, goods.every)
    assert cached.stats.fills == 3
    assert {"empty-2024", "job-99999999999", "readme.txt"} < {path.name for path in place.iterdir()}


def test_closing_in_the_middle_of_a_fetch_leaves_nothing(
    kit: Any, make: Any, tidy: None, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        if start >= 20_000:
            await asyncio.Event().wait()
        return await inner.read(name, start, length, fresh=fresh)

    cached = make(trick=trick)
    fetcher = Fetcher(lambda: Retrying(cached))
    future = fetcher.submit(goods.every, lambda got: kit.never())
    assert kit.settles(lambda: cached.inner.now > 3)
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 2
    assert future.cancelled()
    assert list(place.iterdir()) == []
    assert kit.open_files(place) == []
    assert cached.inner.closed == 1
