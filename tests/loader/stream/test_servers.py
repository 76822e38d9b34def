"""Servers on a bad day: what can get better is tried again, in bounded time; errors name it all and no secret."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from shardkit.loader.stream.reader import Retrying, StoreReader
from shardkit.storage.waiting import StoreAway

NAME, DATA = "shards/0064x0064/00000.tar", random.Random(1).randbytes(200_000)
SECRET = "notthesecretnotthesecret"


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
    (tries,) = map(int, re.findall(r"in (\d+) tries", str(caught.value)))
    # The last try may meet the deadline before it reaches a busy machine's server.
    assert server.asked <= tries <= server.asked + 1, "the client repeats requests by itself"
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


@pytest.mark.deep
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
