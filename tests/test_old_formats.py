"""What an earlier shardkit left is read, finished, appended to and trained on: formats on storage outlive the code.

`fixtures/format2.tar.xz` was made by the code before its modules were put in folders: a synthetic export, of whose 19
files the first 12 (`first.json`) were built as tars and as Zarr, a build of the same that was killed, and a run of each
dataset up to step 4 of 8 with the metrics of all eight.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.dataset.hashes import pixel_hash
from shardkit.dataset.verify import verify
from shardkit.storage import Store
from tests.one_process import build

ARCHIVE = Path(__file__).parent / "fixtures" / "format2.tar.xz"
BUILD: dict[str, Any] = {"bins": "auto:4", "shard_bytes": 64 << 10}
FORMS: dict[str, dict[str, Any]] = {"webdataset": {}, "zarr": {"format": "zarr", "codec": "blosc", "levels": 1}}
# Bytes of streams, and where they lie, may change with the version of a library. What they decode to may not.
STREAMS = ("offset", "length", "level_bytes", "level_hash", "level_offset")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked; the export without the files that came later lies in `first`."""
    root = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    for name in json.loads((root / "first.json").read_text()):
        (root / "first" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / "export" / name, root / "first" / name)
    return root


@pytest.fixture
def copy(old: Path, tmp_path: Path) -> Path:
    shutil.copytree(old, tmp_path / "old")
    return tmp_path / "old"


def _run(place: Path, *words: object) -> str:
    done = subprocess.run(list(map(str, words)), cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(place: Path, source: str, name: str, kind: str) -> pa.Table:
    """Build with the arguments of the archive's datasets; the manifest."""
    out = place / name / "out"
    options = {**FORMS[kind], **BUILD, "source_moved": True, "workers": 1}
    build(BuildConfig.of(str(place / source), str(out), place / name / "private", **options))
    assert [found for found in verify(str(out), True, 2) if isinstance(found, str)] == []
    return contents.samples(Store(str(out)))


def _facts(samples: pa.Table, *without: str) -> list[dict[str, Any]]:
    """All that is said of the samples, but for their streams."""
    rows = samples.drop_columns([n for n in samples.column_names if n in (*STREAMS, *without)]).to_pylist()
    return sorted(rows, key=lambda row: str(row["key"]))


@pytest.mark.parametrize("kind", FORMS)
def test_an_old_dataset_is_read_pixel_by_pixel(old: Path, kind: str) -> None:
    store = Store(str(old / kind / "out"))
    description = contents.description(store)
    rows = contents.samples(store).to_pylist()
    assert len(rows) == description.samples == 9
    for row in rows:
        assert pixel_hash(contents.image(store, row, description), row["bits"]) == row["pixel_hash"]


@pytest.mark.parametrize("kind", FORMS)
def test_an_old_dataset_takes_new_files_and_keeps_what_it_had(copy: Path, kind: str) -> None:
    before = contents.samples(Store(str(copy / kind / "out")))
    assert _facts(_build(copy, "first", kind, kind)) == _facts(before)
    after = _build(copy, "export", kind, kind)
    assert after.num_rows > before.num_rows
    had = set(before["key"].to_pylist())
    # Splits and links may follow from what came later.
    loose = ("split", "near_duplicate", "duplicate_of", "twin")
    assert [r for r in _facts(after, *loose) if r["key"] in had] == _facts(before, *loose)


def test_an_old_build_that_was_killed_is_finished_as_if_nothing_had_been(copy: Path) -> None:
    whole = contents.samples(Store(str(copy / "webdataset" / "out")))
    stopped = {p: p.stat().st_mtime_ns for p in (copy / "half" / "out" / "shards").rglob("*.tar")}
    assert len(stopped) == 3
    assert _facts(_build(copy, "first", "half", "webdataset")) == _facts(whole)
    assert all(p.stat().st_mtime_ns == at for p, at in stopped.items())


@pytest.mark.deep
def test_an_old_run_goes_on_with_the_same_losses(copy: Path) -> None:
    kind = "webdataset"

    def losses() -> list[float]:
        lines = map(json.loads, (copy / kind / "run" / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    before, config = losses(), json.loads((copy / kind / "run" / "run.json").read_text())["config"]
    typed = ["model.patch", "model.width", "model.depth", "model.heads", "model.decoder_width", "model.decoder_depth"]
    typed += ["model.decoder_heads", "loader.batching", "loader.split", "loader.threads", "run.steps", "save.every"]
    typed += ["log.pictures", "log.every", "optim.lr"]
    words = ["--model.no-norm-pix", *(word for name in typed for word in (f"--{name}", str(config[name])))]
    data = ["--recipe", "tiny", "--data", f"{kind}/out", "--out", f"{kind}/run", "--log.no-tensorboard"]
    said = _run(copy, sys.executable, "-m", "trainer", "pretrain", *data, *words)
    assert "step 5/8" in said
    assert "step 4/8" not in said
    assert len(before) == 8
    assert losses() == pytest.approx(before, rel=1e-4)
