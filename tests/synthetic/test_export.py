"""The synthetic export is deterministic, decodable where it should be, and broken where it says so."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest

from shardkit.synthetic.defects import DEFECTS
from shardkit.synthetic.export import Export, make_export, plan_export
from shardkit.synthetic.records import LOSSY, ImageSpec, radiograph_of, stored

STUDIES, SCALE, DEFECT_SHARE = 30, 0.08, 0.45
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    root = tmp_path_factory.mktemp("pacs")
    return root, make_export(root, STUDIES, defects=DEFECT_SHARE, scale=SCALE)


@pytest.fixture(scope="module")
def plan() -> tuple[ImageSpec, ...]:
    return plan_export(STUDIES, defects=DEFECT_SHARE, scale=SCALE)


def _of(plan: tuple[ImageSpec, ...], defect: str) -> ImageSpec:
    return next(spec for spec in plan if spec.defect == defect)


def _tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path: Path) -> None:
    exports = [
        make_export(tmp_path / name, 6, seed=seed, defects=0.4, scale=SCALE, workers=workers)
        for name, seed, workers in (("one", 3, 1), ("two", 3, 2), ("other", 4, 1))
    ]
    assert exports[0] == exports[1] != exports[2]
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two") != _tree(tmp_path / "other")


def test_every_file_on_disk_is_listed_once(made: tuple[Path, Export]) -> None:
    root, export = made
    paths = [f.path for f in export.files]
    assert paths == sorted(set(paths)) == list(_tree(root))


def test_sound_files_decode_to_the_intended_pixels(made: tuple[Path, Export], plan: tuple[ImageSpec, ...]) -> None:
    seen: Counter[str] = Counter()
    for spec in plan:
        if spec.defect:
            continue
        dataset = pydicom.dcmread(made[0] / spec.path)
        assert dataset.file_meta.TransferSyntaxUID == spec.syntax
        want, got = stored(spec, radiograph_of(spec)).astype(int), dataset.pixel_array.astype(int)
        tolerance = 12 if spec.syntax in LOSSY else 0
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
        assert min(got.shape) >= 64
        assert max(got.shape) <= 3072
        seen[spec.syntax] += 1
        seen[spec.photometric] += 1
    assert {uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian, uids.RLELossless} <= set(seen)
    assert {uids.JPEGLosslessSV1, uids.JPEGLSLossless, "MONOCHROME1", "MONOCHROME2"} <= set(seen)


def test_each_kind_of_defect_is_present_with_its_outcome(
    made: tuple[Path, Export], plan: tuple[ImageSpec, ...]
) -> None:
    outcome = {f.path: f for f in made[1].files}
    assert {spec.defect for spec in plan} == {"", *DEFECTS}
    for spec in plan:
        if spec.defect and spec.path in outcome:
            kind, got = DEFECTS[spec.defect], outcome[spec.path]
            assert (got.verdict, got.reason) == (kind.verdict, kind.reason)
            assert (got.repairs, got.flags) == (kind.repairs, kind.flags)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_share_of_defects_is_as_asked(share: float) -> None:
    plan = plan_export(60, defects=share)
    assert sum(bool(spec.defect) for spec in plan) / len(plan) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "defect",
    [
        "truncated_native",
        "truncated_frame",
        "broken_jpeg",
        "missing_rows",
        "huge_claim",
        "two_rows",
        "other_dimensions",
        "padded_j2k",
        "jpeg_sos",
        "empty",
        "text",
        "zip",
        "report",
        "no_pixels",
    ],
)
def test_what_should_not_decode_does_not(made: tuple[Path, Export], plan: tuple[ImageSpec, ...], defect: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - pydicom raises many kinds here
        _ = pydicom.dcmread(made[0] / _of(plan, defect).path).pixel_array


@pytest.mark.parametrize(
    ("defect", "find", "replacement"),
    [("padded_j2k", b"\xff\x64", b"\xff\xd9"), ("jpeg_sos", b"\x3f", b"\x3f")],
)
def test_repairable_streams_decode_after_the_known_repair(
    made: tuple[Path, Export], plan: tuple[ImageSpec, ...], defect: str, find: bytes, replacement: bytes
) -> None:
    spec = _of(plan, defect)
    dataset = pydicom.dcmread(made[0] / spec.path)
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    if defect == "padded_j2k":
        stream = stream[: stream.rindex(find)] + replacement
    else:
        at = stream.index(b"\xff\xda") + 8
        stream = stream[:at] + replacement + stream[at + 1 :]
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    error = np.abs(dataset.pixel_array.astype(int) - stored(spec, radiograph_of(spec)))
    assert error.max() == 0 if defect == "padded_j2k" else error.mean() < 40


def test_twins_share_what_they_claim_and_sort_after_their_original(
    made: tuple[Path, Export], plan: tuple[ImageSpec, ...]
) -> None:
    root = made[0]
    for name in ("duplicate_file", "duplicate_pixels", "near_duplicate", "for_processing", "uid_collision"):
        twin = _of(plan, name)
        family = [spec for spec in plan if not spec.defect and spec.study.folder == twin.study.folder]
        assert all(spec.path < twin.path for spec in family)
        if name == "uid_collision":
            original = next(spec for spec in family if spec.sop_uid == twin.sop_uid)
            assert original.seed != twin.seed
            continue
        original = next(spec for spec in family if spec.seed == twin.seed)
        first, second = (pydicom.dcmread(root / spec.path) for spec in (original, twin))
        assert (first.Rows, first.Columns, first.ViewPosition) == (
            second.Rows,
            second.Columns,
            second.ViewPosition,
        )
        if name == "duplicate_file":
            assert (root / original.path).read_bytes() == (root / twin.path).read_bytes()
            continue
        assert first.SOPInstanceUID != second.SOPInstanceUID
        error = np.abs(first.pixel_array.astype(int) - second.pixel_array.astype(int)).max()
        assert {"duplicate_pixels": error == 0, "near_duplicate": 0 < error <= 2}.get(name, error > 100)
        if name == "for_processing":
            intents = (first.PresentationIntentType, second.PresentationIntentType)
            assert intents == ("FOR PRESENTATION", "FOR PROCESSING")


def test_identifiers_are_distinctive_and_planted(made: tuple[Path, Export], plan: tuple[ImageSpec, ...]) -> None:
    root, export = made
    assert min(len(text) for text in export.identifiers) >= 6
    haystack = b"\n".join(name.encode() + data for name, data in _tree(root).items())
    for spec in plan:  # deflated headers cannot be searched as they lie
        if spec.syntax == uids.DeflatedExplicitVRLittleEndian and spec.defect not in ("empty", "text", "zip"):
            haystack += str(pydicom.dcmread(root / spec.path)).encode()
    planted = [text for text in export.identifiers if text.encode() in haystack]
    assert len(planted) == len(export.identifiers)


def test_some_patients_come_back(plan: tuple[ImageSpec, ...]) -> None:
    visits = Counter(study.patient for study in {spec.study for spec in plan})
    assert max(visits.values()) > 1
    assert len(visits) > STUDIES // 3


def test_command_line_writes_the_export_and_its_truth(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "tools/make_export.py",
        str(tmp_path / "out"),
        "--studies",
        "4",
        "--scale",
        "0.05",
    ]
    command += ["--defects", "0.3", "--workers", "2", "--truth", str(tmp_path / "truth.csv")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    with (tmp_path / "truth.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == list(_tree(tmp_path / "out"))
    assert {row["verdict"] for row in rows} >= {"written", "quarantined"}
