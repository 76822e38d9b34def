"""A Parquet file is read a row group, or part of one, at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.storage import parquet


@pytest.mark.parametrize("group", [1, 7, 10, 100])
@pytest.mark.parametrize("rows", [0, 1, 20])
def test_blocks_are_the_file_s_rows_in_order(rows: int, group: int, tmp_path: Path) -> None:
    table = pa.table({"number": pa.array(range(rows), pa.int64()), "text": pa.array([f"t{n}" for n in range(rows)])})
    pq.write_table(table, tmp_path / "file", row_group_size=group)
    with pq.ParquetFile(tmp_path / "file") as file:
        found = list(parquet.blocks(file, most=4))
        texts = list(parquet.blocks(file, ["text"]))
    assert pa.concat_tables([table.slice(0, 0), *found]).equals(table)
    assert all(0 < block.num_rows <= min(4, group) for block in found)
    assert pa.concat_tables([table.slice(0, 0).select(["text"]), *texts]).equals(table.select(["text"]))
