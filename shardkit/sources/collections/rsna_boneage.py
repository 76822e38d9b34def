"""RSNA Pediatric Bone Age challenge: PNG files of hands; age in months and sex by the number in a file's name."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import numbers

TABLES = {
    "train": Published(
        name="boneage-training-dataset.csv", pattern=r"boneage-training-dataset\.csv", about="bone age and sex"
    ),
    "val": Published(
        name="Validation Dataset.csv",
        pattern=r"(boneage-)?validation[ -]dataset\.csv",
        about="the same of 1,425 images",
        needed=False,
    ),
    "test": Published(
        name="boneage-test-dataset.csv",
        pattern=r"(boneage-test-dataset|bone age ground truth)\.csv",
        about="sex of 200 images",
        needed=False,
    ),
}
_COLUMNS = {
    "image": ("id", "image id", "case id"),
    "months": ("boneage", "bone age (months)", "ground truth bone age (months)"),
    "sex": ("male", "sex"),
}
_SEXES = {"true": "M", "1": "M", "m": "M", "false": "F", "0": "F", "f": "F"}


def _cells(tree: Tree) -> dict[str, list[str | None]]:
    """Return image, months, sex and split of all rows, whatever a table calls its columns."""
    cells: dict[str, list[str | None]] = {name: [] for name in (*_COLUMNS, "split")}
    for split, published in TABLES.items():
        table = tree.table(published)
        if table is None:
            continue
        called = {column.lower(): column for column in table.column_names}
        for name, spellings in _COLUMNS.items():
            column = next((called[one] for one in spellings if one in called), None)
            if column is None and name == "image":
                tree.columns(table, [_COLUMNS["image"][0]], published)
            cells[name] += table[column].to_pylist() if column else [None] * table.num_rows
        cells["split"] += [split] * table.num_rows
    return cells


def _facts(tree: Tree) -> Columns:
    cells = _cells(tree)
    return {"path": _paths(cells), "sex": [_sex(cell) for cell in cells["sex"]]}


def _paths(cells: dict[str, list[str | None]]) -> list[str | None]:
    return [image and f"{image}.png" for image in cells["image"]]


def _sex(cell: str | None) -> str | None:
    return _SEXES.get(cell.lower()) if cell else None


def _labels(tree: Tree) -> dict[str, LabelRows]:
    cells = _cells(tree)
    male = pa.array([None if (sex := _sex(cell)) is None else int(sex == "M") for cell in cells["sex"]], pa.int8())
    months = numbers(pa.array(cells["months"], pa.string()), TABLES["train"].name, "boneage")
    values = pa.table({"boneage": months, "male": male})
    return {"rsna-boneage": tree.rows([path or "" for path in _paths(cells)], values, split=cells["split"])}


COLLECTION = Collection(
    name="rsna-boneage",
    title="RSNA Pediatric Bone Age 2017",
    layout=("boneage-training-dataset/1377.png",),
    images=r"(^|/)\d+\.png$",
    tables=tuple(TABLES.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "HAND"},
    expected={"images": 14_236, "train": 12_611, "val": 1_425, "test": 200},
    traps=(
        "bone age is in months, and no age of the patient: age stays blank",
        "the test table calls its columns otherwise (Case ID), and has no bone age in some releases",
        "a patient has one image: no patient is named",
    ),
    terms="RSNA's terms of the challenge",
    citation="Halabi et al., The RSNA Pediatric Bone Age Machine Learning Challenge, Radiology 2019",
)
