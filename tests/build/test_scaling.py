"""The last stage of a build looks through all samples a fixed number of times, into however many pieces they come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from benchmarks import scale_build
from shardkit.build import scan

ROWS = 1200
A_FILE = 1500
"""Bytes of memory that a file may take up to 100,000: blocks of rows, whose number does not grow from there on."""


def _searches(template: Path, place: Path, shard: int, part: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a table is made of about all samples, which takes longer than to look something up in it."""
    count = 0

    def counted(name: str) -> Any:
        search = getattr(pc, name)

        def looked_up(values: Any, value_set: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += len(value_set) > ROWS // 2
            return search(values, value_set, *arguments, **options)

        return looked_up

    with monkeypatch.context() as patched:
        patched.setattr(scale_build, "SHARD", shard)
        patched.setattr(scan, "PART", part)
        scale_build.make(str(template), str(place), ROWS)
        for name in ("index_in", "is_in"):
            patched.setattr(pc, name, counted(name))
        found = scale_build.last_stage(str(place))
    assert found["files"] == ROWS
    assert 0.9 * ROWS < found["samples"] < ROWS
    return count


def test_more_shards_and_scan_parts_mean_no_more_searches_of_all_samples(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = _searches(dataset_folder, tmp_path / "few", 400, 600, monkeypatch)
    many = _searches(dataset_folder, tmp_path / "many", 40, 60, monkeypatch)
    assert few == many


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
