"""Zarr shards are what other readers and writers of Zarr have; what is wrong with one is found and named."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from google_crc32c import value as crc32c
from zarr.codecs import BloscCodec

from shardkit.codecs import blosc
from shardkit.codecs.placement import Placement
from shardkit.dataset import contents
from shardkit.dataset.bins import Bin
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import IntegrityError
from shardkit.formats import zarr as shards
from shardkit.formats import zarr_arrays
from shardkit.storage import Store

pytestmark = pytest.mark.formats("zarr")
LEVELS = 2


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A reader that warns of what it reads would be read as a reason not to."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)  # what other tests left open may be collected just now
        warnings.simplefilter("default", pytest.PytestUnraisableExceptionWarning)
        yield


def _places(group: Any) -> dict[str, int]:
    return {key: place for place, key in enumerate(group["key"][:].tolist()) if key}


def _groups(place: Path) -> Iterable[tuple[str, Any]]:
    return zarr.open_group(str(place), mode="r").groups()


def _check(groups: Iterable[tuple[str, Any]], place: Path, rows: list[Any]) -> None:
    """The arrays of the groups hold every sample of the manifest, and nothing else."""
    store, seen = Store(str(place)), 0
    facts = contents.description(store)
    for name, group in groups:
        places, valid = _places(group), group["valid"][:]
        mine = [row for row in rows if f"{row['bin_height']:04d}x{row['bin_width']:04d}" == name]
        assert sorted(places) == sorted(row["key"] for row in mine)
        assert sorted(np.flatnonzero(valid).tolist()) == sorted(places.values())
        assert group["pixels"].shape[0] == len(valid)
        for row in mine:
            at = places[row["key"]]
            for column in ("height", "width", "bits", "split", "p0_5", "p99_5"):
                assert group[column][at] == row[column]
            assert group["body_part"][at] == (row["body_part"] or "")
            for level in range(LEVELS + 1):
                pixels = contents.image(store, row, facts, level)
                bin = group[zarr_arrays.array_name(level)][at]
                assert bin.dtype == np.uint16
                padding = [(0, have - want) for have, want in zip(bin.shape, pixels.shape, strict=True)]
                np.testing.assert_array_equal(bin, np.pad(pixels, padding))
            seen += 1
        for at in np.flatnonzero(~valid).tolist():
            assert not group["pixels"][at].any()
    assert seen == len(rows)


# ---- readers that are not ours


def test_zarr_opens_it_and_finds_every_image_in_its_place(look: Any, place: Path) -> None:
    _check(zarr.open_group(str(place), mode="r").groups(), place, look.rows(place))


def test_zarr_opens_it_without_consolidated_metadata_too(look: Any, place: Path) -> None:
    root = zarr.open_group(str(place), mode="r", use_consolidated=False)
    names = {row["shard"].partition("/")[0] for row in look.rows(place)}
    _check([(name, root[name]) for name in sorted(names)], place, look.rows(place))


def test_zarr_opens_it_in_a_bucket_through_obstore(look: Any, place: Path, moto: str) -> None:
    import boto3
    import obstore
    from zarr.storage import ObjectStore

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="arrays")
    remote = Store("s3://arrays/set")
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        remote.put(path.relative_to(place).as_posix(), path.read_bytes())
    store = ObjectStore(obstore.store.from_url("s3://arrays/set"), read_only=True)
    _check(zarr.open_group(store, mode="r").groups(), place, look.rows(place))
    row = look.rows(place)[0]
    for level in range(LEVELS + 1):  # ours, through the index in the bucket
        here, there = (contents.image(s, row, contents.description(s), level) for s in (Store(str(place)), remote))
        np.testing.assert_array_equal(here, there)


def test_xarray_opens_a_bin_with_named_dimensions(look: Any, place: Path) -> None:
    for name, group in _groups(place):
        with xarray.open_zarr(str(place), group=name) as opened:
            assert opened["pixels"].dims == ("image", "row", "column")
            assert opened["pixels_1"].dims == ("image", "row_1", "column_1")
            assert {"key", "split", "valid", "height", "width"} <= set(opened.coords)
            np.testing.assert_array_equal(opened["pixels"][0].values, group["pixels"][0])
            chosen = opened["pixels"][np.flatnonzero(opened["valid"].values)]
            assert len(chosen) == int(group["valid"][:].sum())


def test_zarr_writes_the_images_that_we_read(tmp_path: Path) -> None:
    """Another writer's shard of the same array, with places left out, through our reader of indices."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 4096, (3, 50, 40)).astype(np.uint16)
    config = blosc.CONFIGURATION
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(4, 50, 40), chunks=(1, 50, 40), shards=(4, 50, 40), dtype="uint16", fill_value=0,
        compressors=BloscCodec(**config),
    )  # fmt: skip
    array[:3] = images
    data = (tmp_path / "a" / "c" / "0" / "0" / "0").read_bytes()
    index = shards.read_index(data[-shards.index_bytes(4) :], 4, "a")
    assert index[3].tolist() == [-1, -1]
    placement = Placement(50, 40, 50, 40)
    for image, (start, length) in zip(images, index, strict=False):
        np.testing.assert_array_equal(blosc.decode(data[start : start + length], 0, 12, placement), image)
    node = json.loads((tmp_path / "a" / "zarr.json").read_text())
    rows = zarr_arrays.BinRows(Bin(50, 40), None, np.arange(4), 4)
    ours = zarr_arrays._pixels(rows, 0)["pixels"]
    assert {k: v for k, v in ours.items() if k != "dimension_names"} == {k: node[k] for k in node}


