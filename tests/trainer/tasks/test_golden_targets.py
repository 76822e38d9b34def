"""Targets of published tables, which lie in torchxrayvision's wheel: the numbers that published runs learnt from."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardkit.labels import Labels, LabelsDescription, LabelTable
from shardkit.labels.base import KINDS
from shardkit.sources.collections import COLLECTIONS, Tree
from shardkit.sources.files import FileTree
from trainer.tasks.config import TaskConfig

CHEXPERT = ("Edema", "Atelectasis", "Cardiomegaly", "Consolidation", "Pleural Effusion")


def _labels(collection: str, wheel_name: str, name: str, place: Path) -> tuple[Labels, list[str]]:
    """Labels of a collection's table as a run sees them, and the path that each row is of."""
    spec = find_spec("torchxrayvision")  # not imported: that loads torch and models
    assert spec is not None
    assert spec.submodule_search_locations
    tables = Path(next(iter(spec.submodule_search_locations))) / "data"
    shutil.copyfile(next(tables.glob(f"{wheel_name}*.gz")), place / name)
    files = FileTree(str(place))
    rows = COLLECTIONS[collection].labels(Tree(files, files.list()))[collection]
    paths = rows.reference.to_pylist()
    kinds = {name: KINDS[rows.values.schema.field(name).type] for name in rows.values.column_names}
    table = rows.values.append_column("key", pa.array(paths)).append_column("split", pa.nulls(len(paths), pa.string()))
    description = LabelsDescription(name=collection, level="image", kinds=kinds, rows={})
    return LabelTable(description, table).aligned(pa.array(paths)), paths


@pytest.mark.deep
def test_medical_mae_s_policy_gives_chexpert_its_published_positives(tmp_path: Path) -> None:
    labels, paths = _labels("chexpert", "chexpert_train", "train.csv", tmp_path)
    frontal = np.array(["frontal" in path for path in paths])
    task = TaskConfig(labels="chexpert", columns=CHEXPERT, uncertain="zeros", ones=("Edema", "Atelectasis"))
    found = task.made(labels)
    assert found.known.all()  # a blank is a no
    counts = found.values[frontal].sum(0).astype(int)
    assert dict(zip(found.classes, counts.tolist(), strict=True)) == {
        "Edema": 61_493, "Atelectasis": 59_583, "Cardiomegaly": 23_385, "Consolidation": 12_983,
        "Pleural Effusion": 76_899,
    }  # fmt: skip
    # Anything else is another data set: all zeros, all ones.
    other = TaskConfig(labels="chexpert", columns=CHEXPERT).made(labels).values[frontal].sum(0)
    assert (other < counts).tolist() == [True, True, False, False, False]
    ones = TaskConfig(labels="chexpert", columns=CHEXPERT, uncertain="ones").made(labels).values[frontal].sum(0)
    assert (ones > counts).tolist() == [False, False, True, True, True]


@pytest.mark.deep
def test_krones_subset_of_padchest_has_its_published_shares_from_labels_put_together(tmp_path: Path) -> None:
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    labels, paths = _labels("padchest", "PADCHEST", name, tmp_path)
    said = {fact: labels.categories[fact] for fact in ("Projection", "MethodProjection")}
    words = {
        fact: np.array([known[int(i)] if i == i else "" for i in labels.column(fact)], object)
        for fact, known in said.items()
    }
    chosen = np.array([path.partition("/")[0] == "0" for path in paths])
    chosen &= np.isin(words["Projection"], ["PA", "AP"])
    chosen &= words["MethodProjection"] == "Manual review of DICOM fields"
    findings = [name for name in labels.columns if labels.kinds[name] == "binary"]
    groups = {
        finding: [name for name in findings if finding in name] for finding in ("atelectasis", "pleural effusion")
    }
    alone = ("cardiomegaly", "consolidation", "pulmonary edema")
    columns = (*alone, *(name for names in groups.values() for name in names))
    fold = tuple(f"{name}={finding}" for finding, names in groups.items() for name in names)
    found = TaskConfig(labels="padchest", columns=tuple(dict.fromkeys(columns)), fold=fold).made(labels)
    assert found.classes == (*alone, *groups)
    assert chosen.sum() == 1_861
    percent = 100 * found.values[chosen].sum(0) / chosen.sum()
    assert [round(float(share), 2) for share in percent] == [8.70, 0.70, 0, 5.59, 2.85]
