"""How buckets are opened: what a url may not give away, whose keys are used, and where reading would hang."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError, StorageError
from shardkit.storage import AccessRefused, MissingObject, Store, Unusable, no_folder
from shardkit.storage.remote import advice, shown

SECRET = "hunter2"
SECRETS = [
    f"https://alice:{SECRET}@127.0.0.1:9/ds",
    f"http://127.0.0.1:9/ds?X-Amz-Signature={SECRET}",
    f"s3://AKIA:{SECRET}@bucket/ds?sig={SECRET}",
    f"https://alice:pa@ss{SECRET}@127.0.0.1:9/ds",
]

# A process that uses a bucket, and then forks one that does. argv: url, what the child does.
FORKING = """
import os, sys
from shardkit.storage import Store
url, what = sys.argv[1:]
store = Store(url)
print(len(store.get("dataset.json")), flush=True)
def work():
    if what == "new loader":
        from shardkit import Loader, Packed
        Loader(url, batching=Packed(tokens=512, patch=16, per_step=1))
    elif what == "new store":
        Store(url).get("dataset.json")
    else:
        store.exists("dataset.json")
if os.fork() == 0:
    try:
        work()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(0)
os.wait()
"""


# ---- secrets


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_is_shown_without_the_secrets_in_it(url: str) -> None:
    assert SECRET not in shown(url)
    assert SECRET not in shown(f"Error performing GET {url}/x?a={SECRET}&b in 3 ms (http error)")
    assert SECRET not in Store(url).url
    assert Store(url).url.startswith(url.partition("://")[0])
    assert Store(url).url.endswith("/ds")


@pytest.mark.parametrize("path", ["/data/a?b/c@d", "relative@x/y?z", "s3://bucket/a@b/c", "memory:///"])
def test_other_places_are_shown_as_they_are(path: str) -> None:
    assert shown(path) == path


@pytest.mark.parametrize("url", [SECRETS[1], f"ftp://alice:{SECRET}@host/ds"])
def test_no_command_prints_the_secrets_of_a_url(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from shardkit.cli import run

    places = [["verify", url], ["build", "--source", url, "--out", url, "--private", str(tmp_path / "p")]]
    slow = url.startswith("http")  # the client waits for an absent server
    for words in [["info", url], *([] if slow else places)]:
        assert run(words) == 1
        said = "".join(capsys.readouterr())
        assert said.count("shardkit: ") == 1
        assert SECRET not in said


def test_a_build_notes_where_it_reads_and_writes_without_secrets(tmp_path: Path) -> None:
    from shardkit.build.workspace import _absolute

    assert _absolute(f"https://al:{SECRET}@host/x/?sig={SECRET}") == "https://***@host/x"
    assert _absolute(str(tmp_path)) == str(tmp_path)


# ---- web servers


class Web(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with byte ranges if `ranges`; notes who asks."""

    ranges = True
    users: list[str | None]

    def do_GET(self) -> None:
        self.users.append(self.headers.get("Authorization"))
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range", "")
        found = re.match(r"bytes=(\d+)-(\d+)", asked)
        if not (self.ranges and found and path.is_file()):
            super().do_GET()
            return
        data = path.read_bytes()
        start, end = int(found[1]), min(int(found[2]) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(0))
        self.end_headers()
        self.wfile.write(data[start:end])

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Callable[..., tuple[str, type[Web]]]]:
    """Serves a folder; its address, and the handler."""
    running = []

    def start(folder: Path, ranges: bool = True) -> tuple[str, type[Web]]:
        handler = type("Handler", (Web,), {"ranges": ranges, "users": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"127.0.0.1:{server.server_port}", handler

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_a_dataset_on_a_plain_web_server_loads(dataset_folder: Path, web: Any) -> None:
    from shardkit import Loader, Packed

    address, handler = web(dataset_folder)
    arguments: dict[str, Any] = {"batching": Packed(tokens=2048, patch=16, per_step=1), "split": None, "device": "cpu"}
    loader = Loader(f"http://al%40home:{SECRET}@{address}", **arguments)
    assert [b.rows.tolist() for b in loader] == [b.rows.tolist() for b in Loader(dataset_folder, **arguments)]
    assert set(handler.users) == {"Basic YWxAaG9tZTpodW50ZXIy"}, "the user of the url is not told to the server"


def test_a_dataset_on_a_plain_web_server_can_be_looked_at(dataset_folder: Path, web: Any) -> None:
    from shardkit import Dataset

    address, _ = web(dataset_folder)
    there, here = Dataset(f"http://{address}"), Dataset(str(dataset_folder))
    assert there.table().equals(here.table())
    assert (there[2].pixels(2) == here[2].pixels(2)).all()
    assert there[2].labels == {}
    assert there.labels_names == [], "such a server lists nothing"


def test_a_web_server_without_ranges_is_named_at_the_start(dataset_folder: Path, web: Any) -> None:
    from shardkit import Loader, Packed

    address, handler = web(dataset_folder, ranges=False)
    with pytest.raises(Unusable, match=rf"http://{address}/dataset.json: this server ignores byte ranges: serve"):
        Loader(f"http://{address}", batching=Packed(tokens=2048, patch=16, per_step=1), split=None, device="cpu")
    assert len(handler.users) <= 2
    with pytest.raises(Unusable, match="cannot list its files"):
        list(Store(f"http://{address}").list(""))


# ---- settings


def test_plain_http_and_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("REGION", "x"), ("ACCESS_KEY_ID", "a")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    with pytest.raises(Unusable, match=r"s3://bucket/x: the endpoint is plain http: set AWS_ALLOW_HTTP=true"):
        Store("s3://bucket").get("x")
    with pytest.raises(StorageError, match="set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"):
        Store("az://bucket").get("x")
    asked = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1 ms"
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in (advice(asked) or "")


def test_a_bucket_that_is_not_there_is_named(moto: str) -> None:
    with pytest.raises(MissingObject, match="s3://nobkt/ds/x: the bucket does not exist; check its name and the end"):
        Store("s3://nobkt/ds").get("x")


@pytest.fixture
def profiles(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of profiles and no keys in the environment; the bucket `profiles` is there."""
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="profiles")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = labkey\naws_secret_access_key = labsecret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    return file


def test_keys_come_from_a_profile(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = Store("s3://profiles/set")
    assert store.remote.credential_provider()["access_key_id"] == "labkey"
    store.put("x", b"there")
    assert store.get("x") == b"there"


def test_a_profile_that_cannot_be_read_is_refused_by_name(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lap")
    with pytest.raises(
        ArgumentError, match=r"profile lap of AWS_PROFILE cannot be used \(.*, or set AWS_ACCESS_KEY_ID"
    ):
        Store("s3://profiles/set").get("x")
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    with pytest.raises(ArgumentError, match=r"profile lap .*: run pip install boto3"):
        Store("s3://profiles/set").get("x")


# ---- folders


def test_a_folder_that_is_not_there_is_named_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "file").touch()
    assert no_folder(tmp_path / "shards") == ""
    said = f"the folder {tmp_path}/shard does not exist; there is {tmp_path}/shards"
    assert no_folder(tmp_path / "shard") == said
    assert no_folder(tmp_path / "other" / "deep") == f"the folder {tmp_path}/other/deep does not exist"
    assert no_folder(tmp_path / "file") == f"{tmp_path}/file is a file, not a folder"


def test_commands_name_a_folder_that_is_not_there(dataset_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shardkit.cli import run

    wrong = dataset_folder.with_name("datasett")
    for words in (["info", str(wrong)], ["verify", str(wrong)], ["scan", "--source", str(wrong)]):
        assert run(words) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"the folder {wrong} does not exist; there is {dataset_folder}" in said
    assert run(["info", str(dataset_folder.parent)]) == 1
    assert f"there is one in {dataset_folder}" in " ".join(capsys.readouterr().err.split())


def test_a_place_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AccessRefused, match=f"cannot write {tmp_path}/x as this user: change its rights, or name"):
        Store(str(tmp_path)).put("x", b"1")


# ---- processes


@pytest.mark.parametrize("what", ["new loader", "new store", "old store"])
def test_a_forked_process_is_told_that_it_cannot_read_a_bucket(dataset_folder: Path, web: Any, what: str) -> None:
    address, _ = web(dataset_folder)
    command = [sys.executable, "-c", FORKING, f"http://{address}", what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "StorageError: a bucket cannot be read in a process forked from one" in done.stdout
    assert "start method spawn, or with torchrun" in done.stdout


def test_the_first_bucket_may_be_opened_in_a_forked_process(dataset_folder: Path, web: Any) -> None:
    address, _ = web(dataset_folder)
    script = "import os, sys; from shardkit.storage import Store\nif os.fork() == 0:\n"
    script += "    print(len(Store(sys.argv[1]).get('dataset.json')), flush=True); os._exit(0)\nos.wait()"
    command = [sys.executable, "-c", script, f"http://{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == (dataset_folder / "dataset.json").stat().st_size


def test_a_loader_stays_in_its_process(dataset_folder: Path, tmp_path: Path) -> None:
    import copy
    import pickle

    from shardkit import Loader, Packed, TorchDataset

    loader = Loader(dataset_folder, batching=Packed(tokens=512, patch=16, per_step=1), split=None, device="cpu")
    for travel in (pickle.dumps, copy.deepcopy):
        for what in (loader, TorchDataset(loader)):
            with pytest.raises(ArgumentError, match=r"only in the process it was made in: .* start method spawn, or"):
                travel(what)
    if (child := os.fork()) == 0:
        try:
            next(iter(loader))
        except ArgumentError as error:
            (tmp_path / "said").write_text(str(error))
        os._exit(0)
    os.waitpid(child, 0)
    assert "only in the process it was made in" in (tmp_path / "said").read_text()
