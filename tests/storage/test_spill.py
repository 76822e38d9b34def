"""Rows on disk are those of the table that they came from, whichever way they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shardkit.storage import private, spill
from shardkit.storage.spill import Regrouped, Spill

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string()), ("texts", pa.list_(pa.string()))])


def table(rows: int) -> pa.Table:
    numbers = range(rows)
    texts = [None if n % 5 == 0 else f"wört{n}" for n in numbers]
    lists = [None if n % 7 == 0 else ["a"] * (n % 3) for n in numbers]
    return pa.table(
        [pa.array(numbers, pa.int64()), pa.array(texts, pa.string()), pa.array(lists, SCHEMA[2].type)], SCHEMA
    )


@pytest.fixture
def rows(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Spill, pa.Table]:
    """Rows in batches of eight, written in pieces of seven."""
    monkeypatch.setattr(spill, "BATCH", 8)
    monkeypatch.setattr(spill, "BLOCK", 16)
    whole = table(request.param)
    with spill.writing(tmp_path / "rows", SCHEMA) as sink:
        for start in range(0, max(1, whole.num_rows), 7):
            sink.write(whole.slice(start, 7))
    return Spill(tmp_path / "rows"), whole


@pytest.mark.parametrize("rows", [0, 1, 8, 50], indirect=True)
def test_a_spill_reads_as_its_table(rows: tuple[Spill, pa.Table]) -> None:
    there, whole = rows
    assert there.num_rows == whole.num_rows
    assert there.schema.equals(whole.schema)
    assert pa.Table.from_batches(there.to_batches(), SCHEMA).equals(whole)
    assert pa.concat_tables([SCHEMA.empty_table(), *spill.blocks(there)]).equals(whole)
    assert there["text"].equals(whole["text"])
    assert there.select(["texts", "number"]).slice(3, 20).equals(whole.select(["texts", "number"]).slice(3, 20))
    assert all(batch.num_rows <= 8 for batch in there.to_batches())


@pytest.mark.parametrize("rows", [50], indirect=True)
@pytest.mark.parametrize("chosen", [[], [49, 0, 7, 8, 7], range(50)])
def test_rows_are_taken_in_any_order(rows: tuple[Spill, pa.Table], chosen: list[int]) -> None:
    there, whole = rows
    wanted = pa.array(chosen, pa.int64())
    assert there.take(wanted).equals(whole.take(wanted))
    mask = pa.array(np.isin(np.arange(50), list(chosen)))
    assert there.filter(mask).equals(whole.filter(mask))


@pytest.mark.parametrize("rows", [50], indirect=True)
def test_matching_rows_are_those_of_the_table(rows: tuple[Spill, pa.Table]) -> None:
    there, whole = rows
    found = spill.matching(there, "number", pa.array([40, 3, 17]))
    assert found.equals(spill.matching(whole, "number", pa.array([40, 3, 17])))
    assert found["number"].to_pylist() == [3, 17, 40]
    assert not spill.matching(there, "number", pa.array([], pa.int64())).num_rows


@pytest.mark.parametrize("rows", [50], indirect=True)
def test_later_files_replace_columns(rows: tuple[Spill, pa.Table], tmp_path: Path) -> None:
    there, whole = rows
    other = pa.table({"text": pa.array([f"new{n}" for n in range(50)])})
    with spill.writing(tmp_path / "more", other.schema) as sink:
        sink.write(other)
    both = there.with_columns(tmp_path / "more")
    assert pa.Table.from_batches(both.to_batches()).equals(whole.set_column(1, "text", other["text"]))


def test_nothing_is_left_of_a_spill_that_is_not_written_to_its_end(tmp_path: Path) -> None:
    def broken() -> None:
        with spill.writing(tmp_path / "rows", SCHEMA) as sink:
            sink.write(table(3))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [50], indirect=True)
def test_a_search_for_many_values_makes_few_tables_of_them(
    rows: tuple[Spill, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, whole = rows
    search, tables = pc.is_in, 0

    def counted(values: Any, value_set: Any) -> Any:
        nonlocal tables
        tables += len(value_set)
        return search(values, value_set)

    monkeypatch.setattr(pc, "is_in", counted)
    assert spill.matching(there, "number", whole["number"].combine_chunks()).equals(whole)
    assert tables <= 2 * 50


def test_nothing_is_left_of_rows_that_a_full_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> Any:
        path.write_bytes(b"")
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(private, "create", full)
    many = table(100_000)
    with pytest.raises(OSError, match="No space left"), spill.writing(tmp_path / "rows", SCHEMA) as sink:
        sink.write(many)
    with pytest.raises(OSError, match="No space left"), Regrouped(tmp_path / "groups", SCHEMA, 1) as grouped:
        grouped.add(many, [many.num_rows])
    assert not list(tmp_path.iterdir())


def test_a_folder_of_spills_is_empty_at_first_and_gone_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / spill.FOLDER
    place.mkdir()
    (place / "rows").write_bytes(b"what a killed run left")
    with pytest.raises(RuntimeError, match="broken"), spill.scratch(place):  # noqa: PT012
        assert not list(place.iterdir())
        raise RuntimeError("broken")
    assert not list(tmp_path.iterdir())


def test_groups_have_their_rows_in_the_order_they_came_in(tmp_path: Path) -> None:
    with Regrouped(tmp_path / "rows", SCHEMA, 3) as grouped:
        grouped.add(table(10), [2, 2, 10])
        grouped.add(table(0), [0, 0, 0])
        grouped.add(table(6), [1, 1, 6])
        found = [group["number"].to_pylist() for group in grouped.groups()]
    assert found == [[0, 1, 0], [], [*range(2, 10), *range(1, 6)]]
    assert not list(tmp_path.iterdir())
