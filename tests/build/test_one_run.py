"""One run at a time on a private folder and on a dataset; a dead run holds nothing; the private folder is closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shardkit.build import exclusive
from shardkit.build.transcode import Target, transcode
from shardkit.errors import BuildError
from shardkit.storage import Store, locks

HOLDING = """
import pathlib, sys, time
from shardkit.build import exclusive
from shardkit.storage import Store
exclusive.BEAT, exclusive.LAPSE = 0.2, 2.0
with exclusive.alone(pathlib.Path(sys.argv[1]) if sys.argv[1] else None, Store(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""
REFUSED = r"^another build is running \(.+, since 20\d\d-\d\d-\d\d \d\d:\d\d UTC\) on "


def _hold(private: Path | str, out: Path | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDING, str(private), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_run_on_a_private_folder_or_a_dataset_is_refused_and_goes_on_after_the_first_was_killed(
    bench: Any, made: Any, built_copy: Any, tmp_path: Path
) -> None:
    from shardkit.build.run import build

    arguments = bench.arguments(made.root, built_copy.out, built_copy.private)
    for private, out in ((built_copy.private, tmp_path / "x"), (tmp_path / "y", built_copy.out)):
        holder = _hold(private, out)
        with pytest.raises(BuildError, match=REFUSED):
            build(arguments)
        _kill(holder)
    assert build(arguments).new_files == 0
    assert not list(tmp_path.rglob(locks.NAME))[2:], "but for what the two killed runs left elsewhere"


def test_the_same_command_twice_at_once_makes_one_dataset_with_its_key(bench: Any, made: Any, tmp_path: Path) -> None:
    source = tmp_path / "export"
    bench.copy(made.root, source, [path for path, spec in made.specs.items() if not spec.defect][:3])
    words = ["build", "--source", source, "--out", tmp_path / "out", "--workers", "1", "--accept-outcome"]
    script = "from shardkit.cli import main; main()"
    command = [sys.executable, "-c", script, *map(str, words)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.returncode: err for process, (_, err) in [(p, p.communicate(timeout=120)) for p in both]}
    assert set(said) <= {0, 1}  # twice 0 where one ended before the other began
    assert 0 in said
    if 1 in said:
        assert "another build is running (" in said[1]
        assert len(said[1].strip().splitlines()) == 1
    assert bench.cli(*words).returncode == 0


def test_retry_and_convert_are_refused_while_another_run_works(
    bench: Any, made: Any, built_copy: Any, tmp_path: Path
) -> None:
    holder = _hold(built_copy.private, tmp_path / "elsewhere")
    words = ["--source", made.root, "--out", built_copy.out, "--private", built_copy.private]
    run = bench.cli("retry", "--class", "decode_error", *words)
    _kill(holder)
    assert (run.returncode, run.stderr.count("another build is running (")) == (1, 1)
    holder = _hold("", tmp_path / "converted")
    target = Target(str(tmp_path / "converted"), "webdataset", "png", 0, None)
    with pytest.raises(BuildError, match=REFUSED):
        transcode(str(built_copy.out), target, 1)
    _kill(holder)
    assert transcode(str(built_copy.out), target, 1).samples == built_copy.outcome.samples


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError), exclusive.alone(tmp_path / "a" / "private", Store(str(tmp_path / "b" / "out"))):
        raise BuildError("refused")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "BEAT", 0.2)
    monkeypatch.setattr(exclusive, "LAPSE", 2.0)


@pytest.fixture(scope="module")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="runs")
    return "s3://runs"


@pytest.mark.usefixtures("quick")
def test_a_bucket_is_held_while_its_run_lives_and_taken_over_when_it_is_dead(bucket: str, tmp_path: Path) -> None:
    store = Store(f"{bucket}/dataset")
    holder = _hold(tmp_path / "one", store.url)
    with pytest.raises(BuildError, match=REFUSED), exclusive.alone(tmp_path / "two", store):
        pass
    _kill(holder)
    began = time.monotonic()
    with exclusive.alone(tmp_path / "two", store):
        assert time.monotonic() - began >= exclusive.LAPSE
        with pytest.raises(BuildError, match=REFUSED), exclusive.alone(None, store):
            pass
    assert not store.exists(locks.NAME)


def test_a_killed_run_into_a_bucket_goes_on_at_once_with_its_private_folder(bucket: str, tmp_path: Path) -> None:
    store = Store(f"{bucket}/again")
    _kill(_hold(tmp_path / "one", store.url))
    began = time.monotonic()
    with exclusive.alone(tmp_path / "one", store):
        assert time.monotonic() - began < exclusive.LAPSE / 2
    assert not store.exists(locks.NAME)


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_taken_over_ends(bucket: str, tmp_path: Path) -> None:
    store = Store(f"{bucket}/lost")
    with exclusive.alone(tmp_path / "one", store) as held:
        held.check()
        store.put(locks.NAME, b'{"host": "other", "since": "today", "token": "x"}')
        for _ in range(100):
            if held.lost:
                break
            time.sleep(0.05)
        with pytest.raises(BuildError, match="taken over"):
            held.check()
    assert store.exists(locks.NAME), "the other run's"


def _open(private: Path) -> list[str]:
    """What others could read."""
    return [str(path) for path in (private, *private.rglob("*")) if path.stat().st_mode & 0o077]


def test_the_private_folder_is_closed_whoever_made_it_and_whatever_the_umask(
    bench: Any, made: Any, built_copy: Any, tmp_path: Path
) -> None:
    source, private = tmp_path / "export", tmp_path / "fresh.private"
    bench.copy(made.root, source, [path for path, spec in made.specs.items() if not spec.defect][:6])
    private.mkdir(mode=0o755)
    private.chmod(0o755)
    for path in (built_copy.private, *built_copy.private.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = os.umask(0)
    try:
        process = bench.driver(bench.arguments(source, tmp_path / "fresh", private, workers=2))
        assert process.stdout is not None
        for line in process.stdout:
            assert _open(private) == [], line
        process.wait()
        bench.build(made.root, built_copy.out, built_copy.private)
    finally:
        os.umask(before)
    assert len(list(private.rglob("*"))) > 8
    assert _open(private) == []
    assert _open(built_copy.private) == []
    assert (tmp_path / "fresh" / "dataset.json").stat().st_mode & 0o044, "the dataset is for others to read"
    shutil.rmtree(private)
