"""The plan of shards: sizes near the target, the same for any cut of the rows, twins left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.build import shard_plan
from shardkit.build.scan_rows import SCHEMA
from shardkit.dataset.bins import Bin, Bins

BINS = Bins((Bin(480, 480), Bin(960, 480), Bin(960, 960)), 48)


def _row(serial: int, rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {"serial": serial, "path": f"f{serial}".encode(), "size": 100, "repairs": [], "flags": []}
    row |= {"height": int(rng.integers(100, 960)), "width": int(rng.integers(100, 960)), "plain": True}
    row |= {"estimate": int(rng.integers(1_000, 9_000)), "order": int(rng.integers(0, 2**63)), "sop": f"s{serial}"}
    return row | changes


def _parts(folder: Path, rows: list[dict[str, Any]], cuts: list[int]) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        paths.append(folder / f"{number:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(rows[start:end], SCHEMA), paths[-1])
    return paths


def _make(
    folder: Path, parts: list[Path], earlier: list[Path] | None = None, **changes: Any
) -> shard_plan.GenerationPlan:
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"bins": BINS, "numbers": {}, "shard_bytes": 100_000} | changes
    return shard_plan.make(folder, parts, earlier or [], **options)


def _contents(plan: shard_plan.GenerationPlan) -> dict[str, list[int]]:
    return {shard.name: [row["serial"] for row in plan.task(shard).files] for shard in plan.shards}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    rows = [_row(i, rng) for i in range(600)]
    for row in rows[::37]:
        row |= {"verdict": "quarantined", "reason": "truncated", "height": 0, "width": 0}
    return rows


def test_every_accepted_file_is_in_one_shard_of_its_bin(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, [100]))
    accepted = [row["serial"] for row in rows if row["verdict"] is None]
    assert sorted(serial for serials in _contents(plan).values() for serial in serials) == accepted
    assert plan.files == len(accepted)
    for shard in plan.shards:
        files = plan.task(shard).files
        assert len(files) == shard.files
        heights, widths = ([row[k] for row in files] for k in ("height", "width"))
        assert {BINS.bins[i] for i in BINS.assign(heights, widths)} == {shard.bin}
        assert shard.name.startswith(f"shards/{shard.bin.name}/")


def test_shards_come_near_their_size(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, []))
    sizes: dict[str, list[int]] = {}
    for shard in plan.shards:
        sizes.setdefault(shard.bin.name, []).append(sum(row["estimate"] for row in plan.task(shard).files))
    assert max(len(found) for found in sizes.values()) >= 5
    for found in sizes.values():
        if len(found) > 1:
            assert max(found) <= 1.6 * 100_000
            assert min(found) >= 0.6 * 100_000
            assert max(found) - min(found) <= 2 * 9_000


@pytest.mark.parametrize("cuts", [[], [1], [300], [0, 50, 50, 599], list(range(20, 600, 20))])
def test_the_plan_is_the_same_for_any_cut_of_the_rows(
    rows: list[dict[str, Any]], tmp_path: Path, cuts: list[int]
) -> None:
    reference = _make(tmp_path / "a", _parts(tmp_path / "one", rows, []))
    plan = _make(tmp_path / "b", _parts(tmp_path / "many", rows, cuts))
    assert _contents(plan) == _contents(reference)
    assert (tmp_path / "a" / shard_plan.INDEX).read_bytes() == (tmp_path / "b" / shard_plan.INDEX).read_bytes()


def test_nothing_temporary_is_left(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, [100]))
    assert sorted(p.name for p in (tmp_path / "plan").iterdir()) == sorted(
        [shard_plan.PLAN, shard_plan.INDEX, shard_plan.TWINS]
    )


def test_copies_of_one_object_lie_side_by_side_in_one_shard(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [_row(i, rng, height=200, width=200, order=i // 2, estimate=10_000) for i in range(100)]
    rng.shuffle(rows)
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, [30]))
    assert len(plan.shards) > 5
    for serials in _contents(plan).values():
        assert serials == sorted(serials)
    together = [set(serials) for serials in _contents(plan).values()]
    cut = [i for i in range(0, 100, 2) if not any({i, i + 1} <= shard for shard in together)]
    assert len(cut) < len(plan.shards)


def test_shard_numbers_go_on_where_earlier_generations_ended(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, []), numbers={"0960x0480": 7})
    names = [shard.name for shard in plan.shards]
    assert "shards/0960x0480/00007" in names
    assert "shards/0960x0480/00000" not in names
    assert "shards/0480x0480/00000" in names


def _twins(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = [_row(i, rng) for i in range(6)]
    rows[0] |= {"presentation": "FOR PROCESSING", "twin": "t1"}
    rows[1] |= {"presentation": "FOR PRESENTATION", "twin": "t1"}
    rows[2] |= {"presentation": "FOR PROCESSING", "twin": "t2"}  # its twin is not there
    rows[3] |= {"presentation": "FOR PROCESSING", "twin": None}
    rows[4] |= {"presentation": "FOR PRESENTATION", "twin": None}
    rows[5] |= {"twin": "t1"}
    return rows


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3, 4]])
def test_only_a_raw_image_whose_processed_twin_is_there_is_left_out(tmp_path: Path, cuts: list[int]) -> None:
    rows = _twins(np.random.default_rng(2))
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, cuts))
    assert sorted(s for serials in _contents(plan).values() for s in serials) == [1, 2, 3, 4, 5]
    assert pq.read_table(tmp_path / "plan" / shard_plan.TWINS)["serial"].to_pylist() == [0]


def test_a_processed_twin_of_an_earlier_generation_counts_and_a_quarantined_one_does_not(tmp_path: Path) -> None:
    rows = _twins(np.random.default_rng(2))
    rows[1]["verdict"] = "quarantined"
    plan = _make(tmp_path / "plan", _parts(tmp_path / "parts", rows, []))
    assert 0 in [s for serials in _contents(plan).values() for s in serials]
    earlier = _parts(
        tmp_path / "earlier",
        [_row(9, np.random.default_rng(3)) | {"presentation": "FOR PRESENTATION", "twin": "t2"}],
        [],
    )
    plan = _make(tmp_path / "later", _parts(tmp_path / "parts2", rows, []), earlier)
    serials = [s for serials in _contents(plan).values() for s in serials]
    assert 2 not in serials
    assert 9 not in serials


def test_a_larger_image_adds_the_catch_all_once(tmp_path: Path) -> None:
    assert shard_plan.extend(BINS, np.array([900]), np.array([900]), 3000) == BINS
    grown = shard_plan.extend(BINS, np.array([961]), np.array([10]), 3000)
    assert set(grown.bins) == {*BINS.bins, Bin(3024, 3024)}
    assert shard_plan.extend(grown, np.array([3000]), np.array([3000]), 3000) == grown
