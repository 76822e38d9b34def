"""The same bytes on any number of workers, in any order of listing, after any crash; nothing converted twice."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from shardkit.dataset.bins import Bin
from shardkit.errors import ShardkitError


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and start time of every process that is alive, by its id."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                facts = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if facts[0] not in "ZX":
                found[int(process.name)] = (int(facts[1]), facts[19])
    return found


def _descendants(parent: int) -> dict[int, str]:
    """Start times of all processes below `parent`, by their ids."""
    alive, found, todo = _processes(), {}, [parent]
    while todo:
        above = todo.pop()
        for pid, (ppid, started) in alive.items():
            if ppid == above:
                found[pid] = started
                todo.append(pid)
    return found


def _gone(processes: dict[int, str]) -> bool:
    """Whether all of them are gone, the kernel given some time to end them."""
    for _ in range(100):
        alive = _processes()
        if not any(pid in alive and alive[pid][1] == started for pid, started in processes.items()):
            return True
        time.sleep(0.1)
    return False


def _read_until(process: subprocess.Popen[str], line: str) -> bool:
    assert process.stdout is not None
    return any(said.startswith(line) for said in process.stdout)


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.formats
def test_one_worker_gives_the_bytes_of_two(bench: Any, made: Any, built: Any, tmp_path: Path) -> None:
    alone = bench.build(made.root, tmp_path / "out", tmp_path / "private", workers=1)
    assert bench.tree(alone.out) == bench.tree(built.out)
    assert alone.ledger() == built.ledger()


def test_the_order_in_which_folders_were_made_changes_no_byte(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    paths = [file.path for file in made.export.files]
    random.Random(5).shuffle(paths)
    bench.copy(made.root, tmp_path / "elsewhere", paths)
    other = bench.build(tmp_path / "elsewhere", tmp_path / "out", tmp_path / "private")
    assert bench.tree(other.out) == bench.tree(built.out)
    assert other.ledger() == built.ledger()


def test_another_key_changes_names_and_order_but_no_image(bench: Any, made: Any, built: Any, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "pseudonym.key").write_bytes(bytes(range(32, 64)))
    other = bench.build(made.root, tmp_path / "out", tmp_path / "private")
    assert {row["pixel_hash"] for row in other.samples()} == {row["pixel_hash"] for row in built.samples()}
    for column in ("key", "patient", "study", "series", "device", "source"):
        ours, theirs = ({row[column] for row in b.samples()} - {None} for b in (built, other))
        assert not ours & theirs, column


@pytest.mark.formats
def test_nothing_of_a_build_is_left_in_the_dataset(built: Any) -> None:
    bins = {Bin(row["bin_height"], row["bin_width"]).name for row in built.samples()}
    wanted = {"shards"} if built.form == "webdataset" else {"zarr.json", *bins}
    assert {p.name for p in built.out.iterdir()} == {"dataset.json", "manifest.parquet", "report", *wanted}
    assert not [p for p in (*built.out.rglob("*"), *built.private.rglob("*")) if p.name.endswith(".tmp")]


@pytest.mark.formats
def test_some_shards_are_rewritten_for_duplicates_so_that_crashes_there_are_tested(built: Any) -> None:
    assert built.rewritten()
    assert len(built.before) >= 15


@pytest.mark.deep
@pytest.mark.formats
def test_a_build_killed_at_random_moments_goes_on_and_gives_the_same_bytes(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    out, private = tmp_path / "out", tmp_path / "private"
    bench.seed_key(private)
    arguments = bench.arguments(made.root, out, private, workers=2)
    chance, children = random.Random(1), 0
    kept: dict[str, tuple[int, int]] = {}
    for moment in ("stage scan", "stage convert", "converted", "stage assemble"):
        process = bench.driver(arguments)
        reached = _read_until(process, moment)
        time.sleep(chance.random() * (0.1 if "assemble" in moment else 0.8))
        below = _descendants(process.pid)
        children += len(below)
        _kill(process)
        assert _gone(below)
        now = bench.identity(out)
        _only_replaced(kept, now, built.rewritten())
        kept = now
        if not reached:  # the former run was killed too late to leave anything
            break
    assert children > 0, "no run was killed with children alive"
    finished = bench.build(made.root, out, private)
    _only_replaced(kept, bench.identity(out), built.rewritten())
    assert bench.tree(out) == bench.tree(built.out)
    assert finished.ledger() == built.ledger()
    assert not (out / ".build").exists()


@pytest.mark.parametrize(
    "shards", [pytest.param(2, marks=pytest.mark.deep), 4, pytest.param(7, marks=pytest.mark.deep)]
)
def test_an_interrupted_build_ends_and_goes_on_as_if_nothing_had_been(
    bench: Any, made: Any, built: Any, tmp_path: Path, shards: int
) -> None:
    out, private = tmp_path / "out", tmp_path / "private"
    bench.seed_key(private)
    process = bench.driver(bench.arguments(made.root, out, private, workers=2), stderr=subprocess.DEVNULL)
    for _ in range(shards):
        assert _read_until(process, "converted")
    below = _descendants(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        _kill(process)
        pytest.fail("Ctrl-C does not end the build")
    assert process.returncode != 0
    assert _gone(below)
    finished = bench.build(made.root, out, private)
    assert finished.ledger() == built.ledger()
    assert bench.tree(out) == bench.tree(built.out)


def _only_replaced(before: dict[str, Any], after: dict[str, Any], allowed: set[str]) -> None:
    changed = {name for name, identity in before.items() if after.get(name) != identity}
    assert changed <= allowed


@pytest.mark.formats
def test_a_finished_build_run_again_touches_nothing(bench: Any, made: Any, built_copy: Any) -> None:
    before, identity = bench.tree(built_copy.out), bench.identity(built_copy.out)
    again = bench.build(made.root, built_copy.out, built_copy.private)
    assert again.outcome.new_files == 0
    assert again.outcome.counts == built_copy.outcome.counts
    assert bench.tree(built_copy.out) == before
    assert bench.identity(built_copy.out) == identity


def test_journals_of_a_killed_build_hold_no_clear_text(bench: Any, made: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out, private = tmp_path / "out", tmp_path / "private"
    bench.seed_key(private)
    process = bench.driver(bench.arguments(made.root, out, private, workers=2))
    assert process.stdout is not None
    for _ in range(4):
        assert _read_until(process, "converted")
    _kill(process)
    journals = sorted((out / ".build").rglob("*.parquet"))
    assert journals
    hashes = {
        file.path: (hashed.hexdigest(), repr(hashed.digest())[2:-1])
        for file in made.export.files
        if (made.root / file.path).is_file()
        for hashed in (kind((made.root / file.path).read_bytes()) for kind in (hashlib.md5, hashlib.sha256))
    }
    for journal in journals:
        text = repr(pq.read_table(journal).to_pylist())
        assert not [word for word in made.export.identifiers if word in text]
        assert not [path for path, forms in hashes.items() if any(one in text for one in forms)]


@pytest.mark.formats
def test_digests_that_a_killed_build_could_not_keep_are_taken_again_without_converting(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    bench.seed_key(tmp_path / "private")
    _stop_after_conversion(bench, made.root, tmp_path)
    kept = sorted((tmp_path / "private" / "g000" / "digests").iterdir())
    assert kept
    for path in kept[::2]:
        path.unlink()
    before = bench.identity(tmp_path / "out")
    finished = bench.build(made.root, tmp_path / "out", tmp_path / "private")
    _only_replaced(before, bench.identity(tmp_path / "out"), built.rewritten())
    assert finished.before == {}, "a finished shard was converted again"
    assert finished.ledger() == built.ledger()


# ---- a crash before every single commit of the last stage, first build and appended one


def _crash_everywhere(bench: Any, source: Path, place: Path, scratch: Path, wanted: Path) -> list[str]:
    """Crash before each rename or removal after conversion, finish, compare; what was wrong after which crash."""
    problems: list[str] = []
    expected = bench.tree(wanted)
    # Zarr's many small arrays are commits like any other: a part of them will do, and all of the shards' own.
    for crash in range(1, 60) if bench.form == "webdataset" else [1, 2, 3, 4, 5, *range(6, 1000, 37)]:
        here = scratch / f"crash{crash}"
        shutil.copytree(place, here)
        process = bench.driver(bench.arguments(source, here / "out", here / "private", workers=2), crash_at=crash)
        process.communicate(timeout=60)
        if process.returncode == 0:
            assert crash > 10, "hardly any commit was interrupted"
            return problems
        assert process.returncode == -signal.SIGKILL
        try:
            bench.build(source, here / "out", here / "private")
        except ShardkitError as error:
            problems.append(f"before commit {crash}: the next run fails: {error}")
        tree = bench.tree(here / "out")
        differ = {name for name in tree.keys() | expected.keys() if tree.get(name) != expected.get(name)}
        if differ:
            problems.append(f"before commit {crash}: other files than of an uninterrupted build: {sorted(differ)}")
        shutil.rmtree(here)
    raise AssertionError("the build never ends")


def _stop_after_conversion(bench: Any, source: Path, place: Path) -> None:
    process = bench.driver(bench.arguments(source, place / "out", place / "private", workers=2))
    assert _read_until(process, "stage assemble")
    os.kill(process.pid, signal.SIGSTOP)
    _kill(process)


@pytest.fixture(scope="module")
def few(bench: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A part of the export whose duplicates lie in other shards than their originals, in two halves."""
    chosen = [s for s in made.specs.values() if s.defect in ("duplicate_pixels", "near_duplicate")]
    originals = [s for s in made.specs.values() if not s.defect and s.seed in {c.seed for c in chosen}]
    sound = [s for s in made.specs.values() if not s.defect and s not in originals][:6]
    first = [s.path for s in (*originals, *sound[:3])]
    second = [s.path for s in (*chosen, *sound[3:])]
    source = tmp_path_factory.mktemp("few") / "export"
    bench.copy(made.root, source, first)
    return source, first, second


