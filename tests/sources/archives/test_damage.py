"""Whatever is done to an archive, each entry is one, in order, and is read or has a verdict; nothing else comes out."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.errors import Quarantined
from shardkit.sources.archives import ArchiveTree
from shardkit.sources.entries import Entry
from shardkit.triage import QUARANTINES

NOISE = np.random.default_rng(5).bytes(9000)
NAME = "Doe^Jane"  # in every member's name: no message may repeat it
MEMBERS = {
    f"{NAME}/IM1": NOISE,
    f"{NAME}/blank": bytes(60_000),
    f"{NAME}/empty": b"",
    f"{NAME}-{'long' * 40}": NOISE[:700],
}


def _zip(method: int, members: dict[str, bytes] = MEMBERS) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


def _tar(layout: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=layout) as file:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, f"{NAME}/IM1"
        file.addfile(link)
    return made.getvalue()


NESTED = _zip(zipfile.ZIP_STORED, {f"{NAME}.zip": _zip(zipfile.ZIP_DEFLATED), f"{NAME}.tgz": gzip.compress(_tar(1))})
SOUND = {
    "deflated.zip": _zip(zipfile.ZIP_DEFLATED),
    "bzip2.zip": _zip(zipfile.ZIP_BZIP2),
    "lzma.zip": _zip(zipfile.ZIP_LZMA),
    "nested.zip": NESTED,
    "gnu.tar": _tar(tarfile.GNU_FORMAT),
    "pax.tar": _tar(tarfile.PAX_FORMAT),
    "a.tar.gz": gzip.compress(_tar(tarfile.GNU_FORMAT)),
}
CONTENTS = {*MEMBERS.values(), _zip(zipfile.ZIP_DEFLATED), gzip.compress(_tar(1))}


EDIT = st.tuples(
    st.sampled_from(["flip", "write", "cut", "move", "insert"]),
    st.integers(-900, 900),
    st.booleans(),
    st.integers(0, 2000),
)
MEANINGFUL = [b"\0\0", b"\xff" * 4, b"\x01", b"PK\x05\x06", b"/../", b"7777", b"\x80", b"PK\x01\x02", b"\x1f\x8b"]


def damaged(sound: bytes, edits: list[tuple[str, int, bool, int]]) -> bytes:
    """An archive with bits flipped, bytes overwritten by those that mean something, cut, and with parts moved.

    Most lies near the start or the end, where headers and directories are.
    """
    data = bytearray(sound)
    for kind, place, anywhere, much in edits:
        at = place * 7919 % max(1, len(data)) if anywhere else max(0, place + len(data) if place < 0 else place)
        written = MEANINGFUL[much % len(MEANINGFUL)]
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << much % 8
        elif kind == "write":
            data[at : at + len(written)] = written
        elif kind == "cut":
            del data[at : len(data) if much % 2 else at + much]
        elif kind == "move":
            data[at:at] = data[much:][:1000]
        elif kind == "insert":
            data[at:at] = written * (much % 9)
    return bytes(data)


def assert_closed(folder: Path, name: str, sound: bool = False) -> None:
    tree = ArchiveTree(str(folder))
    entries = list(tree.list())
    paths = [entry.path for entry in entries]
    assert paths
    assert paths == sorted(set(paths))
    for entry in entries:
        verdict = _verdict(tree, entry, name)
        if verdict is not None:
            assert not sound
            assert verdict.reason in QUARANTINES
            assert NAME not in verdict.message
            assert "\n" not in verdict.message
            assert verdict.message


def _verdict(tree: ArchiveTree, entry: Entry, name: str) -> Quarantined | None:
    """Read an entry in both ways; return the verdict if that is how it ends."""
    try:
        entry.require_file()
        data = tree.read(entry.path)
        with tree.open(entry.path, entry.size) as file:
            again = file.read()
    except Quarantined as verdict:
        return verdict
    assert len(data) == entry.size
    in_zip = name.endswith("zip") and b".tgz/" not in entry.path  # a tar has no checksums
    wrong = again != data or (in_zip and entry.path != name.encode() and data not in CONTENTS)
    assert not wrong
    return None


@pytest.mark.parametrize("name", SOUND)
def test_sound_archives_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SOUND[name])
    assert_closed(tmp_path, name, sound=True)


@pytest.mark.parametrize("examples", [25, pytest.param(1500, marks=pytest.mark.deep)], ids=["some", "many"])
@pytest.mark.parametrize("name", SOUND)
def test_damage_ends_in_entries_and_verdicts(tmp_path_factory: Any, name: str, examples: int) -> None:
    folder = tmp_path_factory.mktemp("damaged")

    @settings(max_examples=examples, database=None, derandomize=True)
    @given(edits=st.lists(EDIT, min_size=1, max_size=4))
    def check(edits: list[tuple[str, int, bool, int]]) -> None:
        (folder / name).write_bytes(damaged(SOUND[name], edits))
        assert_closed(folder, name)

    check()


def test_a_claim_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """Sizes in every row of a directory, and in every header of a tar, become as large as their fields hold."""
    for name in ("deflated.zip", "gnu.tar"):
        data = bytearray(SOUND[name])
        at = data.find(b"PK\x01\x02") if name.endswith("zip") else 0
        while 0 <= at < len(data):
            if name.endswith("zip"):
                data[at + 20 : at + 28] = b"\xf0\xff\xff\x7e" * 2
                at = data.find(b"PK\x01\x02", at + 1)
            else:
                header = data[at : at + 512]
                header[124:136] = b"77777777777\0"
                header[148:156] = b" " * 8
                header[148:156] = b"%06o\0 " % sum(header)
                data[at : at + 512] = header
                break
        (tmp_path / name).write_bytes(bytes(data))
        tracemalloc.start()
        assert_closed(tmp_path, name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 << 20
        (tmp_path / name).unlink()
