"""What `verify` and `labels` say: of values, keys, levels and boxes that cannot be, of splits that leak, of changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.dataset.verify import Summary, verify
from shardkit.labels import LabelRows, LabelTable
from shardkit.labels.base import BOXES
from shardkit.labels.joining.join import label
from shardkit.labels.summary import summarise
from shardkit.storage import Store
from tests.labels.conftest import Place

Command = Callable[..., tuple[int, str, str]]


def problems(place: Place) -> list[str]:
    return [said for said in verify(place.url, False, 1) if not isinstance(said, Summary)]


def labelled(place: Place, level: Any = "image", **more: Any) -> LabelTable:
    """Labels of all samples: binary, number, category."""
    keys = sorted(place.written().values())
    values = pa.table(
        {
            "Edema": pa.array([1] * len(keys), pa.int8()),
            "age": pa.array([50.0] * len(keys)),
            "view": ["PA"] * len(keys),
        }
    )
    return label(place.url, "findings", LabelRows("key", keys, values, level=level, **more), place.private).labels


def stored(place: Place, found: LabelTable, **columns: pa.Array) -> None:
    """Put a table with other columns in the place of one, with its digest right."""
    table = found.table
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    labels.write(Store(place.url), replace(found, table=table))


def changed(column: pa.ChunkedArray, at: int, value: Any) -> pa.Array:
    values = column.to_pylist()
    values[at] = value
    return pa.array(values, column.type)


def test_sound_labels_are_all_sound(place: Place) -> None:
    labelled(place, "study")
    assert problems(place) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Edema", 2, "Edema of {key} is no binary label"),
        ("age", float("inf"), "age of {key} is no number label"),
        ("age", float("nan"), "age of {key} is no number label"),
        ("view", "", "view of {key} is no category label"),
        ("key", "nobody", "1 labels are of keys that the manifest has not, such as nobody"),
    ],
)
def test_values_and_keys_that_cannot_be_are_named(place: Place, name: str, value: Any, said: str) -> None:
    found = labelled(place)
    key = found.table["key"][3].as_py()
    stored(place, found, **{name: changed(found.table[name], 3, value)})
    assert problems(place) == [
        f"labels/findings.parquet: {said.format(key=key)}; run shardkit label again with its table"
    ]


def test_labels_of_a_study_that_differ_among_its_images_are_named(place: Place) -> None:
    found = labelled(place, "study")
    studies = {row["key"]: row["study"] for row in place.manifest()}
    of_rows = [studies[key] for key in found.table["key"].to_pylist()]
    at = next(i for i, study in enumerate(of_rows) if of_rows.count(study) > 1)
    stored(place, found, Edema=changed(found.table["Edema"], at, None))
    assert problems(place) == []  # blank contradicts nothing
    stored(place, found, Edema=changed(found.table["Edema"], at, 0))
    (said,) = problems(place)
    assert said.startswith("labels/findings.parquet: Edema differs among images of one study, such as that of ")


def test_boxes_outside_their_images_are_named(place: Place) -> None:
    found = labelled(place)
    row = place.manifest()[0]
    for top, height, sound in (
        (0.0, row["height"], True),
        (1.0, row["height"], False),
        (-1.0, 5, False),
        (0, 0, False),
    ):
        boxes = pa.table([[row["key"]], ["Edema"], [top], [0.0], [float(height)], [1.0]], schema=BOXES)
        labels.write(Store(place.url), replace(found, boxes=boxes))
        said = [] if sound else [f"1 boxes do not lie in their images, such as one of {row['key']}"]
        assert [problem.split(": ")[1].split(";")[0] for problem in problems(place)] == said


def test_a_damaged_table_and_objects_that_belong_to_none_are_named(place: Place) -> None:
    labelled(place)
    store = Store(place.url)
    data = bytearray(store.get("labels/findings.parquet"))
    data[len(data) // 2] ^= 255
    store.put("labels/findings.parquet", bytes(data))
    store.put("labels/old.boxes-0123456789ab.parquet", b"")
    said = problems(place)
    assert len(said) == 2
    assert "labels/findings.parquet" in said[0]
    assert said[1].startswith("labels/old.boxes-0123456789ab.parquet: no labels table names it; remove it")
    store.delete("labels/old.boxes-0123456789ab.parquet")
    assert labelled(place).description.replaces is None  # as the message says
    assert problems(place) == []


def test_labels_say_counts_by_split_and_what_changed(place: Place, run: Command) -> None:
    manifest = place.manifest()
    keys = [row["key"] for row in manifest]
    chance = random.Random(5)
    edema = chance.choices([1, 0, -1, None], k=len(keys))
    ages = chance.choices([10.0, 20.0, 70.0, None], k=len(keys))
    views = chance.choices(["AP", "PA", None], k=len(keys))
    splits = chance.choices(["train", "test", None], k=len(keys))
    columns = {"Edema": pa.array(edema, pa.int8()), "age": pa.array(ages, pa.float64()), "view": views}
    some = slice(0, len(keys) - 4)
    values = pa.table(columns).slice(0, len(keys) - 4)
    rows = LabelRows("key", keys[some], values, split=splits[some])
    found = label(place.url, "findings", rows, place.private).labels
    said = summarise(found, pa.Table.from_pylist(manifest), found.description.dataset)
    assert (said.samples, said.unlabelled, said.gone, said.stale) == (len(keys) - 4, 4, 0, False)
    by_name = {column.name: column for column in said.columns}
    assert by_name["Edema"].counts == {str(v): edema[some].count(v) for v in (1, 0, -1)}
    assert by_name["Edema"].blank == edema[some].count(None)
    hashed = [row["split"] for row in manifest]
    for split, count in by_name["Edema"].by_split.items():
        assert count == sum(v == 1 and s == split for v, s in zip(edema[some], hashed[some], strict=True))
    for split in ("train", "test"):
        ones = sum(v == 1 and s == split for v, s in zip(edema[some], splits[some], strict=True))
        assert by_name["Edema"].by_official.get(split, 0) == ones
    numbers = [age for age in ages[some] if age is not None]
    assert by_name["age"].range == (min(numbers), float(np.median(numbers)), max(numbers))
    assert by_name["view"].counts == {view: views[some].count(view) for view in ("AP", "PA")}
    code, out, _ = run("labels", place.dataset)
    assert code == 0
    counts = by_name["Edema"].counts
    assert [word for line in out.splitlines() if line.startswith("Edema") for word in line.split()][:5] == [
        "Edema", str(counts["1"]), str(counts["0"]), str(counts["-1"]), str(by_name["Edema"].blank)
    ]  # fmt: skip
    assert "stale" not in out
    description = json.loads((place.dataset / "dataset.json").read_text())
    table = pq.read_table(place.dataset / "manifest.parquet")  # as if the dataset had grown since
    (place.dataset / "dataset.json").write_text(json.dumps(description | {"digest": "0" * 64}))
    pq.write_table(table.replace_schema_metadata(None), place.dataset / "manifest.parquet")
    assert "stale: the dataset has changed since these labels were joined" in run("labels", place.dataset)[1]


def test_an_official_split_that_parts_patients_near_duplicates_or_copies_is_told(place: Place, run: Command) -> None:
    manifest = place.manifest()
    copies = [row for row in place.ledger() if row["reason"] == "duplicate_exact"]
    by_key = {row["key"]: row for row in manifest}
    keys = [row["key"] for row in manifest]

    def leaks(splits: list[str]) -> dict[str, int]:
        values = pa.table({"x": pa.array([1] * len(keys), pa.int8())})
        found = label(place.url, "x", LabelRows("key", keys, values, split=splits), place.private).labels
        said = summarise(found, pa.Table.from_pylist(manifest), found.description.dataset, place.private)
        return {leak.what: leak.count for leak in said.leaks}

    assert leaks(["train"] * len(keys)) == {}
    patients = [row["patient"] for row in manifest]
    alone = sorted({patient for patient in patients if patients.count(patient) > 1})
    groups = [row["group"] for row in manifest]
    parted = [i % 2 for i in range(len(keys))]
    splits = ["test" if i else "train" for i in parted]
    by_hand = {
        "patients": sum(len({s for s, p in zip(splits, patients, strict=True) if p == one}) > 1 for one in alone),
        "near-duplicates": sum(
            len({s for s, g in zip(splits, groups, strict=True) if g == one}) > 1 for one in {*groups} - {None}
        ),
        "exact duplicates": 0,
    }
    of_patient: dict[str, set[str]] = {}
    of_key = dict(zip(keys, splits, strict=True))
    for patient, split in zip(patients, splits, strict=True):
        of_patient.setdefault(patient, set()).add(split)
    for row in copies:
        by_hand["exact duplicates"] += bool(of_patient.get(row["patient"], set()) - {of_key[row["key"]]})
    assert leaks(splits) == {what: count for what, count in by_hand.items() if count}
    assert by_hand["patients"] > 0
    assert len(by_key) == len(keys)
    out = run("labels", place.dataset, "--private", place.private)[1]
    assert f"leak: the official split parts {by_hand['patients']} patients, such as that of " in out
    assert pc.all(pc.is_in(pa.array(keys), labels.read(Store(place.url), "x").table["key"])).as_py()


def test_a_transcoded_dataset_keeps_its_labels(place: Place, run: Command) -> None:
    found = labelled(place, split=["train"] * len(place.written()))
    boxes = pa.table([[place.manifest()[0]["key"]], ["Edema"], [0.0], [0.0], [1.0], [1.0]], schema=BOXES)
    found = labels.write(Store(place.url), replace(found, boxes=boxes))
    out = place.dataset.with_name("arrays")
    code, _, err = run("transcode", place.dataset, out, "--format", "zarr")
    assert code == 0, err
    copied = labels.read(Store(str(out)), "findings")
    assert copied.table.equals(found.table)
    assert copied.boxes is not None
    assert copied.boxes.equals(boxes)
    assert run("verify", out)[0] == 0
    _, said, _ = run("labels", out)
    assert "stale" not in said
    assert "1 in 1 sample" in said
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "report" not in path.parts}
    paths = sorted(place.written())
    values = pa.table({"x": pa.array([1] * len(paths), pa.int8())})
    joined = label(str(out), "other", LabelRows("path", paths, values), place.private)
    assert joined.outcome.rows["matched"] == joined.samples == len(paths)
    assert [path for path, data in before.items() if path.read_bytes() != data] == []
    assert run("verify", out)[0] == 0


def test_a_table_may_hold_a_split_and_nothing_else(place: Place, run: Command) -> None:
    keys = sorted(place.written().values())
    rows = LabelRows("key", keys, pa.table({}), split=["test", *["train"] * (len(keys) - 1)])
    with pytest.raises(ValueError, match="references, but 0 values"):
        replace(rows, values=pa.table({"x": pa.array([], pa.int8())}))
    label(place.url, "official", rows, place.private)
    found = labels.read(Store(place.url), "official").aligned(pa.array(keys))
    assert (found.values.shape, found.split[:2].tolist()) == ((len(keys), 0), ["test", "train"])
    assert problems(place) == []
    assert f"train {len(keys) - 1:,}, test 1" in run("labels", place.dataset)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kind", "Edema"], "--kind takes COLUMN=binary, COLUMN=number or COLUMN=category, not 'Edema'"),
        (["--name", "A b"], "'A b' is no name for labels: take small letters, digits, - and _, at most 64"),
        (["--table", "nowhere.csv"], "--table: nowhere.csv is no file: name a CSV or Parquet file"),
        (["--boxes", "nowhere.csv"], "--boxes: nowhere.csv is no file: name a CSV or Parquet file"),
        (["--private", "nowhere"], "nowhere holds no pseudonym.key: name the --private folder that the dataset was"),
        (["--list", "Lists"], "has no column Lists (--list): there are path, Edema"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_nothing_is_written(
    place: Place, run: Command, words: list[str], said: str
) -> None:
    table = place.table(["path", "Edema"], [[path, 1] for path in sorted(place.written())])
    usual = {"--name": "x", "--table": table, "--by": "path", "--private": place.private}
    given = [word for option, value in usual.items() if option != words[0] for word in (option, value)]
    code, _, err = run("label", place.dataset, *given, *words)
    assert code == 1
    assert err.startswith("shardkit: ")
    assert said in err
    assert err.count("\n") == 1
    assert labels.names(Store(place.url)) == []


def test_what_is_not_there_is_not_removed_and_is_told(place: Place, run: Command) -> None:
    labelled(place)
    for words in (("unlabel", place.dataset, "--name", "finding"), ("labels", place.dataset, "finding")):
        code, _, err = run(*words)
        assert (code, err) == (1, f"shardkit: {place.dataset} has no labels named finding: there are findings\n")
    assert labels.names(Store(place.url)) == ["findings"]
