"""Zip archives: every member one entry with the bytes that were packed, or the reason why not."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import Quarantined
from shardkit.sources.archives import ArchiveTree, limits
from shardkit.sources.entries import Entry

DATA = os.urandom(3000) + bytes(3000)


def listed(folder: Path) -> dict[str, Entry]:
    return {os.fsdecode(entry.path): entry for entry in ArchiveTree(str(folder)).list()}


def kinds(folder: Path) -> dict[str, str]:
    return {path: entry.kind for path, entry in listed(folder).items()}


def read(folder: Path, path: str) -> bytes:
    return ArchiveTree(str(folder)).read(os.fsencode(path))


def refused(folder: Path, path: str) -> str:
    with pytest.raises(Quarantined) as caught:
        read(folder, path)
    return caught.value.reason


def make(path: Path, *members: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2}


@pytest.mark.parametrize("method", [*METHODS.values(), zipfile.ZIP_LZMA], ids=[*METHODS, "lzma"])
@pytest.mark.parametrize("name", ["a.zip", "A.ZIP"])
def test_members_are_read_whatever_they_are_packed_by(tmp_path: Path, method: int, name: str) -> None:
    make(tmp_path / name, ("in/x.dcm", DATA), ("empty", b""), ("in/", b""), method=method)
    found = listed(tmp_path)
    assert {path: (one.size, one.unpacked) for path, one in found.items()} == {
        f"{name}/empty": (0, b"empty"),
        f"{name}/in/x.dcm": (len(DATA), b"in/x.dcm"),
    }
    assert read(tmp_path, f"{name}/in/x.dcm") == DATA
    assert read(tmp_path, f"{name}/empty") == b""
    with ArchiveTree(str(tmp_path)).open(f"{name}/in/x.dcm".encode(), len(DATA)) as file:
        assert file.seek(-10, 2) == len(DATA) - 10
        assert file.read(100) == DATA[-10:]
        assert file.seek(2990) == 2990
        assert file.read(20) == DATA[2990:3010]
        assert file.read() == DATA[3010:]
        assert file.read(5) == b""


def test_an_archive_behind_a_program_and_one_with_a_comment_are_read(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.zip", ("x", DATA)).read_bytes()
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + bytes(70_000) + whole)
    with zipfile.ZipFile(make(tmp_path / "b.zip", ("x", DATA)), "a") as file:
        file.comment = b"PK\x05\x06" + b"c" * 60_000
    for name in ("a.zip", "b.zip"):
        assert kinds(tmp_path)[f"{name}/x"] == "file"
        assert read(tmp_path, f"{name}/x") == DATA


def test_streamed_members_and_sizes_of_64_bits_are_read(tmp_path: Path) -> None:
    """A data descriptor stands behind a member whose size was not known; 64-bit fields may be used for small sizes."""

    class Pipe:
        def __init__(self, path: Path) -> None:
            self.file = path.open("wb")

        def write(self, data: bytes) -> int:
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    pipe = Pipe(tmp_path / "a.zip")
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:  # type: ignore[call-overload]
        for name in ("x", "y"):
            with file.open(name, "w", force_zip64=True) as member:
                member.write(DATA)
    pipe.file.close()
    assert [read(tmp_path, f"a.zip/{name}") for name in ("x", "y")] == [DATA, DATA]


@pytest.mark.deep
def test_more_members_than_16_bits_count_are_listed(tmp_path: Path) -> None:
    """The end of the archive counts them modulo 65,536, as old programs do."""
    local = struct.Struct("<4s5H3L2H").pack(b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(b"1"), 1, 1, 6, 0)
    row, size, count = struct.Struct("<4s6H3L5H2L"), len(local) + 7, 66_000
    with (tmp_path / "a.zip").open("wb") as file:
        file.writelines(local + b"%06d1" % number for number in range(count))
        for number in range(count):
            facts = (0, 20, 0, 0, 0, 0, zlib.crc32(b"1"), 1, 1, 6, 0, 0, 0, 0, 0, number * size)
            file.write(row.pack(b"PK\1\2", *facts) + b"%06d" % number)
        some, length = count % (1 << 16), count * (row.size + 6)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, some, some, length, count * size, 0))
    found = listed(tmp_path)
    assert len(found) == count
    assert list(found) == sorted(found)
    assert read(tmp_path, "a.zip/065999") == b"1"


def test_names_that_lead_out_are_not_read_and_odd_ones_stay_bytes(tmp_path: Path) -> None:
    bad = ["/abs/x.png", "//host/x", "\\\\host\\x", "../x", "a/../../x", "C:/x", "C:\\x", "c:x", "..\\x", "a\\..\\x"]
    members = [(name, DATA) for name in bad]
    dos = zipfile.ZipInfo("dos\\x.dcm")
    dos.filename, dos.create_system = "dos\\x.dcm", 0
    unix = zipfile.ZipInfo("unix")
    unix.filename, unix.create_system = "back\\slash", 3
    make(tmp_path / "a.zip", *members, ("./b//x", DATA), ("\xfcber", DATA), (dos, DATA), (unix, DATA))
    raw = (tmp_path / "a.zip").read_bytes().replace("\xfcber".encode(), b"\xff\xfeer.")  # no UTF-8, as its flag says
    (tmp_path / "a.zip").write_bytes(raw)
    found = listed(tmp_path)
    assert {path for path, one in found.items() if one.kind == "unsafe_name"} == {f"a.zip/{name}" for name in bad}
    rest = {os.fsencode(path) for path, one in found.items() if one.kind == "file"}
    assert rest == {b"a.zip/b/x", b"a.zip/\xff\xfeer.", b"a.zip/dos/x.dcm", b"a.zip/back\\slash"}
    assert {read(tmp_path, os.fsdecode(path)) for path in rest} == {DATA}
    assert {refused(tmp_path, f"a.zip/{name}") for name in bad} == {"unsafe_name"}


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    members = []
    for name, mode in (("link", 0o120777), ("pipe", 0o010644)):
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        members.append((info, b"/etc/passwd"))
    make(tmp_path / "a.zip", *members)
    assert kinds(tmp_path) == {"a.zip/link": "symlink", "a.zip/pipe": "special"}


def test_two_members_of_one_name_are_one_entry_that_is_not_read(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        make(tmp_path / "a.zip", ("x", b"1"), ("x", b"2"), ("./y", b"1"), ("y", b"2"), ("z", b"3"))
    assert kinds(tmp_path) == {"a.zip/x": "same_name", "a.zip/y": "same_name", "a.zip/z": "file"}
    assert refused(tmp_path, "a.zip/x") == "archive_damaged"


def _patched(path: Path, name: bytes, **changes: int) -> None:
    """Overwrite fields of a member's row in the directory."""
    fields = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "packed": (20, "<L"), "size": (24, "<L"),
              "disk": (34, "<H"), "start": (42, "<L")}  # fmt: skip
    data = bytearray(path.read_bytes())
    row = data.index(b"PK\x01\x02")
    while data[row + 46 : row + 46 + len(name)] != name:  # a date, too, may hold the bytes of a short name
        row = data.index(b"PK\x01\x02", row + 1)
    for field, value in changes.items():
        offset, form = fields[field]
        struct.pack_into(form, data, row + offset, value)
    path.write_bytes(bytes(data))


