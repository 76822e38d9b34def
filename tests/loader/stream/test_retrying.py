"""Reads that fail are repeated as long as it makes sense, and the error says what was tried."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from shardkit.errors import ArgumentError, IntegrityError, StorageError
from shardkit.loader.stream.reader import Retrying
from shardkit.storage import AccessRefused, waiting
from shardkit.storage import waiting as module
from shardkit.storage.waiting import StoreAway


class Script:
    """A reader that does one thing after another: raises errors, answers bytes, waits seconds."""

    def __init__(self, *acts: Any) -> None:
        self.acts, self.times, self.cancelled = list(acts), list[float](), 0

    async def read(self, name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        self.times.append(time.monotonic())
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        if isinstance(act, BaseException):
            raise act
        if isinstance(act, bytes):
            return act
        try:
            await asyncio.sleep(act)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return bytes(length)

    async def size(self, name: str) -> int:
        return len(await self.read(name, 0, 7))

    async def close(self) -> None: ...


RESET = StorageError("a.tar: connection reset by peer")


def test_what_fails_is_tried_until_it_works_and_warned_of(
    kit: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.0)
    script = Script(RESET, OSError("odd"), TimeoutError(), b"short", AccessRefused("403"), RESET, b"exactly 10")
    reader = Retrying(script, attempts=2, pause=0.001)
    assert kit.run(reader.read("a.tar", 5, 10)) == b"exactly 10"
    assert len(script.times) == 7
    warned = [record.getMessage() for record in caplog.records]
    assert warned[0] == "a.tar: bytes 5 to 15: failed, trying again for up to 60 s: a.tar: connection reset by peer"
    assert "got 5 of 10 bytes" in warned[3]
    assert kit.run(Retrying(Script(RESET, 0.0), pause=0.001).size("a.tar")) == 7


def test_the_error_names_object_range_tries_seconds_cause_and_remedy(kit: Any) -> None:
    script = Script(RESET)
    with pytest.raises(StoreAway) as caught:
        kit.run(Retrying(script, deadline=0.1, pause=0.03).read("a.tar", 1_000, 2_000_000))
    said = str(caught.value)
    assert kit.one_sentence(said)
    tries = f"{len(script.times)} tries"
    for word in (
        "a.tar",
        "bytes 1,000 to 2,001,000",
        tries,
        " 0.",
        "connection reset",
        "check the store",
        "last state",
    ):
        assert word in said


def test_an_object_that_ends_too_early_is_read_as_often_as_told_and_is_no_fault_of_the_store(kit: Any) -> None:
    script = Script(RESET, b"few", RESET, b"few", RESET, b"few")
    with pytest.raises(IntegrityError, match=r"a.tar: got 3 of 10 bytes from byte 5; run verify") as caught:
        kit.run(Retrying(script, attempts=3, pause=0.001).read("a.tar", 5, 10))
    assert not isinstance(caught.value, StorageError)
    assert len(script.times) == 6


def test_pauses_grow_to_a_limit(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 0.16)
    script = Script(RESET)
    with pytest.raises(StorageError):
        kit.run(Retrying(script, deadline=0.9, pause=0.02).read("a.tar", 0, 1))
    gaps = [after - before for before, after in pairwise(script.times)]
    assert all(gap >= min(0.02 * 2**i, 0.16) / 2 for i, gap in enumerate(gaps)), gaps
    assert len(gaps) >= 6, "the pauses grow without an end"


def test_stalls_are_cancelled_and_bounded_by_the_deadline(kit: Any) -> None:
    script = Script(60.0)
    begun = time.monotonic()
    with pytest.raises(StoreAway, match="no answer in time"):
        kit.run(Retrying(script, deadline=0.4, pause=0.001).read("a.tar", 0, 1))
    assert 0.35 < time.monotonic() - begun < 1.5
    assert script.cancelled == len(script.times) > 3


def test_one_stall_leaves_time_for_another_try(kit: Any) -> None:
    assert kit.run(Retrying(Script(60.0, b"x"), deadline=0.4, pause=0.001).read("a.tar", 0, 1)) == b"x"


def test_no_pause_goes_beyond_the_deadline_and_the_cause_is_told(kit: Any) -> None:
    """Else the last error would be "no answer in time" of a try that never was."""
    script = Script(RESET)
    begun = time.monotonic()
    with pytest.raises(StorageError, match="connection reset"):
        kit.run(Retrying(script, deadline=0.3, pause=0.02).read("a.tar", 0, 1))
    assert time.monotonic() - begun < 0.6
    assert 3 <= len(script.times) < 8


def test_a_mistake_in_the_program_is_not_tried_again(kit: Any) -> None:
    script = Script(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        kit.run(Retrying(script).read("a.tar", 0, 1))
    assert len(script.times) == 1


def test_being_cancelled_is_no_failure(kit: Any) -> None:
    script = Script(60.0)

    async def stop() -> None:
        task = asyncio.ensure_future(Retrying(script).read("a.tar", 0, 1))
        await asyncio.sleep(0.02)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        kit.run(stop())
    assert (script.cancelled, len(script.times)) == (1, 1)


@pytest.mark.parametrize("limits", [(0, 1.0), (1, 0.0)])
def test_limits_that_leave_no_try_are_refused(limits: tuple[int, float]) -> None:
    with pytest.raises(ArgumentError, match="leave no try"):
        Retrying(Script(b""), *limits)
