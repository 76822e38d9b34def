"""New files become new shards; what was there stays as it was; what changed or vanished is said."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.build.scan_rows import path_hash
from shardkit.dataset import contents, manifest
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import IntegrityError


def _sound(made: Any) -> list[str]:
    return [path for path, spec in made.specs.items() if not spec.defect]


def _is_sound(out: Path) -> bool:
    return all(isinstance(item, Summary) for item in verify(str(out), True, 2))


@pytest.fixture(scope="module")
def grown(bench: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A build of half the export, and what it is after the other half came."""
    place = tmp_path_factory.mktemp("grown")
    paths = [file.path for file in made.export.files]
    random.Random(3).shuffle(paths)
    half = len(paths) // 2
    bench.copy(made.root, place / "export", paths[:half])
    first = bench.build(place / "export", place / "out", place / "private")
    before = {
        "samples": first.samples(),
        "ledger": first.ledger(),
        "tree": bench.tree(first.out),
        "identity": bench.identity(first.out),
        "bins": contents.description(first.store).bins.to_json(),
    }
    bench.copy(made.root, place / "export", paths[half:])
    second = bench.build(place / "export", place / "out", place / "private")
    return {"before": before, "now": second, "old": paths[:half], "new": paths[half:], "place": place}


@pytest.mark.formats
def test_new_files_become_new_shards_and_old_ones_are_not_touched(bench: Any, grown: Any) -> None:
    now, before = grown["now"], grown["before"]
    assert now.outcome.new_files == len(grown["new"])
    identity = bench.identity(now.out)
    assert {name: identity[name] for name in before["identity"]} == before["identity"]
    tree = bench.tree(now.out)
    assert {n: tree[n] for n in before["tree"] if n.startswith("shards/")} == {
        n: data for n, data in before["tree"].items() if n.startswith("shards/")
    }
    assert set(identity) > set(before["identity"])
    assert _is_sound(now.out)


@pytest.mark.formats
def test_the_manifest_is_the_old_one_and_the_new_rows(grown: Any) -> None:
    joint = ("flags", "group", "split")
    samples = grown["now"].samples()
    old = samples[: len(grown["before"]["samples"])]
    for before, now in zip(grown["before"]["samples"], old, strict=True):
        assert {k: v for k, v in before.items() if k not in joint} == {k: v for k, v in now.items() if k not in joint}
    assert len({row["key"] for row in samples}) == len(samples)
    assert len({row["pixel_hash"] for row in samples}) == len(samples)


def test_a_patient_keeps_the_split_or_moves_towards_training(grown: Any) -> None:
    rank = {"train": 0, "val": 1, "test": 2}
    before = {row["patient"]: row["split"] for row in grown["before"]["samples"]}
    now = {row["patient"]: row["split"] for row in grown["now"].samples()}
    moved = {p for p in before if rank[now[p]] != rank[before[p]]}
    assert all(rank[now[p]] < rank[before[p]] for p in moved)
    linked = {row["patient"] for row in grown["now"].samples() if row["group"]}
    assert moved <= linked


@pytest.mark.formats
def test_the_grown_dataset_holds_the_images_of_one_built_at_once(made: Any, grown: Any, built: Any) -> None:
    """And raw images whose processed twin came later: a sample is never taken back."""
    once, now = ({row["pixel_hash"] for row in b.samples()} for b in (built, grown["now"]))
    raw = sum(spec.defect == "for_processing" for spec in made.specs.values())
    assert once <= now
    assert len(now - once) <= raw


def test_no_file_is_dropped_and_kept_under_another_reason_than_in_one_build(made: Any, grown: Any, built: Any) -> None:
    """But for twins: which of two equal files is kept depends on which came first."""
    twins = {s.seed for s in made.specs.values() if s.defect.startswith(("duplicate", "for_processing"))}
    once, grown_now = built.ledger(), grown["now"].ledger()
    for path, spec in made.specs.items():
        if spec.seed not in twins:
            ours, theirs = ((r["verdict"], r["reason"], r["repairs"]) for r in (once[path], grown_now[path]))
            assert ours == theirs, path


@pytest.mark.formats
def test_a_rerun_without_new_files_changes_no_byte(bench: Any, grown: Any) -> None:
    now = grown["now"]
    before, identity, ledger = bench.tree(now.out), bench.identity(now.out), now.ledger()
    again = bench.build(grown["place"] / "export", now.out, now.private)
    assert again.outcome.new_files == 0
    assert bench.tree(now.out) == before
    assert bench.identity(now.out) == identity
    assert again.ledger() == ledger


