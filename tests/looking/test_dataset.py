"""`shardkit.Dataset`: samples by key, row or filter; tables; labels; and nothing loaded or read that is not needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shardkit import Dataset
from shardkit.dataset import contents
from shardkit.errors import ArgumentError, IntegrityError, RowError
from shardkit.storage import Store

pytestmark = pytest.mark.formats


def test_looking_needs_no_gpu_stack_and_nothing_but_what_a_build_needs(labelled: Path, tmp_path: Path) -> None:
    absent = ("torch", "nvidia", "pandas", "zarr", "IPython", "webdataset", "shardkit.loader", "shardkit.build")
    script = (
        "import sys\nclass Absent:\n def find_spec(self, name, *_):\n"
        f"  if name in {absent!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"import shardkit; ds = shardkit.Dataset({str(labelled)!r}); ds[0].pixels(1); ds.labels('site'); repr(ds)\n"
        f"ds.filter(split='train').show(out={str(tmp_path / 'some.png')!r}); ds.table(labels=True); ds[0]._repr_html_()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_manifest_is_a_table_that_pandas_reads(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    stored = contents.samples(Store(str(labelled)))
    frame = ds.table().to_pandas()
    assert list(frame.columns) == stored.column_names
    assert frame["key"].tolist() == stored["key"].to_pylist()
    assert [list(one) for one in frame["level_hash"]] == stored["level_hash"].to_pylist()
    assert len(frame) == len(ds) == stored.num_rows
    train = ds.table(["height", "site:Effusion"], split="train")
    assert train.column_names == ["height", "site:Effusion"]
    assert train["height"].to_pylist() == frame[frame["split"] == "train"]["height"].tolist()
    assert set(ds.table(labels=True).column_names) > {"site:age", "site:split", "key"}


def test_a_sample_is_found_by_its_key_a_start_of_it_or_its_number(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    keys = ds.keys
    for number in (0, len(ds) - 1, -2):
        sample = ds[number]
        assert sample.key == keys[number]
        assert sample.row == number % len(ds)
        assert ds[sample.key].row == sample.row
        assert ds[sample.key[:30]].key == sample.key
    assert ds[np.int64(3)].key == keys[3]
    assert keys[3] in ds
    assert "nokey" not in ds
    assert [sample.key for sample in ds] == keys
    assert ds[2:8:3].keys == keys[2:8:3]


def test_a_key_that_names_no_sample_or_several_is_refused(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    for start, said in (("zz", "no sample has"), ("", "no sample has"), ("0123456789abcdef0123", "no sample has")):
        with pytest.raises(ArgumentError, match=f"{said} a key that starts with '{start}'"):
            ds[start]
    starts = [key[:1] for key in ds.keys]
    common = max(starts, key=starts.count)
    with pytest.raises(ArgumentError, match=f"{starts.count(common)} samples have a key that starts"):
        ds[common]
    with pytest.raises(RowError, match=f"there is no sample {len(ds)}"):
        ds[len(ds)]


def test_pixels_are_exact_at_every_level_and_only_its_bytes_are_read(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = Dataset(str(labelled))
    sample = max(ds, key=lambda one: one.shape[0] * one.shape[1])
    row = contents.samples(ds._source.store).slice(sample.row, 1).to_pylist()[0]
    read: list[int] = []
    get_range = Store.get_range

    def noted(self: Store, name: str, start: int, length: int) -> bytes:
        read.append(length)
        return get_range(self, name, start, length)

    monkeypatch.setattr(Store, "get_range", noted)
    for level, size in enumerate(sample.level_bytes):
        read.clear()
        pixels = sample.pixels(level)
        assert read.count(size) >= 1
        assert sum(read) < size + 8192, "beside it only indices"
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, contents.image(ds._source.store, row, ds.description, level))
    with pytest.raises(ArgumentError, match="level 9 is not stored"):
        sample.pixels(9)


def test_a_view_has_the_samples_that_pandas_chooses(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    frame = ds.table(labels=True).to_pandas()

    def keys(chosen: Any) -> list[str]:
        return list(frame["key"][chosen])

    assert ds.filter(split="train", view="PA").keys == keys((frame["split"] == "train") & (frame["view"] == "PA"))
    assert ds.filter(view=["PA", "AP"]).keys == keys(frame["view"].isin(["PA", "AP"]))
    assert ds.filter({"site:Effusion": 1}).keys == keys(frame["site:Effusion"] == 1)
    assert ds.filter({"site:Effusion": None}).keys == keys(frame["site:Effusion"].isna())
    assert ds.filter(split="site:test").keys == keys(frame["site:split"] == "test")
    assert ds.filter(flags="near_duplicate").keys == keys([("near_duplicate" in flags) for flags in frame["flags"]])
    tall = keys(frame["height"] > frame["width"])
    assert ds.where(pc.field("height") > pc.field("width")).keys == tall
    assert ds.where(lambda row: row["height"] > row["width"]).keys == tall
    twice = ds.where(pc.field("height") > 100).filter(split="train")
    assert twice.keys == keys((frame["height"] > 100) & (frame["split"] == "train"))
    assert [sample.row for sample in twice] == twice.rows.tolist()
    assert f"samples={len(twice)} of {len(ds)}" in repr(twice)
    assert len(ds.filter(view="PA").filter(view=next(v for v in frame["view"].dropna() if v != "PA"))) == 0
    assert sum(twice.splits.values()) == len(twice)


def test_a_column_or_value_that_there_is_not_is_named(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    with pytest.raises(ArgumentError, match="has no column 'vieww': there is view"):
        ds.filter(vieww="PA")
    with pytest.raises(ArgumentError, match="has no column 'other:split'"):
        ds.filter(split="other:train")
    for words in ("pa", ["pa", "ll"]):
        with pytest.raises(ArgumentError, match=rf"^no sample has view={re.escape(repr(words))}: there is .*PA"):
            ds.filter(view=words)
    with pytest.raises(ArgumentError, match=r"^no sample has site:projection='PA': there is ap and pa$"):
        ds.filter({"site:projection": "PA"})
    with pytest.raises(ArgumentError, match=r"^no sample has key='x'$"):
        ds.filter(key="x")
    with pytest.raises(ArgumentError, match=r"^split=site:val: site has the splits test and train, not val$"):
        ds.filter(split="site:val")
    with pytest.raises(ArgumentError, match=r"^no sample has split='trian': there is "):
        ds.table(split="trian")
    assert len(ds.filter(flags="transcoded")) == len(ds.filter(view=[])) == 0
    with pytest.raises(ArgumentError, match="'tall' is no value of a column of int32"):
        ds.filter(height="tall")
    with pytest.raises(ArgumentError, match="the condition fits no column"):
        ds.where(pc.field("nothing") > 3)
    with pytest.raises(ArgumentError, match="has no labels named other: there are site"):
        ds.labels("other")


def test_a_sample_tells_facts_labels_and_boxes(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    first, second, last = ds[0], ds[1], ds[-1]
    record = ds.table().slice(0, 1).to_pylist()[0]
    assert first.facts["view"] == record["view"]
    assert first.facts["pixel_hash"] == record["pixel_hash"].hex()
    assert not {"shard", "offset", "level_hash"} & first.facts.keys()
    assert first.labels["site"] == {"Effusion": 1, "Mass": 1, "age": None, "projection": "ap", "split": "train"}
    assert second.labels["site"] == {"Effusion": 0, "Mass": 0, "age": 21.0, "projection": "pa", "split": "test"}
    assert set(last.labels["site"].values()) == {None}
    (box,) = first.boxes
    assert (box.table, box.label, box.top, box.left, box.height, box.width) == ("site", "Mass", 8, 4, 16, 12)
    assert last.boxes == []


def test_labels_come_by_the_samples_of_the_view(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    assert ds.labels_names == ["site"]
    part = ds[4:8]
    found = part.labels("site")
    assert found.columns == ("Effusion", "Mass", "age", "projection")
    assert found.known[:, 0].tolist() == [True, True, True, False]
    assert found.values[:3, 0].tolist() == [1, 0, -1]
    assert ds.labels("site").known.shape == (len(ds), 4)
    assert ds.label_table("site").description.kinds["age"] == "number"


def test_a_damaged_sample_is_named_and_the_others_can_be_seen(labelled: Path, tmp_path: Path) -> None:
    import shutil

    place = Path(shutil.copytree(labelled, tmp_path / "copy"))
    row = contents.samples(Store(str(place))).to_pylist()[0]
    data = bytearray((place / row["shard"]).read_bytes())
    data[row["offset"] + row["length"] // 2] ^= 255
    (place / row["shard"]).write_bytes(data)
    ds = Dataset(str(place))
    with pytest.raises(IntegrityError, match=row["key"]):
        ds[0].pixels()
    assert ds[1].pixels().shape == ds[1].shape


@pytest.mark.formats("webdataset")  # a bucket of thousands of small Zarr files is slow to fill
def test_a_bucket_gives_what_a_folder_gives(labelled: Path, moto: str, form: str) -> None:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket=f"look-{form}")
    store = Store(f"s3://look-{form}/set")
    for path in sorted(labelled.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(labelled).as_posix(), path.read_bytes())
    here, there = Dataset(str(labelled)), Dataset(f"s3://look-{form}/set")
    assert there.table().equals(here.table())
    assert there[5].labels == here[5].labels
    np.testing.assert_array_equal(there[5].pixels(1), here[5].pixels(1))


def test_what_is_shown_of_a_dataset_names_what_it_holds(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    for said in (repr(ds), ds._repr_html_()):
        for word in (str(labelled), f"{len(ds)}", "site", ds.description.codec, "train"):
            assert word in said
    assert f"key={ds[0].key}" in repr(ds[0])
    assert isinstance(ds.table(), pa.Table)
