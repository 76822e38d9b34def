"""What cannot be done is refused in one sentence, before anything is changed; a full disk is survived."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError, BuildError, ShardkitError, StorageError


def _sound(made: Any, count: int) -> list[str]:
    return [path for path, spec in made.specs.items() if not spec.defect][:count]


@pytest.fixture
def source(bench: Any, made: Any, tmp_path: Path) -> Path:
    """Three sound files."""
    bench.copy(made.root, tmp_path / "export", _sound(made, 3))
    return tmp_path / "export"


def _one_sentence(text: str) -> bool:
    return bool(text) and "\n" not in text.strip() and "Traceback" not in text and len(text) < 500


def _refuse(bench: Any, kind: type[ShardkitError], match: str, *places: Any, **changes: Any) -> None:
    with pytest.raises(kind, match=match) as caught:
        bench.build(*places, **changes)
    assert _one_sentence(str(caught.value)), str(caught.value)


CHANGES: list[dict[str, Any]] = [
    {"bins": "auto:5"},
    {"patch": 16},
    {"shard_bytes": 1 << 20},
    {"codec": "png"},
    {"min_side": 65},
    {"min_content": 0.1},
    {"modalities": ("CR", "DX")},
    {"invert": "imagemax"},
    {"demographics": True},
    {"near_duplicates": "drop"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(change)) for change in CHANGES])
def test_changed_arguments_are_refused_and_named(bench: Any, made: Any, built: Any, change: dict[str, Any]) -> None:
    before = bench.tree(built.out), bench.tree(built.private)
    name = next(iter(change)).replace("_", "-")
    name = {"shard-bytes": "shard-(bytes|size)"}.get(name, name)
    _refuse(bench, BuildError, f"--{name} was .* now", made.root, built.out, built.private, **change)
    assert (bench.tree(built.out), bench.tree(built.private)) == before


def test_what_decides_no_byte_may_change(bench: Any, made: Any, built_copy: Any) -> None:
    before = bench.tree(built_copy.out)
    changes = {"workers": 1, "max_quarantine": 0.5, "time_limit": 99.0, "memory_limit": 3 << 30}
    again = bench.build(made.root, built_copy.out, built_copy.private, **changes)
    assert again.outcome.within_quarantine
    assert bench.tree(built_copy.out) == before


def test_another_key_is_refused(bench: Any, made: Any, built_copy: Any) -> None:
    (built_copy.private / "pseudonym.key").write_bytes(bytes(32))
    before = bench.tree(built_copy.out), bench.tree(built_copy.private)
    _refuse(bench, BuildError, "key .* is not the one", made.root, built_copy.out, built_copy.private)
    assert (bench.tree(built_copy.out), bench.tree(built_copy.private)) == before


def test_a_damaged_key_is_refused(bench: Any, made: Any, built_copy: Any) -> None:
    (built_copy.private / "pseudonym.key").write_bytes(b"short")
    _refuse(bench, ArgumentError, "is not a pseudonym key", made.root, built_copy.out, built_copy.private)


def test_a_lost_key_is_not_silently_replaced(bench: Any, made: Any, built_copy: Any) -> None:
    from shardkit.build.run import build

    (built_copy.private / "pseudonym.key").unlink()
    with pytest.raises(BuildError, match="key"):
        build(bench.arguments(made.root, built_copy.out, built_copy.private))
    # Restoring the old key is all that is needed.
    (built_copy.private / "pseudonym.key").unlink(missing_ok=True)
    bench.seed_key(built_copy.private)
    assert bench.build(made.root, built_copy.out, built_copy.private).outcome.new_files == 0


def test_a_dataset_without_its_private_folder_is_not_added_to(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    from shardkit.build.run import build

    before = bench.tree(built.out)
    with pytest.raises(BuildError, match="--private"):
        build(bench.arguments(made.root, built.out, tmp_path / "fresh"))
    assert bench.tree(built.out) == before
    assert not bench.tree(tmp_path / "fresh")


def test_shards_of_an_unfinished_build_are_not_mixed_with_another_key(
    bench: Any, made: Any, built_copy: Any, tmp_path: Path
) -> None:
    from shardkit.build.run import build

    (built_copy.out / "dataset.json").unlink()
    with pytest.raises(BuildError, match="another"):
        build(bench.arguments(made.root, built_copy.out, tmp_path / "fresh"))
    assert not bench.tree(tmp_path / "fresh")


PLACES = {
    "out inside source": ("{s}", "{s}/out", "{t}/private", "inside --source"),
    "out is source": ("{s}", "{s}", "{t}/private", "inside --source"),
    "out inside source, spelled otherwise": ("{s}", "{t}/x/../export/out", "{t}/private", "inside --source"),
    "private inside out": ("{s}", "{t}/out", "{t}/out/private", "inside --out"),
    "private is out": ("{s}", "{t}/out", "{t}/out", "inside --out"),
    "private inside source": ("{s}", "{t}/out", "{s}/private", "inside --source"),
    "private inside out, spelled otherwise": ("{s}", "{t}/out", "{t}/x/../out/private", "inside --out"),
    "out is a file": ("{s}", "{t}/file", "{t}/private", "is a file|not a folder"),
    "out below a file": ("{s}", "{t}/file/out", "{t}/private", "file/out"),
    "source missing": ("{t}/nowhere", "{t}/out", "{t}/private", "does not exist"),
    "source is a file": ("{t}/file", "{t}/out", "{t}/private", "not a folder"),
    "source of unknown scheme": ("ftp://host/x", "{t}/out", "{t}/private", "unknown scheme"),
    "out of unknown scheme": ("{s}", "ftp://host/x", "{t}/private", "unknown scheme"),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_cannot_be_are_refused(bench: Any, source: Path, tmp_path: Path, case: str) -> None:
    from shardkit.build.run import build

    (tmp_path / "file").write_text("a file")
    *places, match = (text.format(s=source, t=tmp_path) for text in PLACES[case])
    before = bench.tree(tmp_path)
    with pytest.raises((ArgumentError, BuildError, StorageError), match=match) as caught:
        build(bench.arguments(places[0], places[1], Path(places[2])))
    assert _one_sentence(str(caught.value))
    assert bench.tree(tmp_path) == before, "something was left behind"


def test_an_empty_source_is_refused_and_leaves_nothing(bench: Any, tmp_path: Path) -> None:
    from shardkit.build.run import build

    (tmp_path / "export" / "empty folder").mkdir(parents=True)
    with pytest.raises(ArgumentError, match="holds no files"):
        build(bench.arguments(tmp_path / "export", tmp_path / "out", tmp_path / "private"))
    assert not bench.tree(tmp_path)
    # So other arguments may be tried once there are files.


@pytest.mark.parametrize("bins", ["many", "auto:", "auto:0", "auto:x", "/nowhere/bins.json"])
def test_unknown_bins_are_refused_before_anything_is_made(bench: Any, source: Path, tmp_path: Path, bins: str) -> None:
    from shardkit.build.run import build

    before = bench.tree(tmp_path)
    with pytest.raises(ArgumentError) as caught:
        build(bench.arguments(source, tmp_path / "out", tmp_path / "private", bins=bins))
    assert _one_sentence(str(caught.value))
    assert bench.tree(tmp_path) == before


def test_a_retry_without_a_build_or_without_such_files_is_refused(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    fresh = bench.cli("retry", "--class", "decode_error", "--source", made.root, "--out", tmp_path / "out")
    assert fresh.returncode == 1
    assert _one_sentence(fresh.stderr)
    with pytest.raises(ArgumentError, match="decode_timeout"):
        bench.build(made.root, built.out, built.private, retry="decode_timeout")


def test_the_command_line_gives_one_sentence_and_code_1(
    bench: Any, source: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    runs = [
        bench.cli("build", "--source", tmp_path / "nowhere", "--out", tmp_path / "out"),
        command("build", "--source", source, "--out", source / "out"),
        command("build", "--source", source, "--out", "s3://bucket/x"),
        command("info", tmp_path),
        command("verify", tmp_path),
    ]
    for run in runs:
        assert run.returncode == 1, run.args
        assert _one_sentence(run.stderr), run.stderr
        assert run.stderr.startswith("shardkit: ")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.private").exists()


# ---- buckets that refuse


class _RefusingBucket(BaseHTTPRequestHandler):
    """An S3 server that knows nobody."""

    def _deny(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._deny()

    def do_HEAD(self) -> None:
        self._deny()

    def do_PUT(self) -> None:
        self._deny()

    def do_POST(self) -> None:
        self._deny()

    def do_DELETE(self) -> None:
        self._deny()

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def refusing_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _RefusingBucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "notthesecretnotthesecret")
    yield
    server.shutdown()
    server.server_close()


def test_a_bucket_that_is_not_there_is_refused(bench: Any, moto: str, source: Path, tmp_path: Path) -> None:
    for places in ((source, "s3://nowhere/x"), ("s3://nowhere/x", tmp_path / "out")):
        _refuse(bench, ShardkitError, "s3://nowhere", *places, tmp_path / "private")
    assert not (tmp_path / "out").exists()


def test_wrong_credentials_are_refused_without_being_repeated(
    bench: Any, refusing_bucket: None, source: Path, tmp_path: Path
) -> None:
    for places in ((source, "s3://bucket/x"), ("s3://bucket/x", tmp_path / "out")):
        with pytest.raises(ShardkitError, match=r"access refused") as caught:
            bench.build(*places, tmp_path / "private")
        assert _one_sentence(str(caught.value))
        assert "AKIA" not in str(caught.value)
        assert "notthesecret" not in str(caught.value)


# ---- no space left


@pytest.fixture
def tiny_disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("1m")


def _fails(bench: Any, arguments: Any, words: str, **options: Any) -> None:
    """Build in a process of its own, which must end with a StorageError of these words and not hang."""
    process = bench.driver(arguments, stderr=subprocess.PIPE, **options)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("the build hangs instead of ending with an error")
    last = said.strip().splitlines()[-1]
    assert process.returncode == 1, said
    assert "StorageError: " in last
    assert words in last


def test_a_full_disk_is_one_sentence_and_freeing_space_is_enough(
    bench: Any, made: Any, built: Any, tiny_disk: Path, tmp_path: Path
) -> None:
    out, private = tiny_disk / "out", tmp_path / "private"
    bench.seed_key(private)
    _fails(bench, bench.arguments(made.root, out, private), "no space left")
    assert not (out / "dataset.json").exists()
    kept = bench.identity(out)
    assert kept, "nothing was finished before the disk was full"
    assert all(path.read_bytes() == data for path, data in _same(out, built.out))
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    bench.build(made.root, out, private)
    assert bench.tree(out) == bench.tree(built.out)
    now = bench.identity(out)
    assert {name for name in kept if now.get(name) != kept[name]} <= built.rewritten()


def _same(out: Path, reference: Path) -> Iterator[tuple[Path, bytes]]:
    """Shards that no duplicate changes are whole and final as soon as they are there."""
    for path in sorted((out / "shards").rglob("*.tar")):
        other = reference / path.relative_to(out)
        if other.exists() and other.stat().st_size == path.stat().st_size:
            yield path, other.read_bytes()


@pytest.mark.deep
def test_a_full_private_disk_is_one_sentence_too(
    bench: Any, made: Any, built: Any, tiny_disk: Path, tmp_path: Path
) -> None:
    private = tiny_disk / "private"
    bench.seed_key(private)
    (tiny_disk / "ballast").write_bytes(bytes(980 << 10))
    _fails(bench, bench.arguments(made.root, tmp_path / "out", private), "no space left")
    (tiny_disk / "ballast").unlink()
    bench.build(made.root, tmp_path / "out", private)
    assert bench.tree(tmp_path / "out") == bench.tree(built.out)


@pytest.mark.deep
def test_a_file_size_limit_is_one_sentence_and_lifting_it_is_enough(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    import resource

    out, private = tmp_path / "out", tmp_path / "private"
    bench.seed_key(private)
    arguments = bench.arguments(made.root, out, private)
    limit = 50 << 10

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    _fails(bench, arguments, "", preexec_fn=limited)
    assert not (out / "dataset.json").exists()
    bench.build(made.root, out, private)
    assert bench.tree(out) == bench.tree(built.out)


def test_a_damaged_dataset_json_is_named(bench: Any, built_copy: Any) -> None:
    from shardkit.dataset import contents

    (built_copy.out / "dataset.json").write_text("{")
    with pytest.raises(ShardkitError, match=r"dataset\.json is damaged"):
        contents.description(built_copy.store)
    content = json.loads('{"format": 99}')
    (built_copy.out / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ShardkitError, match="another format"):
        contents.description(built_copy.store)
