"""A dataset that is not whole, or whose manifest is damaged, is refused in one sentence that says what is wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.dataset import contents, manifest
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.storage import Store


def _refused(manifests: Any, folder: Path, kind: type[ShardkitError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        ManifestIndex(str(folder))
    assert manifests.one_sentence(caught.value)
    assert manifests.opened(folder) == []


def test_no_dataset_and_no_manifest_are_named(manifests: Any, copy: Path, tmp_path: Path, url: str) -> None:
    (copy / manifest.NAME).unlink()
    _refused(manifests, copy, IntegrityError, rf"{copy} has no manifest.parquet: copy the dataset again")
    (copy / contents.NAME).unlink()
    _refused(manifests, copy, ArgumentError, rf"{copy} is no shardkit dataset")
    with pytest.raises(ShardkitError, match=f"{url}/shards is no shardkit dataset"):
        ManifestIndex(f"{url}/shards")


def test_a_bucket_without_its_manifest_is_named(bucket: str) -> None:
    store = Store("s3://catalogs/half")
    store.put(contents.NAME, Store(bucket).get(contents.NAME))
    with pytest.raises(IntegrityError, match=r"s3://catalogs/half has no manifest\.parquet"):
        ManifestIndex(store.url)


def test_a_manifest_of_another_dataset_is_refused(manifests: Any, copy: Path) -> None:
    manifests.describe(copy, digest="0" * 64)
    _refused(manifests, copy, IntegrityError, r"manifest.parquet does not belong to dataset.json: .* run it again")


def test_a_manifest_that_names_no_digest_is_refused_with_what_to_do(manifests: Any, copy: Path) -> None:
    table = pq.ParquetFile(copy / manifest.NAME).read().replace_schema_metadata(None)
    pq.write_table(table, copy / manifest.NAME)
    _refused(manifests, copy, IntegrityError, r"manifest.parquet names no digest: .* build the dataset anew")


def test_a_manifest_whose_shards_are_scattered_is_refused(manifests: Any, copy: Path) -> None:
    manifests.rewrite(copy, lambda table: table.take(np.r_[0 : table.num_rows : 2, 1 : table.num_rows : 2]))
    _refused(manifests, copy, IntegrityError, "rows of a shard do not lie together")


def _with(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values, at = table[name].to_pylist(), table.schema.get_field_index(name)
    return table.set_column(
        at, table.schema.field(at), pa.array([*values[:row], value, *values[row + 1 :]], table.schema.field(at).type)
    )


@pytest.mark.parametrize("place", ["first", "inside", "last"])
@pytest.mark.parametrize(
    ("name", "wrong", "match"),
    [
        ("bin_height", 60_000, "is not one that dataset.json lists"),
        ("split", "training", "its split is none of"),
        ("shard", "shards/none.tar", "its shard names an object outside"),
    ],
)
def test_one_wrong_row_is_named_wherever_it_lies_in_its_shard(
    manifests: Any, copy: Path, name: str, wrong: Any, match: str, place: str
) -> None:
    starts = ManifestIndex(str(copy)).shard_starts
    shard = int(np.argmax(np.diff(starts)))
    first, end = int(starts[shard]), int(starts[shard + 1])
    row = {"first": first, "inside": (first + end) // 2, "last": end - 1}[place]
    assert end - first > 2
    manifests.rewrite(copy, lambda table: _with(table, name, row, wrong))
    _refused(manifests, copy, IntegrityError, f"row {row:,}: .*{match}")


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_row_in_another_listed_bin_than_its_shards_is_named(manifests: Any, copy: Path, place: int) -> None:
    table = pq.ParquetFile(copy / manifest.NAME).read()
    shards, sides = table["shard"].to_pylist(), [table[f"bin_{side}"].to_pylist() for side in ("height", "width")]
    largest = max(range(len(shards)), key=lambda n: sides[0][n] * sides[1][n])
    rows = [n for n, shard in enumerate(shards) if shard != shards[largest] and shards.count(shard) > 2]
    row = [n for n in rows if shards[n] == shards[rows[0]]][place]
    for side, of in zip(("height", "width"), sides, strict=True):
        manifests.rewrite(copy, lambda table, name=f"bin_{side}", value=of[largest]: _with(table, name, row, value))
    _refused(manifests, copy, IntegrityError, f"row {row:,}: its shard is another bin's")


@pytest.mark.parametrize("wrong", [[1 << 40, -1, 32768], [5], [0] * 6, [-1] * 6])
def test_lengths_of_levels_that_cannot_be_are_refused_where_only_they_are_read(
    manifests: Any, copy: Path, wrong: list[int]
) -> None:
    def change(table: pa.Table) -> pa.Table:
        lengths = [wrong, *table["level_bytes"].to_pylist()[1:]]
        at = table.schema.get_field_index("level_bytes")
        return table.set_column(at, table.schema.field(at), pa.array(lengths, table.schema.field(at).type))

    manifests.rewrite(copy, change)
    catalog = ManifestIndex(str(copy))
    with pytest.raises(IntegrityError, match=r"row 0: .*level"):
        catalog.columns("level_bytes")


def _flipped(path: Path, name: str) -> bytes:
    """The manifest with a wrong bit in the middle of a column."""
    group, data = pq.ParquetFile(path).metadata.row_group(0), bytearray(path.read_bytes())
    columns = [group.column(i) for i in range(group.num_columns)]
    (column,) = [column for column in columns if column.path_in_schema.partition(".")[0] == name]
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    data[start + column.total_compressed_size // 2] ^= 4
    return bytes(data)


@pytest.mark.parametrize("how", ["empty", "cut", "text", "page"])
def test_a_damaged_manifest_is_one_sentence(manifests: Any, copy: Path, how: str) -> None:
    path = copy / manifest.NAME
    data = path.read_bytes()
    flipped = _flipped(path, "shard")
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"hello" * 99, "page": flipped}[how])
    _refused(
        manifests,
        copy,
        IntegrityError,
        rf"{copy}/manifest.parquet is damaged: copy the dataset again, or build it anew",
    )


def test_a_page_that_is_damaged_later_is_one_sentence_then(manifests: Any, copy: Path) -> None:
    """The columns that tell of images are read shard by shard, long after the start."""
    damaged = _flipped(copy / manifest.NAME, "level_hash")
    catalog = ManifestIndex(str(copy))
    (copy / manifest.NAME).write_bytes(damaged)
    assert catalog.columns("height").num_rows == catalog.rows
    for read in (lambda: catalog.detail(0), lambda: catalog.contents(catalog.shards[-1])):
        with pytest.raises(IntegrityError, match=r"manifest\.parquet is damaged") as caught:
            read()
        assert manifests.one_sentence(caught.value)


def test_no_flipped_bit_gives_wrong_values_or_another_error(manifests: Any, copy: Path, dataset_folder: Path) -> None:
    path = copy / manifest.NAME
    data, right, draw = path.read_bytes(), manifests.everything(ManifestIndex(str(dataset_folder))), random.Random(0)
    noticed = list[ShardkitError]()
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            assert (
                manifests.everything(ManifestIndex(str(copy))) == right
            )  # the bit is one that a loader has no use for
        except ShardkitError as error:
            noticed.append(error)
    assert len(noticed) > 10
    assert all(map(manifests.one_sentence, noticed))


def test_a_missing_shard_is_named(manifests: Any, dataset_folder: Path, copy: Path) -> None:
    shutil.copytree(dataset_folder / "shards", copy / "shards")
    catalog = ManifestIndex(str(copy))
    (copy / catalog.shards[1]).unlink()
    with pytest.raises(IntegrityError, match=f"{catalog.shards[1]} is missing") as caught:
        catalog.shard_bytes([0])
    assert manifests.one_sentence(caught.value)
