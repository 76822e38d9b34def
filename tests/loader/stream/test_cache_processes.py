"""Processes share a cache: each shard is fetched once, under the limit, whoever is killed meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

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


def test_a_shard_that_another_process_never_finishes_is_waited_for_once(
    make_cache: Any, ask: Any, goods: Any, place: Path
) -> None:
    shard = next(iter(goods.members))
    entry = place / f"{goods.contents(shard).id}-{goods.size(shard)}"
    cached = make_cache(patience=0.3)
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
    assert make_cache(patience=0.3).stats.fills == 0


def test_room_that_others_reserve_is_respected(make_cache: Any, ask: Any, goods: Any, place: Path) -> None:
    a, b, _ = goods.members
    cached = make_cache(limit=max(goods.size(a), goods.size(b)) + 100, patience=0.2)
    entry = place / f"{goods.contents(a).id}-{goods.size(a)}"
    entry.mkdir()
    held = os.open(entry, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert ask(cached, goods.wants(b)) == goods.answers(goods.wants(b))
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
    assert kit.shards(place) == {}
    following = _start(kit, of, place, log)
    assert following.stdout.readline() == "ready\n"
    assert list(place.iterdir()) == [], "an empty entry outlives the start of the next process"
    following.stdin.write("\n")
    assert _end(following).split() == ["done", "1", "0"]
    assert len(kit.shards(place)) == 1


@pytest.mark.deep
def test_processes_share_a_cache_of_little_more_than_a_shard_while_some_are_killed(
    kit: Any, tmp_path: Path, disk: Path, make_cache: Any
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
            assert kit.taken(disk) <= limit + kit.PAGES
        victim = running.pop(draw.randrange(len(running)))
        victim.kill()
        out, said = victim.communicate()
        assert (victim.returncode, out, said) == (-9, "", ""), "a reader failed before it was killed"
        kit.shards(place)
        running.append(start(seed))
    for child in running:
        child.kill()
        assert child.communicate() == ("", "")
    _end(start(99, reads=30))
    cached = make_cache(limit, of=of, folder=place)
    assert {path.name for path in place.iterdir()} == set(kit.shards(place))
    for name, path in kit.shards(place).items():
        (shard,) = [shard for shard in of.members if of.contents(shard).id == name[:32]]
        assert path.read_bytes() == (of.folder / shard).read_bytes()
    assert 0 < kit.used(place) <= limit
    kit.run(cached.close())
