"""A small dataset with labels of every kind, an official split and boxes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from shardkit import labels
from shardkit.build.transcode import Target, transcode
from shardkit.dataset import contents
from shardkit.labels.base import BOXES
from shardkit.storage import Store

KEYS = 30
"""Samples that have labels: the first ones."""


def label_table(keys: list[str], name: str = "site", boxes: int = 3) -> labels.LabelTable:
    """Findings 1, 0, -1 and blank in turn, an age, a projection; a box on the first samples."""
    n = len(keys)
    columns = {
        "key": pa.array(keys),
        "Effusion": pa.array([(1, 0, -1, None)[i % 4] for i in range(n)], pa.int8()),
        "Mass": pa.array([1 if i % 8 == 0 else 0 for i in range(n)], pa.int8()),
        "age": pa.array([None if i % 5 == 0 else 20.0 + i for i in range(n)], pa.float64()),
        "projection": pa.array([("ap", "pa", None)[i % 3] for i in range(n)], pa.string()),
        "split": pa.array([("train", "test", None)[i % 3] for i in range(n)], pa.string()),
    }
    marked = [{"key": key, "label": "Mass", "top": 8.0, "left": 4.0, "height": 16.0, "width": 12.0} for key in keys]
    kinds: dict[str, labels.Kind] = {
        "Effusion": "binary", "Mass": "binary", "age": "number", "projection": "category",
    }  # fmt: skip
    described = labels.LabelsDescription(
        name=name, level="image", kinds=kinds, rows={"matched": n, "ambiguous": 0, "unmatched": 0}
    )
    found = pa.Table.from_pylist(marked[:boxes], BOXES) if boxes else None
    return labels.LabelTable(described, pa.table(columns), found)


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., labels.LabelTable]:
    """(keys, name, how many boxes) -> a table of labels."""
    return label_table


@pytest.fixture(scope="session")
def labelled(synthetic: Callable[[str], Path], form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of synthetic radiographs of which the first thirty have labels. Tests only read it."""
    place, tars = tmp_path_factory.mktemp("labelled") / form, synthetic("webdataset")
    if form == "webdataset":
        shutil.copytree(tars, place)
    else:  # faster than another build
        transcode(str(tars), Target(str(place), form, "blosc", 5, 64 << 10), 1)
    store = Store(str(place))
    keys = contents.samples(store, ["key"])["key"].to_pylist()
    labels.write(store, label_table(keys[:KEYS]))
    return place