@pytest.mark.formats
def test_a_copy_that_comes_later_is_dropped_and_names_the_sample_kept(
    bench: Any, made: Any, built: Any, built_copy: Any, tmp_path: Path
) -> None:
    source = tmp_path / "export"
    shutil.copytree(made.root, source, symlinks=True)
    original = _sound(made)[3]
    shutil.copy2(source / original, source / "AAA_copy")  # would come first in the listing
    before = built.ledger()
    again = bench.build(source, built_copy.out, built_copy.private, source_moved=True)
    row = again.ledger()["AAA_copy"]
    assert (row["verdict"], row["reason"]) == ("dropped", "duplicate_exact")
    assert (row["key"], row["shard"]) == (before[original]["key"], before[original]["shard"])
    assert bench.identity(built_copy.out).keys() == bench.identity(built.out).keys()
    assert again.outcome.samples == built.outcome.samples


@pytest.mark.formats
def test_an_image_larger_than_every_bin_gets_one(bench: Any, made: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from shardkit.synthetic.defects import file_bytes

    source = tmp_path / "export"
    sound = _sound(made)[:3]
    bench.copy(made.root, source, sound)
    first = bench.build(source, tmp_path / "out", tmp_path / "private")
    spec = replace(
        made.specs[sound[0]], height=700, width=650, seed=(9, 9), sop_uid="1.2.826.99.1", syntax="1.2.840.10008.1.2.1"
    )
    (source / "larger.dcm").write_bytes(file_bytes(spec))
    again = bench.build(source, tmp_path / "out", tmp_path / "private")
    row = again.ledger()["larger.dcm"]
    assert (row["verdict"], row["reason"]) == ("written", "ok")
    sample = next(r for r in again.samples() if r["key"] == row["key"])
    assert (sample["height"], sample["width"]) == (700, 650)
    assert sample["bin_height"] >= 700
    assert sample["bin_width"] >= 650
    old, new = ({tuple(b) for b in bins} for bins in _bins(first, again, tmp_path))
    assert (sample["bin_height"], sample["bin_width"]) in new
    assert old < new
    # Once there, it serves the next one; no bin is added twice.
    (source / "larger2.dcm").write_bytes(file_bytes(replace(spec, seed=(9, 10), sop_uid="1.2.826.99.2")))
    third = bench.build(source, tmp_path / "out", tmp_path / "private")
    assert {tuple(b) for b in contents.description(third.store).bins.to_json()} == new
    assert _is_sound(tmp_path / "out")


def _bins(first: Any, again: Any, place: Path) -> tuple[list[Any], list[Any]]:
    import json

    plan = json.loads((place / "private/g000/plan.json").read_text())
    return plan["bins"], contents.description(again.store).bins.to_json()


def test_changed_and_vanished_files_are_flagged_and_their_samples_stay(
    bench: Any, made: Any, built: Any, built_copy: Any, tmp_path: Path
) -> None:
    source = tmp_path / "export"
    shutil.copytree(made.root, source, symlinks=True)
    changed, vanished = _sound(made)[2], _sound(made)[5]
    with (source / changed).open("ab") as file:
        file.write(bytes(100))
    (source / vanished).unlink()
    before = bench.tree(built_copy.out)
    again = bench.build(source, built_copy.out, built_copy.private, source_moved=True)
    rows = again.ledger()
    assert [p for p, row in rows.items() if "source_changed" in (row["flags"] or ())] == [changed]
    assert [p for p, row in rows.items() if "source_missing" in (row["flags"] or ())] == [vanished]
    assert (again.outcome.changed, again.outcome.missing) == (1, 1)
    assert rows[changed]["verdict"] == rows[vanished]["verdict"] == "written"
    assert bench.tree(built_copy.out) == before
    # Back in place, the flags are gone.
    for path in (changed, vanished):
        shutil.copy2(made.root / path, source / path)
    back = bench.build(source, built_copy.out, built_copy.private)
    assert (back.outcome.changed, back.outcome.missing) == (0, 0)
    assert back.ledger() == built.ledger()


def test_only_what_vanished_is_flagged_when_new_files_come_at_the_same_time(
    bench: Any, made: Any, tmp_path: Path
) -> None:
    source = tmp_path / "export"
    sound = _sound(made)[:4]
    bench.copy(made.root, source, sound)
    bench.build(source, tmp_path / "out", tmp_path / "private")
    vanished = min(sound, key=lambda path: path_hash(path.encode()))
    (source / vanished).unlink()
    # Known files are looked up by a hash of their name: some of these lie just below the vanished one's.
    names = [f"new{i}.txt" for i in range(40)]
    assert min(path_hash(n.encode()) for n in names) < path_hash(vanished.encode())
    for name in names:
        (source / name).write_text("no image")
    again = bench.build(source, tmp_path / "out", tmp_path / "private")
    flagged = [p for p, row in again.ledger().items() if "source_missing" in (row["flags"] or ())]
    assert flagged == [vanished]
    assert again.outcome.missing == 1


def test_a_mended_file_is_taken_in_by_retry_and_is_not_called_changed(bench: Any, made: Any, tmp_path: Path) -> None:
    source, out, private = tmp_path / "export", tmp_path / "out", tmp_path / "private"
    sound = _sound(made)[:4]
    bench.copy(made.root, source, sound)
    good = (source / sound[0]).read_bytes()
    (source / sound[0]).write_bytes(b"not yet copied")
    first = bench.build(source, out, private)
    assert first.ledger()[sound[0]]["reason"] == "not_dicom"
    (source / sound[0]).write_bytes(good)
    identity = bench.identity(out)
    retried = bench.build(source, out, private, retry="not_dicom")
    assert retried.ledger()[sound[0]]["verdict"] == "written"
    assert Counter(row["verdict"] for row in retried.ledger().values()) == {"written": 4}
    assert identity.items() <= bench.identity(out).items()
    again = bench.build(source, out, private)
    assert again.outcome.changed == 0
    assert "source_changed" not in (again.ledger()[sound[0]]["flags"] or ())


def test_retry_of_a_file_that_is_still_bad_leaves_the_dataset_as_it_was(bench: Any, made: Any, built_copy: Any) -> None:
    before, identity = bench.tree(built_copy.out), bench.identity(built_copy.out)
    rows = built_copy.ledger()
    again = bench.build(made.root, built_copy.out, built_copy.private, retry="decode_error")
    assert again.ledger() == rows
    assert again.outcome.counts == built_copy.outcome.counts
    assert bench.tree(built_copy.out) == before
    assert bench.identity(built_copy.out) == identity


@pytest.mark.formats
def test_an_export_without_one_usable_file_ends_in_the_ledger_and_grows_later(
    bench: Any, made: Any, tmp_path: Path
) -> None:
    source = tmp_path / "export"
    source.mkdir()
    (source / "notes.txt").write_text("no image")
    first = bench.build(source, tmp_path / "out", tmp_path / "private")
    assert first.outcome.samples == 0
    assert first.ledger()["notes.txt"]["reason"] == "not_dicom"
    bench.copy(made.root, source, _sound(made)[:2])
    again = bench.build(source, tmp_path / "out", tmp_path / "private")
    assert again.outcome.samples == 2
    assert _is_sound(tmp_path / "out")


def test_scan_parts_of_all_generations_cover_every_file_once(grown: Any) -> None:
    parts = sorted(grown["now"].private.glob("g*/scan/*.parquet"))
    paths = [p.decode() for part in parts for p in pq.read_table(part)["path"].to_pylist()]
    assert sorted(paths) == sorted(grown["old"] + grown["new"])


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [("box_height", 1 << 20, "its content box"), ("shard", "../elsewhere/00000.tar", "names an object outside")],
)
def test_a_manifest_that_cannot_be_right_is_not_appended_to(
    bench: Any, made: Any, built_copy: Any, tmp_path: Path, column: str, value: Any, told: str
) -> None:
    samples = built_copy.samples()
    samples[0][column] = value
    manifest.write(pa.Table.from_pylist(samples, manifest.SCHEMA), built_copy.store)
    source = tmp_path / "more"
    shutil.copytree(made.root, source, symlinks=True)
    written = next(path for path, row in built_copy.ledger().items() if row["verdict"] == "written")
    shutil.copy2(source / written, source / "again.dcm")
    with pytest.raises(IntegrityError, match=f"manifest.parquet: row 0: .*{told}"):
        bench.build(source, built_copy.out, built_copy.private, source_moved=True)