@pytest.mark.deep
@pytest.mark.formats
def test_a_crash_before_any_commit_of_the_last_stage_is_mended(bench: Any, made: Any, few: Any, tmp_path: Path) -> None:
    _, first, second = few
    source = tmp_path / "export"
    bench.copy(made.root, source, [*first, *second])
    wanted = bench.build(source, tmp_path / "wanted", tmp_path / "wanted.private")
    assert wanted.rewritten()
    place = tmp_path / "stopped"
    bench.seed_key(place / "private")
    _stop_after_conversion(bench, source, place)
    assert _crash_everywhere(bench, source, place, tmp_path, wanted.out) == []


@pytest.mark.deep
@pytest.mark.formats
def test_a_crash_before_any_commit_of_an_append_is_mended(bench: Any, made: Any, few: Any, tmp_path: Path) -> None:
    _, first, second = few
    source, place = tmp_path / "export", tmp_path / "stopped"
    bench.copy(made.root, source, first)
    bench.build(source, place / "out", place / "private")
    bench.copy(made.root, source, second)
    shutil.copytree(place, tmp_path / "wanted")
    wanted = bench.build(source, tmp_path / "wanted/out", tmp_path / "wanted/private")
    _stop_after_conversion(bench, source, place)
    assert _crash_everywhere(bench, source, place, tmp_path, wanted.out) == []
