"""A fetcher answers in order with checked bytes or a named error, reads no more than it must, and always ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import CancelledError
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import ArgumentError, IntegrityError, StorageError
from shardkit.loader.stream.fetch import GAP, SPAN, Fetcher, Want, spans
from shardkit.loader.stream.reader import StoreReader

# Closes a fetcher in the middle of reads that hang, by an explicit call and by the interpreter's end.
CLOSING = """
import asyncio, gc, sys
from shardkit.loader.stream.fetch import Fetcher, Want
from shardkit.loader.stream.reader import Retrying

class Hangs:
    async def read(self, *a, **k): await asyncio.Event().wait()
    async def size(self, name): await asyncio.Event().wait()
    async def close(self): ...

async def then(got): await asyncio.Event().wait()
wants = [Want(f"{i}.tar", k << 20, 9, b"", "x") for i in range(20) for k in range(3)]
for _ in range(3):
    fetcher = Fetcher(lambda: Retrying(Hangs()), 8)
    futures = [fetcher.submit(wants, then) for _ in range(4)] + [fetcher.submit([], then)]
    fetcher.close()
    assert all(future.cancelled() for future in futures)
    del fetcher, futures
    gc.collect()
if sys.argv[1] == "forgotten":
    fetcher = Fetcher(lambda: Retrying(Hangs()), 8)
    fetcher.submit(wants, then)