def test_members_that_need_a_password_or_another_way_to_unpack_say_so(tmp_path: Path) -> None:
    make(tmp_path / "a.zip", ("secret", DATA), ("deflate64", DATA), ("sound", DATA))
    _patched(tmp_path / "a.zip", b"secret", flags=1)
    _patched(tmp_path / "a.zip", b"deflate64", method=9)
    assert kinds(tmp_path) == {"a.zip/secret": "encrypted", "a.zip/deflate64": "packing", "a.zip/sound": "file"}
    assert refused(tmp_path, "a.zip/secret") == "encrypted"
    assert refused(tmp_path, "a.zip/deflate64") == "archive_damaged"


@pytest.mark.parametrize(
    "changes",
    [{"crc": 1}, {"size": 6001}, {"size": 5999}, {"start": 10}, {"packed": 2000}],
    ids=["checksum", "too few", "too many", "place", "packed"],
)
@pytest.mark.parametrize("way", ["read", "open"])
def test_a_member_that_is_not_what_its_row_says_is_damaged(tmp_path: Path, changes: Any, way: str) -> None:
    make(tmp_path / "a.zip", ("first", b"1"), ("x", DATA), ("y", DATA))
    _patched(tmp_path / "a.zip", b"x", **changes)
    tree, entry = ArchiveTree(str(tmp_path)), listed(tmp_path)["a.zip/x"]
    with pytest.raises(Quarantined, match=r"pack it anew|copy it again") as caught:
        tree.read(entry.path) if way == "read" else tree.open(entry.path, entry.size).read()
    assert caught.value.reason == "archive_damaged"
    assert read(tmp_path, "a.zip/y") == DATA


