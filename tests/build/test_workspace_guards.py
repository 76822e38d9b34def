"""What belongs together stays so: a dataset and its private folder, an export and its names, a study and its split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from shardkit.build import scan
from shardkit.dataset import contents
from shardkit.errors import BuildError
from shardkit.sources.files import FileTree
from shardkit.storage import Store
from tests.one_process import build


def _plain(made: Any) -> list[str]:
    """Sound uncompressed files, of several patients."""
    return [
        p
        for p, spec in made.specs.items()
        if not spec.defect and spec.syntax == ExplicitVRLittleEndian and spec.bits > 8
    ]


def _variant(source: Path, target: Path, **tags: Any) -> None:
    """A copy with other pixels and UIDs, and with tags replaced, or removed where None."""
    data = pydicom.dcmread(source)
    pixels = np.flip(data.pixel_array).copy()
    data.PixelData = pixels.tobytes()
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[target.name])
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    target.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(target)


def test_the_private_folder_of_another_dataset_is_refused(bench: Any, made: Any, tmp_path: Path) -> None:
    paths = _plain(made)[:6]
    bench.copy(made.root, tmp_path / "a", paths[:3])
    bench.copy(made.root, tmp_path / "b", paths[3:])
    first = bench.build(tmp_path / "a", tmp_path / "out a", tmp_path / "private a")
    bench.build(tmp_path / "b", tmp_path / "out b", tmp_path / "private b")
    before = bench.tree(first.out)
    with pytest.raises(BuildError, match="another dataset"):
        build(bench.arguments(tmp_path / "b", tmp_path / "out a", tmp_path / "private b"))
    with pytest.raises(BuildError, match="belongs to the dataset at"):
        build(bench.arguments(tmp_path / "a", tmp_path / "out c", tmp_path / "private a"))
    assert bench.tree(first.out) == before
    assert not (tmp_path / "out c").exists()


def test_a_finished_dataset_may_be_moved(bench: Any, made: Any, tmp_path: Path) -> None:
    bench.copy(made.root, tmp_path / "export", _plain(made)[:3])
    first = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    first.out.rename(tmp_path / "elsewhere")
    bench.copy(made.root, tmp_path / "export", _plain(made)[3:5])
    again = bench.build(tmp_path / "export", tmp_path / "elsewhere", tmp_path / "private")
    assert (again.outcome.new_files, again.outcome.samples) == (2, 5)


def test_another_export_is_refused_unless_it_is_said_to_have_moved(bench: Any, made: Any, tmp_path: Path) -> None:
    bench.copy(made.root, tmp_path / "export", _plain(made)[:3])
    bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    (tmp_path / "export").rename(tmp_path / "mount")
    with pytest.raises(BuildError, match="--source-moved"):
        build(bench.arguments(tmp_path / "mount", tmp_path / "out", tmp_path / "private"))
    moved = bench.arguments(tmp_path / "mount", tmp_path / "out", tmp_path / "private", source_moved=True)
    assert build(moved).new_files == 0
    assert build(bench.arguments(tmp_path / "mount", tmp_path / "out", tmp_path / "private")).missing == 0


def test_changed_bins_in_a_file_are_refused_and_its_place_does_not_matter(
    bench: Any, made: Any, tmp_path: Path
) -> None:
    bench.copy(made.root, tmp_path / "export", _plain(made)[:3])
    bins = tmp_path / "bins.json"
    bins.write_text(json.dumps([[240, 240], [3072, 3072]]))
    built = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private", bins=str(bins))
    assert str(tmp_path) not in (built.out / "dataset.json").read_text()
    moved = bins.rename(tmp_path / "other.json")
    assert bench.build(tmp_path / "export", built.out, built.private, bins=str(moved)).outcome.new_files == 0
    moved.write_text(json.dumps([[480, 480], [3072, 3072]]))
    with pytest.raises(BuildError, match="--bins was"):
        build(bench.arguments(tmp_path / "export", built.out, built.private, bins=str(moved)))


def test_files_that_come_while_a_scan_is_interrupted_are_told_from_the_others(
    bench: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(file.path for file in made.export.files)
    late, early = paths[:3], paths[3:30]
    bench.copy(made.root, tmp_path / "export", early)
    bench.seed_key(tmp_path / "private")
    monkeypatch.setattr(scan, "PART", 8)

    class Stops:
        def stage(self, name: str, total: int | None) -> None: ...
        def converted(self, done: Any) -> None: ...
        def scanned(self, files: int) -> None:
            if list((tmp_path / "private" / "g000" / "scan").glob("*.parquet")):
                raise KeyboardInterrupt

    arguments = bench.arguments(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    with pytest.raises(KeyboardInterrupt):
        build(arguments, Stops())
    bench.copy(made.root, tmp_path / "export", late)
    resumed = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    parts = sorted((resumed.private / "g000" / "scan").glob("*.parquet"))
    serials = [s for part in parts for s in pq.ParquetFile(part).read(["serial"])["serial"].to_pylist()]
    assert sorted(serials) == list(range(len(early) + len(late)))
    bench.copy(made.root, tmp_path / "whole", early + late)
    whole = bench.build(tmp_path / "whole", tmp_path / "out 2", tmp_path / "private 2")
    verdicts = {path: (row["verdict"], row["sha256"]) for path, row in whole.ledger().items()}
    assert {path: (row["verdict"], row["sha256"]) for path, row in resumed.ledger().items()} == verdicts


def test_a_study_shares_a_split_though_some_of_its_files_name_no_patient(bench: Any, made: Any, tmp_path: Path) -> None:
    for number, path in enumerate(_plain(made)[:12]):
        study = generate_uid(entropy_srcs=[str(number)])
        for name, patient in (("with", f"PERSON-{number}"), ("without", None), ("mistyped", f"PERSON-{number}x")):
            target = tmp_path / "export" / f"{number}-{name}.dcm"
            _variant(made.root / path, target, PatientID=patient, StudyInstanceUID=study, InstanceNumber=number)
            data = pydicom.dcmread(target)
            data.PixelData = np.roll(data.pixel_array, len(name), axis=0).tobytes()
            data.save_as(target)
    samples = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private").samples()
    splits: dict[str, set[str]] = {}
    for row in samples:
        splits.setdefault(row["study"], set()).add(row["split"])
    assert len(splits) == 12
    assert len({row["patient"] for row in samples}) == 36
    assert all(len(found) == 1 for found in splits.values())


def test_dropped_near_duplicates_name_what_was_kept_and_tie_its_patient(bench: Any, made: Any, tmp_path: Path) -> None:
    source = made.root / _plain(made)[0]
    data = pydicom.dcmread(source)
    bench.copy(made.root, tmp_path / "export", [_plain(made)[0]])
    for number in range(6):
        data.PatientID = f"OTHER-{number}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        pixels = data.pixel_array.copy()
        pixels[number, 5] ^= 1
        data.PixelData = pixels.tobytes()
        data.save_as(tmp_path / "export" / f"near{number}.dcm")
    built = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private", near_duplicates="drop")
    (kept,) = built.samples()
    dropped = [row for row in built.ledger().values() if row["reason"] == "duplicate_near"]
    assert len(dropped) == 6
    assert {row["key"] for row in dropped} == {kept["key"]}
    links = pq.ParquetFile(built.private / "g000" / "links.parquet").read()
    assert links.num_rows == 6
    assert all(kept["patient"] in (row["a"], row["b"]) for row in links.to_pylist())


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_to_itself_costs_no_other_file_its_row(tmp_path: Path, follow: bool) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.dcm").write_bytes(b"a")
    (tmp_path / "d" / "self").symlink_to("self")
    (tmp_path / "d" / "up").symlink_to(tmp_path)
    kinds = {entry.path: entry.kind for entry in FileTree(str(tmp_path), follow).list()}
    loop = "loop" if follow else "symlink"
    assert kinds == {b"d/a.dcm": "file", b"d/self": "endless_link", b"d/up": loop}


def test_sweeping_a_store_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "shards").mkdir()
    for name in ("mine/.notes.tmp", ".other.tmp", ".dataset.json.7.tmp", "shards/.x.tar.7.tmp"):
        (tmp_path / name).touch()
    contents.sweep(Store(str(tmp_path)))
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"mine/.notes.tmp", ".other.tmp"}


@pytest.mark.parametrize("follow", [False, True])
def test_what_a_link_leads_to_decides_what_is_said_of_it(tmp_path: Path, follow: bool) -> None:
    export, outside = tmp_path / "export", tmp_path / "outside"
    export.mkdir()
    outside.mkdir()
    (outside / "b.dcm").write_bytes(b"b")
    targets = {
        "file": "../outside/b.dcm",
        "folder": "../outside",
        "gone": "nowhere",
        "below": "file/x",
        "back": "forth",
    }
    for name, target in {**targets, "forth": "back"}.items():
        (export / name).symlink_to(target)
    kinds = {entry.path: entry.kind for entry in FileTree(str(export), follow).list()}
    there = {b"file": "file", b"folder/b.dcm": "file"} if follow else {b"file": "symlink", b"folder": "symlink"}
    nowhere = dict.fromkeys((b"gone", b"below"), "broken_link") | dict.fromkeys((b"back", b"forth"), "endless_link")
    assert kinds == {**there, **nowhere}


def test_a_path_that_is_too_long_is_said_to_be_and_costs_no_other_file_its_row(tmp_path: Path) -> None:
    (tmp_path / "z.dcm").write_bytes(b"z")
    part, folder = "d" * 200, os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):  # no system call takes more than 4,096 bytes at once
        os.mkdir(part, dir_fd=folder)
        below = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    entries = list(FileTree(str(tmp_path)).list())
    assert [entry.kind for entry in entries] == ["too_long", "file"]
    assert part.encode() in entries[0].path