"""


def _bytes(goods: Any, wants: list[Want]) -> list[bytes]:
    return [goods.data(want) for want in wants]


def test_answers_come_in_the_order_of_the_wants(kit: Any, tidy: None, goods: Any, store: Any) -> None:
    wants = goods.every[::-1] + goods.every[::3] + goods.every[:1] * 3
    assert kit.fetched(store, wants) == _bytes(goods, wants)
    assert kit.fetched(StoreReader(str(goods.folder)), []) == []


# ---- joint reads

ranges = st.builds(
    Want,
    shard=st.sampled_from(["a", "b", "c"]),
    start=st.one_of(st.integers(0, 4 * GAP), st.integers(0, 4 * SPAN)),
    length=st.one_of(st.integers(1, GAP), st.sampled_from([SPAN - 1, SPAN, 2 * SPAN])),
    hash=st.just(b""),
    what=st.just(""),
)


@given(st.lists(ranges, max_size=40))
def test_joint_reads_cover_every_range_once_and_keep_to_their_limits(wants: list[Want]) -> None:
    groups = spans(wants)
    assert sorted(i for group in groups for i in group) == list(range(len(wants)))
    for group in groups:
        inside = [wants[i] for i in group]
        assert len({want.shard for want in inside}) == 1
        start, end = inside[0].start, max(want.start + want.length for want in inside)
        assert start == min(want.start for want in inside)
        assert end - start <= max(SPAN, *(want.length for want in inside), 0)
        reached = start
        for want in inside:
            assert want.start - reached <= GAP
            reached = max(reached, want.start + want.length)


@given(st.lists(ranges, max_size=40))
def test_neighbours_are_read_apart_only_where_a_limit_forbids_to_join_them(wants: list[Want]) -> None:
    groups = [[wants[i] for i in group] for group in spans(wants)]
    for one, other in pairwise(groups):
        end = max(want.start + want.length for want in one)
        following = other[0]
        if following.shard == one[0].shard and following.start - end <= GAP:
            assert following.start + following.length - one[0].start > SPAN


def test_grouping_many_ranges_takes_no_time() -> None:
    wants = [Want("a", i * 2000, 1000, b"", "") for i in range(4000)]
    begun = time.perf_counter()
    assert len(spans(wants)) == 1
    assert time.perf_counter() - begun < 0.5


def test_ranges_close_together_are_one_read(kit: Any, goods: Any, store: Any) -> None:
    watched = kit.Watched(store)
    assert kit.fetched(watched, goods.every) == _bytes(goods, goods.every)
    assert len(watched.calls) == len(goods.members)


def test_just_the_bytes_of_prefixes_far_apart_are_read(kit: Any, tmp_path: Path) -> None:
    """As the images of a lower resolution: the start of each member, and nothing of the rest."""
    from shardkit.dataset.hashes import fingerprint

    goods = kit.goods(tmp_path / "set", shards=2, members=5, size=80_000)
    starts = [(want, goods.data(want)[:1000]) for want in goods.every]
    wants = [Want(want.shard, want.start, 1000, fingerprint(data), want.what) for want, data in starts]
    with contextlib.closing(Fetcher(lambda: StoreReader(str(goods.folder)))) as fetcher:
        assert kit.ask(fetcher, wants) == [data for _, data in starts]
    assert fetcher.stats.read_bytes == 1000 * len(wants)
    assert fetcher.stats.requests == len(wants)
    assert fetcher.stats.seconds > 0


def test_connections_are_used_and_not_exceeded(kit: Any, tmp_path: Path) -> None:
    goods = kit.goods(tmp_path / "set", shards=20, members=1)
    watched = kit.Watched(StoreReader(str(goods.folder)), kit.slow)
    with contextlib.closing(Fetcher(lambda: watched, connections=5)) as fetcher:
        halves = [fetcher.submit(wants, kit_then) for wants in (goods.every[:10], goods.every[10:])]
        assert [data for future in halves for data in future.result(10)] == _bytes(goods, goods.every)
    assert watched.most == 5


async def kit_then(got: list[Any]) -> list[Any]:
    return got


# ---- wrong bytes and failing reads


def _flip(times: int) -> Any:
    """A trick: the first byte of every answer is wrong, `times` times."""
    left = [times]

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        data: bytes = await inner.read(name, start, length, fresh=fresh)
        left[0] -= 1
        return bytes([data[0] ^ 1]) + data[1:] if left[0] >= 0 else data

    return trick


def test_wrong_bytes_are_read_again_past_the_cache(kit: Any, goods: Any, store: Any) -> None:
    want = goods.every[3]
    watched = kit.Watched(store, _flip(1))
    assert kit.fetched(watched, [want]) == [goods.data(want)]
    place = (want.shard, want.start, want.length)
    assert watched.calls == [(*place, False), (*place, True)]


def test_bytes_that_stay_wrong_are_an_error_that_names_shard_image_and_place(kit: Any, goods: Any, store: Any) -> None:
    want = goods.every[3]
    with contextlib.closing(Fetcher(lambda: kit.Watched(store, _flip(9)))) as fetcher:
        (error,) = kit.ask(fetcher, [want])
    assert isinstance(error, IntegrityError)
    assert kit.one_sentence(error)
    for word in (want.shard, want.what, f"byte {want.start:,}", "run verify"):
        assert word in str(error)
    assert (fetcher.stats.refetched, fetcher.stats.bad) == (1, 1)


def test_one_damaged_image_costs_its_neighbours_nothing(kit: Any, tmp_path: Path) -> None:
    goods = kit.goods(tmp_path / "set", shards=1)
    bad = goods.every[2]
    path = goods.folder / bad.shard
    data = bytearray(path.read_bytes())
    data[bad.start + 5] ^= 1
    path.write_bytes(data)
    watched = kit.Watched(StoreReader(str(goods.folder)))
    got = kit.fetched(watched, goods.every)
    assert isinstance(got.pop(2), IntegrityError)
    assert got == _bytes(goods, [want for want in goods.every if want != bad])
    assert len(watched.calls) == 2


def test_a_joint_read_that_ends_too_early_is_tried_range_by_range_at_once(kit: Any, goods: Any, store: Any) -> None:
    shard = next(iter(goods.members))
    wants = goods.wants(shard)

    async def trick(inner: Any, name: str, start: int, length: int, fresh: bool) -> bytes:
        await asyncio.sleep(0.2)
        if length > wants[0].length and start == wants[0].start:
            raise IntegrityError("cut")
        if start == wants[4].start:
            raise IntegrityError(f"{name}: still cut")
        return bytes(await inner.read(name, start, length, fresh=fresh))

    begun = time.monotonic()
    got = kit.fetched(kit.Watched(store, trick), wants)
    assert time.monotonic() - begun < 1.1
    error = got.pop(4)
    assert isinstance(error, IntegrityError)
    assert "still cut" in str(error)
    assert got == _bytes(goods, [want for want in wants if want != wants[4]])


def test_a_store_that_cannot_be_read_is_no_answer_but_the_error_of_the_request(
    kit: Any, tidy: None, goods: Any, store: Any
) -> None:
    """And is asked once: with a deadline for each range, one after the other, it would be noticed after hours."""
    watched = kit.Watched(store, kit.broken)
    with pytest.raises(StorageError, match="the line is cut"):
        kit.fetched(watched, goods.every)
    assert len(watched.calls) == len(goods.members)


def test_bytes_are_read_as_often_as_told_before_they_count_as_wrong(kit: Any, goods: Any, store: Any) -> None:
    want = goods.every[3]
    watched = kit.Watched(store, _flip(4))
    with contextlib.closing(Fetcher(lambda: watched, attempts=5)) as fetcher:
        assert kit.ask(fetcher, [want]) == [goods.data(want)]
    assert [fresh for *_, fresh in watched.calls] == [False, True, True, True, True]


def test_what_a_wrapper_raises_on_purpose_is_the_answer(kit: Any, goods: Any, store: Any) -> None:
    async def trick(*_: Any) -> bytes:
        raise IntegrityError("the manifest is damaged")

    (error,) = kit.fetched(kit.Watched(store, trick), goods.every[:1])
    assert isinstance(error, IntegrityError)


def test_a_mistake_in_the_program_is_raised_to_the_caller(kit: Any, tidy: None, goods: Any, store: Any) -> None:
    async def trick(*_: Any) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kit.fetched(kit.Watched(store, trick), goods.every)


def test_no_connections_and_a_reader_that_cannot_be_made_leave_no_thread(kit: Any, tidy: None) -> None:
    before = threading.active_count()
    with pytest.raises(ArgumentError, match="connections=0"):
        Fetcher(lambda: StoreReader("/"), connections=0)

    def make() -> StoreReader:
        raise ArgumentError("no cache")

    with pytest.raises(ArgumentError, match="no cache"):
        Fetcher(make)
    assert threading.active_count() <= before  # those of earlier tests may end meanwhile


# ---- the end


def test_closing_cancels_reads_that_hang(kit: Any, tidy: None, goods: Any, store: Any) -> None:
    watched = kit.Watched(store, kit.never)
    fetcher = Fetcher(lambda: watched, connections=2)
    futures = [fetcher.submit([want], kit_then) for want in goods.every]
    assert kit.settles(lambda: watched.now == 2)
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 1
    assert "shardkit-fetch" not in kit.threads()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=0)
    assert (watched.cancelled, watched.closed) == (2, 1)
    fetcher.close()
    fetcher.call(lambda: None)


@pytest.mark.parametrize("end", ["closed", "forgotten"])
def test_no_task_or_warning_outlives_a_fetcher(kit: Any, end: str) -> None:
    child = kit.child(CLOSING, end, stderr=-1)
    _, said = child.communicate(timeout=30)
    assert (child.returncode, said) == (0, "")


def test_a_request_after_closing_is_cancelled(tidy: None, goods: Any, store: Any) -> None:
    fetcher = Fetcher(lambda: store)
    fetcher.close()
    assert fetcher.submit(goods.every, kit_then).cancelled()


def test_requests_that_race_with_closing_all_end(kit: Any, tidy: None, goods: Any) -> None:
    """One that came between the last look at the tasks and the end of the loop would be waited for forever."""
    for _ in range(25):
        fetcher = Fetcher(lambda: kit.Watched(StoreReader(str(goods.folder)), kit.slow))
        futures: list[Any] = []

        def hammer(fetcher: Fetcher = fetcher, futures: list[Any] = futures) -> None:
            while not futures or not futures[-1].cancelled():
                futures.append(fetcher.submit(goods.every[:2], kit_then))

        hammers = [threading.Thread(target=hammer) for _ in range(2)]
        for thread in hammers:
            thread.start()
        time.sleep(0.002)
        fetcher.close()
        for thread in hammers:
            thread.join(5)
            assert not thread.is_alive()
        assert all(future.done() for future in futures)


def test_closing_from_two_threads_is_closing(kit: Any, tidy: None, store: Any) -> None:
    fetcher = Fetcher(lambda: store)
    closers = [threading.Thread(target=fetcher.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(5)
    assert kit.settles(lambda: "shardkit-fetch" not in kit.threads())


def test_a_read_that_loses_its_cancellation_is_cancelled_again(kit: Any, tidy: None, goods: Any, store: Any) -> None:
    """As asyncio.wait_for does before Python 3.12, when the answer comes in the same moment."""

    async def deaf(*_: Any) -> bytes:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return bytes(await kit.never())

    watched = kit.Watched(store, deaf)
    fetcher = Fetcher(lambda: watched)
    future = fetcher.submit(goods.every[:1], kit_then)
    assert kit.settles(lambda: watched.now == 1)
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 3
    assert future.cancelled()


def test_a_reader_that_hangs_for_good_holds_nobody_up(
    kit: Any, tidy: None, goods: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.loader.stream.fetch._PATIENCE", 0.3)
    hangs = threading.Event()

    class Stuck:
        async def read(self, *_: Any, **__: Any) -> bytes:
            hangs.wait()  # the loop itself hangs, as on a broken disk
            return b""

        async def close(self) -> None: ...

    fetcher = Fetcher(Stuck)  # type: ignore[arg-type]
    future = fetcher.submit(goods.every[:1], kit_then)
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 2
    with pytest.raises(CancelledError):
        future.result(timeout=0)
    hangs.set()
    assert kit.settles(lambda: "shardkit-fetch" not in kit.threads())


def test_an_error_of_closing_is_raised_and_leaves_no_thread(tidy: None) -> None:
    class Broken:
        async def close(self) -> None:
            raise StorageError("the wrapper is broken")

    fetcher = Fetcher(Broken)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="wrapper"):
        fetcher.close()
