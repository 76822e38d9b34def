"""The contract of shard formats, as a check for any: what is written is read, and what is damaged is told.

def test_my_format(tmp_path):
    assert_shard_format(my_format, tmp_path)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from shardkit import formats
from shardkit.codecs import codec
from shardkit.codecs.placement import Placement
from shardkit.dataset import manifest
from shardkit.dataset.bins import Bin, Bins
from shardkit.dataset.describing import describe
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint, pixel_hash
from shardkit.errors import IntegrityError
from shardkit.formats.base import Row, ShardFormat
from shardkit.formats.encoding import Encoded, encode
from shardkit.storage import Store

_BIN, _SIZES, _BITS = Bin(96, 64), ((96, 64), (1, 1), (33, 50), (80, 7)), 12
_SHARD_BYTES, _HALVES = 8 * 96 * 64, 2
_OUTSIDE = ("", "..", "../{}", "/{}", "{}/..", "{}\n", "{}.part", "./{}")


@dataclass(frozen=True, slots=True)
class _Made:
    """A shard in local files, the rows of its images, and what dataset.json would say."""

    paths: list[Path]
    rows: list[Row]
    images: list[tuple[Encoded, bytes]]
    description: DatasetDescription


def assert_shard_format(form: ShardFormat, tmp_path: Path) -> None:
    """Check that a format does all that `shardkit.formats.base` says.

    Names stay inside the dataset and lead back; every level of every image is found where it was written; `rewrite`
    makes the bytes that a writer would have; `verify` names damage and nothing else.

    Parameters
    ----------
    form : ShardFormat
        The module.
    tmp_path : Path
        An empty folder.

    Raises
    ------
    AssertionError
        It does not; the message says what is wrong.
    """
    for bin in (Bin(1, 9999), _BIN, Bin(65535, 100000)):
        for number in (0, 7, 99999, 123456789):
            _assert_names(form, bin, f"shards/{bin.name}/{number:05d}")
    made = _made(form, tmp_path, "made", _images(form))
    _assert_read_back(form, tmp_path / "dataset", made)
    _assert_rewrite_keeps(form, tmp_path, made)
    _assert_verify_tells(form, made)


def _assert_names(form: ShardFormat, bin: Bin, planned: str) -> None:
    names, what = form.objects(planned, _HALVES), f"{form.NAME}: {planned}"
    assert len(names) == (1 if form.NESTED else _HALVES + 1), f"{what} has objects {names}"
    assert len(set(names)) == len(names), f"{what}: two objects have one name"
    match = form.SHARD.fullmatch(names[0])
    assert match is not None, f"{what}: SHARD does not match its first object {names[0]}"
    assert match["bin"] == bin.name, f"{what}: SHARD finds bin {match['bin']}"
    for level, name in enumerate(names):
        assert form.OBJECT.fullmatch(name), f"{what}: OBJECT does not match {name}"
        assert name.startswith(form.FOLDER), f"{what}: {name} does not lie in FOLDER"
        assert form.part(names[0], level) == name, f"{what}: part(…, {level}) is not {name}"
        assert form.whole(name) == (names[0], level), f"{what}: whole({name!r}) is not ({names[0]!r}, {level})"
    for pattern in _OUTSIDE:
        other = pattern.format(names[0])
        assert not form.SHARD.fullmatch(other), f"{what}: SHARD takes {other!r} for a shard's name"


def _images(form: ShardFormat) -> list[tuple[int, int]]:
    room = form.capacity(_BIN, _SHARD_BYTES)
    assert room == 0 or room >= len(_SIZES), (
        f"{form.NAME}: a shard of {_SHARD_BYTES:,} bytes has room for {room} images"
    )
    return list(_SIZES)


def _made(form: ShardFormat, folder: Path, name: str, sizes: list[tuple[int, int]]) -> _Made:
    taken = formats.codecs_of(form)
    assert taken, f"{form.NAME} takes none of the codecs there are"
    halves, planned = 0 if form.NESTED else _HALVES, f"shards/{_BIN.name}/00007"
    objects, room = form.objects(planned, halves), form.capacity(_BIN, _SHARD_BYTES)
    paths, rows, images = formats.files(folder, name, len(objects)), list[Row](), list[tuple[Encoded, bytes]]()
    with form.writer(paths, room) as writer:
        for number, (height, width) in enumerate(sizes):
            pixels = np.random.default_rng(number).integers(0, 1 << _BITS, (height, width)).astype(np.uint16)
            image = encode(pixels, _BITS, Placement(height, width, _BIN.height, _BIN.width), taken[0], halves)
            row: dict[str, Any] = {
                "key": f"{number:04x}",
                "shard": objects[0],
                "height": height,
                "width": width,
                "bits": _BITS,
            }
            row |= {"bin_height": _BIN.height, "bin_width": _BIN.width, "pixel_hash": pixel_hash(pixels, _BITS)}
            row |= {"box_top": 0, "box_left": 0, "box_height": height, "box_width": width, "p0_5": 0, "p99_5": 4000}
            row |= {"min": int(pixels.min()), "max": int(pixels.max()), "split": "train", "length": len(image.image)}
            row |= {"level_bytes": [n for n, _ in image.levels], "level_hash": [digest for _, digest in image.levels]}
            facts = json.dumps({k: v for k, v in row.items() if isinstance(v, int | str)}).encode()
            row["json_hash"] = fingerprint(facts) if form.FACTS else None
            row["offset"] = writer.add(row["key"], codec(taken[0]).EXTENSION, image.image, facts, image.smaller)
            rows.append(cast(Row, row))
            images.append((image, facts))
    description = describe(
        pa.Table.from_pylist(rows, manifest.SCHEMA),
        Bins((_BIN,), 1),
        "0" * 64,
        format_name=form.NAME,
        codec_name=taken[0],
        fingerprint="0",
        arguments={"shard_bytes": _SHARD_BYTES, "levels": halves},
        verdicts={},
    )
    return _Made(paths, rows, images, description)


def _objects(form: ShardFormat, made: _Made) -> list[str]:
    shard = made.rows[0]["shard"]
    return [form.part(shard, level) for level in range(len(made.paths))]


def _assert_read_back(form: ShardFormat, folder: Path, made: _Made) -> None:
    store, samples = Store(str(folder)), pa.Table.from_pylist(made.rows, manifest.SCHEMA)
    formats.commit(store, _objects(form, made), made.paths)
    formats.fetch(store, _objects(form, made), made.paths)  # a local store takes the files themselves
    for name, content in (item for group in form.metadata(samples, made.description) for item in group):
        assert ".." not in name.split("/") and not name.startswith("/"), f"{form.NAME}: {name} leaves the dataset"  # noqa: PT018
        assert not form.OBJECT.fullmatch(name), f"{form.NAME}: metadata {name} has the name of a shard's object"
        assert form.same(name, content, content), f"{form.NAME}: {name} is not the same as itself"
        store.put(name, content)
    listed = sorted(name for name, _ in formats.listing(store, form))
    assert listed == sorted(_objects(form, made)), f"{form.NAME}: a dataset of one shard lists {listed}"
    offsets = np.array([row["offset"] for row in made.rows], np.int64)
    counts = min(len(row["level_bytes"]) for row in made.rows)
    lengths = np.array([row["level_bytes"][:counts] for row in made.rows], np.int64)
    starts = form.starts(offsets, lengths)
    for at, row in enumerate(made.rows):
        for level in range(counts):
            name, start = form.locate(store, row, level)
            what = f"{form.NAME}: level {level} of image {at}"
            assert name == form.part(row["shard"], level), f"{what} is located in {name}"
            assert start == starts[at, level], f"{what}: locate says byte {start}, starts {starts[at, level]}"
            data = store.get_range(name, start, row["level_bytes"][level])
            assert fingerprint(data) == row["level_hash"][level], f"{what} is not where it was written"


def _assert_rewrite_keeps(form: ShardFormat, folder: Path, made: _Made) -> None:
    room = form.capacity(_BIN, _SHARD_BYTES)
    kept, targets = [made.rows[at] for at in (0, 2)], formats.files(folder, "kept", len(made.paths))
    offsets = form.rewrite(made.paths, targets, kept, room)
    anew = formats.files(folder, "anew", len(made.paths))
    with form.writer(anew, room) as writer:
        wanted = [
            writer.add(made.rows[at]["key"], made.description.extension, image.image, facts, image.smaller)
            for at, (image, facts) in enumerate(made.images)
            if at in (0, 2)
        ]
    assert offsets == wanted, f"{form.NAME}: rewrite says offsets {offsets}, a writer {wanted}"
    same = [one.read_bytes() == other.read_bytes() for one, other in zip(targets, anew, strict=True)]
    assert all(same), f"{form.NAME}: rewrite made other bytes than a writer of the same images"
    lost: list[Row] = [
        kept[0],
        {**kept[1], "json_hash": bytes(16), "level_hash": [bytes(16)] * len(kept[1]["level_hash"])},
    ]
    try:
        form.rewrite(made.paths, formats.files(folder, "lost", len(made.paths)), lost, room)
    except IntegrityError:
        return
    raise AssertionError(f"{form.NAME}: rewrite found an image that is not there")


def _assert_verify_tells(form: ShardFormat, made: _Made) -> None:
    for level, (name, path) in enumerate(zip(_objects(form, made), made.paths, strict=True)):
        data = path.read_bytes()

        def told(data: bytes, rows: list[Row], name: str = name, level: int = level) -> list[str]:
            return list(form.verify(name, level, data, rows, made.description, True))

        found = told(data, made.rows)
        assert not found, f"{form.NAME}: verify has problems with a sound object: {found}"
        first = int(form.starts(np.array([0]), np.array([made.rows[0]["level_bytes"]]))[0, level])
        at = (made.rows[0]["offset"] if level == 0 else first) + made.rows[0]["level_bytes"][level] // 2
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        cases = {"a flipped bit": damaged, "half of it": data[: len(data) // 2], "nothing": b"", "zeros": bytes(4096)}
        for case, content in cases.items():
            assert told(content, made.rows), f"{form.NAME}: verify does not notice {case} in place of {name}"
        assert told(data, made.rows[:-1]), f"{form.NAME}: verify does not notice an image that the manifest lacks"
        other: list[Row] = [
            *made.rows[:-1],
            {**made.rows[-1], "level_hash": [bytes(16)] * len(made.rows[-1]["level_hash"])},
        ]
        assert told(data, other), f"{form.NAME}: verify does not notice another hash in the manifest"