# ---- writing


def test_a_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_rewrite_leaves_out_images_at_every_level_and_may_be_repeated(tmp_path: Path) -> None:
    def write(name: str, images: list[bytes]) -> list[Path]:
        paths = [tmp_path / f"{name}{level}" for level in range(2)]
        with shards.writer(paths, 4) as writer:
            for image in images:
                writer.add("", "", image, b"", [image[: len(image) // 2]])
        return paths

    def row(image: bytes) -> Any:
        return {"key": "k", "level_hash": [fingerprint(image), fingerprint(image[: len(image) // 2])]}

    images = [bytes([n]) * (10 + n) for n in range(4)]
    old, wanted = write("old", images), write("wanted", [images[0], images[3]])
    new, again = ([tmp_path / f"{name}{level}" for level in range(2)] for name in ("new", "again"))
    assert shards.rewrite(old, new, [row(images[0]), row(images[3])], 4) == [0, 10]
    assert [p.read_bytes() for p in new] == [p.read_bytes() for p in wanted]
    # A crash may leave one level rewritten and the other not.
    assert shards.rewrite([old[0], new[1]], again, [row(images[0]), row(images[3])], 4) == [0, 10]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in wanted]
    with pytest.raises(IntegrityError, match="lost"):
        shards.rewrite(new, again, [row(images[1])], 4)


def test_a_shard_has_room_for_a_fixed_number_of_its_bin_s_images(look: Any, place: Path) -> None:
    arguments = contents.description(Store(str(place))).arguments
    for name, group in _groups(place):
        room = max(1, arguments["shard_bytes"] // (int(name[:4]) * int(name[5:])))
        assert group["pixels"].shards[0] == group["pixels_2"].shards[0] == room
        assert group["pixels"].chunks[0] == 1


# ---- verify


@pytest.mark.parametrize("level", range(LEVELS + 1))
def test_a_flipped_byte_of_any_level_is_found(look: Any, copy: Path, level: int) -> None:
    name, rows = look.fullest(copy)
    path = copy / shards.part(name, level)
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(bytes(data))
    (problem,) = look.problems(copy)
    assert shards.part(name, level) in problem
    assert rows[0]["key"] in problem


@pytest.mark.parametrize("level", range(LEVELS + 1))
@pytest.mark.parametrize("damage", ["index", "checksum", "cut", "longer", "missing"])
def test_a_damaged_index_is_named(look: Any, copy: Path, damage: str, level: int) -> None:
    name, _ = look.fullest(copy)
    path = copy / shards.part(name, level)
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[{"index": -10, "checksum": -1}.get(damage, 0)] ^= damage in ("index", "checksum")
        damaged = {"cut": bytes(data[:-30]), "longer": bytes(b"x" + data)}
        path.write_bytes(damaged.get(damage, bytes(data)))
    problems = look.problems(copy)
    assert len(problems) == 1
    assert shards.part(name, level) in problems[0]


@pytest.mark.parametrize("name", ["zarr.json", "pixels/zarr.json", "key/zarr.json", "key/c/0", "height/c/0"])
@pytest.mark.parametrize("damage", ["edited", "missing"])
def test_arrays_that_do_not_follow_from_the_manifest_are_named(look: Any, copy: Path, name: str, damage: str) -> None:
    bin = look.rows(copy)[0]["shard"].partition("/")[0]
    path = copy / bin / name
    if damage == "missing":
        path.unlink()
    elif name.endswith("json"):
        path.write_text(path.read_text().replace('"zarr_format": 3', '"zarr_format": 2', 1))
    else:
        values = bytearray(blosc.decompress(path.read_bytes()))
        values[5] ^= 1
        path.write_bytes(blosc.compress(np.frombuffer(bytes(values), np.uint8)))
    (problem,) = look.problems(copy)
    assert f"{bin}/{name}" in problem


@pytest.mark.parametrize("name", ["zarr.json", "key/c/0"])
def test_an_object_far_larger_than_it_can_be_is_named_and_not_read(look: Any, copy: Path, name: str) -> None:
    path = copy / look.rows(copy)[0]["shard"].partition("/")[0] / name
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        (problem,) = look.problems(copy)
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()
    assert f"{path.relative_to(copy)}: cannot be read" in problem
    assert "has 1,073,741,824 bytes, more than it can have" in problem


def test_a_level_that_the_index_does_not_place_is_an_integrity_error(look: Any, copy: Path) -> None:
    row, store = look.rows(copy)[0], Store(str(copy))
    path = copy / shards.part(row["shard"], 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IntegrityError, match=r"pixels_1/c/.* index"):
        contents.image(store, row, contents.description(store), 1)
