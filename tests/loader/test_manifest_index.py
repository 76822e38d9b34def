"""A catalog tells what the manifest says, of the dataset as it was when opened, or in one sentence what is wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shardkit.dataset import contents, manifest
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError, StorageError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.storage import Store

NUMBERS = ("bits", "min", "max", "mean", "std", "p0_5", "p99_5", "height", "width", "bin_height", "bin_width")


@pytest.fixture(scope="module")
def rows(dataset_folder: Path) -> list[dict[str, Any]]:
    return list(contents.samples(Store(str(dataset_folder))).to_pylist())


@pytest.fixture(scope="module")
def bucket(moto: str, dataset_folder: Path) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="catalogs")
    store = Store("s3://catalogs/set")
    for path in (path for path in dataset_folder.rglob("*") if path.is_file()):
        store.put(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    return store.url


@pytest.fixture(params=["folder", "bucket"], scope="module")
def url(request: pytest.FixtureRequest, dataset_folder: Path) -> str:
    return str(dataset_folder if request.param == "folder" else request.getfixturevalue("bucket"))


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Path:
    """dataset.json and manifest alone, for a test to change."""
    for name in (contents.NAME, manifest.NAME):
        shutil.copy(dataset_folder / name, tmp_path / name)
    return tmp_path


def _rewrite(folder: Path, change: Callable[[pa.Table], pa.Table], announce: bool = True, **options: Any) -> None:
    """Change the manifest's table, as small row groups; and the digest that dataset.json names."""
    table = change(pq.ParquetFile(folder / manifest.NAME).read())
    digest = manifest.write(table, Store(str(folder)))
    written = pq.ParquetFile(folder / manifest.NAME)
    pq.write_table(written.read(), folder / manifest.NAME, write_page_checksum=True, **options)
    if announce:
        _describe(folder, digest=digest)


def _describe(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / contents.NAME).read_text())
    (folder / contents.NAME).write_text(json.dumps({**content, **changes}))


def _one_sentence(error: BaseException) -> bool:
    text = str(error)
    return bool(text) and "\n" not in text and len(text) < 500


def _everything(catalog: ManifestIndex) -> list[Any]:
    """All that a catalog tells of every sample."""
    out: list[Any] = []
    for row in range(catalog.rows):
        detail = catalog.detail(row)
        levels = range(catalog.levels + 1)
        out.append((detail.key, detail.start(0), [(detail.prefix(k), detail.hash(k)) for k in levels]))
        out.append([detail.number(name) for name in NUMBERS])
    return [*out, *(catalog.contents(shard) for shard in catalog.shards), catalog.samples(None).height.tolist()]


# ---- what it says


def test_every_row_is_told_as_the_manifest_has_it(url: str, rows: list[dict[str, Any]]) -> None:
    catalog = ManifestIndex(url)
    assert catalog.rows == len(rows)
    assert catalog.codec == "htj2k"
    assert catalog.levels == len(rows[0]["level_bytes"]) - 1 > 2
    for number in random.Random(0).sample(range(len(rows)), len(rows)):
        detail, row = catalog.detail(number), rows[number]
        assert (detail.key, detail.start(0), detail.shard.shard) == (row["key"], row["offset"], row["shard"])
        for level, (length, digest) in enumerate(zip(row["level_bytes"], row["level_hash"], strict=True)):
            assert (detail.prefix(level), detail.hash(level)) == (length, digest)
        assert [detail.number(name) for name in NUMBERS] == [float(row[name]) for name in NUMBERS]


def test_shards_are_told_in_order_with_their_rows_and_sizes(url: str, rows: list[dict[str, Any]]) -> None:
    catalog, store = ManifestIndex(url), Store(url)
    assert catalog.shards == list(dict.fromkeys(row["shard"] for row in rows))
    for number, shard in enumerate(catalog.shards):
        first, end = catalog.shard_starts[number : number + 2]
        assert [row["shard"] == shard for row in rows] == [first <= i < end for i in range(len(rows))]
    assert catalog.shard_bytes([0]) == {shard: len(store.get(shard)) for shard in catalog.shards}


