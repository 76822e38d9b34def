"""The ledgers of all generations become one, in ranges of paths as if all rows lay in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.build import ledger
from shardkit.build.scan_rows import path_hash
from shardkit.errors import BuildError
from shardkit.storage import parquet

WORDS = ("bits_unsure", "near_duplicate", "orientation")


def _rows(rng: np.random.Generator, paths: list[str]) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        verdict = str(rng.choice(ledger.VERDICTS))
        flags = [word for word in WORDS if rng.random() < 0.2]
        key = None if verdict == "quarantined" else f"k{rng.integers(60)}"
        rows.append(dict.fromkeys(ledger.SCHEMA.names) | {"path": path, "verdict": verdict, "reason": "r", "key": key})
        rows[-1]["flags"] = None if rng.random() < 0.1 else flags
    return rows


def _expected(generations: list[list[dict[str, Any]]], now: dict[str, list[str]], **gone: set[str]) -> pa.Table:
    """Do the same with dictionaries."""
    latest = {row["path"]: row for rows in generations for row in rows}
    out = []
    for path in sorted(latest):
        row = latest[path]
        flags = now.get(row["key"], row["flags"] or []) if row["verdict"] == "written" else row["flags"] or []
        out.append(row | {"flags": sorted({*flags, *(name for name, paths in gone.items() if path in paths)})})
    return pa.Table.from_pylist(out, ledger.SCHEMA)


@pytest.mark.parametrize("a_range", [1 << 17, 40, 7])
def test_a_path_has_its_latest_row_with_current_flags(
    a_range: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_RANGE", a_range)
    monkeypatch.setattr(ledger, "_SOME", 3)
    rng = np.random.default_rng(0)
    names = [f"{chr(97 + n % 5)}/ö{n * 7919 % 211:03d}" for n in range(200)]
    generations = [_rows(rng, names[:120]), _rows(rng, names[60:]), _rows(rng, names[190:])]
    paths = [tmp_path / f"{number}.parquet" for number in range(len(generations))]
    for path, rows in zip(paths, generations, strict=True):
        parquet.write(pa.Table.from_pylist(rows, ledger.SCHEMA), path)
    now = {f"k{n}": [word for word in WORDS if rng.random() < 0.3] for n in range(50)}
    samples = pa.table({"key": list(now), "flags": pa.array(list(now.values()), pa.list_(pa.string()))})
    changed, missing = set(names[::3]), set(names[::4])
    hashes = [np.array(sorted(path_hash(name.encode()) for name in gone), np.uint64) for gone in (changed, missing)]
    want = _expected(generations, now, source_changed=changed, source_missing=missing)
    counts = ledger.merge(paths, samples, hashes[0], hashes[1], tmp_path / "all.parquet", len(names))
    assert pq.read_table(tmp_path / "all.parquet").equals(want)
    assert counts == ledger.counts(want)
    parquet.write(want, tmp_path / "whole.parquet")
    same = (tmp_path / "all.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert same or a_range < len(names)
    assert not list(tmp_path.glob(".*"))


def test_a_ledger_that_does_not_add_up_replaces_none(tmp_path: Path) -> None:
    parquet.write(pa.Table.from_pylist(_rows(np.random.default_rng(0), ["a", "b"]), ledger.SCHEMA), tmp_path / "0")
    target, nothing = tmp_path / "ledger.parquet", np.zeros(0, np.uint64)
    target.write_bytes(b"before")
    samples = pa.table({"key": pa.array([], pa.string()), "flags": pa.array([], pa.list_(pa.string()))})
    with pytest.raises(BuildError, match="does not add up: 3 inputs"):
        ledger.merge([tmp_path / "0"], samples, nothing, nothing, target, 3)
    assert target.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"0", "ledger.parquet"}


def test_keys_whose_hashes_begin_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(keys: Any) -> Any:
        return np.array([[7, int(key[1:])] for key in keys.to_pylist()], np.uint64).reshape(-1, 2)

    monkeypatch.setattr(ledger, "_hashed", hashed)
    samples = pa.table({"key": ["k3", "k1", "k2"], "flags": [["c"], ["a"], ["b"]]})
    now = ledger.CurrentFlags(samples)
    names = list(now.words)
    found = [names[code] if code >= 0 else None for code in now.of(pa.chunked_array([["k2", None, "k1", "k4", "k3"]]))]
    assert found == ["b", None, "a", None, "c"]
