"""A converted dataset has the pixels and facts of the one it was made from, in either direction and after a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shardkit import formats
from shardkit.build import transcode
from shardkit.build.transcode import Done, Target
from shardkit.dataset import contents
from shardkit.dataset.sample_row import StorageColumns
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import ArgumentError, BuildError, IntegrityError
from shardkit.storage import Store

STORED = StorageColumns.__annotations__.keys() - {"key"}


def _target(out: Path, form: str, **changes: Any) -> Target:
    usual = {"codec": formats.codecs_of(formats.shard_format(form))[0], "levels": 2 if form == "zarr" else 0}
    return Target(str(out), form, **{**usual, "shard_bytes": 4 << 20, **changes})


def _by_key(place: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in contents.samples(Store(str(place))).to_pylist()}


def _problems(place: Path) -> list[str]:
    return [item for item in verify(str(place), True, 2) if not isinstance(item, Summary)]


def _tree(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def converted(real_dataset: Path, form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real radiographs, from shards of `form` to the other format."""
    out = tmp_path_factory.mktemp("converted") / "out"
    done = transcode.transcode(str(real_dataset), _target(out, _other(form)), 2)
    assert done.samples == len(_by_key(real_dataset))
    return out


def _other(form: str) -> str:
    return "zarr" if form == "webdataset" else "webdataset"


@pytest.mark.formats
def test_both_formats_verify_and_tell_the_same_of_every_sample(real_dataset: Path, converted: Path) -> None:
    assert _problems(converted) == []
    before, after = _by_key(real_dataset), _by_key(converted)
    assert before.keys() == after.keys()
    for key, row in before.items():
        assert {k: v for k, v in row.items() if k not in STORED} == {
            k: v for k, v in after[key].items() if k not in STORED
        }
    ours, theirs = (contents.description(Store(str(place))) for place in (converted, real_dataset))
    assert ours.converted_from == theirs.digest
    for name in ("bins", "patch", "samples", "splits", "verdicts", "pixels", "key_fingerprint"):
        assert getattr(ours, name) == getattr(theirs, name)


CRASH = """
import os, pathlib, signal, sys
from shardkit.build.transcode import Target, transcode

left, replace = [int(sys.argv[3])], pathlib.Path.replace
def step(*a):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*a)
pathlib.Path.replace = step
transcode(sys.argv[1], Target(sys.argv[2], *sys.argv[4:6], int(sys.argv[6]), 16 << 10), 1)
"""


@pytest.mark.formats
@pytest.mark.parametrize("crash", [9, pytest.param(40, marks=pytest.mark.deep)])
def test_a_killed_conversion_goes_on_and_gives_the_same_bytes(
    dataset_folder: Path, form: str, tmp_path: Path, crash: int
) -> None:
    target = _target(tmp_path / "out", _other(form), shard_bytes=16 << 10)
    words = [str(dataset_folder), target.out, str(crash), target.format, target.codec, str(target.levels)]
    killed = subprocess.run([sys.executable, "-c", CRASH, *words], timeout=60, check=False)
    assert killed.returncode == -9
    names = {name for name, _ in formats.listing(Store(target.out), formats.shard_format(target.format))}
    stamps = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names}
    done = transcode.transcode(str(dataset_folder), target, 2)
    assert done.kept > 0
    kept = [name for name, stamp in stamps.items() if (tmp_path / "out" / name).stat().st_mtime_ns == stamp]
    assert len(kept) >= done.kept * (target.levels + 1)
    whole = _target(tmp_path / "whole", target.format, shard_bytes=16 << 10)
    assert transcode.transcode(str(dataset_folder), whole, 1).kept == 0
    assert _tree(tmp_path / "out") == _tree(tmp_path / "whole")
    assert transcode.transcode(str(dataset_folder), target, 2) == Done(done.samples, done.shards, done.shards)


def test_a_place_that_holds_something_else_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    transcode.transcode(str(dataset_folder), _target(out, "zarr"), 2)
    before = _tree(out)
    for other in (
        _target(out, "zarr", levels=1),
        _target(out, "webdataset"),
        _target(out, "zarr", shard_bytes=1 << 20),
    ):
        with pytest.raises(BuildError, match="holds another dataset"):
            transcode.transcode(str(dataset_folder), other, 2)
    assert _tree(out) == before
    (out / "dataset.json").unlink()
    with pytest.raises(BuildError, match="shards of something else"):
        transcode.transcode(str(dataset_folder), _target(out, "webdataset"), 2)
    begun = {"digest": "another", "arguments": {}}
    Store(str(out)).put(".build/convert.json", json.dumps(begun).encode())
    with pytest.raises(BuildError, match="another unfinished conversion"):
        transcode.transcode(str(dataset_folder), _target(out, "zarr"), 2)
    for inside in (dataset_folder, dataset_folder / "x", dataset_folder.parent):
        with pytest.raises(ArgumentError, match="in one another"):
            transcode.transcode(str(dataset_folder), _target(inside, "zarr"), 2)


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ("webdataset", {"codec": "blosc"}),
        ("webdataset", {"levels": 1}),
        ("zarr", {"codec": "png"}),
        ("zarr", {"levels": 6}),
        ("tfrecord", {"codec": "png", "levels": 0}),
    ],
    ids=str,
)
def test_codecs_and_levels_that_a_format_does_not_have_are_refused(
    dataset_folder: Path, tmp_path: Path, other: str, changes: dict[str, Any]
) -> None:
    target = Target(str(tmp_path / "out"), other, **{"codec": "blosc", "levels": 0, "shard_bytes": None, **changes})
    with pytest.raises(ArgumentError):
        transcode.transcode(str(dataset_folder), target, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.formats
def test_damage_in_the_source_ends_the_conversion_by_name(dataset_folder: Path, form: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset_folder, copy)
    row = next(iter(_by_key(copy).values()))
    data = bytearray((copy / row["shard"]).read_bytes())
    data[row["offset"] + row["length"] // 2] ^= 1
    (copy / row["shard"]).write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=row["key"]):
        transcode.transcode(str(copy), _target(tmp_path / "out", _other(form)), 2)
    assert not (tmp_path / "out" / "dataset.json").exists()