def test_contents_of_a_shard_are_its_images(url: str, rows: list[dict[str, Any]]) -> None:
    catalog, store = ManifestIndex(url), Store(url)
    for shard in catalog.shards:
        data, members = store.get(shard), catalog.contents(shard).members
        assert members == [(r["offset"], r["length"], r["level_hash"][0]) for r in rows if r["shard"] == shard]
        assert all(fingerprint(data[at : at + size]) == digest for at, size, digest in members)
    assert len({catalog.contents(shard).id for shard in catalog.shards}) == len(catalog.shards)


def test_samples_of_all_splits_and_of_each(url: str, rows: list[dict[str, Any]]) -> None:
    catalog = ManifestIndex(url)
    everything = catalog.samples(None)
    assert everything.digest == catalog.digest
    assert everything.height.dtype == np.uint16
    for name in ("height", "width"):
        assert getattr(everything, name).tolist() == [row[name] for row in rows]
    assert everything.box is not None
    box = [[row[f"box_{side}"] for side in ("top", "left", "height", "width")] for row in rows]
    assert everything.box.tolist() == box
    digests = {everything.digest}
    for split in sorted({row["split"] for row in rows}):
        chosen = catalog.samples(split)
        assert chosen.row(np.arange(len(chosen))).tolist() == [i for i, r in enumerate(rows) if r["split"] == split]
        digests.add(chosen.digest)
    assert len(digests) == 1 + len({row["split"] for row in rows})


@pytest.mark.parametrize("kind", ["arrow", "numpy", "list"])
def test_where_takes_the_rows_it_holds_for(dataset_folder: Path, rows: list[dict[str, Any]], kind: str) -> None:
    def where(table: pa.Table) -> Any:
        assert table.column_names == ["height", "view"]
        tall = pc.greater(table["height"], 160)
        return {"arrow": tall, "numpy": tall.to_numpy(), "list": tall.to_pylist()}[kind]

    chosen = ManifestIndex(str(dataset_folder)).samples(None, where, ("height", "view"))
    expected = [i for i, row in enumerate(rows) if row["height"] > 160]
    assert 0 < len(expected) < len(rows)
    assert chosen.row(np.arange(len(chosen))).tolist() == expected
    train = ManifestIndex(str(dataset_folder)).samples("train", where, ("height", "view"))
    assert train.row(np.arange(len(train))).tolist() == [i for i in expected if rows[i]["split"] == "train"]


def test_a_null_is_not_taken(dataset_folder: Path, rows: list[dict[str, Any]]) -> None:
    name = next(name for name in rows[0] if 0 < sum(row[name] is None for row in rows) < len(rows))
    chosen = ManifestIndex(str(dataset_folder)).samples(None, lambda table: pc.equal(table[name], table[name]), (name,))
    assert len(chosen) == sum(row[name] is not None for row in rows)


def test_a_selection_of_nothing_names_the_splits(url: str) -> None:
    catalog = ManifestIndex(url)
    for split, where in (("holdout", None), ("train", lambda table: np.zeros(catalog.rows, bool))):
        with pytest.raises(ArgumentError, match=rf"no sample in split '{split}' .*train \d+") as caught:
            catalog.samples(split, where)
        assert _one_sentence(caught.value)


def test_a_filter_that_cannot_be_is_refused(dataset_folder: Path) -> None:
    catalog = ManifestIndex(str(dataset_folder))
    with pytest.raises(ArgumentError, match="has no column colour, taste"):
        catalog.samples(None, lambda table: table["taste"], ("height", "taste", "colour"))
    for given in (np.bool_(True), np.ones(3, bool)):
        with pytest.raises(ArgumentError, match="where gave values of shape") as caught:
            catalog.samples(None, lambda _, given=given: given, ("height",))
        assert _one_sentence(caught.value)


