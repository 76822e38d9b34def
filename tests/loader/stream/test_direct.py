"""Threads that read local folders by themselves: the same answers, errors and counts as by the event loop."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import IntegrityError, StorageError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream.cache import Cached
from shardkit.loader.stream.fetch import Fetcher, Want
from shardkit.loader.stream.reader import Direct, Logged, Retrying, StoreReader
from shardkit.loader.stream.several import Several


class Deaf(StoreReader):
    """Reads by threads alone."""

    async def read(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError("read by the event loop")


class Hangs(StoreReader):
    """Whose threads get no answer from one shard."""

    free = threading.Event()

    @property
    def direct(self) -> Direct | None:
        found = super().direct
        assert found is not None

        def read(name: str, start: int, length: int) -> bytes:
            if name.endswith("001.tar"):
                self.free.wait(30)
            return found.read(name, start, length)

        return replace(found, read=read, patience=0.2)


@pytest.fixture
def mutable(kit: Any, tmp_path: Path) -> Any:
    return kit.goods(tmp_path / "set", shards=2)


def _stats(kit: Any, reader: Any, wants: list[Want]) -> tuple[list[Any], Any]:
    with contextlib.closing(Fetcher(lambda: reader, 8)) as fetcher:
        return kit.ask(fetcher, wants), fetcher.stats


def test_the_event_loop_reads_nothing_of_a_folder(kit: Any, tidy: None, goods: Any) -> None:
    got, stats = _stats(kit, Deaf(str(goods.folder)), goods.every)
    assert got == goods.answers(goods.every)
    other, counted = _stats(kit, kit.Watched(StoreReader(str(goods.folder))), goods.every)
    assert other == got
    assert (stats.requests, stats.read_bytes) == (counted.requests, counted.read_bytes)
    assert stats.seconds == pytest.approx(sum(stats.bins.values()))
    assert stats.bins.keys() == counted.bins.keys()
    assert 0 < stats.seconds < 10


def test_a_read_that_hangs_is_done_in_the_other_way(kit: Any, tidy: None, goods: Any) -> None:
    Hangs.free.clear()
    try:
        assert kit.fetched(Hangs(str(goods.folder)), goods.every) == goods.answers(goods.every)
    finally:
        Hangs.free.set()


def test_closing_waits_for_no_read_that_hangs(kit: Any, tidy: None, goods: Any) -> None:
    Hangs.free.clear()
    try:
        fetcher = Fetcher(lambda: Hangs(str(goods.folder)), 8)
        future = fetcher.submit(goods.every, kit.never)
        assert kit.settles(lambda: "shardkit-read" in kit.threads())
        fetcher.close()
        assert future.cancelled()
    finally:
        Hangs.free.set()


def test_a_damaged_image_costs_its_neighbours_nothing(kit: Any, tidy: None, mutable: Any) -> None:
    bad, wanted = mutable.every[2], mutable.answers(mutable.every)
    kit.corrupt(mutable.folder / bad.shard, bad.start + 5)
    got, stats = _stats(kit, StoreReader(str(mutable.folder)), mutable.every)
    assert isinstance(got[2], IntegrityError)
    assert bad.what in str(got[2])
    assert got[:2] + got[3:] == wanted[:2] + wanted[3:]
    assert (stats.refetched, stats.bad) == (1, 1)


def test_a_shard_cut_short_is_the_error_of_the_images_it_has_lost(kit: Any, tidy: None, mutable: Any) -> None:
    last, wanted = mutable.wants("shards/000.tar")[-1], mutable.answers(mutable.every)
    path = mutable.folder / last.shard
    path.write_bytes(path.read_bytes()[:-1])
    got, _ = _stats(kit, StoreReader(str(mutable.folder)), mutable.every)
    place = mutable.every.index(last)
    assert isinstance(got[place], IntegrityError)
    assert "cut short" in str(got[place])
    assert got[:place] + got[place + 1 :] == wanted[:place] + wanted[place + 1 :]


def test_a_shard_that_is_gone_is_the_error_of_the_request(kit: Any, tidy: None, mutable: Any) -> None:
    (mutable.folder / "shards/001.tar").unlink()
    with pytest.raises(StorageError, match=r"001\.tar"):
        kit.fetched(StoreReader(str(mutable.folder)), mutable.every)


def test_members_of_a_mixture_are_read_each_from_its_folder(kit: Any, tidy: None, tmp_path: Path) -> None:
    one, other = (kit.goods(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    several = Several({"a/": Deaf(str(one.folder)), "b/": Deaf(str(other.folder))})
    wants = [replace(w, shard=f"{name}/{w.shard}") for name, goods in (("a", one), ("b", other)) for w in goods.every]
    assert kit.fetched(several, wants) == one.answers(one.every) + other.answers(other.every)


def test_whoever_must_see_all_reads_sees_them(kit: Any, goods: Any, tmp_path: Path) -> None:
    """A wrapper of the user's, a log, a disk cache, a bucket: none of them is gone past."""

    def direct(reader: Any) -> Any:
        return getattr(reader, "direct", None)

    local = StoreReader(str(goods.folder))
    bucket = StoreReader("s3://nowhere/set")
    assert direct(Retrying(local, deadline=16.0)).patience == 8.0
    cached = Cached(Retrying(local), CacheOptions(folder=tmp_path / "cache", bytes=1 << 20), goods)
    for reader in (bucket, Retrying(bucket), kit.Watched(local), Logged(Retrying(local)), cached):
        assert direct(reader) is None
    assert direct(Several({"a/": local, "b/": bucket})) is None
    assert direct(Retrying(kit.Watched(local))) is None
