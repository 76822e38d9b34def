"""Tars, compressed or not: one pass finds the members, each is read by itself, and damage is told apart."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.errors import Quarantined
from shardkit.sources.archives import ArchiveTree, gzips, limits, opening
from shardkit.sources.entries import Entry

NOISE = np.random.default_rng(3).bytes(200_000)


def kinds(folder: Path, **options: Any) -> dict[str, str]:
    return {os.fsdecode(entry.path): entry.kind for entry in ArchiveTree(str(folder), **options).list()}


def refused(folder: Path, path: str) -> str:
    with pytest.raises(Quarantined) as caught:
        ArchiveTree(str(folder)).read(os.fsencode(path))
    return caught.value.reason


def info(name: str, size: int = 0, **facts: Any) -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.size = size
    for key, value in facts.items():
        setattr(one, key, value)
    return one


def make(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], **options: Any) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **options) as file:
        for one, data in members:
            file.addfile(info(one, len(data)) if isinstance(one, str) else one, io.BytesIO(data))
    data = made.getvalue() if path.suffix.lower() == ".tar" else gzip.compress(made.getvalue())
    path.write_bytes(data)
    return data


LONG = "folder/" * 40 + "a name that no old header holds.dcm"


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "A.TAR.GZ"])
def test_members_are_read_whatever_wrote_the_archive(tmp_path: Path, layout: int, name: str) -> None:
    names = {"x": NOISE[:1000], "./in//y": NOISE, "empty": b"", "\xfcber/\u4e2d": NOISE[:512]}
    names |= {} if layout == tarfile.USTAR_FORMAT else {LONG: NOISE[:7]}
    folder = (info("folder", type=tarfile.DIRTYPE), b"")
    make(tmp_path / name, folder, *names.items(), format=layout)
    tree = ArchiveTree(str(tmp_path))
    found = {entry.path: entry for entry in tree.list()}
    wanted = {f"{name}/{one.replace('./', '').replace('//', '/')}".encode(): data for one, data in names.items()}
    assert {path: entry.size for path, entry in found.items()} == {path: len(data) for path, data in wanted.items()}
    assert list(found) == sorted(found)
    for path, data in wanted.items():
        assert found[path].unpacked == path.partition(b"/")[2]
        assert tree.read(path) == data
        with tree.open(path, len(data)) as file:
            assert file.seek(len(data) // 2) == len(data) // 2
            assert file.read() == data[len(data) // 2 :]


def test_names_may_be_bytes_of_any_kind(tmp_path: Path) -> None:
    make(tmp_path / "a.tar", (info("\udcff\udcfe.dcm", 3), b"abc"), format=tarfile.GNU_FORMAT)
    make(tmp_path / "b.tar", (info("x", 3, pax_headers={"path": "p" * 300}), b"abc"), format=tarfile.PAX_FORMAT)
    tree = ArchiveTree(str(tmp_path))
    paths = [entry.path for entry in tree.list()]
    assert paths == [b"a.tar/\xff\xfe.dcm", b"b.tar/" + b"p" * 300]
    assert {tree.read(path) for path in paths} == {b"abc"}


def test_hard_links_are_the_file_and_other_links_are_not_followed(tmp_path: Path) -> None:
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [
        ("file", b"abc"),
        (info("same", type=tarfile.LNKTYPE, linkname="./file"), b""),
        (info("lost", type=tarfile.LNKTYPE, linkname="gone"), b""),
        (info("soft", type=tarfile.SYMTYPE, linkname="file"), b""),
        (info("pipe", type=tarfile.FIFOTYPE), b""),
        (info("disk", type=tarfile.BLKTYPE), b""),
    ]
    make(tmp_path / "a.tar", *members)
    assert kinds(tmp_path) == {
        "a.tar/disk": "special",
        "a.tar/file": "file",
        "a.tar/lost": "damaged",
        "a.tar/pipe": "special",
        "a.tar/same": "file",
        "a.tar/soft": "symlink",
    }
    assert ArchiveTree(str(tmp_path)).read(b"a.tar/same") == b"abc"


def test_names_that_lead_out_or_stand_twice_are_not_read(tmp_path: Path) -> None:
    bad = ["/abs/x.png", "//host/x", "../x", "a/../../x", "C:\\x", "C:/x", "c:x"]
    make(tmp_path / "a.tar", *((name, b"1") for name in bad), ("twice", b"1"), ("./twice", b"2"), ("sound", b"3"))
    found = kinds(tmp_path)
    assert {path for path, kind in found.items() if kind == "unsafe_name"} == {f"a.tar/{name}" for name in bad}
    assert (found["a.tar/twice"], found["a.tar/sound"]) == ("same_name", "file")


def test_sparse_files_and_odd_types_are_named_and_passed(tmp_path: Path) -> None:
    facts = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse"}
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [
        (info("sparse", 512, pax_headers=facts), bytes(512)),
        (info("odd", 600, type=b"Z"), bytes(600)),
        ("sound", b"abc"),
    ]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as file:
        for one, data in members:
            file.addfile(info(one, len(data)) if isinstance(one, str) else one, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(made.getvalue())
    assert kinds(tmp_path) == {"a.tar/odd": "packing", "a.tar/sound": "file", "a.tar/sparse": "packing"}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_what_lies_before_a_cut_is_read_and_the_rest_is_one_entry(tmp_path: Path, name: str) -> None:
    whole = make(tmp_path / name, ("x", NOISE[:9000]), ("y", NOISE), ("z", NOISE))
    for share, before in ((0.9, {"x", "y"}), (0.3, {"x"})):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        found = kinds(tmp_path)
        assert {path for path, kind in found.items() if kind == "file"} == {f"{name}/{one}" for one in before}
        assert found[name] == "damaged"
        assert ArchiveTree(str(tmp_path)).read(f"{name}/x".encode()) == NOISE[:9000]


def test_a_cut_between_two_members_is_seen(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.tar", ("x", bytes(512)), ("y", bytes(512)))
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    assert kinds(tmp_path) == {"a.tar": "damaged", "a.tar/x": "file"}


def test_archives_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    first, second = (make(tmp_path / f"{name}.tar", (name, name.encode())) for name in "xy")
    for name, data in (("tar", first + second), ("tgz", gzip.compress(first) + gzip.compress(second))):
        (tmp_path / f"a.{name}").write_bytes(data)
        assert ArchiveTree(str(tmp_path)).read(f"a.{name}/y".encode()) == b"y"
    (tmp_path / "a.tar").write_bytes(first + b"what is this?" * 100)
    assert kinds(tmp_path)["a.tar"] == "damaged"
    assert kinds(tmp_path)["a.tar/x"] == "file"


@pytest.mark.parametrize("where", ["data", "checksum"])
def test_no_member_of_a_compressed_tar_that_is_damaged_is_trusted(tmp_path: Path, where: str) -> None:
    whole = bytearray(make(tmp_path / "a.tgz", ("x", NOISE), ("y", NOISE)))
    whole[len(whole) // 2 if where == "data" else -8] ^= 4
    (tmp_path / "a.tgz").write_bytes(bytes(whole))
    found = kinds(tmp_path)
    assert set(found.values()) == {"damaged"}
    assert found["a.tgz"] == "damaged"
    assert refused(tmp_path, "a.tgz/x") == "archive_damaged"


def test_a_header_of_any_length_has_a_limit(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "EXTENDED", 1000)
    make(tmp_path / "a.tar", ("x", b"1"), ("p" * 2000, b"2"), format=tarfile.GNU_FORMAT)
    assert kinds(tmp_path) == {"a.tar": "limit", "a.tar/x": "file"}


def test_members_that_are_too_many_are_the_rest(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "MEMBERS", 3)
    make(tmp_path / "a.tar", *((name, b"1") for name in "abcd"))
    make(tmp_path / "b.tar", *((name, b"1") for name in "abc"))
    found = kinds(tmp_path)
    assert found.pop("a.tar") == "limit"
    assert set(found) == {f"{archive}.tar/{name}" for archive in "ab" for name in "abc"}


@pytest.mark.parametrize("field", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"99999999999\0", b"-1\0"], ids=repr)
def test_sizes_that_nothing_can_have_end_the_listing(tmp_path: Path, field: bytes) -> None:
    whole = bytearray(make(tmp_path / "a.tar", ("x", b"1"), ("y", b"2")))
    header = whole[1024:1536]
    header[124:136] = field.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[1024:1536] = header
    (tmp_path / "a.tar").write_bytes(bytes(whole))
    found = kinds(tmp_path)
    assert found.pop("a.tar/y", "damaged") == "damaged"
    assert found == {"a.tar": "damaged", "a.tar/x": "file"}


def test_a_bomb_ends_the_listing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "ALL_FREE", 1 << 20)
    monkeypatch.setattr(limits, "RATIO", 10)
    make(tmp_path / "a.tgz", ("x", NOISE), ("bomb", bytes(1 << 24)), ("z", NOISE))
    found = kinds(tmp_path)
    assert found.pop("a.tgz/bomb", "damaged") == "damaged"
    assert found == {"a.tgz": "limit", "a.tgz/x": "file"}
    assert ArchiveTree(str(tmp_path)).read(b"a.tgz/x") == NOISE


def test_files_that_only_are_named_like_tars_are_files(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"a report")
    (tmp_path / "b.tgz").write_bytes(gzip.compress(NOISE))
    (tmp_path / "c.tar").write_bytes(b"")
    (tmp_path / "d.tar").write_bytes(bytes(10240))
    (tmp_path / "e.tar.gz").write_bytes(gzip.compress(NOISE)[:30])
    make(tmp_path / "f.tar.gz", ("x", NOISE))
    (tmp_path / "f.tar.gz").rename(tmp_path / "f.gz")
    expected = {"a.tar": "file", "b.tgz": "file", "c.tar": "file", "d.tar": "no_members", "e.tar.gz": "damaged"}
    assert kinds(tmp_path) == expected | {"f.gz": "file"}


def test_the_index_is_made_once_and_again_when_the_archive_changes(tmp_path: Path, monkeypatch: Any) -> None:
    passes: list[int] = []
    through = opening._through

    def counted(*given: Any, **options: Any) -> Any:
        passes.append(1)
        return through(*given, **options)

    monkeypatch.setattr(opening, "_through", counted)
    (tmp_path / "export").mkdir()
    archive, indexes = tmp_path / "export" / "a.tgz", tmp_path / "private" / "archives"

    def look() -> list[Entry]:
        return list(ArchiveTree(str(tmp_path / "export"), indexes=indexes).list())

    make(archive, ("x", NOISE), ("y", NOISE))
    first = look()
    assert look() == first
    child = ArchiveTree(str(tmp_path / "export"), indexes=indexes)
    assert child.read(b"a.tgz/y") == NOISE
    assert len(passes) == 1
    make(archive, ("x", NOISE), ("z", NOISE[:100]))
    assert [entry.path for entry in look()] == [b"a.tgz/x", b"a.tgz/z"]
    assert child.read(b"a.tgz/z") == NOISE[:100]
    assert len(passes) == 2
    for kept in indexes.iterdir():
        assert kept.stat().st_mode & 0o077 == 0
        kept.write_bytes(b"damaged")
    assert child.read(b"a.tgz/x") == NOISE
    assert ArchiveTree(str(tmp_path / "export")).read(b"a.tgz/x") == NOISE


def test_members_are_read_from_seek_points_not_from_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    """The packed bytes that a read of the last member takes are few."""
    monkeypatch.setattr(gzips, "_SPACING", 1 << 18)
    make(tmp_path / "a.tgz", *((f"{number:02d}", NOISE) for number in range(40)))
    tree = ArchiveTree(str(tmp_path), indexes=tmp_path.parent / f"{tmp_path.name}.indexes")
    entries = list(tree.list())
    taken: list[int] = []
    part = gzips._Noting.part

    def counted(self: Any, start: int, end: int) -> bytes:
        taken.append(end - start)
        return part(self, start, end)

    monkeypatch.setattr(gzips._Noting, "part", counted)
    assert tree.read(entries[-1].path) == NOISE
    assert sum(taken) < (tmp_path / "a.tgz").stat().st_size / 4


def test_large_numbers_in_headers_are_numbers(tmp_path: Path) -> None:
    whole = bytearray(make(tmp_path / "a.tar", ("x", NOISE[:700])))
    header = whole[:512]
    header[124:136] = b"\x80" + struct.pack(">Q", 700).rjust(11, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[:512] = header
    (tmp_path / "a.tar").write_bytes(bytes(whole))
    assert ArchiveTree(str(tmp_path)).read(b"a.tar/x") == NOISE[:700]
