"""Predictions are one valid table, whoever made it, and the file gives back what was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.errors import ArgumentError, IntegrityError
from trainer.evaluate.predictions import Predictions, PredictionsAbout, merged, read, schema, table_of, write

ABOUT = PredictionsAbout(
    run="ft",
    seed=2,
    step=300,
    site="nih",
    data="shards/nih",
    digest="ab12",
    split="test",
    labels="nih14",
    labels_digest="cd34",
    kind="multilabel",
    classes=("Edema", "Pleural Effusion"),
    select_split="val",
    select_metric="auc",
    select_value=0.75,
    weights="runs/pre",
    notes=("two patients are in two splits",),
)
N = 40


@pytest.fixture
def table() -> pa.Table:
    random = np.random.default_rng(0)
    scores = random.normal(size=(N, 2))
    targets = (random.random((N, 2)) < 0.3).astype(float)
    targets[random.random((N, 2)) < 0.2] = np.nan
    keys = [f"{row:020x}-0b" for row in random.permutation(N)]
    facts: dict[str, Any] = {
        "patient": [None if row % 8 == 0 else f"{row // 3:032x}" for row in range(N)],
        "view": ["PA" if row % 2 else None for row in range(N)],
        "age": np.where(np.arange(N) % 5, 52.0, np.nan),
    }
    return table_of(ABOUT, keys, scores, targets, facts)


def _with(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def test_what_is_read_is_what_was_written(table: pa.Table, tmp_path: Path) -> None:
    made = Predictions(ABOUT, table)
    write(made, tmp_path / "new" / "predictions.parquet")
    found = read(tmp_path / "new" / "predictions.parquet")
    assert found.about == ABOUT
    assert found.table.equals(made.table, check_metadata=True)
    assert found.keys == sorted(table["key"].to_pylist())
    order = np.argsort(table["key"].to_numpy())
    assert np.array_equal(found.scores[:, 1], table["score.Pleural Effusion"].to_numpy()[order])
    assert np.array_equal(found.targets[:, 0], table["target.Edema"].to_numpy()[order], equal_nan=True)
    assert np.array_equal(found.known, ~np.isnan(found.targets))
    assert np.allclose(found.probabilities, 1 / (1 + np.exp(-found.scores)))
    assert np.isnan(found.fact("age")).sum() == N // 5
    assert set(found.fact("view")) == {"PA", None}
    assert not list(tmp_path.glob("**/.*")), "no temporary file is left"


def test_the_file_is_its_owners_alone(table: pa.Table, tmp_path: Path) -> None:
    write(Predictions(ABOUT, table), tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").stat().st_mode & 0o077 == 0


def test_pieces_of_processes_are_one_table_whatever_their_order(table: pa.Table) -> None:
    whole = Predictions(ABOUT, table).table
    assert merged(ABOUT, [table.slice(30), table.slice(0, 7), table.slice(7, 23)]).table.equals(whole)
    with pytest.raises(ArgumentError, match="3 rows repeat a sample"):
        merged(ABOUT, [table, table.slice(5, 3)])


def test_a_sample_of_an_unknown_patient_is_a_patient_of_its_own(table: pa.Table) -> None:
    found = Predictions(ABOUT, table)
    names = found.table["patient"].to_pylist()
    assert found.patients_unknown == names.count(None) == 5
    assert len(set(found.patients)) == len(set(names) - {None}) + 5
    for name in set(names) - {None}:
        assert len({found.patients[row] for row in range(N) if names[row] == name}) == 1


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a score that is not a number": (lambda t: _with(t, "score.Edema", 3, float("nan")), "score is not a finite"),
    "a missing score": (lambda t: _with(t, "score.Edema", 3, None), "score is not a finite"),
    "an infinite score": (lambda t: _with(t, "score.Edema", 3, float("inf")), "score is not a finite"),
    "a target of -1": (lambda t: _with(t, "target.Edema", 3, -1.0), "neither 0, 1 nor unknown"),
    "an infinite target": (lambda t: _with(t, "target.Edema", 3, float("inf")), "target is not a finite"),
    "a key that is there twice": (lambda t: _with(t, "key", 3, t["key"][4].as_py()), "1 rows repeat"),
    "no key": (lambda t: _with(t, "key", 3, None), "a key is missing"),
    "a name instead of a pseudonym": (lambda t: _with(t, "patient", 3, "Doe^Jane"), "a patient is no pseudonym"),
    "a path instead of a key": (lambda t: _with(t, "key", 3, "00000013_005.png"), "a key is no pseudonym"),
    "a column of somebody else": (lambda t: t.append_column("name", t["view"]), "the column 'name' is none"),
    "a column less": (lambda t: t.drop_columns(["age"]), "the column 'age' is missing"),
    "a column twice": (lambda t: t.append_column("age", t["age"]), "a column is there twice"),
    "text as a score": (lambda t: t.set_column(6, "score.Edema", pa.array(["x"] * N)), "another type"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_is_not_one_of_predictions_is_refused(table: pa.Table, tmp_path: Path, kind: str) -> None:
    change, says = REFUSED[kind]
    bad = change(table).replace_schema_metadata(schema(ABOUT).metadata)
    with pytest.raises(ArgumentError, match=says):
        Predictions(ABOUT, bad)
    pq.write_table(bad, tmp_path / "p.parquet")
    with pytest.raises(ArgumentError, match=says) as caught:
        read(tmp_path / "p.parquet")
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'p.parquet'} cannot be used: ")
    assert "Doe" not in said
    assert "\n" not in said


@pytest.mark.parametrize("row", [[1, 1], [0, 0], [None, 1]])
def test_a_sample_of_a_multi_class_task_is_of_one_class_or_unknown(table: pa.Table, row: list[float | None]) -> None:
    about = dataclasses.replace(ABOUT, kind="multiclass")
    good = _with(table, "target.Edema", 3, None)
    for at in range(N):
        one = float(at % 2) if at else None
        good = _with(good, "target.Edema", at, one)
        good = _with(good, "target.Pleural Effusion", at, None if one is None else 1 - one)
    assert np.allclose(Predictions(about, good).probabilities.sum(axis=1), 1)
    for name, value in zip(("target.Edema", "target.Pleural Effusion"), row, strict=True):
        good = _with(good, name, 3, value)
    with pytest.raises(ArgumentError, match="not of exactly one class"):
        Predictions(about, good)


def test_files_that_are_none_are_told_apart(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(ArgumentError, match="is not there"):
        read(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(IntegrityError, match="is damaged"):
        read(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(ArgumentError, match="no `about`"):
        read(path)
    for about in (b"{", b"[]", ABOUT.to_json().replace("seed", "sead").encode()):
        pq.write_table(table.replace_schema_metadata({"about": about}), path)
        with pytest.raises(ArgumentError, match="not what this version writes"):
            read(path)
    pq.write_table(table.replace_schema_metadata({"about": ABOUT.to_json().replace("multilabel", "ranking")}), path)
    with pytest.raises(ArgumentError, match="its kind is 'ranking'"):
        read(path)


def test_a_fact_that_predictions_do_not_have_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no column name"):
        table_of(ABOUT, ["0a"], np.zeros((1, 2)), np.zeros((1, 2)), {"name": ["x"]})


def test_classes_are_named_each_once(table: pa.Table) -> None:
    for classes in ((), ("Edema", "Edema")):
        with pytest.raises(ArgumentError, match="each once"):
            Predictions(dataclasses.replace(ABOUT, classes=classes), table)
