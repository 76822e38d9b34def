"""Names, places and bytes of shards' objects: what other readers, and datasets of before, count on."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google_crc32c import value as crc32c

from shardkit.codecs import CODECS
from shardkit.dataset.bins import Bin
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import FORMATS, codecs_of, commit, fetch, files, keep, listing, remove, shard_format, zarr
from shardkit.formats import webdataset as tars
from shardkit.formats.base import ShardFormat
from shardkit.storage import Store

BIN = Bin(480, 96)
PLANNED = "shards/0480x0096/00012"

# ---- names


def test_a_tar_is_one_object_under_its_planned_name() -> None:
    assert tars.objects(PLANNED, 2) == [f"{PLANNED}.tar"]
    assert tars.part(f"{PLANNED}.tar", 2) == f"{PLANNED}.tar"
    assert tars.whole(f"{PLANNED}.tar") == (f"{PLANNED}.tar", 0)
    assert tars.capacity(BIN, 1 << 30) == 0
    nothing: Any = None
    assert tars.metadata(nothing, nothing) == []
    row: Any = {"shard": f"{PLANNED}.tar", "offset": 512}
    assert tars.locate(nothing, row, 2) == (f"{PLANNED}.tar", 512)
    assert tars.starts(np.array([0, 512]), np.array([[9, 3], [8, 2]])).tolist() == [[0, 0], [512, 512]]


def test_zarr_has_an_object_a_level_and_finds_back_to_the_whole() -> None:
    names = zarr.objects(PLANNED, 2)
    assert names == ["0480x0096/pixels/c/12/0/0", "0480x0096/pixels_1/c/12/0/0", "0480x0096/pixels_2/c/12/0/0"]
    assert [zarr.part(names[0], level) for level in range(3)] == names
    assert [zarr.whole(name) for name in names] == [(names[0], level) for level in range(3)]
    lengths = np.array([[9, 3], [8, 2], [7, 1]])
    assert zarr.starts(np.array([0, 9, 17]), lengths).tolist() == [[0, 0], [9, 3], [17, 5]]


@pytest.mark.parametrize("kind", FORMATS.values())
@pytest.mark.parametrize("number", [0, 7, 99999, 123456789])
@pytest.mark.parametrize("bin", [Bin(1, 9999), Bin(480, 96), Bin(65535, 100000)], ids=lambda bin: bin.name)
def test_names_that_are_planned_are_those_that_manifests_may_hold(kind: ShardFormat, number: int, bin: Bin) -> None:
    names = kind.objects(f"shards/{bin.name}/{number:05d}", 2)
    match = kind.SHARD.fullmatch(names[0])
    assert match
    assert match["bin"] == bin.name
    assert all([form for form in FORMATS.values() if form.OBJECT.fullmatch(name)] == [kind] for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "shards/0480x0096/00012.tar.gz", "shards/0480x0096/00012-tar", "shards/0480x0096/12.tar", "00012.tar",
        "shards/480x96/00012.tar", "shards/0480x0096/../00012.tar", "/shards/0480x0096/00012.tar",
        "shards/0480x0096/00012.tar\n", "shards/0480x0096/0000000012.tar", "shards/0000480x0096/00012.tar",
        "0480x0096/pixels/c/012/0/0", "0480x0096/pixels/c/12/0/1", "0480x0096/pixels/c/12/1/0",
        "0480x0096/pixels_1/c/12/0/0", "../0480x0096/pixels/c/12/0/0", "0480x0096/pixels/c/1234567890/0/0",
        "480x96/pixels/c/12/0/0", "0480x0096/pixels/c/-1/0/0", "0480x0096/pixels/c/12/0/0/..",
    ],
)  # fmt: skip
def test_other_names_are_no_shards_of_any_format(name: str) -> None:
    assert not any(form.SHARD.fullmatch(name) for form in FORMATS.values())


def test_formats_are_known_by_name_and_what_they_offer() -> None:
    assert shard_format("webdataset") is tars
    assert shard_format("zarr") is zarr
    with pytest.raises(ArgumentError, match="unknown format 'tfrecord': choose one of webdataset, zarr"):
        shard_format("tfrecord")
    whole = [name for name, how in CODECS.items() if not how.NEEDS_PLACEMENT]
    assert whole[:3] == ["htj2k", "png", "raw"]
    assert (codecs_of(tars), tars.FACTS, tars.NESTED) == (whole, True, True)
    assert (codecs_of(zarr), zarr.FACTS, zarr.NESTED) == (["blosc"], False, False)


# ---- places


@pytest.mark.parametrize(
    ("bin", "shard_bytes", "room"),
    [(Bin(100, 50), 4999, 1), (Bin(100, 50), 9999, 1), (Bin(100, 50), 10000, 2), (Bin(1, 1), 1 << 30, 4096),
     (Bin(8, 8), 64 * 4095, 4095)],
)  # fmt: skip
def test_a_zarr_shard_has_room_for_its_size_at_half_of_the_pixels_and_an_index_of_64_kib(
    bin: Bin, shard_bytes: int, room: int
) -> None:
    assert zarr.capacity(bin, shard_bytes) == room
    assert zarr.index_bytes(room) == 16 * room + 4 <= (64 << 10) + 4


def test_an_index_is_little_endian_pairs_with_all_ones_where_there_is_none(tmp_path: Path) -> None:
    with zarr.writer([tmp_path / "0", tmp_path / "1"], 3) as writer:
        assert writer.add("", "", b"abcde", b"", [b"xy"]) == 0
        assert writer.add("", "", b"fgh", b"", [b"z"]) == 5
    index = struct.pack("<6Q", 0, 5, 5, 3, 2**64 - 1, 2**64 - 1)
    data = (tmp_path / "0").read_bytes()
    assert data == b"abcdefgh" + index + crc32c(index).to_bytes(4, "little")
    small = (tmp_path / "1").read_bytes()
    assert zarr.read_index(small[3:], 3, "x").tolist() == [[0, 2], [2, 1], [-1, -1]]


def test_a_writer_that_fails_leaves_no_index_that_would_make_its_files_whole(tmp_path: Path) -> None:
    def write(smaller: list[bytes]) -> None:
        with zarr.writer([tmp_path / "0"], 2) as writer:
            writer.add("", "", b"abcde", b"")
            writer.add("", "", b"fgh", b"", smaller)

    with pytest.raises(ValueError, match="argument"):  # more levels than files
        write([b"x"])
    assert (tmp_path / "0").read_bytes() == b"abcdefgh"
    write([])
    assert len((tmp_path / "0").read_bytes()) == 8 + zarr.index_bytes(2)
    with pytest.raises(OSError, match="none"):
        zarr.writer([tmp_path / "0", tmp_path / "none" / "1"], 2)


def test_an_index_that_is_cut_or_altered_is_named() -> None:
    index = struct.pack("<2Q", 0, 5)
    tail = index + crc32c(index).to_bytes(4, "little")
    assert zarr.read_index(tail, 1, "x").tolist() == [[0, 5]]
    for bad, words in ((tail[1:], "cut short"), (b"x" + tail, "cut short"), (b"\1" + tail[1:], "checksum")):
        with pytest.raises(IntegrityError, match=f"^x: .*{words}"):
            zarr.read_index(bad, 1, "x")
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


# ---- a level found through the indices


NODE = {"chunk_grid": {"configuration": {"chunk_shape": [4, 8, 8]}}}


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """Three images of two levels in a shard of four places, in no dataset."""
    store, names = Store(str(tmp_path / "set")), zarr.objects(PLANNED, 1)
    paths = files(tmp_path, "local", 2)
    with zarr.writer(paths, 4) as writer:
        for image in (b"aaaaa", b"bbb", b"cccc"):
            writer.add("", "", image, b"", [image[:2]])
    commit(store, names, paths)
    for name in names:
        store.put(f"{name.partition('/c/')[0]}/zarr.json", json.dumps(NODE).encode())
    return store


def _row(offset: int) -> Any:
    return {"key": "k7", "shard": f"{BIN.name}/pixels/c/12/0/0", "offset": offset}


def test_a_level_lies_in_the_place_of_its_image(small: Store) -> None:
    for offset, smaller in ((0, 0), (5, 2), (8, 4)):
        assert zarr.locate(small, _row(offset), 0) == (f"{BIN.name}/pixels/c/12/0/0", offset)
        assert zarr.locate(small, _row(offset), 1) == (f"{BIN.name}/pixels_1/c/12/0/0", smaller)
    nowhere: Any = None  # without a look at the store
    assert zarr.locate(nowhere, _row(0), 0)[1] == 0
    for offset in (1, 12, -1):  # -1 is what the index has of a place without an image
        with pytest.raises(IntegrityError, match=r"pixels_1/c/12/0/0 does not hold the image k7: run verify"):
            zarr.locate(small, _row(offset), 1)


def _nodes() -> list[bytes]:
    shapes: list[Any] = [0, -4, 4097, 10**30, "x", None, [], {}]
    made = [json.dumps({"chunk_grid": {"configuration": {"chunk_shape": [one, 8, 8]}}}).encode() for one in shapes]
    texts = [b"", b"{", b"[]", b"3", b'{"chunk_grid": 3}', b'{"chunk_grid": {"configuration": {"chunk_shape": []}}}']
    return [*made, *texts, b"[" * 100_000]


@pytest.mark.parametrize("node", _nodes(), ids=lambda node: node[:60].decode())
def test_an_array_s_metadata_that_tell_no_number_of_places_are_named(small: Store, node: bytes) -> None:
    small.put(f"{BIN.name}/pixels/zarr.json", node)
    with pytest.raises(IntegrityError, match=r"0480x0096/pixels/zarr\.json is damaged: run verify"):
        zarr.locate(small, _row(0), 1)


def test_a_shard_may_have_one_place(tmp_path: Path) -> None:
    store, names, paths = Store(str(tmp_path / "set")), zarr.objects(PLANNED, 1), files(tmp_path, "one", 2)
    with zarr.writer(paths, 1) as writer:
        writer.add("", "", b"aaaaa", b"", [b"bb"])
    commit(store, names, paths)
    for name in names:
        text = json.dumps({"chunk_grid": {"configuration": {"chunk_shape": [1, 8, 8]}}})
        store.put(f"{name.partition('/c/')[0]}/zarr.json", text.encode())
    assert zarr.locate(store, _row(0), 1) == (names[1], 0)


def test_metadata_beyond_a_mebibyte_are_not_read(small: Store) -> None:
    text = json.dumps(NODE).encode()
    small.put(f"{BIN.name}/pixels/zarr.json", text + b" " * ((1 << 20) - len(text)))
    zarr.locate(small, _row(0), 1)
    small.put(f"{BIN.name}/pixels/zarr.json", text + b" " * ((1 << 20) - len(text) + 1))
    with pytest.raises(IntegrityError):
        zarr.locate(small, _row(0), 1)


def test_a_shard_shorter_than_its_index_is_cut_short(small: Store) -> None:
    small.put(f"{BIN.name}/pixels/c/12/0/0", b"short")
    with pytest.raises(IntegrityError, match="cut short"):
        zarr.locate(small, _row(0), 1)


# ---- whole shards


def test_objects_appear_with_the_first_last_and_vanish_with_it_first(tmp_path: Path) -> None:
    done: list[str] = []

    class Watched(Store):
        def put_file(self, name: str, path: Path) -> None:
            done.append(f"put {name}")
            super().put_file(name, path)

        def delete(self, name: str) -> None:
            done.append(f"delete {name}")
            super().delete(name)

    store, names, paths = Watched(str(tmp_path / "set")), zarr.objects(PLANNED, 1), files(tmp_path, "x", 2)
    for path in paths:
        path.write_bytes(path.name.encode())
    with pytest.raises(ValueError, match="shorter"):  # nothing of a shard that lacks a file appears
        commit(store, names, paths[:1])
    assert done == []
    commit(store, names, paths)
    assert [(name, store.get(name)) for name in names] == [(names[0], b"x-0"), (names[1], b"x-1")]
    assert sorted(listing(store, zarr)) == [(name, 3) for name in names]
    store.put("zarr.json", b"{}")
    store.put("elsewhere/0480x0096/pixels/c/12/0/0", b"")
    assert sorted(listing(store, zarr)) == [(name, 3) for name in names]
    back = files(tmp_path, "y", 2)
    fetch(store, names, back)
    assert [path.read_bytes() for path in back] == [b"x-0", b"x-1"]
    remove(store, names)
    assert done == [f"put {names[1]}", f"put {names[0]}", f"delete {names[0]}", f"delete {names[1]}"]


def test_a_shard_that_keeps_some_samples_tells_their_rows_where_they_lie(tmp_path: Path) -> None:
    with tars.writer([tmp_path / "old"], 0) as writer:
        for key in "abc":
            writer.add(key, "j2c", key.encode() * 700, key.encode())
    rows: Any = [{"key": key, "json_hash": fingerprint(key.encode()), "offset": -1} for key in "bc"]
    assert keep(tars, [tmp_path / "old"], [tmp_path / "new"], rows, 0) == [tmp_path / "new"]
    data = (tmp_path / "new").read_bytes()
    assert [data[row["offset"] :][:700] for row in rows] == [b"b" * 700, b"c" * 700]
    with pytest.raises(IntegrityError, match="the shard of b has lost samples: remove it and run the build again"):
        keep(tars, [tmp_path / "new"], [tmp_path / "newer"], rows + [dict(row) for row in rows[:1]], 0)


@pytest.mark.parametrize("lost", ["a.j2c", "b.j2c"])
def test_a_sample_whose_image_is_lost_is_not_given_the_image_before_it(tmp_path: Path, lost: str) -> None:
    with tars.writer([tmp_path / "whole"], 0) as writer:
        for key in "ab":
            writer.add(key, "j2c", key.encode() * 700, key.encode())
    with (tmp_path / "whole").open("rb") as file, tars.writer([tmp_path / "old"], 0) as writer:
        for member in tars.members(file, "whole"):
            if member.name != lost:
                writer.copy(member)
    rows: Any = [{"key": key, "json_hash": fingerprint(key.encode())} for key in "ab"]
    with pytest.raises(IntegrityError, match="has lost samples"):
        tars.rewrite([tmp_path / "old"], [tmp_path / "new"], rows, 0)


def test_a_tar_has_no_room_for_smaller_images(tmp_path: Path) -> None:
    with tars.writer([tmp_path / "x"], 0) as writer, pytest.raises(ArgumentError, match="choose htj2k, or Zarr"):
        writer.add("a", "png", b"x", b"{}", [b"y"])


# ---- bytes as they always were


def test_a_tar_has_the_bytes_that_it_always_had(tmp_path: Path) -> None:
    with tars.writer([tmp_path / "x"], 0) as writer:
        assert writer.add("a", "raw", b"a" * 511, b"{}") == 512
        assert writer.add("b", "raw", b"b" * 513, b"{}") == 2560
    data = (tmp_path / "x").read_bytes()
    assert hashlib.sha256(data).hexdigest()[:16] == "84dbb9a14f4b3fcb"
    with (tmp_path / "x").open("rb") as file:
        found = list(tars.members(file, "x"))
    assert [(m.name, m.key, m.offset, len(m.data)) for m in found] == [
        ("a.raw", "a", 512, 511), ("a.json", "a", 1536, 2), ("b.raw", "b", 2560, 513), ("b.json", "b", 4096, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_a_member_that_is_no_plain_file_is_refused(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a" * 300)
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(IntegrityError, match=r"^x: member a{200} is no file; the shard is not shardkit's$"):
        list(tars.members(buffer, "x"))


def test_a_member_that_ends_beyond_the_file_is_cut_short() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a" * 210)
        info.size = 100
        tar.addfile(info, io.BytesIO(bytes(100)))
    whole = buffer.getvalue()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        at = tar.getmembers()[0].offset_data
    assert len(next(tars.members(io.BytesIO(whole[: at + 100]), "x")).data) == 100
    with pytest.raises(IntegrityError, match=r"^x: cut short inside a{200}$"):
        list(tars.members(io.BytesIO(whole[: at + 99]), "x"))
