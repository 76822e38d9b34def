"""Folders and buckets give the same ranges; what can get better is tried again, in bounded time; errors name it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError, IntegrityError, StorageError
from shardkit.loader.stream import reader as module
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Logged, Retrying, StoreReader
from shardkit.storage import AccessRefused, MissingObject, Store, waiting
from shardkit.storage.waiting import StoreAway

NAME, DATA = "shards/0064x0064/00000.tar", random.Random(1).randbytes(200_000)
SECRET = "notthesecretnotthesecret"


@pytest.fixture(scope="session")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="streams")
    Store("s3://streams/set").put(NAME, DATA)
    return "s3://streams/set"


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return str(request.getfixturevalue("bucket"))
    Store(str(tmp_path)).put(NAME, DATA)
    return str(tmp_path)


def test_a_folder_and_a_bucket_give_the_same_bytes(kit: Any, url: str) -> None:
    draw = random.Random(2)
    ranges = [(0, 1), (0, len(DATA)), (len(DATA) - 1, 1)]
    ranges += [(start, draw.randint(1, len(DATA) - start)) for start in (draw.randrange(len(DATA)) for _ in range(61))]

    async def read() -> list[bytes]:
        reader = StoreReader(url)
        try:
            assert await reader.size(NAME) == len(DATA)
            return list(await asyncio.gather(*(reader.read(NAME, *one) for one in ranges)))
        finally:
            await reader.close()

    assert kit.run(read()) == [DATA[start : start + length] for start, length in ranges]


@pytest.mark.parametrize("start", [len(DATA) - 10, len(DATA), len(DATA) + 1000])
def test_a_short_object_is_named_in_one_sentence(kit: Any, url: str, start: int) -> None:
    with pytest.raises(IntegrityError, match=rf"{url}/{NAME} ends before byte .* cut short; run verify") as caught:
        kit.run(StoreReader(url).read(NAME, start, 11))
    assert kit.one_sentence(caught.value)


def test_a_missing_object_is_named_and_not_asked_for_again(kit: Any, url: str) -> None:
    watched = kit.Watched(StoreReader(url))
    reader = Retrying(watched)
    for job in (reader.read("shards/none.tar", 0, 1), reader.size("shards/none.tar")):
        with pytest.raises(MissingObject, match=rf"{url}/shards/none.tar does not exist") as caught:
            kit.run(job)
        assert kit.one_sentence(caught.value)
    assert (len(watched.calls), watched.sizes, reader.retries) == (1, 1, 0)


def test_a_missing_bucket_is_one_sentence(kit: Any, moto: str) -> None:
    with pytest.raises(StorageError, match="s3://nowhere/set") as caught:
        kit.run(Retrying(StoreReader("s3://nowhere/set")).read(NAME, 0, 1))
    assert kit.one_sentence(caught.value)


def test_closing_leaves_no_thread_and_no_open_file(kit: Any, tidy: None, tmp_path: Path) -> None:
    Store(str(tmp_path)).put(NAME, DATA)

    async def read() -> None:
        reader = StoreReader(str(tmp_path))
        await reader.read(NAME, 0, 10)
        assert kit.open_files(tmp_path)
        await reader.close()

    kit.run(read())
    assert kit.open_files(tmp_path) == []


def test_a_hanging_mount_does_not_hold_up_closing(kit: Any, tidy: None, tmp_path: Path) -> None:
    """A pipe that nobody writes to stands for a network mount that does not answer: the open never returns."""
    os.mkfifo(tmp_path / "hangs")
    fetcher = Fetcher(lambda: StoreReader(str(tmp_path)))
    want = kit.goods(tmp_path / "set", shards=1).every[0]
    future = fetcher.submit([type(want)("hangs", 0, 10, bytes(16), "x")], kit.never)
    assert kit.settles(lambda: "shardkit-read" in kit.threads())
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 2
    assert future.cancelled()
    with contextlib.suppress(OSError):  # nobody reads, if the request was cancelled before a thread took it
        os.close(os.open(tmp_path / "hangs", os.O_WRONLY | os.O_NONBLOCK))  # the mount is back: the thread ends


# ---- servers on a bad day


class Server(BaseHTTPRequestHandler):
    """An S3 server that answers what the test says."""

    answer: Callable[[Any], None]
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        type(self).answer(self)

    do_HEAD = do_GET

    def reply(self, code: int, body: bytes, promised: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        self.send_header("ETag", '"x"')
        if code == 206:
            self.send_header("Content-Range", f"bytes 0-{(promised or len(body)) - 1}/{len(DATA)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], type[Server]]]:
    """Starts a server that answers every request with a function; the environment leads to it."""
    running = []

    def start(answer: Callable[[Any], None]) -> type[Server]:
        handler = type("Handler", (Server,), {"answer": staticmethod(answer), "asked": 0})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        return handler

    for name, value in (("ALLOW_HTTP", "true"), ("REGION", "us-east-1"), ("ACCESS_KEY_ID", "AKIAKNOWN")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def _read(deadline: float = 0.3) -> Any:
    return Retrying(StoreReader("s3://bucket/set"), deadline=deadline, pause=0.01).read(NAME, 0, 100)


def _plain(text: str) -> bool:
    return all(word not in text for word in (SECRET, "AKIA", "Signature", "X-Amz", "?"))


REFUSED = (403, b"<Error><Code>AccessDenied</Code></Error>")
BUSY = (503, b"<Error><Message>see https://host/x?X-Amz-Signature=s3cr3t&X-Amz-Credential=AKIA</Message></Error>")


@pytest.mark.parametrize(("answer", "words"), [(REFUSED, "access refused; check the cred"), (BUSY, "503 Service Una")])
def test_a_store_that_refuses_or_is_busy_is_waited_for_until_the_deadline_and_named(
    kit: Any, serve: Any, caplog: pytest.LogCaptureFixture, answer: tuple[int, bytes], words: str
) -> None:
    server = serve(lambda request: request.reply(*answer))
    begun = time.monotonic()
    with pytest.raises(
        StoreAway, match=rf"{NAME}: bytes 0 to 100 could not be read in .* tries and .*{words}"
    ) as caught:
        kit.run(_read(deadline=0.5))
    assert 0.2 < time.monotonic() - begun < 2
    assert f"in {server.asked} tries" in str(caught.value), "the client repeats requests by itself"
    assert kit.one_sentence(caught.value)
    assert _plain(str(caught.value) + caplog.text)
    assert len(caplog.records) == 1, "one line a second"


def test_a_store_that_gets_better_gives_the_bytes(kit: Any, serve: Any) -> None:
    """503, then 403, a connection that is cut before an answer, half a body, and all of it."""

    def answer(request: Any) -> None:
        if request.asked <= 2:
            request.reply(*(BUSY, REFUSED)[request.asked - 1])
        elif request.asked == 3:
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            request.reply(206, DATA[: 50 if request.asked == 4 else 100], promised=100)

    server = serve(answer)
    assert kit.run(_read(deadline=20)) == DATA[:100]
    assert server.asked == 5


def test_a_body_that_stays_short_is_an_error(kit: Any, serve: Any) -> None:
    serve(lambda request: request.reply(206, DATA[:50], promised=100))
    with pytest.raises(StoreAway, match=rf"{NAME}.* tries"):
        kit.run(_read())


def test_an_outage_of_any_length_below_the_deadline_costs_time_and_no_read(
    kit: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All of many reads at a time fail for longer than a few tries take, and the log has a line a second."""
    ends = time.monotonic() + 2.2

    def answer(request: Any) -> None:
        request.reply(*(REFUSED if time.monotonic() < ends else (206, DATA[:100])))

    serve(answer)

    async def many() -> list[bytes]:
        reader = Retrying(StoreReader("s3://bucket/set"), attempts=2, deadline=30.0)
        return list(await asyncio.gather(*(reader.read(NAME, 0, 100) for _ in range(24))))

    assert kit.run(many()) == [DATA[:100]] * 24
    told = [record.created for record in caplog.records]
    assert 2 <= len(told) <= 4
    assert all(after - before >= 0.99 for before, after in pairwise(told))
    assert "reads before it)" in caplog.text


def test_a_server_that_never_answers_is_given_up_and_left(
    kit: Any, monkeypatch: pytest.MonkeyPatch, serve: Any
) -> None:
    left = threading.Semaphore(0)

    def answer(request: Any) -> None:
        with contextlib.suppress(OSError):
            request.connection.recv(1)  # returns when the client hangs up
        left.release()
        request.close_connection = True

    server = serve(answer)
    begun = time.monotonic()
    with pytest.raises(StoreAway, match="no answer in time; check the store and go on from the last state, or raise"):
        kit.run(_read(deadline=0.6))
    assert time.monotonic() - begun < 2
    for _ in range(server.asked):
        assert left.acquire(timeout=5), "a given up request is still open"


# ---- Retrying


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
    assert reader.retries == 6
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


def test_a_log_has_a_line_a_read(kit: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "shardkit.stream")

    async def read() -> None:
        reader = Logged(StoreReader(url))
        assert await reader.read(NAME, 10, 20) == DATA[10:30]
        assert await reader.size(NAME) == len(DATA)
        await reader.close()

    kit.run(read())
    (record,) = [r for r in caplog.records if r.name == "shardkit.stream"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"{NAME}: bytes 10 to 30 in 0.")