def test_a_bomb_is_refused_by_what_it_claims_and_stopped_at_that(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "FREE", 1 << 20)
    make(tmp_path / "a.zip", ("bomb", bytes(4 << 20)), ("liar", bytes(4 << 20)), ("blank", bytes(1 << 20)))
    _patched(tmp_path / "a.zip", b"liar", size=1 << 19)
    assert kinds(tmp_path) == {"a.zip/bomb": "limit", "a.zip/liar": "file", "a.zip/blank": "file"}
    assert refused(tmp_path, "a.zip/bomb") == "archive_limit"
    assert refused(tmp_path, "a.zip/liar") == "archive_damaged"
    assert read(tmp_path, "a.zip/blank") == bytes(1 << 20)


def test_members_that_share_their_bytes_and_all_that_is_too_much_together_are_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    make(tmp_path / "a.zip", ("kernel", bytes(50_000)), ("same", bytes(50_000)))
    _patched(tmp_path / "a.zip", b"same", start=0)
    assert sorted(kinds(tmp_path).values()) == ["damaged", "file"]
    monkeypatch.setattr(limits, "ALL_FREE", 100_000)
    make(tmp_path / "a.zip", *((str(number), bytes(50_000)) for number in range(4)))
    assert sorted(kinds(tmp_path).values()) == ["file", "file", "limit", "limit"]


def test_an_archive_that_cannot_be_listed_is_one_entry(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.zip", ("x", DATA), ("y", DATA)).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    split, directory = bytearray(whole), bytearray(whole)
    struct.pack_into("<H", split, end + 4, 1)
    directory[whole.rindex(b"PK\x01\x02") + 1] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(whole[:-30])
    (tmp_path / "b.zip").write_bytes(bytes(split))
    (tmp_path / "c.zip").write_bytes(bytes(directory))
    make(tmp_path / "d.zip")
    (tmp_path / "e.zip").write_bytes(b"a report that is named like an archive")
    (tmp_path / "f.zip").write_bytes(b"")
    (tmp_path / "g.dat").write_bytes(whole)
    assert kinds(tmp_path) == {
        "a.zip": "damaged",
        "b.zip": "split",
        "c.zip": "damaged",
        "d.zip": "no_members",
        "e.zip": "file",
        "f.zip": "file",
        "g.dat": "file",
    }
    assert read(tmp_path, "g.dat") == whole
    assert refused(tmp_path, "a.zip/x") == "archive_damaged"


def test_an_archive_that_was_changed_since_is_a_file_that_changed(tmp_path: Path) -> None:
    tree = ArchiveTree(str(tmp_path))
    make(tmp_path / "a.zip", ("x", DATA))
    assert tree.read(b"a.zip/x") == DATA
    make(tmp_path / "a.zip", ("x", DATA[:100]), ("y", DATA))
    assert tree.read(b"a.zip/x") == DATA[:100]
    make(tmp_path / "a.zip", ("y", DATA))
    assert refused(tmp_path, "a.zip/x") == "io_error"
    (tmp_path / "a.zip").unlink()
    assert refused(tmp_path, "a.zip/x") == "io_error"


def test_the_checksum_is_that_of_all_bytes(tmp_path: Path) -> None:
    """A flipped bit in a stored member is found."""
    make(tmp_path / "a.zip", ("x", DATA), method=zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(DATA[:50]) + 2000] ^= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    assert zlib.crc32(DATA)
    assert refused(tmp_path, "a.zip/x") == "archive_damaged"
