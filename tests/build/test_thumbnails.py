"""Thumbnails are those of their samples, in whatever order both lie."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shardkit.build.relations import Thumbnails
from shardkit.storage import parquet, spill

KEYS = [f"k{n}" for n in range(20)]


@pytest.mark.parametrize("block", [4, 1 << 15])
@pytest.mark.parametrize("samples", [KEYS, KEYS[::-1], KEYS[3:], KEYS[:17], [*KEYS, "new"], []])
def test_each_has_the_row_of_its_sample(
    samples: list[str], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardkit.build.relations.BLOCK", block)
    monkeypatch.setattr(spill, "BATCH", 8)
    files = [tmp_path / "0", tmp_path / "1"]
    for path, keys in zip(files, (KEYS[:12], KEYS[12:]), strict=True):
        parquet.write(pa.table({"key": keys}), path)
    table = pa.table({"key": pa.array(samples, pa.string())})
    with spill.writing(tmp_path / "rows", table.schema) as sink:
        sink.write(table)
    rows = Thumbnails(files).rows(spill.Spill(tmp_path / "rows"))
    assert rows.tolist() == [samples.index(key) if key in samples else -1 for key in KEYS]
