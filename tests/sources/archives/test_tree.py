"""Archives as folders of an export: order, archives in archives, names that collide, buckets, stores that go away."""

from __future__ import annotations

import errno
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import obstore
import pytest

from shardkit.errors import Quarantined, StorageError
from shardkit.sources import files, image_source
from shardkit.sources.archives import ArchiveTree, limits, readers
from shardkit.sources.entries import Entry
from shardkit.sources.files import FileTree, Unread
from shardkit.storage import Store, Unanswered, private
from shardkit.synthetic import corruptions
from shardkit.synthetic.export import make_export
from shardkit.testing.sources import assert_image_source

NOISE, LARGE = os.urandom(5000), os.urandom(6_000_000)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return made.getvalue()


def tarred(*members: tuple[str, bytes], mode: Any = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return made.getvalue()


def tgz(*members: tuple[str, bytes]) -> bytes:
    return tarred(*members, mode="w:gz")


def stored(*members: tuple[str, bytes]) -> bytes:
    return zipped(*members, method=zipfile.ZIP_STORED)


def kinds(tree: ArchiveTree) -> dict[str, str]:
    return {os.fsdecode(entry.path): entry.kind for entry in tree.list()}


def test_members_are_sorted_among_files_as_if_their_archive_were_a_folder(tmp_path: Path) -> None:
    """A folder sorts with its slash: a-b, a.dcm, a/x. So does an archive, whose name may begin another's."""
    folder = tmp_path / "folders"
    names = ["a.tar-1", "a.tar.gz-x", "a.tar!", "a.tar0", "b/c.tar+", "z"]
    archives = {"a.tar": tarred, "a.tar.gz": tgz, "b/c.tar": tarred, "zz.zip": zipped}
    members = [("in/x", b"1"), ("in-y", b"2"), ("in", b"3")]
    for root in (folder, tmp_path / "packed"):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"1")
    for name, pack in archives.items():
        (tmp_path / "packed" / name).write_bytes(pack(*members))
        for member, data in members[:2]:
            (folder / name / member).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / member).write_bytes(data)
    plain = [entry.path for entry in FileTree(str(folder)).list()]
    packed = [entry.path for entry in ArchiveTree(str(tmp_path / "packed")).list()]
    assert [path for path in packed if not path.endswith(b"/in")] == plain
    assert packed == sorted(packed)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_source_of_archives_keeps_the_contract_of_sources(tmp_path: Path) -> None:
    make_export(tmp_path / "files", 2, seed=4, defects=0.2, scale=0.05)
    found = [p for p in sorted((tmp_path / "files").rglob("*")) if p.is_file()][:6]
    members = [(p.relative_to(tmp_path).as_posix(), p.read_bytes()) for p in found]
    members.append(("__MACOSX/files/._IM1", b"\x00\x05\x16\x07" + bytes(100)))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.zip").write_bytes(zipped(*members))
    (tmp_path / "export" / "b.tgz").write_bytes(tgz(*members))
    assert_image_source(image_source(str(tmp_path / "export")), least=2)


def test_what_macos_leaves_in_a_zip_is_known_as_such(judge: Any, tmp_path: Path) -> None:
    from shardkit.build.scan import scan_entry
    from shardkit.config import Rules

    spec = next(spec for spec in _specs() if spec.defect == "")
    (tmp_path / "a.zip").write_bytes(zipped(("__MACOSX/dicom/._IM1", corruptions.apple_double(spec))))
    source = image_source(str(tmp_path))
    assert [scan_entry(source, entry, Rules()).reason for entry in source.list()] == ["apple_double"]


def _specs() -> Any:
    from shardkit.synthetic.export import plan_export

    return plan_export(3, seed=1, defects=0.0, scale=0.05)


