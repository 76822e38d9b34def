"""Copies and stores that are damaged, cut, deleted or away: a cache gives right bytes, or says which are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import IntegrityError, StorageError
from shardkit.loader.stream import cache


def test_a_corrupted_copy_is_dropped_and_fetched_anew(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path
) -> None:
    cached, want = make_cache(), goods.every[2]
    ask(cached, [want])
    (path,) = kit.shards(place).values()
    kit.corrupt(path, want.start + 3)
    assert ask(cached, [want]) == [goods.data(want)]
    assert kit.shards(place) == {}
    assert cached.inner.calls[-1] == (want.shard, want.start, want.length, True)
    assert ask(cached, [want]) == [goods.data(want)]
    assert cached.stats.fills == 2
    (path,) = kit.shards(place).values()
    assert path.read_bytes() == (goods.folder / want.shard).read_bytes()


@pytest.mark.parametrize("how", ["cut", "deleted", "folder deleted", "cache deleted"])
def test_a_copy_that_was_cut_or_deleted_is_fetched_anew(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path, how: str
) -> None:
    cached, want = make_cache(), goods.every[5]
    ask(cached, [want])
    (path,) = kit.shards(place).values()
    if how == "cut":
        os.truncate(path, want.start + 1)
    elif how == "deleted":
        path.unlink()
    else:
        shutil.rmtree(path.parent if how == "folder deleted" else place)
    for _ in range(2):
        assert ask(cached, [want]) == [goods.data(want)]
    assert cached.stats.fills == 2
    assert len(kit.shards(place)) == 1


def test_an_image_that_is_damaged_on_the_store_keeps_the_copy_of_the_others(
    kit: Any, make_cache: Any, ask: Any, tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else every look at it would fetch the whole shard again."""
    of = kit.goods(tmp_path / "bad", shards=1)
    bad, good = of.every[1], of.every[4]
    kit.corrupt(of.folder / bad.shard, bad.start)
    cached = make_cache(of=of)
    for _ in range(3):
        (error,) = ask(cached, [bad])
        assert isinstance(error, IntegrityError)
        assert ask(cached, [good]) == [of.data(good)]
    assert cached.stats.fills == 1
    assert len(kit.shards(place)) == 1
    assert "1 members differ from their hashes on the store; run verify" in caplog.text


def test_wrong_bytes_on_the_way_in_are_noticed_and_read_again(
    kit: Any, make_cache: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)
    wrong = [20_000]

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        data = bytearray(await inner.read(name, start, length, fresh=fresh))
        if start in wrong:
            wrong.remove(start)
            data[length // 2] ^= 1
        return bytes(data)

    cached, shard = make_cache(trick=trick), next(iter(goods.members))
    assert ask(cached, goods.wants(shard)) == goods.answers(goods.wants(shard))
    assert len([call for call in cached.inner.calls if call[3]]) <= 1
    (path,) = kit.shards(place).values()
    inside = [(path.read_bytes()[w.start : w.start + w.length], goods.data(w)) for w in goods.wants(shard)]
    assert all(one == other for one, other in inside)


def test_a_store_that_fails_in_the_middle_leaves_nothing_and_ranges_are_read(
    make_cache: Any, ask: Any, goods: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PIECE", 10_000)

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        if start == 30_000:
            raise StorageError("the line is cut")
        return bytes(await inner.read(name, start, length, fresh=fresh))

    cached, shard = make_cache(trick=trick), next(iter(goods.members))
    for _ in range(3):
        assert ask(cached, goods.wants(shard)) == goods.answers(goods.wants(shard))
    assert list(place.iterdir()) == []
    assert cached.inner.sizes == 1, "a failed fetch of a whole shard is repeated with every read"
