"""A cache gives the store's bytes under its limit, once fetched, from a folder that can be used."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError
from shardkit.loader.stream import cache
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Retrying

# ---- bytes and counts


def test_whole_shards_are_fetched_once_and_every_member_comes_from_the_copy(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path
) -> None:
    cached = make_cache()
    for _ in range(3):
        for want in random.Random(0).sample(goods.every, 18):
            assert ask(cached, [want]) == [goods.data(want)]
    assert sorted(cached.inner.calls) == [(shard, 0, goods.size(shard), False) for shard in sorted(goods.members)]
    assert (cached.stats.fills, cached.stats.misses, cached.stats.hits, cached.stats.evictions) == (3, 3, 51, 0)
    assert cached.stats.filled_bytes == kit.used(place) == sum(goods.size(shard) for shard in goods.members)
    assert sorted(path.read_bytes() for path in kit.shards(place).values()) == sorted(
        (goods.folder / shard).read_bytes() for shard in goods.members
    )


def test_a_later_process_finds_what_an_earlier_one_fetched(make_cache: Any, ask: Any, goods: Any) -> None:
    assert ask(make_cache(), goods.every) == goods.answers(goods.every)
    later = make_cache()
    assert ask(later, goods.every) == goods.answers(goods.every)
    assert (later.inner.calls, later.stats.fills) == ([], 0)


def test_many_readers_of_a_shard_wait_for_one_fetch(
    kit: Any, make_cache: Any, ask: Any, goods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)
    cached, shard = make_cache(trick=kit.slow), next(iter(goods.members))
    wants = goods.wants(shard)[::-1] * 3
    assert ask(cached, wants) == goods.answers(wants)
    pieces = [
        (shard, start, min(10_000, goods.size(shard) - start), False) for start in range(0, goods.size(shard), 10_000)
    ]
    assert cached.inner.calls == pieces


def test_pieces_under_way_are_bounded_over_all_shards(
    kit: Any, make_cache: Any, ask: Any, goods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 3_000)
    cached = make_cache(trick=kit.slow)
    assert ask(cached, goods.every) == goods.answers(goods.every)
    assert cached.inner.most == cache._AT_ONCE


def test_equal_names_of_two_datasets_do_not_collide(
    kit: Any, make_cache: Any, ask: Any, goods: Any, tmp_path: Path, place: Path
) -> None:
    other = kit.goods(tmp_path / "other", seed=1)
    caches = [(make_cache(), goods), (make_cache(of=other), other)]
    assert list(goods.members) == list(other.members)
    for cached, of in caches * 2:
        assert ask(cached, of.every) == of.answers(of.every)
    assert len(kit.shards(place)) == 6


# ---- the limit


def test_the_limit_holds_and_the_coldest_shard_goes(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path
) -> None:
    a, b, c = goods.members
    cached = make_cache(limit=sum(goods.size(shard) for shard in (a, b, c)) - 1)
    ask(cached, goods.wants(a))
    ask(cached, goods.wants(b))
    (entry_a,) = place.glob(f"{goods.contents(a).id}-*/shard")
    os.utime(entry_a, (1, 1))
    ask(cached, goods.wants(c))
    assert {path.parent.name[:32] for path in kit.shards(place).values()} == {goods.contents(s).id for s in (b, c)}
    assert cached.stats.evictions == 1
    assert sorted(path.name for path in place.iterdir()) == sorted(kit.shards(place)), "an empty folder is left"
    assert ask(cached, goods.every) == goods.answers(goods.every)


def test_a_shard_in_use_is_not_the_coldest(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = goods.members
    cached = make_cache(limit=sum(goods.size(shard) for shard in (a, b, c)) - 1)
    for shard in (a, b):
        ask(cached, goods.wants(shard))
    for path in kit.shards(place).values():
        os.utime(path, (1, 1))
    monkeypatch.setattr(cache, "_TOUCH", 0.0)
    ask(cached, goods.wants(a))
    ask(cached, goods.wants(c))
    assert {path.parent.name[:32] for path in kit.shards(place).values()} == {goods.contents(s).id for s in (a, c)}


def test_the_limit_holds_at_all_times_while_shards_come_and_go(
    kit: Any, make_cache: Any, ask: Any, tmp_path: Path, disk: Path
) -> None:
    """Of the disk's space, not only of the files to be seen: those being written, and deleted ones, take some too."""
    of = kit.goods(tmp_path / "many", shards=8, size=100_000)
    limit = 2 * max(of.size(shard) for shard in of.members) + 1000
    caches, seen, stop = [make_cache(limit, of=of, folder=disk) for _ in range(2)], list[int](), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(kit.taken(disk))

    watcher = threading.Thread(target=watch)
    watcher.start()
    draw = random.Random(3)
    for _ in range(80):
        want = draw.choice(of.every)
        assert ask(draw.choice(caches), [want]) == [of.data(want)]
    stop.set()
    watcher.join()
    assert limit // 2 < max(seen) <= limit + kit.PAGES
    assert sum(cached.stats.evictions for cached in caches) > 10
    assert kit.open_files(disk) == []