@pytest.mark.parametrize("outer", ["zip", "stored", "tar", "tgz"])
def test_archives_in_archives_are_read_one_level_deep(tmp_path: Path, outer: str) -> None:
    third = zipped(("deep", b"1"), ("deeper", b"2"))
    inner = {
        "in/a.zip": zipped(("x", NOISE), ("third.zip", third)),
        "in/b.tar": tarred(("x", NOISE)),
        "in/c.tgz": tgz(("x", NOISE), ("y/z", NOISE[:50])),
        "in/cut.zip": zipped(("x", NOISE))[:-30],
        "in/empty.zip": zipped(),
        "in/named.zip": b"no archive",
        "x": b"plain",
    }
    pack = {"zip": zipped, "stored": stored, "tar": tarred, "tgz": tgz}[outer]
    name = {"stored": "o.zip"}.get(outer, f"o.{outer}")
    (tmp_path / name).write_bytes(pack(*inner.items()))
    tree = ArchiveTree(str(tmp_path))
    assert kinds(tree) == {
        f"{name}/in/a.zip/third.zip": "limit",
        f"{name}/in/a.zip/x": "file",
        f"{name}/in/b.tar/x": "file",
        f"{name}/in/c.tgz/x": "file",
        f"{name}/in/c.tgz/y/z": "file",
        f"{name}/in/cut.zip": "damaged",
        f"{name}/in/empty.zip": "no_members",
        f"{name}/in/named.zip": "file",
        f"{name}/x": "file",
    }
    unpacked = {entry.path: entry.unpacked for entry in tree.list()}
    assert unpacked[f"{name}/in/c.tgz/y/z".encode()] == b"in/y/z"
    tree = pickle.loads(pickle.dumps(tree))
    for path in (f"{name}/in/{one}/x".encode() for one in ("a.zip", "b.tar", "c.tgz")):
        assert tree.read(path) == NOISE
        assert tree.open(path, len(NOISE)).read() == NOISE
    assert tree.read(f"{name}/in/named.zip".encode()) == b"no archive"


def test_an_archive_in_an_archive_that_is_too_large_to_hold_is_not_unpacked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "NESTED", 1000)
    (tmp_path / "a.zip").write_bytes(zipped(("in.zip", zipped(("x", NOISE)))))
    assert kinds(ArchiveTree(str(tmp_path))) == {"a.zip/in.zip": "limit"}


def test_a_folder_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip" / "b.tar").mkdir(parents=True)
    (tmp_path / "a.zip" / "b.tar" / "x").write_bytes(b"1")
    (tmp_path / "a.zip" / "c.zip").write_bytes(zipped(("x", b"2")))
    tree = ArchiveTree(str(tmp_path))
    assert {entry.path: tree.read(entry.path) for entry in tree.list()} == {
        b"a.zip/b.tar/x": b"1",
        b"a.zip/c.zip/x": b"2",
    }
    (entry,) = [entry for entry in tree.list() if entry.unpacked]
    assert entry.unpacked == b"a.zip/x"


def test_members_that_would_have_the_path_of_others_are_one_entry(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("in.zip", zipped(("x", b"1"))), ("in.zip/x", b"2")))
    tree = ArchiveTree(str(tmp_path))
    assert kinds(tree) == {"a.zip/in.zip/x": "same_name"}


# --- buckets


