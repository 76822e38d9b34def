"""A manifest is read whole or into a spill, with the same checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pytest

from benchmarks import scale_data
from shardkit.dataset import contents, manifest, schema
from shardkit.errors import IntegrityError
from shardkit.storage import Store, spill


@pytest.fixture
def store(dataset_folder: Path, tmp_path: Path) -> Store:
    return Store(str(copytree(dataset_folder, tmp_path / "dataset", symlinks=True)))


@pytest.mark.parametrize("columns", [None, ["split", "key"]])
def test_a_spilled_manifest_is_the_manifest(
    columns: list[str] | None, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "BATCH", 4)
    monkeypatch.setattr(schema, "BATCH", 7)
    whole = contents.samples(store, columns)
    found = contents.spilled(store, tmp_path / "rows", columns)
    assert found.num_rows == whole.num_rows > 7
    assert found.slice(0, found.num_rows).equals(whole)


@pytest.mark.parametrize("where", [0.3, 0.6, None])
def test_a_damaged_manifest_is_refused_either_way(where: float | None, store: Store, tmp_path: Path) -> None:
    data = bytearray(store.get(manifest.NAME))
    if where is not None:
        data[int(where * len(data))] ^= 0xFF
    store.put(manifest.NAME, bytes(data if where is not None else data[:-100]))
    with pytest.raises(IntegrityError):
        contents.samples(store)
    with pytest.raises(IntegrityError):
        contents.spilled(store, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_a_manifest_of_other_values_is_refused_either_way(store: Store, tmp_path: Path) -> None:
    table = contents.samples(store)
    flags = pa.array([["orientation"]] * table.num_rows, pa.list_(pa.string()))
    manifest.write(table.set_column(table.schema.get_field_index("flags"), "flags", flags), store)
    with pytest.raises(IntegrityError, match=r"dataset\.json"):
        contents.samples(store)
    with pytest.raises(IntegrityError, match=r"dataset\.json"):
        contents.spilled(store, tmp_path / "rows")


def test_a_full_disk_is_not_said_to_be_damage_of_the_manifest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill.SpillWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        contents.spilled(store, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def _peak(template: Path, place: Path, rows: int) -> int:
    """Bytes at the peak of a process that copies a manifest of so many rows to a spill."""
    scale_data.write_index(str(template), str(place), rows)
    code = (
        "import sys; from pathlib import Path; from benchmarks import machine; from shardkit.storage import Store;"
        "from shardkit.dataset import contents, manifest; place = Path(sys.argv[1]);"
        "found = contents.spilled(Store(str(place)), place / 'rows', manifest.SCHEMA.names);"
        "print(found.num_rows, machine.peak_of_this_process())"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(place)], check=True, capture_output=True, text=True)
    found, peak = map(int, ran.stdout.split())
    assert found == rows
    return peak


@pytest.mark.deep
def test_a_manifest_of_any_size_is_copied_in_the_same_memory(dataset_folder: Path, tmp_path: Path) -> None:
    few, many = (_peak(dataset_folder, tmp_path / str(rows), rows) for rows in (40_000, 400_000))
    assert many - few < 100 * 360_000
