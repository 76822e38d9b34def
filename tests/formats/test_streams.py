"""Streams are checked to be the DICOM transfer syntax that dataset.json claims; datasets of before stay sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit import Loader, Packed
from shardkit.build.transcode import Target, transcode
from shardkit.codecs import htj2k
from shardkit.codecs.placement import Placement
from shardkit.dataset import contents, describing, manifest
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, Quarantined
from shardkit.formats.encoding import encode
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.plan_report import costs
from shardkit.storage import Store

COD, COM, TLM = (bytes.fromhex(marker) for marker in ("ff52000c", "ff64", "ff55"))
TARS = ("webdataset", "htj2k", 0, None)


def _describe(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / contents.NAME).read_text()) | changes
    (folder / contents.NAME).write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def _with_samples(folder: Path, samples: list[dict[str, Any]]) -> None:
    """Give a dataset another manifest that belongs to it."""
    table = pa.Table.from_pylist(samples, manifest.SCHEMA)
    _describe(folder, digest=manifest.write(table, Store(str(folder))))


def _replace(folder: Path, rows: list[dict[str, Any]], at: int, change: Callable[[bytearray], None]) -> str:
    """Change a member's bytes and its hashes with them; returns its key."""
    row = rows[at]
    path, start = folder / row["shard"], row["offset"]
    data = bytearray(path.read_bytes())
    stream = data[start : start + row["length"]]
    change(stream)
    data[start : start + row["length"]] = stream
    path.write_bytes(data)
    row["level_hash"] = [fingerprint(bytes(stream[:length])) for length in row["level_bytes"]]
    _with_samples(folder, rows)
    return str(row["key"])


def _set(marker: bytes, offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(stream: bytearray) -> None:
        at = stream.index(marker) + offset
        stream[at : at + len(value)] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(COD, 5, b"\x00"), "progression is not RPCL"),
        (_set(COD, 13, b"\x00"), "not the reversible one"),
        (_set(COD, 9, b"\x04"), "does not end after a tile-part for each resolution"),
        (_set(COD, 9, b"\x06"), "6 of 7 tile-parts are whole"),
        (_set(TLM, 0, COM), "do not list its tile-parts"),
        (_set(TLM, 10, b"\x01"), "do not list its tile-parts"),
        (_set(bytes.fromhex("ff50"), 0, COM), "not high-throughput"),
        (_set(bytes.fromhex("ff51"), 10, b"\x01"), "not one tile of"),
    ],
)
@pytest.mark.parametrize("decode", [False, True])
def test_a_stream_that_is_not_the_transfer_syntax_is_named_in_one_sentence(
    look: Any, copy: Path, change: Callable[[bytearray], None], words: str, decode: bool
) -> None:
    rows = look.rows(copy)
    key = _replace(copy, rows, 3, change)
    problems = look.problems(copy, decode)
    assert len(problems) == 1
    assert words in problems[0]
    assert f"{rows[3]['shard']}: member {key}.j2c at byte" in problems[0]
    assert "HTJ2K Lossless RPCL" in problems[0]
    assert "build the shard again" in problems[0]


def test_levels_that_the_manifest_does_not_record_are_found(look: Any, copy: Path) -> None:
    rows = look.rows(copy)
    rows[2]["level_bytes"], rows[2]["level_hash"] = rows[2]["level_bytes"][:-1], rows[2]["level_hash"][:-1]
    _with_samples(copy, rows)
    with pytest.raises(IntegrityError, match="row 2: htj2k has 5 to 32 levels"):
        look.problems(copy)


def test_what_the_encoder_makes_is_looked_at_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(htj2k, "levels", lambda height, width: 5)
    pixels = np.zeros((2049, 2100), np.uint16)
    with pytest.raises(Quarantined, match="more than 64 rows and columns"):
        encode(pixels, 12, Placement(*pixels.shape, *pixels.shape), "htj2k", 0)


# ---- datasets of before


