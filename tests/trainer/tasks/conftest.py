"""The small dataset with labels that can be learnt from its images' sizes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.storage import Store
from trainer.commands.cli import run as command

SMALL = """
--model.width 32 --model.depth 1 --model.heads 2
--loader.batching packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop --optim.eps 1e-4
--run.steps 12 --val.every 3 --save.every 4 --log.every 1 --log.pictures 0 --select.patience 0
"""


def _sizes(row: dict[str, Any], at: int) -> dict[str, Any]:
    """high and wide are of the image; never is not; one in five is blank, one in seven uncertain."""
    height, width = row["height"], row["width"]
    return {
        "high": -1 if at % 7 == 0 else int(height > 150),
        "wide": None if at % 5 == 0 else int(width > 110),
        "never": 0,
        "shape": "flat" if height < width else "square" if height < 1.2 * width else "upright",
        "rows": float(height),
    }


_KINDS: dict[str, Any] = {"high": "binary", "wide": "binary", "never": "binary", "shape": "category", "rows": "number"}
_TYPES = {"binary": pa.int8(), "category": pa.string(), "number": pa.float64()}


def put_labels(dataset: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Write labels of most samples; `change` gets the rows, with `key`, `patient` and `split`, and may change them."""
    samples = pq.read_table(dataset / "manifest.parquet", columns=["key", "patient", "split", "height", "width"])
    rows = []
    for at, sample in enumerate(samples.to_pylist()):
        if at % 11:  # the others have no row
            rows.append({"key": sample["key"], "patient": sample["patient"], "split": None, **_sizes(sample, at)})
    change(rows)
    schema = pa.schema([("key", pa.string()), *((n, _TYPES[k]) for n, k in _KINDS.items()), ("split", pa.string())])
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)
    counts = {"matched": len(rows), "ambiguous": 0, "unmatched": 0}
    description = LabelsDescription(name=name, level="image", kinds=_KINDS, rows=counts)
    labels.write(Store(str(dataset)), LabelTable(description, table.sort_by("key")))


def by_patient(rows: list[dict[str, Any]]) -> None:
    """Give rows an official split that parts no patient."""
    for row in rows:
        row["split"] = ("train", "train", "val", "test")[int(row["patient"][:8], 16) % 4]


def _by_image(rows: list[dict[str, Any]]) -> None:
    for at, row in enumerate(rows):
        row["split"] = ("train", "train", "val", "test")[at % 4]


def _without_val(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["split"] = ("train", "test")[int(row["patient"][:8], 16) % 2]


def _no_split(rows: list[dict[str, Any]]) -> None:
    """The dataset's own goes."""


TABLES = {"plain": _no_split, "sizes": by_patient, "leaky": _by_image, "two": _without_val}


@pytest.fixture(scope="session")
def labelled_dataset(synthetic: Callable[[str], Path], kept: Callable[..., Path]) -> Path:
    """The synthetic radiographs with labels: plain, and with official splits by patient, by image, and without val."""

    def make(place: Path) -> None:
        shutil.copytree(synthetic("webdataset"), place / "dataset")
        for name, change in TABLES.items():
            put_labels(place / "dataset", name, change)

    return kept("labelled-sizes", make) / "dataset"


@pytest.fixture
def own_dataset(labelled_dataset: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(labelled_dataset, tmp_path / "own")


@pytest.fixture
def words(labelled_dataset: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """(command, options instead of the small ones) -> the words of a command."""

    def make(what: str = "finetune", *more: str) -> list[str]:
        small, pairs = SMALL.split(), {"--data": str(labelled_dataset), "--out": str(tmp_path / "run")}
        pairs |= dict(zip(small[::2], small[1::2], strict=True)) | {
            "--labels": "sizes",
            "--loader.split": "sizes:train",
        }
        return [what, *(w for pair in (pairs | dict(zip(more[::2], more[1::2], strict=True))).items() for w in pair)]

    return make


@pytest.fixture
def refused(words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(as of `words`) -> the sentence that the command ends with."""

    def run(*more: str) -> str:
        capsys.readouterr()
        assert command(words(*more)) == 1
        return " ".join(capsys.readouterr().err.split())

    return run