@pytest.fixture(scope="module")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="archives")
    return "s3://archives"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes asked for, request by request."""
    found: list[int] = []
    ranged = obstore.get_range

    def counted(store: Any, path: str, *, start: int, length: int) -> Any:
        found.append(length)
        return ranged(store, path, start=start, length=length)

    monkeypatch.setattr(obstore, "get_range", counted)
    return found


@pytest.mark.parametrize("name", ["a.zip", "stored.zip", "a.tar", "a.tgz"])
def test_a_bucket_gives_what_a_folder_gives_with_a_request_a_member(
    bucket: str, tmp_path: Path, requests: list[int], name: str
) -> None:
    members = [(f"{number:03d}", os.urandom(300_000)) for number in range(12)]
    data = {"a.zip": zipped, "stored.zip": stored, "a.tar": tarred, "a.tgz": tgz}[name](*members)
    place = f"{bucket}/{name}"
    Store(place).put(name, data)
    (tmp_path / name).write_bytes(data)
    tree, local = (ArchiveTree(url, indexes=tmp_path / "indexes") for url in (place, str(tmp_path)))
    entries = list(tree.list())
    here = [entry for entry in local.list() if not entry.path.startswith(b"indexes")]
    assert entries == here
    listing = len(requests)
    assert listing <= {"a.zip": 2, "stored.zip": 2, "a.tar": 14, "a.tgz": 60}[name]
    tree.read(entries[0].path)  # opens the archive
    requests.clear()
    for entry in entries[1:]:
        assert tree.read(entry.path) == local.read(entry.path)
    if name != "a.tgz":
        assert len(requests) == len(entries) - 1
    requests.clear()
    with tree.open(entries[5].path, entries[5].size) as file:
        assert file.read(2000) == members[5][1][:2000]
    assert len(requests) <= 2


def test_an_archive_and_objects_below_its_name_are_told_apart(bucket: str) -> None:
    place = f"{bucket}/shadow"
    Store(place).put("a.zip", zipped(("x", b"1")))
    Store(place).put("a.zip/x", b"2")
    Store(place).put("b.zip", zipped(("x", b"3")))
    tree = ArchiveTree(place)
    assert kinds(tree) == {"a.zip": "same_name", "a.zip/x": "file", "b.zip/x": "file"}
    assert tree.read(b"a.zip/x") == b"2"
    assert tree.read(b"b.zip/x") == b"3"


# --- stores that go away


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While the list is not empty, no byte of an archive can be read: a share that is not there."""
    gone: list[bool] = []
    ask = readers.FileReader._local_bytes

    def local_bytes(self: Any, start: int, length: int) -> bytes:
        if gone:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return ask(self, start, length)

    monkeypatch.setattr(readers.FileReader, "_local_bytes", local_bytes)
    monkeypatch.setattr(files, "pause", lambda tries: 0)
    return gone


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_a_store_that_is_away_is_no_verdict_on_a_member(tmp_path: Path, away: list[bool], name: str) -> None:
    pack = {"a.zip": zipped, "a.tar": tarred, "a.tgz": tgz}[name]
    (tmp_path / name).write_bytes(pack(("x", LARGE), ("y", NOISE)))
    tree = ArchiveTree(str(tmp_path))
    for opened in (False, True):
        away.append(True)
        if not (opened and name == "a.tgz"):  # the last blocks that were read are at hand
            with pytest.raises(Unread):
                tree.read(f"{name}/y".encode())
        with pytest.raises(Unread):
            tree.open(f"{name}/x".encode(), len(LARGE)).read()
        away.clear()
        assert tree.read(f"{name}/y".encode()) == NOISE


def test_an_archive_whose_store_is_away_is_waited_for_in_the_listing(
    tmp_path: Path, away: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("x", NOISE)))
    tree = ArchiveTree(str(tmp_path))
    monkeypatch.setattr(FileTree, "answers", lambda self: False)
    monkeypatch.setattr(FileTree, "wait", lambda self: away.clear())
    away.append(True)
    assert kinds(tree) == {"a.zip/x": "file"}

    def ends(self: Any) -> None:
        raise StorageError("the store stays away")

    monkeypatch.setattr(FileTree, "wait", ends)
    away.append(True)
    with pytest.raises(StorageError, match="stays away"):
        kinds(tree)


def test_an_archive_that_only_fails_while_its_store_answers_is_one_file_that_cannot_be_read(
    tmp_path: Path, away: list[bool]
) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("x", NOISE)))
    (tmp_path / "b").write_bytes(b"1")
    away.append(True)
    assert kinds(ArchiveTree(str(tmp_path))) == {"a.zip": "file", "b": "file"}


def test_a_bucket_that_is_away_when_it_is_asked_for_more_objects_is_no_verdict(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(f"{bucket}/asked").put("a.zip", zipped(("x", NOISE)))
    tree = ArchiveTree(f"{bucket}/asked")

    def fails(self: Any, prefix: str) -> Any:
        raise Unanswered("the store is away")

    monkeypatch.setattr(Store, "list", fails)
    with pytest.raises(Unread):
        tree.read(b"a.zip/x")
    monkeypatch.undo()
    assert tree.read(b"a.zip/x") == NOISE


def test_a_private_folder_that_is_full_ends_the_listing_and_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(tarred(("x", NOISE)))

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(private, "folder", full)
    with pytest.raises(StorageError, match="no space left"):
        list(ArchiveTree(str(tmp_path), indexes=tmp_path / "indexes").list())


def test_entries_and_messages_show_no_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("Doe^Jane.dcm", NOISE)))
    tree = ArchiveTree(str(tmp_path))
    (entry,) = tree.list()
    assert "Doe" not in repr(entry)
    with pytest.raises(Quarantined) as caught:
        tree.read(b"a.zip/Doe^John.dcm")
    assert "Doe" not in str(caught.value)
    assert isinstance(entry, Entry)
