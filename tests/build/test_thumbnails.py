"""Thumbnails are those of their samples, in whatever order both lie."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.build import relations
from shardkit.build.relations import Thumbnails
from shardkit.storage import spill

KEYS = [f"k{n}" for n in range(20)]


@pytest.mark.parametrize("group", [4, 100])
@pytest.mark.parametrize("samples", [KEYS, KEYS[::-1], KEYS[3:], KEYS[:17], [*KEYS, "new"], []])
def test_each_has_the_row_of_its_sample(
    samples: list[str], group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BATCH", 8)
    files = [tmp_path / "0", tmp_path / "1"]
    for path, keys in zip(files, (KEYS[:12], KEYS[12:]), strict=True):
        pq.write_table(pa.table({"key": keys}), path, row_group_size=group)
    table = pa.table({"key": pa.array(samples, pa.string())})
    with spill.writing(tmp_path / "rows", table.schema) as sink:
        sink.write(table)
    rows = Thumbnails(files).rows(spill.Spill(tmp_path / "rows"))
    assert rows.tolist() == [samples.index(key) if key in samples else -1 for key in KEYS]


@pytest.mark.parametrize("group", [3, 7, 100])
def test_they_come_in_batches_of_one_size_whatever_their_row_groups(
    group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "_BATCH", 8)
    pq.write_table(pa.table({"key": KEYS}), tmp_path / "0", row_group_size=group)
    pq.write_table(pa.table({"key": pa.array([], pa.string())}), tmp_path / "1")
    pq.write_table(pa.table({"key": KEYS[:3]}), tmp_path / "2")
    batches = list(Thumbnails([tmp_path / name for name in "012"]).batches())
    assert [batch.num_rows for batch in batches] == [8, 8, 4, 3]
    assert [key for batch in batches for key in batch["key"].to_pylist()] == [*KEYS, *KEYS[:3]]
