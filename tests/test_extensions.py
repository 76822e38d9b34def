"""What a newcomer adds in one file works everywhere, with a line in its registry and no other change."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

from shardkit import Loader, codecs, config, formats
from shardkit.build import ledger
from shardkit.build.run import build
from shardkit.build.transcode import Target, transcode
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import ArgumentError
from shardkit.plan import Packed
from shardkit.sources import FileTree
from shardkit.storage import Store, parquet
from shardkit.synthetic.radiographs import radiograph
from shardkit.testing.codecs import assert_codec
from shardkit.testing.formats import assert_shard_format
from shardkit.testing.sources import assert_image_source

DEFLATED = '''
"""A codec in one file: rows of pixels, deflated."""
import zlib

import numpy as np

from shardkit.codecs import raw
from shardkit.errors import IntegrityError

NAME, EXTENSION, LEVELS_IN_STREAM, NEEDS_FRAME = "deflated", "npz1", (0, 0), False


def encode(pixels, frame=None):
    return zlib.compress(raw.encode(pixels), 1)


def prefixes(data):
    return [len(data)]


def check(data, frame):
    raw.check(_inflated(data), frame)


def decode(data, level=0, bits=16, frame=None):
    return raw.decode(_inflated(data), level, bits, frame)


def _inflated(data):
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise IntegrityError(f"not a deflated image ({error})") from None
'''


@pytest.fixture
def deflated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A codec of one file, registered."""
    (tmp_path / "deflated.py").write_text(DEFLATED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deflated", raising=False)
    module = importlib.import_module("deflated")
    monkeypatch.setitem(codecs.CODECS, module.NAME, module)  # type: ignore[arg-type]
    return module


def test_a_codec_of_one_file_keeps_the_contract_and_is_one_that_tars_take(deflated: Any, tmp_path: Path) -> None:
    assert_codec(deflated)
    assert formats.codecs_of(formats.FORMATS["webdataset"])[-1] == "deflated"
    assert "deflated" not in formats.codecs_of(formats.FORMATS["zarr"])


def test_a_dataset_in_a_codec_of_one_file_is_made_verified_shown_and_loaded(
    deflated: Any, dataset_folder: Path, tmp_path: Path
) -> None:
    done = transcode(str(dataset_folder), Target(str(tmp_path / "new"), "webdataset", "deflated", 0, None), 1)
    assert done.samples > 10
    store, before = Store(str(tmp_path / "new")), Store(str(dataset_folder))
    facts, rows = contents.description(store), contents.samples(store).to_pylist()
    assert (facts.codec, facts.extension, facts.transfer_syntax) == ("deflated", "npz1", None)
    *problems, summary = verify(store.url, True, 1)
    assert problems == []
    assert isinstance(summary, Summary)
    was = {row["key"]: row for row in contents.samples(before).to_pylist()}
    images = {row["key"]: contents.image(store, row, facts) for row in rows}
    for key in list(images)[:3]:
        np.testing.assert_array_equal(images[key], contents.image(before, was[key], contents.description(before)))
    seen = 0
    batching = Packed(tokens=1 << 14, patch=16, level=0, per_step=1)
    for batch in Loader(store.url, batching=batching, split=None, normalise="none", device="cpu"):
        for at, row in enumerate(batch.rows.tolist()):
            if row >= 0:
                np.testing.assert_array_equal(batch.unpacked(at).float().numpy(), images[rows[row]["key"]])
                seen += 1
        if seen > 5:
            break
    with pytest.raises(ArgumentError, match="decoder=dali decodes htj2k"):
        Loader(store.url, batching=batching, split=None, device="cpu", decoder="dali")


def test_a_format_of_one_file_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    form = ModuleType("boxes")
    form.__dict__.update(
        {name: value for name, value in vars(formats.FORMATS["webdataset"]).items() if not name.startswith("__")},
        NAME="boxes",
    )
    with pytest.raises(ArgumentError, match="unknown format 'boxes'"):
        formats.shard_format("boxes")
    monkeypatch.setitem(formats.FORMATS, "boxes", form)  # type: ignore[arg-type]
    described = DatasetDescription.from_content({"shard_format": "boxes", "bins": [[48, 48]], "patch": 48})
    assert formats.form_of(described) is form
    assert_shard_format(formats.shard_format("boxes"), tmp_path)


ARRAYS = '''
"""A source in one file: NumPy arrays, whose patient is the name's first part."""
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from shardkit.errors import Quarantined
from shardkit.privacy import Stated
from shardkit.sources import FileTree
from shardkit.sources.base import Decoded, Identity, ImageFacts, LoadedImage


@dataclass(frozen=True)
class Arrays:
    files: FileTree

    def list(self):
        return self.files.list()

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
    build(
        BuildConfig.of(str(export), out, private, bins="auto:2", workers=1, images=arrays.Arrays, accept_outcome=True)
    )
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
    batches = list(Loader(out, batching=Packed(tokens=1 << 12, patch=16, per_step=1), split=None, device="cpu"))
    assert sum(int((batch.rows >= 0).sum()) for batch in batches) == 6


def test_the_command_line_offers_every_codec_there_is() -> None:
    assert get_args(config.Codec) == tuple(codecs.CODECS)
