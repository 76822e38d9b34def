"""A dataset is opened as soon as its store is there: one that is away is waited for, one that refuses is not."""

from __future__ import annotations

import http.server
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from shardkit import Loader, Packed
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError, StorageError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.storage import AccessRefused

ARGUMENTS: dict[str, Any] = {"batching": Packed(tokens=2048, patch=16, per_step=1), "split": None, "device": "cpu"}


class Gateway:
    """An S3 server of one folder that can be away, busy, silent or refuse, at a port that stays its own."""

    def __init__(self, folder: Path) -> None:
        gateway, self.folder, self.says = self, folder, 200
        self.asked: list[str] = []
        self.trick: Callable[[str], None] = lambda path: None

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gateway.answer(self)

            do_HEAD = do_GET

            def log_message(self, *words: object) -> None: ...

        self._handler: Any = Handler
        self._server: http.server.ThreadingHTTPServer | None = None
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = unquote(request.path.partition("?")[0]).removeprefix("/bucket/")
        self.asked.append(name)
        self.trick(name)
        path, says = self.folder / name, self.says
        body = path.read_bytes() if says == 200 and path.is_file() else b""
        if says == 200 and not path.is_file():
            says, body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
        whole = len(body)
        if found := re.match(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")) if says == 200 else None:
            says, body = 206, body[int(found[1]) : int(found[2]) + 1]
        request.send_response(says)
        if found:
            request.send_header("Content-Range", f"bytes {found[1]}-{int(found[1]) + len(body) - 1}/{whole}")
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"1"')
        request.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def up(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def gateway(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """It serves a dataset as s3://bucket once it is up."""
    found = Gateway(dataset_folder)
    settings = {"ENDPOINT_URL": f"http://127.0.0.1:{found.port}", "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    for name, value in {**settings, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield found
    found.down()


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.deep
def test_a_loader_waits_for_a_store_that_is_away_when_it_is_made(
    gateway: Gateway, dataset_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    back = threading.Timer(1.2, gateway.up)
    back.start()
    loader = Loader("s3://bucket", deadline=60.0, **ARGUMENTS)
    back.join()
    assert [b.rows.tolist() for b in loader] == [b.rows.tolist() for b in Loader(dataset_folder, **ARGUMENTS)]
    said = _said(caplog)
    assert said
    assert all("dataset.json: failed, trying again for up to 60 s" in line for line in said)


@pytest.mark.parametrize("object_name", ["dataset.json", "manifest.parquet"])
def test_a_store_that_fails_or_is_silent_for_a_moment_is_asked_again(gateway: Gateway, object_name: str) -> None:
    """A server that is busy; one that takes the question and says nothing."""
    failing = iter([503, 500, "silent"])

    def trick(name: str) -> None:
        gateway.says = 200
        if name.endswith(object_name):
            what = next(failing, 200)
            if what == "silent":
                threading.Event().wait(2)
            else:
                gateway.says = int(str(what))

    gateway.trick = trick
    gateway.up()
    assert ManifestIndex("s3://bucket", deadline=3.0).rows
    assert next(failing, None) is None


def test_a_store_that_stays_away_ends_the_wait_at_the_deadline_with_its_own_error(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://bucket/dataset.json: .*the store is away; .*raise the deadline") as e:
        Loader("s3://bucket", deadline=1.5, **ARGUMENTS)
    assert 0.4 < time.monotonic() - begun < 10
    assert "\n" not in str(e.value)
    assert 1 <= len(_said(caplog)) <= 2


@pytest.mark.parametrize(
    ("says", "place", "kind", "words"),
    [
        (403, "s3://bucket", AccessRefused, "access refused"),
        (200, "s3://bucket/none", ArgumentError, "is no shardkit dataset"),
        (400, "s3://bucket", StorageError, "400"),
        (301, "s3://bucket", StorageError, "redirect"),
    ],
    ids=["wrong key", "no dataset", "bad request", "wrong region"],
)
def test_what_no_wait_mends_ends_at_once(
    gateway: Gateway, says: int, place: str, kind: type[ShardkitError], words: str
) -> None:
    gateway.says = says
    gateway.up()
    with pytest.raises(kind, match=words):
        Loader(place, deadline=600.0, **ARGUMENTS)
    assert len(gateway.asked) <= 2


def test_a_missing_bucket_ends_at_once(moto: str) -> None:
    with pytest.raises(ShardkitError, match="bucket does not exist"):
        Loader("s3://no-such-bucket/ds", deadline=600.0, **ARGUMENTS)


def test_a_manifest_is_read_in_pieces_of_one_version(
    gateway: Gateway, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.loader.manifest_index._PIECE", 10_000)
    gateway.up()
    size = (dataset_folder / "manifest.parquet").stat().st_size
    assert ManifestIndex("s3://bucket").columns("key").equals(ManifestIndex(str(dataset_folder)).columns("key"))
    assert gateway.asked.count("manifest.parquet") == 1 + -(-size // 10_000) > 2

    def replaced(name: str) -> None:
        if gateway.asked.count(name) > 2:
            gateway.says = 412

    gateway.asked.clear()
    gateway.trick = replaced
    with pytest.raises(IntegrityError, match="was replaced while it was read"):
        ManifestIndex("s3://bucket")