@pytest.fixture(scope="module")
def before(large_and_small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as an earlier shardkit made it: five levels of every image, and no word of a transfer syntax."""
    out = tmp_path_factory.mktemp("before") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(htj2k, "_LOWEST", 1 << 15)
        transcode(str(large_and_small), Target(str(out), *TARS), 2)
    _describe(out, format=1, transfer_syntax=...)
    return out


def test_five_levels_of_a_large_image_are_no_damage_in_a_dataset_of_before(look: Any, before: Path) -> None:
    rows = look.rows(before)
    assert [len(row["level_bytes"]) for row in rows] == [6] * len(rows)
    assert max(min(row["height"], row["width"]) for row in rows) > 2048
    assert look.problems(before) == []


def test_they_are_where_the_dataset_claims_the_transfer_syntax(look: Any, before: Path, tmp_path: Path) -> None:
    shutil.copytree(before, tmp_path / "copy")
    _describe(tmp_path / "copy", transfer_syntax=htj2k.TRANSFER_SYNTAX)
    large = [row["key"] for row in look.rows(before) if min(row["height"], row["width"]) > 2048]
    problems = look.problems(tmp_path / "copy")
    assert len(problems) == len(large) == 2
    for key in large:
        assert sum(key in text and "more than 64 rows and columns" in text for text in problems) == 1


def test_a_dataset_of_before_is_named_no_transfer_syntax_until_it_is_converted(
    look: Any, before: Path, large_and_small: Path, tmp_path: Path
) -> None:
    table, new = contents.samples(Store(str(before))), contents.samples(Store(str(large_and_small)))
    for samples, claim in ((table, None), (pa.concat_tables([table, new]), None), (new, htj2k.TRANSFER_SYNTAX)):
        assert describing._transfer_syntax(samples, "htj2k") == claim
    assert describing._transfer_syntax(new, "png") is None
    transcode(str(before), Target(str(tmp_path / "new"), *TARS), 2)
    assert contents.description(Store(str(tmp_path / "new"))).transfer_syntax == htj2k.TRANSFER_SYNTAX
    assert look.problems(tmp_path / "new") == []
    bytes_of = {row["key"]: (row["level_bytes"], row["level_hash"]) for row in look.rows(large_and_small)}
    assert {row["key"]: (row["level_bytes"], row["level_hash"]) for row in look.rows(tmp_path / "new")} == bytes_of


# ---- readers of images with more levels than others


def test_large_images_beside_small_ones_have_more_levels(look: Any, large_and_small: Path) -> None:
    counts = {(row["height"], row["width"]): len(row["level_bytes"]) - 1 for row in look.rows(large_and_small)}
    assert counts == {(64, 72): 5, (640, 500): 5, (2049, 2049): 6, (2304, 2176): 6}
    assert look.problems(large_and_small) == []


@pytest.mark.parametrize("decoder", ["threads", "dali"])
@pytest.mark.parametrize("level", [0, 1, 5])
def test_a_loader_streams_the_levels_that_all_images_have(
    look: Any, large_and_small: Path, before: Path, level: int, decoder: Any
) -> None:
    batching = Packed(tokens=1 << 17 >> 2 * min(level, 3), patch=8, level=level, per_step=1)
    shown = {}
    for place in (large_and_small, before):
        rows, store = look.rows(place), Store(str(place))
        facts = contents.description(store)
        loader = Loader(place, batching=batching, split=None, normalise="none", device="cpu", decoder=decoder)
        for batch in loader:
            for at, row in enumerate(batch.rows.tolist()):
                if row >= 0:
                    image = batch.pixels(at).float().numpy()
                    np.testing.assert_array_equal(image, contents.image(store, rows[row], facts, level))
                    shown[place, rows[row]["key"]] = image
        found = costs(ManifestIndex(str(place)), loader.plan)
        assert found.range_bytes == sum(row["level_bytes"][level] for row in rows)
    for key in (row["key"] for row in look.rows(before)):
        np.testing.assert_array_equal(shown[large_and_small, key], shown[before, key])
    with pytest.raises(ArgumentError, match="it holds levels 0 to 5"):
        Loader(large_and_small, batching=Packed(tokens=512, patch=8, level=6), split=None, device="cpu")


def test_one_image_is_looked_at_down_to_its_own_last_level(look: Any, large_and_small: Path) -> None:
    store = Store(str(large_and_small))
    facts = contents.description(store)
    for row in look.rows(large_and_small):
        last = len(row["level_bytes"]) - 1
        sides = (-(-row["height"] >> last), -(-row["width"] >> last))
        assert contents.image(store, row, facts, last).shape == sides
        with pytest.raises(ArgumentError, match=f"levels 0 to {last}"):
            contents.image(store, row, facts, last + 1)
