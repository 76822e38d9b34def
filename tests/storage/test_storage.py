"""A store holds whole objects under names, locally as in a bucket, and says in one sentence what went wrong."""

from __future__ import annotations

import errno
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from shardkit.errors import ArgumentError, ShardkitError, StorageError
from shardkit.storage import MissingObject, Store, is_remote, local_path, reason, translate_errors


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "root") if request.param == "local" else "memory:///")


def test_what_is_put_is_there_and_listed_by_folder(store: Store) -> None:
    assert list(store.list("")) == []
    names = ["a/2", "a/1", "b/c/3", "ab/4"]
    for name in names:
        store.put(name, name.encode())
    assert [store.get(name) for name in names] == [name.encode() for name in names]
    assert list(store.list("a")) == [("a/1", 3), ("a/2", 3)]
    assert sorted(store.list("")) == [("a/1", 3), ("a/2", 3), ("ab/4", 4), ("b/c/3", 5)]
    store.put("a/1", b"new")
    assert store.get("a/1") == b"new"


def test_a_range_is_exact_or_an_error(store: Store) -> None:
    store.put("x", bytes(range(100)))
    assert store.get_range("x", 10, 20) == bytes(range(10, 30))
    assert store.get_range("x", 90, 10) == bytes(range(90, 100))
    with pytest.raises(StorageError, match="x"):
        store.get_range("x", 90, 11)


def test_a_missing_object_is_named(store: Store) -> None:
    assert not store.exists("x")
    reads: list[Callable[[], bytes]] = [lambda: store.get("x"), lambda: store.get_range("x", 0, 1)]
    for read in reads:
        with pytest.raises(MissingObject, match="x does not exist") as caught:
            read()
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, ShardkitError)


def test_deleting_twice_is_no_error(store: Store) -> None:
    store.put("x", b"1")
    assert store.exists("x")
    store.delete("x")
    store.delete("x")
    assert not store.exists("x")


def test_a_file_is_moved_in(store: Store, tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(b"whole")
    store.put_file("deep/er/x", tmp_path / "staged")
    assert store.get("deep/er/x") == b"whole"
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_an_object_is_written_in_pieces_and_appears_whole_or_not_at_all(
    size: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waiting").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "waiting"))
    monkeypatch.setattr("shardkit.storage.store._SMALL", 100)
    store.put("deep/x", b"old")

    def broken() -> None:
        with store.writing("deep/x") as file:
            file.write(bytes(size))
            assert not list((tmp_path / "waiting").iterdir())  # a killed program would leave it
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert store.get("deep/x") == b"old"
    with store.writing("deep/x") as file:
        file.write(bytes(size))
        file.write(b"end")
        assert store.get("deep/x") == b"old"
    with store.open("deep/x") as read:
        assert not list((tmp_path / "waiting").iterdir())
        assert read.read() == bytes(size) + b"end"
        assert read.seek(size) == size
        assert read.read() == b"end"
    assert [name for name, _ in store.list("")] == ["deep/x"]
    assert [path.name for path in (tmp_path / "root").rglob("*") if path.is_file()] in (["x"], [])


def test_a_full_disk_of_this_machine_is_named_where_a_bucket_s_objects_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("memory:///")
    store.put("x", b"old")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("shardkit.storage.store._waiting", lambda: open("/dev/full", "wb", 0))  # noqa: PTH123, SIM115
    with pytest.raises(StorageError, match=f"{tmp_path}: no space left"):
        store.open("x")
    with pytest.raises(StorageError, match=f"{tmp_path}: no space left"), store.writing("x") as file:
        file.write(b"new")
    assert store.get("x") == b"old"


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a/x", b"1")
    (tmp_path / "a" / ".y.77.tmp").write_bytes(b"half")
    assert list(store.list("")) == [("a/x", 1)]


def test_a_write_that_fails_leaves_the_old_object(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("x", b"old")
    (tmp_path / "x.d").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageError):
        store.put("x.d/y", b"new")
    assert store.get("x") == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x.d"]


def test_a_store_travels_to_other_processes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("x", b"1")
    assert pickle.loads(pickle.dumps(store)).get("x") == b"1"


def test_urls_are_local_or_of_a_known_scheme() -> None:
    assert [is_remote(u) for u in ("/a", "a/b", "file:///a", "s3://b/x", "https://h/x")] == [False] * 3 + [True] * 2
    assert local_path("file:///a/b") == Path("/a/b")
    with pytest.raises(ArgumentError, match="unknown scheme 'ftp'"):
        is_remote("ftp://host/x")
    with pytest.raises(ArgumentError, match="s3:// names no bucket: use s3://bucket/path"):
        Store("s3://")


def test_a_local_url_is_its_path(tmp_path: Path) -> None:
    Store(f"file://{tmp_path}").put("x", b"1")
    assert Store(str(tmp_path)).get("x") == b"1"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left; free some"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot read or write place as this user"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "does not exist"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_errors_become_one_sentence(error: OSError, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught, translate_errors("place"):
        raise error
    assert "place" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_signed_urls_and_debug_dumps_are_cut() -> None:
    error = GenericError("GET https://host/x?X-Amz-Signature=secret failed\nagain\n\nDebug source:\nClient { key }")
    assert reason(error) == "GET https://host/x failed again"


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), translate_errors("place"):
        raise ZeroDivisionError
