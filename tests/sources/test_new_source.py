"""A source of images that a newcomer adds in one file is built with verdicts, verified and loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Loader, Packed
from shardkit.build import ledger
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.dataset.verify import verify
from shardkit.errors import BuildError
from shardkit.sources import FileTree
from shardkit.storage import Store, parquet
from shardkit.synthetic.radiographs import radiograph
from shardkit.testing.sources import assert_image_source
from tests.one_process import build

ARRAYS = '''
"""A source in one file: NumPy arrays, whose patient is the name's first part."""
from io import BytesIO

import numpy as np

from shardkit.errors import Quarantined
from shardkit.privacy import Stated
from shardkit.sources.base import Decoded, Identity, ImageFacts, LoadedImage, OneImageAFile


class Arrays(OneImageAFile):
    KIND = "arrays"

    def inspect(self, entry):
        with self.files.open(entry.path, entry.size) as file:
            return facts(entry, file)

    def load(self, entry, data):
        found, array = facts(entry, BytesIO(data)), None
        return LoadedImage(found, Stated(body_part="chest", view="Jane Doe"), lambda invert: decoded(data))


def facts(entry, file):
    try:
        version = np.lib.format.read_magic(file)
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        raise Quarantined("not_dicom", "not a NumPy array: remove it from the export") from None
    patient = entry.path.partition(b"_")[0].decode()
    identity = Identity(image=entry.path.decode(), patient=patient, study=patient)
    return ImageFacts(height=shape[0], width=shape[1], bits=12, modality="DX", identity=identity)


def decoded(data):
    try:
        return Decoded(pixels=np.load(BytesIO(data)), bits=12, decoder=f"numpy {np.__version__}")
    except ValueError:
        raise Quarantined("truncated", "the array is cut short") from None
'''


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A source of one file, and an export of it: six images, one cut short, one that is no array."""
    (tmp_path / "arrays_source.py").write_text(ARRAYS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "arrays_source", raising=False)
    export = tmp_path / "export"
    export.mkdir()
    for number in range(6):
        rng = np.random.default_rng(number)
        height, width = (90, 70) if number % 2 else (64, 120)
        np.save(export / f"P{number // 2}_{number}.npy", radiograph(height, width, 12, rng, "chest"))
    whole = (export / "P0_0.npy").read_bytes()
    (export / "P3_cut.npy").write_bytes(whole[:-20])
    (export / "notes.txt").write_text("no array")
    return importlib.import_module("arrays_source")


def test_a_source_of_one_file_is_built_labelled_with_verdicts_and_loaded(arrays: Any, tmp_path: Path) -> None:
    export, private, out = tmp_path / "export", tmp_path / "private", str(tmp_path / "out")
    assert_image_source(arrays.Arrays(FileTree(str(export))), least=6)
    build(BuildConfig.of(str(export), out, private, bins="auto:2", workers=1, images=arrays.Arrays))
    rows = parquet.read(private / ledger.NAME).to_pylist()
    assert {row["path"]: row["reason"] for row in rows if row["verdict"] == "quarantined"} == {
        "P3_cut.npy": "truncated", "notes.txt": "not_dicom",
    }  # fmt: skip
    store = Store(out)
    facts, samples = contents.description(store), contents.samples(store).to_pylist()
    assert len(samples) == 6
    assert len({sample["patient"] for sample in samples}) == 3
    assert {(s["body_part"], s["view"], s["modality"], s["transfer_syntax"]) for s in samples} == {
        ("CHEST", None, "DX", None)
    }
    found = {contents.image(store, sample, facts).tobytes() for sample in samples}
    assert found == {np.load(path).tobytes() for path in export.glob("P[0-2]*.npy")}
    assert [*verify(out, True, 1)][:-1] == []
    with pytest.raises(
        BuildError, match="built from arrays files, not dicom: build it again from Python with the images="
    ):
        build(BuildConfig.of(str(export), out, private, bins="auto:2", workers=1))
    again = BuildConfig.of(str(export), out, private, bins="auto:2", workers=1, images=arrays.Arrays)
    assert build(again).new_files == 0
    batches = list(Loader(out, batching=Packed(tokens=1 << 12, patch=16, per_step=1), split=None, device="cpu"))
    assert sum(int((batch.rows >= 0).sum()) for batch in batches) == 6
