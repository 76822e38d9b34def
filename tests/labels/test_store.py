"""Labels tables on storage: what is written is read back, versions, and what is damaged or no table of labels."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.labels.base import BOXES
from shardkit.storage import Store

ROWS = {"matched": 3, "ambiguous": 0, "unmatched": 1}


def findings(edema: list[int | None], boxes: bool = False) -> LabelTable:
    keys = ["b", "c", "a"]
    table = pa.table(
        {
            "key": keys,
            "Edema": pa.array(edema, pa.int8()),
            "age": pa.array([50.5, None, 3], pa.float64()),
            "view": ["PA", None, "AP"],
            "split": ["train", "test", None],
        }
    )
    kinds = {"Edema": "binary", "age": "number", "view": "category"}
    description = LabelsDescription(name="findings", level="image", kinds=kinds, rows=ROWS)  # type: ignore[arg-type]
    found = pa.table([["b"], ["Edema"], [1.0], [2.0], [3.0], [4.5]], schema=BOXES) if boxes else None
    return LabelTable(description, table, found)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "dataset"))


def test_what_is_written_is_read_back(store: Store) -> None:
    written = labels.write(store, findings([1, -1, None], boxes=True))
    found = labels.read(store, "findings")
    assert found.digest == written.digest
    assert found.description == written.description
    assert found.table.to_pylist() == [
        {"key": "a", "Edema": None, "age": 3.0, "view": "AP", "split": None},
        {"key": "b", "Edema": 1, "age": 50.5, "view": "PA", "split": "train"},
        {"key": "c", "Edema": -1, "age": None, "view": None, "split": "test"},
    ]
    assert found.boxes is not None
    assert found.boxes.to_pylist() == [{"key": "b", "label": "Edema", "top": 1, "left": 2, "height": 3, "width": 4.5}]
    assert labels.names(store) == ["findings"]


def test_labels_come_by_rows_of_the_manifest(store: Store) -> None:
    labels.write(store, findings([1, -1, None]))
    found = labels.read(store, "findings").aligned(pa.array(["c", "nowhere", "b", "a", "c"]))
    assert found.columns == ("Edema", "age", "view")
    np.testing.assert_array_equal(found.column("Edema"), np.array([-1, np.nan, 1, np.nan, -1], np.float32))
    np.testing.assert_array_equal(found.column("age"), np.array([np.nan, np.nan, 50.5, 3, np.nan], np.float32))
    assert found.categories == {"view": ("AP", "PA")}
    np.testing.assert_array_equal(found.column("view"), np.array([np.nan, np.nan, 1, 0, np.nan], np.float32))
    assert found.values.dtype == np.float32
    assert not found.values[~found.known].any()
    assert found.split.tolist() == ["test", None, "train", None, "test"]
    assert found.has_row.tolist() == [True, False, True, True, True]
    with pytest.raises(ArgumentError, match="no label 'edema': there are Edema, age, view"):
        found.column("edema")


def test_a_new_version_names_the_one_it_replaces_and_the_same_one_changes_nothing(store: Store) -> None:
    first = labels.write(store, findings([1, -1, None], boxes=True))
    assert first.description.replaces is None
    assert store.root is not None
    before = {path: path.stat().st_ino for path in store.root.rglob("*")}
    assert labels.write(store, findings([1, -1, None], boxes=True)).digest == first.digest
    assert {path: path.stat().st_ino for path in store.root.rglob("*")} == before
    second = labels.write(store, findings([1, 0, None]))
    assert second.description.replaces == first.digest
    assert labels.write(store, findings([1, 0, None])).digest == second.digest
    assert [name for name, _ in store.list("")] == ["labels/findings.parquet"]  # the first version's boxes are gone


def test_equal_values_have_one_digest_in_any_order_of_rows(store: Store) -> None:
    one = labels.write(store, findings([1, -1, None]))
    table = findings([1, -1, None])
    shuffled = replace(table, table=table.table.take(pa.array([2, 0, 1])))
    assert labels.write(store, shuffled).digest == one.digest


def test_labels_are_removed_with_their_boxes(store: Store) -> None:
    labels.write(store, findings([1, -1, None], boxes=True))
    labels.remove(store, "findings")
    assert list(store.list("")) == []
    for act in (labels.remove, labels.read):
        with pytest.raises(ArgumentError, match="has no labels named findings: there are none"):
            act(store, "findings")


@pytest.mark.parametrize("name", ["", "Findings", "a.b", "../x", "a/b", "x" * 65, "-x"])
def test_a_name_that_is_no_file_s_everywhere_is_refused(store: Store, name: str) -> None:
    table = findings([1, 0, 0])
    with pytest.raises(ArgumentError, match="is no name for labels"):
        labels.write(store, replace(table, description=replace(table.description, name=name)))


def test_a_reader_that_meets_a_new_version_between_table_and_boxes_reads_that(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.write(store, findings([1, -1, None], boxes=True))
    get, names = store.get, list[str]()

    def slow(name: str, most: int | None = None) -> bytes:
        if ".boxes-" in name and not names:
            names.append(name)
            labels.write(Store(store.url), findings([0, 0, 0]))
        return get(name, most)

    monkeypatch.setattr(store, "get", slow)
    found = labels.read(store, "findings")
    assert found.boxes is None
    assert found.table["Edema"].to_pylist() == [0, 0, 0]
    assert names


def test_lost_boxes_are_told(store: Store) -> None:
    written = labels.write(store, findings([1, -1, None], boxes=True))
    assert written.description.boxes
    store.delete(written.description.boxes)
    with pytest.raises(IntegrityError, match=r"boxes-.*missing; run shardkit label again"):
        labels.read(store, "findings")


def test_a_changed_or_cut_table_is_refused_wherever_the_damage_is(store: Store) -> None:
    labels.write(store, findings([1, -1, None]))
    whole = store.get("labels/findings.parquet")
    for at in range(0, len(whole), 23):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            store.put("labels/findings.parquet", data)
            with contextlib.suppress(IntegrityError):  # else the changed byte is none of what the table says
                assert labels.read(store, "findings").table["Edema"].to_pylist() == [None, 1, -1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 9}, "no labels table of this version"),
        ({"name": "other"}, "no labels table of this version"),
        ({"level": "hospital"}, "no labels table of this version"),
        ({"rows": {"matched": 3}}, "no labels table of this version"),
        ({"boxes": "manifest.parquet"}, "no labels table of this version"),
        ({"kinds": {"Edema": "number"}}, "other columns than it says"),
        ({"vote": "any"}, "differs from its digest"),
    ],
)
def test_a_table_that_says_what_none_could_is_refused(store: Store, changes: dict[str, object], said: str) -> None:
    written = labels.write(store, findings([1, -1, None]))
    path = Path(store.url) / "labels" / "findings.parquet"
    text = replace(written.description, **changes).to_json()  # type: ignore[arg-type]
    table = pq.read_table(path)
    told = {b"shardkit.labels": text.encode(), b"shardkit.digest": written.digest.encode()}
    pq.write_table(table.replace_schema_metadata(told), path)
    with pytest.raises(IntegrityError, match=said):
        labels.read(store, "findings")


def test_columns_of_other_types_or_taken_names_are_refused() -> None:
    for columns, said in (
        ({"x": pa.array([1], pa.int64())}, "label 'x' is int64, and must be int8, double or string"),
        ({"split": pa.array([1], pa.int8())}, "key and split are taken"),
    ):
        with pytest.raises(ArgumentError, match=said):
            labels.LabelRows("name", ["a"] * len(columns), pa.table(columns))
    with pytest.raises(ArgumentError, match="2 references, but 1 values"):
        labels.LabelRows("name", ["a", "b"], pa.table({"x": pa.array([1], pa.int8())}))