def test_ids_change_with_any_image_and_with_nothing_else(copy: Path) -> None:
    before = ManifestIndex(str(copy))
    shard = before.shards[2]
    first, end = (int(row) for row in before.shard_starts[2:4])
    for row in range(first, end):

        def change(table: pa.Table, row: int = row) -> pa.Table:
            hashes = table["level_hash"].to_pylist()
            hashes[row][0] = bytes([hashes[row][0][0] ^ 1]) + hashes[row][0][1:]
            at = table.schema.get_field_index("level_hash")
            return table.set_column(at, table.schema.field(at), pa.array(hashes, table.schema.field(at).type))

        _rewrite(copy, change)
        after = ManifestIndex(str(copy))
        assert after.contents(shard).id != before.contents(shard).id
        others = [name for name in before.shards if name != shard]
        assert [after.contents(name).id for name in others] == [before.contents(name).id for name in others]
        before = after


@pytest.mark.parametrize("size", [1, 3, 7])
def test_row_groups_and_shards_need_not_agree(copy: Path, dataset_folder: Path, size: int) -> None:
    _rewrite(copy, lambda table: table, row_group_size=size)
    assert _everything(ManifestIndex(str(copy))) == _everything(ManifestIndex(str(dataset_folder)))


def test_details_are_the_same_from_many_threads(
    dataset_folder: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.loader.manifest_index._KEPT_SHARDS", 3)
    catalog, wrong = ManifestIndex(str(dataset_folder)), list[Any]()

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(150):
            number = draw.randrange(len(rows))
            try:
                if catalog.detail(number).key != rows[number]["key"]:
                    wrong.append(number)
                if draw.random() < 0.05:
                    catalog.columns("height")
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(catalog._details) == 3


# ---- a snapshot


def test_a_build_that_appends_changes_nothing_of_an_open_catalog(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    from shardkit.synthetic.export import make_export

    make_export(tmp_path / "more", 5, seed=6, defects=0.0, scale=0.08)
    files = sorted(path for path in (tmp_path / "more").rglob("*") if path.is_file())
    for path in files[: len(files) // 2]:
        (tmp_path / "export").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "export" / f"{path.stat().st_ino}.dcm")
    out = make_dataset(tmp_path / "export", tmp_path / "out", bins="auto:2", shard_bytes=64 << 10)
    catalog, control = ManifestIndex(str(out)), ManifestIndex(str(out))
    before = _everything(control)
    for path in files[len(files) // 2 :]:
        shutil.copy(path, tmp_path / "export" / f"{path.stat().st_ino}.dcm")
    make_dataset(tmp_path / "export", out, bins="auto:2", shard_bytes=64 << 10)
    after = ManifestIndex(str(out))
    assert after.rows > catalog.rows
    assert after.digest != catalog.digest
    assert _everything(catalog) == before


def test_a_dataset_in_a_bucket_that_is_replaced_changes_nothing_of_an_open_catalog(bucket: str) -> None:
    store, catalog = Store(bucket), ManifestIndex(bucket)
    before, content = _everything(ManifestIndex(bucket)), store.get(manifest.NAME)
    store.put(manifest.NAME, b"another")
    try:
        assert _everything(catalog) == before
    finally:
        store.put(manifest.NAME, content)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def _opened(below: Path) -> list[str]:
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]  # noqa: PTH115
    return [path for path in links if path.startswith(f"{below}/")]


def test_an_open_catalog_leaves_no_temporary_file_and_a_closed_one_no_space(url: str, scratch: Path) -> None:
    catalog = ManifestIndex(url)
    catalog.details(0)
    assert list(scratch.iterdir()) == []
    assert len(_opened(scratch)) == url.startswith("s3://")
    catalog.close()
    assert _opened(scratch) == []


def test_a_manifest_that_is_too_large_for_temporary_files_is_one_sentence(bucket: str, scratch: Path) -> None:
    full = tempfile.TemporaryFile

    class Full:
        def __init__(self, **options: Any) -> None:
            self.file = full(**options)

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.file.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", Full)
        with pytest.raises(StorageError, match=f"{scratch}: no space left") as caught:
            ManifestIndex(bucket)
    assert _one_sentence(caught.value)
    assert _opened(scratch) == []


# ---- what is wrong


def _refused(folder: Path, kind: type[ShardkitError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        ManifestIndex(str(folder))
    assert _one_sentence(caught.value)
    assert _opened(folder) == []


def test_no_dataset_and_no_manifest_are_named(copy: Path, tmp_path: Path, url: str) -> None:
    (copy / manifest.NAME).unlink()
    _refused(copy, IntegrityError, rf"{copy} has no manifest.parquet: copy the dataset again")
    (copy / contents.NAME).unlink()
    _refused(copy, ArgumentError, rf"{copy} is no shardkit dataset")
    with pytest.raises(ShardkitError, match=f"{url}/shards is no shardkit dataset"):
        ManifestIndex(f"{url}/shards")


def test_a_bucket_without_its_manifest_is_named(bucket: str) -> None:
    store = Store("s3://catalogs/half")
    store.put(contents.NAME, Store(bucket).get(contents.NAME))
    with pytest.raises(IntegrityError, match=r"s3://catalogs/half has no manifest\.parquet"):
        ManifestIndex(store.url)


def test_a_manifest_of_another_dataset_is_refused(copy: Path) -> None:
    _describe(copy, digest="0" * 64)
    _refused(copy, IntegrityError, r"manifest.parquet does not belong to dataset.json: .* run it again")


def test_a_manifest_that_names_no_digest_is_refused_with_what_to_do(copy: Path) -> None:
    table = pq.ParquetFile(copy / manifest.NAME).read().replace_schema_metadata(None)
    pq.write_table(table, copy / manifest.NAME)
    _refused(copy, IntegrityError, r"manifest.parquet names no digest: .* build the dataset anew")


def test_a_manifest_whose_shards_are_scattered_is_refused(copy: Path) -> None:
    _rewrite(copy, lambda table: table.take(np.r_[0 : table.num_rows : 2, 1 : table.num_rows : 2]))
    _refused(copy, IntegrityError, "rows of a shard do not lie together")


@pytest.mark.parametrize("wrong", [[1 << 40, -1, 32768], [5], [0] * 6, [-1] * 6])
def test_lengths_of_levels_that_cannot_be_are_refused_where_only_they_are_read(copy: Path, wrong: list[int]) -> None:
    def change(table: pa.Table) -> pa.Table:
        lengths = [wrong, *table["level_bytes"].to_pylist()[1:]]
        at = table.schema.get_field_index("level_bytes")
        return table.set_column(at, table.schema.field(at), pa.array(lengths, table.schema.field(at).type))

    _rewrite(copy, change)
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
def test_a_damaged_manifest_is_one_sentence(copy: Path, how: str) -> None:
    path = copy / manifest.NAME
    data = path.read_bytes()
    flipped = _flipped(path, "shard")
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"hello" * 99, "page": flipped}[how])
    _refused(copy, IntegrityError, rf"{copy}/manifest.parquet is damaged: copy the dataset again, or build it anew")


def test_a_page_that_is_damaged_later_is_one_sentence_then(copy: Path) -> None:
    """The columns that tell of images are read shard by shard, long after the start."""
    damaged = _flipped(copy / manifest.NAME, "level_hash")
    catalog = ManifestIndex(str(copy))
    (copy / manifest.NAME).write_bytes(damaged)
    assert catalog.columns("height").num_rows == catalog.rows
    for read in (lambda: catalog.detail(0), lambda: catalog.contents(catalog.shards[-1])):
        with pytest.raises(IntegrityError, match=r"manifest\.parquet is damaged") as caught:
            read()
        assert _one_sentence(caught.value)


def test_no_flipped_bit_gives_wrong_values_or_another_error(copy: Path, dataset_folder: Path) -> None:
    path = copy / manifest.NAME
    data, right, draw = path.read_bytes(), _everything(ManifestIndex(str(dataset_folder))), random.Random(0)
    noticed = list[ShardkitError]()
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            assert _everything(ManifestIndex(str(copy))) == right  # the bit is one that a loader has no use for
        except ShardkitError as error:
            noticed.append(error)
    assert len(noticed) > 10
    assert all(map(_one_sentence, noticed))


def test_a_missing_shard_is_named(dataset_folder: Path, copy: Path) -> None:
    shutil.copytree(dataset_folder / "shards", copy / "shards")
    catalog = ManifestIndex(str(copy))
    (copy / catalog.shards[1]).unlink()
    with pytest.raises(IntegrityError, match=f"{catalog.shards[1]} is missing") as caught:
        catalog.shard_bytes([0])
    assert _one_sentence(caught.value)
