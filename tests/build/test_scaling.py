"""The last stage of a build looks through all samples a fixed number of times, into however many pieces they come."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import scale_build
from shardkit.build import ledger, relations, scan
from shardkit.dataset import schema
from shardkit.storage import spill
from shardkit.storage.spill import Spill

ROWS = 1200
A_FILE = 1000
"""Bytes of memory that a file may take up to 100,000: blocks of rows, whose number does not grow from there on."""


def _rows(template: Path, place: Path, shard: int, part: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows are looked up, are in tables for that, and are read from spills."""
    count = 0

    def counted(search: Any) -> Any:
        def looked_up(values: Any, value_set: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += len(values) + len(value_set)
            return search(values, value_set, *arguments, **options)

        return looked_up

    def read(self: Spill, numbers: Any) -> Any:
        nonlocal count
        for batch in reading(self, numbers):
            count += batch.num_rows
            yield batch

    reading = Spill._read
    with monkeypatch.context() as patched:
        patched.setattr(scale_build, "SHARD", shard)
        patched.setattr(scan, "PART", part)
        scale_build.make(str(template), str(place), ROWS)
        for name in ("index_in", "is_in"):
            patched.setattr(pc, name, counted(getattr(pc, name)))
        patched.setattr(Spill, "_read", read)
        found = scale_build.last_stage(str(place))
    assert found["files"] == ROWS
    assert 0.9 * ROWS < found["samples"] < ROWS
    return count


def test_more_shards_and_scan_parts_mean_no_more_rows_to_look_at(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = _rows(dataset_folder, tmp_path / "few", 400, 600, monkeypatch)
    many = _rows(dataset_folder, tmp_path / "many", 40, 60, monkeypatch)
    assert many < few + ROWS  # a search a shard would take 27 times as many


def test_blocks_of_any_size_give_the_same_files_whatever_a_killed_build_left(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, before = tmp_path / "place", tmp_path / "before"
    scale_build.make(str(dataset_folder), str(place), ROWS)
    shutil.copytree(place, before, symlinks=True)
    scale_build.last_stage(str(place))
    large = place.rename(tmp_path / "large")
    before.rename(place)
    for left in (".spills/samples", ".ledger.parquet.rows.tmp", "g000/.spills/samples", "g000/.ledger.parquet.tmp"):
        (place / "private" / left).parent.mkdir(exist_ok=True)
        (place / "private" / left).write_bytes(b"what a killed build left")
    for module, name, rows in (
        (spill, "BATCH", 64),
        (spill, "BLOCK", 150),
        (ledger, "BLOCK", 170),
        (ledger, "_RANGE", 100),
        (ledger, "_SOME", 7),
        (relations, "_BATCH", 90),
        (schema, "BATCH", 110),
    ):
        monkeypatch.setattr(module, name, rows)
    scale_build.last_stage(str(place))
    names = {path.relative_to(place) for path in place.rglob("*") if path.is_file()}
    assert names == {path.relative_to(large) for path in large.rglob("*") if path.is_file()}
    own = Path("private", ledger.NAME)  # its row groups are others
    assert {name for name in names if (place / name).read_bytes() != (large / name).read_bytes()} == {own}
    assert pq.read_table(place / own).equals(pq.read_table(large / own))


def _peak(template: Path, place: Path, rows: int) -> float:
    """Bytes at the peak of the last stage of a build of so many files, in a process of its own."""
    scale_build.make(str(template), str(place), rows)
    code = (
        "import json, sys; from benchmarks import scale_build; print(json.dumps(scale_build.last_stage(sys.argv[1])))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(place)], check=True, capture_output=True, text=True)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["files"] == rows
    return float(found["peak_mib"] * 2**20)


@pytest.mark.deep
def test_more_files_take_a_few_bytes_of_memory_each(dataset_folder: Path, tmp_path: Path) -> None:
    few, many = (_peak(dataset_folder, tmp_path / str(rows), rows) for rows in (5_000, 100_000))
    assert many - few < A_FILE * 95_000
