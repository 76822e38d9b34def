"""A faulty store fails as it says, the same for a seed; with retries, each read ends well or in a named error, soon."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError, StorageError
from shardkit.loader.options import CacheOptions
from shardkit.loader.stream.cache import Cached, Contents
from shardkit.loader.stream.fetch import Fetcher, Want
from shardkit.loader.stream.reader import Retrying, StoreReader
from shardkit.storage.waiting import StoreAway
from shardkit.testing.faults import FAULTS, FaultStore

SHARDS, MEMBERS, SIZE, SEAM = 4, 4, 3000, 20_000  # the seam keeps members from being read together
DATA = {f"{i}.tar": random.Random(i).randbytes(MEMBERS * (SIZE + SEAM)) for i in range(SHARDS)}
PLACES = [(name, at * (SIZE + SEAM)) for name in DATA for at in range(MEMBERS)]
WANTS = [Want(n, at, SIZE, fingerprint(DATA[n][at : at + SIZE]), f"the image {n}#{at}") for n, at in PLACES]
RIGHT = [DATA[n][at : at + SIZE] for n, at in PLACES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("faults")
    for name, data in DATA.items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture
def store(folder: Path) -> StoreReader:
    return StoreReader(str(folder))


class Shelf:
    def contents(self, shard: str) -> Contents:
        return Contents(
            f"{shard[0]:0>32}", [(want.start, want.length, want.hash) for want in WANTS if want.shard == shard]
        )


def _read(reader: Any, start: int = 100, length: int = 50, seconds: float = 10) -> Any:
    return asyncio.run(asyncio.wait_for(reader.read("0.tar", start, length), seconds))


@contextlib.contextmanager
def _fetcher(reader: Any) -> Iterator[Fetcher]:
    with contextlib.closing(Fetcher(lambda: reader, 16)) as fetcher:
        yield fetcher


def _ask(fetcher: Fetcher, wants: list[Want] = WANTS) -> list[Any]:
    async def then(got: list[Any]) -> list[Any]:
        return got

    return list(fetcher.submit(wants, then).result(timeout=20))


def _outcomes(reader: FaultStore) -> list[Any]:
    """What reads of some ranges, each asked for thrice, come to."""
    out = []
    for start in list(range(0, 60_000, 1500)) * 3:
        try:
            out.append(_read(reader, start=start))
        except StorageError as error:
            out.append(str(error))
    return out


ERRORS = {
    "reset": "connection reset by peer",
    "unavailable": "503",
    "refused": "403",
    "truncated": "end of file before",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_what_its_name_says(store: Any, kind: str) -> None:
    faulty, right = FaultStore(store, rate=1.0, kinds=[kind]), DATA["0.tar"][100:150]
    if kind in ERRORS:
        with pytest.raises(StorageError, match=f"0.tar: .*{ERRORS[kind]}"):
            _read(faulty)
    elif kind == "stall":
        with pytest.raises(asyncio.TimeoutError):
            _read(faulty, seconds=0.1)
    elif kind == "short":
        assert _read(faulty) == right[:25]
        assert _read(faulty, length=1) == b""
    else:
        wrong = _read(faulty)
        assert len(wrong) == 50
        assert sum(one != other for one, other in zip(wrong, right, strict=True)) == 8
        assert _read(faulty, length=1) != right[:1]
    assert set(faulty.counts) == {kind}
    assert asyncio.run(faulty.size("0.tar")) == len(DATA["0.tar"])


def test_rates_are_kept_and_none_means_none(store: Any) -> None:
    quick = [kind for kind in FAULTS if kind != "stall"]
    assert _outcomes(FaultStore(store, rate=0.0)) == [DATA["0.tar"][at : at + 50] for at in range(0, 60_000, 1500)] * 3
    faulty = FaultStore(store, seed=3, rate=0.3, kinds=quick)
    _outcomes(faulty)
    assert 0.2 < sum(faulty.counts.values()) / 120 < 0.4
    assert set(faulty.counts) == set(quick)


def test_the_seed_decides_and_not_the_order_of_reads(store: Any) -> None:
    quick = [kind for kind in FAULTS if kind != "stall"]
    first, again, other = (FaultStore(store, seed, 0.3, quick) for seed in (5, 5, 6))
    outcomes = _outcomes(first)
    assert _outcomes(again) == outcomes
    assert _outcomes(other) != outcomes
    backwards = FaultStore(store, 5, 0.3, quick)
    starts = list(range(0, 60_000, 1500))
    got = {}
    for start in starts[::-1]:
        try:
            got[start] = _read(backwards, start=start)
        except StorageError as error:
            got[start] = str(error)
    assert [got[start] for start in starts] == outcomes[: len(starts)]


@pytest.mark.parametrize("kinds", [["reset", "flood"], []])
def test_unknown_faults_are_refused(store: Any, kinds: list[str]) -> None:
    with pytest.raises(ArgumentError, match="choose from reset, stall"):
        FaultStore(store, kinds=kinds)


def test_closing_passes_on(folder: Path) -> None:
    class Inner:
        closed = False

        async def close(self) -> None:
            self.closed = True

    inner = Inner()
    asyncio.run(FaultStore(inner).close())  # type: ignore[arg-type]
    assert inner.closed


# ---- what a loader makes of it

OF_BYTES = ("short", "wrong")
"""Faults of an object's bytes; the others are the store's."""


def _sound(got: list[Any]) -> int:
    """How many answers are bytes: the right ones, all others being errors that name the shard in one sentence."""
    right = 0
    for want, data, answer in zip(WANTS, RIGHT, got, strict=True):
        if isinstance(answer, bytes):
            assert answer == data
            right += 1
        else:
            assert isinstance(answer, ShardkitError)
            assert want.shard in str(answer)
            assert "\n" not in str(answer)
    return right


@given(st.integers(0, 1 << 30), st.floats(0.05, 1.0), st.sets(st.sampled_from(FAULTS), min_size=1), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_read_ends_in_the_right_bytes_or_a_named_error_in_bounded_time(
    folder: Path, seed: int, rate: float, kinds: set[str], persistent: bool
) -> None:
    faulty = FaultStore(StoreReader(str(folder)), seed, rate, sorted(kinds), persistent)
    begun = time.monotonic()
    retrying = Retrying(faulty, attempts=3, deadline=0.15, pause=0.001)
    with _fetcher(retrying) as fetcher, contextlib.suppress(StoreAway):
        _sound(_ask(fetcher))
    # A range is read twice at most, each time within the deadline.
    assert time.monotonic() - begun < 2 * 0.15 + 1.5


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_day_of_each_kind_costs_no_sample(store: Any, kind: str) -> None:
    faulty = FaultStore(store, seed=1, rate=0.25, kinds=[kind])
    with _fetcher(Retrying(faulty, attempts=6, deadline=2.0, pause=0.001)) as fetcher:
        # Wrong bytes are seen after the retries, and read again once.
        assert _sound(_ask(fetcher)) >= len(WANTS) - (2 if kind == "wrong" else 0)
    assert faulty.counts[kind] > 0
    assert fetcher.stats.refetched >= (faulty.counts[kind] > 0 if kind == "wrong" else 0)


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in OF_BYTES])
def test_a_store_that_fails_for_good_is_one_error_and_no_bad_sample(store: Any, kind: str) -> None:
    faulty = FaultStore(store, seed=2, rate=0.3, kinds=[kind], persistent=True)
    with _fetcher(Retrying(faulty, attempts=3, deadline=0.4, pause=0.001)) as fetcher:
        with pytest.raises(StoreAway, match=r"\d.tar: bytes .* could not be read in .* tries"):
            _ask(fetcher)
        assert fetcher.stats.bad == 0


@pytest.mark.parametrize("kind", OF_BYTES)
def test_bytes_that_are_wrong_for_good_are_an_error_in_their_place(store: Any, kind: str) -> None:
    faulty = FaultStore(store, seed=2, rate=0.3, kinds=[kind], persistent=True)
    expected = [faulty._fault(want.shard, want.start, want.length) is not None for want in WANTS]
    assert 0 < sum(expected) < len(WANTS)
    with _fetcher(Retrying(faulty, attempts=3, deadline=0.4, pause=0.001)) as fetcher:
        got = _ask(fetcher)
    assert [isinstance(answer, ShardkitError) for answer in got] == expected
    assert _sound(got) == expected.count(False)
    kinds = {type(answer) for answer in got if not isinstance(answer, bytes)}
    assert kinds == {IntegrityError}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_cache_over_a_faulty_store_gives_the_right_bytes_and_keeps_no_others(
    store: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.loader.stream.cache._PIECE", 7000)
    faulty = FaultStore(store, seed=4, rate=0.2, kinds=[kind])
    reader = Cached(
        Retrying(faulty, attempts=6, deadline=3.0, pause=0.001), CacheOptions(folder=tmp_path, bytes=1 << 20), Shelf()
    )
    with _fetcher(reader) as fetcher:
        for _ in range(2):
            assert _sound(_ask(fetcher)) >= len(WANTS) - (2 if kind == "wrong" else 0)
        assert reader.stats.hits > 0
    for copy in tmp_path.glob("*/shard"):
        name = f"{copy.parent.name[31]}.tar"
        for want, right in zip(WANTS, RIGHT, strict=True):
            if want.shard == name and kind != "wrong":
                assert copy.read_bytes()[want.start : want.start + want.length] == right
