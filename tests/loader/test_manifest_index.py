"""A catalog tells what the manifest says, of the dataset as it was when opened, or in one sentence what is wrong."""

from __future__ import annotations

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
import pytest

from shardkit.dataset import contents, manifest
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, StorageError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.storage import Store


@pytest.fixture(scope="module")
def rows(dataset_folder: Path) -> list[dict[str, Any]]:
    return list(contents.samples(Store(str(dataset_folder))).to_pylist())


# ---- what it says


def test_every_row_is_told_as_the_manifest_has_it(manifests: Any, url: str, rows: list[dict[str, Any]]) -> None:
    catalog = ManifestIndex(url)
    assert catalog.rows == len(rows)
    assert catalog.codec == "htj2k"
    assert catalog.levels == len(rows[0]["level_bytes"]) - 1 > 2
    for number in random.Random(0).sample(range(len(rows)), len(rows)):
        detail, row = catalog.detail(number), rows[number]
        assert (detail.key, detail.start(0), detail.shard.shard) == (row["key"], row["offset"], row["shard"])
        for level, (length, digest) in enumerate(zip(row["level_bytes"], row["level_hash"], strict=True)):
            assert (detail.prefix(level), detail.hash(level)) == (length, digest)
        assert [detail.number(name) for name in manifests.NUMBERS] == [float(row[name]) for name in manifests.NUMBERS]


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


def test_samples_asked_for_again_or_without_boxes_are_the_same(url: str) -> None:
    catalog = ManifestIndex(url)
    assert catalog.samples(None, boxes=False).box is None
    train, again, every = catalog.samples("train"), catalog.samples("train"), catalog.samples(None)
    assert every.height[train.row(np.arange(len(train)))].tolist() == train.height.tolist() == again.height.tolist()
    assert train.digest == again.digest
    assert catalog.columns("split", "height").schema.types == [pa.string(), pa.int32()]


def test_content_boxes_are_checked_when_they_are_read(manifests: Any, copy: Path) -> None:
    def outside(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("box_top")
        return table.set_column(at, table.schema.field(at), pa.array([60_000] * table.num_rows, pa.int32()))

    manifests.rewrite(copy, outside)
    catalog = ManifestIndex(str(copy))
    assert len(catalog.samples(None, boxes=False))
    with pytest.raises(IntegrityError, match="content box"):
        catalog.samples(None)


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


def test_a_selection_of_nothing_names_the_splits(manifests: Any, url: str) -> None:
    catalog = ManifestIndex(url)
    for split, where in (("holdout", None), ("train", lambda table: np.zeros(catalog.rows, bool))):
        with pytest.raises(ArgumentError, match=rf"no sample in split '{split}' .*train \d+") as caught:
            catalog.samples(split, where)
        assert manifests.one_sentence(caught.value)


def test_a_filter_that_cannot_be_is_refused(manifests: Any, dataset_folder: Path) -> None:
    catalog = ManifestIndex(str(dataset_folder))
    with pytest.raises(ArgumentError, match="has no column colour, taste"):
        catalog.samples(None, lambda table: table["taste"], ("height", "taste", "colour"))
    for given in (np.bool_(True), np.ones(3, bool)):

        def where(_: pa.Table, given: Any = given) -> Any:
            return given

        with pytest.raises(ArgumentError, match="where gave values of shape") as caught:
            catalog.samples(None, where, ("height",))
        assert manifests.one_sentence(caught.value)


def test_ids_change_with_any_image_and_with_nothing_else(manifests: Any, copy: Path) -> None:
    before = ManifestIndex(str(copy))
    shard = before.shards[2]
    first, end = (int(row) for row in before.shard_starts[2:4])
    for row in range(first, end):

        def change(table: pa.Table, row: int = row) -> pa.Table:
            hashes = table["level_hash"].to_pylist()
            hashes[row][0] = bytes([hashes[row][0][0] ^ 1]) + hashes[row][0][1:]
            at = table.schema.get_field_index("level_hash")
            return table.set_column(at, table.schema.field(at), pa.array(hashes, table.schema.field(at).type))

        manifests.rewrite(copy, change)
        after = ManifestIndex(str(copy))
        assert after.contents(shard).id != before.contents(shard).id
        others = [name for name in before.shards if name != shard]
        assert [after.contents(name).id for name in others] == [before.contents(name).id for name in others]
        before = after


@pytest.mark.parametrize("size", [1, 3, 7])
def test_row_groups_and_shards_need_not_agree(manifests: Any, copy: Path, dataset_folder: Path, size: int) -> None:
    manifests.rewrite(copy, lambda table: table, row_group_size=size)
    assert manifests.everything(ManifestIndex(str(copy))) == manifests.everything(ManifestIndex(str(dataset_folder)))


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


@pytest.mark.deep
def test_a_build_that_appends_changes_nothing_of_an_open_catalog(
    manifests: Any, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    from shardkit.synthetic.export import make_export

    make_export(tmp_path / "more", 5, seed=6, defects=0.0, scale=0.08)
    files = sorted(path for path in (tmp_path / "more").rglob("*") if path.is_file())
    for path in files[: len(files) // 2]:
        (tmp_path / "export").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "export" / f"{path.stat().st_ino}.dcm")
    out = make_dataset(tmp_path / "export", tmp_path / "out", bins="auto:2", shard_bytes=64 << 10)
    catalog, control = ManifestIndex(str(out)), ManifestIndex(str(out))
    before = manifests.everything(control)
    for path in files[len(files) // 2 :]:
        shutil.copy(path, tmp_path / "export" / f"{path.stat().st_ino}.dcm")
    make_dataset(tmp_path / "export", out, bins="auto:2", shard_bytes=64 << 10)
    after = ManifestIndex(str(out))
    assert after.rows > catalog.rows
    assert after.digest != catalog.digest
    assert manifests.everything(catalog) == before


def test_a_dataset_in_a_bucket_that_is_replaced_changes_nothing_of_an_open_catalog(manifests: Any, bucket: str) -> None:
    store, catalog = Store(bucket), ManifestIndex(bucket)
    before, content = manifests.everything(ManifestIndex(bucket)), store.get(manifest.NAME)
    store.put(manifest.NAME, b"another")
    try:
        assert manifests.everything(catalog) == before
    finally:
        store.put(manifest.NAME, content)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_an_open_catalog_leaves_no_temporary_file_and_a_closed_one_no_space(
    manifests: Any, url: str, scratch: Path
) -> None:
    catalog = ManifestIndex(url)
    catalog.details(0)
    assert list(scratch.iterdir()) == []
    assert len(manifests.opened(scratch)) == url.startswith("s3://")
    catalog.close()
    assert manifests.opened(scratch) == []


def test_a_manifest_that_is_too_large_for_temporary_files_is_one_sentence(
    manifests: Any, bucket: str, scratch: Path
) -> None:
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
    assert manifests.one_sentence(caught.value)
    assert manifests.opened(scratch) == []