def test_a_shard_larger_than_the_limit_is_read_and_not_cached(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = next(iter(goods.members))
    cached = make_cache(limit=goods.size(shard) - 1)
    for want in goods.wants(shard):
        assert ask(cached, [want]) == [goods.data(want)]
    assert kit.shards(place) == {}
    assert [length for _, _, length, _ in cached.inner.calls] == [want.length for want in goods.wants(shard)]
    assert cached.inner.sizes == 1, "every read asks anew whether the shard fits"
    assert len(caplog.records) == 1
    assert "a limit of" in caplog.text


# ---- the folder, and the end


def test_a_full_disk_means_reading_from_the_store_and_no_try_with_every_read(
    kit: Any, make_cache: Any, ask: Any, tmp_path: Path, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = kit.goods(tmp_path / "large", shards=4, members=4, size=100_000)
    cached = make_cache(of=of, folder=tiny_disk / "cache")
    for _ in range(3):
        for want in of.every:
            assert ask(cached, [want]) == [of.data(want)]
    assert cached.stats.fills in (1, 2)
    assert len(kit.shards(tiny_disk / "cache")) == cached.stats.fills
    assert cached.inner.sizes == cached.stats.fills + 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in said
    assert kit.one_sentence(said)


def test_a_folder_that_cannot_be_written_is_refused(kit: Any, make_cache: Any, tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for folder in (tiny_disk, tiny_disk / "cache"):
        with pytest.raises(ArgumentError, match=f"the cache cannot be used: {tiny_disk}.*[Rr]ead-only") as caught:
            make_cache(folder=folder)
        assert kit.one_sentence(caught.value)


@pytest.mark.parametrize("case", ["a file", "below a file", "a filesystem without unnamed files"])
def test_a_folder_that_is_none_is_refused(kit: Any, make_cache: Any, tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("x")
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}
    with pytest.raises(ArgumentError, match="the cache cannot be used: ") as caught:
        make_cache(folder=places.get(case, Path("/proc")))
    assert kit.one_sentence(caught.value)


def test_other_files_in_the_folder_are_left_alone(make_cache: Any, ask: Any, goods: Any, place: Path) -> None:
    (place / "empty-2024").mkdir(parents=True)
    (place / "job-99999999999").mkdir()
    (place / "readme.txt").write_text("x")
    cached = make_cache(limit=max(goods.size(shard) for shard in goods.members))
    assert ask(cached, goods.every) == goods.answers(goods.every)
    assert cached.stats.fills == 3
    assert {"empty-2024", "job-99999999999", "readme.txt"} < {path.name for path in place.iterdir()}


def test_closing_in_the_middle_of_a_fetch_leaves_nothing(
    kit: Any, make_cache: Any, tidy: None, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        if start >= 20_000:
            await asyncio.Event().wait()
        return bytes(await inner.read(name, start, length, fresh=fresh))

    cached = make_cache(trick=trick)
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
