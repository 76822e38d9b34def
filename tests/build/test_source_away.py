"""A source that goes away while a build reads it is no bad file: the build waits, or ends and goes on later."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import StorageError
from shardkit.sources import files as module
from shardkit.storage import Store

FILES = 12
ONE: dict[str, Any] = {"workers": 1}  # of a child's life, most is its start


@pytest.fixture(scope="module")
def exported(bench: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few files without links, and with them one that never was an image."""
    place = tmp_path_factory.mktemp("exported") / "export"
    bench.copy(made.root, place, [path for path, spec in made.specs.items() if not spec.target][:FILES])
    return place


@pytest.fixture(scope="module")
def control(bench: Any, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its build by a source that is always there."""
    place = tmp_path_factory.mktemp("control")
    return bench.build(exported, place / "out", place / "private", **ONE)


class _Gateway:
    """A moto bucket behind a door: closed, every request is refused with 503."""

    def __init__(self, endpoint: str) -> None:
        gateway, self.open, self.reads, self.silent_after = self, True, 0, None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if "list-type" not in self.path:
                    gateway.reads += 1
                    if gateway.silent_after is not None and gateway.reads > gateway.silent_after:
                        gateway.open = False
                status, body, headers = 503, b"", Message()
                if gateway.open:
                    names = ("Authorization", "x-amz-date", "x-amz-content-sha256", "Range", "Host")
                    given = {name: self.headers[name] for name in names if self.headers[name]}
                    asked = urllib.request.Request(endpoint + self.path, headers=given, method=self.command)
                    try:
                        with urllib.request.urlopen(asked) as got:
                            status, body, headers = got.status, got.read(), got.headers
                    except urllib.error.HTTPError as error:
                        status, body, headers = error.code, error.read(), error.headers
                self.send_response(status)
                for name in ("ETag", "Last-Modified", "Content-Range", "Content-Type"):
                    if value := headers.get(name):  # in any case of letters
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *words: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def gateway(moto: str, exported: Path, bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """It serves the export as s3://away/export."""
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="away")
    store = Store("s3://away/export")
    for name, data in bench.tree(exported).items():
        store.put(name, data)
    found = _Gateway(moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
    module._store.cache_clear()
    yield found
    module._store.cache_clear()
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(
    "reads",
    [pytest.param(3, id="while it scans", marks=pytest.mark.deep), pytest.param(FILES + 3, id="while it converts")],
)
def test_a_bucket_that_goes_away_ends_a_build_which_goes_on_when_it_is_back(
    bench: Any, gateway: Any, control: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    monkeypatch.setattr(module, "_DEADLINE", 1.0)
    gateway.silent_after = reads
    with pytest.raises(StorageError, match=r"away/export.*the store is away; run the same command again") as caught:
        bench.build("s3://away/export", tmp_path / "out", tmp_path / "private", **ONE)
    assert "\n" not in str(caught.value)
    gateway.open, gateway.silent_after = True, None
    resumed = bench.build("s3://away/export", tmp_path / "out", tmp_path / "private", **ONE)
    assert resumed.outcome.counts == control.outcome.counts
    assert bench.tree(resumed.out) == bench.tree(control.out)


@pytest.mark.deep
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_in_a_bucket_that_goes_away_has_members_without_a_verdict_until_it_is_back(
    bench: Any, gateway: Any, moto: str, control: Any, exported: Path, tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    import boto3

    form = "zip" if name.endswith("zip") else "gztar"
    data = Path(shutil.make_archive(str(tmp_path / "a"), form, exported)).read_bytes()
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    client.put_object(Bucket="away", Key=f"packed-{form}/{name}", Body=data)
    monkeypatch.setattr(module, "_DEADLINE", 1.0)
    gateway.silent_after = gateway.reads + 9
    with pytest.raises(StorageError, match="run the same command again"):
        bench.build(f"s3://away/packed-{form}", tmp_path / "out", tmp_path / "private", **ONE)
    gateway.open, gateway.silent_after = True, None
    resumed = bench.build(f"s3://away/packed-{form}", tmp_path / "out", tmp_path / "private", **ONE)
    assert resumed.outcome.counts == control.outcome.counts
    assert bench.tree(resumed.out) == bench.tree(control.out)


@pytest.mark.deep
def test_a_build_waits_for_a_bucket_that_comes_back(
    bench: Any, gateway: Any, control: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.silent_after = FILES + 3

    def mend() -> None:
        while gateway.open:
            time.sleep(0.02)
        time.sleep(1.5)
        gateway.silent_after, gateway.open = None, True

    threading.Thread(target=mend, daemon=True).start()
    built = bench.build("s3://away/export", tmp_path / "out", tmp_path / "private", **ONE)
    assert bench.tree(built.out) == bench.tree(control.out)
    assert any("trying again for up to" in record.getMessage() for record in caplog.records)


@pytest.mark.deep
@pytest.mark.parametrize("gone", ["removed", "empty"])
def test_a_share_that_is_unmounted_ends_a_build_which_goes_on_when_it_is_back(
    bench: Any, control: Any, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """After the scan, before the first file is converted; where a share was, there is an empty folder or none."""
    monkeypatch.setattr(module, "_DEADLINE", 0.5)
    share, aside, stages = tmp_path / "share", tmp_path / "aside", []
    shutil.copytree(exported, share)

    class Unmounts:
        def stage(self, name: str, total: int | None) -> None:
            stages.append(name)
            if name == "convert" and stages.count("convert") == 1:
                share.rename(aside)
                if gone == "empty":
                    share.mkdir()

        def scanned(self, files: int) -> None: ...

        def converted(self, done: Any) -> None: ...

    from shardkit.build.run import build

    bench.seed_key(tmp_path / "private")
    with pytest.raises(StorageError, match=r"share: .*run the same command again"):
        build(bench.arguments(share, tmp_path / "out", tmp_path / "private", **ONE), Unmounts())
    if share.exists():
        share.rmdir()
    aside.rename(share)
    resumed = bench.build(share, tmp_path / "out", tmp_path / "private", **ONE)
    assert resumed.outcome.counts["quarantined"].get("io_error", 0) == 0
    assert bench.tree(resumed.out) == bench.tree(control.out)


def test_a_share_that_is_away_while_it_is_listed_gives_no_file_a_verdict(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def away(place: Any) -> Any:
        if Path(os.fsdecode(place)) != exported:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return listed(place)

    monkeypatch.setattr(os, "scandir", away)
    with pytest.raises(StorageError, match="not connected"):
        list(module.FileTree(str(exported)).list())


@pytest.mark.deep
def test_one_bad_file_of_a_store_that_answers_is_quarantined(bench: Any, exported: Path, tmp_path: Path) -> None:
    share = tmp_path / "share"
    shutil.copytree(exported, share)
    gone = next(path for path in sorted(share.rglob("*")) if path.is_file())

    class Removes:
        def stage(self, name: str, total: int | None) -> None:
            if name == "convert":
                gone.unlink()

        def scanned(self, files: int) -> None: ...

        def converted(self, done: Any) -> None: ...

    from shardkit.build.run import build

    bench.seed_key(tmp_path / "private")
    outcome = build(bench.arguments(share, tmp_path / "out", tmp_path / "private", **ONE), Removes())
    assert outcome.counts["quarantined"]["io_error"] == 1
