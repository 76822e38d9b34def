"""Small datasets and their pages."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit import content, labels
from shardkit.codecs import codec
from shardkit.dataset import describing, manifest
from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint
from shardkit.formats.webdataset import ShardWriter
from shardkit.labels.base import BOXES, KINDS
from shardkit.report import dataset_page
from shardkit.storage import Store
from shardkit.synthetic.radiographs import radiograph, synth_sizes

BINS = Bins((Bin(384, 288), Bin(480, 480), Bin(768, 768)), 48)
VERDICTS = {
    "written": {"ok": 11, "ok_repaired": 1},
    "dropped": {"not_an_image": 1234, "blank": 2},
    "quarantined": {"truncated": 3, "decode_error": 1},
}
SIZES = [(380, 280), (300, 250), (470, 400), (400, 470), (700, 640), (760, 300)]
Made = tuple[pa.Table, DatasetDescription]
Tags = Callable[[str], set[str]]


def _make(folder: Path, codec_name: str = "htj2k", count: int = 12) -> Made:
    """A small dataset: one shard a bin, some flags, a group of near-duplicates."""
    shapes = [SIZES[i % len(SIZES)] for i in range(count)]
    index = BINS.assign(*np.array(shapes, np.int64).reshape(-1, 2).T)
    rows = []
    for number in np.unique(index):
        one = BINS.bins[number]
        shard = f"shards/{one.name}/00000.tar"
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        with ShardWriter(folder / shard) as writer:
            rows += [
                _sample(writer, shard, one, int(i), *shapes[i], codec_name) for i in np.flatnonzero(index == number)
            ]
    samples = pa.Table.from_pylist(rows, manifest.SCHEMA)
    return samples, _describe(samples, BINS, codec_name)


def _describe(samples: pa.Table, bins: Bins, codec_name: str = "htj2k", **changes: Any) -> DatasetDescription:
    """dataset.json as a build would write it, read back from JSON."""
    described = describing.describe(
        samples,
        bins,
        manifest.digest(samples),
        format_name="webdataset",
        codec_name=codec_name,
        fingerprint="0123abcd",
        arguments={"bins": "auto:3", "modalities": ["CR", "DX"]},
        verdicts=VERDICTS,
    )
    return DatasetDescription.from_content(json.loads(described.to_json()) | changes)


def _sample(
    writer: ShardWriter, shard: str, one: Bin, i: int, height: int, width: int, codec_name: str
) -> dict[str, Any]:
    """A manifest row of a synthetic picture that `writer` now holds."""
    module = codec(codec_name)
    pixels = radiograph(height, width, 12, np.random.default_rng(i), "hand")
    box, key, data = content.Box(10, 20, height - 30, width - 40), f"{i:020x}-{i:012x}", module.encode(pixels)
    return {
        "key": key, "shard": shard, "offset": writer.add(key, module.EXTENSION, data, b"{}"), "length": len(data),
        "level_bytes": module.prefixes(data),
        "level_hash": [fingerprint(data[:n]) for n in module.prefixes(data)],
        "height": height, "width": width, "bits": 12, "bin_height": one.height,
        "bin_width": one.width, **{f"box_{k}": v for k, v in asdict(box).items()},
        **asdict(content.statistics(pixels, content.find_content(pixels).mask)), "inverted": i % 2 == 0, "lossy": False,
        "transfer_syntax": "1.2.840.10008.1.2.1", "modality": "DX", "body_part": "hand" if i else None, "view": "PA",
        "manufacturer": "Agfa", "repairs": ["jpeg_sos"] if i == 5 else [], "split": "train" if i % 4 else "test",
        "flags": ["polarity_suspect"] if i in (2, 3) else ["near_duplicate"] if i > 9 else [],
        "group": "g" if i > 9 else None,
    }  # fmt: skip


def _page(folder: Path, samples: pa.Table, description: DatasetDescription) -> str:
    store = Store(str(folder))
    dataset_page.write(store, samples, description)
    return store.get(dataset_page.NAME).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset")


@pytest.fixture(scope="module")
def made(folder: Path) -> Made:
    return _make(folder)


@pytest.fixture(scope="module")
def html(folder: Path, made: Made) -> str:
    """The page of a small dataset."""
    return _page(folder, *made)


@pytest.fixture(scope="module")
def labelled_html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a small dataset with labels of every kind, an official split and boxes."""
    folder = tmp_path_factory.mktemp("labelled") / "dataset"
    samples, description = _make(folder)
    labels.write(Store(str(folder)), _label_table(samples["key"].to_pylist()))
    return _page(folder, samples, description)


def _label_table(keys: list[str], name: str = "own", **columns: Any) -> labels.LabelTable:
    """Of the samples but the last two; other columns of labels by name."""
    n = len(keys) - 2
    values = {
        "Effusion": pa.array([(1, 1, 0, -1, None)[i % 5] for i in range(n)], pa.int8()),
        "Mass": pa.array([1, *[0] * (n - 1)], pa.int8()),
        "projection": pa.array([("ap", "pa", None)[i % 3] for i in range(n)], pa.string()),
        "age": pa.array([None, *range(30, 29 + n)], pa.float64()),
        **columns,
    }
    kinds = {str(name): KINDS[value.type] for name, value in values.items()}
    table = pa.table({"key": keys[:n], **values, "split": ["train" if i < 6 else "test" for i in range(n)]})
    box = {"key": keys[0], "label": "Mass", "top": 38.0, "left": 28.0, "height": 76.0, "width": 70.0}
    described = labels.LabelsDescription(
        name=name, level="image", kinds=kinds, rows={"matched": n, "ambiguous": 0, "unmatched": 3}
    )
    return labels.LabelTable(described, table, pa.Table.from_pylist([box], BOXES))


@pytest.fixture(scope="session")
def label_table() -> Callable[..., labels.LabelTable]:
    """(keys, name, columns) -> a table of labels."""
    return _label_table


@pytest.fixture(scope="session")
def make() -> Callable[..., Made]:
    """(folder, codec's name, samples) -> manifest and description of a small dataset in it."""
    return _make


@pytest.fixture(scope="session")
def describe() -> Callable[..., DatasetDescription]:
    """(manifest, bins, codec's name, changes) -> dataset.json."""
    return _describe


@pytest.fixture(scope="session")
def page() -> Callable[[Path, pa.Table, DatasetDescription], str]:
    """(folder, manifest, description) -> the page, as written."""
    return _page


@pytest.fixture(scope="session")
def many() -> Callable[[int], pa.Table]:
    """A manifest of so many samples over the published sizes and bins, without any pixels behind it."""
    return _many


def _many(n: int) -> pa.Table:
    """A manifest of `n` samples over the published sizes and bins, without any pixels behind it."""
    heights, widths, _ = synth_sizes(n, np.random.default_rng(0))
    at = Bins(THESIS, 48).assign(heights, widths)
    columns: dict[str, Any] = {
        "key": [f"{i:032x}" for i in range(n)],
        "shard": np.char.add("shards/", at.astype(str)).tolist(),
        "length": np.full(n, 1000),
        "offset": np.zeros(n, np.int64),
        "level_bytes": [[1000]] * n,
        "level_hash": [[bytes(16)]] * n,
        "height": heights,
        "width": widths,
        "bits": np.full(n, 12),
        "bin_height": np.array([b.height for b in THESIS])[at],
        "bin_width": np.array([b.width for b in THESIS])[at],
        "body_part": [f"part {i % 50:02d}" for i in range(n)],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in manifest.SCHEMA]
    return pa.Table.from_arrays(arrays, schema=manifest.SCHEMA)
